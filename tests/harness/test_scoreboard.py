"""The scoreboard's ratios are those of blocks that took turns, and verdicts follow the sense of each row."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from benchmarks.harness import baselines, by_hand
from benchmarks.harness.environment import Environment
from benchmarks.harness.scoreboard import ROUNDS_MAX, ROUNDS_MIN, ROUNDS_S, Comparison, Row, Sense, measured
from strategies.interface import load


def noisy(value: float, order: list[str], name: str, drift: Callable[[int], float]) -> Callable[[], float]:
    chance = random.Random(name)

    def block() -> float:
        order.append(name)
        return value * drift(len(order)) * chance.uniform(0.99, 1.01)

    return block


def board(
    *comparisons: Comparison, drift: Callable[[int], float] = lambda _: 1.0, rounds_s: float = ROUNDS_S
) -> tuple[list[Row], list[str]]:
    order: list[str] = []
    contenders = {name: noisy(value, order, name, drift) for name, value in (("slow", 10.0), ("fast", 30.0))}
    return measured(contenders, comparisons, seed=1, rounds_s=rounds_s), order


@pytest.mark.parametrize(
    ("sense", "target", "verdict"),
    [
        (Sense.AT_LEAST, 2.9, "holds"),
        (Sense.AT_LEAST, 3.1, "short"),
        (Sense.AT_MOST, 3.1, "holds"),
        (Sense.AT_MOST, 2.9, "short"),
        (Sense.REPORT, None, "report"),
        (Sense.REPORT, 9.0, "report"),
    ],
)
def test_a_verdict_holds_the_ratio_against_its_target(sense: Sense, target: float | None, verdict: str) -> None:
    ((row,), _) = board(Comparison("row", "fast", "slow", sense, target))
    assert row.ratio == pytest.approx(3.0, rel=0.02)
    assert row.low <= row.ratio <= row.high
    assert row.verdict == verdict
    assert (row.above, row.below) == (pytest.approx(30.0, rel=0.02), pytest.approx(10.0, rel=0.02))


def test_a_machine_that_slows_down_slows_all_contenders() -> None:
    """The ratio is of neighbours in time: a drift by a factor of four leaves it alone."""
    ((row,), _) = board(Comparison("row", "fast", "slow"), drift=lambda turn: 1.0 / (1.0 + turn / 10))
    assert row.ratio == pytest.approx(3.0, rel=0.1)


def test_contenders_take_turns_in_changing_order() -> None:
    _, order = board(Comparison("row", "fast", "slow"))
    warmed, rounds = order[:2], [tuple(order[at : at + 2]) for at in range(2, len(order), 2)]
    assert set(warmed) == {"slow", "fast"}
    assert len(rounds) == ROUNDS_MAX
    assert set(rounds) == {("slow", "fast"), ("fast", "slow")}


def test_a_slow_machine_has_fewer_rounds() -> None:
    ((row,), order) = board(Comparison("row", "fast", "slow"), rounds_s=0.0)
    assert row.rounds == ROUNDS_MIN == len(order) // 2 - 1


def test_a_row_says_what_it_wants() -> None:
    rows, _ = board(
        Comparison("least", "fast", "slow", Sense.AT_LEAST, 500.0),
        Comparison("most", "fast", "slow", Sense.AT_MOST, 1.8),
        Comparison("none", "fast", "slow"),
    )
    assert [row.wanted for row in rows] == ["≥ 500", "≤ 1.8", "-"]
    assert rows[0].cells[0] == "least"
    assert rows[0].cells[-1] == "short"


def test_ratios_are_shown_as_people_write_them() -> None:
    ((row,), _) = board(Comparison("row", "fast", "slow"))
    assert replace(row, ratio=1234.5, low=0.98765, high=9876.5).cells[1:3] == ("1,234", "0.988–9,876")
    assert replace(row, ratio=1.0047, low=0.8, high=760.0).cells[1:3] == ("1.00", "0.800–760")


def test_a_row_can_be_read_from_its_record() -> None:
    rows, _ = board(Comparison("least", "fast", "slow", Sense.AT_LEAST, 2.0), Comparison("none", "fast", "slow"))
    again = [Row.of_record(json.loads(json.dumps(asdict(row)))) for row in rows]
    assert again == rows
    assert [row.cells for row in again] == [row.cells for row in rows]


def test_every_stream_has_its_own_op_ids_and_the_same_operations_for_a_seed() -> None:
    one, other = baselines.Stream(1), baselines.Stream(1)
    first, second = one.take(50), one.take(50)
    again = other.take(50)
    assert len({each.op_id for each in [*first, *second, *again]}) == 150
    assert [each[:3] for each in first] == [each[:3] for each in again]


@pytest.mark.parametrize("name", by_hand.names())
def test_a_call_by_hand_deposits_as_the_strategy_does(name: str, environment: Environment, bank: str) -> None:
    kind = load(name)
    variant = kind.capabilities.variants[0]
    missing = environment.missing(kind.claims(variant))
    if missing:
        pytest.skip(missing)
    context = environment.context(kind.claims(variant), variant, bank, 10.0)
    with by_hand.load(name)(context) as deposit, kind.open(context) as accounts:
        accounts.open_account("of the strategy")
        assert [tuple(deposit()) for _ in range(3)] == [accounts.deposit("of the strategy", 1)[:2] for _ in range(3)]
