"""Processes beside the driver that offer load, each with a Dask client of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

import cloudpickle

from benchmarks.harness import launch
from benchmarks.harness.sync_watch import SyncWatch
from strategies.interface import AccountExists, Context, Unavailable, load

_PROGRAM = """
import os, queue, threading, time
import cloudpickle
calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
inbox = queue.SimpleQueue()
def read():
    while size := int.from_bytes(calls.read(8), "big"):
        inbox.put(calls.read(size))
    inbox.put(None)
    time.sleep(1)
    os._exit(1)  # whatever is still being called: nobody waits for its answer
threading.Thread(target=read, daemon=True).start()
while call := inbox.get():
    try:
        function, arguments = cloudpickle.loads(call)
        answer = cloudpickle.dumps((True, function(*arguments)))
    except BaseException as error:
        answer = cloudpickle.dumps((False, f"{type(error).__name__}: {error}"))
    answers.write(len(answer).to_bytes(8, "big") + answer)
    answers.flush()
"""
"""Calls what it is sent, until its input ends: with the harness, however that ends, in the middle of a call too."""

_GOODBYE_S = 10.0
_PATIENCE_S = 120.0


class DriverFailed(RuntimeError):
    """What a driver process was to do raised, or the process is gone."""


class DriverProcess:
    """One such process; its syncs are answered by the `watch`, if there is one. Use as a context manager."""

    def __init__(self, watch: SyncWatch | None = None) -> None:
        launched = [] if watch is None else launch.command(handover=watch.handover)
        # A session of its own: Ctrl-C in a terminal is the harness's to handle.
        self._process = subprocess.Popen(
            [*launched, sys.executable, "-c", _PROGRAM],
            pass_fds=() if watch is None else (watch.handover,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if watch is not None:
            watch.close_handover()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it can be sent anything."""
        return self._process.poll() is None

    def send(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it call the function, which travels by value where workers could not import it.

        Raises:
            DriverFailed: the process is gone.
        """
        payload = cloudpickle.dumps((function, arguments))
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(payload).to_bytes(8, "big") + payload)
            self._process.stdin.flush()
        except OSError as error:
            raise DriverFailed(f"driver process {self.pid} is gone") from error

    def answer(self, patience_s: float = _PATIENCE_S) -> Any:
        """Wait for what the function returned; after `patience_s` the process is killed.

        Raises:
            DriverFailed: it raised, or did not return, or the process is gone.
        """
        assert self._process.stdout is not None
        if not wait([self._process.stdout.fileno()], patience_s):
            self._process.kill()
            raise DriverFailed(f"driver process {self.pid} did not answer within {patience_s:g} s")
        size = int.from_bytes(self._process.stdout.read(8), "big")
        payload = self._process.stdout.read(size)
        if not size or len(payload) < size:
            raise DriverFailed(f"driver process {self.pid} is gone")
        well, answer = cloudpickle.loads(payload)
        if not well:
            raise DriverFailed(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # it was gone already
            self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._process.kill()  # Ctrl-C does not wait for a load to end
        self.close()


def connect(scheduler: str) -> None:
    """In the driver process: be a Dask client."""
    from distributed import Client

    Client(scheduler)


def open_bank(
    strategy: str, context: Context, scheduler: str | None, openings: Mapping[str, int], patience_s: float
) -> None:
    """In the driver process: attach to the bank, open these accounts, and keep the handle for `call_bank`.

    The context's deadline may be short for a fault's sake: what needs longer on a busy machine has `patience_s`.
    """
    from distributed import Client

    import __main__

    kind = load(strategy)
    context = replace(context, client=None if scheduler is None else Client(scheduler))
    with kind.open(replace(context, timeout_s=patience_s)) as unhurried:
        for account, opening in openings.items():
            with suppress(AccountExists):
                unhurried.open_account(account, opening)
    deadline = time.monotonic() + patience_s
    while True:  # ends with its patience
        try:
            __main__.bank = kind.open(context)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        else:
            return


def call_bank(function: Callable[..., Any], *arguments: object) -> Any:
    """In the driver process: call the function with the handle that it has opened."""
    import __main__

    return function(__main__.bank, *arguments)


# It goes to processes that cannot import `benchmarks`.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
