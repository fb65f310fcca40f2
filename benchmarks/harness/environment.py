"""The resources a cell needs: a Dask cluster and Redis servers, raised when first needed, torn down together."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psutil

from benchmarks.harness import scratch, servers
from benchmarks.harness.driver_processes import DriverProcess, connect
from benchmarks.harness.servers import ResourceError, Server
from strategies.interface import Capabilities, Context, Durability, Resource

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Nanny, Scheduler
    from distributed.scheduler import WorkerState

T = TypeVar("T")

WORKERS = 4
THREADS_PER_WORKER = 2
WORKERS_OF_A_TRIAL = 2
"""Of a cluster that is made for one trial: enough to have state on another. Each start costs a second of a core."""
_CONNECT_S = 10.0
_WORKERS_BACK_S = 60.0
_GIVEN_UP_S = 15.0
"""A nanny that has had no worker for so long has given up; to start one takes 1 to 2 s here, on a busy machine more."""
_SCALE_S = 30.0
"""For nannies to close: each gives its worker 4 s to end before it kills it."""
_POLL_S = 0.02


class Environment:
    """What cells run in: one Dask cluster, and of each kind of server one per durability class and number of nodes.

    Each is the user's own (`scheduler`, `urls`) or raised by the harness when first needed;
    only what the harness raised is ever killed. Use as a context manager, from the main thread:
    the servers end with the thread that started them. SIGTERM and SIGHUP then end the harness as
    Ctrl-C does, so that it clears away what it raised.
    """

    def __init__(
        self, *, scheduler: str | None = None, urls: Mapping[Resource, str] | None = None, workers: int = WORKERS
    ) -> None:
        self._scheduler = scheduler
        self._urls = dict(urls or {})
        self._workers = workers
        self._stack = ExitStack()
        self._client: Client | None = None
        self._cluster: LocalCluster | None = None
        self._servers: dict[tuple[Resource, Durability, int], Server] = {}
        self._drivers: list[DriverProcess] = []
        self._directory: Path | None = None
        self._cluster_stack = ExitStack()
        self._users_durability: dict[Resource, Durability | None] = {}

    def __enter__(self) -> Self:
        scratch.sweep()
        self._stack.enter_context(_ended_in_order())
        try:
            if self._scheduler is not None:
                self._connect_to_users_cluster(self._scheduler)
            for resource, url in self._urls.items():
                kind = servers.kinds()[resource]
                lacking = kind.client_missing()
                if lacking:
                    raise ResourceError(lacking)
                self._users_durability[resource] = kind.durability_of(url)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- what cells ask for ----------------------------------------------------------------------

    def missing(self, claims: Capabilities) -> str | None:
        """Why a strategy with these claims cannot be opened here, with the command that helps; None if it can."""
        kind = servers.kind_for(claims)
        if kind is None:
            return None
        if kind.resource not in self._urls:
            return kind.missing()
        promise = self._users_durability[kind.resource]
        if promise not in (None, claims.durability):
            return (
                f"the given {kind.product} server keeps the promise {promise}, not {claims.durability}; "
                f"{kind.remedy}, or leave {kind.option} out"
            )
        return None

    def context(
        self, claims: Capabilities, variant: str, bank: str, timeout_s: float, shards: int | None = None
    ) -> Context:
        """Everything that a strategy with these claims needs to be opened."""
        kind = servers.kind_for(claims)
        context = Context(
            client=self.client if Resource.DASK in claims.needs or claims.callers else None,
            directory=self.directory if Resource.DIRECTORY in claims.needs else None,
            timeout_s=timeout_s,
            bank=bank,
            variant=variant,
            shards=shards,
        )
        return (
            context
            if kind is None
            else kind.found_at(self._urls.get(kind.resource) or self.server(claims).url, context)
        )

    @property
    def client(self) -> Client:
        """The driver's Dask client; raises a local cluster when first asked for."""
        if self._client is None:
            self._raise_cluster()
        assert self._client is not None
        return self._client

    @property
    def directory(self) -> Path:
        """Where embedded stores keep their files; made when first asked for."""
        if self._directory is None:
            self._directory = self._stack.enter_context(scratch.directory("files"))
        return self._directory

    def drivers(self, count: int) -> list[DriverProcess]:
        """So many driver processes, each connected to the cluster; started when first asked for or when one is gone."""
        self._drivers = [driver for driver in self._drivers if driver.runs]
        while len(self._drivers) < count:
            driver = self._stack.enter_context(DriverProcess())
            driver.send(connect, self.client.scheduler_info()["address"])
            driver.answer()
            self._drivers.append(driver)
        return self._drivers[:count]

    # -- what faults ask for ---------------------------------------------------------------------

    @property
    def owns_cluster(self) -> bool:
        """Whether the harness may kill workers."""
        return self._scheduler is None

    def users_server(self, claims: Capabilities) -> str | None:
        """Why the server of a strategy with these claims is not to be broken; None if it may be."""
        kind = servers.kind_for(claims)
        if kind is None or kind.resource not in self._urls:
            return None
        return f"the server is not the harness's to break; leave {kind.option} out"

    def server(self, claims: Capabilities) -> Server:
        """The harness's own server for a strategy with these claims, started when first asked for.

        Raises:
            LookupError: it needs none.
        """
        kind = servers.kind_for(claims)
        if kind is None:
            raise LookupError("no server holds its state")
        key = kind.resource, claims.durability, claims.nodes
        if key not in self._servers:
            self._servers[key] = self._stack.enter_context(kind(claims.durability, nodes=claims.nodes))
        return self._servers[key]

    @property
    def cluster(self) -> LocalCluster:
        """The harness's own cluster; its scheduler and nannies live in this process."""
        _ = self.client
        assert self._cluster is not None
        return self._cluster

    @property
    def scheduler(self) -> Scheduler:
        """Of the harness's own cluster. Its event loop is another thread's."""
        scheduler: Scheduler = self.cluster.scheduler
        return scheduler

    def nanny(self, worker: str) -> Nanny:
        """The nanny of the worker at this address.

        Raises:
            LookupError: there is no such worker.
        """
        for nanny in list(self.cluster.workers.values()):
            if nanny.worker_address == worker:
                found: Nanny = nanny
                return found
        raise LookupError(f"no worker of the harness's is at {worker}")

    def actors(self) -> dict[str, list[str]]:
        """Keys of the live actors on each worker that holds any, by its address; sorted."""
        found = {}
        for address, worker in sorted(self.scheduler.workers.copy().items()):
            keys = [str(task.key) for task in worker.actors.copy() if worker in (task.who_has or ())]
            if keys:
                found[address] = sorted(keys)
        return found

    def workers_with_actors(self) -> list[str]:
        """Addresses of the workers that hold actors' state, sorted."""
        return list(self.actors())

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the harness's own workers, by address."""
        return {nanny.worker_address: nanny.pid for nanny in list(self.cluster.workers.values()) if nanny.pid}

    @contextmanager
    def spare_worker(self) -> Iterator[str]:
        """One more worker than usual; its address. Actors that exist already are not on it."""
        cluster = self.cluster
        usual = set(cluster.worker_spec)
        cluster.scale(len(usual) + 1)
        (name,) = set(cluster.worker_spec) - usual
        try:
            deadline = time.monotonic() + _WORKERS_BACK_S
            while name not in cluster.workers or not self._runs(cluster.workers[name]):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"one more worker did not start within {_WORKERS_BACK_S:.0f} s")
                time.sleep(_POLL_S)
            yield cluster.workers[name].worker_address
        finally:
            self._close_workers([name])

    def pids(self) -> list[int]:
        """Process ids of the driver and of everything the harness raised."""
        of_servers = [pid for server in self._servers.values() for pid in server.pids]
        workers = list(self.worker_pids().values()) if self._cluster is not None else []
        return [os.getpid(), *workers, *of_servers, *(driver.pid for driver in self._drivers)]

    def await_workers(self) -> None:
        """Wait until as many workers run as were raised, and their nannies and the scheduler know it.

        A nanny replaces its worker when that dies. Not so one that was itself closed, or that gave up
        because its worker died before the nanny had heard of its start: then another is started.

        Raises:
            TimeoutError: they did not come back.
        """
        if self._cluster is None:
            return
        began = time.monotonic()
        while not self._is_whole():
            waited_s = time.monotonic() - began
            if waited_s > _WORKERS_BACK_S:
                raise TimeoutError(f"not {self._workers} workers run {_WORKERS_BACK_S:.0f} s after a fault")
            self._mend(waited_s > _GIVEN_UP_S)
            time.sleep(_POLL_S)

    def _is_whole(self) -> bool:
        assert self._cluster is not None
        nannies = list(self._cluster.workers.values())
        return len(nannies) == len(self._cluster.worker_spec) == len(self.scheduler.workers) == self._workers and all(
            map(self._runs, nannies)
        )

    def _runs(self, nanny: Nanny) -> bool:
        """Whether its worker runs, to its own and the scheduler's knowledge, and would retire if it were told to."""
        process, known = nanny.process, self.scheduler.workers.get(nanny.worker_address)
        return (
            nanny.status.name == "running"
            and process is not None
            and process.status.name == "running"
            and nanny.pid is not None
            and state(nanny.pid) not in (None, psutil.STATUS_STOPPED)
            and known is not None
            and known.status.name == "running"
            and not _has_ghosts(known)
        )

    def _mend(self, given_up: bool) -> None:
        """Wake what is stopped, close what will not come back by itself and what is too much, start what is missing."""
        cluster = self.cluster
        nannies = dict(cluster.workers)
        for pid in self.worker_pids().values():
            if state(pid) == psutil.STATUS_STOPPED:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        dead = [
            name
            for name, nanny in nannies.items()
            if nanny.status.name in ("closed", "failed")
            or _has_ghosts(self.scheduler.workers.get(nanny.worker_address))
            or (given_up and not self._runs(nanny))
        ]
        left = [name for name in cluster.worker_spec if name not in dead]
        self._close_workers(dead + left[self._workers :])
        if min(len(cluster.worker_spec), len(cluster.workers)) < self._workers:
            cluster.scale(self._workers)

    def _close_workers(self, names: Sequence[Any]) -> None:
        """Nannies and all, by their names in the cluster."""
        if names:
            cluster = self.cluster
            cluster.sync(cluster.scale_down, names, callback_timeout=_SCALE_S)

    def discard_broken_cluster(self) -> None:
        """Let the harness's own cluster go if it no longer runs tasks; the next trial raises another.

        On a machine with far too little time for everything, a client was seen to lose its scheduler for good.
        """
        if self._client is None or self._cluster is None:
            return
        client = self._client
        try:
            in_time(_WORKERS_BACK_S, lambda: client.submit(int, pure=False).result(timeout=_CONNECT_S))
        except Exception:
            self._client, self._cluster = None, None
            self._cluster_stack.close()

    def drop_actors(self) -> None:
        """Let go of every actor that strategies published, so that trials do not pile up on the workers."""
        if self._client is not None and self.owns_cluster:
            names = list(self._client.list_datasets())
            if names:
                self._client.unpublish_dataset(names)

    # -- raising ---------------------------------------------------------------------------------

    def _raise_cluster(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster_stack = stack = self._stack.enter_context(ExitStack())
        directory = stack.enter_context(scratch.directory("dask"))
        with interrupts_blocked():
            self._cluster = stack.enter_context(
                LocalCluster(
                    n_workers=self._workers,
                    threads_per_worker=THREADS_PER_WORKER,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # without it, an HTTP server on port 8787 of every interface
                    local_directory=str(directory),
                    silence_logs=logging.CRITICAL + 1,  # it calls a value that cannot be serialised critical
                )
            )
        self._client = stack.enter_context(Client(self._cluster))
        stack.enter_context(_abandoned_calls_unlogged())

    def redacted(self, text: str) -> str:
        """The text without the secrets that the harness was given."""
        for parts in map(urlsplit, self._urls.values()):
            for secret in (parts.password, *parse_qs(parts.query).get("password", ())):
                for form in filter(None, (secret, unquote(secret or ""), quote(unquote(secret or ""), safe=""))):
                    text = text.replace(form, "***")
        return text

    def _connect_to_users_cluster(self, address: str) -> None:
        from distributed import Client

        try:
            self._client = self._stack.enter_context(Client(address, timeout=_CONNECT_S))
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"no Dask scheduler answers at {address} within {_CONNECT_S:.0f} s; check --scheduler"
            ) from error
        lacking = [worker for worker, found in self._client.run(_strategies_importable).items() if not found]
        if lacking:
            raise ResourceError(
                f"{len(lacking)} workers of {address} cannot import `strategies`; install this package on them "
                f"(pip install dask-state-bench, or from a clone: pip install .)"
            )


