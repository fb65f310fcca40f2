"""What became of operations whose fate no caller was told: how many were applied, and whether the money adds up."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Generator
from dataclasses import dataclass, field
from operator import le

import numpy as np

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Final, Legs
from benchmarks.harness.receipts import Gaps, sums

_STEPS_MAX = 5_000
"""Choices that are tried for one gap of several changes."""
_STEPS_MAX_IN_ALL = 200_000
_MISSING_MAX = 50
"""In one gap."""


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


# -- attempts without an op id ---------------------------------------------------------------------


@dataclass
class _Resent:
    """The attempts of one operation on one account."""

    change: int
    begun_ns: list[int]
    """In their order."""
    wanted: int
    """How many effects the operation should have had by them."""
    until_ns: list[int] = field(default_factory=list)
    """For each effect that is taken to be one of them, when it was over; in their order."""

    @property
    def taken(self) -> int:
        return len(self.until_ns)

    def has_one_until(self, until_ns: int) -> bool:
        """Whether one more attempt had been sent by then, with one sent in time for each of the others, too."""
        if self.taken == len(self.begun_ns):
            return False
        place = bisect_right(self.until_ns, until_ns)
        if self.begun_ns[place] > until_ns:
            return False
        return all(map(le, self.begun_ns[place + 1 :], self.until_ns[place:]))

    def take(self, until_ns: int) -> None:
        insort(self.until_ns, until_ns)

    def give_back(self, until_ns: int) -> None:
        self.until_ns.remove(until_ns)


def surplus(unknown: Legs, operation: Int64s, wanted: Bools, used: Int64s, gaps: Gaps) -> tuple[Int64s, Int64s]:
    """Of each account's `used` unknown changes, how many are one more effect of an operation that had had one.

    With the operations, in no order, that had these. `wanted` tells which legs may be an operation's only effect. Where
    both kinds are on an account, the gaps between its answers tell which were applied, by their amounts and times;
    as far as they do not, it is taken to be the wanted ones.
    """
    size = len(used)
    unwanted = np.bincount(unknown.account[~wanted], minlength=size)
    found = np.minimum(used, unwanted)
    extra: list[int] = []
    steps = _STEPS_MAX_IN_ALL
    mixed = (used > 0) & (unwanted > 0)
    if not mixed.any():
        return np.zeros(size, dtype=np.int64), np.array([], dtype=np.int64)
    order = np.lexsort((unknown.begun_ns, unknown.account))
    of_account = np.searchsorted(unknown.account[order], np.arange(size + 1))
    of_gaps = np.searchsorted(gaps.account, np.arange(size + 1))
    for account in np.flatnonzero(mixed).tolist():
        resent: dict[int, _Resent] = {}
        for leg in order[of_account[account] : of_account[account + 1]].tolist():
            change = int(unknown.change[leg])
            # A transfer to the same account has two legs there.
            key = int(operation[leg]) * 2 + (change > 0)
            each = resent.setdefault(key, _Resent(change, [], 0))
            each.begun_ns.append(int(unknown.begun_ns[leg]))
            each.wanted += bool(wanted[leg])
        here = slice(int(of_gaps[account]), int(of_gaps[account + 1]))
        open_gaps = list(
            zip(gaps.missing[here].tolist(), gaps.jump[here].tolist(), gaps.until_ns[here].tolist(), strict=True)
        )
        steps -= _decode(list(resent.values()), open_gaps, steps)
        left = int(used[account]) - sum(each.taken for each in resent.values())
        beyond = [max(0, each.taken - each.wanted) for each in resent.values()]
        room = sum(max(0, each.wanted - each.taken) for each in resent.values())
        found[account] = sum(beyond) + max(0, left - room)
        extra += [key // 2 for key, count in zip(resent, beyond, strict=True) if count]
    return found, np.array(extra, dtype=np.int64)


def _decode(resent: list[_Resent], gaps: list[tuple[int, int, int]], steps_max: int) -> int:
    """Take for each gap the attempts that it tells, the plainest gaps first. Returns the choices that were tried."""
    steps = 0
    by_change: dict[int, list[_Resent]] = {}
    for each in resent:
        by_change.setdefault(each.change, []).append(each)
    unclear = []
    for missing, jump, until_ns in gaps:
        fitting = [each for each in by_change.get(jump, ()) if each.has_one_until(until_ns)] if missing == 1 else []
        if len(fitting) == 1:
            fitting[0].take(until_ns)
        else:
            unclear.append((missing, jump, until_ns))
    for missing, jump, until_ns in sorted(unclear):
        available = [each for each in resent if each.has_one_until(until_ns)]
        if missing == 1:
            available = [each for each in available if each.change == jump]
        available.sort(key=lambda each: (each.taken >= each.wanted, each.begun_ns[each.taken]))
        left = [min(_STEPS_MAX, steps_max - steps)]
        before = left[0]
        choices = _choices(available, missing, jump, until_ns, 0, left)
        chosen = next(choices, None) if missing <= _MISSING_MAX else None
        choices.close()
        for each in chosen or ():
            each.take(until_ns)
        steps += before - left[0]
    return steps


def _choices(
    available: list[_Resent], missing: int, jump: int, until_ns: int, start: int, left: list[int]
) -> Generator[list[_Resent], None, None]:
    """Ways to choose so many attempts that add up to the jump, until `left` steps are used up."""
    if not missing:
        if not jump:
            yield []
        return
    for index in range(start, len(available)):
        left[0] -= 1
        if left[0] < 0:
            return
        each = available[index]
        if not each.has_one_until(until_ns):
            continue
        each.take(until_ns)
        try:
            for rest in _choices(available, missing - 1, jump - each.change, until_ns, index, left):
                yield [each, *rest]
        finally:
            each.give_back(until_ns)
