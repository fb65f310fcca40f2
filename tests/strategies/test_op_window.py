"""The bounded window, beside a dict that forgets nothing."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.interface import (
    DEDUP_WINDOW,
    InsufficientFunds,
    OperationExpired,
    OperationMismatch,
    Receipt,
)
from strategies.support.op_window import OpWindow

_PAYLOADS = [("deposit", "a", 1), ("deposit", "a", 2), ("withdraw", "a", 1), ("transfer", "a", "b", 1)]


class _Step(NamedTuple):
    number: int
    payload: tuple[object, ...]


# Numbers meet in the same slot, at the window's edges, and far ahead.
_NUMBERS = st.one_of(
    st.integers(0, 5),
    st.builds(lambda windows, offset: max(0, windows * DEDUP_WINDOW + offset), st.integers(0, 4), st.integers(-3, 3)),
    st.sampled_from([2**53 - 1, 2**53 - 1 - DEDUP_WINDOW, 2**53 - DEDUP_WINDOW]),
)
_STEPS = st.lists(st.builds(_Step, _NUMBERS, st.sampled_from(_PAYLOADS)), max_size=60)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_STEPS)
def test_it_answers_as_unbounded_memory_would_within_the_window(steps: list[_Step]) -> None:
    window = OpWindow()
    remembered: dict[int, tuple[tuple[object, ...], Receipt | InsufficientFunds]] = {}
    for position, (number, payload) in enumerate(steps):
        highest = max(remembered, default=-1)
        found: object
        try:
            found = window.recall(number, payload)
        except (OperationExpired, OperationMismatch) as error:
            found = type(error)
        expected: object = None
        if number + DEDUP_WINDOW <= highest:
            expected = OperationExpired
        elif number in remembered:
            expected = remembered[number][1] if remembered[number][0] == payload else OperationMismatch
        assert found is expected
        if found is None:
            outcome = Receipt(position, 0, 0) if position % 3 else InsufficientFunds("no")
            window.remember(number, payload, outcome)
            remembered[number] = (payload, outcome)


def test_its_memory_is_bounded_by_the_window() -> None:
    window = OpWindow()
    for number in range(2 * DEDUP_WINDOW + 10):
        window.remember(number, _PAYLOADS[0], Receipt(number, 0, 0))
    assert len(window._slots) == DEDUP_WINDOW
    for number in range(DEDUP_WINDOW + 10, 2 * DEDUP_WINDOW + 10):
        assert window.recall(number, _PAYLOADS[0]) == Receipt(number, 0, 0)


def test_the_window_holds_what_the_design_asks_for() -> None:
    assert DEDUP_WINDOW >= 10_000


def test_an_outcome_that_its_keeper_does_not_know_still_tells_payloads_apart() -> None:
    window = OpWindow()
    window.remember(1, _PAYLOADS[0], None)
    assert window.recall(1, _PAYLOADS[0]) is None
    with pytest.raises(OperationMismatch, match="1"):
        window.recall(1, _PAYLOADS[1])