def _has_ghosts(worker: WorkerState | None) -> bool:
    """Whether the scheduler keeps actors in its books that were moved away: then it never retires the worker."""
    return worker is not None and any(
        task.state != "processing" and worker not in (task.who_has or ()) for task in worker.actors.copy()
    )


def state(pid: int) -> str | None:
    """Of a process, as `psutil` calls it; None if it is dead. The kernel knows of a death before anybody is told."""
    try:
        found = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return None
    return None if found in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else found


def in_time(limit_s: float, call: Callable[[], T]) -> T:
    """What the call returns, though it may know no deadline. One that does not return leaves a thread waiting.

    Raises:
        TimeoutError: it did not return within `limit_s`.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="in_time").start()
    return answer.result(limit_s)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the harness as Ctrl-C does, unless somebody handles them already."""
    handled = []
    if threading.current_thread() is threading.main_thread():  # nobody else may set handlers
        handled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in handled:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def _abandoned_calls_unlogged() -> Iterator[None]:
    """Keep asyncio from logging what became of the scheduler's calls to workers that died, 30 s afterwards.

    The scheduler passes a proxied call on in a task of its own, which nobody awaits.
    """

    def concerns_us(record: logging.LogRecord) -> bool:
        return not (
            record.getMessage().startswith("Task exception was never") and "_handle_comm" in record.getMessage()
        )

    logger = logging.getLogger("asyncio")
    logger.addFilter(concerns_us)
    try:
        yield
    finally:
        logger.removeFilter(concerns_us)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes started meanwhile, or later by threads started meanwhile.

    A terminal sends it to the whole process group; the harness alone decides how its workers end.
    """
    # Else the first worker starts it, which unblocks SIGINT in that thread (bpo-33613).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _strategies_importable() -> bool:
    import importlib.util

    return importlib.util.find_spec("strategies") is not None
