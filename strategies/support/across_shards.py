"""A caller's half of transfers between shards: leads each through its phases, and a whole batch in its order.

The shards' half, and what the phases are, is in `two_phase`.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from strategies.interface.account import MAX_BATCH, Answer, Receipt
from strategies.interface.errors import (
    AccountError,
    Indeterminate,
    InvalidAmount,
    StateLost,
    Unavailable,
    UnknownAccount,
)
from strategies.support.fates import InDoubt
from strategies.support.two_phase import NOTHING
from strategies.support.wire import (
    BALANCE,
    DEBIT,
    FORGET,
    HAS_TARGET,
    NO_NUMBER,
    PEND,
    POST,
    SETTLE,
    TRANSFER,
    VOID,
    Batch,
)

if TYPE_CHECKING:
    from strategies.support.owners import Owner, Owners

_TRIES = 5
"""How often an operation is sent that meets credits in doubt, each time settled before."""


@dataclass(eq=False)
class _Crossing:
    """One transfer on its way."""

    place: int
    source_shard: Owner
    target_shard: Owner
    source: str
    target: str
    attempt: str
    held: bool = False
    """Whether the target's shard keeps room for the credit."""
    debit: Receipt | None = None
    credit: Receipt | None = None
    error: AccountError | None = None

    @property
    def answer(self) -> Answer:
        if self.error is not None:
            return self.error
        assert self.debit is not None
        assert self.credit is not None
        return self.debit, self.credit


class _Step(NamedTuple):
    """What is sent to one shard: an operation as it is, or one phase of a crossing."""

    code: int
    place: int
    crossing: _Crossing | None


_Level = dict["Owner", list[_Step]]


@dataclass(eq=False)
class AcrossShards:
    """One handle's coordinator."""

    bank: Owners
    shard_of: Callable[[str], Owner]
    _finished: dict[Owner, deque[str]] = field(default_factory=dict)
    """Attempts that are over at both ends, which their source's shard may forget. Threads add and take at any time."""

    def __post_init__(self) -> None:
        self._caller = uuid.uuid4().hex
        self._attempts = itertools.count()

    def apply(
        self,
        batch: Batch,
        shards: Sequence[Owner | None],
        target_shards: Sequence[Owner | None],
        deadline: float,
    ) -> dict[int, Answer]:
        """The answer of each operation that has a shard, by its place. `target_shards` are of the transfers alone."""
        levels, crossings = self._planned(batch, shards, target_shards)
        places = (place for place, code in enumerate(batch.functions) if code == TRANSFER)
        targets = dict(zip(places, batch.targets, strict=True))
        answers: dict[int, Answer] = {}
        for level in levels:
            self._send(batch, targets, level, answers, deadline)
        for crossing in crossings:
            answers[crossing.place] = crossing.answer
        return answers

    def settle(self, shard: Owner, doubts: Sequence[tuple[str, str]], deadline: float) -> None:
        """Have these credits, pending at the shard, posted or voided; as far as their sources' shards answer."""
        for attempt, source in doubts:
            source_shard = self.shard_of(source)
            answer = self._ask(source_shard, SETTLE, attempt, deadline)
            if isinstance(answer, Receipt) and answer.seq:
                if isinstance(self._ask(shard, POST, attempt, deadline), Receipt):
                    self._finish(source_shard, attempt)
            elif isinstance(answer, (Receipt, StateLost)):  # not debited, or nobody can prove it any more
                self._ask(shard, VOID, attempt, deadline)

    def _ask(self, shard: Owner, code: int, attempt: str, deadline: float) -> Answer:
        return self._answer(shard, Batch(bytes([code]), ("",), (0,), (), attempts=(attempt,)), deadline)

    def _answer(self, shard: Owner, batch: Batch, deadline: float) -> Answer:
        ((answer,),) = self.bank.apply([(shard, batch)], deadline, "a transfer")
        return answer

    def _planned(
        self, batch: Batch, shards: Sequence[Owner | None], target_shards: Sequence[Owner | None]
    ) -> tuple[list[_Level], list[_Crossing]]:
        """The rounds of messages in which every account's operations keep their order."""
        levels: list[_Level] = []
        crossings: list[_Crossing] = []
        level_of: dict[str, int] = {}

        def add(level: int, shard: Owner, step: _Step) -> None:
            while len(levels) <= level:
                levels.append({})
            levels[level].setdefault(shard, []).append(step)

        targets = zip(batch.targets, target_shards, strict=True)
        for place, (code, source, shard) in enumerate(zip(batch.functions, batch.accounts, shards, strict=True)):
            target, target_shard = next(targets) if code == TRANSFER else (source, shard)
            if shard is None or target_shard is None:
                continue
            source_level, target_level = level_of.get(source, 0), level_of.get(target, 0)
            if shard is target_shard:
                level_of[source] = level_of[target] = level = max(source_level, target_level)
                add(level, shard, _Step(code, place, None))
                continue
            attempt = f"{self._caller}/{next(self._attempts)}"
            crossing = _Crossing(place, shard, target_shard, source, target, attempt)
            crossings.append(crossing)
            level_of[source] = debited = max(source_level, target_level + 1)
            level_of[target] = debited + 1
            add(target_level, target_shard, _Step(PEND, place, crossing))
            add(debited, shard, _Step(DEBIT, place, crossing))
            add(debited + 1, target_shard, _Step(POST, place, crossing))
        return levels, crossings

    def _send(
        self, batch: Batch, targets: dict[int, str], level: _Level, answers: dict[int, Answer], deadline: float
    ) -> None:
        """One round. What meets credits in doubt is sent again when they are settled."""
        for _ in range(_TRIES):
            due = {shard: wanted for shard, steps in level.items() if (wanted := list(filter(_is_wanted, steps)))}
            if not due:
                return
            forgotten = {shard: self._take_finished(shard) for shard in due}
            requests = [(shard, _message(batch, targets, steps, forgotten[shard])) for shard, steps in due.items()]
            found = self.bank.apply(requests, deadline, "a batch")
            level = {}
            for (shard, steps), of_shard in zip(due.items(), found, strict=True):
                of_steps = of_shard[len(forgotten[shard]) :]
                doubts: dict[str, str] = {}
                for step, answer in zip(steps, of_steps, strict=True):
                    if isinstance(answer, InDoubt):
                        doubts |= dict(answer.pending)
                        level.setdefault(shard, []).append(step)
                    elif step.crossing is None:
                        answers[step.place] = answer
                    else:
                        self._advance(step.code, step.crossing, answer)
                        if step.code == PEND and isinstance(step.crossing.error, InvalidAmount):
                            self._without_room(_message(batch, targets, [step], ()), step.crossing, deadline)
                if doubts:
                    self.settle(shard, list(doubts.items()), deadline)
            if not level or time.monotonic() > deadline:
                break
        for steps in level.values():
            for step in steps:
                error = Unavailable("an earlier transfer is in doubt, and its source does not answer; send it again")
                if step.crossing is None:
                    answers[step.place] = error
                else:
                    self._advance(step.code, step.crossing, error)

    def _finish(self, shard: Owner, attempt: str) -> None:
        self._finished.setdefault(shard, deque()).append(attempt)

    def _take_finished(self, shard: Owner) -> list[str]:
        finished = self._finished.get(shard, deque())
        taken = []
        with suppress(IndexError):  # another thread was faster
            for _ in range(min(len(finished), MAX_BATCH)):
                taken.append(finished.popleft())
        return taken

    def _without_room(self, pend: Batch, crossing: _Crossing, deadline: float) -> None:
        """The target has no room, or the amount is none. An unknown source goes before that."""
        known = self._answer(crossing.source_shard, Batch(bytes([BALANCE]), (crossing.source,), (0,), ()), deadline)
        if isinstance(known, UnknownAccount):
            debit = pend._replace(functions=bytes([DEBIT]), accounts=(crossing.source,), targets=(crossing.target,))
            self._advance(DEBIT, crossing, self._answer(crossing.source_shard, debit, deadline))
        else:
            self._advance(PEND, crossing, self._answer(crossing.target_shard, pend, deadline))

    def _advance(self, code: int, crossing: _Crossing, answer: Answer) -> None:
        """What an answer to one phase means for the transfer."""
        if code == PEND:
            crossing.error = None
            if isinstance(answer, Receipt):
                crossing.held = answer.seq == NOTHING[0]
                crossing.credit = None if crossing.held else answer  # sent before, and its op id knows the answer
            elif isinstance(answer, Indeterminate):  # whatever is pending there, nothing will be debited
                crossing.error = Unavailable(f"the transfer was not begun: {answer}; send it again")
            else:
                assert isinstance(answer, AccountError)
                crossing.error = answer
        elif code == DEBIT:
            if isinstance(answer, Receipt):
                crossing.debit = answer
            else:
                assert isinstance(answer, AccountError)
                crossing.error = answer
        elif crossing.debit is not None:
            if isinstance(answer, Receipt):
                crossing.credit = answer
                self._finish(crossing.source_shard, crossing.attempt)
            else:
                crossing.error = Indeterminate(
                    f"{crossing.source!r} was debited, and whether {crossing.target!r} was credited is not known: "
                    f"{answer}; send it again with its op id"
                )


