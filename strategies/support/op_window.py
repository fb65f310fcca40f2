"""Remembers what became of one session's operations, within a bounded window of op-id numbers."""

from typing import Any

from strategies.interface.account import DEDUP_WINDOW, Receipt
from strategies.interface.errors import OperationExpired, OperationMismatch, Rejected

Payload = tuple[Any, ...]
Outcome = Receipt | tuple[Receipt, Receipt] | Rejected | None
"""None: who keeps the window does not know it."""


class OpWindow:
    """The outcomes of the last `DEDUP_WINDOW` numbers of one session, counted from the highest seen.

    A slot per number modulo the window: memory is bounded whatever gaps the numbers have, and
    nothing is ever evicted by hand. An outcome costs about 300 bytes.
    """

    __slots__ = ("_highest", "_slots")

    def __init__(self) -> None:
        self._highest = -1
        self._slots: dict[int, tuple[int, Payload, Outcome]] = {}

    def recall(self, number: int, payload: Payload) -> Outcome | None:
        """What became of this operation, or None if it is new.

        Raises:
            OperationMismatch: the number was used with another payload.
            OperationExpired: the number is too old to tell.
        """
        if number > self._highest:
            return None
        if number <= self._highest - DEDUP_WINDOW:
            raise OperationExpired(
                f"op id number {number} is {self._highest - number} behind its session's highest; use a new one"
            )
        slot = self._slots.get(number % DEDUP_WINDOW)
        if slot is None or slot[0] != number:
            return None
        if slot[1] != payload:
            raise OperationMismatch(f"op id number {number} was used for another operation; use a new one")
        return slot[2]

    def remember(self, number: int, payload: Payload, outcome: Outcome) -> None:
        """Keep the outcome of an operation that `recall` called new."""
        self._slots[number % DEDUP_WINDOW] = (number, payload, outcome)
        if number > self._highest:
            self._highest = number
