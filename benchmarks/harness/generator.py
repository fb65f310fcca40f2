"""One process's part of a load: its clients' threads call, wait and write down, in a closed or an open loop.

Sent by value to processes that cannot import the ruler, so it imports of it `history` and `journal` alone.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from benchmarks.harness import history, journal
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
)
from strategies.interface import (
    AccountError,
    Accounts,
    Answer,
    Batched,
    Function,
    Indeterminate,
    Operation,
    OpId,
    Pipelined,
    Receipt,
    Rejected,
    StateLost,
    Unavailable,
)

_LONGEST_WAIT_S = 5.0
"""Bound on waiting for the common start where clocks differ."""
_HEARTBEAT_S = 0.02
_SWITCH_S = 0.0005
_LONGEST_NAP_NS = 50_000_000
"""After which a client that waits looks whether it is to stop."""
_TIMER_SLACK = 29
"""`PR_SET_TIMERSLACK`: Linux rounds sleeps up by 50 µs unless told."""
_BACKOFF_S, _BACKOFF_MAX_S = 0.01, 0.16
"""Before an operation is sent again: doubled each time."""


class Retry(StrEnum):
    """What a caller does that was told that its operation did not, or may not, have happened; or that runs again."""

    NONE = "none"
    """Nothing: each operation is sent once at most."""
    NAIVE = "naive"
    """Send it again, as if for the first time."""
    OP_ID = "op_id"
    """Send it again with its op id."""


class CallerFailed(RuntimeError):
    """A calling task failed because it was told to."""


@dataclass(frozen=True)
class Client:
    """One client's operations, by position; they start again at their end."""

    index: int
    function: history.Int8s
    account: history.Int32s
    target: history.Int32s
    amount: history.Int64s


@dataclass(frozen=True)
class Share:
    """What one process offers. Times are seconds."""

    session: str
    """Of op ids: each client appends its index."""
    clients: tuple[Client, ...]
    seconds: float
    start_ns: int
    """A reading of `time_ns` at which all processes begin; other machines share it more or less."""
    capacity: int
    """Operations that one client records at most; it stops there."""
    due_s: tuple[history.Floats, ...] = ()
    """Open loop: when operations are due, from the start. One schedule for all clients, of which whoever is
    free takes the next, or one for each. None: each client calls again when it has its answer (closed loop)."""
    drain_s: float = 0.0
    """Open loop: how long after `seconds` late operations are still sent."""
    batch: int | None = None
    """Operations per call of `apply`; None for calls of their own."""
    window: int | None = None
    """Operations that each client has in flight by `submit`; None for one call at a time."""
    patience_s: float = 60.0
    """Longest that an operation in flight is waited for: far beyond any deadline."""
    account_format: str = "account-{}"
    account_names: Mapping[int, str] = field(default_factory=dict)
    """Of accounts that are named otherwise."""
    process: int = 0
    """Among those that share the load."""
    journal: str | None = None
    """Directory for what each client does, in place of columns in memory: its clients may die, and be run again.
    Only for open loops of single calls, in which every client has a schedule of its own."""
    retry: Retry = Retry.NONE
    goes_on: bool = False
    """Whether a client that is run again goes on behind its last answered operation, not from its beginning."""
    fail_after_s: float | None = None
    """When the process's first life ends by an exception, after a call."""


class Part(NamedTuple):
    """What came of a share."""

    columns: list[dict[str, Any]]
    """A client each: those of `History`."""
    cpu_s: float
    """Processor time of this process meanwhile, everything in it included."""
    wall_s: float
    stood_still_s: float
    """Longest time for which a thread that only sleeps was not woken."""
    stopped_full: int
    """Clients that stopped at their capacity."""
    late_s: float = 0.0
    """How long after the share's `start_ns` its clients began."""
    clock_ns: int = 0
    """What `time_ns` showed beyond `perf_counter_ns`: the same in all processes of one machine, more or less."""


