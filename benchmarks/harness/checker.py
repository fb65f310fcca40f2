"""What is left of the money: holds a history against the accounts' final state, by receipts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np

from benchmarks.harness.history import BALANCE, DEPOSIT, OK, TRANSFER, UNKNOWN, Bools, History, Int32s, Int64s
from strategies.interface import Receipt

_Ints = Int32s | Int64s


@dataclass(frozen=True)
class Verdict:
    """Counts, and what they say together.

    A deposit or withdrawal changes one account, a transfer two, or one twice. A change in the final state that
    no acknowledged operation explains is taken for one of unknown fate, while its account has such left. Of changes
    acknowledged under one seq, that one is taken to be there which the balances show; if they do not tell, one by
    which fewer transfers are torn.
    """

    acknowledged: int
    """Operations that change accounts and were answered with receipts."""
    acknowledged_lost: int
    """Of those, not in the accounts' final state, or not with both changes."""
    torn: int
    """Transfers, acknowledged or of unknown fate, of which one leg is in the final state and the other is not: so
    many for certain. Where it is not told which changes are in an account, there may be more."""
    duplicated: int
    """Changes in the final state that no operation explains: applied twice, or applied though refused. A transfer
    applied twice is two."""
    indeterminate: int
    """Operations that change accounts and whose fate the caller was not told."""
    indeterminate_applied: int
    """Of those, at least partly in the final state: at least so many. Exactly so many, unless transfers are torn, or
    both transfers and others are among an account's unknown changes and some of these were applied, not all."""
    conserved: bool | None
    """Whether every final balance is what the changes in it add up to, and all balances together what came in and
    went out, with no transfer known to be torn; None where which changes are in them is not told, and some choice
    may fit."""
    linearizable: str
    """`yes`, `no` or `unknown`: whether each account's answers fit one order that respects real time. An account is
    judged by itself: that a transfer's legs have one instant is asked only of a transfer to the same account."""


def check(history: History, names: Sequence[str], opening: int, final: Mapping[str, Receipt]) -> Verdict:
    """Judge a trial whose accounts were opened with `opening` each. An account missing in `final` was lost.

    The receipts are held against each other and against the final state, not trusted.
    """
    size = len(names)
    state = _Final.of([final.get(name) for name in names])
    legs = _Legs.of(history)
    fate = history.fate[legs.operation]
    acknowledged = legs.where((fate == OK) & ~legs.is_read)
    unknown = legs.where((fate == UNKNOWN) & ~legs.is_read)

    survives, untold = _survivors(acknowledged, state)
    gone = _per_operation(acknowledged.operation[~survives], history)
    kept = _per_operation(acknowledged.operation[survives], history)
    told = _per_operation(acknowledged.operation[~untold], history)  # with one leg at least
    lost = int(gone.sum())

    applied = np.maximum(state.seq - 1, 0)  # the opening is the first change
    unexplained = np.maximum(applied - np.bincount(acknowledged.account[survives], minlength=size), 0)
    unknowns = np.bincount(unknown.account, minlength=size)
    duplicated = np.maximum(unexplained - unknowns, 0)
    unknown_applied = np.minimum(unexplained, unknowns)
    indeterminate_applied, half_applied = _applied(unknown, unknowns, unknown_applied, history)
    torn = int((gone & kept & told).sum()) + half_applied

    conserved: bool | None = False
    if not (lost or torn or duplicated.any()):
        conserved = _conserved(_unmoved(acknowledged, state, opening), unknown, unknowns, unknown_applied)
    return Verdict(
        acknowledged=int((history.is_change & (history.fate == OK)).sum()),
        acknowledged_lost=lost,
        torn=torn,
        duplicated=int(duplicated.sum()),
        indeterminate=int((history.is_change & (history.fate == UNKNOWN)).sum()),
        indeterminate_applied=indeterminate_applied,
        conserved=conserved,
        linearizable=_linearizable(legs.where(fate == OK), unknowns, opening),
    )


