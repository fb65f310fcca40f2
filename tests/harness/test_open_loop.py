"""Trials with arrivals, several drivers, batches and windows; and which of them are not to be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.harness import load as load_module
from benchmarks.harness import measure as measure_module
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.checker import Verdict
from benchmarks.harness.environment import Environment
from benchmarks.harness.load import Arrivals, Offered
from benchmarks.harness.measure import Settings, measure
from benchmarks.harness.records import Trial
from benchmarks.harness.statistics import Speed
from strategies.interface import Caller, load
from tests.harness.own import own, speed_cell

SHORT = Settings(seconds=0.4, warmup_s=0.1)


def measured(
    class_name: str, environment: Environment, *, settings: Settings = SHORT, seed: int = 5, **cell: Any
) -> Trial:
    return measure(speed_cell(class_name, **cell), environment, settings, repeat=0, seed=seed)


def assert_sound(trial: Trial) -> None:
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert (trial.acknowledged_lost, trial.duplicated, trial.torn) == (0, 0, 0)
    assert (trial.conserved, trial.linearizable) == (True, "yes")


# -- arrivals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", [Arrivals.POISSON, Arrivals.CONSTANT])
def test_an_open_loop_at_a_rate_that_is_kept(arrivals: Arrivals, environment: Environment) -> None:
    trial = measured("Plain", environment, clients=4, arrivals=arrivals, rate_per_s=1000.0)
    assert_sound(trial)
    assert (trial.arrivals, trial.offered_per_s, trial.latency_kind) == (arrivals, 1000.0, "response")
    assert trial.operations == pytest.approx(400, abs=2 if arrivals is Arrivals.CONSTANT else 6 * 400**0.5)
    assert trial.seconds == pytest.approx(0.4)
    assert trial.achieved_ratio is not None
    assert trial.achieved_ratio > 0.9
    assert trial.generator_lag_us_p99 is not None
    assert trial.generator_share is None
    assert trial.generator_cpu is not None
    assert trial.generator_cpu > 0


def test_the_same_seed_offers_the_same(environment: Environment) -> None:
    form: dict[str, Any] = {"clients": 2, "workload": "hot", "arrivals": Arrivals.POISSON, "rate_per_s": 800.0}
    counts = []
    for seed in (5, 5, 6):
        diary: Any = load(own("Diary"))
        diary.written.clear()
        measured("Diary", environment, seed=seed, **form)
        first_load = next(iter(diary.written)).rpartition("-")[0]
        of_load = [operations for session, operations in diary.written.items() if session.startswith(first_load)]
        counts.append(sum(map(len, of_load)))
    assert counts[0] == counts[1] != counts[2]


def test_a_stall_is_felt_by_all_that_were_due_in_it(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed loop sends nobody into the stall but those whom it catches: its p99 does not know of it."""
    # The load that stalls is the one to measure, also where the machine's speed drifts meanwhile.
    monkeypatch.setattr(measure_module, "_WARMUP_ROUNDS", 1)
    settings = Settings(seconds=1.2, warmup_s=0.0)
    form: dict[str, Any] = {"workload": "hot", "clients": 2, "settings": settings}
    stalling: Any = load(own("Stalls"))
    opened = measured("Stalls", environment, arrivals=Arrivals.CONSTANT, rate_per_s=500.0, **form)
    closed = measured("Stalls", environment, **form)
    assert opened.status == closed.status == Status.OK
    stall_us = stalling.STALL_S * 1e6
    assert opened.latency_us_p90 is not None
    assert closed.latency_us_p99 is not None
    assert opened.latency_us_p90 > 0.3 * stall_us  # a quarter of all were due in the stall
    assert closed.latency_us_p99 < 0.03 * stall_us
    assert_sound(opened)


def test_more_than_can_be_served(environment: Environment) -> None:
    trial = measured("SlowDiary", environment, workload="hot", clients=1, arrivals=Arrivals.POISSON, rate_per_s=5000.0)
    assert_sound(trial)
    assert trial.achieved_ratio is not None
    assert trial.achieved_ratio < 0.5
    assert not trial.trusted
    assert "more was offered than is served" in (trial.distrust or "")
    assert (trial.latency_us_p999, trial.latency_us_max) == (None, None), "the slowest were never sent"


def test_a_rate_at_which_nothing_is_due_in_time(environment: Environment) -> None:
    trial = measured("Plain", environment, arrivals=Arrivals.POISSON, rate_per_s=0.001)
    assert trial.status == Status.FAILED
    assert "nothing was sent in the load's time; offer more, or measure longer" in (trial.reason or "")


def test_a_rate_at_which_little_is_due(environment: Environment) -> None:
    trial = measured("Plain", environment, arrivals=Arrivals.CONSTANT, rate_per_s=20.0)
    assert trial.status == Status.OK
    assert "only 8 operations were measured" in (trial.distrust or "")


