"""What is left of the money: holds a history against the accounts' final state, by receipts where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.across_accounts import cycles
from benchmarks.harness.attempts import Attempts
from benchmarks.harness.findings import Findings, chosen
from benchmarks.harness.history import NEVER_NS, OK, Bools, History, Int64s
from benchmarks.harness.legs import Final, Legs, among
from benchmarks.harness.receipts import Replay
from benchmarks.harness.rejections import wrong_rejections
from benchmarks.harness.resent import surplus
from benchmarks.harness.survivors import survivors
from benchmarks.harness.unknowns import applied, conserved, per_row
from benchmarks.harness.violations import Violation
from strategies.interface import Receipt

if TYPE_CHECKING:
    from benchmarks.harness import linearizability


@dataclass(frozen=True)
class Verdict:
    """Counts, and what they say together.

    A deposit or withdrawal changes one account, a transfer two, or one twice. A change in the final state that
    no acknowledged operation explains is taken for one of unknown fate, while its account has such left. Of changes
    acknowledged under one seq, that one is taken to be there which the balances show; if they do not tell, one by
    which fewer transfers are torn, and of these the one that was answered last.
    """

    acknowledged: int
    """Operations that change accounts and were answered with receipts, however often they were sent."""
    acknowledged_lost: int
    """Of those, not in the accounts' final state, or not with both changes: by no answer that they got."""
    torn: int
    """Transfers, acknowledged or of unknown fate, of which one leg is in the final state and the other is not: so
    many for certain. Where it is not told which changes are in an account, there may be more."""
    duplicated: int
    """Changes in the final state beyond one for each operation, however often it was sent: applied twice, or applied
    though refused, or asked for by nobody. A transfer applied twice is two. Of attempts without an op id whose fate is
    unknown, at least so many, and exactly so many as far as the balances between answers tell the attempts apart."""
    indeterminate: int
    """Operations that change accounts and whose fate the caller was not told."""
    indeterminate_applied: int
    """Of those, at least partly in the final state: at least so many. Exactly so many, unless transfers are torn, or
    both transfers and others are among an account's unknown changes and some of these were applied, not all. Where
    operations were sent again without an op id, what is not told to be `duplicated` counts here."""
    conserved: bool | None
    """Whether every final balance is what the changes in it add up to, and all balances together what came in and
    went out, with no transfer known to be torn; None where which changes are in them is not told, and some choice
    may fit."""
    linearizable: str
    """`yes`, `no` or `unknown`: whether each account's answers fit one order that respects real time. An account is
    judged by itself: that a transfer's legs have one instant is asked only of a transfer to the same account, unless
    order across accounts is asked for."""
    acknowledged_lost_amount: int = 0
    """What the lost operations had moved, in minor units, whichever way."""
    violations: tuple[Violation, ...] = ()
    """A few of them, at least one of each kind that was found."""
    violations_total: int = 0
    """Of what was found wrong, however many are shown. One bug may be found in several ways."""


def check(
    history: History,
    names: Sequence[str],
    opening: int,
    final: Mapping[str, Receipt],
    *,
    across_accounts: bool = False,
) -> Verdict:
    """Judge a trial whose accounts were opened with `opening` each. An account missing in `final` was lost.

    The receipts are held against each other and against the final state, not trusted. `across_accounts` asks that one
    order of all operations fits all accounts, too: what `Consistency.LINEARIZABLE` claims.
    """
    return _Check(history, names, opening, final).verdict(across_accounts=across_accounts)


