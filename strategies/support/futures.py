"""Futures that cost little: made without a lock of their own, and resolved a batch at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, RUNNING
from typing import Any

from strategies.interface.account import Answer, Receipt
from strategies.interface.errors import AccountError

_RECEIPTS = frozenset({Receipt, tuple})

_lock = threading.Lock()
"""Guards how every `Promise` ends against whoever starts to wait for it. Nothing else is locked while it is held."""


class Promise(Future[Any]):
    """What an operation will have come to. Usable wherever a `concurrent.futures.Future` is, and in `await`.

    It cannot be cancelled: an operation that was accepted ends by its deadline in one of the fates.

    A plain Future makes a Condition and two lists when it is made, which takes longer than all else that is
    done with it (docs/performance.md). Here they come to be when somebody waits for this one future.
    """

    # A running future cannot be cancelled, and is asked for nothing else until it has ended.
    _state: str = RUNNING
    _result: Any = None
    _exception: BaseException | None = None
    _done_callbacks: Any = ()
    _is_watched = False

    def __init__(self) -> None:
        """Sets nothing: all of it is in the class until it changes."""

    def __getattr__(self, name: str) -> Any:
        """Make what Future's own methods wait with; they ask for `_condition` before anything else."""
        if name != "_condition":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _lock:
            if not self._is_watched:
                self._waiters: list[Any] = []
                self._is_watched = True
                self._condition = threading.Condition()
        return self._condition

    def done(self) -> bool:
        return self._state == FINISHED

    def running(self) -> bool:
        return self._state != FINISHED

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state == FINISHED:
            return self._exception
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        with _lock:
            if self._state != FINISHED:
                self._done_callbacks = (*self._done_callbacks, fn)
                return
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


def resolve(promises: Sequence[Promise], answers: Sequence[Answer]) -> None:
    """End each promise by the answer in its place, then run their callbacks here. None may have ended before."""
    watched: list[tuple[Promise, Answer]] = []
    called: list[Promise] = []
    with _lock:
        for promise, answer in zip(promises, answers, strict=True):
            if promise._is_watched:
                watched.append((promise, answer))
                continue
            if type(answer) in _RECEIPTS:
                promise._result = answer
            else:
                promise._exception = answer  # type: ignore[assignment]
            promise._state = FINISHED
            if promise._done_callbacks:
                called.append(promise)
    for promise, answer in watched:
        if isinstance(answer, AccountError):
            promise.set_exception(answer)
        else:
            promise.set_result(answer)
    for promise in called:
        promise._invoke_callbacks()


def abandon(promises: Sequence[Promise]) -> None:
    """In a forked child: forget who waits for them in the parent."""
    global _lock
    _lock = threading.Lock()
    for promise in promises:
        promise._done_callbacks = ()
        promise._is_watched = False
        promise.__dict__.pop("_condition", None)
