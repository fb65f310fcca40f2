"""Figures come from the operations that they are said to come from."""

from __future__ import annotations

from dataclasses import replace

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
    late = [
        Op(function=1, fate=OK, amount=1, due=at, at=(at + 9 * MS, at + 10 * MS), client=at // MS)
        for at in range(0, 100 * MS, MS)
    ]
    found = open_speed(history(late), np.arange(100) / 1000, warmup_s=0.0, seconds=0.1)
    assert found.latency_us["p50"] == pytest.approx(10_000)
    assert found.latency_us["max"] == pytest.approx(10_000)
    assert found.generator_lag_us_p99 == pytest.approx(9_000)
    closed = speed(history([replace(op, client=0) for op in late]), warmup_s=0.0)
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
        served_again=True,
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


# -- open loops ------------------------------------------------------------------------------------


def open_ops(
    due_ms: list[float], *, takes: int = MS, late: int = 0, clients: int = 1, start: int = 5 * S, shift_ms: float = 0.0
) -> list[Op]:
    """Operations that were due then after `start`, sent `late` and answered `takes` later."""
    ops = []
    for place, at in enumerate(due_ms):
        due = start + int((at + shift_ms) * MS)
        sent = due + late
        ops.append(
            Op(function=1, fate=OK, amount=1, due=due, at=(sent, sent + takes), client=place % clients, account=0)
        )
    return ops


def test_an_open_loop_that_keeps_up() -> None:
    due_ms = [index * 1.0 for index in range(1000)]
    found = open_speed(history(open_ops(due_ms, takes=MS // 2)), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=1.0)
    assert found.operations == 1000
    assert found.ops_per_s == pytest.approx(1000)
    assert found.achieved_ratio == pytest.approx(1.0)
    assert found.latency_us["p99"] == pytest.approx(500)
    assert found.generator_lag_us_p99 == 0
    assert found.generator_share is None


def test_an_open_loops_warm_up_is_not_measured() -> None:
    due_ms = [index * 1.0 for index in range(1000)]
    ops = open_ops(due_ms[:200], takes=150 * MS, clients=200) + open_ops(due_ms[200:], takes=MS // 2)
    found = open_speed(history(ops), np.array(due_ms) / 1e3, warmup_s=0.2, seconds=0.8)
    assert (found.operations, found.warmup_operations) == (800, 200)
    assert found.latency_us["max"] == pytest.approx(500)


def test_the_time_counts_from_the_start_and_not_from_the_first_due_time() -> None:
    due_ms = [300.0 + index for index in range(700)]
    found = open_speed(history(open_ops(due_ms)), np.array(due_ms) / 1e3, warmup_s=0.5, seconds=0.5)
    assert (found.warmup_operations, found.operations) == (200, 500)


@pytest.mark.parametrize(
    ("never_sent", "known"),
    [(0, ["p50", "p90", "p99", "max"]), (8, ["p50", "p90", "p99"]), (50, ["p50", "p90"]), (200, ["p50"]), (600, [])],
)
def test_what_was_never_sent_is_slower_than_any_percentile(never_sent: int, known: list[str]) -> None:
    """Leaving it out would report the latency of those that were lucky to be sent."""
    due_ms = [index * 1.0 for index in range(1000)]
    sent = due_ms[: 1000 - never_sent]
    found = open_speed(history(open_ops(sent, clients=1000)), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=1.0)
    assert [name for name, value in found.latency_us.items() if value is not None] == known
    assert found.achieved_ratio == pytest.approx(1 - never_sent / 1000, abs=0.0011)


def test_percentiles_move_up_by_what_was_never_sent() -> None:
    """900 answers take 1, 2, … 900 µs and 100 never come: the p50 of all 1000 is the 500th."""
    due_ms = [index * 1.0 for index in range(1000)]
    ops = [replace(op, at=(op.at[0], op.at[0] + (index + 1) * US)) for index, op in enumerate(open_ops(due_ms[:900]))]
    found = open_speed(history(ops), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=1.0).latency_us
    assert found["p50"] == pytest.approx(500, abs=2)
    assert found["p90"] is None
    assert found["max"] is None


def test_a_process_that_began_late_sent_all_the_same() -> None:
    """Its due times lie later on the common clock: some beyond the measured time, none of them unsent."""
    due_ms = [index * 1.0 for index in range(2000)]
    first = open_ops(due_ms[0::2], start=S)
    late = [replace(op, client=1) for op in open_ops(due_ms[1::2], start=S, shift_ms=80)]
    found = open_speed(history(first + late), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=2.0)
    assert found.latency_us["p99"] == pytest.approx(1000)
    assert found.latency_us["max"] == pytest.approx(1000)


def test_refused_operations_are_not_achieved() -> None:
    due_ms = [index * 1.0 for index in range(100)]
    ops = [
        replace(op, fate=UNAVAILABLE if index % 4 == 0 else OK)
        for index, op in enumerate(open_ops(due_ms, takes=MS // 2))
    ]
    found = open_speed(history(ops), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=0.1)
    assert found.operations == 75
    assert found.achieved_ratio == pytest.approx(0.75)


def test_only_answers_within_the_time_are_achieved() -> None:
    """A backlog that is worked off after the end was not kept up with."""
    due_ms = [index * 1.0 for index in range(100)]
    ops = open_ops(due_ms, takes=50 * MS, clients=100)
    found = open_speed(history(ops), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=0.1)
    assert found.achieved_ratio == pytest.approx(0.5, abs=0.011)
    assert found.operations == 100
    assert found.latency_us["p90"] == pytest.approx(50_000)


def test_a_ratio_is_never_above_one() -> None:
    """Answers to the warm-up's operations may come in the measured time."""
    due_ms = [index * 1.0 for index in range(200)]
    ops = open_ops(due_ms[:100], takes=99 * MS, clients=100) + open_ops(due_ms[100:], takes=US)
    found = open_speed(history(ops), np.array(due_ms) / 1e3, warmup_s=0.1, seconds=0.1)
    assert found.achieved_ratio == 1.0


# -- the generator ---------------------------------------------------------------------------------


def test_the_generators_share_is_the_time_between_calls() -> None:
    found = speed(history(calls(1000, every=10 * US, takes=9 * US)), warmup_s=0.0)
    assert found.generator_share == pytest.approx(0.1, abs=0.001)
    assert speed(history(calls(1000, every=US, takes=US)), warmup_s=0.0).generator_share == 0


def test_several_clients_have_one_share() -> None:
    ops = calls(100, every=10 * US, takes=5 * US) + calls(100, every=10 * US, takes=10 * US, client=1)
    assert speed(history(ops), warmup_s=0.0).generator_share == pytest.approx(0.25, abs=0.01)


def test_a_batch_is_one_call() -> None:
    ops = [
        Op(function=1, fate=OK, amount=1, at=(at, at + 8 * US)) for at in range(0, 1000 * US, 10 * US) for _ in range(5)
    ]
    assert speed(history(ops), warmup_s=0.0).generator_share == pytest.approx(0.2, abs=0.01)


def test_what_is_in_flight_together_has_no_share() -> None:
    ops = calls(100, every=10 * US, takes=25 * US)
    assert speed(history(ops), warmup_s=0.0).generator_share is None


def test_one_call_has_no_share() -> None:
    assert speed(history(calls(1, every=US, takes=US)), warmup_s=0.0).generator_share is None


def test_a_busy_client_is_no_lag_of_the_generator() -> None:
    """One client, 2 ms a call, 1 ms between due times: what is late is so for the backend's sake."""
    ops = [
        Op(function=1, fate=OK, amount=1, due=index * MS, at=(2 * index * MS, 2 * (index + 1) * MS))
        for index in range(100)
    ]
    found = open_speed(history(ops), np.arange(100) / 1e3, warmup_s=0.0, seconds=0.1)
    assert found.generator_lag_us_p99 == 0


def test_a_free_client_that_sends_late_is() -> None:
    due_ms = [index * 10.0 for index in range(100)]
    found = open_speed(history(open_ops(due_ms, late=3 * MS)), np.array(due_ms) / 1e3, warmup_s=0.0, seconds=1.0)
    assert found.generator_lag_us_p99 == pytest.approx(3000)


def test_a_batch_that_waits_for_its_last_operation_is_not_late() -> None:
    ops = [
        Op(function=1, fate=OK, amount=1, due=(10 * batch + index) * MS, at=(sent, sent + MS))
        for batch in range(50)
        for sent in [(10 * batch + 9) * MS + 20 * US]
        for index in range(10)
    ]
    found = open_speed(history(ops), np.arange(500) / 1e3, warmup_s=0.0, seconds=0.5)
    assert found.generator_lag_us_p99 == pytest.approx(20)


def test_a_batch_that_the_end_cuts_is_not_late_either() -> None:
    """Its last operation, for which it waited, is due after the measured time."""
    ops = [
        Op(function=1, fate=OK, amount=1, due=(10 * batch + index) * MS, at=(sent, sent + MS))
        for batch in range(5)
        for sent in [(10 * batch + 9) * MS + 20 * US]
        for index in range(10)
    ]
    found = open_speed(history(ops), np.arange(50) / 1e3, warmup_s=0.005, seconds=0.04)
    assert found.generator_lag_us_p99 == pytest.approx(20)


def test_nothing_due_in_the_measured_time() -> None:
    due_ms = [1.0, 2.0]
    found = open_speed(history(open_ops(due_ms)), np.array(due_ms) / 1e3, warmup_s=0.5, seconds=0.5)
    assert (found.operations, found.achieved_ratio, found.generator_lag_us_p99) == (0, None, None)
    assert set(found.latency_us.values()) == {None}