class _Check:
    """One history's way through all questions."""

    def __init__(self, history: History, names: Sequence[str], opening: int, final: Mapping[str, Receipt]) -> None:
        self._history, self._names, self._opening = history, names, opening
        self._state = Final.of([final.get(name) for name in names])
        self._size = len(names)
        self._attempts = attempts = Attempts.of(history)

        answers = Legs.of(history, attempts.begun_ns, attempts.answers)
        self._without_receipts = np.zeros(self._size, dtype=np.bool_)
        self._without_receipts[answers.account[(answers.seq == 0) & (answers.epoch == 0)]] = True
        self._unknown = Legs.of(history, attempts.begun_ns, attempts.is_open)

        # Another answer under an op id tells of another effect, unless it shows what someone else did.
        differs = attempts.differs[answers.row]
        if differs.any():
            place = (answers.account, answers.seq)
            taken = among([each[differs] for each in place], [each[~differs & ~answers.is_read] for each in place])
            no_effect = per_row(answers.row[differs][taken], len(history))
            self._is_effect = attempts.differs & ~no_effect
            answers = answers.where(~no_effect[answers.row])
        else:
            self._is_effect = attempts.differs

        survives, untold = survivors(answers, self._state)
        changes = ~answers.is_read
        self._acknowledged = answers.where(changes)
        self._survives, self._untold = survives[changes], untold[changes]
        counts = ~self._without_receipts[answers.account]
        self._replay_survives = survives[counts]
        self._told = self._state.without(self._without_receipts)
        self._replay = Replay(answers.where(counts), self._replay_survives, self._unknown, opening, self._told)
        self._find = Findings(history, attempts, names, opening, self._state, self._replay)
        self._found: list[tuple[int, Iterable[Violation]]] = []

    def verdict(self, *, across_accounts: bool) -> Verdict:
        """All that can be said."""
        history, attempts = self._history, self._attempts
        operations = int(attempts.operation.max(initial=-1)) + 1
        of_change = attempts.operation[history.is_change & (history.fate == OK)]
        granted = per_row(of_change, operations)

        lost = self._lost(granted)
        torn = self._torn()
        duplicated, wanted, used = self._effects(granted)
        unknown = self._unknown.where(wanted)
        unknowns = np.bincount(unknown.account, minlength=self._size)
        guessed = np.bincount(self._unknown.account[~wanted], minlength=self._size) > 0
        indeterminate_applied, half_applied, half = applied(unknown, unknowns, used, guessed, len(history))
        self._found.append(self._find.half_applied(np.flatnonzero(half), half_applied - int(half.sum())))

        adds_up: bool | None = False
        if not (len(lost) or torn or half_applied or duplicated):
            adds_up = conserved(self._acknowledged, unknown, unknowns, used, self._state, self._opening)
        linearizable = self._order(across_accounts)
        if adds_up is False and not any(count for count, _ in self._found):
            self._found.append(self._find.nothing_adds_up())
        violations, total = chosen(self._found)
        unanswered = per_row(attempts.operation[attempts.is_open], operations) & ~granted
        return Verdict(
            acknowledged=int(granted.sum()),
            acknowledged_lost=len(lost),
            torn=torn + half_applied,
            duplicated=duplicated,
            indeterminate=int(unanswered.sum()),
            indeterminate_applied=indeterminate_applied,
            conserved=adds_up,
            linearizable=linearizable,
            acknowledged_lost_amount=int(history.amount[lost].sum()),
            violations=violations,
            violations_total=total,
        )

    def _lost(self, granted: Bools) -> Int64s:
        """One row of each acknowledged operation that is not in the final state as a whole."""
        history, legs, operation = self._history, self._acknowledged, self._attempts.operation
        gone = per_row(legs.row[~self._survives], len(history))
        self._kept_rows = per_row(legs.row, len(history)) & ~gone
        kept = per_row(operation[self._kept_rows], len(granted))
        of_lost = np.flatnonzero(gone & ~kept[operation])
        lost: Int64s = of_lost[np.unique(operation[of_lost], return_index=True)[1]]
        self._torn_rows = gone & per_row(legs.row[self._survives], len(history))
        self._torn_rows &= per_row(legs.row[~self._untold], len(history))  # with one leg at least
        whole = lost[~self._torn_rows[lost]]
        self._found.append(self._find.lost(whole, legs, self._survives))
        without = np.zeros(self._size, dtype=np.bool_)
        without[history.account[lost]] = True
        without[history.target[lost][history.target[lost] >= 0]] = True
        self._found += [self._find.accounts_lost(without), self._find.shown_and_lost(without)]
        return lost

    def _torn(self) -> int:
        """Acknowledged transfers of which one leg is in the final state."""
        rows = np.flatnonzero(self._torn_rows)
        self._found.append(self._find.torn(rows, self._acknowledged, self._survives))
        return len(rows)

    def _effects(self, granted: Bools) -> tuple[int, Bools, Int64s]:
        """How many changes are one effect too many.

        And which unknown legs may be an operation's only effect, with how many of these each account has.
        """
        history, attempts, unknown = self._history, self._attempts, self._unknown
        surviving = np.bincount(self._acknowledged.account[self._survives], minlength=self._size)
        changes = np.maximum(self._state.seq - 1, 0)  # the opening is the first change
        changes[self._state.is_there & (self._state.seq == 0)] = 0
        unexplained = np.maximum(changes - surviving, 0)
        unknowns = np.bincount(unknown.account, minlength=self._size)
        used = np.minimum(unexplained, unknowns)
        duplicated = int((unexplained - used).sum())

        kept = np.flatnonzero(self._kept_rows)
        again = np.ones(len(kept), dtype=np.bool_)
        again[np.unique(attempts.operation[kept], return_index=True)[1]] = False
        doubled = kept[again & ~attempts.differs[kept]]
        duplicated += int(per_row(kept[again], len(history))[self._acknowledged.row].sum())

        rows = np.flatnonzero(attempts.is_open & ~granted[attempts.operation])
        rows = rows[np.argsort(history.sent_ns[rows], kind="stable")]
        wanted = np.zeros(len(history), dtype=np.bool_)
        wanted[rows[np.unique(attempts.operation[rows], return_index=True)[1]]] = True
        may_be_only = wanted[unknown.row]
        beyond, operations = surplus(unknown, attempts.operation[unknown.row], may_be_only, used, self._replay.gaps)
        duplicated += int(beyond.sum())

        of_attempts = np.unique(np.concatenate([attempts.operation[doubled], operations]))
        self._found.append(self._find.doubled(of_attempts.tolist()))
        if beyond.any() and not len(operations):
            self._found.append(self._find.doubled_somewhere(beyond))
        self._found.append(self._find.gaps())
        self._found.append(self._find.not_conserved())
        return duplicated, may_be_only, used - beyond

    def _order(self, across_accounts: bool) -> str:
        """Whether the answers fit one order."""
        history, attempts, replay, find = self._history, self._attempts, self._replay, self._find
        operation = attempts.operation
        differs, reverses = np.flatnonzero(attempts.differs), np.flatnonzero(attempts.reverses)
        # Who lost an operation has forgotten its answer, and gives it another when it is sent again.
        kept = np.bincount(operation[self._kept_rows], minlength=int(operation.max(initial=-1)) + 1)
        told = differs[kept[operation[differs]] > self._kept_rows[differs]]
        otherwise = np.flatnonzero(attempts.refuses_otherwise & ~attempts.reverses)
        disproved, baseless = wrong_rejections(history, attempts, replay, self._opening, self._told)
        self._found += [
            find.zombies(self._replay_survives),
            find.one_seq(),
            find.wrong_balances(),
            find.out_of_order(),
            find.parted(),
            find.overdrawn(),
            find.answers_changed(told, self._is_effect[told]),
            find.rejections_changed(reverses[kept[operation[reverses]] > 0], otherwise),
            find.wrong_rejections(disproved, baseless),
        ]
        circles = cycles(replay.line, replay.begins, replay.broken_accounts) if across_accounts else []
        self._found.append(find.across_accounts(circles))
        searched = self._searched()
        if not np.any(history.fate == OK):
            return "unknown"
        fits = replay.is_linearizable and not (len(differs) or len(reverses) or len(disproved) or circles)
        if not fits or "no" in searched:
            return "no"
        return "unknown" if "unknown" in searched else "yes"

    def _searched(self) -> set[str]:
        """What a search says of each account that has answers without receipts.

        The final state is part of the order there: nothing else shows what of it was lost.
        """
        accounts = np.flatnonzero(self._without_receipts).tolist()
        if not accounts:
            return set()
        from benchmarks.harness import linearizability  # receipts are rarely missing

        found = set()
        left = linearizability.LIMIT
        for account in accounts:
            operations = _told(linearizability.of_history(self._history, account))
            if self._state.is_there[account]:
                operations.append(self._audit(account))
            answer = linearizability.linearizable(linearizability.Account(self._opening), operations, left)
            left = max(1, left - answer.visited)
            found.add(str(answer.verdict))
            if answer.verdict == "no":
                assert answer.offending is not None
                rows = [row for each in answer.prefix for row in each.rows]
                self._found.append(self._find.not_linearizable(account, answer.offending.rows, rows))
        return found

    def _audit(self, account: int) -> linearizability.Operation:
        """The final state, as a read behind all others."""
        from benchmarks.harness import linearizability

        returned = self._history.done_ns[self._history.done_ns != NEVER_NS]
        at_ns = max(int(self._history.sent_ns.max()), int(returned.max(initial=0))) + 1
        receipt = (int(self._state.seq[account]), int(self._state.balance[account]))
        return linearizability.Operation(-1, at_ns, at_ns + 1, linearizability.Call(0, 0), (receipt,))


def _told(operations: Sequence[linearizability.Operation]) -> list[linearizability.Operation]:
    """With receipts that are all zeros taken for what they are: none."""
    return [
        replace(each, output=()) if isinstance(each.output, tuple) and not any(map(any, each.output)) else each
        for each in operations
    ]