def generate_by_copy(accounts: Accounts | bytes, share: Share) -> Part:
    """As `generate`, by a handle that came here in a message: nobody else would close its connections."""
    handle: Accounts = cloudpickle.loads(accounts) if isinstance(accounts, bytes) else accounts
    with handle:
        return generate(handle, share)


def generate(
    accounts: Accounts,
    share: Share,
    given_up: list[bool] | None = None,
    begun: threading.Event | None = None,
) -> Part:
    """Run the share's clients, each in a thread of its own, until their time is over or `given_up` holds anything."""
    start = _Start([] if given_up is None else given_up)
    names = _names(share)
    schedules = [_Schedule(due_s) for due_s in share.due_s]
    with _prompt_switches(open_loop=bool(share.due_s)), ThreadPoolExecutor(len(share.clients)) as threads:
        try:
            running = [
                threads.submit(
                    _run,
                    accounts,
                    share,
                    client,
                    names,
                    schedules[place % len(schedules)] if schedules else None,
                    start,
                )
                for place, client in enumerate(share.clients)
            ]
            for _ in running:
                start.ready.acquire(timeout=share.patience_s)
            time.sleep(max(0.0, min((share.start_ns - time.time_ns()) / 1e9, _LONGEST_WAIT_S)))
            late_s = max(0.0, (time.time_ns() - share.start_ns) / 1e9)
            cpu_s = time.process_time()
            start.begin_ns = time.perf_counter_ns() if share.journal is None else _agreed_start_ns(share)
            start.go.set()
            if begun is not None:
                begun.set()
            stood_still_s = _watch(running)
        except BaseException:
            start.stop.append(True)  # else Ctrl-C would wait for the load to end
            start.go.set()
            raise
        cpu_s, wall_s = time.process_time() - cpu_s, (time.perf_counter_ns() - start.begin_ns) / 1e9
        found = [future.result() for future in running]  # the first that raised stopped the others
    columns = [each for each in found if each is not None]
    full = sum(len(each["number"]) >= share.capacity for each in columns)
    return Part(columns, cpu_s, wall_s, stood_still_s, full, late_s, time.time_ns() - time.perf_counter_ns())


def timed_in_turn(accounts: Accounts, share: Share, *, record: bool = True) -> tuple[float, float]:
    """Seconds that the share's first client takes for all of its operations, and of these in calls.

    Without `record` nothing is written down, and the second figure is 0.
    """
    client = share.clients[0]
    recorder = _Recorder(client, share)
    calls = _Calls(accounts, recorder, _names(share))
    loop = calls.in_turn if record else calls.in_turn_unrecorded
    begin_ns = time.perf_counter_ns()
    loop(share.capacity, begin_ns + int(share.seconds * 1e9), [])
    wall_s = (time.perf_counter_ns() - begin_ns) / 1e9
    columns = recorder.columns()
    return wall_s, float((columns["done_ns"] - columns["sent_ns"]).sum()) / 1e9


class _Start:
    """When clients begin, all together, and whether they are to stop early."""

    def __init__(self, stop: list[bool]) -> None:
        self.stop = stop
        self.ready = threading.Semaphore(0)
        self.go = threading.Event()
        self.begin_ns = 0

    def wait(self) -> int:
        """Be ready; returns the reading of `perf_counter_ns` from which times count."""
        self.ready.release()
        self.go.wait()
        return self.begin_ns


def _agreed_start_ns(share: Share) -> int:
    """The start that all lives of all clients have in common, as a reading of this process's `perf_counter_ns`."""
    return share.start_ns - (time.time_ns() - time.perf_counter_ns())


def _names(share: Share) -> dict[int, str]:
    used = np.unique(np.concatenate([np.concatenate([each.account, each.target]) for each in share.clients]))
    formatted = {index: share.account_format.format(index) for index in used.tolist() if index >= 0}
    return formatted | dict(share.account_names)


