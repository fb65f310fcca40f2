"""A Dask cluster of processes of its own, so that its scheduler can be killed. On loopback; ends with the harness."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from benchmarks.harness import scratch

if TYPE_CHECKING:
    from distributed import Client

_READY_S = 60.0
"""For Python and distributed to be imported, and worker processes started, on a busy machine."""
_PORT_TRIES = 3
_STOP_S = 5.0
_ORPHANS_S = 5.0
"""For workers to end by themselves when their scheduler is gone: it takes 2 to 3 s."""
_POLL_S = 0.02

# PR_SET_PDEATHSIG (1) makes the kernel kill this process when the harness dies, however that happens;
# a nanny's worker exits with its nanny. The check closes the gap before the prctl.
_PROGRAM = """
import asyncio, ctypes, os, signal, sys
from contextlib import AsyncExitStack
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
from distributed import Nanny, Scheduler

async def scheduler(port):
    async with Scheduler(host="127.0.0.1", port=int(port), dashboard_address="127.0.0.1:0") as running:
        print("ready", flush=True)
        await running.finished()

async def workers(address, count, threads, directory):
    async with AsyncExitStack() as stack:
        running = [
            Nanny(address, nthreads=int(threads), host="127.0.0.1", local_directory=directory)
            for _ in range(int(count))
        ]
        await asyncio.gather(*map(stack.enter_async_context, running))
        print("ready", flush=True)
        await asyncio.gather(*(nanny.finished() for nanny in running))

if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[2]](*sys.argv[3:]))
"""


class SubprocessCluster:
    """A scheduler's process, and one of nannies with their workers. Use as a context manager.

    Processes end with the thread that starts them, which must be the harness's main one.
    """

    def __init__(self, workers: int, threads_per_worker: int) -> None:
        self._size = workers
        self._threads = threads_per_worker
        self._port = 0
        self._directory: Path | None = None
        self._scheduler: _Process | None = None
        self._workers: _Process | None = None
        self._client: Client | None = None

    @property
    def address(self) -> str:
        """The same after a restart."""
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def scheduler_pid(self) -> int:
        """Of the scheduler that was started last."""
        assert self._scheduler is not None
        return self._scheduler.pid

    @property
    def client(self) -> Client:
        """The driver's; not the process's default client."""
        assert self._client is not None
        return self._client

    @property
    def is_whole(self) -> bool:
        """Whether all of it runs, and the client knows."""
        running = self._scheduler is not None and self._scheduler.runs and self._workers is not None
        if not running or self._client is None or self._client.status != "running":
            return False
        with suppress(OSError, TimeoutError):
            return len(self._client.nthreads(callback_timeout=1.0)) == self._size
        return False

    def kill_scheduler(self) -> None:
        """SIGKILL, as a crash would end it."""
        assert self._scheduler is not None
        self._scheduler.kill()

    def restart(self) -> None:
        """Start a blank scheduler at the same address, and workers in place of those that ended with the old one.

        Raises:
            RuntimeError: they did not come up; the message ends with their last log lines.
        """
        orphans = self._workers
        assert orphans is not None
        try:
            self._start()
            self._await_whole()
        finally:
            orphans.end(patience_s=_ORPHANS_S)

    def __enter__(self) -> Self:
        from distributed import Client

        self._scratch = scratch.directory("cluster")
        self._directory = self._scratch.__enter__()
        try:
            self._start_somewhere()
            self._client = Client(self.address, timeout=_READY_S, set_as_default=False)
            self._await_whole()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all of it and delete its files. Idempotent."""
        try:
            if self._client is not None:
                self._client.close(timeout=_STOP_S)
        finally:
            for process in (self._workers, self._scheduler):
                if process is not None:
                    process.end(patience_s=0.0)
            self._scratch.__exit__(None, None, None)

    def _start_somewhere(self) -> None:
        """Others may take a port between its choice and its use: that of a connection is taken for a moment only."""
        for left in reversed(range(_PORT_TRIES)):
            self._port = _free_port()
            try:
                self._start()
            except RuntimeError:
                if not left:
                    raise
                assert self._workers is not None
                self._workers.end(patience_s=0.0)
            else:
                return

    def _start(self) -> None:
        """The scheduler, and workers that wait for it."""
        directory = str(self._directory)
        self._scheduler = self._started("scheduler", str(self._port))
        self._workers = self._started("workers", self.address, str(self._size), str(self._threads), directory)
        self._scheduler.await_ready(_READY_S)
        self._workers.await_ready(_READY_S)

    def _started(self, *arguments: str) -> _Process:
        assert self._directory is not None
        return _Process(self._directory / f"{arguments[0]}.log", *arguments)

    def _await_whole(self) -> None:
        deadline = time.monotonic() + _READY_S
        while not self.is_whole:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster at {self.address} was not whole after {_READY_S:.0f} s")
            time.sleep(_POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Process:
    """One process that runs `_PROGRAM`."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the harness
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def await_ready(self, patience_s: float) -> None:
        """Wait for its first line.

        Raises:
            RuntimeError: it did not come up.
        """
        output = self._process.stdout
        assert output is not None
        line = output.readline() if wait([output.fileno()], patience_s) else b""
        if not line:
            self.kill()
            log = self._log.read_text(errors="replace").splitlines()[-5:]
            raise RuntimeError("a Dask process did not start; its log ends: " + " | ".join(log or ["(it is empty)"]))

    def kill(self) -> None:
        """End it, and wait for its own processes to be gone too: they hold the other end of its output."""
        self._process.kill()
        self._process.wait()
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + _STOP_S
        while not output.closed and wait([output.fileno()], max(0.0, deadline - time.monotonic())):
            if not os.read(output.fileno(), 65536):
                output.close()

    def end(self, *, patience_s: float) -> None:
        """Wait for it to end by itself, for so long; then kill it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self.kill()
