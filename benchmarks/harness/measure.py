"""The measuring function: one cell, one trial, one record. The command line, asv and pytest all come through here."""

from __future__ import annotations

import gc
import random
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import psutil

from benchmarks.harness import faults, load, workloads
from benchmarks.harness.cells import Cell, Decision, Status, decide
from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.environment import Environment
from benchmarks.harness.history import History
from benchmarks.harness.records import Trial
from benchmarks.harness.statistics import Outage, Speed, outage, speed
from benchmarks.harness.workloads import OPENING, Workload
from strategies.interface import (
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Fault,
    Receipt,
    StateLost,
    UnknownAccount,
)

_OPENING_THREADS = 16
_AUDIT_S = 10.0
"""How long the audit after a fault waits for a store that is coming back."""
_AUDIT_RETRY_S = 0.1
_CLOCK_SLIP = 0.02
"""Share by which wall clock and monotonic clock may disagree over a trial before it is distrusted."""
_FEW_SAMPLES = 100


@dataclass(frozen=True)
class Settings:
    """How long trials take, and how patient their callers are. Seconds."""

    seconds: float = 5.0
    """Measured time of a speed trial."""
    warmup_s: float = 1.0
    """Load before it that is not measured."""
    timeout_s: float = 5.0
    """Deadline of each call in speed trials."""
    fault_after_s: float = 1.0
    """Load before a fault; up to a tenth more, by the seed."""
    fault_load_s: float = 4.0
    """All of a fault trial's load."""
    fault_timeout_s: float = 1.0
    """Deadline of each call in fault trials."""
    fault_interval_s: float = 0.04
    """Between one account's deposits: the resolution of its gaps."""


QUICK = Settings(seconds=0.4, warmup_s=0.1, fault_after_s=0.5, fault_load_s=2.2)


def measure(cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int) -> Trial:
    """Run one trial of the cell, or say why not. An error of the strategy or harness becomes status `failed`."""
    decision = decide(cell, environment)
    if decision.status is not Status.OK:
        return _unmeasured(cell, decision, repeat, seed)
    try:
        if cell.fault is None:
            return _measure_speed(cell, environment, settings, repeat, seed)
        return _measure_fault(cell, environment, settings, repeat, seed)
    except Exception as error:
        with suppress(TimeoutError):  # what failed may have cost the cluster a worker, which the next trial needs
            environment.await_workers()
        return _unmeasured(
            cell, Decision(Status.FAILED, environment.redacted(f"{type(error).__name__}: {error}")), repeat, seed
        )


def trial_seed(seed: int, cell: Cell, repeat: int) -> int:
    """The seed of one trial: strategies that are compared meet the same operations."""
    of_load = f"{cell.workload} {cell.caller} {cell.clients} {cell.fault} {repeat}"
    return zlib.crc32(of_load.encode(), seed)


def _measure_speed(cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int) -> Trial:
    workload = workloads.load(cell.workload)
    offered = load.Load(cell.clients, settings.warmup_s + settings.seconds)
    with _opened(cell, environment, workload, settings.timeout_s) as accounts:
        clocks = time.perf_counter(), time.time()
        history = _offer(accounts, workload, offered, cell.caller, environment, seed)
        slip = abs((time.perf_counter() - clocks[0]) - (time.time() - clocks[1]))
        verdict = check(history, workload.account_names, OPENING, accounts.snapshot())
    measured = speed(history, settings.warmup_s)
    distrust = []
    if measured.operations < _FEW_SAMPLES:
        distrust.append(f"only {measured.operations} operations were measured")
    if slip > _CLOCK_SLIP * settings.seconds:
        distrust.append(f"the clock jumped by {slip:.3f} s")
    if verdict.acknowledged_lost or verdict.duplicated or verdict.conserved is False or verdict.linearizable == "no":
        distrust.append("the answers do not fit the final balances")
    return _record(cell, repeat, seed, measured, "service", _across_clocks(verdict, cell, environment), distrust)


def _measure_fault(cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int) -> Trial:
    assert cell.fault is not None
    claims = cell.claims
    action = faults.load(cell.fault)
    chance = random.Random(seed)
    after_s = settings.fault_after_s * chance.uniform(1.0, 1.1)
    workload = workloads.load(cell.workload)
    offered = load.Load(cell.clients, settings.fault_load_s, settings.fault_interval_s)
    # A server started here dies with the thread that starts it: this one breaks and heals, another offers the load.
    with _opened(cell, environment, workload, settings.fault_timeout_s) as accounts, ThreadPoolExecutor(1) as thread:
        offering = thread.submit(_offer, accounts, workload, offered, cell.caller, environment, seed)
        time.sleep(load.START_S + after_s)
        struck_ns = time.perf_counter_ns()
        try:
            action.inject(environment, claims, chance)
        finally:
            action.heal(environment, claims)
        history = offering.result()
        final = _audit(accounts, workload)
    environment.await_workers()
    felt = outage(history, struck_ns)
    verdict = None if final is None else check(history, workload.account_names, OPENING, final)
    trial = _record(cell, repeat, seed, speed(history, 0.0), "response", verdict, [])
    trial.fault = cell.fault
    trial.offered_per_s = round(cell.clients / settings.fault_interval_s, 3)
    trial.achieved_ratio = round(len(history) / (trial.offered_per_s * settings.fault_load_s), 4)
    trial.unavailable_s = round(felt.unavailable_s, 4)
    trial.detection_s = None if felt.detection_s is None else round(felt.detection_s, 4)
    trial.recovery_s = None if felt.recovery_s is None else round(felt.recovery_s, 4)
    trial.verdict = _held_against_claim(claims, cell.fault, verdict, felt)
    if verdict is None:
        trial.distrust = "the accounts could not be read after the fault"
        trial.trusted = False
    return trial


