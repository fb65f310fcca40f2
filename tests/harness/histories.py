"""Histories written by hand, one line per operation, and the accounts' final state beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.history import BALANCE, DEPOSIT, LOST, OK, REJECTED, UNAVAILABLE, UNKNOWN, WITHDRAW, History
from strategies.interface import Receipt

OPENING = 100
EPOCH = 7


@dataclass(frozen=True, kw_only=True)
class Op:
    """One row of a history. Times are in the history's own units."""

    function: int
    fate: int
    amount: int
    at: tuple[int, int]
    seq: int = 0
    balance: int = 0
    epoch: int = 0
    account: int = 0
    client: int = 0
    due: int | None = None


def deposit(amount: int, seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """One that was acknowledged."""
    return Op(function=DEPOSIT, fate=OK, amount=amount, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def withdraw(amount: int, seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """One that was acknowledged."""
    return Op(function=WITHDRAW, fate=OK, amount=amount, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def read(seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """A balance that was answered."""
    return Op(function=BALANCE, fate=OK, amount=0, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def unanswered(fate: int, amount: int, at: tuple[int, int], *, function: int = DEPOSIT, account: int = 0) -> Op:
    """A change without a receipt."""
    assert fate in (REJECTED, UNAVAILABLE, LOST, UNKNOWN)
    return Op(function=function, fate=fate, amount=amount, at=at, account=account)


def history(ops: Sequence[Op]) -> History:
    """The columns of these rows."""

    def column(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    made = History(
        client=column([op.client for op in ops]),
        number=column(range(len(ops))),
        function=column([op.function for op in ops]).astype(np.int8),
        account=column([op.account for op in ops]),
        amount=column([op.amount for op in ops]),
        due_ns=column([op.at[0] if op.due is None else op.due for op in ops]),
        sent_ns=column([op.at[0] for op in ops]),
        done_ns=column([op.at[1] for op in ops]),
        fate=column([op.fate for op in ops]).astype(np.int8),
        seq=column([op.seq for op in ops]),
        balance=column([op.balance for op in ops]),
        epoch=column([op.epoch for op in ops]),
    )
    assert all(len(getattr(made, each.name)) == len(ops) for each in fields(made))
    return made


def names(accounts: int) -> list[str]:
    return [f"account-{index}" for index in range(accounts)]


def judged(ops: Sequence[Op], *final: tuple[int, int] | tuple[int, int, int] | None, opening: int = OPENING) -> Verdict:
    """The checker's verdict, given each account's final (seq, balance[, epoch]); None for a lost account."""
    state: Mapping[str, Receipt] = {
        name: Receipt(each[0], each[1], each[2] if len(each) == 3 else EPOCH)
        for name, each in zip(names(len(final)), final, strict=True)
        if each is not None
    }
    return check(history(ops), names(len(final)), opening, state)
