"""Faults of processes: killed, paused, out of memory."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil

from benchmarks.harness.environment import THREADS_PER_WORKER, WORKERS_OF_A_TRIAL, Environment, in_time, state
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.servers import Server, kind_for
from benchmarks.harness.subprocess_cluster import SubprocessCluster
from strategies.interface import Accounts, Caller, Capabilities, Context, Fault

USERS_CLUSTER = "the cluster is not the harness's to break; leave --scheduler out"
_HOARD_BYTES = 64 * 2**20
_EFFECT_S = 10.0
"""For a signal to have its effect; for a nanny to end a worker that has outgrown its limit: it looks every 0.1 s."""
_ASK_S = 5.0
_POLL_S = 0.01


class ClusterFault(FaultAction):
    """What befalls the Dask cluster. Every program that has one meets it, wherever its state is."""

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if claims.callers else "nothing of it runs near a Dask cluster"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return None if environment.owns_cluster else USERS_CLUSTER

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        self._others = frozenset(key for keys in self.environment.actors().values() for key in keys)
        yield context

    def actors(self) -> dict[str, list[str]]:
        """Keys of this trial's actors on each worker that holds any; an earlier trial's may not be gone yet."""
        actors = {
            worker: [key for key in keys if key not in self._others]
            for worker, keys in self.environment.actors().items()
        }
        return {worker: keys for worker, keys in actors.items() if keys}

    def struck_worker(self) -> tuple[str, str]:
        """The address of a worker that holds state, or of any where none does; and how to call it in a record.

        Raises:
            NotInjected: there is none.
        """
        workers = sorted(self.environment.worker_pids())
        holders = [each for each in self.actors() if each in workers]
        targets = holders or workers
        if not targets:
            raise NotInjected("there was no worker to strike")
        chosen = self.chance.choice(targets)
        return chosen, f"worker {targets.index(chosen)} of {len(targets)}"


class WorkerKill(ClusterFault):
    """SIGKILL of the worker that holds state; of any worker where none does. Its nanny starts a blank one."""

    fault = Fault.WORKER_KILL
    target = "the Dask worker that holds state, or any where none does"
    emulates = "a worker that the kernel's or the cluster's memory limit kills, a preempted node"
    healed_by = "the worker's nanny, which starts a blank one"
    cannot_show = "the loss of the machine around the worker: its nanny lives on and starts another at once"

    def inject(self, accounts: Accounts) -> str:
        worker, name = self.struck_worker()
        kill(self.environment.nanny(worker).pid)
        return name


class WorkerPause(ClusterFault):
    """SIGSTOP of that worker for longer than a call's deadline, then SIGCONT. Its nanny and the scheduler wait."""

    fault = Fault.WORKER_PAUSE
    target = "the Dask worker that holds state, or any where none does"
    emulates = "a worker that swaps, is frozen with its container, or is starved of processor time"
    healed_by = "SIGCONT: the worker goes on where it was, with its state"
    cannot_show = "a pause that outlasts `worker-ttl` (5 minutes), when the scheduler gives the worker up"
    deadlines = 1.5
    """How long it is stopped."""
    _pid: int | None = None

    @property
    def lasts_s(self) -> float:
        return self.deadlines * self.deadline_s

    def inject(self, accounts: Accounts) -> str:
        worker, name = self.struck_worker()
        pid = self.environment.nanny(worker).pid
        kill(pid, signal.SIGSTOP)
        self._pid = pid
        return name

    def heal(self) -> None:
        if self._pid is not None:
            kill(self._pid, signal.SIGCONT)


class WorkerPauseBrief(WorkerPause):
    """The same for less than a deadline: a call that waits is answered in time."""

    fault = Fault.WORKER_PAUSE_BRIEF
    emulates = "a worker in a long garbage collection, or one that loses its processor for a moment"
    cannot_show = "a deadline that is as short as the pause: callers are told how patient to be"
    deadlines = 0.5


class WorkerOom(ClusterFault):
    """The worker outgrows its memory limit, and its nanny ends it."""

    fault = Fault.WORKER_OOM
    target = "the Dask worker that holds state, or any where none does"
    emulates = "state, or tasks beside it, that need more memory than the worker may have"
    healed_by = "the nanny, which starts a blank worker"
    cannot_show = (
        "the spilling and pausing on the way to a full memory: the nanny's limit is lowered to just above what "
        "the worker has, and 64 MiB are allocated at once"
    )

    def inject(self, accounts: Accounts) -> str:
        worker, name = self.struck_worker()
        nanny = self.environment.nanny(worker)
        watch, pid = nanny.memory_manager, nanny.pid
        limit = watch.memory_limit
        if not limit or not watch.memory_terminate_fraction:
            raise NotInjected(
                "nannies watch no memory here; give distributed.worker.memory.terminate its default (0.95)"
            )
        try:
            used = psutil.Process(pid).memory_info().rss + _HOARD_BYTES // 2
            watch.memory_limit = int(used / watch.memory_terminate_fraction)
            client = self.environment.client
            in_time(_ASK_S, lambda: client.run(_hoarding(_HOARD_BYTES), workers=[worker], on_error="ignore"))
            await_state(pid, _is_dead)
        except psutil.NoSuchProcess as error:
            raise NotInjected(f"process {pid} was gone already") from error
        finally:
            watch.memory_limit = limit
        if watch._last_terminated_pid != pid:
            raise NotInjected(f"worker process {pid} ended before its nanny ended it")
        return name


