"""Coalescing: operations queue while a batch is in flight, and leave together when it returns."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence

from strategies.interface.account import MAX_BATCH, Answer, Context, Function, Operation, OpId
from strategies.interface.errors import AccountError, Indeterminate, Unavailable
from strategies.support import futures
from strategies.support.futures import Promise, resolve
from strategies.support.validation import MAX_NUMBER, check_op_id, whole_amount

Send = Callable[[list[Operation], float], Sequence[Answer]]
"""Applies a batch and returns its answers by position, or raises the AccountError that all of its operations
share. It may block, but returns by the deadline, a reading of `time.monotonic()`."""

_LINGER_S = 1.0
"""An idle thread ends after this long: it would keep the handle alive, and a new one starts in 0.1 ms."""

_ENOUGH = 0.75
"""Of the operations that came during a batch lately. Who waits for answers in order sends on by fits and starts: each
handful would be a message of its own, so the thread waits for more."""

_GATHERING_S = 0.02
"""It waits at most so long, and never longer than the last batch took."""

_NOBODY_WAITS = sys.maxsize

_GUARD_S = 0.5
"""How much later than its deadline a batch may return while `close` waits for it."""

_LEAST_LEFT = 0.1
"""The part of its timeout that an operation must have left to be sent. A batch has the deadline of its oldest
operation, so one with hardly any time left would make all of them indeterminate."""

_new_promise = object.__new__  # half of the time of `Promise()`
_CLOSED = "this handle is closed; open another"
_TRANSFER = Function.TRANSFER.value
_FUNCTIONS = frozenset(function.value for function in Function)


class Coalescer:
    """One queue of operations to one owner, and the thread that sends it: batch by batch, first in, first out.

    Every operation ends within `timeout_s`: as `send` says, or `Unavailable` if it was never sent, or
    `Indeterminate` if it was and nobody knows. At most `queue_limit` operations wait and `max_batch` are in
    flight, so memory is bounded whatever the owner does.

    The thread starts with the first operation and ends with `close`, or after a second without work; then the
    garbage collector can take an abandoned handle. A forked child starts one of its own; there, what the parent
    submitted is `Indeterminate`. Not for pickling: where a handle arrives it makes another.

    Callbacks of futures run in the thread, so none of them waits for room in the queue, which only the thread
    could make.
    """

    def __init__(
        self, send: Send, *, timeout_s: float, queue_limit: int, blocks: bool, max_batch: int = MAX_BATCH
    ) -> None:
        """`blocks`: where the queue is full, wait for room up to the timeout; else raise at once."""
        self._send = send
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._blocks = blocks
        self._max_batch = max_batch
        self._is_closed = False
        self._checked_session = ""
        self._begin()
        _coalescers.add(self)

    @classmethod
    def of(cls, context: Context, send: Send, *, max_batch: int = MAX_BATCH) -> Coalescer:
        """With the timeout and the limits in the context."""
        return cls(
            send,
            timeout_s=context.timeout_s,
            queue_limit=context.queue_limit,
            blocks=context.submit_blocks,
            max_batch=max_batch,
        )

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._wanted = _NOBODY_WAITS
        """For how many operations the thread waits."""
        self._expected = 0
        """Operations that came during a batch, lately: what is known of how many will."""
        self._took_s = 0.0
        """The last batch, there and back."""
        self._promises: list[Promise] = []
        self._operations: list[Operation] = []
        self._deadlines: list[float] = []  # rising
        self._in_flight: list[Promise] = []
        self._deadline_in_flight = 0.0

    def submit(self, operation: Operation) -> Promise:
        """Queue the operation.

        Raises:
            TypeError, ValueError: an argument is of the wrong type, or an op id out of range.
            Unavailable: the queue is full, or the handle is closed.
        """
        function, account, amount, target, op_id = operation
        if not (
            type(op_id) is OpId
            and op_id[0] is self._checked_session
            and type(op_id[1]) is int
            and 0 <= op_id[1] <= MAX_NUMBER
            and type(function) is Function
            and type(account) is str
            and type(amount) is int
            and (target is None or type(target) is str)
        ):
            self._check(operation)
        promise = _new_promise(Promise)
        self._lock.acquire()  # by hand: `with` takes twice as long
        try:
            if self._thread is None or self._is_closed or len(self._promises) >= self._queue_limit:
                self._await_turn()
            self._promises.append(promise)
            self._operations.append(operation)
            self._deadlines.append(time.monotonic() + self._timeout_s)
            if len(self._promises) >= self._wanted:
                self._wanted = _NOBODY_WAITS
                self._work.notify()
        finally:
            self._lock.release()
        return promise

    def await_idle(self, deadline: float) -> bool:
        """Wait until nothing waits and nothing is in flight; whether that came before the deadline."""
        with self._lock:
            while self._promises or self._in_flight:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._room.wait(remaining_s)
            return True

    def close(self) -> None:
        """End every operation: what was never sent at once, what is in flight by its deadline. Idempotent."""
        with self._lock:
            self._is_closed = True
            never_sent, self._promises, self._operations, self._deadlines = self._promises, [], [], []
            thread, in_flight, deadline = self._thread, self._in_flight, self._deadline_in_flight
            self._work.notify_all()
            self._room.notify_all()
        _resolve_all(never_sent, Unavailable("the handle was closed before this was sent; send it by another"))
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()) + _GUARD_S)
            self._land(in_flight, Indeterminate("there was no answer in time; send it again with its op id"))
        self._send = _refuse  # a handle's method: the two would keep each other until garbage is collected

    def _check(self, operation: Operation) -> None:
        """What `Batched.apply` would check: in a batch it would spoil its neighbours."""
        function, account, amount, target, op_id = operation
        if function not in _FUNCTIONS:
            raise ValueError(f"{function!r} is no function; use one of {', '.join(sorted(_FUNCTIONS))}")
        _check_text(account)
        if function == _TRANSFER:
            _check_text(target)
        whole_amount(amount)
        if op_id is not None:
            check_op_id(op_id)
            self._checked_session = op_id[0]

    def _await_turn(self) -> None:
        """Return, still holding the lock, when there is room in the queue and a thread that will come for it."""
        can_wait = self._blocks and threading.current_thread() is not self._thread
        deadline = time.monotonic() + self._timeout_s
        while not self._is_closed and len(self._promises) >= self._queue_limit:
            remaining_s = deadline - time.monotonic()
            if not can_wait or remaining_s <= 0:
                raise Unavailable(f"{self._queue_limit} operations wait already; send it again when some have ended")
            self._room.wait(remaining_s)
        if self._is_closed:
            raise Unavailable(_CLOSED)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="coalescer", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise Unavailable(f"no thread could be started: {error}; send it again when fewer run") from error
            self._thread = thread

    def _run(self) -> None:
        while (taken := self._take()) is not None:  # ends with `close`, or without work
            promises, operations, deadline = taken
            answers: Sequence[Answer] | AccountError
            begin = time.monotonic()
            try:
                answers = self._send(operations, deadline)
                if len(answers) != len(operations):
                    answers = Indeterminate(
                        f"{len(operations)} operations got {len(answers)} answers; send them again with their op ids"
                    )
            except AccountError as error:
                answers = error
            except BaseException as error:
                answers = Indeterminate(f"sending failed: {error!r}; send it again with its op id")
                answers.__cause__ = error
            self._took_s = time.monotonic() - begin
            self._land(promises, answers)
            del taken, promises, operations, answers  # an idle thread keeps nothing alive

    def _take(self) -> tuple[list[Promise], list[Operation], float] | None:
        """The next batch; waits for one. None where the thread is to end."""
        while True:  # as long as all that was taken is late
            with self._lock:
                if not self._promises:
                    self._await_work(1, _LINGER_S)
                self._await_work(int(self._expected * _ENOUGH), min(self._took_s, _GATHERING_S))
                if not self._promises:
                    self._thread = None
                    return None
                late = bisect_left(self._deadlines, time.monotonic() + _LEAST_LEFT * self._timeout_s)
                expired, promises = self._promises[:late], self._promises[late : late + self._max_batch]
                taken = late + len(promises)
                operations = self._operations[late:taken]
                if promises:
                    self._in_flight, self._deadline_in_flight = promises, self._deadlines[late]
                    self._expected = max(len(promises), self._expected // 2)
                del self._promises[:taken], self._operations[:taken], self._deadlines[:taken]
                self._room.notify_all()
                deadline = self._deadline_in_flight
            _resolve_all(expired, Unavailable("its time ran out in the queue; send it again"))
            if promises:
                return promises, operations, deadline

    def _await_work(self, operations: int, patience_s: float) -> None:
        """Return, still holding the lock, when so many wait, or none will come, or the time is up."""
        if len(self._promises) < operations and not self._is_closed:
            self._wanted = operations
            self._work.wait(patience_s)
            self._wanted = _NOBODY_WAITS

    def _land(self, promises: list[Promise], answers: Sequence[Answer] | AccountError) -> None:
        """End a batch, unless somebody else did."""
        with self._lock:
            if self._in_flight is not promises:
                return
            self._in_flight = []
            self._room.notify_all()
        if isinstance(answers, AccountError):
            _resolve_all(promises, answers)
        else:
            resolve(promises, answers)


def _refuse(operations: list[Operation], deadline: float) -> Sequence[Answer]:
    raise Unavailable(_CLOSED)


def _check_text(account: object) -> None:
    if not isinstance(account, str):
        raise TypeError(f"an account id is a str, not {type(account).__name__}")


def _resolve_all(promises: Sequence[Promise], error: AccountError) -> None:
    """Each gets an error of its own: raising one adds to its traceback."""
    resolve(promises, [_copy(error) for _ in promises])


def _copy(error: AccountError) -> AccountError:
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


_coalescers: weakref.WeakSet[Coalescer] = weakref.WeakSet()


def _after_fork() -> None:
    """The parent's threads do not exist in the child, and their locks may be held for ever."""
    for coalescer in list(_coalescers):
        orphans = [*coalescer._in_flight, *coalescer._promises]
        coalescer._begin()
        futures.abandon(orphans)
        _resolve_all(orphans, Indeterminate("this process was forked from the one that sent it, and hears no answer"))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
