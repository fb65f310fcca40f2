"""What one transaction on a store reads, works out and writes: for stores that hold rows and run no code of ours."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import repeat
from typing import Any

import msgpack

from strategies.interface.account import DEDUP_WINDOW, Answer, Receipt
from strategies.interface.errors import AccountError
from strategies.support.ledger import Ledger, LedgerState
from strategies.support.op_window import OpWindow, Outcome, State
from strategies.support.wire import ERRORS, NO_NUMBER, Batch

Slot = tuple[str, int]
"""A session, and a number modulo the window."""


class Transaction:
    """A batch, and the part of a bank that it concerns: nothing else is read, and only what changed is written.

    What the store has of `accounts`, `sessions` and `slots` is put in by `know_…`; `apply` answers, and says by
    `changed_…` what is to be written in the same transaction. To begin again after a conflict, make another.
    """

    def __init__(self, batch: Batch, epoch: int) -> None:
        self._batch = batch
        self._epoch = epoch
        self._ledger = LedgerState()
        self._before: dict[str, State] = {}
        self._highest_before: dict[str, int] = {}
        self._slots_before: dict[Slot, object] = {}
        self.accounts: Collection[str] = dict.fromkeys((*batch.accounts, *batch.targets))
        """Whose states it needs."""
        self.sessions = batch.sessions
        """Whose highest numbers it needs."""
        self.slots: Collection[Slot] = ()
        """Whose records it needs."""
        if batch.numbers:
            sessions = map(batch.sessions.__getitem__, batch.session_of or repeat(0))
            self.slots = dict.fromkeys(
                (session, number % DEDUP_WINDOW)
                for session, number in zip(sessions, batch.numbers, strict=False)
                if number != NO_NUMBER
            )

    def know_accounts(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Accounts that are there, with their seqs and balances."""
        for account, seq, balance in rows:
            self._before[account] = (seq, balance)

    def know_sessions(self, rows: Iterable[tuple[str, int]]) -> None:
        """Sessions that are there, with their highest numbers."""
        self._highest_before.update(rows)

    def know_slots(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Slots that are taken, with their records."""
        for session, slot, record in rows:
            self._slots_before[session, slot] = read_record(record)

    def apply(self) -> list[Answer]:
        """Work through the batch, in order."""
        ledger = self._ledger
        ledger.states.update(self._before)
        for session, highest in self._highest_before.items():
            window = ledger.windows[session] = OpWindow()
            window.highest = highest
        for (session, slot), record in self._slots_before.items():
            ledger.windows[session].slots[slot] = record  # type: ignore[assignment]
        return [self._answer(outcome) for outcome in Ledger(ledger).apply(self._batch)]

    def changed_accounts(self) -> list[tuple[str, int, int]]:
        """What to write: accounts with their seqs and balances. A seq of 1 is a new account's, and only that's."""
        before = self._before
        return [(name, *state) for name, state in self._ledger.states.items() if before.get(name) is not state]

    def changed_sessions(self) -> list[tuple[str, int]]:
        """What to write: sessions with their highest numbers."""
        return [
            (session, window.highest)
            for session, window in self._ledger.windows.items()
            if window.highest != self._highest_before.get(session, -1)
        ]

    def changed_slots(self) -> list[tuple[str, int, bytes]]:
        """What to write: slots with their records."""
        before = self._slots_before
        return [
            (session, slot, record_of(record))
            for session, window in self._ledger.windows.items()
            for slot, record in window.slots.items()
            if before.get((session, slot)) is not record
        ]

    def _answer(self, outcome: Outcome) -> Answer:
        if isinstance(outcome, AccountError):
            return outcome
        if len(outcome) == 2:
            return Receipt(*outcome, self._epoch)
        return Receipt(*outcome[:2], self._epoch), Receipt(*outcome[2:], self._epoch)


def record_of(slot: tuple[int, tuple[Any, ...], Outcome]) -> bytes:
    """An op id's number, what the operation was, and what became of it; in MessagePack."""
    number, payload, outcome = slot
    if isinstance(outcome, AccountError):
        outcome = (ERRORS.index(type(outcome)), str(outcome), "")  # type: ignore[assignment]
    record: bytes = msgpack.packb((number, payload, outcome))
    return record


def read_record(record: bytes) -> tuple[int, tuple[Any, ...], Outcome]:
    """The slot that was packed."""
    number, payload, outcome = msgpack.unpackb(record, use_list=False)
    if len(outcome) == 3:
        outcome = ERRORS[outcome[0]](outcome[1])
    return number, payload, outcome