def test_from_tasks(environment: Environment) -> None:
    cell = Cell("driver_dict", "default", "ycsb_a", Caller.TASK, 4, arrivals=Arrivals.POISSON, rate_per_s=200.0)
    trial = measure(cell, environment, Settings(seconds=0.8, warmup_s=0.2), repeat=0, seed=5)
    assert_sound(trial)
    assert trial.latency_kind == "response"
    assert trial.operations == pytest.approx(160, abs=6 * 160**0.5)


def test_each_kind_of_error_is_counted_as_what_it_is(environment: Environment) -> None:
    forms: list[dict[str, Any]] = [{}, {"arrivals": Arrivals.CONSTANT, "rate_per_s": 1000.0}]
    for form in forms:
        trial = measured("RaisesEachKind", environment, workload="hot", **form)
        assert trial.status == Status.OK
        assert trial.acknowledged
        assert trial.indeterminate == pytest.approx(trial.acknowledged / 4, abs=1)
        assert (trial.acknowledged_lost, trial.duplicated, trial.indeterminate_applied) == (0, 0, 0)
        if form:
            assert trial.achieved_ratio == pytest.approx(0.5, abs=0.1)


# -- several drivers -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"arrivals": Arrivals.POISSON, "rate_per_s": 400.0}])
def test_from_several_driver_processes(form: dict[str, Any], environment: Environment) -> None:
    cell = Cell("driver_dict", "default", "ycsb_a", Caller.DRIVER, 4, drivers=2, **form)
    trial = measure(cell, environment, Settings(seconds=0.6, warmup_s=0.2), repeat=0, seed=5)
    assert_sound(trial)
    assert trial.drivers == 2
    assert trial.operations
    if form:
        assert trial.operations == pytest.approx(240, abs=6 * 240**0.5)
        assert trial.latency_us_p50 is not None


def test_a_handle_that_cannot_travel_is_not_asked_to(environment: Environment) -> None:
    trial = measured("Plain", environment, drivers=2)
    assert trial.status == Status.NOT_APPLICABLE
    assert "claims no handles that other processes can use" in (trial.reason or "")


# -- batches and windows ---------------------------------------------------------------------------


def test_batches(environment: Environment) -> None:
    batches: Any = load(own("Batches"))
    batches.sizes.clear()
    trial = measured("Batches", environment, batch=10)
    assert_sound(trial)
    assert trial.batch == 10
    assert trial.operations
    assert max(batches.sizes) == 10
    assert sum(size == 10 for size in batches.sizes) > 0.9 * len(batches.sizes)


def test_a_rejection_within_a_batch_is_its_own_operation_s(environment: Environment) -> None:
    trial = measured("Superstitious", environment, workload="hot", batch=10)
    assert trial.status == Status.OK
    assert trial.operations
    assert trial.acknowledged
    assert (trial.acknowledged_lost, trial.duplicated, trial.conserved) == (0, 0, True)
    assert trial.distrust == "the answers do not fit the final balances: wrong_rejection"


def test_a_batch_that_fills_slowly_is_not_sent_late(environment: Environment) -> None:
    """Its first operation waits for its last: that is response time, and not the generator's lag."""
    trial = measured("Batches", environment, batch=20, arrivals=Arrivals.CONSTANT, rate_per_s=500.0)
    assert_sound(trial)
    assert trial.generator_lag_us_p99 is not None
    assert trial.latency_us_p90 is not None
    assert trial.generator_lag_us_p99 < 0.5 * trial.latency_us_p90


def test_a_batch_of_which_nobody_knows(environment: Environment) -> None:
    trial = measured("UnsureOfBatches", environment, workload="hot", batch=8)
    assert_sound(replace(trial, conserved=True))
    assert trial.indeterminate
    assert trial.acknowledged
    assert trial.indeterminate % 8 == 0 or trial.indeterminate > trial.acknowledged / 10
    assert trial.conserved is not False


def test_a_batch_that_is_not_answered_in_full(environment: Environment) -> None:
    trial = measured("AnswersTooLittle", environment, workload="hot", batch=8)
    assert trial.status == Status.FAILED
    assert trial.reason == "RuntimeError: a batch of 8 operations got 7 answers"


@pytest.mark.parametrize("form", [{}, {"arrivals": Arrivals.POISSON, "rate_per_s": 2000.0}])
@pytest.mark.parametrize("window", [1, 8])
def test_windows(window: int, form: dict[str, Any], environment: Environment) -> None:
    trial = measured("Pipelines", environment, window=window, **form)
    assert_sound(trial)
    assert trial.window == window
    assert trial.operations
    assert trial.operations > 100


