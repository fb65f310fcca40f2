"""Offers load: deals clients out to the processes that call, starts them together, brings back what happened.

A client's call ends within the strategy's deadline, so a load ends within its time and one deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle
import numpy as np

from benchmarks.harness.driver_processes import DriverFailed, DriverProcess
from benchmarks.harness.environment import in_time
from benchmarks.harness.generator import Client, Part, Share, generate, generate_by_copy
from benchmarks.harness.history import Floats, History
from benchmarks.harness.workloads import Workload
from strategies.interface import Accounts

if TYPE_CHECKING:
    import distributed

T = TypeVar("T")

CAPACITY = 16_000_000
"""Operations that a trial records at most, over all clients."""
_FASTEST_PER_S = 4_000_000
"""Calls that no client passes: no more room than that for each second is set aside."""

_LEAD_S = 0.15
"""How long processes wait for each other before the first operation: about what Dask takes to start a task on each
worker. One that needs longer begins late, and what is measured begins with the last."""
_OTHER_MACHINE_NS = 1_000_000_000
"""Two processes whose clocks are further apart than this were not started by one boot of one machine."""
DRAIN_S = 1.0
"""How long after its end an open loop still sends what is late."""
_LATE_S = 90.0
"""More than a client waits for what it has in flight."""
_ASK_S = 5.0


class Arrivals(StrEnum):
    """When operations are sent."""

    CLOSED = "closed"
    """Each client calls again as soon as it has its answer."""
    CONSTANT = "constant"
    """At equal distances, whatever became of those before."""
    POISSON = "poisson"
    """At random distances, as from many users who know nothing of each other."""


@dataclass(frozen=True)
class Load:
    """How much is offered, for how long, and in which form."""

    clients: int
    seconds: float
    arrivals: Arrivals = Arrivals.CLOSED
    rate_per_s: float | None = None
    """Operations that are due each second, from all clients together; with an open loop only."""
    own_schedules: bool = False
    """Whether each client has due times of its own, not the next of all that are due."""
    batch: int | None = None
    window: int | None = None


@dataclass(frozen=True)
class Offered:
    """What came of a load."""

    history: History
    due_s: Floats
    """Open loop: when operations were due, from the start, sent or not; empty in a closed loop."""
    generator_cpu: float
    """Cores that the busiest generating process used."""
    stood_still_s: float
    """Longest time for which a generating process did not run at all."""
    stopped_full: int
    """Clients that could record no more."""
    apart_s: float = 0.0
    """Time between the first process's begin and the last one's."""


def in_driver(
    accounts: Accounts,
    workload: Workload,
    load: Load,
    session: str,
    seed: int,
    begun: threading.Event | None = None,
) -> Offered:
    """From threads of this process. `begun` is set when they begin."""
    given_up: list[bool] = []
    (share,) = shares(workload, load, session, seed, processes=1, lead_s=0.0)
    try:
        return _merged([generate(accounts, share, given_up, begun)], [share])
    except BaseException:
        given_up.append(True)
        raise


def in_drivers(
    accounts: Accounts, workload: Workload, load: Load, session: str, seed: int, drivers: Sequence[DriverProcess]
) -> Offered:
    """From threads of several driver processes, each with its own copy of the handle."""
    handle = cloudpickle.dumps(accounts)
    dealt = shares(workload, load, session, seed, len(drivers), lead_s=_LEAD_S)
    sent, answers, failures = [], [], []
    for driver, share in zip(drivers, dealt, strict=False):
        try:
            driver.send(generate_by_copy, handle, share)
            sent.append(driver)
        except DriverFailed as error:
            failures.append(error)
    for driver in sent:  # of each: an answer that is left unread would be the next load's
        try:
            answers.append(driver.answer(_LEAD_S + load.seconds + DRAIN_S + _LATE_S))
        except DriverFailed as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return _merged([Part(*answer) for answer in answers], dealt)


def in_tasks(
    accounts: Accounts, workload: Workload, load: Load, session: str, seed: int, client: distributed.Client
) -> Offered:
    """From one task on each worker, with a share of the clients in its threads."""
    workers = sorted(client.nthreads())
    # Dask pickles by reference what this process can import; a file of the user's own, workers cannot.
    handle = cloudpickle.dumps(accounts)
    task = shipped_by_value(generate_by_copy)
    dealt = shares(workload, load, session, seed, len(workers), lead_s=_LEAD_S)
    futures = [
        client.submit(task, handle, cloudpickle.dumps(share), pure=False, retries=0, workers=[worker])
        for worker, share in zip(workers, dealt, strict=False)
    ]
    try:
        _await_all(futures, _LEAD_S + load.seconds + DRAIN_S + _LATE_S, client)
        return _merged([Part(*part) for part in client.gather(futures)], dealt)
    finally:
        client.cancel(futures)


def _await_all(futures: Sequence[distributed.Future], limit_s: float, client: distributed.Client) -> None:
    from distributed import wait

    try:
        wait(futures, timeout=limit_s)
    except TimeoutError:
        late = [future for future in futures if not future.done()]
        raise TimeoutError(
            f"{len(late)} of {len(futures)} calling tasks did not end within {limit_s:.0f} s; {_where(late, client)}"
        ) from None


def _where(late: Sequence[distributed.Future], client: distributed.Client) -> str:
    """The line that each late task is at, as far as the workers tell."""
    try:
        stacks = in_time(_ASK_S, lambda: client.call_stack(late))
    except Exception as error:
        return f"the workers did not tell where they are: {error!r}"
    found = [" ".join(stack[-1].split()) for tasks in stacks.values() for stack in tasks.values()]
    return f"{len(late) - len(found)} have not begun, {len(found)} are at: {'; '.join(found) or 'nowhere'}"


def shipped_by_value(function: Callable[..., T]) -> Callable[..., T]:
    """The function, for workers that cannot import this module: asv's cannot, and die of trying.

    Dask asks cloudpickle's register of modules only about the outermost object, which is a graph; a function
    within a function is never taken by reference. Arguments that are bytes are unpickled too.
    """
    payload = cloudpickle.dumps(function)

    def call(*arguments: Any) -> T:
        shipped: Callable[..., T] = cloudpickle.loads(payload)
        return shipped(*(cloudpickle.loads(each) if isinstance(each, bytes) else each for each in arguments))

    return call


def shares(workload: Workload, load: Load, session: str, seed: int, processes: int, lead_s: float) -> list[Share]:
    """One for each process that has a client to run."""
    processes = min(processes, load.clients)
    schedules = _due_s(load, seed, processes)
    capacity = min(CAPACITY // load.clients, int(load.seconds * _FASTEST_PER_S) + 1)
    start_ns = time.time_ns() + int(lead_s * 1e9)
    dealt = []
    for process in range(processes):
        indices = range(process, load.clients, processes)
        plans = [workload.plan(seed, index, load.clients) for index in indices]
        due_s = (
            tuple(schedules[index] for index in indices)
            if load.own_schedules
            else tuple(schedules[process : process + 1])
        )
        dealt.append(
            Share(
                session=session,
                clients=tuple(
                    Client(index, plan.function, plan.account, plan.target, plan.amount)
                    for index, plan in zip(indices, plans, strict=True)
                ),
                seconds=load.seconds,
                start_ns=start_ns,
                capacity=min(capacity, max(map(len, due_s)) + 1) if due_s else capacity,
                due_s=due_s,
                drain_s=DRAIN_S,
                batch=load.batch,
                window=load.window,
                process=process,
            )
        )
    return dealt


def _due_s(load: Load, seed: int, processes: int) -> list[Floats]:
    """Schedules that together have the load's rate: one for each client, or for each process."""
    if load.arrivals is Arrivals.CLOSED:
        return []
    assert load.rate_per_s is not None
    count = load.clients if load.own_schedules else processes
    gap_s = count / load.rate_per_s
    if load.arrivals is Arrivals.CONSTANT:
        lead_s = [0.0 if load.own_schedules else gap_s * place / count for place in range(count)]
        return [np.arange(first_s, load.seconds, gap_s) for first_s in lead_s]
    schedules = []
    for place in range(count):
        random = np.random.default_rng([seed, place, 1])
        # As many as fall into the time, and never too few: drawn in one go, then cut.
        expected = load.seconds / gap_s
        gaps_s = random.exponential(gap_s, size=int(expected + 10 * expected**0.5 + 10))
        due_s = np.cumsum(gaps_s)
        schedules.append(due_s[due_s < load.seconds])
    return schedules


def _on_this_clock(parts: Sequence[Part]) -> None:
    """Times of other machines, whose `perf_counter_ns` counts from elsewhere, by wall clocks; exact as those are."""
    own_ns = time.time_ns() - time.perf_counter_ns()
    for part in parts:
        shift_ns = part.clock_ns - own_ns
        if abs(shift_ns) < _OTHER_MACHINE_NS:
            continue
        for columns in part.columns:
            for name in ("due_ns", "sent_ns", "done_ns"):
                columns[name] = columns[name] + shift_ns


def _merged(parts: Sequence[Part], shares: Sequence[Share]) -> Offered:
    _on_this_clock(parts)
    return Offered(
        history=History.merged([columns for part in parts for columns in part.columns]),
        due_s=np.sort(np.concatenate([np.empty(0), *(due_s for share in shares for due_s in share.due_s)])),
        generator_cpu=max(part.cpu_s / part.wall_s for part in parts),
        stood_still_s=max(part.stood_still_s for part in parts),
        stopped_full=sum(part.stopped_full for part in parts),
        apart_s=max(part.late_s for part in parts) - min(part.late_s for part in parts),
    )