@contextmanager
def _prompt_switches(*, open_loop: bool) -> Iterator[None]:
    """Open loop: let a client that is due have the interpreter sooner than 5 ms after it asks for it.

    Lateness of free clients fell from 2.4 to 0.9 ms at the p99. A closed loop has what its users have.
    """
    usual_s = sys.getswitchinterval()
    if open_loop:
        sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


def _watch(running: list[Future[Any]]) -> float:
    """Wait for all of them; returns the longest time for which this thread, that only waits, was not woken."""
    longest_s = 0.0
    while True:
        begin_s = time.perf_counter()
        waiting = wait(running, timeout=_HEARTBEAT_S).not_done
        longest_s = max(longest_s, time.perf_counter() - begin_s - _HEARTBEAT_S)
        if not waiting:
            return longest_s


class _Schedule:
    """Due times, of which each is taken by one client: `count` gives every place once, across threads."""

    def __init__(self, due_s: history.Floats) -> None:
        self.due_ns = (due_s * 1e9).astype(np.int64).data
        self.count = itertools.count()

    def __len__(self) -> int:
        return len(self.due_ns)


def _run(
    handle: Accounts,
    share: Share,
    client: Client,
    names: dict[int, str],
    schedule: _Schedule | None,
    start: _Start,
) -> dict[str, Any] | None:
    try:
        if share.journal is not None:
            assert schedule is not None
            _journaled(handle, share, client, names, schedule, start)
            return None
        return _recorded(handle, share, client, names, schedule, start)
    except BaseException:
        start.stop.append(True)  # nobody will read what the others still do
        start.ready.release()
        raise


def _recorded(
    handle: Accounts,
    share: Share,
    client: Client,
    names: dict[int, str],
    schedule: _Schedule | None,
    start: _Start,
) -> dict[str, Any]:
    _exact_timers()
    recorder = _Recorder(client, share)
    calls = _Calls(handle, recorder, names)
    begin_ns = start.wait()
    end_ns = begin_ns + int(share.seconds * 1e9)
    if schedule is None:
        turns = _closed_loop(share.capacity, end_ns, start.stop)
    else:
        turns = _open_loop(schedule, share.capacity, begin_ns, end_ns + int(share.drain_s * 1e9), start.stop)
    if share.batch is not None:
        calls.in_batches(turns, share.batch)
    elif share.window is not None:
        calls.ahead(turns, share.window, share.patience_s, start.stop)
    elif schedule is None:
        calls.in_turn(share.capacity, end_ns, start.stop)
    else:
        calls.when_due(turns)
    return recorder.columns()


def _journaled(
    handle: Accounts, share: Share, client: Client, names: dict[int, str], schedule: _Schedule, start: _Start
) -> None:
    """An open loop that sends again what was not answered; what it did is in its journal."""
    _exact_timers()
    assert share.journal is not None
    longest_s = share.seconds + share.drain_s
    written = journal.Journal(share.journal, client.index, len(schedule) + int(longest_s / _BACKOFF_S) + 1)
    begin_ns = start.wait()
    if written.lives_before and share.retry is Retry.NONE and not share.goes_on:
        return
    first = written.answered_before + 1 if share.goes_on else 0
    end_ns = begin_ns + int(longest_s * 1e9)
    fail_ns = None if share.fail_after_s is None or written.lives_before else begin_ns + int(share.fail_after_s * 1e9)
    session = f"{share.session}-{client.index}"
    for number, due in _open_loop(schedule, len(schedule), begin_ns, end_ns, start.stop):
        if journal.ended(share.journal):
            return
        if number < first or (share.retry is Retry.NONE and written.attempts(number)):
            continue
        _until_answered(handle, share, client, names, written, session, number, due, end_ns, start.stop)
        if fail_ns is not None and time.perf_counter_ns() >= fail_ns:
            raise CallerFailed("the calling task fails after its call, as the fault wants it")


