"""One trial with a fault: a bank, load, a blow and its remedy on schedule, then the accounts are read and judged."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness import fault_load, faults, journal, scratch
from benchmarks.harness.banks import collect_garbage, open_accounts, open_patiently
from benchmarks.harness.cells import Cell
from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.driver_processes import DriverFailed, open_bank
from benchmarks.harness.environment import Environment
from benchmarks.harness.fault_load import FaultLoad
from benchmarks.harness.faults import FaultAction
from benchmarks.harness.generator import Retry, Share, send
from benchmarks.harness.history import DEPOSIT, NEVER_NS, OK, UNAVAILABLE, UNKNOWN, Bools, Floats, History
from benchmarks.harness.history_files import HistoryFile
from benchmarks.harness.probes import Probes
from benchmarks.harness.statistics import Outage, outage
from benchmarks.harness.violations import Violation
from benchmarks.harness.workloads import OPENING
from strategies.interface import (
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Consistency,
    Context,
    OpId,
    Receipt,
    Retries,
    StateLost,
    UnknownAccount,
)

_AUDIT_S = 10.0
"""How long the audit after a fault waits for a store that is coming back."""
_AUDIT_RETRY_S = 0.1
_LONGEST_S = 30.0
"""The most load of a trial. Dask's own hands take seconds, and more on a busy machine."""
_BEGIN_S, _PROMPT_S = 10.0, 0.1
"""How long callers may take to begin, and what of that is no delay."""
_OPEN_S = 10.0
"""Deadline of the calls that make the bank."""
_LATE_S = 3.0
"""How long accounts that were not served at the load's end are asked: a busy machine is late, which is no loss."""
_SENT_AGAIN = 32
"""Acknowledged operations that are sent again with their op ids when all is over."""


@dataclass(frozen=True)
class Schedule:
    """How a trial goes. Seconds. Twenty trials of a few hundred cells must end within hours."""

    after_s: float = 0.5
    """Load before the fault; up to a tenth more, by the seed."""
    tail_s: float = 1.3
    """Load after the remedy."""
    timeout_s: float = 0.5
    """Deadline of each call."""
    interval_s: float = 0.05
    """Between one account's deposits: the resolution of its gaps."""


@dataclass(frozen=True)
class Observed:
    """What came of one trial."""

    history: History
    names: Sequence[str]
    """Of the history's accounts: the workload's, then the probes'."""
    probes: Probes
    """What the last client sent."""
    final: dict[str, Receipt] | None
    """None: the accounts could not be read when it was over."""
    due_s: Floats
    start_ns: int
    """When the first operation was due; this and the next four are readings of `perf_counter_ns`."""
    struck_ns: int
    healed_ns: int
    ended_ns: int
    """When callers were told to stop."""
    over_ns: int
    """When they had."""
    asked_ns: int
    """Until when accounts were asked that were not served at the end. What was sent later tests what is remembered."""
    target: str

    @property
    def load(self) -> History:
        """What was sent while load was offered."""
        return self.history.where(self.history.sent_ns < self.over_ns)

    def asked(self, accounts: int) -> History:
        """What the first so many accounts were asked, with those that had to be asked longer."""
        history = self.history
        return history.where((history.sent_ns < self.asked_ns) & (history.account < accounts))


