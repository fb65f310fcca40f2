"""The measuring function: one cell, one trial, one record. The command line, asv and pytest all come through here."""

from __future__ import annotations

import gc
import re
import threading
import time
import uuid
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.harness import fault_trials, history_files, load
from benchmarks.harness.banks import OPENING_THREADS, opened
from benchmarks.harness.cells import Cell, Decision, Status, decide
from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.environment import Environment
from benchmarks.harness.history import OK, History
from benchmarks.harness.records import Trial
from benchmarks.harness.statistics import Speed, open_speed, speed
from benchmarks.harness.steady import settled_s
from benchmarks.harness.timeline import figures
from benchmarks.harness.workloads import OPENING, Workload
from strategies.interface import Accounts, Caller, Consistency

_OPENING_S = 0.0003
_AROUND_SPEED_S = 0.35
_AROUND_FAULT_S = 3.0
"""What an account, a speed trial and a fault trial take beside their load, as it was on a machine with 4 cores:
for the estimate that is shown before anything is measured."""
_CLOCK_SLIP_S = 0.02
"""How far two clocks may drift apart in a trial before it is distrusted: far above what NTP slews."""
_FEW_SAMPLES = 100
_STOOD_STILL_S = 0.25
_STOOD_STILL_S_PER_CLIENT = 0.01
"""A thread waits up to 5 ms for each other one that computes; this is twice that."""
_GENERATOR_SHARE = 0.5
"""A load generator that takes more of its clients' time than this measures itself."""
_ACHIEVED = 0.99
_GENERATOR_CPU = 0.9
"""Cores from which a Python process, that can use one, counts as saturated."""
_LAG_SHARE, _LAG_US = 0.5, 2000.0
"""A generator whose p99 of lateness is more than both, the share one of the p99 measured, measures itself. Waking a
thread took up to 1.4 ms at the p99 in idle processes of a virtual machine."""
_WARMUP_ROUNDS = 4
"""Loads that are offered before a trial without a steady state is recorded, distrusted."""


@dataclass(frozen=True)
class Settings:
    """How long trials take, and how patient their callers are. Seconds."""

    seconds: float = 5.0
    """Measured time of a speed trial."""
    warmup_s: float = 1.0
    """The most that is cut from the beginning of a load; what is cut is found in the load itself."""
    timeout_s: float = 5.0
    """Deadline of each call in speed trials."""
    fault: fault_trials.Schedule = field(default_factory=fault_trials.Schedule)
    """Of trials with a fault."""


QUICK = Settings(seconds=0.3, warmup_s=0.1)


def measure(
    cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int, histories: Path | None = None
) -> Trial:
    """Run one trial of the cell, or say why not. An error of the strategy or harness becomes status `failed`.

    With `histories`, a folder, a fault trial's history is kept there.
    """
    decision = decide(cell, environment)
    if decision.status is not Status.OK:
        return _unmeasured(cell, decision, repeat, seed)
    try:
        if cell.fault is None:
            return _measure_speed(cell, environment, settings, repeat, seed)
        return _measure_fault(cell, environment, settings, repeat, seed, histories)
    except Exception as error:
        with suppress(TimeoutError):  # what failed may have cost the cluster a worker, which the next trial needs
            environment.await_workers()
        environment.discard_broken_cluster()
        return _unmeasured(
            cell, Decision(Status.FAILED, environment.redacted(f"{type(error).__name__}: {error}")), repeat, seed
        )


def trial_seed(seed: int, cell: Cell, repeat: int) -> int:
    """The seed of one trial: strategies that are compared meet the same operations."""
    of_load = f"{cell.workload} {cell.caller} {cell.clients} {cell.fault} {repeat}"
    return zlib.crc32(of_load.encode(), seed)


def expected_s(cell: Cell, environment: Environment, settings: Settings) -> float:
    """How long one trial will take, as far as settings tell; 0 where it is not run."""
    if decide(cell, environment).status is not Status.OK:
        return 0.0
    if cell.fault is not None:
        return settings.fault.after_s + settings.fault.tail_s + _AROUND_FAULT_S
    return settings.warmup_s + settings.seconds + _AROUND_SPEED_S + cell.mix.accounts * _OPENING_S


