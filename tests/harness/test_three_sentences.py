"""What the README and a report say first: the run's own figures, and nothing of what was not measured."""

from __future__ import annotations

import pytest

from benchmarks.harness.book_columns import Column, column_of
from benchmarks.harness.cells import Status
from benchmarks.harness.three_sentences import three_sentences
from strategies.interface import load, names
from tests.harness.runs import fault_trial, trial, unmeasured


def of_column(column: Column, durability: str | None = None) -> dict[str, str]:
    """Some strategy whose state is there."""
    for name in names():
        for variant in load(name).capabilities.variants:
            claims = load(name).claims(variant)
            if column_of(claims.needs) is column and durability in (None, claims.durability):
                return {"strategy": name, "variant": variant, "durability": claims.durability}
    raise LookupError(column)


LOCAL, ACTORS = of_column(Column.LOCAL), of_column(Column.ACTORS)
OUTSIDE = of_column(Column.EXTERNAL, "power_loss")


def test_nothing_is_said_of_nothing() -> None:
    assert three_sentences([]) == []
    assert three_sentences([trial(strategy="vault")]) == []
    assert three_sentences([unmeasured(Status.FAILED, "broke", **LOCAL)]) == []


def test_local_state_is_timed_from_each_place() -> None:
    trials = [trial(**LOCAL, latency_us_p50=2.5), trial(**LOCAL, caller="task", latency_us_p50=2_340.0)]
    (said,) = three_sentences(trials)
    assert "2.5 µs (" in said
    assert "from the driver" in said
    assert "2.3 ms (" in said
    assert "from a task" in said


def test_actors_are_medians_of_trials_and_what_died_with_a_worker() -> None:
    trials = [trial(**ACTORS, repeat=n, latency_us_p50=value) for n, value in enumerate((300.0, 310.0, 900.0))]
    struck = [fault_trial(**ACTORS, acknowledged=1_000, acknowledged_lost=n) for n in (20, 30)]
    (said,) = three_sentences([*trials, *struck])
    assert "310 µs" in said
    assert "50 of 2,000 acknowledged deposits were gone" in said


@pytest.mark.parametrize("changes", [{"fault": "worker_pause"}, {"acknowledged_lost": None}])
def test_other_faults_and_trials_that_could_not_be_judged_say_nothing(changes: dict[str, object]) -> None:
    (said,) = three_sentences([trial(**ACTORS), fault_trial(**ACTORS, **changes)])
    assert "gone" not in said


def test_outside_the_fastest_of_each_class_that_outlasts_something() -> None:
    slow, fast = trial(**OUTSIDE, ops_per_s=100.0), trial(**OUTSIDE, caller="task", ops_per_s=5_000.0)
    volatile = trial(**of_column(Column.EXTERNAL, "volatile"), ops_per_s=9_999.0)
    (said,) = three_sentences([slow, fast, volatile])
    assert f"a power loss is {OUTSIDE['strategy']}:{OUTSIDE['variant']} (5,000 calls/s from a task)" in said
    assert "9,999" not in said


def test_an_open_loop_is_no_service_time() -> None:
    assert three_sentences([trial(**LOCAL, arrivals="poisson", latency_kind="response")]) == []
