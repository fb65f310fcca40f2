"""The bounded window, beside a dict that forgets nothing."""

from __future__ import annotations

import itertools
from contextlib import suppress
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
from strategies.support.op_window import OpWindow, OwnerWindow

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


def test_what_has_left_the_window_takes_no_place_in_it() -> None:
    """A credit's op id is remembered when it is made, which may be long after it was seen first."""
    window = OpWindow()
    window.remember(DEDUP_WINDOW + 5, _PAYLOADS[0], Receipt(1, 1, 0))
    window.remember(5, _PAYLOADS[1], Receipt(2, 2, 0))
    assert window.recall(DEDUP_WINDOW + 5, _PAYLOADS[0]) == Receipt(1, 1, 0)


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
    assert len(window.slots) == DEDUP_WINDOW
    for number in range(DEDUP_WINDOW + 10, 2 * DEDUP_WINDOW + 10):
        assert window.recall(number, _PAYLOADS[0]) == Receipt(number, 0, 0)


def test_the_window_holds_what_the_design_asks_for() -> None:
    assert DEDUP_WINDOW >= 10_000


# -- whom a handle sent them to --------------------------------------------------------------------

_OWNERS = ["one", "other"]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(st.tuples(_NUMBERS, st.sampled_from(_OWNERS)), min_size=1, max_size=6), max_size=20))
def test_owners_are_told_apart_within_the_window(batches: list[list[tuple[int, str]]]) -> None:
    """One at a time, or all at once where they rise: the same is remembered."""
    window, together = OwnerWindow(), OwnerWindow()
    remembered: dict[int, str] = {}
    for claims in batches:
        numbers = [number for number, _ in claims]
        rise = all(one < next_one for one, next_one in itertools.pairwise(numbers))
        if together.claim_all(numbers, [owner for _, owner in claims]):
            assert rise
            assert not set(numbers) & set(remembered)
        else:
            wide = numbers[-1] // DEDUP_WINDOW - numbers[0] // DEDUP_WINDOW > 1
            assert not rise or wide or numbers[0] <= max(remembered)
            for number, owner in claims:
                with suppress(OperationExpired, OperationMismatch):
                    together.claim(number, owner)
        for number, owner in claims:
            expected: object = None
            if number + DEDUP_WINDOW <= max(remembered, default=-1):
                expected = OperationExpired
            elif remembered.setdefault(number, owner) != owner:
                expected = OperationMismatch
            assert _claimed(window, number, owner) is expected
    for number, owner in remembered.items():
        assert _claimed(together, number, owner) is _claimed(window, number, owner)


def _claimed(window: OwnerWindow, number: int, owner: str) -> type[Exception] | None:
    try:
        window.claim(number, owner)
    except (OperationExpired, OperationMismatch) as error:
        return type(error)
    return None


def test_the_memory_for_owners_is_bounded() -> None:
    window = OwnerWindow()
    for number in range(5 * DEDUP_WINDOW):
        window.claim(number, "one")
    window.claim_all(range(5 * DEDUP_WINDOW, 6 * DEDUP_WINDOW), ["one"] * DEDUP_WINDOW)
    assert sum(map(len, window._generations.values())) <= 2 * DEDUP_WINDOW
    with pytest.raises(OperationMismatch, match=f"{5 * DEDUP_WINDOW}"):
        window.claim(5 * DEDUP_WINDOW, "other")
