"""What became of operations whose fate no caller was told: how many were applied, and whether the money adds up."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Final, Legs
from benchmarks.harness.receipts import sums


def applied(
    unknown: Legs, unknowns: Int64s, unknown_applied: Int64s, guessed: Bools, rows: int
) -> tuple[int, int, Bools]:
    """How many operations of unknown fate were applied, how many transfers of them half, and which rows of these.

    At least: an account tells each leg's fate where all of its unknown legs were applied or none was, unless it is
    only `guessed` how many were.
    """
    size = len(unknowns)
    is_in = ((unknown_applied == unknowns) & ~guessed)[unknown.account]
    is_out = ((unknown_applied == 0) & ~guessed)[unknown.account]
    is_open = ~is_in & ~is_out
    any_in = per_row(unknown.row[is_in], rows)
    any_out = per_row(unknown.row[is_out], rows)
    certain = int(any_in.sum())
    half = any_in & any_out

    # At the other accounts, legs whose other end is told should fare as it did.
    expected_in = np.bincount(unknown.account[is_open & any_in[unknown.row]], minlength=size)
    expected_out = np.bincount(unknown.account[is_open & any_out[unknown.row]], minlength=size)
    untold = unknown.is_transfer & is_open & ~any_in[unknown.row] & ~any_out[unknown.row]
    opens = guessed | ((unknown_applied > 0) & (unknown_applied < unknowns))
    short = np.maximum(expected_in - unknown_applied, 0)[opens & ~guessed]
    over = np.maximum(unknown_applied - (unknowns - expected_out), 0)[opens & ~guessed]

    # What is left there takes an operation for each change, or for each two by transfers with both ends untold.
    left = np.maximum(unknown_applied - expected_in, 0)[opens]
    pairable = np.minimum(left, np.bincount(unknown.account[untold], minlength=size)[opens])
    return (
        certain + int(left.sum()) - int(pairable.sum()) // 2,
        int(half.sum()) + int(short.sum() + over.sum()),
        half,
    )


def per_row(rows: Int64s, size: int) -> Bools:
    """Which of a history's rows are among these."""
    among = np.zeros(size, dtype=np.bool_)
    among[rows] = True
    return among


def conserved(
    acknowledged: Legs, unknown: Legs, unknowns: Int64s, unknown_applied: Int64s, state: Final, opening: int
) -> bool | None:
    """Whether each final balance is what the acknowledged changes and that many of the unknown ones add up to."""
    moved = np.zeros(len(state.balance), dtype=np.int64)
    np.add.at(moved, acknowledged.account, acknowledged.change)  # a weighted bincount would round
    rest = state.balance - opening - moved
    fits, only = sums(unknowns, unknown, np.arange(len(rest)), unknown_applied, rest)
    if not fits.all():
        return False

    # A transfer leaves the total as it was, whatever its fate.
    single = unknown.where(~unknown.is_transfer & (unknown_applied > 0)[unknown.account])
    sure = (unknown_applied == unknowns)[single.account]
    lowest = np.where(sure, single.change, np.minimum(single.change, 0)).sum()
    highest = np.where(sure, single.change, np.maximum(single.change, 0)).sum()
    if not lowest <= rest.sum() <= highest:
        return False
    return True if only.all() else None
