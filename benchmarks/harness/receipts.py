"""Replays each account's answers in the order that their receipts claim, and finds where that cannot be true."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.harness.history import NEVER_NS, Bools, Int64s
from benchmarks.harness.legs import Final, Legs, among, count_until, kinds, places, repeats, running_maximum
from benchmarks.harness.survivors import superseded_by_owners


@dataclass(frozen=True)
class Gaps:
    """Where seqs are missing between an account's answers, or between the last one and the final state."""

    account: Int64s
    at: Int64s
    """The leg behind it, in the line; -1 for the final state."""
    missing: Int64s
    jump: Int64s
    """What the missing changes add up to."""
    until_ns: Int64s
    """When, at the latest, the last of them had happened."""
    unexplained: Int64s
    """How many of them no operation of unknown fate explains, at least."""


class Replay:
    """The answers of all accounts that have receipts.

    Linear after a sort: with `seq` given, an order that respects real time exists only if no answer was complete
    before an answer that comes earlier in that order had begun.
    """

    def __init__(self, answers: Legs, survives: Bools, unknown: Legs, opening: int, final: Final) -> None:
        self.answers = answers
        self._unknown, self._opening, self._final = unknown, opening, final
        owner = self._owners()
        self.superseded = superseded_by_owners(answers, np.ones(len(answers), dtype=np.bool_))
        """Legs of an owner after which a later one went on from an earlier state, or from that of a third."""
        self.after_takeover = self._after_takeover(owner)
        """For each leg, another that a later owner had answered before it began; -1 for none."""

        chosen = np.flatnonzero(~self.superseded | (survives & ~answers.is_read))
        legs = answers.where(chosen)
        # Of two changes with one seq, the one that is in the final state comes first.
        among_equals = np.where(legs.is_read, owner[chosen], ~survives[chosen])
        order = np.lexsort((legs.begun_ns, among_equals, places(legs)))
        legs, chosen = legs.where(order), chosen[order]
        loses = ~legs.is_read & repeats(legs.account, legs.seq)
        winner = np.maximum.accumulate(np.where(loses, 0, np.arange(len(legs))))
        self.losers = chosen[loses]
        """Changes whose seq another change has, which `winners` are: indices of `answers`."""
        self.winners = chosen[winner[loses]]
        if loses.any():
            legs = legs.where(~(loses | _shows(legs, loses)))
        self.line = line = legs
        """The others, in their order, without reads of what the losers left."""

        self.begins = ~repeats(line.account)
        """The first of each account."""
        seq_before = np.where(self.begins, 1, _shifted(line.seq))
        balance_before = np.where(self.begins, opening, _shifted(line.balance))
        self.missing = line.seq - seq_before - ~line.is_read
        self.jump = line.balance - line.change - balance_before
        """Of each leg, what happened between its predecessor and itself; the account's opening has seq 1."""
        self.before_opening: Bools = self.missing < 0
        self.wrong: Bools = (self.missing == 0) & (self.jump != 0)
        """Balances that do not follow from the one before."""
        self.late, self._earliest = self._out_of_order()
        self.parted = self._parted()
        self.overdrawn: Bools = line.balance < 0

    def _owners(self) -> Int64s:
        epoch = self.answers.epoch
        if not len(epoch) or epoch.min() == epoch.max():
            return np.zeros(len(epoch), dtype=np.int64)
        owner: Int64s = np.unique(epoch, return_inverse=True)[1]
        return owner

    def _after_takeover(self, owner: Int64s) -> Int64s:
        legs = self.answers
        after = np.full(len(legs), -1)
        if not owner.any():
            return after
        order = np.lexsort((legs.done_ns, -owner, legs.account))
        begins = np.flatnonzero(~repeats(legs.account[order], owner[order]))
        earliest, earliest_account = -1, -1  # of the later owners' answers on this account
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
            first = int(order[begin])
            if legs.account[first] != earliest_account:
                earliest, earliest_account = first, int(legs.account[first])
                continue
            of_owner = order[begin:end]
            after[of_owner[legs.begun_ns[of_owner] > legs.done_ns[earliest]]] = earliest
            if legs.done_ns[first] < legs.done_ns[earliest]:
                earliest = first
        return after

    def _out_of_order(self) -> tuple[Int64s, Int64s]:
        """For each leg, one that comes later in the line and was complete before it began, or -1.

        And that one of it and those behind it which was complete first.
        """
        line = self.line
        size = len(line)
        by_done = np.argsort(line.done_ns, kind="stable")
        rank = np.empty(size, dtype=np.int64)
        rank[by_done] = np.arange(size - 1, -1, -1)  # the first to be complete is the highest
        highest = running_maximum(rank[::-1], line.account[::-1])[::-1]
        earliest = by_done[size - 1 - highest]
        behind = np.append(earliest[1:], 0)[:size]
        has_next = np.append(~self.begins[1:], False)[:size]
        late = has_next & (line.done_ns[behind] < line.begun_ns)
        return np.where(late, behind, -1), earliest

    def _parted(self) -> Bools:
        """Withdrawals of transfers to the same account that something came after, or saw, before the deposit."""
        line = self.line
        behind = np.append(line.row[1:], -1)[: len(line)]
        parted: Bools = line.to_itself & (line.change < 0) & (behind != line.row)
        return parted

    @cached_property
    def tails(self) -> tuple[Int64s, Int64s, Int64s]:
        """Accounts whose final state is not behind their line, how far ahead it is in seq, and in balance."""
        final, line = self._final, self.line
        last = np.full(len(final.seq), -1)
        last[line.account] = np.arange(len(line))  # of several values for one place, the last one stays
        answered = last >= 0
        seq = np.where(answered, line.seq[last] if len(line) else 1, 1)
        balance = np.where(answered, line.balance[last] if len(line) else 0, self._opening)
        epoch = np.where(answered, line.epoch[last] if len(line) else 0, 0)
        accounts = np.flatnonzero(final.is_there & (final.seq >= seq) & (final.epoch >= epoch))
        return accounts, (final.seq - seq)[accounts], (final.balance - balance)[accounts]

    @cached_property
    def gaps(self) -> Gaps:
        """All of them, by account, in the order of the line."""
        line = self.line
        at = np.flatnonzero(self.missing > 0)
        accounts, ahead, jump = self.tails
        is_tail = ahead > 0
        account = np.concatenate([line.account[at], accounts[is_tail]])
        missing = np.concatenate([self.missing[at], ahead[is_tail]])
        jump = np.concatenate([self.jump[at], jump[is_tail]])
        until_ns = np.concatenate([line.done_ns[self._earliest[at]], np.full(int(is_tail.sum()), NEVER_NS)])
        order = np.argsort(account, kind="stable")
        account, missing, jump, until_ns = account[order], missing[order], jump[order], until_ns[order]
        at = np.concatenate([at, np.full(int(is_tail.sum()), -1)])[order]
        unexplained = _unexplained(account, missing, jump, until_ns, self._unknown)
        return Gaps(account, at, missing, jump, until_ns, unexplained)

    @property
    def is_linearizable(self) -> bool:
        """Whether each account's answers fit one order. The final state is none of them."""
        broken = (
            self.superseded,
            self.losers,
            self.before_opening,
            self.wrong,
            self.late >= 0,
            self.parted,
            self.overdrawn,
            (self.gaps.unexplained > 0) & (self.gaps.at >= 0),
        )
        return not any(len(each) if each is self.losers else each.any() for each in broken)

    @cached_property
    def broken_accounts(self) -> Bools:
        """Accounts whose answers do not fit any order."""
        broken = np.zeros(len(self._final.seq), dtype=np.bool_)
        line, gaps = self.line, self.gaps
        broken[self.answers.account[self.superseded]] = True
        broken[self.answers.account[self.losers]] = True
        for each in (self.before_opening, self.wrong, self.late >= 0, self.parted, self.overdrawn):
            broken[line.account[each]] = True
        broken[gaps.account[(gaps.unexplained > 0) & (gaps.at >= 0)]] = True
        return broken