def _until_answered(
    handle: Accounts,
    share: Share,
    client: Client,
    names: dict[int, str],
    written: journal.Journal,
    session: str,
    number: int,
    due: int,
    end_ns: int,
    stop: list[bool],
) -> None:
    at = number % len(client.function)
    operation = (int(client.function[at]), int(client.account[at]), int(client.target[at]), int(client.amount[at]))
    op_id = None if share.retry is Retry.NAIVE else OpId(session, number)
    attempt, backoff_s = written.attempts(number), _BACKOFF_S
    while not written.full:
        fate = send(handle, names, operation, op_id, written, (number, attempt), due)
        may_be_sent_again = share.retry is not Retry.NONE and fate in (UNAVAILABLE, UNKNOWN)
        if (
            not may_be_sent_again
            or stop
            or journal.ended(written.directory)
            or time.perf_counter_ns() + int(backoff_s * 1e9) >= end_ns
        ):
            return
        time.sleep(backoff_s)
        attempt, backoff_s = attempt + 1, min(2 * backoff_s, _BACKOFF_MAX_S)


def send(
    handle: Accounts,
    names: Mapping[int, str],
    operation: tuple[int, int, int, int],
    op_id: OpId | None,
    written: journal.Journal,
    place: tuple[int, int],
    due_ns: int,
) -> int:
    """Call once, with the journal written before and after it; returns the fate.

    The operation is (function, account, target, amount), its place (number, attempt).
    """
    function, account, target, amount = operation
    name = names[account]
    row = written.begin(*place, op_id is not None, operation, due_ns, time.perf_counter_ns())
    answer: Any
    try:
        if function == BALANCE:
            answer = handle.balance(name)
        elif function == DEPOSIT:
            answer = handle.deposit(name, amount, op_id=op_id)
        elif function == TRANSFER:
            answer = handle.transfer(name, names[target], amount, op_id=op_id)
        else:
            answer = handle.withdraw(name, amount, op_id=op_id)
    except Exception as error:
        fate = _fate_of(error)
        written.failed(row, fate, _reason_of(error), time.perf_counter_ns())
        return fate
    written.answered(row, answer, time.perf_counter_ns())
    return OK


class _Recorder:
    """A client's columns, allocated ahead: the system gives memory when a page is first written."""

    def __init__(self, client: Client, share: Share) -> None:
        self.client = client
        self.process = share.process
        self.session = f"{share.session}-{client.index}"
        self.size = 0
        self.open_loop = bool(share.due_s)
        capacity = share.capacity
        self._sent, self._done = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        self._due = np.empty(capacity, np.int64) if self.open_loop else self._sent
        self._place = np.empty(capacity, np.int32) if self.open_loop else None
        self._fate = np.zeros(capacity, np.int8)
        self._reason = np.zeros(capacity, np.int8)
        # Zeros where there is no receipt.
        self._receipt = (np.zeros(capacity, np.int32), np.zeros(capacity, np.int64), np.zeros(capacity, np.int64))
        with_transfers = bool((client.function == TRANSFER).any())
        self._target_receipt = (
            (np.zeros(capacity, np.int32), np.zeros(capacity, np.int64), np.zeros(capacity, np.int64))
            if with_transfers
            else None
        )
        # Assignment to a memoryview takes half the time of assignment to an array.
        self.due, self.sent, self.done, self.fate = self._due.data, self._sent.data, self._done.data, self._fate.data
        self.reason = self._reason.data
        self.place = self._place.data if self._place is not None else None
        self.seq, self.balance, self.epoch = (column.data for column in self._receipt)
        self.target_receipt = tuple(column.data for column in self._target_receipt or ())

    def answered(self, row: int, answer: Receipt | tuple[Receipt, Receipt]) -> None:
        """Write down a call's receipts."""
        receipt: Any = answer
        if isinstance(receipt[0], tuple):
            receipt, targets = receipt
            for column, value in zip(self.target_receipt, targets, strict=True):
                column[row] = value
        self.seq[row], self.balance[row], self.epoch[row] = receipt

    def failed(self, row: int, error: BaseException) -> None:
        """Write down that a call raised."""
        self.fate[row], self.reason[row] = _fate_of(error), _reason_of(error)

    def columns(self) -> dict[str, Any]:
        """What `History` is made of."""
        size, client = self.size, self.client
        place = np.arange(size, dtype=np.int32) if self._place is None else self._place[:size]
        at = place % np.int32(len(client.function))
        targets = self._target_receipt or tuple(np.broadcast_to(kind(0), size) for kind in _RECEIPT_KINDS)
        return {
            "process": np.broadcast_to(np.int16(self.process), size),
            "client": np.full(size, client.index, dtype=np.int16),
            "number": np.arange(size, dtype=np.int32),
            "attempt": np.broadcast_to(np.int16(0), size),
            "keyed": np.broadcast_to(np.bool_(True), size),
            "function": client.function[at],
            "account": client.account[at],
            "target": client.target[at],
            "amount": client.amount[at],
            "due_ns": self._due[:size],
            "sent_ns": self._sent[:size],
            "done_ns": self._done[:size],
            "fate": self._fate[:size],
            "reason": self._reason[:size],
            "seq": self._receipt[0][:size],
            "balance": self._receipt[1][:size],
            "epoch": self._receipt[2][:size],
            "target_seq": targets[0][:size],
            "target_balance": targets[1][:size],
            "target_epoch": targets[2][:size],
        }