def run(cell: Cell, environment: Environment, schedule: Schedule, seed: int) -> Observed:
    """Run one trial of a fault cell.

    Raises:
        NotInjected: the fault could not be applied.
        Exception: the strategy or the harness failed; the environment may have lost a worker.
    """
    assert cell.fault is not None
    chance = random.Random(seed)
    after_s = schedule.after_s * chance.uniform(1.0, 1.1)
    action = faults.load(cell.fault)(environment, cell.claims, cell.caller, schedule.timeout_s, chance)
    bank = f"bench-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        stack.callback(environment.drop_actors)
        context = stack.enter_context(
            action.prepared(environment.context(cell.claims, cell.variant, bank, schedule.timeout_s))
        )
        directory = str(stack.enter_context(scratch.directory("journals")))
        offered = FaultLoad(
            workload=cell.mix,
            clients=cell.clients,
            seconds=_LONGEST_S,
            probed_s=schedule.after_s + schedule.tail_s,
            interval_s=schedule.interval_s,
            retry=cell.retry,
            session=f"load-{uuid.uuid4().hex}",
            seed=seed,
            directory=directory,
            goes_on=action.callers_go_on,
        )
        caller = _Callers(cell, action, context, offered, stack)
        collect_garbage()
        action.armed()
        caller.warm_up()
        shares = offered.begin(caller.processes)
        if action.fails_a_task:
            failing = chance.randrange(len(shares))
            shares[failing] = replace(shares[failing], fail_after_s=after_s)
        # Servers die with the thread that starts them: this one breaks and heals, another offers the load.
        with ThreadPoolExecutor(1) as thread:
            offering = thread.submit(caller.offer, shares)
            try:
                offered.await_callers(_BEGIN_S)
                # Who begins late has called for as long when the blow falls.
                begun_s = max(shares[0].start_ns / 1e9, time.time() - _PROMPT_S)
                struck_ns, healed_ns, target = _strike(action, caller, begun_s + after_s)
                _wait_out(offering, schedule.tail_s)
            finally:
                ended_ns = time.perf_counter_ns()
                caller.end()
            offering.result()
        over_ns = time.perf_counter_ns()
        accounts = caller.accounts or stack.enter_context(open_patiently(cell.accounts, context))
        action.confirm(journal.begun_again(directory))
        ask_the_unserved(accounts, offered)
        asked_ns = time.perf_counter_ns()
        if cell.retry is Retry.OP_ID and cell.claims.retries is Retries.SAFE_WITH_OP_ID:
            _send_again(accounts, offered, chance)
        final = _audit(accounts, offered.account_names)
        history = offered.history()
    environment.await_workers()
    start_ns = shares[0].start_ns - (time.time_ns() - time.perf_counter_ns())
    return Observed(
        history,
        offered.account_names,
        offered.probes,
        final,
        _due_before(shares, ended_ns - start_ns),
        start_ns,
        struck_ns,
        healed_ns,
        ended_ns,
        over_ns,
        asked_ns,
        target,
    )


def _wait_out(offering: Future[None], seconds: float) -> None:
    """Or until there is no load any more."""
    with suppress(TimeoutError):
        offering.exception(seconds)


def _strike(action: FaultAction, caller: _Callers, at_s: float) -> tuple[int, int, str]:
    """Inject and heal, on schedule; `at_s` is a reading of `time`."""
    time.sleep(max(0.0, at_s - time.time()))
    struck_ns = time.perf_counter_ns()
    try:
        target = action.inject(caller.handle)
        time.sleep(action.lasts_s)
    finally:
        action.heal()
        caller.healed.set()
    return struck_ns, time.perf_counter_ns(), target


class _Callers:
    """Who opens the bank and calls it: this process, tasks, or a driver process that is to die."""

    def __init__(self, cell: Cell, action: FaultAction, context: Context, offered: FaultLoad, stack: ExitStack) -> None:
        self.accounts: Accounts | None = None
        """This process's handle; None while another is the driver."""
        self.healed = threading.Event()
        self._cell = cell
        self._action = action
        self._context = context
        self._offered = offered
        self._ended = False
        names = offered.account_names
        if action.child is not None:
            self._open_in_child(dict.fromkeys(names, OPENING))
        else:
            # The deadline of a call is short for the fault's sake; making actors may take longer on a busy machine.
            with cell.accounts.open(replace(context, timeout_s=_OPEN_S)) as unhurried:
                open_accounts(unhurried, names)
                self.accounts = stack.enter_context(open_patiently(cell.accounts, context))

    @property
    def handle(self) -> Accounts:
        """What the fault may call itself. Only faults that leave the driver alone do."""
        return self.accounts  # type: ignore[return-value]

    @property
    def processes(self) -> int:
        """How many call."""
        if self._cell.caller is not Caller.TASK:
            return 1
        assert self._context.client is not None
        return len(self._context.client.nthreads())

    def warm_up(self) -> None:
        """Have every worker import what it will need, so that all begin together."""
        if self._cell.caller is Caller.TASK:
            assert self.accounts is not None
            assert self._context.client is not None
            fault_load.warm_up(self.accounts, self._context.client)

    def offer(self, shares: Sequence[Share]) -> None:
        """Until the load is over."""
        if self._cell.caller is Caller.TASK:
            assert self.accounts is not None
            assert self._context.client is not None
            fault_load.in_tasks(
                self.accounts,
                shares,
                self._context.client,
                self._offered.ends_within_s,
                retries=int(self._action.fails_a_task),
            )
        elif self.accounts is not None:
            fault_load.in_driver(self.accounts, shares[0])
        else:
            self._offer_from_children(shares[0])

    def end(self) -> None:
        """End the load."""
        self._offered.end()
        self._ended = True
        self.healed.set()

    def _offer_from_children(self, share: Share) -> None:
        assert self._action.child is not None
        try:
            fault_load.in_child(self._action.child, share, self._offered.ends_within_s)
        except DriverFailed:
            self.healed.wait(self._offered.ends_within_s)
        else:
            return
        if not self._ended:
            self._open_in_child({})
            fault_load.in_child(self._action.child, share, self._offered.ends_within_s)

    def _open_in_child(self, openings: Mapping[str, int]) -> None:
        assert self._action.child is not None
        client = self._context.client
        scheduler = None if client is None else client.scheduler_info()["address"]
        context = replace(self._context, client=None)
        self._action.child.send(open_bank, self._cell.strategy, context, scheduler, openings, _OPEN_S)
        self._action.child.answer()