def _shows(legs: Legs, changes: Bools) -> Bools:
    """Reads of the state that one of these changes left, and no other change."""

    def states(rows: Bools) -> tuple[Int64s, ...]:
        return legs.account[rows], legs.seq[rows], legs.balance[rows]

    shows = legs.is_read.copy()
    shows[legs.is_read] = among(states(legs.is_read), states(changes))
    shows[shows] = ~among(states(shows), states(~legs.is_read & ~changes))
    return shows


def _shifted(column: Int64s) -> Int64s:
    return np.concatenate([column[:1], column[:-1]])


def _unexplained(account: Int64s, missing: Int64s, jump: Int64s, until_ns: Int64s, unknown: Legs) -> Int64s:
    """Of each gap, how many changes are left when operations of unknown fate, sent in time, have explained theirs.

    What is asked is necessary, not sufficient: gaps of several changes are held against sums only, so that nobody is
    accused for want of a search.
    """
    unexplained = np.zeros(len(account), dtype=np.int64)
    if not len(account):
        return unexplained
    one = np.flatnonzero(missing == 1)
    unexplained[one] = ~_matched(account[one], jump[one], until_ns[one], unknown)
    several = np.flatnonzero(missing > 1)
    unexplained[several] = ~_adds_up(account[several], missing[several], jump[several], unknown)

    remaining = np.where(unexplained > 0, 0, missing)
    begins = ~repeats(account)
    summed = np.cumsum(remaining)
    summed -= (summed - remaining)[begins][np.cumsum(begins) - 1]
    short = np.maximum(summed - count_until(unknown.account, unknown.begun_ns, account, until_ns), 0)
    # Shortage stays for the rest of the account: only what it grows by is new.
    limit = int(short.max()) + 1
    apart = np.cumsum(begins) * limit
    worst = np.maximum.accumulate(short + apart) - apart
    grown: Int64s = np.where(begins, worst, worst - np.concatenate([[0], worst[:-1]]))
    return unexplained + grown


