"""A shard's half of transfers between shards: pending, then posted or void, as TigerBeetle names them.

The caller coordinates. It has the target's shard *pend* the credit, which checks that it can be made and keeps room
for it; then the source's shard *debit*, which is the moment at which the transfer happens; then the target's *post*
the credit, or *void* it where there was no debit. An account shows a leg only when it is made, so between debit and
post the money is in neither.

What if the caller dies on the way? A credit that is pending for longer than `IN_DOUBT_S` holds up its account: whoever
calls it next is told so (`InDoubt`), asks the source's shard to *settle* whether it was debited, and posts or voids it.
To settle an attempt that was not debited is to refuse it for good, so a coordinator that was only slow cannot debit
later what was voided. A shard that is lost takes its accounts and their pending credits along; a credit whose source's
shard is lost is voided, since nobody can prove the debit.

Source for the names and for the order of the phases: TigerBeetle's two-phase transfers,
https://docs.tigerbeetle.com/coding/two-phase-transfers/. It has one ledger for both legs; the settling is our own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from strategies.interface.account import MAX_MONEY, Function
from strategies.interface.errors import Indeterminate, Rejected, Unavailable
from strategies.support.fates import InDoubt
from strategies.support.ledger import Ledger, LedgerState, bad_amount, over_the_top
from strategies.support.op_window import Outcome, Payload, State
from strategies.support.wire import BALANCE, DEBIT, FORGET, HAS_TARGET, NO_NUMBER, PEND, POST, SETTLE, VOID, Batch

IN_DOUBT_S = 0.5
"""A credit that is pending for longer is settled by whoever calls its account next."""

NOTHING: State = (0, 0)
"""What a step answers that leaves no receipt: no change has seq 0."""

_KEPT = 65_536
"""Attempts of which is remembered that they were refused or posted: far more than can be on their way at a time."""

_TRANSFER = Function.TRANSFER.value

OpKey = tuple[str, int]


class Pending(NamedTuple):
    """A credit that is neither posted nor void."""

    account: str
    source: str
    amount: int
    op: OpKey | None
    since_s: float

    @property
    def payload(self) -> Payload:
        """The operation, as op ids remember it."""
        return _TRANSFER, self.source, self.account, self.amount


class TwoPhaseLedger(Ledger):
    """A ledger that takes part in transfers to and from others. Of callers, one thread at a time.

    Pending credits keep room below `MAX_MONEY` in all of its accounts, which only matters to the richest.
    """

    def __init__(self, state: LedgerState | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(state)
        self._clock = clock
        self._pending: dict[str, Pending] = {}
        self._pending_ops: dict[OpKey, str] = {}
        self._debits: dict[str, State] = {}
        """Of attempts whose callers have not said yet that they are over."""
        self._refused: dict[str, None] = {}
        self._posted: dict[str, State] = {}
        self._tight: dict[str, None] = {}
        """Attempts that there was no room for when they were pended first."""

    def apply_steps(self, batch: Batch) -> list[Outcome]:
        """Like `apply`, for a batch that may hold steps, or meet accounts with credits in doubt."""
        if not self._pending and max(batch.functions, default=0) <= BALANCE:
            return self.apply(batch)
        in_doubt = self.in_doubt()
        outcomes: list[Outcome] = []
        run: list[int] = []
        targets, attempts = iter(batch.targets), iter(batch.attempts)
        for place, (code, account) in enumerate(zip(batch.functions, batch.accounts, strict=True)):
            target = next(targets) if HAS_TARGET[code] else ""
            is_step = code > BALANCE
            doubts = in_doubt.get(account, []) + (in_doubt.get(target, []) if not is_step else [])
            if not is_step and not doubts:
                run.append(place)
                continue
            if run:
                outcomes += self.apply(batch.pick(run))
                run = []
            if is_step:
                outcomes.append(self._step(code, next(attempts), batch, place, target, doubts))
            else:
                outcomes.append(InDoubt.of(doubts))
        return outcomes + self.apply(batch.pick(run)) if run else outcomes

    def in_doubt(self) -> dict[str, list[tuple[str, str]]]:
        """For each account that has credits in doubt, their attempts and sources."""
        overdue_s = self._clock() - IN_DOUBT_S
        found: dict[str, list[tuple[str, str]]] = {}
        for attempt, pending in self._pending.items():
            if pending.since_s < overdue_s:
                found.setdefault(pending.account, []).append((attempt, pending.source))
        return found

    def _step(
        self, code: int, attempt: str, batch: Batch, place: int, other: str, doubts: Sequence[tuple[str, str]]
    ) -> Outcome:
        account, amount = batch.accounts[place], batch.amounts[place]
        number = batch.numbers[place] if batch.numbers else NO_NUMBER
        op = None
        if number != NO_NUMBER:
            op = batch.sessions[batch.session_of[place] if batch.session_of else 0], number
        if doubts and code in (PEND, DEBIT):
            return InDoubt.of(doubts)
        self._lock.acquire()
        try:
            if code == PEND:
                return self._pend(attempt, Pending(account, other, amount, op, self._clock()))
            if code == DEBIT:
                return self._debit(attempt, account, other, amount, op)
            ends = {POST: self._post, VOID: self._void, SETTLE: self._settle, FORGET: self._forget}
            return ends[code](attempt)
        except Rejected as rejection:
            return rejection.with_traceback(None)
        finally:
            self._lock.release()

    def _pend(self, attempt: str, credit: Pending) -> Outcome:
        """Keep room for a credit. Answers the credit's state instead, if its op id has had it.

        That there is no room is the transfer's answer only if both accounts exist, which the caller finds out before
        it asks again.
        """
        known = self._known(credit.op, credit.payload)
        if known is not None:
            return known
        if credit.op is not None and (other := self._pending_ops.get(credit.op)) is not None:
            return InDoubt.of([(other, self._pending[other].source)])
        try:
            if not 0 < credit.amount <= MAX_MONEY:
                raise bad_amount(credit.amount)
            _, balance = self._balance(credit.account)
            if balance + credit.amount > self._most:
                if attempt not in self._tight:
                    _keep(self._tight, attempt, None)
                    return over_the_top(credit.account, credit.amount)
                raise over_the_top(credit.account, credit.amount)
        except Rejected as rejection:
            self._remember(credit.op, credit.payload, type(rejection)(*rejection.args))
            raise
        self._pending[attempt] = credit
        self._most -= credit.amount
        if credit.op is not None:
            self._pending_ops[credit.op] = attempt
        return NOTHING

    def _debit(self, attempt: str, source: str, target: str, amount: int, op: OpKey | None) -> Outcome:
        """The moment at which a transfer happens."""
        if attempt in self._refused:
            return Unavailable("another caller settled this transfer before its debit; send it again")
        if attempt in self._debits:
            return self._debits[attempt]
        payload = (_TRANSFER, source, target, amount)
        known = self._known(op, payload)
        if known is not None:
            return known
        try:
            state = self._withdraw(source, amount)
        except Rejected as rejection:
            self._remember(op, payload, type(rejection)(*rejection.args))
            raise
        self._debits[attempt] = state
        self._remember(op, payload, state)
        return state

    def _post(self, attempt: str) -> Outcome:
        """Make the credit."""
        if attempt in self._posted:
            return self._posted[attempt]
        credit = self._taken(attempt)
        if credit is None:
            return Indeterminate("this credit is not pending here; send the transfer again with its op id")
        seq, balance = self._states[credit.account]
        state = self._states[credit.account] = (seq + 1, balance + credit.amount)
        self._remember(credit.op, credit.payload, state)
        _keep(self._posted, attempt, state)
        return state

    def _void(self, attempt: str) -> Outcome:
        """Never make the credit."""
        self._taken(attempt)
        return NOTHING

    def _settle(self, attempt: str) -> Outcome:
        """The debit's state; if there was none, there never will be."""
        debit = self._debits.get(attempt)
        if debit is None:
            _keep(self._refused, attempt, None)
            return NOTHING
        return debit

    def _forget(self, attempt: str) -> Outcome:
        """The transfer is over at both ends: nobody will ask for its debit."""
        self._debits.pop(attempt, None)
        return NOTHING

    def _taken(self, attempt: str) -> Pending | None:
        credit = self._pending.pop(attempt, None)
        if credit is not None:
            self._most += credit.amount
            if credit.op is not None:
                del self._pending_ops[credit.op]
        return credit

    def _known(self, op: OpKey | None, payload: Payload) -> Outcome | None:
        return None if op is None else self._window(op[0]).recall(op[1], payload)

    def _remember(self, op: OpKey | None, payload: Payload, outcome: Outcome) -> None:
        if op is not None:
            self._window(op[0]).remember(op[1], payload, outcome)


def _keep(known: dict[str, Any], attempt: str, value: object) -> None:
    known[attempt] = value
    if len(known) > 2 * _KEPT:
        for oldest in list(islice(known, len(known) - _KEPT)):
            del known[oldest]