def _due_before(shares: Sequence[Share], end_ns: int) -> Floats:
    """When operations were due, in seconds from the start, sent or not."""
    due_s = np.sort(np.concatenate([each for share in shares for each in share.due_s]))
    return due_s[due_s * 1e9 < end_ns]


def ask_the_unserved(accounts: Accounts, offered: FaultLoad) -> None:
    """Go on with deposits for accounts whose last one was not answered, one account after the other, for `_LATE_S`."""
    history = offered.history()
    names = dict(enumerate(offered.account_names))
    deadline = time.monotonic() + _LATE_S
    for client in range(offered.clients):
        mine = np.flatnonzero((history.client == client) & (history.done_ns != NEVER_NS))
        if not len(mine) or history.fate[mine[-1]] not in (UNAVAILABLE, UNKNOWN):
            continue
        number = int(history.number[history.client == client].max())
        written = journal.Journal(offered.directory, client, int(_LATE_S / _AUDIT_RETRY_S) + 1)
        while time.monotonic() < deadline and not written.full:
            number += 1
            op_id = None if offered.retry is Retry.NAIVE else OpId(f"{offered.session}-{client}", number)
            operation = (DEPOSIT, int(history.account[mine[-1]]), -1, 1)
            fate = send(accounts, names, operation, op_id, written, (number, 0), time.perf_counter_ns())
            if fate not in (UNAVAILABLE, UNKNOWN):
                break
            time.sleep(_AUDIT_RETRY_S)


def _send_again(accounts: Accounts, offered: FaultLoad, chance: random.Random) -> None:
    """A sample of what was acknowledged, with its op ids: answers must be the first ones."""
    history = offered.history()
    names = dict(enumerate(offered.account_names))
    rows = np.flatnonzero(history.fate == OK).tolist()
    for row in chance.sample(rows, min(_SENT_AGAIN, len(rows))):
        client, number = int(history.client[row]), int(history.number[row])
        operation = (
            int(history.function[row]),
            int(history.account[row]),
            int(history.target[row]),
            int(history.amount[row]),
        )
        written = journal.Journal(offered.directory, client, 1)
        place = (number, written.attempts(number))
        op_id = OpId(f"{offered.session}-{client}", number)
        send(accounts, names, operation, op_id, written, place, time.perf_counter_ns())


def _audit(accounts: Accounts, names: Sequence[str]) -> dict[str, Receipt] | None:
    """The final state, without the accounts that are lost; None if it cannot be read."""
    found: dict[str, Receipt] = {}
    deadline = time.monotonic() + _AUDIT_S
    for name in names:
        while name not in found:
            try:
                found[name] = accounts.balance(name)
            except (StateLost, UnknownAccount):
                break
            except AccountError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(_AUDIT_RETRY_S)
    return found


@dataclass(frozen=True)
class Judged:
    """One trial's outcome, held against the claims."""

    verdict: Verdict | None
    """None: the accounts could not be read."""
    felt: Outage
    against_claims: str
    probes: str | None
    """What the probes' balances say, whatever their receipts said."""
    violations: tuple[Violation, ...]
    """With rows of the observed history."""
    distrust: tuple[str, ...]


