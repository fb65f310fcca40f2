"""The measuring function finds planted bugs in strategies that a user could bring, and clears a correct one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import workloads
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.environment import Environment
from benchmarks.harness.history import BALANCE, TRANSFER
from benchmarks.harness.measure import Settings, footprint, measure, trial_seed
from benchmarks.harness.records import Trial
from strategies.interface import Caller, load, names
from tests.harness.own import own, speed_cell

SHORT = Settings(seconds=0.15, warmup_s=0.05)

# The keys that the project's design promises for a line of trials.jsonl: other programs rely on them.
KEYS = [
    "strategy",
    "variant",
    "workload",
    "caller",
    "clients",
    "batch",
    "window",
    "accounts",
    "zipf_theta",
    "drivers",
    "shards",
    "arrivals",
    "repeat",
    "seed",
    "status",
    "reason",
    "durability",
    "seconds",
    "operations",
    "ops_per_s",
    "offered_per_s",
    "achieved_ratio",
    "warmup_s",
    "warmup_operations",
    "generator_cpu",
    "generator_share",
    "generator_lag_us_p99",
    "latency_us_p50",
    "latency_us_p90",
    "latency_us_p99",
    "latency_us_p999",
    "latency_us_max",
    "latency_kind",
    "fault",
    "retry",
    "fault_at_s",
    "fault_lasts_s",
    "fault_target",
    "history",
    "acknowledged_lost_amount",
    "goodput_before_per_s",
    "goodput_during_per_s",
    "goodput_after_per_s",
    "unknown_share",
    "probes",
    "violations",
    "acknowledged",
    "acknowledged_lost",
    "duplicated",
    "torn",
    "indeterminate",
    "indeterminate_applied",
    "unavailable_s",
    "detection_s",
    "recovery_s",
    "conserved",
    "linearizable",
    "verdict",
    "trusted",
    "distrust",
]


def measured(class_name: str, environment: Environment, **cell: Any) -> Trial:
    return measure(speed_cell(class_name, **cell), environment, SHORT, repeat=0, seed=5)


# -- planted bugs ----------------------------------------------------------------------------------


def test_a_correct_strategy_of_the_users_own(environment: Environment) -> None:
    trial = measured("Plain", environment)
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.acknowledged
    assert (trial.acknowledged_lost, trial.duplicated, trial.indeterminate) == (0, 0, 0)
    assert (trial.conserved, trial.linearizable) == (True, "yes")
    assert (trial.trusted, trial.distrust) == (True, None)
    assert "own_accounts" in trial.strategy


def test_lost_deposits_are_found(environment: Environment) -> None:
    trial = measured("LosesEveryTenth", environment)
    assert trial.status == Status.OK
    assert trial.acknowledged
    assert trial.acknowledged_lost
    # Each tenth receipt is written over by the next one, or is beyond the final state.
    assert trial.acknowledged_lost == pytest.approx(trial.acknowledged / 10, abs=2)
    assert (trial.conserved, trial.linearizable, trial.trusted) == (False, "no", False)
    assert trial.distrust


def test_doubled_deposits_are_found(environment: Environment) -> None:
    trial = measured("DoublesEveryTenth", environment)
    assert trial.acknowledged
    assert trial.duplicated == trial.acknowledged // 10
    assert (trial.acknowledged_lost, trial.conserved, trial.trusted) == (0, False, False)


def test_deposits_that_were_refused_and_applied_are_found(environment: Environment) -> None:
    trial = measured("AppliesWhatItRefuses", environment)
    assert trial.duplicated
    assert (trial.conserved, trial.trusted) == (False, False)


def test_stale_reads_are_found(environment: Environment) -> None:
    trial = measured("ReadsStale", environment)
    assert (trial.acknowledged_lost, trial.duplicated, trial.conserved) == (0, 0, True)
    assert (trial.linearizable, trial.trusted) == ("no", False)


def test_honest_uncertainty_is_not_a_loss(environment: Environment) -> None:
    trial = measured("UnsureOfEveryTenth", environment)
    assert trial.indeterminate
    assert trial.indeterminate_applied == trial.indeterminate
    assert (trial.acknowledged_lost, trial.duplicated, trial.linearizable) == (0, 0, "yes")
    assert trial.conserved is not False


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [
        ("RaisesUnexpectedly", "ZeroDivisionError: a bug of the strategy"),
        ("CannotOpen", "Unavailable: the vault is locked"),
    ],
)
def test_an_error_that_nobody_expected_fails_the_trial(class_name: str, reason: str, environment: Environment) -> None:
    trial = measured(class_name, environment)
    assert (trial.status, trial.reason) == (Status.FAILED, reason)
    assert (trial.ops_per_s, trial.operations, trial.trusted) == (None, None, None)


def test_too_few_samples_are_not_trusted(environment: Environment) -> None:
    settings = Settings(seconds=0.05, warmup_s=0.0)
    trial = measure(speed_cell("SlowDiary", workload="hot", clients=1), environment, settings, repeat=0, seed=1)
    assert trial.operations
    assert trial.operations < 100
    assert trial.trusted is False
    assert "operations" in (trial.distrust or "")


def test_what_is_not_run_has_no_figures(environment: Environment) -> None:
    trial = measured("Plain", environment, caller=Caller.TASK)
    assert trial.status == Status.NOT_APPLICABLE
    assert trial.reason
    assert all(value is None for key, value in asdict(trial).items() if key in KEYS[KEYS.index("seconds") :])


# -- the record ------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", list(Caller))
def test_a_trial_has_the_promised_keys_and_plain_values(caller: Caller, environment: Environment) -> None:
    strategy = names()[0]
    variant = load(strategy).capabilities.variants[0]
    trial = measure(Cell(strategy, variant, "hot", caller, 2), environment, SHORT, repeat=3, seed=5)
    assert trial.status == Status.OK, trial.reason

    def forbid(constant: str) -> None:
        raise AssertionError(f"{constant} in a record")

    line = json.loads(json.dumps(asdict(trial)), parse_constant=forbid)
    assert sorted(line) == sorted(KEYS)
    assert all(value is None or isinstance(value, str | int | float) for value in line.values())
    assert (line["strategy"], line["variant"], line["workload"]) == (strategy, variant, "hot")
    assert (line["caller"], line["clients"], line["repeat"], line["seed"]) == (caller, 2, 3, 5)
    assert (line["latency_kind"], line["fault"], line["verdict"]) == ("service", None, None)
    assert (line["conserved"], line["linearizable"], line["acknowledged_lost"]) == (True, "yes", 0)
    assert line["acknowledged"] >= line["operations"] > 0  # hot only deposits; warm-up is acknowledged too
    assert line["ops_per_s"] == pytest.approx(line["operations"] / line["seconds"], rel=0.01)
    assert line["latency_us_p50"] <= line["latency_us_max"]


def test_a_trial_leaves_no_actors_behind(environment: Environment) -> None:
    strategy = next(name for name in names() if name.startswith("actor"))
    variant = load(strategy).capabilities.variants[0]
    before = set(environment.client.list_datasets())
    trial = measure(Cell(strategy, variant, "hot", Caller.DRIVER, 1), environment, SHORT, repeat=0, seed=5)
    assert trial.status == Status.OK
    assert set(environment.client.list_datasets()) <= before


# -- which operations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*workloads.names(), "unit_deposits"])
def test_a_plan_follows_from_name_and_seed(name: str) -> None:
    workload = workloads.load(name)

    def plan(seed: int, client: int) -> list[np.ndarray[Any, Any]]:
        made = workload.plan(seed, client, clients=4)
        return [made.function, made.account, made.target, made.amount]

    assert all(np.array_equal(left, right) for left, right in zip(plan(1, 0), plan(1, 0), strict=True))
    if not workload.round_robin:
        for other in (plan(2, 0), plan(1, 1)):
            assert any(not np.array_equal(left, right) for left, right in zip(plan(1, 0), other, strict=True))
    functions, accounts, targets, amounts = plan(1, 0)
    assert len(functions) == len(accounts) == len(targets) == len(amounts) == workloads.PLAN_LENGTH
    assert 0 <= accounts.min() <= accounts.max() < workload.accounts
    assert ((targets >= 0) == (functions == TRANSFER)).all()
    assert targets.max() < workload.accounts
    assert not (targets == accounts).any()
    assert not amounts[functions == BALANCE].any()
    changes = amounts[functions != BALANCE]
    assert not len(changes) or 1 <= changes.min() <= changes.max() <= workload.amount_max


def test_a_mix_is_what_it_is_called() -> None:
    plan = workloads.load("ycsb_a").plan(seed=1, client=0, clients=1)
    assert np.mean(plan.function == 0) == pytest.approx(0.5, abs=0.02)
    counts = np.bincount(plan.account, minlength=100) / len(plan.account)
    weights = np.arange(1, 101) ** -0.99
    assert counts[0] == pytest.approx(weights[0] / weights.sum(), rel=0.1)
    assert counts[0] > 3 * counts[9] > 3 * counts[60]


def test_the_seed_does_not_depend_on_the_strategy() -> None:
    """Strategies that are compared meet the same operations; repeats and workloads do not."""
    cells = [
        speed_cell("Plain"),
        speed_cell("LosesEveryTenth"),
        Cell(names()[0], "proxied", "ycsb_a", Caller.DRIVER, 2),
    ]
    assert len({trial_seed(1, cell, 0) for cell in cells}) == 1
    others = {
        trial_seed(1, cells[0], 0),
        trial_seed(1, cells[0], 1),
        trial_seed(2, cells[0], 0),
        trial_seed(1, speed_cell("Plain", workload="hot"), 0),
    }
    assert len(others) == 4


def test_different_strategies_meet_the_same_operations(environment: Environment) -> None:
    met = []
    for class_name in ("Diary", "SlowDiary"):
        cell = speed_cell(class_name)
        diary: Any = load(own(class_name))
        diary.written.clear()
        trial = measure(cell, environment, SHORT, repeat=0, seed=trial_seed(1, cell, 0))
        assert trial.status == Status.OK, trial.reason
        # A session ends with its client's index. Of several loads, the first.
        first: dict[str, Any] = {}
        for session, operations in diary.written.items():
            first.setdefault(session.rpartition("-")[2], operations)
        met.append(first)
    fast, slow = met
    assert sorted(fast) == sorted(slow) == ["0", "1"]
    for client in fast:
        common = min(len(fast[client]), len(slow[client]))
        assert common > 20
        assert fast[client][:common] == slow[client][:common]
    assert fast["0"][:20] != fast["1"][:20]


def test_footprint(environment: Environment) -> None:
    found = footprint(speed_cell("Plain"), environment, 50)
    assert found.open_s > 0
    assert found.bytes_per_account >= 0
