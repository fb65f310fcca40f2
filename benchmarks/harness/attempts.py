"""Which rows of a history are attempts of one operation, and what its caller was told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.harness.history import OK, REASONS, REJECTED, UNKNOWN, Bools, History, Int64s
from benchmarks.harness.legs import repeats

_NOT_KEPT = tuple(REASONS.index(each) for each in ("OperationMismatch", "OperationExpired"))
"""Rejections that say nothing of what an earlier attempt did."""


@dataclass(frozen=True)
class Attempts:
    """A column each, by row of the history.

    With an op id, all attempts of an operation that changes accounts may have one effect together, and its answer is
    the first that was complete. Without one, and of reads, each attempt stands for itself.
    """

    operation: Int64s
    """Number of the operation that this row is an attempt of."""
    begun_ns: Int64s
    """Before this, what the row was answered or may have done cannot have happened: with an op id, when it was first
    sent and not turned away."""
    answers: Bools
    """Has receipts of its own: not those that a resent op id had got before."""
    differs: Bools
    """Of the answers: its op id had got another."""
    refuses: Bools
    """A rejection that is the answer of its operation, or of this attempt."""
    reverses: Bools
    """Rejected, though its op id was granted at another time."""
    refuses_otherwise: Bools
    """Rejected for another reason than its op id was at first."""
    is_open: Bools
    """A change that may have happened, and of which no more was ever told: one row for each effect that it may have."""
    repeated_id: Bools
    """Its op id stands on another operation too."""

    @classmethod
    def of(cls, history: History) -> Attempts:
        """Sort out who sent what again."""
        operation, repeated_id = _operations(history)
        none = np.zeros(len(history), dtype=np.bool_)
        found = cls(
            operation=operation,
            begun_ns=history.sent_ns,
            answers=history.fate == OK,
            differs=none,
            refuses=history.fate == REJECTED,
            reverses=none,
            refuses_otherwise=none,
            is_open=(history.fate == UNKNOWN) & history.is_change,
            repeated_id=repeated_id,
        )
        sent_again = np.bincount(operation, minlength=1)[operation] > 1
        rows = np.flatnonzero(sent_again & history.keyed & history.is_change)
        return found if not len(rows) else found._resent(history, rows)

    def _resent(self, history: History, rows: Int64s) -> Attempts:
        """With the rows of operations that were sent again with their op ids sorted out."""
        rows = rows[np.lexsort((rows, history.done_ns[rows], self.operation[rows]))]
        of = np.cumsum(~repeats(self.operation[rows])) - 1
        size = int(of[-1]) + 1
        fate = history.fate[rows]
        ok, unknown = fate == OK, fate == UNKNOWN
        kept = (fate == REJECTED) & ~np.isin(history.reason[rows], _NOT_KEPT)

        may_have_happened = ok | kept | unknown
        begun = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(begun, of[may_have_happened], history.sent_ns[rows[may_have_happened]])
        begun_ns = history.sent_ns.copy()
        begun_ns[rows[may_have_happened]] = begun[of[may_have_happened]]

        first_ok, first_kept, first_sent = (_first(which, of, size) for which in (ok, kept, unknown))
        granted, refused = first_ok >= 0, first_kept >= 0
        is_first = np.arange(len(rows)) == first_ok[of]
        new = ok & ~is_first & ~_same_receipts(history, rows, rows[first_ok[of]])
        new[new] = ~_seen_before(history, rows[new], of[new])

        answers, differs, refuses, reverses, otherwise, is_open = (
            column.copy()
            for column in (
                self.answers,
                self.differs,
                self.refuses,
                self.reverses,
                self.refuses_otherwise,
                self.is_open,
            )
        )
        answers[rows] = is_first | new
        differs[rows] = new
        refuses[rows[kept]] = ((np.arange(len(rows)) == first_kept[of]) & ~granted[of])[kept]
        reverses[rows] = kept & granted[of]
        otherwise[rows] = kept & refused[of] & (history.reason[rows] != history.reason[rows[first_kept[of]]])
        is_open[rows] = (np.arange(len(rows)) == first_sent[of]) & ~granted[of] & ~refused[of]
        return Attempts(
            operation=self.operation,
            begun_ns=begun_ns,
            answers=answers,
            differs=differs,
            refuses=refuses,
            reverses=reverses,
            refuses_otherwise=otherwise,
            is_open=is_open,
            repeated_id=self.repeated_id,
        )


def _operations(history: History) -> tuple[Int64s, Bools]:
    """Each row's operation, and whether another operation has the same client and number.

    A history may hold several loads one after the other, each with its own sessions: there, one process sends the
    first attempt of one client's number twice, which it never does within a load.
    """
    key = (history.client.astype(np.int64) << 32) + history.number
    order = np.argsort(key, kind="stable")
    repeated = repeats(key[order])
    repeated_id = np.zeros(len(history), dtype=np.bool_)
    if not repeated.any():
        return np.arange(len(history)), repeated_id

    rows = order[repeated | np.append(repeated[1:], False)]
    by_attempt = rows[np.lexsort((history.attempt[rows], history.process[rows], key[rows]))]
    again = repeats(key[by_attempt], history.process[by_attempt], history.attempt[by_attempt])
    load = np.zeros(len(history), dtype=np.int64)
    load[by_attempt] = _places_in_runs(again)

    payload = (history.amount, history.target, history.account, history.function)
    rows = rows[np.lexsort((*(column[rows] for column in payload), load[rows], key[rows]))]
    same = repeats(key[rows], load[rows], *(column[rows] for column in payload))
    operation = np.full(len(history), -1)
    single = np.ones(len(history), dtype=np.bool_)
    single[rows] = False
    operation[rows] = np.cumsum(~same) - 1
    operation[single] = np.arange(int(single.sum())) + int((~same).sum())
    parted = ~same & repeats(key[rows])
    of_key = np.cumsum(~repeats(key[rows])) - 1
    repeated_id[rows] = (np.bincount(of_key, weights=parted) > 0)[of_key]
    return operation, repeated_id


def _places_in_runs(again: Bools) -> Int64s:
    """Of each row, how many of its run come before it; a run goes on where `again` holds."""
    index = np.arange(len(again))
    places: Int64s = index - np.maximum.accumulate(np.where(again, 0, index))
    return places


def _first(which: Bools, of: Int64s, size: int) -> Int64s:
    """Of each group, the first index at which `which` holds; -1 for none."""
    first = np.full(size, -1)
    found = np.flatnonzero(which)[::-1]
    first[of[found]] = found  # of several values for one place, the last one stays
    return first


def _same_receipts(history: History, rows: Int64s, others: Int64s) -> Bools:
    same: Bools = np.logical_and.reduce([column[rows] == column[others] for column in _receipts(history)])
    return same


def _seen_before(history: History, rows: Int64s, of: Int64s) -> Bools:
    """Which of these answers, in the order of time, another one of the same operation had given."""
    seen = np.zeros(len(rows), dtype=np.bool_)
    columns = (*(column[rows] for column in _receipts(history)), of)
    order = np.lexsort(columns)
    seen[order] = repeats(*(column[order] for column in columns))
    return seen


def _receipts(history: History) -> tuple[Int64s, ...]:
    return (
        history.seq.astype(np.int64),
        history.balance,
        history.epoch,
        history.target_seq.astype(np.int64),
        history.target_balance,
        history.target_epoch,
    )
