"""The command line as a process of its own, watched: its output, its end, and what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 10.0
"""How long a process may take to be gone after its parent."""


# `python -m benchmarks` with one worker in place of four: it is ready in half the time.
_ONE_WORKER = """
import functools
from benchmarks.harness import cli
cli.Environment = functools.partial(cli.Environment, workers=1)
cli.app()
"""


class Command:
    """One command, in a process group of its own as a terminal gives it one."""

    def __init__(self, *arguments: str | Path, scratch: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DASK")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ONE_WORKER, *map(str, arguments)],
            cwd=ROOT,
            env=environment | {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.scratch = scratch
        self.started: set[psutil.Process] = set()
        """Every process that descended from it, equal only by pid and create time."""
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self) -> None:
        parent = psutil.Process(self._process.pid)
        while not self._ended.wait(0.05):
            with suppress(psutil.NoSuchProcess):
                self.started.update(parent.children(recursive=True))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C: to the whole group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def finish(self, timeout_s: float) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        out, err = self._process.communicate(timeout=timeout_s)
        self._ended.set()
        self._watcher.join()
        return self._process.returncode, out, err

    def await_lines(self, out: Path, lines: int, timeout_s: float = 40.0) -> Path:
        """Wait until the run below `out` has recorded so many trials; returns its folder."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for path in out.glob("*/trials.jsonl"):
                if path.read_text().count("\n") >= lines:
                    return path.parent
            assert self.running, self.finish(1)
            time.sleep(0.01)
        raise AssertionError(f"no {lines} trials were recorded within {timeout_s} s")

    def names(self) -> list[str]:
        """Of the processes that run now."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found.append(process.name())
        return found

    def survivors(self) -> list[psutil.Process]:
        """What it started and is still there, after some patience."""
        deadline = time.monotonic() + GONE_S
        while time.monotonic() < deadline and any(map(is_alive, self.started)):
            time.sleep(0.05)
        return [process for process in self.started if is_alive(process)]

    def scratch_left(self) -> list[str]:
        return [path.name for path in self.scratch.glob("dask-state-bench-*")]

    def end(self) -> None:
        """Whatever happened in the test."""
        self._ended.set()
        self._watcher.join()
        with suppress(ProcessLookupError):
            self._process.kill()
        for process in filter(is_alive, self.started):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def command(*arguments: str | Path, scratch: Path) -> Iterator[Command]:
    running = Command(*arguments, scratch=scratch)
    try:
        yield running
    finally:
        running.end()


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not: whoever adopted it has not looked yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
