"""What is left of the money: holds a history against the accounts' final state, by receipts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.history import BALANCE, DEPOSIT, OK, UNKNOWN, Bools, History, Int64s
from strategies.interface import Receipt


@dataclass(frozen=True)
class Verdict:
    """Counts of changes, and what they say together."""

    acknowledged: int
    """Changes that were answered with a receipt."""
    acknowledged_lost: int
    """Of those, not in the accounts' final state."""
    duplicated: int
    """Changes in the final state that no operation explains: applied twice, or applied though refused."""
    indeterminate: int
    """Changes whose fate the caller was not told."""
    indeterminate_applied: int
    """Of those, in the final state."""
    conserved: bool | None
    """Whether every final balance is what the changes in it add up to; None where that cannot be told."""
    linearizable: str
    """`yes`, `no` or `unknown`: whether each account's answers fit one order that respects real time."""


def check(history: History, names: Sequence[str], opening: int, final: Mapping[str, Receipt]) -> Verdict:
    """Judge a trial whose accounts were opened with `opening` each. An account missing in `final` was lost.

    The receipts are held against each other and against the final state, not trusted.
    """
    changes = history.where(history.is_change)
    acknowledged = changes.where(changes.fate == OK)
    unknown = changes.where(changes.fate == UNKNOWN)

    final_seq = np.array([final[name].seq if name in final else 0 for name in names], dtype=np.int64)
    final_balance = np.array([final[name].balance if name in final else 0 for name in names], dtype=np.int64)
    final_epoch = np.array([final[name].epoch if name in final else -1 for name in names], dtype=np.int64)

    survives = _survivors(acknowledged, final_seq, final_epoch)
    size = len(names)
    applied = np.maximum(final_seq - 1, 0)  # the opening is the first change
    unexplained = applied - np.bincount(acknowledged.account[survives], minlength=size)
    unknowns = np.bincount(unknown.account, minlength=size)
    duplicated = np.maximum(unexplained - unknowns, 0)
    unknown_applied = np.minimum(unexplained, unknowns)

    lost = len(acknowledged) - int(survives.sum())
    return Verdict(
        acknowledged=len(acknowledged),
        acknowledged_lost=lost,
        duplicated=int(duplicated.sum()),
        indeterminate=len(unknown),
        indeterminate_applied=int(unknown_applied.sum()),
        conserved=_conserved(
            acknowledged.where(survives),
            unknown,
            unknown_applied,
            opening,
            final_balance,
            ok=not lost and not duplicated.any(),
        ),
        linearizable=_linearizable(history, unknowns, opening),
    )


def _signed(history: History) -> Int64s:
    signed: Int64s = np.where(history.function == DEPOSIT, history.amount, -history.amount)
    return signed


def _survivors(acknowledged: History, final_seq: Int64s, final_epoch: Int64s) -> Bools:
    """Which acknowledged changes lie on the way to the final state.

    A later owner's first change of an account shows from where it went on: what an earlier owner
    acknowledged from that seq on is gone. Of two under one seq of one owner, one was overwritten.
    """
    survivors: Bools = (acknowledged.seq <= final_seq[acknowledged.account]) & (
        acknowledged.epoch <= final_epoch[acknowledged.account]
    )
    order = np.lexsort((acknowledged.sent_ns, acknowledged.seq, -acknowledged.epoch, acknowledged.account))
    account, epoch, seq = acknowledged.account[order], acknowledged.epoch[order], acknowledged.seq[order]
    repeated = (np.diff(account) == 0) & (np.diff(epoch) == 0) & (np.diff(seq) == 0)
    survivors[order[1:][repeated]] = False
    # Owners of an account, the latest first: each one's first seq bounds those before it.
    new_account = np.diff(account, prepend=-1) != 0
    starts = np.flatnonzero(new_account | (np.diff(epoch, prepend=-1) != 0))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=False):
        if new_account[start]:
            bound = np.iinfo(np.int64).max
        rows = order[start:end]
        survivors[rows] &= acknowledged.seq[rows] < bound
        bound = min(bound, int(seq[start]))
    return survivors


def _conserved(
    survivors: History, unknown: History, unknown_applied: Int64s, opening: int, final_balance: Int64s, *, ok: bool
) -> bool | None:
    if not ok:
        return False
    size = len(final_balance)
    moved = np.bincount(survivors.account, weights=_signed(survivors), minlength=size).astype(np.int64)
    rest = final_balance - opening - moved
    for account in np.flatnonzero(unknown_applied):
        amounts = _signed(unknown.where(unknown.account == account))
        if np.any(amounts != amounts[0]):
            return None  # which of them happened is not told by how many did
        rest[account] -= amounts[0] * unknown_applied[account]
    return not rest.any()


def _linearizable(history: History, unknowns: Int64s, opening: int) -> str:
    """Replay each account's answers in the order that their receipts claim.

    Linear after a sort: with `seq` given, an order that respects real time exists only if no
    answer was complete before an answer that comes earlier in that order had begun.
    """
    answers = history.where(history.fate == OK)
    if not len(answers):
        return "unknown"
    is_read = answers.function == BALANCE
    order = np.lexsort((answers.sent_ns, is_read, answers.seq, answers.account))
    account, seq, is_read = answers.account[order], answers.seq[order], is_read[order]
    balance, change = answers.balance[order], _signed(answers)[order]
    epoch, sent, done = answers.epoch[order], answers.sent_ns[order], answers.done_ns[order]

    # Each account's first answer follows from its opening, which had seq 1.
    first = np.concatenate([[True], np.diff(account) != 0])
    first_change = np.where(is_read[first], 0, change[first])
    if np.any(seq[first] < np.where(is_read[first], 1, 2)) or np.any(
        (seq[first] == np.where(is_read[first], 1, 2)) & (balance[first] != opening + first_change)
    ):
        return "no"
    same = np.diff(account) == 0
    if np.any(same & (np.diff(epoch) < 0)):
        return "no"  # an earlier owner changed what a later one had taken over
    step = np.diff(seq)
    wrong_balance = np.where(
        is_read[1:], (step == 0) & (np.diff(balance) != 0), (step == 1) & (np.diff(balance) != change[1:])
    )
    if np.any(same & (wrong_balance | ((step == 0) & ~is_read[1:]))):
        return "no"  # a balance that the changes do not add up to, or two changes with one seq

    # The running maximum of begin times, restarted at each account: ranks keep accounts apart.
    begun = sent - sent.min()
    offset = account * (int(begun.max()) + int((done - sent.min()).max()) + 1)
    if np.any(
        (np.maximum.accumulate(begun + offset) - offset)[:-1][np.diff(account) == 0]
        > (done - sent.min())[1:][np.diff(account) == 0]
    ):
        return "no"

    # What is missing between two answers' seqs must be operations whose fate is unknown.
    missing = np.where(same, np.maximum(np.where(is_read[1:], step, step - 1), 0), 0)
    gaps = np.bincount(account[1:], weights=missing, minlength=len(unknowns))
    gaps[account[first]] += seq[first] - np.where(is_read[first], 1, 2)
    if np.any(gaps > unknowns):
        return "no"
    return "yes"
