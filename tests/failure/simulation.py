"""Clients that call an owner of accounts while things break, on a virtual clock: no threads, no waiting, one seed.

An owner is called at one instant, between the caller's sending and its answer. So the history is that of a concurrent
run, and what really happened is known.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.generator import Retry
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    NEVER_NS,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
)
from strategies.interface import (
    AccountError,
    Accounts,
    Capabilities,
    Context,
    Indeterminate,
    Receipt,
    Rejected,
    StateLost,
    Unavailable,
)
from tests.failure.model import Model

FIRST_EPOCH = 100
DEADLINE = 400
"""Of a call. All times are in the clock's own units."""
ATTEMPTS_MAX = 6
EVENTS_MAX = 200_000


class Owner(Model, Accounts):
    """The correct accounts, in memory, which survive a restart. Mutants are derived from it."""

    capabilities = Capabilities()

    def __init__(self, seed: int = 0) -> None:
        super().__init__(FIRST_EPOCH)
        self.chance = random.Random(seed)
        self.fired = 0
        """How often a mutant did what it must not."""
        self.now = 0
        self.caller = (0, 0, 0)
        """Client, number and attempt of the call that is served."""
        self.is_lost = False
        self.takes = 0
        """How long the answer is held back that is given now."""

    @classmethod
    def open(cls, context: Context) -> Self:
        return cls()

    def close(self) -> None:
        pass

    def fires(self, share: float) -> bool:
        """Whether a mutant's bug shows this time."""
        shows = self.chance.random() < share
        self.fired += shows
        return shows

    def restart(self, *, keeps_state: bool) -> None:
        """Another owner takes over."""
        self._epoch += 1
        if not keeps_state:
            self.is_lost = True
            self._receipts.clear()
            self._windows.clear()

    def serve(self, function: int, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None) -> Any:
        """One call, as it arrives."""
        if self.is_lost:
            raise StateLost("the owner died and its state with it; open another bank")
        if function == BALANCE:
            return self.balance(*accounts)
        if function == DEPOSIT:
            return self.deposit(*accounts, amount, op_id=op_id)
        if function == WITHDRAW:
            return self.withdraw(*accounts, amount, op_id=op_id)
        return self.transfer(*accounts, amount, op_id=op_id)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is offered, and what goes wrong. Shares are of messages; instants are shares of the run."""

    retry: Retry = Retry.NONE
    clients: int = 4
    operations: int = 25
    """Of each client."""
    accounts: int = 3
    opening: int = 1_000
    amounts: tuple[int, int] = (1, 1_000_000)
    functions: tuple[int, ...] = (BALANCE, DEPOSIT, DEPOSIT, WITHDRAW)
    request_lost: float = 0.0
    reply_lost: float = 0.0
    delivered_twice: float = 0.0
    restarts: int = 0
    """With the state kept."""
    state_lost: bool = False
    """By a crash in the second half."""
    pauses: int = 0
    partitions: int = 0
    deaths: int = 0
    """Of callers: another process does all their operations again, unless operations are sent once at most."""


@dataclass
class Row:
    """One attempt."""

    process: int
    client: int
    number: int
    attempt: int
    keyed: bool
    function: int
    account: int
    target: int
    amount: int
    due: int
    sent: int
    done: int = NEVER_NS
    fate: int = UNKNOWN
    reason: int = 0
    receipts: tuple[Receipt, ...] = ()
    answered: Callable[[], None] | None = None
    """What its caller does then; None if it is dead."""


@dataclass(frozen=True)
class Truth:
    """What happened, as only the simulation knows it."""

    acknowledged: int
    acknowledged_lost: int
    acknowledged_lost_amount: int
    duplicated: int
    indeterminate: int
    indeterminate_applied: int


@dataclass(frozen=True)
class Run:
    """What came of one simulation."""

    history: History
    names: list[str]
    opening: int
    final: dict[str, Receipt]
    truth: Truth
    owner: Owner

    def verdict(self, *, across_accounts: bool = False) -> Verdict:
        return check(self.history, self.names, self.opening, self.final, across_accounts=across_accounts)


def run(setting: Setting, seed: int, kind: type[Owner] = Owner) -> Run:
    """Simulate until all clients are done."""
    return _Simulation(setting, seed, kind(seed)).run()


class _Simulation:
    def __init__(self, setting: Setting, seed: int, owner: Owner) -> None:
        self._setting, self._owner = setting, owner
        self._chance = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0
        self._rows: list[Row] = []
        self._names = [f"account-{index}" for index in range(setting.accounts)]
        self._effects: Counter[tuple[int, int]] = Counter()
        self._serving = 0
        """Rises with each owner: replies of earlier ones do not arrive."""
        self._is_down, self._is_cut = False, False
        self._paused_until = 0
        self._processes = itertools.count()
        self._attempts: Counter[tuple[int, int]] = Counter()
        self._planned = [[self._operation() for _ in range(setting.operations)] for _ in range(setting.clients)]

    def _operation(self) -> tuple[int, int, int, int]:
        chance, setting = self._chance, self._setting
        function = chance.choice(setting.functions)
        account = chance.randrange(setting.accounts)
        target = chance.randrange(setting.accounts) if function == TRANSFER else -1
        amount = 0 if function == BALANCE else chance.randint(*setting.amounts)
        return function, account, target, amount

    # -- time --------------------------------------------------------------------------------------

    def _later(self, delay: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._order), what))

    def run(self) -> Run:
        for name in self._names:
            self._owner.open_account(name, self._setting.opening)
        for client in range(self._setting.clients):
            self._later(self._chance.randint(0, 30), lambda client=client: self._begin(client))
        self._plan_trouble()
        for _ in range(EVENTS_MAX):
            if not self._events:
                break
            self._now, _, what = heapq.heappop(self._events)
            self._owner.now = self._now
            what()
        else:
            raise RuntimeError("the simulation does not end; look for a client that never stops sending")
        final = {} if self._owner.is_lost else self._owner.snapshot()
        return Run(self._history(), self._names, self._setting.opening, final, self._truth(), self._owner)

    def _plan_trouble(self) -> None:
        setting, chance = self._setting, self._chance
        lasts = setting.operations * 60
        for _ in range(setting.restarts):
            self._later(chance.randint(lasts // 10, lasts), self._crash)
        if setting.state_lost:
            self._later(chance.randint(lasts // 2, lasts), lambda: self._crash(keeps_state=False))
        for _ in range(setting.pauses):
            self._later(chance.randint(0, lasts), self._pause)
        for _ in range(setting.partitions):
            begin = chance.randint(0, lasts)
            self._later(begin, lambda: self._cut(True))
            self._later(begin + chance.randint(10, 3 * DEADLINE), lambda: self._cut(False))

    def _crash(self, *, keeps_state: bool = True) -> None:
        self._serving += 1
        self._is_down = True
        self._paused_until = 0
        self._later(self._chance.randint(1, 200), lambda: self._come_back(keeps_state))

    def _come_back(self, keeps_state: bool) -> None:
        self._is_down = False
        self._owner.restart(keeps_state=keeps_state)
        if not keeps_state:
            self._effects.clear()

    def _pause(self) -> None:
        self._paused_until = self._now + self._chance.randint(10, 2 * DEADLINE)

    def _cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut

    # -- callers -----------------------------------------------------------------------------------

    def _begin(self, client: int, lives: int = 0) -> None:
        """A life of a caller, which does all its operations."""
        chance, setting = self._chance, self._setting
        dies = lives < setting.deaths and client % 2 == 0
        self._next(
            _Caller(client, lives, next(self._processes), chance.randrange(setting.operations) if dies else -1), 0
        )

    def _next(self, caller: _Caller, number: int) -> None:
        if number < self._setting.operations:
            self._send(caller, number, 0, self._now)

    def _send(self, caller: _Caller, number: int, tries: int, due: int) -> None:
        setting, chance = self._setting, self._chance
        operation = (caller.client, number)
        row = Row(
            caller.process,
            *operation,
            self._attempts[operation],
            setting.retry is not Retry.NAIVE,
            *self._planned[caller.client][number],
            due,
            self._now,
        )
        self._attempts[operation] += 1
        self._rows.append(row)
        if number == caller.dies_at:
            if setting.retry is not Retry.NONE:
                self._later(chance.randint(20, 300), lambda: self._begin(caller.client, caller.lives + 1))
            if chance.random() < 0.7:
                self._later(chance.randint(1, 20), lambda: self._arrive(row))
            return

        def answered() -> None:
            may_again = setting.retry is not Retry.NONE and row.fate in (UNAVAILABLE, UNKNOWN)
            if may_again and tries + 1 < ATTEMPTS_MAX:
                self._later(chance.randint(1, 30) << tries, lambda: self._send(caller, number, tries + 1, due))
            else:
                self._later(chance.randint(0, 30), lambda: self._next(caller, number + 1))

        row.answered = answered
        self._later(DEADLINE, lambda: self._answer(row, Indeterminate("no answer in time")))
        if not self._is_cut and chance.random() >= setting.request_lost:
            self._later(chance.randint(1, 20), lambda: self._arrive(row))
        elif chance.random() < 0.5:
            self._later(chance.randint(1, 20), lambda: self._answer(row, Unavailable("it could not be sent")))

    def _answer(self, row: Row, answer: Receipt | tuple[Receipt, Receipt] | AccountError) -> None:
        if row.answered is None or row.done != NEVER_NS:
            return
        if isinstance(answer, Indeterminate) and row.function == BALANCE:
            answer = Unavailable("no answer in time")
        row.done = self._now
        if not isinstance(answer, AccountError):
            row.fate = OK
            row.receipts = (answer,) if isinstance(answer, Receipt) else answer
        elif isinstance(answer, Rejected):
            row.fate, row.reason = REJECTED, REASONS.index(type(answer).__name__)
        elif isinstance(answer, StateLost):
            row.fate = LOST
        else:
            row.fate = UNAVAILABLE if isinstance(answer, Unavailable) else UNKNOWN
        row.answered()

    # -- the owner's side --------------------------------------------------------------------------

    def _arrive(self, row: Row, *, copies: int = 1) -> None:
        """A request reaches the owner, if there is one. What was served may be delivered once more."""
        owner, chance, setting = self._owner, self._chance, self._setting
        if self._is_down:
            if copies:
                self._later(chance.randint(1, 10), lambda: self._answer(row, Unavailable("nobody listens")))
            return
        if self._now < self._paused_until:
            self._later(self._paused_until - self._now, lambda: self._arrive(row, copies=copies))
            return
        before = dict(owner._receipts)
        owner.caller = (row.client, row.number, row.attempt)
        accounts = tuple(self._names[each] for each in (row.account, row.target) if each >= 0)
        op_id = (f"client-{row.client}", row.number) if row.keyed and row.function != BALANCE else None
        owner.takes = 0
        answer: Any
        try:
            answer = owner.serve(row.function, accounts, row.amount, op_id)
        except AccountError as error:
            answer = error
        self._effects[row.client, row.number] += owner._receipts != before
        if copies and chance.random() < setting.delivered_twice:
            self._later(chance.randint(1, 2 * DEADLINE), lambda: self._arrive(row, copies=copies - 1))
        if copies and chance.random() >= setting.reply_lost:
            serving = self._serving
            self._later(owner.takes + chance.randint(1, 20), lambda: self._reply(row, answer, serving))

    def _reply(self, row: Row, answer: Any, serving: int) -> None:
        if serving != self._serving:
            self._answer(row, Indeterminate("the connection broke"))
        elif not self._is_cut:
            self._answer(row, answer)

    # -- what came of it ---------------------------------------------------------------------------

    def _history(self) -> History:
        rows = self._rows

        def column(values: Iterable[int], dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
            return np.array(list(values), dtype=dtype)

        def receipt(place: int) -> list[Receipt]:
            return [each.receipts[place] if len(each.receipts) > place else Receipt(0, 0, 0) for each in rows]

        return History(
            process=column((each.process for each in rows), np.int16),
            client=column((each.client for each in rows), np.int16),
            number=column((each.number for each in rows), np.int32),
            attempt=column((each.attempt for each in rows), np.int16),
            keyed=column((each.keyed for each in rows), np.bool_),
            function=column((each.function for each in rows), np.int8),
            account=column((each.account for each in rows), np.int32),
            target=column((each.target for each in rows), np.int32),
            amount=column(each.amount for each in rows),
            due_ns=column(each.due for each in rows),
            sent_ns=column(each.sent for each in rows),
            done_ns=column(each.done for each in rows),
            fate=column((each.fate for each in rows), np.int8),
            reason=column((each.reason for each in rows), np.int8),
            seq=column((each.seq for each in receipt(0)), np.int32),
            balance=column(each.balance for each in receipt(0)),
            epoch=column(each.epoch for each in receipt(0)),
            target_seq=column((each.seq for each in receipt(1)), np.int32),
            target_balance=column(each.balance for each in receipt(1)),
            target_epoch=column(each.epoch for each in receipt(1)),
        )

    def _truth(self) -> Truth:
        operations: dict[tuple[int, int], list[Row]] = {}
        for row in self._rows:
            if row.function != BALANCE:
                operations.setdefault((row.client, row.number), []).append(row)
        acknowledged = {key for key, rows in operations.items() if any(row.fate == OK for row in rows)}
        indeterminate = {key for key, rows in operations.items() if any(row.fate == UNKNOWN for row in rows)}
        indeterminate -= acknowledged
        if self._setting.retry is not Retry.NAIVE:  # what was rejected under an op id never happened
            indeterminate -= {key for key, rows in operations.items() if any(row.fate == REJECTED for row in rows)}
        lost = [key for key in acknowledged if not self._effects[key]]
        legs = {key: 2 if rows[0].function == TRANSFER else 1 for key, rows in operations.items()}
        return Truth(
            acknowledged=len(acknowledged),
            acknowledged_lost=len(lost),
            acknowledged_lost_amount=sum(operations[key][0].amount for key in lost),
            duplicated=sum(
                max(0, self._effects[key] - (key in acknowledged or key in indeterminate)) * legs[key]
                for key in operations
            ),
            indeterminate=len(indeterminate),
            indeterminate_applied=sum(self._effects[key] > 0 for key in indeterminate),
        )


@dataclass(frozen=True)
class _Caller:
    """One life of a client."""

    client: int
    lives: int
    """Before this one."""
    process: int
    dies_at: int
    """Number of the operation that it does not live to see the answer of; -1 for none."""
