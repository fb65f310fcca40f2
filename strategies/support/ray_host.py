"""The Ray actor that owns ledgers, of any number of banks, and what a task asks it with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from strategies.support.fates import NotSent
from strategies.support.ledger import LedgerState
from strategies.support.wire_ledger import SNAPSHOT, WireLedger

GONE = b""
"""Instead of an answer: that bank is not here, or is another by now. Nothing was applied."""


class RayHost:
    """One process with ledgers, of which every bank has one here.

    Ray starts it again with what `__init__` makes, so with no bank (where `max_restarts` allows). A bank that was
    opened again has another epoch, and what is meant for the lost one is not applied to it.
    """

    def __init__(self) -> None:
        self._ledgers: dict[str, WireLedger] = {}
        self._banks: dict[str, tuple[int, int]] = {}

    def find(self, bank: str) -> tuple[int, int] | None:
        """The epoch of the bank's ledger here, and the number of its shards; None if there is none."""
        return self._banks.get(bank)

    def open(self, bank: str, shards: int) -> tuple[int, int]:
        """The same, of a ledger that is made if there is none."""
        if bank not in self._banks:
            state = LedgerState()
            self._ledgers[bank] = WireLedger(state)
            self._banks[bank] = state.epoch, shards
        return self._banks[bank]

    def answer(self, bank: str, epoch: int, *parts: bytes) -> bytes:
        """Apply a batch that was encoded and cut into parts, or answer with a snapshot."""
        if self._banks.get(bank, (None,))[0] != epoch:
            return GONE
        ledger, payload = self._ledgers[bank], b"".join(parts)
        return ledger.packed_snapshot(ledger.doubts()) if payload == SNAPSHOT else ledger.answer(payload)


def ask(actor: Any, deadline: float, bank: str, epoch: int, parts: Sequence[bytes]) -> bytes | Exception:
    """Within a Ray task, have the actor answer; what it raised is an answer too.

    `deadline` is a reading of `time.time()`: that of `time.monotonic()` means nothing on another host.
    """
    import ray

    try:
        left_s = deadline - time.time()
        if left_s <= 0:
            return NotSent("the deadline had passed before the task began")
        answer: bytes = ray.get(actor.answer.remote(bank, epoch, *parts), timeout=left_s)
        return answer
    except Exception as error:
        return error