def _is_wanted(step: _Step) -> bool:
    """Whether a phase is still to come; plain operations always are."""
    crossing = step.crossing
    if crossing is None or step.code == PEND:
        return True
    if step.code == DEBIT:
        return crossing.error is None
    # Of a debit whose fate is unknown, the credit stays in doubt: whoever calls the account next settles it.
    return crossing.held and not (isinstance(crossing.error, Indeterminate) and crossing.debit is None)


def _message(batch: Batch, targets: dict[int, str], steps: Sequence[_Step], forgotten: Sequence[str]) -> Batch:
    """One shard's part of a round."""
    functions, accounts, others, numbers = [FORGET] * len(forgotten), [""] * len(forgotten), [], []
    attempts = list(forgotten)
    for code, place, crossing in steps:
        if crossing is None:
            functions.append(code)
            accounts.append(batch.accounts[place])
            others += [targets[place]] if code == TRANSFER else []
            continue
        if code == POST and crossing.debit is None:
            code = VOID
        functions.append(code)
        accounts.append(crossing.source if code == DEBIT else crossing.target)
        attempts.append(crossing.attempt)
        if HAS_TARGET[code]:
            others.append(crossing.target if code == DEBIT else crossing.source)
    places = [step.place for step in steps]
    none = [0] * len(forgotten)
    if batch.numbers:
        ends = (POST, VOID)
        numbers = [NO_NUMBER if code in ends else batch.numbers[place] for code, place, _ in steps]
    return Batch(
        bytes(functions),
        accounts,
        none + [batch.amounts[place] for place in places],
        others,
        batch.sessions,
        none + [batch.session_of[place] for place in places] if batch.session_of else (),
        [NO_NUMBER] * len(forgotten) + numbers if numbers else (),
        attempts,
    )
