"""The resources a cell needs: a Dask cluster and Redis servers, raised when first needed, torn down together."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from benchmarks.harness.driver_processes import DriverProcess, connect
from benchmarks.harness.redis_server import RedisServer, ServerMissing, find_program
from strategies.interface import Capabilities, Context, Durability, Resource

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

WORKERS = 4
THREADS_PER_WORKER = 2
_CONNECT_S = 10.0
_WORKERS_BACK_S = 60.0
_POLL_S = 0.02


class ResourceError(RuntimeError):
    """A resource that the user named cannot be used; the message says what to do."""


class Environment:
    """What cells run in: one Dask cluster, and one Redis server per durability class.

    Each is the user's own (`scheduler`, `redis_url`) or raised by the harness when first needed;
    only what the harness raised is ever killed. Use as a context manager, from the main thread:
    the servers end with the thread that started them.
    """

    def __init__(self, *, scheduler: str | None = None, redis_url: str | None = None, workers: int = WORKERS) -> None:
        self._scheduler = scheduler
        self._redis_url = redis_url
        self._workers = workers
        self._stack = ExitStack()
        self._client: Client | None = None
        self._cluster: LocalCluster | None = None
        self._servers: dict[Durability, RedisServer] = {}
        self._drivers: list[DriverProcess] = []
        self._users_durability: Durability | None = None

    def __enter__(self) -> Self:
        try:
            if self._scheduler is not None:
                self._connect_to_users_cluster(self._scheduler)
            if self._redis_url is not None:
                self._users_durability = _durability_of(self._redis_url)
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
        if Resource.REDIS in claims.needs:
            if self._redis_url is None:
                try:
                    find_program()
                except ServerMissing as error:
                    return str(error)
            elif self._users_durability not in (None, claims.durability):
                return (
                    f"the given Redis server keeps the promise {self._users_durability}, not {claims.durability}; "
                    f"change its appendonly and appendfsync by CONFIG SET, or leave --redis-url out"
                )
        return None

    def context(
        self, claims: Capabilities, variant: str, bank: str, timeout_s: float, shards: int | None = None
    ) -> Context:
        """Everything that a strategy with these claims needs to be opened."""
        return Context(
            client=self.client if Resource.DASK in claims.needs or claims.callers else None,
            redis_url=self._url(claims.durability) if Resource.REDIS in claims.needs else None,
            timeout_s=timeout_s,
            bank=bank,
            variant=variant,
            shards=shards,
        )

    @property
    def client(self) -> Client:
        """The driver's Dask client; raises a local cluster when first asked for."""
        if self._client is None:
            self._raise_cluster()
        assert self._client is not None
        return self._client

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

    @property
    def owns_redis(self) -> bool:
        """Whether the harness may kill Redis servers."""
        return self._redis_url is None

    def redis_server(self, durability: Durability) -> RedisServer:
        """The harness's own server of this class, started when first asked for."""
        if durability not in self._servers:
            self._servers[durability] = self._stack.enter_context(RedisServer(durability))
        return self._servers[durability]

    def workers_with_actors(self) -> list[str]:
        """Addresses of the workers that hold actors' state, sorted."""
        _ = self.client
        assert self._cluster is not None
        return sorted(address for address, worker in self._cluster.scheduler.workers.items() if worker.actors)

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the harness's own workers, by address."""
        _ = self.client
        assert self._cluster is not None
        return {nanny.worker_address: nanny.pid for nanny in self._cluster.workers.values() if nanny.pid}

    def pids(self) -> list[int]:
        """Process ids of the driver and of everything the harness raised."""
        servers = [server.pid for server in self._servers.values()]
        workers = list(self.worker_pids().values()) if self._cluster is not None else []
        return [os.getpid(), *workers, *servers, *(driver.pid for driver in self._drivers)]

    def await_workers(self) -> None:
        """Wait until as many workers as were raised are there again, and their nannies know it.

        A nanny replaces its worker when that dies, but gives up when that dies before the nanny has
        heard of its start; then the cluster is told to make up the number.

        Raises:
            TimeoutError: they did not come back.
        """
        if self._cluster is None:
            return
        deadline = time.monotonic() + _WORKERS_BACK_S
        while not self._all_workers_run():
            if time.monotonic() > deadline:
                raise TimeoutError(f"fewer than {self._workers} workers run {_WORKERS_BACK_S:.0f} s after a fault")
            if len(self._cluster.workers) < self._workers:
                self._cluster.scale(self._workers)
            time.sleep(_POLL_S)

    def _all_workers_run(self) -> bool:
        assert self._cluster is not None
        nannies = list(self._cluster.workers.values())
        processes = [nanny.process for nanny in nannies]
        return (
            len(nannies) == len(self._cluster.scheduler.workers) == self._workers
            and all(process is not None and process.status.name == "running" for process in processes)
            and {nanny.worker_address for nanny in nannies} == set(self._cluster.scheduler.workers)
        )

    def drop_actors(self) -> None:
        """Let go of every actor that strategies published, so that trials do not pile up on the workers."""
        if self._client is not None and self.owns_cluster:
            names = list(self._client.list_datasets())
            if names:
                self._client.unpublish_dataset(names)

    # -- raising ---------------------------------------------------------------------------------

    def _url(self, durability: Durability) -> str:
        return self._redis_url or self.redis_server(durability).url

    def _raise_cluster(self) -> None:
        from distributed import Client, LocalCluster

        scratch = self._stack.enter_context(
            TemporaryDirectory(prefix="dask-state-bench-dask-", ignore_cleanup_errors=True)
        )
        with _interrupts_blocked():
            self._cluster = self._stack.enter_context(
                LocalCluster(
                    n_workers=self._workers,
                    threads_per_worker=THREADS_PER_WORKER,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # without it, an HTTP server on port 8787 of every interface
                    local_directory=scratch,
                    silence_logs=logging.CRITICAL,
                )
            )
        self._client = self._stack.enter_context(Client(self._cluster))

    def redacted(self, text: str) -> str:
        """The text without the secrets that the harness was given."""
        parts = urlsplit(self._redis_url or "")
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


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
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


def _durability_of(url: str) -> Durability | None:
    """The durability class that the user's server is set for; None where it does not say.

    Raises:
        ResourceError: it cannot be reached, or refuses.
    """
    import redis

    try:
        with redis.Redis.from_url(
            url, socket_timeout=_CONNECT_S, socket_connect_timeout=_CONNECT_S, retry=None
        ) as server:
            server.ping()
            try:
                settings = server.config_get("append*")
            except redis.ResponseError:
                return None
    except (TypeError, ValueError):  # what was wrong may quote the password
        raise ResourceError(
            "--redis-url cannot be read; write redis://:PASSWORD@HOST:PORT/DATABASE, rediss://... or unix://PATH, "
            "with special characters of the password percent-encoded"
        ) from None
    except redis.RedisError as error:
        raise ResourceError(
            f"the Redis server at {without_secret(url)} cannot be used: {error}; check --redis-url"
        ) from None
    set_as = (_text(settings["appendonly"]), _text(settings["appendfsync"]))
    if set_as[0] == "no":
        return Durability.VOLATILE
    return {"everysec": Durability.PROCESS_CRASH, "always": Durability.POWER_LOSS}.get(set_as[1])


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def without_secret(url: str) -> str:
    """The URL with its user, password and options left out."""
    parts = urlsplit(url)
    where = parts.hostname or ""
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.scheme}://{where}{port}{parts.path}"