class SchedulerKill(ClusterFault):
    """SIGKILL of the scheduler, then a blank one at the same address. It is a process of its own for this trial."""

    fault = Fault.SCHEDULER_KILL
    target = "the Dask scheduler, in a cluster whose scheduler is a process of its own"
    emulates = "a crash of the scheduler's process or pod under a supervisor that starts it again"
    healed_by = (
        "a blank scheduler at the same address, and blank workers: those of a scheduler that is gone end by themselves"
    )
    cannot_show = "a scheduler that comes back elsewhere, or only after clients gave up (30 s)"
    cluster: SubprocessCluster
    _struck = False

    @property
    def lasts_s(self) -> float:
        return 0.25

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with SubprocessCluster(WORKERS_OF_A_TRIAL, THREADS_PER_WORKER) as self.cluster:
            yield replace(context, client=self.cluster.client)

    def inject(self, accounts: Accounts) -> str:
        self.cluster.kill_scheduler()
        self._struck = True
        return "the scheduler"

    def heal(self) -> None:
        if self._struck:
            self.cluster.restart()


class ServerFault(FaultAction):
    """What befalls the external store's process."""

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if kind_for(claims) else "no server holds its state"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return environment.users_server(claims)

    def running_server(self) -> Server:
        """The one that holds the state.

        Raises:
            NotInjected: it does not run.
        """
        server = self.environment.server(self.claims)
        if not server.runs:
            raise NotInjected("the server was gone already")
        return server


class ServerKill(ServerFault):
    """SIGKILL of the server, then a restart on the same data directory and port."""

    fault = Fault.SERVER_KILL
    target = "the external store's process; of an ensemble, its leader's"
    emulates = "a crash of the store's process under a supervisor that restarts it; the machine stays up"
    healed_by = "a restart on the same data and address after a quarter of a second"
    cannot_show = "what was not flushed to disk: the kernel's page cache survives (see power_loss)"

    @property
    def lasts_s(self) -> float:
        return 0.25

    def inject(self, accounts: Accounts) -> str:
        self.running_server().kill()
        return "the server"

    def heal(self) -> None:
        server = self.environment.server(self.claims)
        if not server.runs:
            server.start()


class ServerPause(ServerFault):
    """SIGSTOP of the server for longer than a call's deadline, then SIGCONT."""

    fault = Fault.SERVER_PAUSE
    target = "the external store's process; of an ensemble, its leader's"
    emulates = "a store that swaps, is frozen with its machine, or forks a large memory; its kernel still takes bytes"
    healed_by = "SIGCONT: the server goes on where it was, and answers what callers gave up"
    cannot_show = "a failover: there is no second server, or the others wait longer before they give the first one up"
    _paused: Server | None = None

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    def inject(self, accounts: Accounts) -> str:
        server = self.running_server()
        pid = server.pid
        server.pause()
        self._paused = server
        await_state(pid, _EFFECTS[signal.SIGSTOP])
        return "the server"

    def heal(self) -> None:
        if self._paused is not None:
            self._paused.resume()


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send SIGKILL, SIGSTOP or SIGCONT to a process that the harness started, and wait for its effect: milliseconds.

    Raises:
        NotInjected: it was dead already, or nothing came of it.
    """
    try:
        if state(pid) is None:  # a zombie would take the signal, and to no effect
            raise NotInjected(f"process {pid} was dead already")
        os.kill(pid, signal_number)
    except ProcessLookupError as error:
        raise NotInjected(f"process {pid} was dead already") from error
    await_state(pid, _EFFECTS[signal_number])


def await_state(pid: int, reached: Callable[[str | None], bool]) -> None:
    """Wait until the process's state is so.

    Raises:
        NotInjected: it never was.
    """
    deadline = time.monotonic() + _EFFECT_S
    while not reached(state(pid)):
        if time.monotonic() > deadline:
            raise NotInjected(f"process {pid} was still {state(pid) or 'dead'} after {_EFFECT_S:.0f} s")
        time.sleep(_POLL_S)


def _is_dead(found: str | None) -> bool:
    return found is None


_EFFECTS: dict[int, Callable[[str | None], bool]] = {
    signal.SIGKILL: _is_dead,
    signal.SIGSTOP: lambda found: found in (None, psutil.STATUS_STOPPED),
    signal.SIGCONT: lambda found: found != psutil.STATUS_STOPPED,
}


def _hoarding(size: int) -> Callable[..., None]:
    """What makes a worker hold so many bytes of resident memory. By value: workers cannot import this module."""

    def hoard(dask_worker: object) -> None:
        dask_worker.hoard = b"\x01" * size  # type: ignore[attr-defined]

    return hoard