def test_what_is_submitted_and_never_answered(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = load_module.shares

    def impatient(*arguments: Any, **options: Any) -> list[Any]:
        return [replace(share, patience_s=0.2) for share in shares(*arguments, **options)]

    monkeypatch.setattr(load_module, "shares", impatient)
    trial = measured("NeverAnswers", environment, window=4)
    assert trial.status == Status.FAILED
    assert trial.reason == "TimeoutError: an operation that was submitted is not done after 0.2 s"


@pytest.mark.parametrize(("form", "what"), [({"batch": 4}, "batched calls"), ({"window": 4}, "pipelined calls")])
def test_forms_that_are_not_claimed_are_not_emulated(form: dict[str, Any], what: str, environment: Environment) -> None:
    trial = measured("Plain", environment, **form)
    assert trial.status == Status.NOT_APPLICABLE
    assert f"claims no {what}" in (trial.reason or "")


# -- what is not to be trusted ---------------------------------------------------------------------


def test_what_never_settles_says_so(environment: Environment) -> None:
    trial = measured("SlowsDown", environment, workload="hot", clients=1)
    assert trial.status == Status.OK
    assert not trial.trusted
    assert "no steady state within 2.0 s of load" in (trial.distrust or "")
    assert trial.warmup_s == pytest.approx(3 * 0.5 + 0.1)
    assert trial.warmup_operations
    assert_sound(trial)


def test_a_generator_that_takes_most_of_the_time_says_so() -> None:
    assert doubted(speed_of(generator_share=0.51)) == ["the load generator took 51% of its clients' time"]
    assert doubted(speed_of(generator_share=0.5)) == []


def test_a_generator_that_computes_for_the_strategy_is_not_trusted(environment: Environment) -> None:
    """Four clients whose calls need more than the one core that a process can use."""
    form: dict[str, Any] = {"workload": "hot", "clients": 4, "arrivals": Arrivals.POISSON, "rate_per_s": 1500.0}
    hogs, sleeps = measured("Hogs", environment, **form), measured("SlowDiary", environment, **form)
    assert hogs.status == sleeps.status == Status.OK
    assert not hogs.trusted
    assert hogs.generator_cpu is not None
    assert sleeps.generator_cpu is not None
    assert hogs.generator_cpu > 1.5 * sleeps.generator_cpu


def speed_of(**changes: Any) -> Speed:
    usual = Speed(1.0, 1000, 1000.0, {"p50": 100.0, "p90": 200.0, "p99": 900.0, "p999": None, "max": 5e3}, 0)
    return replace(usual, **changes)


SOUND = Verdict(
    acknowledged=1000,
    acknowledged_lost=0,
    duplicated=0,
    torn=0,
    indeterminate=0,
    indeterminate_applied=0,
    conserved=True,
    linearizable="yes",
)


def doubted(measured_speed: Speed, verdict: Verdict = SOUND, **offered: Any) -> list[str]:
    """What is held against a trial with these figures."""
    nothing: Any = None
    usual: dict[str, Any] = {
        "history": nothing,
        "due_s": nothing,
        "generator_cpu": 0.1,
        "stood_still_s": 0.0,
        "stopped_full": 0,
    }
    return measure_module._doubts(speed_cell("Plain", clients=4), Offered(**usual | offered), measured_speed, verdict)


@pytest.mark.parametrize(
    ("figures", "offered", "doubt"),
    [
        ({"operations": 99}, {}, "only 99 operations were measured"),
        ({}, {"stood_still_s": 0.3}, "the load generator stood still for 0.30 s"),
        ({}, {"stopped_full": 2}, "2 clients stopped at the most operations that a trial records"),
        (
            {"achieved_ratio": 0.98},
            {"generator_cpu": 0.95},
            "98.0% of what was offered was achieved, with a load generator that used 0.95 cores; use more --drivers",
        ),
        ({"generator_lag_us_p99": 2500.0}, {}, "the load generator sent 2.5 ms late (p99)"),
    ],
)
def test_every_doubt(figures: dict[str, Any], offered: dict[str, Any], doubt: str) -> None:
    (found,) = doubted(speed_of(**figures), **offered)
    assert found.startswith(doubt)


@pytest.mark.parametrize(
    ("figures", "offered"),
    [
        ({}, {}),
        ({"operations": 100}, {}),
        ({}, {"stood_still_s": 0.2}),
        ({"achieved_ratio": 0.98}, {"generator_cpu": 0.5}),  # the backend's limit, not the generator's
        ({"achieved_ratio": 1.0}, {"generator_cpu": 0.99}),
        ({"generator_lag_us_p99": 1900.0}, {}),
        ({"generator_lag_us_p99": 5000.0, "latency_us": {"p99": 60_000.0}}, {}),  # little beside the latency
    ],
)
def test_no_doubt(figures: dict[str, Any], offered: dict[str, Any]) -> None:
    assert doubted(speed_of(**figures), **offered) == []


@pytest.mark.parametrize(
    "wrong", [{"acknowledged_lost": 1}, {"duplicated": 1}, {"torn": 1}, {"conserved": False}, {"linearizable": "no"}]
)
def test_wrong_answers_are_doubted(wrong: dict[str, Any]) -> None:
    assert doubted(speed_of(), replace(SOUND, **wrong)) == ["the answers do not fit the final balances"]


def test_all_doubts_are_told() -> None:
    found = doubted(speed_of(operations=5, generator_lag_us_p99=9e9), stopped_full=1)
    assert len(found) == 3
