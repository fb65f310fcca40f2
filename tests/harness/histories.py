"""Histories written by hand, one line per operation, and the accounts' final state beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
)
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
    target: int = -1
    target_seq: int = 0
    target_balance: int = 0
    target_epoch: int = 0
    client: int = 0
    due: int | None = None
    number: int | None = None
    """None for its place among the rows."""
    attempt: int = 0
    keyed: bool = False
    process: int = 0
    reason: str = ""


def deposit(amount: int, seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """One that was acknowledged."""
    return Op(function=DEPOSIT, fate=OK, amount=amount, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def withdraw(amount: int, seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """One that was acknowledged."""
    return Op(function=WITHDRAW, fate=OK, amount=amount, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def read(seq: int, balance: int, at: tuple[int, int], *, epoch: int = EPOCH, account: int = 0) -> Op:
    """A balance that was answered."""
    return Op(function=BALANCE, fate=OK, amount=0, at=at, seq=seq, balance=balance, epoch=epoch, account=account)


def transfer(
    amount: int,
    source: tuple[int, int] | tuple[int, int, int],
    target: tuple[int, int] | tuple[int, int, int],
    at: tuple[int, int],
    *,
    between: tuple[int, int] = (0, 1),
) -> Op:
    """One that was acknowledged, with both receipts (seq, balance[, epoch])."""
    seq, balance, epoch = source if len(source) == 3 else (*source, EPOCH)
    target_seq, target_balance, target_epoch = target if len(target) == 3 else (*target, EPOCH)
    return Op(
        function=TRANSFER,
        fate=OK,
        amount=amount,
        at=at,
        seq=seq,
        balance=balance,
        epoch=epoch,
        account=between[0],
        target=between[1],
        target_seq=target_seq,
        target_balance=target_balance,
        target_epoch=target_epoch,
    )


def unanswered(
    fate: int, amount: int, at: tuple[int, int], *, function: int = DEPOSIT, account: int = 0, target: int = -1
) -> Op:
    """A change without a receipt; with a target, a transfer."""
    assert fate in (REJECTED, UNAVAILABLE, LOST, UNKNOWN)
    function = function if target < 0 else TRANSFER
    return Op(function=function, fate=fate, amount=amount, at=at, account=account, target=target)


def history(ops: Sequence[Op]) -> History:
    """The columns of these rows."""

    def column(values: Iterable[int], dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
        return np.array(list(values), dtype=dtype)

    def of_target(values: Iterable[int], dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
        if any(op.function == TRANSFER for op in ops):
            return column(values, dtype)
        return np.broadcast_to(np.zeros((), dtype=dtype), (len(ops),))

    made = History(
        process=column((op.process for op in ops), np.int16),
        client=column((op.client for op in ops), np.int16),
        number=column((place if op.number is None else op.number for place, op in enumerate(ops)), np.int32),
        attempt=column((op.attempt for op in ops), np.int16),
        keyed=column((op.keyed for op in ops), np.bool_),
        function=column((op.function for op in ops), np.int8),
        account=column((op.account for op in ops), np.int32),
        target=column((op.target for op in ops), np.int32),
        amount=column(op.amount for op in ops),
        due_ns=column(op.at[0] if op.due is None else op.due for op in ops),
        sent_ns=column(op.at[0] for op in ops),
        done_ns=column(op.at[1] for op in ops),
        fate=column((op.fate for op in ops), np.int8),
        reason=column((REASONS.index(op.reason) for op in ops), np.int8),
        seq=column((op.seq for op in ops), np.int32),
        balance=column(op.balance for op in ops),
        epoch=column(op.epoch for op in ops),
        target_seq=of_target((op.target_seq for op in ops), np.int32),
        target_balance=of_target(op.target_balance for op in ops),
        target_epoch=of_target(op.target_epoch for op in ops),
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
