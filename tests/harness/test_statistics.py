"""Figures come from the operations that they are said to come from."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.history import OK, UNAVAILABLE, UNKNOWN
from benchmarks.harness.statistics import Outage, open_speed, outage, speed
from tests.harness.histories import Op, deposit, history

US = 1_000
MS = 1_000_000
S = 1_000_000_000


def calls(
    count: int, every: int, takes: int, *, begin: int = 0, client: int = 0, account: int = 0, fate: int = OK
) -> list[Op]:
    """`count` calls of one client, one each `every`, that take `takes`."""
    return [
        Op(function=1, fate=fate, amount=1, at=(at, at + takes), account=account, client=client)
        for at in range(begin, begin + count * every, every)
    ]


# -- speed -----------------------------------------------------------------------------------------


def test_throughput_is_answered_calls_over_time() -> None:
    found = speed(history(calls(1000, every=MS, takes=MS)), warmup_s=0.0)
    assert found.operations == 1000
    assert found.seconds == pytest.approx(1.0)
    assert found.ops_per_s == pytest.approx(1000)


def test_the_warm_up_is_not_measured() -> None:
    slow, fast = calls(10, every=50 * MS, takes=50 * MS), calls(500, every=MS, takes=MS, begin=500 * MS)
    found = speed(history(slow + fast), warmup_s=0.5)
    assert found.operations == 500
    assert found.ops_per_s == pytest.approx(1000)
    assert found.latency_us["max"] == pytest.approx(1000)


def test_what_a_straggler_does_alone_is_not_measured() -> None:
    """From the moment at which the first client is done, fewer clients call than the cell says."""
    both = calls(100, every=MS, takes=MS, client=0) + calls(300, every=MS, takes=MS, client=1)
    found = speed(history(both), warmup_s=0.0)
    assert found.operations == 200
    assert found.seconds == pytest.approx(0.1)


def test_only_answered_calls_count() -> None:
    """A store that refuses at once is not fast."""
    refused = calls(1000, every=US, takes=US, fate=UNAVAILABLE, client=1)
    answered = calls(100, every=10 * US, takes=10 * US)
    found = speed(history(answered + refused), warmup_s=0.0)
    assert found.operations == 100
    assert found.latency_us["p50"] == pytest.approx(10)


def test_latency_counts_from_when_the_call_was_due() -> None:
    """A call that was sent 9 ms late and took 1 ms took its caller 10 ms."""
    late = [Op(function=1, fate=OK, amount=1, due=at, at=(at + 9 * MS, at + 10 * MS)) for at in range(0, 100 * MS, MS)]
    found = open_speed(history(late), np.arange(100) / 1000, warmup_s=0.0, seconds=0.1)
    assert found.latency_us["p50"] == pytest.approx(10_000)
    assert found.latency_us["max"] == pytest.approx(10_000)
    assert found.generator_lag_us_p99 == pytest.approx(9_000)
    closed = speed(history(late), warmup_s=0.0)
    assert closed.latency_us["p50"] == pytest.approx(1_000), "a closed loop's is service time"


def test_percentiles() -> None:
    ops = [deposit(1, 2, 101, at=(index * MS, index * MS + (index + 1) * US)) for index in range(10_000)]
    found = speed(history(ops), warmup_s=0.0).latency_us
    assert found["p50"] == pytest.approx(5000, rel=0.01)
    assert found["p90"] == pytest.approx(9000, rel=0.01)
    assert found["p99"] == pytest.approx(9900, rel=0.01)
    assert found["p999"] == pytest.approx(9990, rel=0.01)
    assert found["max"] == pytest.approx(10_000)


@pytest.mark.parametrize(
    ("count", "known"),
    [(5, []), (6, ["p50"]), (30, ["p50", "p90"]), (299, ["p50", "p90"]), (300, ["p50", "p90", "p99"])],
)
def test_a_percentile_that_too_few_samples_lie_beyond_is_none(count: int, known: list[str]) -> None:
    found = speed(history(calls(count, every=MS, takes=MS)), warmup_s=0.0).latency_us
    assert [name for name, value in found.items() if value is not None] == [*known, "max"]


def test_nothing_measured_is_no_figure() -> None:
    found = speed(history(calls(10, every=MS, takes=MS, fate=UNKNOWN)), warmup_s=0.0)
    assert (found.operations, found.ops_per_s) == (0, 0)
    assert set(found.latency_us.values()) == {None}


# -- outage ----------------------------------------------------------------------------------------


def served(first: int, last: int, *, account: int = 0, fate: int = OK) -> list[Op]:
    """A call each 10 ms from `first` to `last` (ms), 1 ms long."""
    return calls((last - first) // 10 + 1, every=10 * MS, takes=MS, begin=first * MS, account=account, fate=fate)


def test_an_outage_is_measured_from_the_fault_to_the_next_acknowledgement() -> None:
    ops = served(0, 500) + served(510, 800, fate=UNAVAILABLE) + served(810, 1000)
    assert outage(history(ops), 505 * MS) == Outage(
        unavailable_s=pytest.approx(0.306),  # type: ignore[arg-type]
        detection_s=pytest.approx(0.006),  # type: ignore[arg-type]
        recovery_s=pytest.approx(0.306),  # type: ignore[arg-type]
    )


def test_a_fault_that_nobody_noticed() -> None:
    found = outage(history(served(0, 1000)), 505 * MS)
    assert found.detection_s is None
    assert found.unavailable_s == pytest.approx(0.010)
    assert found.recovery_s == pytest.approx(0.006)


def test_errors_before_the_fault_are_not_its_detection() -> None:
    ops = served(0, 100, fate=UNAVAILABLE) + served(110, 1000)
    assert outage(history(ops), 505 * MS).detection_s is None


def test_the_longest_gap_counts_also_where_service_came_back_before_it() -> None:
    ops = served(0, 500) + served(510, 600) + served(900, 1000)
    found = outage(history(ops), 505 * MS)
    assert found.unavailable_s == pytest.approx(0.300)
    assert found.recovery_s == pytest.approx(0.006)


def test_the_worst_served_account_counts() -> None:
    ops = served(0, 1000, account=0) + served(0, 500, account=1) + served(700, 1000, account=1)
    found = outage(history(ops), 505 * MS)
    assert found.unavailable_s == pytest.approx(0.196)
    assert found.recovery_s == pytest.approx(0.196)


def test_an_account_that_is_never_served_again() -> None:
    ops = served(0, 1000, account=0) + served(0, 500, account=1) + served(510, 1000, account=1, fate=UNKNOWN)
    found = outage(history(ops), 505 * MS)
    assert found.recovery_s is None
    assert found.unavailable_s == pytest.approx(0.496)  # to the end of the load


def test_an_answer_to_a_call_from_before_the_fault_is_no_recovery() -> None:
    """It was on its way when the fault struck: the state may be gone behind it."""
    ops = [
        *served(0, 500),
        Op(function=1, fate=OK, amount=1, at=(502 * MS, 507 * MS)),
        *served(510, 1000, fate=UNAVAILABLE),
    ]
    assert outage(history(ops), 505 * MS).recovery_s is None