def _held_against_claim(claims: Capabilities, fault: Fault, verdict: Verdict | None, felt: Outage) -> str:
    if verdict is None:
        return "unknown"
    survived = not verdict.acknowledged_lost and not verdict.duplicated and felt.recovery_s is not None
    claimed = fault in claims.survives
    if survived == claimed:
        return "as_claimed"
    return "better_than_claimed" if survived else "worse_than_claimed"


@contextmanager
def _opened(cell: Cell, environment: Environment, workload: Workload, timeout_s: float) -> Iterator[Accounts]:
    """The strategy on a blank bank, with the workload's accounts opened."""
    context = environment.context(cell.claims, cell.variant, f"bench-{uuid.uuid4().hex}", timeout_s)
    with cell.accounts.open(context) as accounts, ThreadPoolExecutor(_OPENING_THREADS) as threads:
        list(threads.map(lambda name: accounts.open_account(name, OPENING), workload.account_names))
        gc.collect()  # not within the measured time
        yield accounts
    environment.drop_actors()


def _offer(
    accounts: Accounts, workload: Workload, offered: load.Load, caller: Caller, environment: Environment, seed: int
) -> History:
    plans = [workload.plan(seed, client, offered.clients) for client in range(offered.clients)]
    return load.offer(
        accounts, workload.account_names, plans, offered, caller, f"load-{uuid.uuid4().hex}", environment.client
    )


def _audit(accounts: Accounts, workload: Workload) -> dict[str, Receipt] | None:
    """The final state, without the accounts that are lost; None if it cannot be read."""
    found: dict[str, Receipt] = {}
    deadline = time.monotonic() + _AUDIT_S
    for name in workload.account_names:
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


def _across_clocks(verdict: Verdict, cell: Cell, environment: Environment) -> Verdict:
    """Times of clients on other machines cannot be held against each other."""
    if cell.caller is Caller.TASK and not environment.owns_cluster:
        return replace(verdict, linearizable="unknown")
    return verdict


def _record(
    cell: Cell, repeat: int, seed: int, measured: Speed, kind: str, verdict: Verdict | None, distrust: Sequence[str]
) -> Trial:
    trial = _blank(cell, repeat, seed, Status.OK, None)
    trial.seconds = round(measured.seconds, 4)
    trial.operations = measured.operations
    trial.ops_per_s = round(measured.ops_per_s, 3)
    for name, value in measured.latency_us.items():
        setattr(trial, f"latency_us_{name}", value)
    trial.latency_kind = kind
    if verdict is not None:
        trial.acknowledged = verdict.acknowledged
        trial.acknowledged_lost = verdict.acknowledged_lost
        trial.duplicated = verdict.duplicated
        trial.indeterminate = verdict.indeterminate
        trial.indeterminate_applied = verdict.indeterminate_applied
        trial.conserved = verdict.conserved
        trial.linearizable = verdict.linearizable
    trial.trusted = not distrust
    trial.distrust = "; ".join(distrust) or None
    return trial


def _unmeasured(cell: Cell, decision: Decision, repeat: int, seed: int) -> Trial:
    return _blank(cell, repeat, seed, decision.status, decision.reason)


def _blank(cell: Cell, repeat: int, seed: int, status: Status, reason: str | None) -> Trial:
    return Trial(
        strategy=cell.name,
        variant=cell.variant,
        workload=cell.workload,
        caller=cell.caller,
        clients=cell.clients,
        repeat=repeat,
        seed=seed,
        status=status,
        reason=reason,
        durability=cell.claims.durability,
        fault=cell.fault,
    )


@dataclass(frozen=True)
class Footprint:
    """What a strategy costs before it does anything."""

    open_s: float
    """Time of `open` on a blank bank."""
    bytes_per_account: float
    """Growth of the memory of driver, workers and server together, per account opened."""


def footprint(cell: Cell, environment: Environment, accounts_count: int) -> Footprint:
    """Open the strategy, then `accounts_count` accounts."""
    context = environment.context(cell.claims, cell.variant, f"bench-{uuid.uuid4().hex}", Settings.timeout_s)
    begin_s = time.perf_counter()
    with cell.accounts.open(context) as accounts, ThreadPoolExecutor(_OPENING_THREADS) as threads:
        open_s = time.perf_counter() - begin_s
        before = _resident_bytes(environment)
        list(threads.map(accounts.open_account, (f"account-{index}" for index in range(accounts_count))))
        after = _resident_bytes(environment)
    environment.drop_actors()
    return Footprint(open_s, max(0.0, (after - before) / accounts_count))


def _resident_bytes(environment: Environment) -> int:
    """Memory that belongs to the harness and what it raised, shared pages not counted."""
    gc.collect()
    return sum(psutil.Process(pid).memory_full_info().uss for pid in environment.pids())