def _measure_speed(cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int) -> Trial:
    workload = cell.mix
    offered = load.Load(
        cell.clients,
        settings.warmup_s + settings.seconds,
        cell.arrivals,
        cell.rate_per_s,
        batch=cell.batch,
        window=cell.window,
    )
    before_s, distrust = 0.0, []
    with opened(cell, environment, workload, settings.timeout_s) as accounts:
        clocks = _Clocks()
        histories = []
        for round_ in range(_WARMUP_ROUNDS):
            last = _offer(accounts, workload, offered, cell, environment, seed + round_)
            histories.append(last.history)
            if not len(last.history):
                raise RuntimeError("nothing was sent in the load's time; offer more, or measure longer")
            # Processes that began apart are warm now, and will begin together.
            together = last.apart_s <= settings.warmup_s
            cut_s = settled_s(last.history, offered.seconds, settings.warmup_s) if together else None
            if cut_s is not None or _overloaded(last):
                break
            before_s += offered.seconds
        else:
            before_s, cut_s = before_s - offered.seconds, settings.warmup_s
            distrust.append(f"no steady state within {_WARMUP_ROUNDS * offered.seconds:.1f} s of load")
        cut_s = settings.warmup_s if cut_s is None else cut_s
        if _overloaded(last):
            distrust.append("more was offered than is served, so latency grows as long as the load lasts")
        distrust += clocks.disagreements()
        final = accounts.snapshot()
    if cell.arrivals is load.Arrivals.CLOSED:
        measured = speed(last.history, cut_s, settings.seconds)
    else:
        measured = open_speed(last.history, last.due_s, cut_s, settings.seconds)
    before = sum(int((history.fate == OK).sum()) for history in histories[:-1])
    verdict = check(
        History.concatenated(histories),
        workload.account_names,
        OPENING,
        final,
        across_accounts=cell.claims.consistency is Consistency.LINEARIZABLE and _one_clock(cell, environment),
    )
    distrust += _doubts(cell, last, measured, verdict)
    trial = _record(cell, repeat, seed, measured, _across_clocks(verdict, cell, environment), distrust)
    trial.warmup_s = round(before_s + cut_s, 4)
    trial.warmup_operations = before + measured.warmup_operations
    trial.generator_cpu = round(last.generator_cpu, 4)
    trial.generator_share = measured.generator_share
    trial.generator_lag_us_p99 = measured.generator_lag_us_p99
    trial.offered_per_s = cell.rate_per_s
    trial.achieved_ratio = None if measured.achieved_ratio is None else round(measured.achieved_ratio, 4)
    return trial


def _overloaded(offered: load.Offered) -> bool:
    """Whether an open loop's operations fell behind: waiting for a steady state would be in vain."""
    return len(offered.history) < _ACHIEVED * len(offered.due_s)


class _Clocks:
    """What clocks show when a trial begins. They must not disagree about how long it took."""

    def __init__(self) -> None:
        self._begin = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        # Linux's monotonic clock stands still while the machine sleeps; the other does not.
        awake_or_not = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
        return time.perf_counter(), time.time(), awake_or_not

    def disagreements(self) -> list[str]:
        """One sentence for each thing that went wrong with time since."""
        perf_s, wall_s, boot_s = (now - then for now, then in zip(self._read(), self._begin, strict=True))
        found = []
        if abs(boot_s - perf_s) > _CLOCK_SLIP_S:
            found.append(f"the machine was suspended for {boot_s - perf_s:.3f} s")
        elif abs(wall_s - perf_s) > _CLOCK_SLIP_S:
            found.append(f"the clock jumped by {wall_s - perf_s:.3f} s")
        return found


def _doubts(cell: Cell, offered: load.Offered, measured: Speed, verdict: Verdict) -> list[str]:
    """Why this trial's figures say little of the strategy."""
    found = []
    if measured.operations < _FEW_SAMPLES:
        found.append(f"only {measured.operations} operations were measured")
    broken = verdict.acknowledged_lost or verdict.duplicated or verdict.torn or verdict.violations
    if broken or verdict.conserved is False or verdict.linearizable == "no":
        kinds = ", ".join(sorted({each.kind for each in verdict.violations}))
        found.append(f"the answers do not fit the final balances{f': {kinds}' if kinds else ''}")
    if offered.stood_still_s > max(_STOOD_STILL_S, cell.clients * _STOOD_STILL_S_PER_CLIENT):
        found.append(f"the load generator stood still for {offered.stood_still_s:.2f} s: suspended, or short of cores")
    if offered.stopped_full:
        found.append(f"{offered.stopped_full} clients stopped at the most operations that a trial records")
    if measured.generator_share is not None and measured.generator_share > _GENERATOR_SHARE:
        found.append(f"the load generator took {measured.generator_share:.0%} of its clients' time")
    short = measured.achieved_ratio is not None and measured.achieved_ratio < _ACHIEVED
    if short and offered.generator_cpu > _GENERATOR_CPU:
        found.append(
            f"{measured.achieved_ratio:.1%} of what was offered was achieved, with a load generator that used "
            f"{offered.generator_cpu:.2f} cores; use more --drivers"
        )
    lag_us, p99_us = measured.generator_lag_us_p99, measured.latency_us["p99"]
    if lag_us is not None and lag_us > max(_LAG_US, _LAG_SHARE * (p99_us or 0.0)):
        found.append(f"the load generator sent {lag_us / 1000:.1f} ms late (p99) though it had clients free")
    return found


