"""Two runs are compared where they can be, and where not, it says why."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.cells import Status
from benchmarks.harness.compare import LEAST_TRIALS, Comparison, Row, Verdict, compare
from benchmarks.harness.records import RunError, Trial
from tests.harness.runs import run_folder, trial, unmeasured

SCATTER = (0.99, 1.0, 1.01, 1.005, 0.995, 1.002, 0.998, 1.0)
MACHINE = {"cpu": "some", "cores": 8, "cores_usable": 4, "memory_bytes": 16_000_000_000, "system": "Linux 6.1"}
VERSIONS = {"python": "3.11.7", "dask": "2026.8.0", "redis": "8.1.0"}
PLAN = {"seed": 1, "quick": True, "seconds": None, "repeats": 8, "clients": 4}
ABOUT: dict[str, Any] = {"machine": MACHINE, "versions": VERSIONS, "plan": PLAN, "method": 2}


def repeats(
    count: int = 8, ops: float = 1.0, p50: float = 1.0, p99: float = 1.0, first: int = 0, **changes: Any
) -> list[Trial]:
    """Trials of one cell, its figures changed by these factors, and scattered by a percent."""
    return [
        trial(
            repeat=repeat,
            **{
                "ops_per_s": 10_000 * ops * factor,
                "latency_us_p50": 70 * p50 * factor,
                "latency_us_p99": 900 * p99 * factor,
            }
            | changes,
        )
        for repeat, factor in zip(range(first, first + count), itertools.cycle(SCATTER), strict=False)
    ]


def fault_repeats(unavailable: float = 1.0, recovery: float | None = 1.0, **changes: Any) -> list[Trial]:
    return [
        trial(
            repeat=repeat,
            fault="worker_kill",
            workload="unit_deposits",
            unavailable_s=0.5 * unavailable * factor,
            recovery_s=None if recovery is None else 0.4 * recovery * factor,
            **changes,
        )
        for repeat, factor in enumerate(SCATTER)
    ]


def compared(tmp_path: Path, a: list[Trial], b: list[Trial], about_b: dict[str, Any] | None = None) -> Comparison:
    return compare(run_folder(tmp_path, *a, about=ABOUT), run_folder(tmp_path, *b, about=ABOUT | (about_b or {})))


def by_figure(comparison: Comparison) -> dict[str, Row]:
    return {row.figure: row for row in comparison.rows}


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    return {row.figure: row.verdict for row in comparison.rows}


def reason(comparison: Comparison, figure: str = "ops_per_s") -> str:
    """Why this figure is not comparable."""
    row = by_figure(comparison)[figure]
    assert (row.verdict, row.ratio) == (Verdict.NOT_COMPARABLE, None)
    return row.reason or ""


# -- verdicts --------------------------------------------------------------------------------------


def test_a_run_beside_itself_shows_no_difference(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *repeats(), *repeats(strategy="other"), *fault_repeats(), about=ABOUT)
    comparison = compare(folder, folder)
    assert comparison.comparable
    assert len(comparison.rows) == 8
    assert {row.verdict for row in comparison.rows} == {Verdict.NO_DIFFERENCE}
    assert {row.ratio.value for row in comparison.rows if row.ratio} == {1.0}


@pytest.mark.parametrize(
    ("factor", "of_throughput", "of_latency"),
    [(1.2, Verdict.FASTER, Verdict.SLOWER), (1 / 1.2, Verdict.SLOWER, Verdict.FASTER)],
)
def test_more_throughput_is_faster_and_more_latency_slower(
    tmp_path: Path, factor: float, of_throughput: Verdict, of_latency: Verdict
) -> None:
    comparison = compared(tmp_path, repeats(), repeats(ops=factor, p50=factor))
    assert verdicts(comparison) == {
        "ops_per_s": of_throughput,
        "latency_us_p50": of_latency,
        "latency_us_p99": Verdict.NO_DIFFERENCE,
    }
    row = by_figure(comparison)["latency_us_p50"]
    assert row.ratio is not None
    assert row.ratio.low is not None
    assert row.ratio.high is not None
    assert row.ratio.value == pytest.approx(factor)
    assert row.ratio.low < factor < row.ratio.high
    assert (row.a.median, row.b.median) == pytest.approx((70.0, 70.0 * factor))
    assert (row.a.trials, row.b.trials, row.higher_is_better) == (8, 8, False)


def test_of_a_fault_time_without_service_is_compared(tmp_path: Path) -> None:
    comparison = compared(tmp_path, fault_repeats(), fault_repeats(unavailable=2.0, recovery=0.5))
    assert verdicts(comparison) == {"unavailable_s": Verdict.SLOWER, "recovery_s": Verdict.FASTER}


def test_what_lies_within_a_percent_is_no_difference(tmp_path: Path) -> None:
    same = {"ops_per_s": 1000.0}
    assert verdicts(compared(tmp_path, repeats(**same), repeats(ops_per_s=1009.0)))["ops_per_s"] is (
        Verdict.NO_DIFFERENCE
    )
    assert verdicts(compared(tmp_path, repeats(**same), repeats(ops_per_s=1011.0)))["ops_per_s"] is Verdict.FASTER


def test_rows_are_the_same_in_whatever_order_trials_were_measured(tmp_path: Path) -> None:
    a, b = [*repeats(), *repeats(batch=100), *repeats(clients=16), *fault_repeats()], repeats(ops=1.1)
    first, second = compared(tmp_path, a, b), compared(tmp_path, a[::-1], b)
    assert first.as_json()["rows"] == second.as_json()["rows"]


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "other"},
        {"variant": "other"},
        {"workload": "hot"},
        {"caller": "task"},
        {"clients": 16},
        {"batch": 100},
        {"window": 8},
        {"drivers": 2},
        {"shards": 4},
        {"arrivals": "poisson"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_cell_is_compared_with_itself_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    comparison = compared(tmp_path, repeats(), [*repeats(), *repeats(**change)])
    assert comparison.comparable
    other = {row.reason for row in comparison.rows if row.verdict is Verdict.NOT_COMPARABLE}
    assert other == {"only in run B"}
    assert sum(row.verdict is Verdict.NO_DIFFERENCE for row in comparison.rows) == 3


def test_an_open_loops_rate_makes_a_cell(tmp_path: Path) -> None:
    slow, fast = (repeats(arrivals="poisson", offered_per_s=rate) for rate in (100.0, 200.0))
    comparison = compared(tmp_path, slow, fast)
    assert [row.reason for row in comparison.rows] == ["only in run A"] * 3 + ["only in run B"] * 3


def test_elsewhere_the_rate_makes_no_cell(tmp_path: Path) -> None:
    """A trial that was measured says what was offered around its fault; a failed one does not."""
    comparison = compared(tmp_path, fault_repeats(offered_per_s=400.0), fault_repeats())
    assert set(verdicts(comparison).values()) == {Verdict.NO_DIFFERENCE}
    closed = compared(tmp_path, repeats(arrivals="closed"), repeats(arrivals=None))
    assert set(verdicts(closed).values()) == {Verdict.NO_DIFFERENCE}


@pytest.mark.parametrize("status", [Status.FAILED, Status.NOT_APPLICABLE, Status.RESOURCE_MISSING])
def test_what_was_not_measured_is_not_comparable(tmp_path: Path, status: Status) -> None:
    b = [*repeats(7), unmeasured(status, "it\nbroke", repeat=7)]
    comparison = compared(tmp_path, repeats(), b)
    assert reason(comparison) == f"{status} in B: it broke"
    assert "it broke" in comparison.markdown()


def test_untrusted_trials_are_left_out_and_counted(tmp_path: Path) -> None:
    odd = repeats(2, ops=50.0, first=8, trusted=False, distrust="the clock jumped")
    comparison = compared(tmp_path, repeats(), [*repeats(), *odd])
    row = by_figure(comparison)["ops_per_s"]
    assert row.verdict is Verdict.NO_DIFFERENCE
    assert (row.b.trials, row.b.untrusted) == (8, 2)
    assert "(2 untrusted left out)" in comparison.markdown()


def test_too_few_trusted_trials_are_not_comparable(tmp_path: Path) -> None:
    few = [*repeats(LEAST_TRIALS - 1), *repeats(3, first=3, trusted=False)]
    comparison = compared(tmp_path, repeats(LEAST_TRIALS), few)
    assert (
        reason(comparison)
        == f"{LEAST_TRIALS - 1} trusted trials in B, fewer than {LEAST_TRIALS} (3 untrusted left out)"
    )
    assert by_figure(comparison)["ops_per_s"].b.median is not None
    assert compared(tmp_path, repeats(LEAST_TRIALS), repeats(LEAST_TRIALS)).rows[0].verdict is Verdict.NO_DIFFERENCE


def test_durability_classes_are_not_compared_with_each_other(tmp_path: Path) -> None:
    comparison = compared(tmp_path, repeats(), repeats(durability="power_loss"))
    assert reason(comparison) == "other durability: volatile in A, power_loss in B"


def test_service_time_is_not_compared_with_response_time(tmp_path: Path) -> None:
    comparison = compared(tmp_path, repeats(), repeats(latency_kind="response"))
    assert "other kind of latency: service in A, response in B" in reason(comparison, "latency_us_p50")


def test_a_store_that_did_not_come_back_has_no_shorter_recovery(tmp_path: Path) -> None:
    comparison = compared(tmp_path, fault_repeats(), fault_repeats()[:6] + fault_repeats(recovery=None)[6:])
    assert reason(comparison, "recovery_s") == "2 of 8 trials in B have no recovery_s"
    assert verdicts(comparison)["unavailable_s"] is Verdict.NO_DIFFERENCE


def test_zero_has_no_ratio(tmp_path: Path) -> None:
    assert reason(compared(tmp_path, repeats(), repeats(ops_per_s=0.0))) == "ops_per_s of zero in B: that has no ratio"


# -- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "wanted"),
    [
        ({"machine": MACHINE | {"cpu": "another"}}, "other machine: cpu some and another"),
        ({"machine": MACHINE | {"cores_usable": 2}}, "other machine: cores_usable 4 and 2"),
        (
            {"machine": MACHINE | {"memory_bytes": 8_000_000_000}},
            "other machine: memory_bytes 16000000000 and 8000000000",
        ),
        ({"machine": MACHINE | {"system": "Linux 6.2"}}, "other machine: system Linux 6.1 and Linux 6.2"),
        ({"machine": None}, "machine unknown of B"),
        (
            {"versions": {"python": "3.11.7", "dask": "2026.9.0", "tornado": "6.6"}},
            "other versions: dask 2026.8.0 and 2026.9.0, redis 8.1.0 and none, tornado none and 6.6",
        ),
        ({"method": 3}, "other method: 2 and 3"),
        ({"method": None}, "other method: 2 and none"),
        ({"plan": PLAN | {"quick": False}}, "other settings: quick True and False"),
        ({"plan": PLAN | {"seconds": 5.0}}, "other settings: seconds none and 5.0"),
        ({"plan": PLAN | {"patience": 5}}, "other settings: patience none and 5"),
    ],
)
def test_runs_that_differ_in_more_than_the_code_are_not_compared(
    tmp_path: Path, about: dict[str, Any], wanted: str
) -> None:
    comparison = compared(tmp_path, repeats(), repeats(ops=2.0), about)
    assert comparison.reasons == (wanted,)
    assert not comparison.comparable
    assert set(verdicts(comparison).values()) == {Verdict.NOT_COMPARABLE}
    assert all(row.a.median and row.b.median and row.ratio is None for row in comparison.rows)
    assert {row["reason"] for row in comparison.as_json()["rows"]} == {wanted}
    assert f"- {wanted}" in comparison.markdown()


@pytest.mark.parametrize(
    "about",
    [
        {"plan": PLAN | {"seed": 2, "repeats": 3, "workloads": ["hot"]}},
        {"machine": MACHINE | {"memory_bytes": 16_000_100_000}},
        {"commit": "0" * 40},
        {"command": "another"},
    ],
)
def test_what_does_not_change_a_trial_is_no_obstacle(tmp_path: Path, about: dict[str, Any]) -> None:
    assert compared(tmp_path, repeats(), repeats(), about).comparable


def test_all_reasons_are_given(tmp_path: Path) -> None:
    comparison = compared(tmp_path, repeats(), repeats(2), {"method": 3, "versions": {}})
    assert len(comparison.reasons) == 2
    assert comparison.as_json()["rows"][0]["reason"].count(";") == 2


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        compare(run_folder(tmp_path, *repeats()), tmp_path)


def test_runs_without_trials_have_no_rows(tmp_path: Path) -> None:
    assert compared(tmp_path, [], []).as_json()["rows"] == []


# -- shapes ----------------------------------------------------------------------------------------


def test_json_has_plain_values_only(tmp_path: Path) -> None:
    b = [*repeats(ops=1.5), *repeats(strategy="new"), *fault_repeats(recovery=None)]
    comparison = compared(tmp_path, [*repeats(), *fault_repeats()], b)
    found = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    assert found == comparison.as_json()
    assert set(found) == {"run_a", "run_b", "comparable", "reasons", "rows"}
    first = next(row for row in found["rows"] if row["verdict"] == "faster")
    assert first["cell"]["strategy"] == "vault"
    assert set(first["ratio"]) == {"value", "low", "high", "trials"}
    assert first["a"] == {"median": 10_000.0, "trials": 8, "untrusted": 0}
    assert first["reason"] is None


def test_the_table_has_a_line_for_each_row(tmp_path: Path) -> None:
    comparison = compared(tmp_path, repeats(batch=100), repeats(batch=100, ops=1.2))
    lines = [line for line in comparison.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert "| vault:default | ycsb_a, driver, 4 clients, batch 100 | ops_per_s | 10,000 | 12,000 | 1.200 (" in lines[2]
    assert lines[2].endswith(" | 8, 8 | faster |  |")
    assert "no difference seen" in lines[3]


def test_no_path_is_shown(tmp_path: Path) -> None:
    comparison = compared(tmp_path, repeats(), repeats())
    assert str(tmp_path) not in comparison.markdown() + json.dumps(comparison.as_json())