def judged(cell: Cell, observed: Observed) -> Judged:
    """What is left of the money, how long nobody was served, and whether that was claimed."""
    felt = outage(observed.asked(cell.mix.accounts), observed.struck_ns)
    if observed.final is None:
        return Judged(None, felt, "unknown", None, (), ("the accounts could not be read after the fault",))
    of_probes = observed.history.account >= cell.mix.accounts
    verdict, violations = _checked(observed, ~of_probes, 0, cell.mix.accounts)
    of_receipts, more = _checked(observed, of_probes, cell.mix.accounts, len(observed.names))
    of_balances = observed.probes.judge(
        observed.probes.fates(observed.history, observed.names),
        {name: receipt.balance for name, receipt in observed.final.items()},
    )
    agree = (of_receipts.acknowledged, of_receipts.acknowledged_lost, of_receipts.indeterminate_applied) == (
        of_balances.acknowledged,
        of_balances.acknowledged_lost,
        of_balances.indeterminate_applied,
    ) and of_receipts.duplicated == of_balances.duplicated + of_balances.phantom
    said = (
        f"{of_balances.acknowledged} acknowledged, {of_balances.acknowledged_lost} lost, "
        f"{of_balances.duplicated + of_balances.phantom} doubled or made up"
    )
    distrust = [] if agree else [f"probes disagree with receipts: {said}; {'; '.join(of_balances.words)}"]
    return Judged(verdict, felt, _against_claims(cell, verdict, felt), said, (*violations, *more), tuple(distrust))


def _checked(observed: Observed, chosen: Bools, first: int, end: int) -> tuple[Verdict, list[Violation]]:
    """The verdict on the rows of the accounts from `first` on, and violations with the whole history's rows."""
    assert observed.final is not None
    history = observed.history.where(chosen)
    verdict = check(
        replace(history, account=history.account - first), observed.names[first:end], OPENING, observed.final
    )
    rows = np.flatnonzero(chosen)
    found = [replace(each, rows=tuple(rows[list(each.rows)].tolist())) for each in verdict.violations]
    return verdict, found


def history_file(cell: Cell, observed: Observed, seed: int) -> HistoryFile:
    """All that is needed to judge the trial again, and to show it."""
    about = {
        "strategy": cell.name,
        "variant": cell.variant,
        "workload": cell.workload,
        "caller": cell.caller,
        "fault": cell.fault,
        "retry": cell.retry,
        "consistency": cell.claims.consistency,
        "seed": seed,
        "target": observed.target,
        "start_ns": observed.start_ns,
        "struck_ns": observed.struck_ns,
        "healed_ns": observed.healed_ns,
        "ended_ns": observed.ended_ns,
        "over_ns": observed.over_ns,
        "asked_ns": observed.asked_ns,
    }
    return HistoryFile(observed.history, observed.names, OPENING, observed.final, about)


def _against_claims(cell: Cell, verdict: Verdict, felt: Outage) -> str:
    claims: Capabilities = cell.claims
    # Whoever sends again what may have happened, where that is not safe, doubles it himself.
    unsafe = cell.retry is Retry.NAIVE or (cell.retry is Retry.OP_ID and claims.retries is Retries.UNSAFE)
    doubled = verdict.duplicated and not unsafe
    inconsistent = verdict.linearizable == "no" and claims.consistency is not Consistency.NONE
    kept = not (verdict.acknowledged_lost or verdict.torn or doubled or inconsistent)
    survived = kept and felt.served_again
    claimed = cell.fault in claims.survives
    if survived == claimed:
        return "as_claimed"
    return "better_than_claimed" if survived else "worse_than_claimed"


def answers(history: History) -> History:
    """One row for each operation: its first answer, or its last attempt."""
    order = np.lexsort(
        (
            np.where(history.fate == OK, history.attempt, -history.attempt),
            history.fate != OK,
            history.number,
            history.client,
        )
    )
    client, number = history.client[order], history.number[order]
    first = np.append(True, (client[1:] != client[:-1]) | (number[1:] != number[:-1]))[: len(history)]
    chosen = np.zeros(len(history), dtype=np.bool_)
    chosen[order[first]] = True
    return history.where(chosen)
