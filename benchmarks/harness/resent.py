"""Of attempts that were sent again without an op id, and never answered: which were one effect too many."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from operator import le

import numpy as np

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Legs
from benchmarks.harness.receipts import Gaps

_ROUNDS_MAX = 4
_STEPS_MAX, _STEPS_MAX_IN_ALL = 5_000, 500_000
"""Choices that are tried for one gap of several changes, and for all of them."""
_MISSING_MAX = 50
"""Changes in one gap, of which it is worked out which they were."""


def surplus(unknown: Legs, operation: Int64s, wanted: Bools, used: Int64s, gaps: Gaps) -> tuple[Int64s, Int64s]:
    """Of each account's `used` unknown changes, how many are one more effect of an operation that had had one.

    At least so many, with the operations of which that is certain. `wanted` tells which legs may be an operation's
    only effect: one of each operation at most. The gaps between an account's answers tell which attempts were applied,
    by their amounts and times; what they leave open is taken to be wanted.
    """
    size = len(used)
    unwanted = np.bincount(unknown.account[~wanted], minlength=size)
    found = np.zeros(size, dtype=np.int64)
    doubled: list[int] = []
    mixed = np.flatnonzero((used > 0) & (unwanted > 0))
    if not len(mixed):
        return found, np.array(doubled, dtype=np.int64)
    order = np.lexsort((unknown.begun_ns, unknown.account))
    of_account = np.searchsorted(unknown.account[order], np.arange(size + 1))
    of_gaps = np.searchsorted(gaps.account, np.arange(size + 1))
    left = [_STEPS_MAX_IN_ALL]
    for account in mixed.tolist():
        resent: dict[int, _Resent] = {}
        for leg in order[of_account[account] : of_account[account + 1]].tolist():
            change = int(unknown.change[leg])
            # A transfer to the same account has two legs there.
            each = resent.setdefault(int(operation[leg]) * 2 + (change > 0), _Resent(change))
            each.begun_ns.append(int(unknown.begun_ns[leg]))
            each.is_wanted |= bool(wanted[leg])
        here = slice(int(of_gaps[account]), int(of_gaps[account + 1]))
        columns = (gaps.missing[here], gaps.jump[here], gaps.until_ns[here])
        beyond = _beyond(list(resent.values()), list(zip(*(each.tolist() for each in columns), strict=True)), left)
        room = sum(each.is_wanted for each in resent.values())
        found[account] = min(max(beyond, int(used[account]) - room), int(used[account]), int(unwanted[account]))
        doubled += [key // 2 for key, each in resent.items() if each.surplus]
    return found, np.array(doubled, dtype=np.int64)


@dataclass(eq=False)
class _Resent:
    """The attempts of one operation on one account."""

    change: int
    begun_ns: list[int] = field(default_factory=list)
    """In their order."""
    is_wanted: bool = False
    """Whether one of them may be the operation's only effect."""
    until_ns: list[int] = field(default_factory=list)
    """For each effect that is one of them, when it was over; in their order."""

    @property
    def surplus(self) -> int:
        return max(0, len(self.until_ns) - self.is_wanted)

    @property
    def may_be_wanted(self) -> bool:
        return self.is_wanted and not self.until_ns

    def has_one_until(self, until_ns: int) -> bool:
        """Whether one more attempt had been sent by then, with one sent in time for each of the others, too."""
        if len(self.until_ns) == len(self.begun_ns):
            return False
        place = bisect_right(self.until_ns, until_ns)
        if self.begun_ns[place] > until_ns:
            return False
        return all(map(le, self.begun_ns[place + 1 :], self.until_ns[place:]))

    def take(self, until_ns: int) -> None:
        insort(self.until_ns, until_ns)

    def give_back(self, until_ns: int) -> None:
        self.until_ns.remove(until_ns)


_Gap = tuple[int, int, int]
"""How many changes are missing, what they add up to, and when they were over."""