_RECEIPT_KINDS = (np.int32, np.int64, np.int64)
_FUNCTIONS = (Function.BALANCE, Function.DEPOSIT, Function.WITHDRAW, Function.TRANSFER)


def _fate_of(error: BaseException) -> int:
    """What became of an operation that raised.

    Raises:
        BaseException: the same, where it is none of the interface's: nobody knows what happened.
    """
    if isinstance(error, Rejected):
        return REJECTED
    if isinstance(error, Unavailable):
        return UNAVAILABLE
    if isinstance(error, StateLost):
        return LOST
    if isinstance(error, Indeterminate):
        return UNKNOWN
    raise error


def _reason_of(error: BaseException) -> int:
    """Code of the rejection; 0 if it is none."""
    if not isinstance(error, Rejected):
        return 0
    names = (
        kind.__name__ for kind in type(error).__mro__
    )  # a strategy's own kind counts as the one it is derived from
    return next(REASONS.index(name) for name in names if name in REASONS)


def _closed_loop(capacity: int, end_ns: int, stop: list[bool]) -> Iterator[tuple[int, int]]:
    """Places in the plan, and 0 for a due time, until the time is over."""
    for place in range(capacity):
        if stop or time.perf_counter_ns() >= end_ns:
            return
        yield place, 0


def _open_loop(
    schedule: _Schedule, capacity: int, begin_ns: int, end_ns: int, stop: list[bool]
) -> Iterator[tuple[int, int]]:
    """Places in the plan with their due times, each yielded when it is due, or at once when that is past."""
    clock, due_ns, size = time.perf_counter_ns, schedule.due_ns, len(schedule)
    for place in itertools.islice(schedule.count, capacity):
        if place >= size:
            return
        due = begin_ns + due_ns[place]
        now = clock()
        if due > now:
            while due - now > _LONGEST_NAP_NS and not stop:
                time.sleep(_LONGEST_NAP_NS / 1e9)
                now = clock()
            time.sleep(max(0, due - now) / 1e9 if not stop else 0.0)
        elif now >= end_ns:
            return
        if stop:
            return
        yield place, due


