"""What each server of the harness's own can do: start, die, pause, come back on its data, stop; and which there are."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import resource
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import benchmarks.harness
from benchmarks.harness import launch, scratch
from benchmarks.harness.durable_files import Lost
from benchmarks.harness.sync_watch import SyncWatch
from strategies.interface import Capabilities, Context, Durability, Resource

_STOP_S = 5.0
_PORT_TRIES = 5
_POLL_S = 0.005
_LOG_LINES = 5


class ServerMissing(RuntimeError):
    """No server program is on this machine; the message names the command that brings one."""


class ResourceError(RuntimeError):
    """A resource that the user named cannot be used; the message says what to do."""


class ServerFailed(RuntimeError):
    """The server did not start; the message ends with its last log lines."""


class Server(ABC):
    """One server, of one kind, on loopback, with a data directory that outlives its process.

    It can be put into a network `namespace` (a path), where it listens at `host`. With `watched`, what it synced is
    known: see `lose_power`. Use as a context manager; it dies with the harness, however that ends.
    """

    resource: ClassVar[Resource]
    """What strategies need it as."""
    product: ClassVar[str]
    """As people call it."""
    url_field: ClassVar[str]
    """The field of a `Context` that holds its address."""
    option: ClassVar[str]
    """That of the command line for a server of the user's own."""
    remedy: ClassVar[str]
    """What changes the promise that such a server keeps."""
    ready_s: ClassVar[float] = 10.0
    """It must answer so soon after its start, on a busy machine too."""
    client_module: ClassVar[str]
    """The package by which strategies call it."""
    extra: ClassVar[str | None] = None
    """This project's extra that brings that package; None where the ruler needs it anyway."""
    no_proxy: ClassVar[str | None] = None
    """Why nothing can be put between it and its callers; None if a proxy can."""
    not_watched: ClassVar[str | None] = None
    """Why what it synced cannot be known; None if it can."""

    always_writes: ClassVar[bool] = False
    """Whether it writes to its disk for strategies too whose changes are to outlive nothing."""

    def __init__(
        self,
        durability: Durability,
        *,
        settings: Mapping[str, str] | None = None,
        nodes: int = 1,
        host: str = "127.0.0.1",
        namespace: Path | None = None,
        watched: bool = False,
    ) -> None:
        """`settings` are in addition to, or in place of, those of its durability class."""
        self.durability = durability
        self.nodes = nodes
        self.watch: SyncWatch | None = None
        self._settings = settings or {}
        self._host = host
        self._namespace = namespace
        self._watched = watched
        self._program = self.find_program()
        self._scratch = ExitStack()
        self._directory = self._scratch.enter_context(scratch.directory(self.resource))
        self._data = self._directory / "data"
        self._data.mkdir()
        self._started_by: Sequence[str] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._user: tuple[int, int] | None = None
        """Whom it runs as, by user and group; None for the harness's own."""

    # -- what a kind of server says of itself ----------------------------------------------------

    @classmethod
    @abstractmethod
    def find_program(cls) -> Path:
        """The server's program.

        Raises:
            ServerMissing: there is none, with the command that brings one.
        """

    @classmethod
    def client_missing(cls) -> str | None:
        """Why none can be called from here, with the command that helps; None if one can."""
        if importlib.util.find_spec(cls.client_module) is not None:
            return None
        return f"{cls.client_module}, the client of {cls.product}, is not installed; run: pip install '.[{cls.extra}]'"

    @classmethod
    def missing(cls) -> str | None:
        """Why none can be started and called here, with the command that helps; None if one can."""
        if cls.client_missing():
            return cls.client_missing()
        try:
            cls.find_program()
        except ServerMissing as error:
            return str(error)
        return None

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        """Of what it runs, where no Python package's version tells; of what is there."""
        return {}

    @classmethod
    @abstractmethod
    def durability_of(cls, url: str) -> Durability | None:
        """The durability class that a user's own server is set for; None where it does not say, or callers choose.

        Raises:
            ResourceError: it cannot be reached, or refuses.
        """

    @classmethod
    def found_at(cls, url: str, context: Context) -> Context:
        """The context, with a server of this kind there."""
        field: dict[str, Any] = {cls.url_field: url}
        return replace(context, **field)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is reached."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """What to run; what it needs in its directory is there by then."""

    @abstractmethod
    def _is_ready(self, port: int) -> bool:
        """Whether it answers. Raises OSError where it does not."""

    # -- what all of them can do -----------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Of its data."""
        return self._data

    @property
    def runs(self) -> bool:
        """Whether its process does; one that was paused does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Of all of its processes."""
        return [self.pid]

    @property
    def command(self) -> Sequence[str]:
        """What it was started by; of several processes, the latest."""
        return self._started_by

    def start(self) -> None:
        """Start, on the port and the data of an earlier start if there was one, and wait until it answers.

        Raises:
            ServerFailed: it did not come up.
        """
        for _ in range(_PORT_TRIES):
            port = self._port or free_port()
            self._process = self._spawn(port) if not self._watched else self._spawn_watched(port)
            if self._answers(port):
                self._port = port
                return
            self._reap()
            if self._port:
                break  # it must come back where its clients look for it
        raise ServerFailed(f"the {self.product} server did not start; its log ends: {' | '.join(self.log_tail())}")

    def log_tail(self) -> list[str]:
        """The last lines that it logged."""
        path = self._directory / "log"
        return path.read_text(errors="replace").splitlines()[-_LOG_LINES:] if path.exists() else ["(there is none)"]

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def lose_power(self) -> Lost:
        """SIGKILL, and what was never synced is gone from its directory. Only where it is watched."""
        assert self.watch is not None
        self.kill()
        return self.watch.lose()

    def await_synced(self) -> None:  # noqa: B027 - some sync before they answer
        """Wait until all that was written before is on disk, where the durability class has files. Only if watched."""

    def log_bytes(self) -> int | None:
        """How far into a file its log is written; None where the file's size tells."""
        return None

    def limit_files(self, pid: int, size: int) -> None:
        """This process of its own writes nothing in any file beyond so many bytes, or `resource.RLIM_INFINITY`."""
        limit_files(pid, size)

    def stop(self) -> None:
        """End the server and delete its data. Idempotent."""
        self._reap()
        self._stop_watching()
        self._scratch.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn_watched(self, port: int) -> subprocess.Popen[bytes]:
        self._stop_watching()
        self.watch = SyncWatch(self._data)
        try:
            return self._spawn(port, self.watch.handover)
        finally:
            self.watch.close_handover()

    def _stop_watching(self) -> None:
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def _spawn(self, port: int, handover: int | None = None) -> subprocess.Popen[bytes]:
        self._started_by = self._command(port)
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *launch.command(
                        namespace=str(self._namespace) if self._namespace else None, handover=handover, user=self._user
                    ),
                    *self._started_by,
                ],
                pass_fds=() if handover is None else (handover,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the harness, which then stops the server itself
                **self._process_options(),
            )

    def _process_options(self) -> dict[str, Any]:
        """More arguments for `Popen`."""
        return {}

    def _answers(self, port: int) -> bool:
        deadline = time.monotonic() + self.ready_s
        while time.monotonic() < deadline:
            if not self.runs:
                return False
            try:
                if self._is_ready(port):
                    return self.runs
            except OSError:
                pass
            time.sleep(_POLL_S)
        return False

    def _reap(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        self.resume()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM


def kinds() -> Mapping[Resource, type[Server]]:
    """Every kind of server, by what it is needed as."""
    return _kinds()


def kind_for(claims: Capabilities) -> type[Server] | None:
    """The kind of server that holds the state of a strategy with these claims; None where no server does."""
    needed = [kind for resource, kind in kinds().items() if resource in claims.needs]
    return needed[0] if needed else None


@cache
def _kinds() -> Mapping[Resource, type[Server]]:
    """Of this package's modules whose names end in `_server`: their public classes."""
    found: dict[Resource, type[Server]] = {}
    for module in pkgutil.iter_modules(benchmarks.harness.__path__):
        if not module.name.endswith("_server"):
            continue
        found_in = importlib.import_module(f"{benchmarks.harness.__name__}.{module.name}")
        for name, value in vars(found_in).items():
            is_its_own = isinstance(value, type) and value.__module__ == found_in.__name__
            if is_its_own and issubclass(value, Server) and not name.startswith("_"):
                found[value.resource] = value
    return found


def limit_files(pid: int, size: int) -> None:
    """The process writes nothing in any file beyond so many bytes. Linux only."""
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


def free_port() -> int:
    """Of loopback, where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def addresses_of(url: str) -> list[tuple[str, int]]:
    """Every host and port of a URL whose place is `HOST:PORT` or several of them, with commas; port 0 where none is.

    Raises:
        ValueError: a port is no number.
    """
    _, _, places = urlsplit(url).netloc.rpartition("@")
    return [(each.hostname or "", each.port or 0) for each in (urlsplit(f"//{place}") for place in places.split(","))]


def at_addresses(url: str, addresses: Iterable[tuple[str, int]]) -> str:
    """The URL with these hosts and ports in place of its own."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{','.join(f'{host}:{port}' for host, port in addresses)}").geturl()


def without_secret(url: str) -> str:
    """The URL with its user, password and options left out."""
    parts = urlsplit(url)
    where = parts.hostname or ""
    try:
        addresses = addresses_of(url)
    except ValueError:
        addresses = []
    if addresses and all(host for host, _ in addresses):
        where = ",".join(f"{host}:{port}" if port else host for host, port in addresses)
    return f"{parts.scheme}://{where}{parts.path}"
