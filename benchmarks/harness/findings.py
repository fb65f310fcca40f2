"""From what a check found to violations: the kind, the few rows that prove it, and words with their figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, islice

import numpy as np

from benchmarks.harness.attempts import Attempts
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
    Bools,
    History,
    Int64s,
)
from benchmarks.harness.legs import Final, Legs
from benchmarks.harness.receipts import Replay
from benchmarks.harness.violations import Kind, Violation

VIOLATIONS_MAX = 20
"""That are shown; the others are counted."""
_EACH_MAX = 20
"""Of what is found in one way, so many are looked at."""
_CANDIDATES_MAX = 100
"""Calls that may have made a change that no answer tells of."""
_DECODED_MAX = 6
"""Changes between two answers of which it is worked out which they were, ..."""
_SUMMANDS_MAX = 32
"""... among so many."""

_VERBS = {BALANCE: "read", DEPOSIT: "deposit", WITHDRAW: "withdrawal", TRANSFER: "transfer"}


def chosen(found: Sequence[tuple[int, Iterable[Violation]]]) -> tuple[tuple[Violation, ...], int]:
    """A few violations, among them one of each kind that was met, and how many there are in all."""
    total = sum(count for count, _ in found)
    every = [each for _, violations in found for each in islice(violations, _EACH_MAX)]
    first: dict[Kind, Violation] = {}
    for each in every:
        first.setdefault(each.kind, each)
    leading = list(first.values())
    others = [each for each in every if each is not first[each.kind]]
    return tuple((leading + others)[: max(VIOLATIONS_MAX, len(leading))]), max(total, len(leading))


@dataclass(frozen=True)
class _Cause:
    """What may have made a change that no answer tells of."""

    kind: Kind
    rows: tuple[int, ...]
    words: str


class Findings:
    """Puts what was found in one history into words."""

    def __init__(
        self, history: History, attempts: Attempts, names: Sequence[str], opening: int, final: Final, replay: Replay
    ) -> None:
        self._history, self._attempts, self._names = history, attempts, names
        self._opening, self._final, self._replay = opening, final, replay

    # -- the final state ---------------------------------------------------------------------------

    def lost(self, rows: Int64s, legs: Legs, survives: Bools) -> tuple[int, Iterator[Violation]]:
        """Acknowledged operations of which no answer is in the final state; `legs` and `survives` are of them all."""
        gone = legs.where(~survives)
        order = np.argsort(gone.row, kind="stable")
        first = order[np.searchsorted(gone.row[order], rows)] if len(rows) else order[:0]

        def each() -> Iterator[Violation]:
            for row, leg in zip(rows.tolist(), first.tolist(), strict=True):
                account, seq, epoch = (int(column[leg]) for column in (gone.account, gone.seq, gone.epoch))
                said = f"{self._call(row)} was acknowledged with {self._receipt(row, account)}, and "
                proof = [row]
                if not self._final.is_there[account]:
                    said += "the account is lost"
                elif seq > self._final.seq[account] or epoch > self._final.epoch[account]:
                    said += f"the final state is {self._final_state(account)}"
                else:
                    here = (legs.account == account) & (legs.seq <= seq) & survives & (legs.row != row)
                    rivals = np.flatnonzero(here & ((legs.epoch > epoch) | (legs.seq == seq)))
                    if len(rivals):
                        rival = int(rivals[np.argmax(legs.seq[rivals])])
                        proof.append(int(legs.row[rival]))
                        said += f"{self._call(proof[-1])} took its place with {self._receipt(proof[-1], account)}"
                    else:
                        said += f"the final state, {self._final_state(account)}, has been reached without it"
                yield self._violation(Kind.ACKNOWLEDGED_LOST, account, said, proof)

        return len(rows), each()

    def accounts_lost(self, without: Bools) -> tuple[int, Iterator[Violation]]:
        """Accounts that are gone, but for those that took acknowledged operations along."""
        found = np.flatnonzero(~self._final.is_there & ~without)

        def each() -> Iterator[Violation]:
            for account in found.tolist():
                said = f"the account is lost, and it was opened with {self._opening}"
                yield self._violation(Kind.ACKNOWLEDGED_LOST, account, said, [])

        return len(found), each()

    def shown_and_lost(self, without: Bools) -> tuple[int, Iterator[Violation]]:
        """Reads of states that the final state, or a later owner, is behind; not of accounts that lost more."""
        answers, replay = self._replay.answers, self._replay
        behind = answers.seq > self._final.seq[answers.account]
        behind |= replay.superseded & (replay.after_takeover < 0)
        found = np.flatnonzero(answers.is_read & behind & self._final.is_there[answers.account])
        found = found[~without[answers.account[found]]]

        def each() -> Iterator[Violation]:
            for leg in found.tolist():
                account, row = int(answers.account[leg]), int(answers.row[leg])
                said = f"{self._call(row)} showed {self._receipt(row, account)}, and what made it is gone: "
                said += f"the final state is {self._final_state(account)}"
                yield self._violation(Kind.ACKNOWLEDGED_LOST, account, said, [row])

        return len(found), each()

    def torn(self, rows: Int64s, legs: Legs, survives: Bools) -> tuple[int, Iterator[Violation]]:
        """Acknowledged transfers with one leg in the final state."""

        def each() -> Iterator[Violation]:
            for row in rows.tolist():
                mine = np.flatnonzero(legs.row == row)
                kept, gone = mine[survives[mine]], mine[~survives[mine]]
                there, away = int(legs.account[kept[0]]), int(legs.account[gone[0]])
                said = (
                    f"of {self._call(row)}, the leg on {self._names[there]} with seq {legs.seq[kept[0]]} is in the "
                    f"final state, and the leg on {self._names[away]} with seq {legs.seq[gone[0]]} is not"
                )
                yield self._violation(Kind.TORN_TRANSFER, away, said, [row])

        return len(rows), each()

    def half_applied(self, rows: Int64s, more: int) -> tuple[int, Iterator[Violation]]:
        """Transfers of unknown fate with one leg in the final state, and so many of which it is not told which."""

        def each() -> Iterator[Violation]:
            for row in rows.tolist():
                account = int(self._history.account[row])
                said = f"of {self._call(row)}, whose fate was never told, one leg is in the final state"
                yield self._violation(Kind.TORN_TRANSFER, account, said, [row])
            if more:
                said = f"one leg of {more} transfers of unknown fate is in the final state, and the other is not"
                yield Violation(Kind.TORN_TRANSFER, "", said, ())

        return len(rows) + more, each()

    def not_conserved(self) -> tuple[int, Iterator[Violation]]:
        """Final balances at the seq of the last answer that are not its balance."""
        replay, line = self._replay, self._replay.line
        accounts, ahead, jump = replay.tails
        found = np.flatnonzero((ahead == 0) & (jump != 0) & ~replay.broken_accounts[accounts])

        def each() -> Iterator[Violation]:
            for index in found.tolist():
                account = int(accounts[index])
                last = np.flatnonzero(line.account == account)
                said = f"the final state is {self._final_state(account)}, and "
                if len(last):
                    row = int(line.row[last[-1]])
                    said += f"{self._call(row)} had {self._receipt(row, account)}"
                    yield self._violation(Kind.NOT_CONSERVED, account, said, [row])
                else:
                    said += f"it was opened with {self._opening}"
                    yield self._violation(Kind.NOT_CONSERVED, account, said, [])

        return len(found), each()

    def nothing_adds_up(self) -> tuple[int, Iterator[Violation]]:
        """The balances are wrong, and no one row shows where."""
        said = "the final balances are not what the acknowledged changes and any of unknown fate add up to"
        return 1, iter([Violation(Kind.NOT_CONSERVED, "", said, ())])

    # -- sent again --------------------------------------------------------------------------------

    def doubled(self, operations: Sequence[int]) -> tuple[int, Iterator[Violation]]:
        """Operations with more than one effect, by their numbers among the attempts."""
        fate = self._history.fate

        def each() -> Iterator[Violation]:
            for operation in operations:
                rows = self._rows_of(operation)
                granted = [row for row in rows if fate[row] == OK]
                unknown = [row for row in rows if fate[row] == UNKNOWN]
                row = (granted or unknown)[0]
                account = int(self._history.account[row])
                if len(granted) > 1:
                    said = (
                        f"{self._call(row)} was answered with {self._receipts(row)}, and when it was sent again with "
                        f"{self._receipts(granted[1])}: it had its effect twice"
                    )
                    yield self._violation(Kind.DUPLICATED, account, said, granted[:2])
                    continue
                answer = f"was answered with {self._receipts(row)}" if granted else "was never answered"
                said = (
                    f"{self._call(row)} {answer}, and the fates of {len(unknown)} attempts are unknown: by the "
                    f"balances, it had more than one effect"
                )
                yield self._violation(Kind.DUPLICATED, account, said, [*granted, *unknown])

        return len(operations), each()

    def doubled_somewhere(self, beyond: Int64s) -> tuple[int, Iterator[Violation]]:
        """Accounts with so many more effects than operations, when nothing tells which."""
        found = np.flatnonzero(beyond)

        def each() -> Iterator[Violation]:
            for account in found.tolist():
                said = (
                    f"of attempts whose fate was never told, {beyond[account]} had an effect though their operation "
                    f"had had one: the final state is {self._final_state(account)}"
                )
                yield self._violation(Kind.DUPLICATED, account, said, [])

        return int(beyond.sum()), each()

    def answers_changed(self, rows: Int64s, is_effect: Bools) -> tuple[int, Iterator[Violation]]:
        """Answers that differ from the first one under their op id; of some, there is a change in the account."""

        def each() -> Iterator[Violation]:
            for row, had_effect in zip(rows.tolist(), is_effect.tolist(), strict=True):
                first = self._first_answer(row, OK)
                account = int(self._history.account[row])
                said = (
                    f"{self._call(first)} was answered with {self._receipts(first)}, and when it was sent again "
                    f"with {self._receipts(row)}"
                )
                if had_effect:
                    said += ": it had its effect again"
                kind = Kind.DUPLICATED if had_effect else Kind.CHANGED_ANSWER
                yield self._violation(kind, account, said, [first, row])

        return len(rows), each()

    def rejections_changed(self, reverses: Int64s, otherwise: Int64s) -> tuple[int, Iterator[Violation]]:
        """Rejections of what was granted, and rejections for another reason than at first."""

        def each() -> Iterator[Violation]:
            for rows, kind, fate in (
                (reverses, Kind.REJECTION_REVERSED, OK),
                (otherwise, Kind.CHANGED_ANSWER, REJECTED),
            ):
                for row in rows[: _EACH_MAX // 2].tolist():
                    first = self._first_answer(row, fate)
                    account = int(self._history.account[row])
                    other = self._receipt(first, account) if fate == OK else self._reason(first)
                    said = f"under one op id, {self._call(row)} was rejected ({self._reason(row)}) and got {other}"
                    if fate == REJECTED:
                        said = f"under one op id, {self._call(row)} was rejected for {self._reason(row)} and {other}"
                    yield self._violation(kind, account, said, [first, row])

        return len(reverses) + len(otherwise), each()

    def wrong_rejections(self, disproved: Int64s, baseless: Int64s) -> tuple[int, Iterator[Violation]]:
        """Of the first, the balances show that the reason never held."""

        def each() -> Iterator[Violation]:
            for row in disproved[:_EACH_MAX].tolist():
                yield self._disproved(row)
            for row in baseless[:_EACH_MAX].tolist():
                account = int(self._history.account[row])
                said = f"{self._call(row)} was rejected for {self._reason(row)}, which did not hold at any time"
                yield self._violation(Kind.WRONG_REJECTION, account, said, [row])

        return len(disproved) + len(baseless), each()

    def _disproved(self, row: int) -> Violation:
        history, line = self._history, self._replay.line
        short = self._reason(row) == "InsufficientFunds"
        account = int(history.account[row] if short or history.function[row] != TRANSFER else history.target[row])
        begun, done = int(self._attempts.begun_ns[row]), int(history.done_ns[row])
        mine = np.flatnonzero(line.account == account)
        before, after = mine[line.done_ns[mine] < begun], mine[line.begun_ns[mine] > done]
        first = int(before[-1]) if len(before) else -1
        last = int(after[0]) if len(after) else -1
        low = int(line.seq[first]) if first >= 0 else 1
        high = int(line.seq[last]) - (not line.is_read[last]) if last >= 0 else int(self._final.seq[account])
        states = mine[(line.seq[mine] >= low) & (line.seq[mine] <= high)]
        balances = line.balance[states].tolist() + ([self._opening] if low == 1 else [])
        if high == self._final.seq[account]:
            balances.append(int(self._final.balance[account]))
        said = f"{self._call(row)} was rejected for {self._reason(row)}, and the balance was "
        said += f"at least {min(balances)}" if short else f"at most {max(balances)}"
        said += " as long as it ran"
        around = [int(line.row[each]) for each in (first, last) if each >= 0]
        return self._violation(Kind.WRONG_REJECTION, account, said, [*around, row])

    # -- the order ---------------------------------------------------------------------------------

    def zombies(self, survives: Bools) -> tuple[int, Iterator[Violation]]:
        """What an earlier owner answered to calls that began after a later one had answered, or did in between."""
        replay, answers = self._replay, self._replay.answers
        dead = replay.after_takeover >= 0
        between = replay.superseded & ~dead & survives & ~answers.is_read
        found = [*_few(dead & ~answers.is_read), *_few(dead & answers.is_read), *_few(between)]

        def each() -> Iterator[Violation]:
            for leg in found:
                account, row, epoch = (int(column[leg]) for column in (answers.account, answers.row, answers.epoch))
                other = int(replay.after_takeover[leg])
                if other < 0:
                    newer = (answers.account == account) & (answers.epoch > epoch) & (answers.seq <= answers.seq[leg])
                    other = int(np.flatnonzero(newer)[0])
                first = int(answers.row[other])
                when = "began after" if dead[leg] else "comes after"
                said = (
                    f"{self._call(row)} was answered with {self._receipt(row, account)} by epoch {epoch}, and {when} "
                    f"{self._call(first)}, answered with {self._receipt(first, account)} by epoch "
                    f"{answers.epoch[other]}"
                )
                yield self._violation(Kind.ZOMBIE_OWNER, account, said, [first, row])

        return int(dead.sum() + between.sum()), each()

    def one_seq(self) -> tuple[int, Iterator[Violation]]:
        """Changes whose seq another change has."""
        replay, answers = self._replay, self._replay.answers
        same_owner = answers.epoch[replay.losers] == answers.epoch[replay.winners]
        losers, winners = replay.losers[same_owner], replay.winners[same_owner]

        def each() -> Iterator[Violation]:
            for loser, winner in zip(losers.tolist(), winners.tolist(), strict=True):
                account, row, other = int(answers.account[loser]), int(answers.row[loser]), int(answers.row[winner])
                kind = self._of_rivals(loser, winner)
                ends = {
                    Kind.LOST_UPDATE: "were made from one state",
                    Kind.FOREIGN_REPLY: "got one receipt",
                }.get(kind, f"have seq {answers.seq[loser]}")
                said = (
                    f"{self._call(other)}, with {self._receipt(other, account)}, and {self._call(row)}, with "
                    f"{self._receipt(row, account)}, {ends}"
                )
                yield self._violation(kind, account, said, [other, row])

        return len(losers), each()

    def _of_rivals(self, loser: int, winner: int) -> Kind:
        answers, gaps = self._replay.answers, self._replay.gaps
        same_balance = answers.balance[loser] == answers.balance[winner]
        if answers.row[loser] == answers.row[winner]:
            return Kind.SEQ_REUSED
        if same_balance and answers.change[loser] != answers.change[winner]:
            return Kind.FOREIGN_REPLY
        if answers.balance[loser] - answers.change[loser] == answers.balance[winner] - answers.change[winner]:
            here = (gaps.account == answers.account[loser]) & (gaps.unexplained > 0)
            is_elsewhere = np.any(here & (gaps.missing == 1) & (gaps.jump == answers.change[loser]))
            return Kind.FOREIGN_REPLY if same_balance and is_elsewhere else Kind.LOST_UPDATE
        return Kind.FOREIGN_REPLY if self._same_receipt_elsewhere(loser) else Kind.SEQ_REUSED

    def wrong_balances(self) -> tuple[int, Iterator[Violation]]:
        """Balances that do not follow from the one before, or from the opening."""
        replay, line = self._replay, self._replay.line
        wrong, jump = replay.wrong, replay.jump
        # One wrong receipt is wrong against both of its neighbours.
        echo = np.zeros(len(line), dtype=np.bool_)
        echo[1:] = wrong[1:] & wrong[:-1] & ~replay.begins[1:] & (jump[1:] == -jump[:-1])
        echo[1:] &= ~echo[:-1]
        found = np.flatnonzero(wrong & ~echo)

        def each() -> Iterator[Violation]:
            for index in [*_few(replay.before_opening), *found.tolist()]:
                yield self._wrong_balance(index)

        return len(found) + int(replay.before_opening.sum()), each()

    def _wrong_balance(self, index: int) -> Violation:
        replay, line = self._replay, self._replay.line
        account, row = int(line.account[index]), int(line.row[index])
        receipt = self._receipt(row, account, int(line.seq[index]))
        leg = int(np.flatnonzero((replay.answers.row == row) & (replay.answers.account == account))[0])
        other = self._same_receipt_elsewhere(leg)
        if other is not None:
            there = self._names[int(replay.answers.account[other])]
            first = int(replay.answers.row[other])
            said = f"{self._call(row)} was answered with {receipt}, the receipt of {self._call(first)} on {there}"
            return self._violation(Kind.FOREIGN_REPLY, account, said, [first, row])
        if replay.before_opening[index]:
            said = f"{self._call(row)} was answered with {receipt}, and the account was opened with seq 1"
            kind = Kind.STALE_READ if line.is_read[index] else Kind.SEQ_REUSED
            return self._violation(kind, account, said, [row])
        if replay.begins[index]:
            said = f"{self._call(row)} was answered with {receipt}, and the account was opened with {self._opening}"
            overdraws = self._opening + line.change[index] < 0
            return self._violation(Kind.OVERDRAFT if overdraws else Kind.WRONG_BALANCE, account, said, [row])
        before = int(line.row[index - 1])
        receipt_before = self._receipt(before, account, int(line.seq[index - 1]))
        said = f"{self._call(row)} was answered with {receipt}, and {self._call(before)} with {receipt_before}"
        are_changes = not (line.is_read[index] or line.is_read[index - 1])
        overwrote = are_changes and line.change[index - 1] == -replay.jump[index]
        if overwrote:
            return self._violation(Kind.LOST_UPDATE, account, f"{said}: both were made from one balance", [before, row])
        if line.balance[index - 1] + line.change[index] < 0:
            return self._violation(Kind.OVERDRAFT, account, f"{said}: that could not pay for it", [before, row])
        said += f": {int(replay.jump[index]):+d} is not accounted for"
        return self._violation(Kind.WRONG_BALANCE, account, said, [before, row])

    def _same_receipt_elsewhere(self, leg: int) -> int | None:
        """An answer on another account with the same receipt."""
        answers = self._replay.answers
        same = (answers.seq == answers.seq[leg]) & (answers.balance == answers.balance[leg])
        same &= (answers.epoch == answers.epoch[leg]) & (answers.account != answers.account[leg])
        same &= answers.row != answers.row[leg]
        # Many accounts look alike: the receipt is that of a call that ran at the same time.
        same &= (answers.begun_ns <= answers.done_ns[leg]) & (answers.done_ns >= answers.begun_ns[leg])
        found = np.flatnonzero(same)
        return int(found[0]) if len(found) else None

    def out_of_order(self) -> tuple[int, Iterator[Violation]]:
        """Answers that were overtaken by what began when they were complete."""
        replay, line = self._replay, self._replay.line
        late = replay.late >= 0
        early = line.epoch < line.epoch[replay.late]
        found = [*_few(late & line.is_read), *_few(late & ~line.is_read), *_few(late & early)]

        def each() -> Iterator[Violation]:
            for index in dict.fromkeys(found):
                yield self._out_of_order(index, int(replay.late[index]))

        return int(late.sum()), each()

    def _out_of_order(self, index: int, other: int) -> Violation:
        line, history = self._replay.line, self._history
        account, row, before = int(line.account[index]), int(line.row[index]), int(line.row[other])
        said = (
            f"{self._call(before)} had been answered with "
            f"{self._receipt(before, account, int(line.seq[other]))} before "
            f"{self._call(row)} began, which was answered with {self._receipt(row, account, int(line.seq[index]))}"
        )
        if line.epoch[index] < line.epoch[other]:
            return self._violation(Kind.ZOMBIE_OWNER, account, said, [before, row])
        if line.is_read[index]:
            return self._violation(Kind.STALE_READ, account, said, [before, row])
        refused = [
            each
            for each in self._rows_of(int(self._attempts.operation[row]))
            if history.fate[each] in (UNAVAILABLE, LOST) and history.sent_ns[each] <= line.done_ns[other]
        ]
        if refused:
            said = (
                f"{self._call(refused[0])} surely had no effect by its answer, and {self._call(before)} showed the "
                f"state behind it before it was sent again"
            )
            return self._violation(Kind.REJECTED_APPLIED, account, said, [refused[0], before, row])
        if line.is_read[other] and line.seq[other] == line.seq[index]:
            return self._violation(Kind.SEQ_REUSED, account, said, [before, row])
        return self._violation(Kind.REORDERED, account, said, [before, row])

    def parted(self) -> tuple[int, Iterator[Violation]]:
        """Transfers to the same account that something came between."""
        line = self._replay.line
        found = np.flatnonzero(self._replay.parted)

        def each() -> Iterator[Violation]:
            for index in found.tolist():
                account, row = int(line.account[index]), int(line.row[index])
                rows = [row]
                said = f"the legs of {self._call(row)} do not follow each other"
                if index + 1 < len(line) and line.account[index + 1] == account:
                    rows.append(int(line.row[index + 1]))
                    said += f": {self._call(rows[1])} is between them, with {self._receipt(rows[1], account)}"
                yield self._violation(Kind.TORN_TRANSFER, account, said, rows)

        return len(found), each()

    def overdrawn(self) -> tuple[int, Iterator[Violation]]:
        """Balances below zero."""
        line = self._replay.line
        found = np.flatnonzero(self._replay.overdrawn)
        below = np.flatnonzero(self._final.is_there & (self._final.balance < 0))
        below = np.setdiff1d(below, line.account[found])

        def each() -> Iterator[Violation]:
            for index in found.tolist():
                account, row = int(line.account[index]), int(line.row[index])
                said = f"{self._call(row)} was answered with {self._receipt(row, account, int(line.seq[index]))}"
                yield self._violation(Kind.OVERDRAFT, account, said, [row])
            for account in below.tolist():
                yield self._violation(Kind.OVERDRAFT, account, f"the final state is {self._final_state(account)}", [])

        return len(found) + len(below), each()

    def across_accounts(self, cycles: Sequence[list[int]]) -> tuple[int, Iterator[Violation]]:
        """Circles of operations, each of which comes before the next."""

        def each() -> Iterator[Violation]:
            for rows in cycles:
                calls = ", before ".join(self._call(row, receipts=True) for row in rows[:6])
                said = f"by the accounts' seqs and real time, {calls}{', …' if len(rows) > 6 else ''}, before the first"
                account = int(self._history.account[rows[0]])
                yield self._violation(Kind.TRANSFERS_OUT_OF_ORDER, account, said, rows)

        return len(cycles), each()

    def not_linearizable(
        self, account: int, offending: Sequence[int], rows: Sequence[int]
    ) -> tuple[int, list[Violation]]:
        """What a search found: attempts that fit no order of these rows, of which they are some; or the final state."""
        answered = [row for row in offending if self._history.fate[row] in (OK, REJECTED)]
        if answered:
            row = answered[0]
            answer = self._receipts(row) if self._history.fate[row] == OK else self._reason(row)
            said = f"{self._call(row)}, answered with {answer}, fits no order of what was sent before it returned"
        else:
            said = f"no order of what was sent ends in the final state, {self._final_state(account)}"
        return 1, [self._violation(Kind.NOT_LINEARIZABLE, account, said, rows)]

    # -- gaps --------------------------------------------------------------------------------------

    def gaps(self) -> tuple[int, Iterator[Violation]]:
        """Changes that no answer tells of and no operation of unknown fate explains."""
        gaps = self._replay.gaps
        found = np.flatnonzero(gaps.unexplained > 0)

        def each() -> Iterator[Violation]:
            for index in found.tolist():
                yield self._gap(index)

        return int(gaps.unexplained[found].sum()), each()

    def _gap(self, index: int) -> Violation:
        gaps, line = self._replay.gaps, self._replay.line
        account, at, missing, jump = (int(column[index]) for column in (gaps.account, gaps.at, gaps.missing, gaps.jump))
        here = np.flatnonzero(line.account == account)
        earlier = here[here < at] if at >= 0 else here
        since_ns = int(line.begun_ns[earlier].max()) if len(earlier) else np.iinfo(np.int64).min
        before = [int(line.row[earlier[-1]])] if len(earlier) else []
        after = [int(line.row[at])] if at >= 0 else []
        begins = (
            f"{self._call(before[0])} had {self._receipt(before[0], account, int(line.seq[earlier[-1]]))}"
            if before
            else f"the account was opened with {self._opening}"
        )
        ends = (
            f"{self._call(after[0])} had {self._receipt(after[0], account, int(line.seq[at]))}"
            if after
            else f"the final state is {self._final_state(account)}"
        )
        seqs = "a change" if missing == 1 else f"{missing} changes"
        said = f"{begins} and {ends}: {seqs} that together made {jump:+d} are between them"
        cause = self._cause(account, missing, jump, since_ns, int(gaps.until_ns[index]))
        if cause is None:
            kind = Kind.PHANTOM if missing == 1 and jump else Kind.SEQ_GAP
            return self._violation(kind, account, f"{said}, and nothing that was sent explains it", [*before, *after])
        rows = [*cause.rows, *(each for each in (*before, *after) if each not in cause.rows)]
        return self._violation(cause.kind, account, f"{said}; {cause.words}", rows)

    def _cause(self, account: int, missing: int, jump: int, since_ns: int, until_ns: int) -> _Cause | None:
        """What was sent and can have made a gap's change, or one of its few."""
        history = self._history
        at_source, at_target = history.account == account, (history.function == TRANSFER) & (history.target == account)
        sent = history.is_change & (history.sent_ns <= until_ns)
        source, target = np.flatnonzero(at_source & sent), np.flatnonzero(at_target & sent)
        rows = np.concatenate([source, target])
        signs = np.where(history.function[source] == DEPOSIT, 1, -1)
        changes = np.concatenate([signs * history.amount[source], history.amount[target]])
        if missing == 1:
            return self._likeliest(rows[changes == jump], since_ns) if jump else None
        if missing > _DECODED_MAX:
            return None
        latest = np.argsort(-history.done_ns[rows], kind="stable")
        first = latest[np.unique(changes[latest], return_index=True)[1]]
        few = changes[first[np.argsort(-history.done_ns[rows[first]], kind="stable")][:_SUMMANDS_MAX]].tolist()
        causes = [self._likeliest(rows[changes == change], since_ns) for change in _summands(few, missing, jump)]
        return min(filter(None, causes), key=lambda each: each.kind != Kind.DUPLICATED, default=None)

    def _likeliest(self, rows: Int64s, since_ns: int) -> _Cause | None:
        """What is sent again is doubled more often than what is refused is done, and both while the call runs."""
        history = self._history
        ranked = []
        latest = rows[np.argsort(-history.done_ns[rows], kind="stable")]
        for row in latest[:_CANDIDATES_MAX].tolist():
            attempts = self._rows_of(int(self._attempts.operation[row]))
            granted = [each for each in attempts if history.fate[each] == OK]
            rejected = [each for each in attempts if self._attempts.refuses[each] and history.keyed[each]]
            meanwhile = history.done_ns[row] >= since_ns
            if history.fate[row] == UNKNOWN and rejected:
                rank, row = 1 if meanwhile else 4, rejected[0]
            elif history.fate[row] == UNKNOWN and len(attempts) > 1:
                rank = 0 if meanwhile else 5
            elif history.fate[row] == REJECTED and (granted or self._attempts.is_open[attempts].any()):
                continue
            elif history.fate[row] in (REJECTED, UNAVAILABLE, LOST):
                rank = 1 if meanwhile else 4
            elif any(each in self._misanswered for each in granted):
                rank = 2
            else:
                rank = 3 if meanwhile else 5
            ranked.append((rank, row, granted))
        if not ranked:
            return None
        rank, row, granted = min(ranked)
        if rank in (1, 4):
            fate = self._reason(row) if history.fate[row] == REJECTED else _REFUSALS[int(history.fate[row])]
            return _Cause(Kind.REJECTED_APPLIED, (row,), f"{self._call(row)} was answered with {fate} and made it")
        if rank == 2:
            words = f"{self._call(row)} made it, and was answered with {self._receipts(granted[0])}"
            return _Cause(Kind.FOREIGN_REPLY, (granted[0],), words)
        found = tuple(dict.fromkeys([*granted[:1], row]))
        return _Cause(Kind.DUPLICATED, found, f"{self._call(row)} had its effect once more")

    @cached_property
    def _misanswered(self) -> frozenset[int]:
        """Rows whose receipts cannot be their own."""
        replay, line = self._replay, self._replay.line
        rows = (replay.answers.row[replay.losers], line.row[replay.wrong | replay.before_opening])
        return frozenset(np.concatenate(rows).tolist())

    # -- words -------------------------------------------------------------------------------------

    def _violation(self, kind: Kind, account: int, said: str, rows: Sequence[int]) -> Violation:
        name = self._names[account]
        ordered = sorted(dict.fromkeys(rows), key=lambda row: (int(self._history.sent_ns[row]), row))
        return Violation(kind, name, f"{name}: {said}.", tuple(ordered))

    def _call(self, row: int, *, receipts: bool = False) -> str:
        """Such as `the deposit of 7 (client 2, operation 15)`."""
        history = self._history
        function = int(history.function[row])
        what = f"the {_VERBS[function]}"
        if function != BALANCE:
            what += f" of {history.amount[row]}"
        if function == TRANSFER:
            what += f" to {self._names[int(history.target[row])]}"
        attempt = f", attempt {history.attempt[row]}" if history.attempt[row] else ""
        what += f" (client {history.client[row]}, operation {history.number[row]}{attempt})"
        return f"{what} with {self._receipts(row)}" if receipts else what

    def _receipt(self, row: int, account: int, seq: int | None = None) -> str:
        """The receipt for this account; of a transfer to the same account, the one with this seq."""
        history = self._history
        at_source = history.account[row] == account and (seq is None or history.seq[row] == seq)
        if history.function[row] != TRANSFER or at_source:
            return f"seq {history.seq[row]} and balance {history.balance[row]}"
        return f"seq {history.target_seq[row]} and balance {history.target_balance[row]}"

    def _receipts(self, row: int) -> str:
        history = self._history
        said = f"seq {history.seq[row]} and balance {history.balance[row]}"
        if history.function[row] == TRANSFER:
            said += f" (there seq {history.target_seq[row]} and balance {history.target_balance[row]})"
        return said

    def _final_state(self, account: int) -> str:
        return f"seq {self._final.seq[account]}, balance {self._final.balance[account]}"

    def _reason(self, row: int) -> str:
        return REASONS[int(self._history.reason[row])] or "no reason"

    @cached_property
    def _by_operation(self) -> tuple[Int64s, Int64s]:
        order = np.lexsort((self._history.sent_ns, self._attempts.operation))
        return order, self._attempts.operation[order]

    def _rows_of(self, operation: int) -> list[int]:
        """All attempts, in the order in which they were sent."""
        order, operations = self._by_operation
        begin, end = np.searchsorted(operations, [operation, operation + 1])
        rows: list[int] = order[begin:end].tolist()
        return rows

    def _first_answer(self, row: int, fate: int) -> int:
        rows = np.array(self._rows_of(int(self._attempts.operation[row])))
        rows = rows[self._history.fate[rows] == fate]
        return int(rows[np.argmin(self._history.done_ns[rows])])


_REFUSALS = {UNAVAILABLE: "Unavailable", LOST: "StateLost"}


def _few(which: Bools) -> list[int]:
    """Of one of three sorts that are looked at together."""
    few: list[int] = np.flatnonzero(which)[: _EACH_MAX // 3].tolist()
    return few


def _summands(changes: Sequence[int], count: int, total: int) -> tuple[int, ...]:
    """So many of the changes, some perhaps repeated, that add up to the total; none if there are none."""
    half = {sum(each): each for each in combinations_with_replacement(changes, count // 2)}
    for others in combinations_with_replacement(changes, count - count // 2):
        if total - sum(others) in half:
            return tuple(dict.fromkeys((*others, *half[total - sum(others)])))
    return ()