def _measure_fault(
    cell: Cell, environment: Environment, settings: Settings, repeat: int, seed: int, histories: Path | None
) -> Trial:
    observed = fault_trials.run(cell, environment, settings.fault, seed)
    judged = fault_trials.judged(cell, observed)
    verdict, felt = judged.verdict, judged.felt
    answers = fault_trials.answers(observed.load)
    load_s = (observed.ended_ns - observed.start_ns) / 1e9
    flow = figures(
        observed.load, observed.struck_ns, observed.healed_ns, start_ns=observed.start_ns, end_ns=observed.ended_ns
    )
    measured = open_speed(answers, observed.due_s, 0.0, load_s)
    trial = _record(cell, repeat, seed, measured, verdict, judged.distrust)
    trial.offered_per_s = round(len(observed.due_s) / load_s, 3)
    trial.achieved_ratio = None if measured.achieved_ratio is None else round(measured.achieved_ratio, 4)
    trial.fault_at_s = round((observed.struck_ns - observed.start_ns) / 1e9, 4)
    trial.fault_lasts_s = round((observed.healed_ns - observed.struck_ns) / 1e9, 4)
    trial.fault_target = observed.target
    trial.unavailable_s = round(felt.unavailable_s, 4)
    trial.detection_s = None if felt.detection_s is None else round(felt.detection_s, 4)
    trial.recovery_s = None if felt.recovery_s is None else round(felt.recovery_s, 4)
    for name in ("goodput_before_per_s", "goodput_during_per_s", "goodput_after_per_s", "unknown_share"):
        value = getattr(flow, name)
        setattr(trial, name, None if value is None else round(value, 4))
    trial.probes = judged.probes
    trial.violations = ", ".join(sorted({each.kind for each in judged.violations})) or None
    trial.verdict = judged.against_claims
    if histories is not None:
        trial.history = _history_name(cell, repeat)
        histories.mkdir(exist_ok=True)
        history_files.save(histories / trial.history, fault_trials.history_file(cell, observed, seed))
    return trial


def _history_name(cell: Cell, repeat: int) -> str:
    words = (cell.name, cell.variant, cell.fault, cell.caller, cell.retry, repeat)
    return re.sub(r"[^\w-]+", "_", "-".join(map(str, words))) + ".npz"


def _offer(
    accounts: Accounts,
    workload: Workload,
    offered: load.Load,
    cell: Cell,
    environment: Environment,
    seed: int,
    begun: threading.Event | None = None,
) -> load.Offered:
    """`begun` is set when the first operation may be sent, where this process sends it."""
    session = f"load-{uuid.uuid4().hex}"
    if cell.caller is Caller.TASK:
        return load.in_tasks(accounts, workload, offered, session, seed, environment.client)
    if cell.drivers > 1:
        return load.in_drivers(accounts, workload, offered, session, seed, environment.drivers(cell.drivers))
    return load.in_driver(accounts, workload, offered, session, seed, begun)


def _across_clocks(verdict: Verdict, cell: Cell, environment: Environment) -> Verdict:
    """Times of clients on other machines cannot be held against each other."""
    return verdict if _one_clock(cell, environment) else replace(verdict, linearizable="unknown")


def _one_clock(cell: Cell, environment: Environment) -> bool:
    return cell.caller is not Caller.TASK or environment.owns_cluster


def _record(
    cell: Cell, repeat: int, seed: int, measured: Speed, verdict: Verdict | None, distrust: Sequence[str]
) -> Trial:
    trial = _blank(cell, repeat, seed, Status.OK, None)
    trial.seconds = round(measured.seconds, 4)
    trial.operations = measured.operations
    trial.ops_per_s = round(measured.ops_per_s, 3)
    for name, value in measured.latency_us.items():
        setattr(trial, f"latency_us_{name}", value)
    trial.latency_kind = "service" if cell.fault is None and cell.arrivals is load.Arrivals.CLOSED else "response"
    if verdict is not None:
        trial.acknowledged = verdict.acknowledged
        trial.acknowledged_lost = verdict.acknowledged_lost
        trial.acknowledged_lost_amount = verdict.acknowledged_lost_amount
        trial.duplicated = verdict.duplicated
        trial.torn = verdict.torn
        trial.indeterminate = verdict.indeterminate
        trial.indeterminate_applied = verdict.indeterminate_applied
        trial.conserved = verdict.conserved
        trial.linearizable = verdict.linearizable
    trial.trusted = not distrust
    trial.distrust = "; ".join(distrust) or None
    return trial


def unmeasured(cell: Cell, repeat: int) -> Trial:
    """The trial's line without figures: what identifies it."""
    return _blank(cell, repeat, 0, Status.NOT_APPLICABLE, None)


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
        retry=None if cell.fault is None else cell.retry,
        batch=cell.batch,
        window=cell.window,
        accounts=cell.mix.accounts,
        zipf_theta=cell.mix.zipf_theta,
        drivers=cell.drivers,
        shards=cell.shards,
        arrivals=None if cell.fault is not None else cell.arrivals,
        offered_per_s=cell.rate_per_s,
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
    with cell.accounts.open(context) as accounts, ThreadPoolExecutor(OPENING_THREADS) as threads:
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
