"""Remembers one session's operations within a bounded window of op-id numbers: their outcomes, or their owners."""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import Any

from strategies.interface.account import DEDUP_WINDOW
from strategies.interface.errors import AccountError, OperationExpired, OperationMismatch

Payload = tuple[Any, ...]
State = tuple[int, int]
"""An account's seq and balance after a change."""
Outcome = State | tuple[int, int, int, int] | AccountError
"""The state after a change, both states after a transfer, or why there was no change."""


class OpWindow:
    """The outcomes of the last `DEDUP_WINDOW` numbers of one session, counted from the highest seen.

    A slot per number modulo the window: memory is bounded whatever gaps the numbers have, and
    nothing is ever evicted by hand. An outcome costs about 300 bytes.
    """

    __slots__ = ("highest", "slots")

    def __init__(self) -> None:
        self.highest = -1
        self.slots: dict[int, tuple[int, Payload, Outcome]] = {}

    def recall(self, number: int, payload: Payload) -> Outcome | None:
        """What became of this operation, or None if it is new.

        Raises:
            OperationMismatch: the number was used with another payload.
            OperationExpired: the number is too old to tell.
        """
        if number > self.highest:
            return None
        if number <= self.highest - DEDUP_WINDOW:
            raise _expired(number, self.highest)
        slot = self.slots.get(number % DEDUP_WINDOW)
        if slot is None or slot[0] != number:
            return None
        if slot[1] != payload:
            raise _mismatch(number)
        return slot[2]

    def remember(self, number: int, payload: Payload, outcome: Outcome) -> None:
        """Keep the outcome of an operation that `recall` called new.

        Unless it has left the window since, as a credit can that was pending: its slot is a newer one's.
        """
        if number <= self.highest - DEDUP_WINDOW:
            return
        self.slots[number % DEDUP_WINDOW] = (number, payload, outcome)
        if number > self.highest:
            self.highest = number


class OwnerWindow:
    """Whom one handle sent the numbers of one session to, for what no owner can see alone.

    Of a number that is used again, its owner tells an operation sent again from another one, and expiry by the
    numbers that it saw. What is left is for the handle: a number used for another owner's account, and expiry by
    numbers that other owners saw.

    Kept are between one and two windows of numbers, at about 100 bytes each; threads may share it.
    """

    __slots__ = ("_generations", "_highest", "_lock")

    def __init__(self) -> None:
        self._highest = -1
        self._generations: dict[int, dict[int, object]] = {}
        """Owners by number, by number // `DEDUP_WINDOW`: the last two hold the window, and are forgotten whole."""
        self._lock = threading.Lock()

    def claim(self, number: int, owner: object) -> None:
        """Note that the number goes to `owner`, unless it did not the last time.

        Raises:
            OperationMismatch: it went to another one.
            OperationExpired: it is too old to tell.
        """
        with self._lock:
            if number <= self._highest - DEDUP_WINDOW:
                raise _expired(number, self._highest)
            if self._generation(number).setdefault(number, owner) != owner:
                raise _mismatch(number)
            if number > self._highest:
                self._move_to(number)

    def claim_all(self, numbers: Sequence[int], owners: Sequence[object]) -> bool:
        """The same for several at once, if they rise, are all new, and none is far from the next.

        Else nothing is noted, and the answer is no.
        """
        with self._lock:
            first, last, highest = numbers[0], numbers[-1], self._highest
            if first <= highest - DEDUP_WINDOW or not all(map(lt, numbers, islice(numbers, 1, None))):
                return False
            if last // DEDUP_WINDOW - first // DEDUP_WINDOW > 1:
                return False
            older, newer = self._generation(first), self._generation(last)
            # Those of one session come to several owners by several queues, so not always above the highest.
            if first <= highest and not (older.keys().isdisjoint(numbers) and newer.keys().isdisjoint(numbers)):
                return False
            cut = 0 if older is newer else bisect_left(numbers, last // DEDUP_WINDOW * DEDUP_WINDOW)
            older.update(zip(numbers[:cut], owners[:cut], strict=True))
            newer.update(zip(numbers[cut:], owners[cut:], strict=True))
            if last > highest:
                self._move_to(last)
            return True

    def _generation(self, number: int) -> dict[int, object]:
        generation = number // DEDUP_WINDOW
        known = self._generations.get(generation)
        if known is None:
            known = self._generations[generation] = {}
        return known

    def _move_to(self, highest: int) -> None:
        oldest = highest // DEDUP_WINDOW - 1
        if oldest > self._highest // DEDUP_WINDOW - 1:
            self._generations = {each: known for each, known in self._generations.items() if each >= oldest}
        self._highest = highest


def _expired(number: int, highest: int) -> OperationExpired:
    return OperationExpired(f"op id number {number} is {highest - number} behind its session's highest; use a new one")


def _mismatch(number: int) -> OperationMismatch:
    return OperationMismatch(f"op id number {number} was used for another operation; use a new one")
