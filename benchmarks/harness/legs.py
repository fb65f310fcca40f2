"""A history by account: one row for each account that an operation reads or changes, and arithmetic over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np
import numpy.typing as npt

from benchmarks.harness.history import BALANCE, DEPOSIT, TRANSFER, Bools, History, Int64s
from strategies.interface import Receipt


@dataclass(frozen=True)
class Final:
    """The accounts' last receipts, as columns. Of a lost account, what no change lies below."""

    seq: Int64s
    balance: Int64s
    epoch: Int64s

    @classmethod
    def of(cls, receipts: Sequence[Receipt | None]) -> Final:
        """None for each account that was lost."""
        numbers = chain.from_iterable(receipt or (0, 0, -1) for receipt in receipts)
        return cls(*np.fromiter(numbers, np.int64, 3 * len(receipts)).reshape(-1, 3).T)

    def without(self, accounts: Bools) -> Final:
        """As if these were lost."""
        return Final(
            *(np.where(accounts, none, of) for of, none in ((self.seq, 0), (self.balance, 0), (self.epoch, -1)))
        )

    @property
    def is_there(self) -> Bools:
        """Accounts that were not lost."""
        there: Bools = self.epoch >= 0
        return there


@dataclass(frozen=True)
class Legs:
    """A transfer has two: of the withdrawal from its source, and of the deposit to its target.

    Wide, whatever the history's columns are: differences and products of narrow ones overflow.
    """

    row: Int64s
    """Of the history."""
    account: Int64s
    change: Int64s
    seq: Int64s
    balance: Int64s
    epoch: Int64s
    begun_ns: Int64s
    done_ns: Int64s
    is_read: Bools
    is_transfer: Bools
    to_itself: Bools
    """Of a transfer whose legs are on one account."""

    @classmethod
    def of(cls, history: History, begun_ns: Int64s, rows: Bools) -> Legs:
        """These rows' legs, in the history's order; behind them the transfers' legs at their targets."""
        chosen = np.flatnonzero(rows)
        transfers = chosen[history.function[chosen] == TRANSFER]
        row = np.concatenate([chosen, transfers])
        function = history.function[row]

        def wide(source: npt.NDArray[np.integer], target: npt.NDArray[np.integer]) -> Int64s:
            return np.concatenate([source[chosen], target[transfers]], dtype=np.int64)

        change = history.amount[row]
        change[: len(chosen)] *= np.where(function[: len(chosen)] == DEPOSIT, 1, -1)
        change[function == BALANCE] = 0
        return cls(
            row=row,
            account=wide(history.account, history.target),
            change=change,
            seq=wide(history.seq, history.target_seq),
            balance=wide(history.balance, history.target_balance),
            epoch=wide(history.epoch, history.target_epoch),
            begun_ns=begun_ns[row],
            done_ns=history.done_ns[row],
            is_read=function == BALANCE,
            is_transfer=function == TRANSFER,
            to_itself=(function == TRANSFER) & (history.account == history.target)[row],
        )

    def __len__(self) -> int:
        return len(self.row)

    def where(self, rows: Bools | Int64s) -> Legs:
        """The rows that are true, or these."""
        return Legs(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


def places(legs: Legs) -> Int64s:
    """Numbers that order legs by account, then seq, then changes before reads: one key sorts twice as fast as three."""
    return (legs.account << 33) + (legs.seq << 1) + legs.is_read


def repeats(*columns: npt.NDArray[np.integer]) -> Bools:
    """Which rows are equal to the row before."""
    equal = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return np.concatenate([[False], equal])[: len(columns[0])]


def running_maximum(ranks: Int64s, account: Int64s) -> Int64s:
    """Of ranks below their number, begun anew wherever the account changes."""
    apart = np.cumsum(~repeats(account)) * len(ranks)
    highest: Int64s = np.maximum.accumulate(ranks + apart) - apart
    return highest


def among(rows: Sequence[Int64s], known: Sequence[Int64s]) -> Bools:
    """Which rows, given as columns, are rows of the others."""
    kind = kinds(*(np.concatenate(pair) for pair in zip(known, rows, strict=True)))
    return np.isin(kind[len(known[0]) :], kind[: len(known[0])])


def kinds(*columns: Int64s) -> Int64s:
    """A number for each row, equal for equal rows."""
    order = np.lexsort(columns)
    kind = np.empty(len(order), dtype=np.int64)
    kind[order] = np.cumsum(~repeats(*(column[order] for column in columns))) - 1
    return kind


def count_until(account: Int64s, at_ns: Int64s, asked_account: Int64s, asked_ns: Int64s) -> Int64s:
    """For each question, how many of these are of the same account and not later."""
    accounts, times = np.concatenate([account, asked_account]), np.concatenate([at_ns, asked_ns])
    asks = np.arange(len(accounts)) >= len(account)
    order = np.lexsort((asks, times, accounts))
    counted = np.cumsum(~asks[order])
    accounts, asks = accounts[order], asks[order]
    begins = ~repeats(accounts)
    before: Int64s = (counted - ~asks)[begins][np.cumsum(begins) - 1]
    result = np.empty(len(order), dtype=np.int64)
    result[order] = counted - before
    return result[len(account) :]


def range_minimum(values: Int64s, begin: Int64s, end: Int64s) -> Int64s:
    """The least of `values[begin:end]` for each pair; no range is empty."""
    level = np.frexp((end - begin).astype(np.float64))[1] - 1
    least = np.empty(len(begin), dtype=np.int64)
    table = values
    for each in range(int(level.max(initial=-1)) + 1):
        width = 1 << each
        if each:
            table = np.minimum(table[: -(width // 2)], table[width // 2 :])
        asked = level == each
        least[asked] = np.minimum(table[begin[asked]], table[end[asked] - width])
    return least