def _matched(account: Int64s, jump: Int64s, until_ns: Int64s, unknown: Legs) -> Bools:
    """Which gaps of one change have an operation of unknown fate of their own with that very change."""
    kind = kinds(np.concatenate([unknown.account, account]), np.concatenate([unknown.change, jump]))
    of_unknown, of_gap = kind[: len(unknown)], kind[len(unknown) :]
    order = np.lexsort((unknown.begun_ns, of_unknown))
    begun_ns, of_unknown = unknown.begun_ns[order], of_unknown[order]
    by_kind = np.argsort(of_gap, kind="stable")  # the nth gap of a kind takes the nth that was sent
    sorted_kind = of_gap[by_kind]
    nth = np.arange(len(by_kind)) - np.searchsorted(sorted_kind, sorted_kind)
    taken = np.searchsorted(of_unknown, sorted_kind) + nth
    there = taken < np.searchsorted(of_unknown, sorted_kind, side="right")
    matched = np.zeros(len(account), dtype=np.bool_)
    in_time = there.copy()
    in_time[there] = begun_ns[taken[there]] <= until_ns[by_kind[there]]
    matched[by_kind] = in_time
    return matched


def _adds_up(account: Int64s, count: Int64s, total: Int64s, unknown: Legs) -> Bools:
    """Whether so many of the account's unknown changes can have that sum, as far as bounds tell."""
    size = int(max(account.max(initial=-1), unknown.account.max(initial=-1))) + 1
    fits, _ = sums(np.bincount(unknown.account, minlength=size), unknown, account, count, total)
    return fits


def sums(unknowns: Int64s, unknown: Legs, account: Int64s, count: Int64s, total: Int64s) -> tuple[Bools, Bools]:
    """Whether `count` of an account's unknown changes may add up to `total`, and whether they can to nothing else."""
    order = np.lexsort((unknown.change, unknown.account))
    of, change = unknown.account[order], unknown.change[order]
    end = np.cumsum(unknowns)[account]
    start = end - unknowns[account]
    enough = count <= end - start
    taken = np.where(enough, count, 0)
    summed = np.concatenate([[0], np.cumsum(change)])
    low = summed[start + taken] - summed[start]
    high = summed[end] - summed[end - taken]
    steps = np.zeros(len(unknowns), dtype=np.int64)
    first = (np.cumsum(unknowns) - unknowns)[of]
    np.gcd.at(steps, of, change - change[first])
    step = np.maximum(steps[account], 1)
    fits: Bools = enough & (low <= total) & (total <= high) & ((total - low) % step == 0)
    only: Bools = low == high
    return fits, only