class _Calls:
    """One client's calls, in each form that they can take."""

    def __init__(self, handle: Accounts, recorder: _Recorder, names: dict[int, str]) -> None:
        client = recorder.client
        self._handle = handle
        self._recorder = recorder
        # Lists: taking a value out of an array makes a new object each time.
        self._functions: list[int] = client.function.tolist()
        self._amounts: list[int] = client.amount.tolist()
        self._accounts = [names[index] for index in client.account.tolist()]
        self._targets = [names.get(index, "") for index in client.target.tolist()]

    def in_turn(self, capacity: int, end_ns: int, stop: list[bool]) -> None:
        """The closed loop, written out: what it does between two calls is what the ruler costs."""
        handle, recorder, session = self._handle, self._recorder, self._recorder.session
        deposit, withdraw, transfer, balance = handle.deposit, handle.withdraw, handle.transfer, handle.balance
        sent_at, done_at = recorder.sent, recorder.done
        seq_of, balance_of, epoch_of = recorder.seq, recorder.balance, recorder.epoch
        clock = time.perf_counter_ns
        plan = itertools.cycle(zip(self._functions, self._accounts, self._targets, self._amounts, strict=True))
        number = 0
        for number, (function, name, target, amount) in zip(range(capacity), plan, strict=False):
            sent = clock()
            if sent >= end_ns or stop:
                break
            try:
                if function == BALANCE:
                    seq_of[number], balance_of[number], epoch_of[number] = balance(name)
                elif function == DEPOSIT:
                    receipt = deposit(name, amount, op_id=(session, number))
                    seq_of[number], balance_of[number], epoch_of[number] = receipt
                elif function == TRANSFER:
                    recorder.answered(number, transfer(name, target, amount, op_id=(session, number)))
                else:
                    receipt = withdraw(name, amount, op_id=(session, number))
                    seq_of[number], balance_of[number], epoch_of[number] = receipt
            except Exception as error:
                recorder.failed(number, error)
            done_at[number] = clock()
            sent_at[number] = sent
        else:
            number = capacity
        recorder.size = number

    def in_turn_unrecorded(self, calls: int, end_ns: int, stop: list[bool]) -> None:
        """The closed loop without a history: what remains is not the cost of recording."""
        handle, session = self._handle, self._recorder.session
        deposit, withdraw, transfer, balance = handle.deposit, handle.withdraw, handle.transfer, handle.balance
        clock = time.perf_counter_ns
        plan = itertools.cycle(zip(self._functions, self._accounts, self._targets, self._amounts, strict=True))
        for number, (function, name, target, amount) in zip(range(calls), plan, strict=False):
            if clock() >= end_ns or stop:
                break
            if function == BALANCE:
                balance(name)
            elif function == DEPOSIT:
                deposit(name, amount, op_id=(session, number))
            elif function == TRANSFER:
                transfer(name, target, amount, op_id=(session, number))
            else:
                withdraw(name, amount, op_id=(session, number))

    def when_due(self, turns: Iterator[tuple[int, int]]) -> None:
        """The open loop: one call for each turn."""
        handle, recorder, session = self._handle, self._recorder, self._recorder.session
        functions, accounts, targets, amounts = self._functions, self._accounts, self._targets, self._amounts
        deposit, withdraw, transfer, balance = handle.deposit, handle.withdraw, handle.transfer, handle.balance
        clock, length = time.perf_counter_ns, len(functions)
        assert recorder.place is not None
        for number, (place, due) in enumerate(turns):
            at = place % length
            function, name = functions[at], accounts[at]
            answer: Any
            sent = clock()
            try:
                if function == BALANCE:
                    answer = balance(name)
                elif function == DEPOSIT:
                    answer = deposit(name, amounts[at], op_id=(session, number))
                elif function == TRANSFER:
                    answer = transfer(name, targets[at], amounts[at], op_id=(session, number))
                else:
                    answer = withdraw(name, amounts[at], op_id=(session, number))
                done = clock()
                recorder.answered(number, answer)
            except Exception as error:
                done = clock()
                recorder.failed(number, error)
            recorder.place[number] = place
            recorder.due[number], recorder.sent[number], recorder.done[number] = due, sent, done
            recorder.size = number + 1

    def in_batches(self, turns: Iterator[tuple[int, int]], batch: int) -> None:
        """Each call takes the next `batch` operations, which are sent and done together.

        In an open loop a batch is sent when its last operation is due: none is sent before its time.
        """
        handle, recorder, clock = self._handle, self._recorder, time.perf_counter_ns
        assert isinstance(handle, Batched)
        while taken := list(itertools.islice(turns, batch)):
            first = recorder.size
            operations = [self._operation(place, row) for row, (place, _) in enumerate(taken, start=first)]
            sent = clock()
            try:
                answers: list[Answer] | int = handle.apply(operations)
            except Exception as error:
                answers = _fate_of(error)
            done = clock()
            if not isinstance(answers, int) and len(answers) != len(operations):
                raise RuntimeError(f"a batch of {len(operations)} operations got {len(answers)} answers")
            for row, (place, due) in enumerate(taken, start=first):
                self._turn(row, place, due)
                recorder.sent[row], recorder.done[row] = sent, done
                answer = answers if isinstance(answers, int) else answers[row - first]
                if isinstance(answer, int):
                    recorder.fate[row] = answer
                elif isinstance(answer, AccountError):
                    recorder.failed(row, answer)
                else:
                    recorder.answered(row, answer)
            recorder.size = first + len(taken)

    def ahead(self, turns: Iterator[tuple[int, int]], window: int, patience_s: float, stop: list[bool]) -> None:
        """Have up to `window` operations in flight; each is done when its future is.

        What is in flight when it is to stop is left to itself: nobody knows what becomes of it.

        Raises:
            TimeoutError: one was not done within `patience_s`.
        """
        handle, recorder, clock = self._handle, self._recorder, time.perf_counter_ns
        assert isinstance(handle, Pipelined)
        done_at = recorder.done
        in_flight: deque[tuple[int, Future[Receipt]]] = deque()
        room = threading.Semaphore(window)

        def has_room() -> bool:
            deadline_s = time.monotonic() + patience_s
            while not room.acquire(timeout=min(_LONGEST_NAP_NS / 1e9, patience_s)):
                if stop:
                    return False
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"an operation that was submitted is not done after {patience_s:g} s")
            return True

        def note(row: int) -> Callable[[Future[Receipt]], None]:
            def done(_: Future[Receipt]) -> None:
                done_at[row] = clock()
                room.release()

            return done

        def write_down(row: int, future: Future[Receipt]) -> None:
            try:
                recorder.answered(row, future.result())
            except Exception as error:
                recorder.failed(row, error)

        for place, due in turns:
            if not has_room():
                break
            row = recorder.size
            operation = self._operation(place, row)
            self._turn(row, place, due)
            recorder.sent[row] = clock()
            try:
                future = handle.submit(operation)
            except Exception as error:
                recorder.failed(row, error)
                done_at[row] = clock()
                room.release()
            else:
                future.add_done_callback(note(row))
                in_flight.append((row, future))
            recorder.size = row + 1
            while in_flight and in_flight[0][1].done():
                write_down(*in_flight.popleft())
        all_done = all(has_room() for _ in range(window))
        for row, future in in_flight:
            if all_done or future.done():
                write_down(row, future)
            else:
                recorder.fate[row], done_at[row] = UNKNOWN, clock()

    def _operation(self, place: int, number: int) -> Operation:
        at = place % len(self._functions)
        return Operation(
            _FUNCTIONS[self._functions[at]],
            self._accounts[at],
            self._amounts[at],
            self._targets[at] or None,
            OpId(self._recorder.session, number),
        )

    def _turn(self, row: int, place: int, due: int) -> None:
        recorder = self._recorder
        if recorder.place is not None:
            recorder.due[row], recorder.place[row] = due, place


def _exact_timers() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_TIMER_SLACK, 1, 0, 0, 0)


# It goes to workers and driver processes that cannot import `benchmarks` (asv loads it by an importer of its own).
for _module in (sys.modules[__name__], history, journal):
    cloudpickle.register_pickle_by_value(_module)