def _beyond(resent: Sequence[_Resent], gaps: Sequence[_Gap], left: list[int]) -> int:
    """How many effects are one too many, at least. What is certain is taken."""
    by_change: dict[int, list[_Resent]] = {}
    for each in resent:
        by_change.setdefault(each.change, []).append(each)
    single, several = [gap for gap in gaps if gap[0] == 1], [gap for gap in gaps if gap[0] > 1]
    open_gaps: list[tuple[_Gap, int]] = []
    for _ in range(_ROUNDS_MAX):
        before = len(single) + len(several)
        single = [gap for gap in single if not _taken_alone(by_change.get(gap[1], ()), gap[2])]
        open_gaps = [(gap, wanted) for gap in several if (wanted := _taken_together(resent, gap, left)) is not None]
        several = [gap for gap, _ in open_gaps]
        if len(single) + len(several) in (0, before):
            break
    certain = sum(each.surplus for each in resent)
    of_several = sum(gap[0] - wanted for gap, wanted in open_gaps)
    return certain + of_several + _uncovered(by_change, single)


def _taken_alone(alike: Iterable[_Resent], until_ns: int) -> bool:
    """Whether one operation alone can have made a gap's one change; then it has."""
    only: _Resent | None = None
    for each in alike:
        if each.begun_ns[0] > until_ns:
            break
        if each.has_one_until(until_ns):
            if only is not None:
                return False
            only = each
    if only is None:
        return False
    only.take(until_ns)
    return True


def _taken_together(resent: Sequence[_Resent], gap: _Gap, left: list[int]) -> int | None:
    """None if there is one way only to make a gap's changes, which is taken; else, how many can be wanted, at most."""
    missing, jump, until_ns = gap
    available = [each for each in resent if each.has_one_until(until_ns)]
    at_most = min(missing, sum(each.may_be_wanted for each in available))
    left[0] -= len(resent)
    if missing > _MISSING_MAX or left[0] <= 0:
        return at_most
    steps = [min(_STEPS_MAX, left[0])]
    left[0] -= steps[0]
    ways = list(_ways(available, missing, jump, until_ns, 0, steps))
    left[0] += max(0, steps[0])
    if steps[0] < 0 or not ways:
        return at_most
    if len(ways) == 1:
        for each in ways[0]:
            each.take(until_ns)
        return None
    return max(sum(each.may_be_wanted for each in Counter(way)) for way in ways)


def _ways(
    available: Sequence[_Resent], missing: int, jump: int, until_ns: int, start: int, steps: list[int]
) -> Generator[list[_Resent], None, None]:
    """All ways to choose so many attempts that add up to the jump, until `steps` are used up."""
    if not missing:
        if not jump:
            yield []
        return
    for index in range(start, len(available)):
        steps[0] -= 1
        if steps[0] < 0:
            return
        each = available[index]
        if not each.has_one_until(until_ns):
            continue
        each.take(until_ns)
        rests = list(_ways(available, missing - 1, jump - each.change, until_ns, index, steps))
        each.give_back(until_ns)
        for rest in rests:
            yield [each, *rest]


def _uncovered(by_change: dict[int, list[_Resent]], gaps: Sequence[_Gap]) -> int:
    """Of gaps of one change, how many are left if as many as can be are given to wanted attempts."""
    count = 0
    by_jump: dict[int, list[int]] = {}
    for _, jump, until_ns in gaps:
        by_jump.setdefault(jump, []).append(until_ns)
    for jump, untils in by_jump.items():
        alike = by_change.get(jump, [])
        if not alike:
            continue  # nothing of unknown fate made it
        begins = deque(sorted(each.begun_ns[0] for each in alike if each.may_be_wanted))
        free = 0
        for until_ns in sorted(untils):
            while begins and begins[0] <= until_ns:
                begins.popleft()
                free += 1
            count += not free
            free -= free > 0
    return count
