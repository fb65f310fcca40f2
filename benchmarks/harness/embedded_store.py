"""An embedded store under faults of storage: its directory, and a process that calls in the driver's stead.

It is the caller of such a store who writes the files.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness import scratch
from benchmarks.harness.driver_processes import DriverProcess
from benchmarks.harness.durable_files import Lost
from benchmarks.harness.sync_watch import SyncWatch
from strategies.interface import Caller, Capabilities, Resource


class EmbeddedStore:
    """Files, and who writes them. With `watched`, what it synced is known. Use as a context manager."""

    directory: Path
    driver: DriverProcess
    """Opens the bank and calls it."""

    def __init__(self, *, watched: bool) -> None:
        self._watched = watched
        self._watch: SyncWatch | None = None

    @property
    def runs(self) -> bool:
        """Whether the process that writes does."""
        return self.driver.runs

    @property
    def pid(self) -> int:
        """Of that process."""
        return self.driver.pid

    def await_synced(self) -> None:
        """As if the kernel had written all back by now, as it does within half a minute. Nobody writes meanwhile."""
        assert self._watch is not None
        self._watch.settle()

    def lose_power(self) -> Lost:
        """SIGKILL, and what was never synced is gone from the directory. Only where it is watched."""
        assert self._watch is not None
        self.driver.kill()
        return self._watch.lose()

    def start(self) -> None:
        """Another process takes the place of the one that is gone."""
        self.driver = self._stack.enter_context(DriverProcess())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = stack.enter_context(scratch.directory("files"))
            if self._watched:
                self._watch = stack.enter_context(SyncWatch(self.directory))
            self.driver = stack.enter_context(DriverProcess(self._watch))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def out_of_reach(claims: Capabilities, caller: Caller) -> str | None:
    """Why no such process can stand in for those who write its files; None if one can."""
    if Resource.DIRECTORY not in claims.needs:
        return "its state is in memory only"
    if caller is Caller.TASK or Resource.DASK in claims.needs:
        return "its files are written by Dask workers, which are not started under a watch"
    return None
