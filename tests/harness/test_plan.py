"""A run's plan: what it refuses, how it is kept, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.harness import cli, workloads
from benchmarks.harness.generator import Retry
from benchmarks.harness.load import Arrivals
from benchmarks.harness.measure import QUICK, Settings
from benchmarks.harness.plan import (
    FAILURE_REPEATS,
    QUICK_FAULTS,
    SHORT_FAULTS,
    SHORT_RETRIES,
    Plan,
    UsageError,
    checked,
    fault_named,
    rows_of,
    spelled_workloads,
)
from strategies.interface import Caller, Fault, Resource, UnknownStrategy, load, names

USUAL = Plan(
    quick=False,
    strategies=tuple(names()),
    workloads=tuple(workloads.names()),
    callers=tuple(Caller),
    faults=tuple(Fault),
    clients=16,
    repeats=6,
    seconds=None,
    seed=1,
)
DRIVER_ONLY: dict[str, Any] = {"callers": ("driver",)}


# -- what it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clients": 0}, "--clients must be 1 to 256, not 0"),
        ({"clients": -3}, "--clients must be 1 to 256, not -3"),
        ({"clients": 257}, "--clients must be 1 to 256, not 257"),
        ({"drivers": 0}, "--drivers must be 1 to 64"),
        ({"drivers": 65}, "--drivers must be 1 to 64"),
        ({"shards": 0}, "--shards must be 1 to 1024"),
        ({"shards": 1025}, "--shards must be 1 to 1024"),
        ({"batch": 0}, "--batch must be 1 to 10000"),
        ({"batch": 10_001}, "--batch must be 1 to 10000"),
        ({"window": 0}, "--window must be 1 to 100000"),
        ({"window": 100_001}, "--window must be 1 to 100000"),
        ({"repeats": 0}, "--repeats must be 1 to 1000"),
        ({"repeats": 1001}, "--repeats must be 1 to 1000"),
        ({"seconds": 0.0}, "--seconds must be above 0 and at most 3600, not 0"),
        ({"seconds": -1.0}, "--seconds must be above 0"),
        ({"seconds": float("nan")}, "--seconds must be above 0"),
        ({"seconds": float("inf")}, "--seconds must be above 0"),
        ({"seconds": 3601.0}, "at most 3600"),
        ({"rate_per_s": 0.0, "arrivals": "poisson"}, "--rate must be above 0"),
        ({"rate_per_s": -1.0, "arrivals": "poisson"}, "--rate must be above 0"),
        ({"rate_per_s": float("nan"), "arrivals": "poisson"}, "--rate must be above 0"),
        ({"rate_per_s": float("inf"), "arrivals": "poisson"}, "--rate must be above 0"),
        ({"rate_per_s": 1.1e7, "arrivals": "constant"}, "at most 10,000,000"),
        ({"rate_per_s": 100.0}, "a --rate needs one of them"),
        ({"arrivals": "poisson"}, "need a --rate"),
        ({"arrivals": "constant"}, "need a --rate"),
        ({"drivers": 17, **DRIVER_ONLY}, "17 driver processes need as many --clients, not 16"),
        ({"drivers": 2}, "add --caller driver"),
        ({"drivers": 2, "callers": ("task",)}, "add --caller driver"),
        ({"batch": 10, "window": 10}, "choose one"),
        ({"retries": ("never",)}, "--retry must be none, naive, op_id, not 'never'"),
        ({"fault_callers": ("worker",)}, "--caller must be driver, task, not 'worker'"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        replace(USUAL, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"clients": 1, "repeats": 1},
        {"clients": 256, "drivers": 64, **DRIVER_ONLY},
        {"shards": 1024},
        {"batch": 10_000},
        {"window": 100_000},
        {"seconds": 3600.0},
        {"seconds": 0.001},
        {"rate_per_s": 1e7, "arrivals": "constant"},
        {"rate_per_s": 0.5, "arrivals": "poisson"},
    ],
)
def test_what_is_just_possible(changes: dict[str, Any]) -> None:
    assert replace(USUAL, **changes).recorded()


def test_a_strategys_variants() -> None:
    sharded = next(name for name in names() if len(load(name).capabilities.variants) > 1)
    variants = load(sharded).capabilities.variants
    assert rows_of(sharded) == [(sharded, variant) for variant in variants]
    assert rows_of(f"{sharded}:{variants[0]}") == [(sharded, variants[0])]
    with pytest.raises(UsageError, match=f"{sharded} has no variant 'nonsense'; it has {variants[0]}"):
        rows_of(f"{sharded}:nonsense")
    with pytest.raises(UnknownStrategy):
        rows_of("nonsense")


def test_faults_by_name() -> None:
    assert [fault_named(fault.value) for fault in Fault] == list(Fault)
    with pytest.raises(UsageError, match="no fault is called 'boredom'; there are "):
        fault_named("boredom")
    assert checked(list(Fault), fault_named) == tuple(Fault)
    with pytest.raises(UsageError):
        checked([*Fault, "boredom"], fault_named)


# -- what is measured ------------------------------------------------------------------------------


def test_every_cell_is_measured_once_in_each_block() -> None:
    plan = replace(USUAL, repeats=3)
    speed = len(plan.rows) * len(plan.workloads) * 2
    trials = [(cell, repeat) for cell, repeat in plan.trials() if cell.fault is None]
    for repeat in range(3):
        block = trials[repeat * speed : (repeat + 1) * speed]
        assert {number for _, number in block} == {repeat}
        assert Counter(cell for cell, _ in block) == Counter(plan.speed_cells())


def test_blocks_are_shuffled_each_in_its_own_way_by_the_seed() -> None:
    def order(seed: int, repeat: int) -> list[Any]:
        return [cell for cell, number in replace(USUAL, seed=seed, faults=()).trials() if number == repeat]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_faults_come_last_and_in_a_quick_run_once() -> None:
    for quick, repeats in ((False, 6), (True, 1)):
        kinds = [(cell.fault is not None) for cell, _ in replace(USUAL, quick=quick).trials()]
        assert kinds == sorted(kinds)
        broken = [repeat for cell, repeat in replace(USUAL, quick=quick).trials() if cell.fault is not None]
        assert set(broken) == set(range(repeats))


def test_the_form_of_the_load_is_in_every_cell() -> None:
    form: dict[str, Any] = {"drivers": 2, "shards": 8, "window": 32, "rate_per_s": 500.0}
    plan = replace(USUAL, arrivals="poisson", **form, **DRIVER_ONLY)
    for cell in plan.speed_cells():
        assert {name: getattr(cell, name) for name in form} == form
        assert cell.arrivals is Arrivals.POISSON
    assert replace(USUAL, batch=100).speed_cells()[0].batch == 100


def test_seconds_are_those_asked_for() -> None:
    assert USUAL.settings == Settings()
    assert replace(USUAL, quick=True).settings == QUICK
    assert replace(USUAL, quick=True, seconds=2.5).settings == replace(QUICK, seconds=2.5)


# -- how it is kept --------------------------------------------------------------------------------

KEPT = [
    USUAL,
    replace(USUAL, quick=True, seconds=0.1, faults=()),
    replace(USUAL, drivers=2, window=7, arrivals=Arrivals.CONSTANT, rate_per_s=123_456.789, **DRIVER_ONLY),
    replace(USUAL, batch=10_000, shards=3, workloads=("ycsb_a:accounts=1000,zipf=1.2",)),
]


@pytest.mark.parametrize("plan", KEPT)
def test_a_plan_comes_back_from_its_record(plan: Plan) -> None:
    back = Plan.of_record(json.loads(json.dumps(plan.recorded(), allow_nan=False)))
    assert back == plan
    assert back.trials() == plan.trials()
    assert back.recorded() == plan.recorded()


def test_an_older_record_has_no_form_of_the_load() -> None:
    recorded = {
        name: value
        for name, value in USUAL.recorded().items()
        if name not in ("drivers", "shards", "batch", "window", "arrivals", "rate_per_s")
    }
    assert Plan.of_record(recorded) == USUAL


@pytest.mark.parametrize(
    "damage",
    [
        {"clients": "many"},
        {"clients": None},
        {"seconds": "long"},
        {"clients": 0},
        {"unheard_of": 1},
        {"rate_per_s": [1]},
        {"arrivals": "bursts", "rate_per_s": 5.0},
        {"callers": ["neighbour"]},
        {"faults": ["boredom"]},
    ],
)
def test_a_record_that_cannot_be_continued(damage: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Plan.of_record(USUAL.recorded() | damage)


def test_a_record_that_lacks_something() -> None:
    recorded = USUAL.recorded()
    del recorded["seed"]
    with pytest.raises(UsageError, match="not one that this program can continue"):
        Plan.of_record(recorded)


# -- its command -----------------------------------------------------------------------------------


def parsed(command: str) -> dict[str, Any]:
    """The options that the command line reads from it."""
    python, minus_m, program, name, *arguments = shlex.split(command)
    assert (python, minus_m, program) == ("python", "-m", "benchmarks")
    of_name: Any = typer.main.get_command(cli.app)
    with of_name.commands[name].make_context(name, arguments) as context:
        return dict(context.params)


def test_the_usual_run_is_a_short_command() -> None:
    assert USUAL.command("run", None, {}) == "python -m benchmarks run --clients 16 --seed 1 --repeats 6"


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"strategy": None, "workload": None, "fault": None, "caller": None}),
        (
            {"quick": True, "workloads": workloads.QUICK, "faults": QUICK_FAULTS},
            {"quick": True, "workload": None, "fault": None},
        ),
        ({"retries": ("naive", "op_id")}, {"retry": [Retry.NAIVE, Retry.OP_ID], "fault": None}),
        ({"quick": True}, {"quick": True, "workload": workloads.names(), "fault": list(Fault)}),
        ({"strategies": tuple(names()[:2])}, {"strategy": names()[:2]}),
        ({"faults": ()}, {"workload": workloads.names(), "fault": None}),
        ({"workloads": ()}, {"workload": None, "fault": list(Fault)}),
        ({"workloads": ("hot",), "faults": (Fault.WORKER_KILL,)}, {"workload": ["hot"], "fault": ["worker_kill"]}),
        ({"faults": (Fault.WORKER_KILL,)}, {"workload": workloads.names(), "fault": ["worker_kill"]}),
        ({"workloads": ("hot:accounts=500,zipf=1.2",), "faults": ()}, {"workload": ["hot:accounts=500,zipf=1.2"]}),
        ({"workloads": ("hot:accounts=500",)}, {"workload": ["hot:accounts=500"], "fault": list(Fault)}),
        ({"callers": ("task",)}, {"caller": Caller.TASK}),
        ({"seconds": 0.1234567}, {"seconds": 0.1234567}),
        ({"rate_per_s": 1_234_567.5, "arrivals": "poisson"}, {"rate": 1_234_567.5, "arrivals": Arrivals.POISSON}),
        ({"batch": 10_000, "shards": 1024}, {"batch": 10_000, "shards": 1024}),
        ({"window": 100_000, "repeats": 1000}, {"window": 100_000, "repeats": 1000}),
        ({"drivers": 4, "clients": 8, **DRIVER_ONLY}, {"drivers": 4, "clients": 8, "caller": Caller.DRIVER}),
        ({"seed": 2**32 - 1}, {"seed": 2**32 - 1}),
    ],
)
def test_the_command_measures_the_same_again(changes: dict[str, Any], options: dict[str, Any]) -> None:
    plan = replace(USUAL, **changes)
    found = parsed(plan.command("run", None, {}))
    wanted = {"clients": plan.clients, "repeats": plan.repeats, "seed": plan.seed, "quick": plan.quick, **options}
    assert {name: found[name] or None for name in wanted} == {name: value or None for name, value in wanted.items()}


FAILURES = replace(
    USUAL,
    quick=True,
    workloads=(),
    repeats=FAILURE_REPEATS,
    retries=tuple(Retry),
    fault_callers=tuple(Caller),
)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"short": False, "fault": None, "retry": None, "caller": None}),
        (
            {"faults": SHORT_FAULTS, "retries": SHORT_RETRIES, "fault_callers": (), "repeats": 1},
            {"short": True, "fault": None, "retry": None},
        ),
        ({"faults": (Fault.DISK_FULL,)}, {"fault": ["disk_full"]}),
        ({"retries": (Retry.NAIVE,)}, {"retry": [Retry.NAIVE]}),
        ({"callers": ("task",), "fault_callers": ("task",)}, {"caller": Caller.TASK}),
        ({"strategies": tuple(names()[:1])}, {"strategy": names()[:1]}),
    ],
)
def test_the_failure_matrix_is_measured_again_by_its_command(changes: dict[str, Any], options: dict[str, Any]) -> None:
    plan = replace(FAILURES, **changes)
    found = parsed(plan.command("failures", None, {}))
    wanted = {"repeats": plan.repeats, "seed": plan.seed, **options}
    assert {name: found[name] or None for name in wanted} == {name: value or None for name, value in wanted.items()}


@pytest.mark.parametrize("name", ["run", "search", "sweep"])
def test_every_command_takes_the_options_that_are_written_for_it(name: str) -> None:
    """A file's path may have spaces."""
    strategy = "/home/a user/own accounts.py:Plain"
    plan = replace(
        USUAL, strategies=(strategy,), workloads=("ycsb_a",), faults=(), drivers=2, seconds=1.5, shards=4, **DRIVER_ONLY
    )
    found = parsed(plan.command(name, "tcp://127.0.0.1:8786", {}))
    assert found["strategy"] == [strategy]
    assert (found["drivers"], found["seconds"], found["shards"]) == (2, 1.5, 4)
    assert found["scheduler"] == "tcp://127.0.0.1:8786"


def test_a_command_tells_no_secret() -> None:
    command = USUAL.command("run", None, {Resource.REDIS: "redis://user:hunter2@example.org:6379/0"})
    assert "hunter2" not in command
    assert "--redis-url" in command
    assert parsed(command)["out"] == Path("results/runs")


def test_workloads_are_spelled_as_records_have_them() -> None:
    assert spelled_workloads(["ycsb_a:zipf=0.99", "hot"], 50, None) == ("ycsb_a:accounts=50", "hot:accounts=50")