@dataclass(frozen=True)
class _Final:
    """The accounts' last receipts, as columns. Of a lost account, what no change lies below."""

    seq: Int64s
    balance: Int64s
    epoch: Int64s

    @classmethod
    def of(cls, receipts: Sequence[Receipt | None]) -> _Final:
        numbers = chain.from_iterable(receipt or (0, 0, -1) for receipt in receipts)
        return cls(*np.fromiter(numbers, np.int64, 3 * len(receipts)).reshape(-1, 3).T)


@dataclass(frozen=True)
class _Legs:
    """One row for each account that an operation reads or changes; a transfer has two.

    Wide, whatever the history's columns are: differences and products of narrow ones overflow.
    """

    operation: Int64s
    """Row of the history."""
    account: Int64s
    change: Int64s
    seq: Int64s
    balance: Int64s
    epoch: Int64s
    sent_ns: Int64s
    done_ns: Int64s
    is_read: Bools
    is_transfer: Bools
    to_itself: Bools
    """Of a transfer whose legs are on one account."""

    @classmethod
    def of(cls, history: History) -> _Legs:
        """The operations' legs, in the history's order; behind them the transfers' legs at their targets."""
        transfers = np.flatnonzero(history.function == TRANSFER)
        operation = np.concatenate([np.arange(len(history)), transfers])
        function = history.function[operation]

        def wide(source: _Ints, target: _Ints) -> Int64s:
            return np.concatenate([source, target[transfers]], dtype=np.int64)

        signed = np.where(history.function == DEPOSIT, history.amount, -history.amount)
        return cls(
            operation=operation,
            account=wide(history.account, history.target),
            change=np.where(function == BALANCE, 0, wide(signed, history.amount)),
            seq=wide(history.seq, history.target_seq),
            balance=wide(history.balance, history.target_balance),
            epoch=wide(history.epoch, history.target_epoch),
            sent_ns=wide(history.sent_ns, history.sent_ns),
            done_ns=wide(history.done_ns, history.done_ns),
            is_read=function == BALANCE,
            is_transfer=function == TRANSFER,
            to_itself=(function == TRANSFER) & (history.account == history.target)[operation],
        )

    def __len__(self) -> int:
        return len(self.operation)

    def where(self, rows: Bools | Int64s) -> _Legs:
        return _Legs(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


def _per_operation(operation: Int64s, history: History) -> Bools:
    """Which of the history's rows are among these."""
    among = np.zeros(len(history), dtype=np.bool_)
    among[operation] = True
    return among


def _survivors(acknowledged: _Legs, state: _Final) -> tuple[Bools, Bools]:
    """Which acknowledged changes lie on the way to the final state, and of which ones that is not told for certain.

    A later owner's first change of an account shows from where it went on: what an earlier owner
    acknowledged from that seq on is gone. Of several under one seq of one owner, all but one were overwritten.
    """
    account, seq, epoch = acknowledged.account, acknowledged.seq, acknowledged.epoch
    survives: Bools = (seq <= state.seq[account]) & (epoch <= state.epoch[account])
    rows = np.flatnonzero(survives)
    owner = np.unique(epoch[rows], return_inverse=True)[1]
    order = np.lexsort((-owner, _places(acknowledged)[rows]))
    rows, owner = rows[order], owner[order]
    kept = owner == _running_maximum(owner, account[rows])
    survives[rows[~kept]] = False

    untold = np.zeros_like(survives)
    rows = rows[kept]
    again = _repeats(account[rows], seq[rows])
    if again.any():
        _overwrite(acknowledged, rows[np.append(again[1:], False) | again], state, survives, untold)
    return survives, untold


def _overwrite(acknowledged: _Legs, rivals: Int64s, state: _Final, survives: Bools, untold: Bools) -> None:
    """Let one of the rivals, in order, for each place survive.

    That one which the final receipt shows or the next change goes on from. Where it is not told so,
    the one by which the fewest transfers are torn.
    """
    legs = acknowledged.where(rivals)
    every = np.arange(len(state.seq))
    gone_on_from = (acknowledged.account, acknowledged.seq - 1, acknowledged.balance - acknowledged.change)
    known = [np.concatenate(pair) for pair in zip((every, state.seq, state.balance), gone_on_from, strict=True)]
    shown = _among((legs.account, legs.seq, legs.balance), known)
    place = np.cumsum(~_repeats(legs.account, legs.seq))
    told = (np.bincount(place, weights=shown) == 1)[place]
    survives[rivals] = told & shown
    rivals = rivals[~told]
    untold[rivals] = True

    legs = legs.where(~told)
    both_untold = np.bincount(legs.operation)[legs.operation] == 2
    other_is_gone = np.isin(legs.operation, acknowledged.operation[~survives & ~untold])
    torn_if_kept = legs.is_transfer & other_is_gone
    torn_if_overwritten = legs.is_transfer & ~other_is_gone & ~both_untold
    doubt = torn_if_kept.astype(np.int8) - torn_if_overwritten
    # The first that was sent, at last: of two transfers that meet at both ends, one is kept at both.
    order = np.lexsort((legs.operation, legs.sent_ns, doubt, ~shown[~told], _places(legs)))
    survives[rivals[order]] = ~_repeats(legs.account[order], legs.seq[order])


def _among(rows: Sequence[Int64s], known: Sequence[Int64s]) -> Bools:
    """Which rows, given as columns, are rows of the others."""
    columns = [np.concatenate(pair) for pair in zip(known, rows, strict=True)]
    order = np.lexsort(columns)
    kind = np.empty(len(order), dtype=np.int64)
    kind[order] = np.cumsum(~_repeats(*(column[order] for column in columns)))
    return np.isin(kind[len(known[0]) :], kind[: len(known[0])])


def _places(legs: _Legs) -> Int64s:
    """Numbers that order legs by account, then seq, then changes before reads: one key sorts twice as fast as three."""
    return (legs.account << 33) + (legs.seq << 1) + legs.is_read


def _running_maximum(ranks: Int64s, account: Int64s) -> Int64s:
    """Of ranks below their number, begun anew at each account."""
    apart = np.cumsum(np.diff(account, prepend=-1) != 0) * len(ranks)
    highest: Int64s = np.maximum.accumulate(ranks + apart) - apart
    return highest


def _repeats(*columns: Int64s) -> Bools:
    """Which rows are equal to the row before."""
    equal = np.logical_and.reduce([np.diff(column) == 0 for column in columns])
    return np.concatenate([[False], equal])[: len(columns[0])]


def _applied(unknown: _Legs, unknowns: Int64s, unknown_applied: Int64s, history: History) -> tuple[int, int]:
    """How many operations of unknown fate were applied, and how many transfers of them half: at least.

    An account tells each leg's fate where all of its unknown legs were applied or none was.
    """
    size = len(unknowns)
    is_in = (unknown_applied == unknowns)[unknown.account]
    is_out = (unknown_applied == 0)[unknown.account]
    is_open = ~is_in & ~is_out
    any_in = _per_operation(unknown.operation[is_in], history)
    any_out = _per_operation(unknown.operation[is_out], history)
    certain = int(any_in.sum())
    torn = int((any_in & any_out).sum())

    # At the other accounts, legs whose other end is told should fare as it did.
    expected_in = np.bincount(unknown.account[is_open & any_in[unknown.operation]], minlength=size)
    expected_out = np.bincount(unknown.account[is_open & any_out[unknown.operation]], minlength=size)
    untold = unknown.is_transfer & is_open & ~any_in[unknown.operation] & ~any_out[unknown.operation]
    opens = (unknown_applied > 0) & (unknown_applied < unknowns)
    short = np.maximum(expected_in - unknown_applied, 0)[opens]
    over = np.maximum(unknown_applied - (unknowns - expected_out), 0)[opens]
    torn += int(short.sum() + over.sum())

    # What is left there takes an operation for each change, or for each two by transfers with both ends untold.
    left = np.maximum(unknown_applied - expected_in, 0)[opens]
    pairable = np.minimum(left, np.bincount(unknown.account[untold], minlength=size)[opens])
    return certain + int(left.sum()) - int(pairable.sum()) // 2, torn


def _unmoved(acknowledged: _Legs, state: _Final, opening: int) -> Int64s:
    """What each final balance holds beside its opening and the acknowledged changes."""
    moved = np.zeros(len(state.balance), dtype=np.int64)
    np.add.at(moved, acknowledged.account, acknowledged.change)  # a weighted bincount would round
    return state.balance - opening - moved


def _conserved(rest: Int64s, unknown: _Legs, unknowns: Int64s, unknown_applied: Int64s) -> bool | None:
    """Whether `rest` is what that many of each account's unknown changes add up to."""
    order = np.lexsort((unknown.change, unknown.account))
    account, change = unknown.account[order], unknown.change[order]
    end = np.cumsum(unknowns)
    start = end - unknowns
    summed = np.concatenate([[0], np.cumsum(change)])
    low = summed[start + unknown_applied] - summed[start]
    high = summed[end] - summed[end - unknown_applied]
    step = np.zeros(len(rest), dtype=np.int64)
    np.gcd.at(step, account, change - change[start[account]])
    if np.any((rest < low) | (rest > high) | ((rest - low) % np.maximum(step, 1) != 0)):
        return False

    # A transfer leaves the total as it was, whatever its fate.
    single = unknown.where(~unknown.is_transfer & (unknown_applied > 0)[unknown.account])
    sure = (unknown_applied == unknowns)[single.account]
    lowest = np.where(sure, single.change, np.minimum(single.change, 0)).sum()
    highest = np.where(sure, single.change, np.maximum(single.change, 0)).sum()
    if not lowest <= rest.sum() <= highest:
        return False
    return True if np.array_equal(low, high) else None


def _linearizable(answers: _Legs, unknowns: Int64s, opening: int) -> str:
    """Replay each account's answers in the order that their receipts claim.

    Linear after a sort: with `seq` given, an order that respects real time exists only if no
    answer was complete before an answer that comes earlier in that order had begun.
    """
    if not len(answers):
        return "unknown"
    by_time = np.argsort(answers.sent_ns, kind="stable")
    rank = np.argsort(_places(answers)[by_time], kind="stable")
    legs = answers.where(by_time[rank])
    account, seq, balance, is_read = legs.account, legs.seq, legs.balance, legs.is_read
    same = np.diff(account) == 0

    # Each account's first answer follows from its opening, which had seq 1.
    first = np.concatenate([[True], ~same])
    first_seq = np.where(is_read[first], 1, 2)
    if np.any(seq[first] < first_seq) or np.any(
        (seq[first] == first_seq) & (balance[first] != opening + legs.change[first])
    ):
        return "no"
    if np.any(same & (np.diff(legs.epoch) < 0)):
        return "no"  # an earlier owner changed what a later one had taken over
    step = np.diff(seq)
    wrong_balance = np.where(
        is_read[1:], (step == 0) & (np.diff(balance) != 0), (step == 1) & (np.diff(balance) != legs.change[1:])
    )
    if np.any(same & (wrong_balance | ((step == 0) & ~is_read[1:]))):
        return "no"  # a balance that the changes do not add up to, or two changes with one seq
    if _parted(legs):
        return "no"

    latest_begun = answers.sent_ns[by_time[_running_maximum(rank, account)]]
    if np.any(same & (latest_begun[:-1] > legs.done_ns[1:])):
        return "no"

    # What is missing between two answers' seqs must be operations whose fate is unknown.
    missing = np.where(same, np.maximum(np.where(is_read[1:], step, step - 1), 0), 0)
    gaps = np.zeros(len(unknowns), dtype=np.int64)
    np.add.at(gaps, account[1:], missing)
    gaps[account[first]] += seq[first] - first_seq
    return "no" if np.any(gaps > unknowns) else "yes"


def _parted(legs: _Legs) -> bool:
    """Whether anything came, or was seen, between the withdrawal and the deposit of a transfer to the same account."""
    withdrawals = np.flatnonzero(legs.to_itself & (legs.change < 0))
    return bool(np.any(np.append(legs.operation, -1)[withdrawals + 1] != legs.operation[withdrawals]))
