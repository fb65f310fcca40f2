"""What clients of one process do: which operations, when, and what is written down of each."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from typing import Any, ClassVar, Self, get_args

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import history as history_module
from benchmarks.harness.generator import Client, Part, Share, generate, generate_by_copy, timed_in_turn
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    OK,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
)
from benchmarks.harness.simulated import NoOp
from strategies.interface import (
    Accounts,
    Batched,
    Function,
    Indeterminate,
    InsufficientFunds,
    Operation,
    Pipelined,
    Receipt,
    Rejected,
    StateLost,
    Unavailable,
    UnknownAccount,
)

MS = 1_000_000
LONG_S = 1000.0
"""Longer than any test may take: a load that ends before was ended by something else."""

FORMS: dict[str, dict[str, Any]] = {
    "closed": {},
    "open": {"due_s": (np.linspace(0.0, 0.02, 300),)},
    "batch": {"batch": 7},
    "open batch": {"batch": 7, "due_s": (np.linspace(0.0, 0.02, 300),)},
    "window": {"window": 5},
    "open window": {"window": 5, "due_s": (np.linspace(0.0, 0.02, 300),)},
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))


def client(index: int, *operations: tuple[int, int, int, int]) -> Client:
    """One that makes these calls: (function, account, target, amount)."""
    function, account, target, amount = zip(*operations, strict=True)
    return Client(
        index, np.array(function, np.int8), np.array(account, np.int32), np.array(target, np.int32), np.array(amount)
    )


def deposits(index: int, count: int = 10) -> Client:
    """Deposits that can be told apart: account and amount rise."""
    return client(index, *((DEPOSIT, place % 3, -1, place + 1) for place in range(count)))


def share(*clients: Client, **changes: Any) -> Share:
    usual = Share("session", clients, seconds=LONG_S, start_ns=time.time_ns(), capacity=300, patience_s=LONG_S)
    return replace(usual, **changes)


def recorded(part: Part) -> History:
    return History.merged(part.columns)


class Book(NoOp, Batched, Pipelined):
    """Writes down its calls, in their order; `answer` says what becomes of each."""

    def __init__(self, answer: Callable[[Operation], Any] = lambda operation: Receipt(1, 0, 1)) -> None:
        self.calls: list[Operation] = []
        self.batches: list[int] = []
        self._answer = answer

    def _call(self, function: Function, account: str, amount: int, target: str | None, op_id: Any) -> Any:
        operation = Operation(function, account, amount, target, op_id)
        self.calls.append(operation)
        return self._answer(operation)

    def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
        receipt: Receipt = self._call(Function.DEPOSIT, account, amount, None, op_id)
        return receipt

    def withdraw(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
        receipt: Receipt = self._call(Function.WITHDRAW, account, amount, None, op_id)
        return receipt

    def transfer(self, source: str, target: str, amount: int, *, op_id: Any = None) -> tuple[Receipt, Receipt]:
        receipts: tuple[Receipt, Receipt] = self._call(Function.TRANSFER, source, amount, target, op_id)
        return receipts

    def balance(self, account: str) -> Receipt:
        receipt: Receipt = self._call(Function.BALANCE, account, 0, None, None)
        return receipt

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        self.batches.append(len(operations))
        answers = []
        for operation in operations:
            try:
                answers.append(self._call(*operation))
            except Rejected as error:
                answers.append(error)
        return answers

    def submit(self, operation: Operation) -> Future[Receipt]:
        future: Future[Receipt] = Future()
        try:
            future.set_result(self._call(*operation))
        except Exception as error:
            future.set_exception(error)
        return future

    def of_sessions(self) -> dict[str, list[Operation]]:
        """Its calls by the session of their op ids."""
        found = defaultdict(list)
        for operation in self.calls:
            assert operation.op_id is not None
            found[operation.op_id[0]].append(operation)
        return found


# -- which operations ------------------------------------------------------------------------------


@every_form
def test_each_client_goes_through_its_plan_in_order_and_again(form: dict[str, Any]) -> None:
    book = Book()
    found = recorded(generate(book, share(deposits(0), capacity=25, **form)))
    assert len(found) == len(book.calls) == 25
    plan = [(f"account-{place % 3}", place + 1) for place in range(10)]
    assert [(call.account, call.amount) for call in book.calls] == (plan * 3)[:25]
    assert found.amount.tolist() == [call.amount for call in book.calls]
    assert [f"account-{index}" for index in found.account] == [call.account for call in book.calls]


@every_form
def test_op_ids_are_unique_and_rise_within_a_session(form: dict[str, Any]) -> None:
    book = Book()
    clients = [deposits(index) for index in (0, 3, 11)]
    found = recorded(generate(book, share(*clients, **form)))
    assert len(book.calls) == len(found) == (300 if "due_s" in form else 900)
    assert len({call.op_id for call in book.calls}) == len(book.calls)
    sessions = book.of_sessions()
    assert sorted(sessions) == ["session-0", "session-11", "session-3"]
    for session, calls in sessions.items():
        assert [call.op_id[1] for call in calls if call.op_id] == list(range(len(calls)))
        rows = found.where(found.client == int(session.rpartition("-")[2]))
        assert rows.number.tolist() == list(range(len(calls)))
        assert rows.amount.tolist() == [call.amount for call in calls]


def test_every_function_is_called_as_itself() -> None:
    plan = client(0, (BALANCE, 0, -1, 0), (DEPOSIT, 1, -1, 5), (WITHDRAW, 2, -1, 6), (TRANSFER, 3, 4, 7))
    pair = Receipt(1, 0, 1), Receipt(1, 0, 1)

    def answer(operation: Operation) -> Any:
        return pair if operation.function is Function.TRANSFER else pair[0]

    expected = [
        (Function.BALANCE, "account-0", 0, None),
        (Function.DEPOSIT, "account-1", 5, None),
        (Function.WITHDRAW, "account-2", 6, None),
        (Function.TRANSFER, "account-3", 7, "account-4"),
    ]
    for form in FORMS.values():
        book = Book(answer)
        generate(book, share(plan, capacity=4, **form))
        assert [tuple(call[:4]) for call in book.calls] == expected


class Closes(NoOp):
    """Says when it is closed."""

    closed: ClassVar[list[Self]] = []

    def close(self) -> None:
        self.closed.append(self)


@pytest.mark.parametrize("send", [cloudpickle.dumps, lambda handle: handle])
def test_a_handle_that_came_in_a_message_is_closed(send: Callable[[Closes], Any]) -> None:
    Closes.closed.clear()
    found = recorded(generate_by_copy(send(Closes()), share(deposits(0), capacity=5)))
    assert found.fate.tolist() == [OK] * 5
    assert len(Closes.closed) == 1


@pytest.mark.parametrize("form", [{}, {"batch": 64}, {"window": 3}])
def test_a_client_stops_when_it_is_full(form: dict[str, Any]) -> None:
    part = generate(NoOpAll(), share(deposits(0), deposits(1), capacity=100, **form))
    assert part.stopped_full == 2
    assert [len(columns["number"]) for columns in part.columns] == [100, 100]


def test_a_client_whose_time_is_over_is_not_full() -> None:
    part = generate(NoOp(), share(deposits(0), seconds=0.02, capacity=1_000_000))
    assert part.stopped_full == 0
    found = recorded(part)
    assert 0 < len(found) < 1_000_000
    assert found.sent_ns.max() - found.sent_ns.min() < 0.02 * 1e9


class NoOpAll(NoOp, Batched, Pipelined):
    """Answers at once, in every form."""

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        return [self._receipt] * len(operations)

    def submit(self, operation: Operation) -> Future[Receipt]:
        future: Future[Receipt] = Future()
        future.set_result(self._receipt)
        return future


# -- what is written down --------------------------------------------------------------------------


@every_form
def test_columns_are_those_of_a_history(form: dict[str, Any]) -> None:
    columns = generate(NoOpAll(), share(deposits(0), **form)).columns[0]
    assert list(columns) == [column.name for column in fields(History)]
    for column in fields(History):
        wanted = get_args(get_args(getattr(history_module, str(column.type)))[1])[0]
        assert columns[column.name].dtype == wanted, column.name
        assert len(columns[column.name]) == 300


@every_form
def test_times_are_in_order(form: dict[str, Any]) -> None:
    found = recorded(generate(NoOpAll(), share(deposits(0), **form)))
    assert (found.sent_ns <= found.done_ns).all()
    assert (np.diff(found.sent_ns) >= 0).all()
    if "due_s" in form:
        assert (found.due_ns <= found.sent_ns).all()
    else:
        assert np.array_equal(found.due_ns, found.sent_ns)


ERRORS = {
    UnknownAccount: REJECTED,
    InsufficientFunds: REJECTED,
    Rejected: REJECTED,
    Unavailable: UNAVAILABLE,
    StateLost: LOST,
    Indeterminate: UNKNOWN,
}


@pytest.mark.parametrize("form", [FORMS[name] for name in ("closed", "open", "window", "open window")])
def test_every_error_has_its_fate(form: dict[str, Any]) -> None:
    kinds = list(ERRORS)

    def answer(operation: Operation) -> Receipt:
        if operation.amount <= len(kinds):
            raise kinds[operation.amount - 1]("told to")
        return Receipt(operation.amount, 1000 + operation.amount, 77)

    found = recorded(generate(Book(answer), share(deposits(0), capacity=20, **form)))
    once = [*ERRORS.values(), OK, OK, OK, OK]
    assert found.fate.tolist() == once * 2
    answered = found.fate == OK
    assert found.seq[answered].tolist() == [7, 8, 9, 10] * 2
    assert found.balance[answered].tolist() == [1007, 1008, 1009, 1010] * 2
    assert (found.epoch[answered] == 77).all()
    for column in (found.seq, found.balance, found.epoch):
        assert not column[~answered].any(), "a receipt where there is none"
    assert (found.done_ns >= found.sent_ns).all()


@pytest.mark.parametrize("form", [{}, FORMS["open"]])
def test_both_receipts_of_a_transfer(form: dict[str, Any]) -> None:
    def answer(operation: Operation) -> Any:
        if operation.function is Function.DEPOSIT:
            return Receipt(1, 2, 3)
        return Receipt(11, 2**40, 13), Receipt(21, 2**41, 23)

    plan = client(0, (DEPOSIT, 0, -1, 5), (TRANSFER, 1, 2, 7))
    found = recorded(generate(Book(answer), share(plan, capacity=4, **form)))
    assert found.seq.tolist() == [1, 11] * 2
    assert found.balance.tolist() == [2, 2**40] * 2
    assert found.epoch.tolist() == [3, 13] * 2
    assert found.target_seq.tolist() == [0, 21] * 2
    assert found.target_balance.tolist() == [0, 2**41] * 2
    assert found.target_epoch.tolist() == [0, 23] * 2
    assert found.target.tolist() == [-1, 2] * 2


def test_without_transfers_their_columns_take_no_memory() -> None:
    found = recorded(generate(NoOp(), share(deposits(0))))
    assert {found.target_seq.strides, found.target_balance.strides, found.target_epoch.strides} == {(0,)}


# -- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_answered_by_position() -> None:
    def answer(operation: Operation) -> Receipt:
        if operation.amount % 4 == 0:
            raise InsufficientFunds("told to")
        return Receipt(operation.amount, 0, 1)

    book = Book(answer)
    found = recorded(generate(book, share(deposits(0), capacity=23, batch=10)))
    assert book.batches == [10, 10, 3]
    assert found.fate.tolist() == [REJECTED if amount % 4 == 0 else OK for amount in found.amount]
    assert found.seq.tolist() == [0 if amount % 4 == 0 else amount for amount in found.amount]
    assert len(set(found.sent_ns.tolist())) == len(set(found.done_ns.tolist())) == 3


def test_what_becomes_of_a_whole_batch() -> None:
    kinds = [Indeterminate, Unavailable, StateLost, InsufficientFunds]

    class Fails(NoOpAll):
        def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
            if kinds:
                raise kinds.pop(0)("told to")
            return super().apply(operations)

    found = recorded(generate(Fails(), share(deposits(0), capacity=50, batch=10)))
    assert found.fate.reshape(5, 10).tolist() == [[fate] * 10 for fate in (UNKNOWN, UNAVAILABLE, LOST, REJECTED, OK)]


@pytest.mark.parametrize("too_many", [-1, 1])
def test_an_answer_to_each_and_to_no_more(too_many: int) -> None:
    class Miscounts(NoOpAll):
        def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
            return [self._receipt] * (len(operations) + too_many)

    with pytest.raises(RuntimeError, match=f"a batch of 10 operations got {10 + too_many} answers"):
        generate(Miscounts(), share(deposits(0), batch=10))


def test_a_batch_waits_until_all_of_it_is_due() -> None:
    due_s = np.arange(20) * 0.004
    book = Book()
    found = recorded(generate(book, share(deposits(0), batch=8, due_s=(due_s,))))
    assert book.batches == [8, 8, 4]
    assert (found.sent_ns >= found.due_ns).all()
    assert [len(set(found.sent_ns[first : first + 8].tolist())) for first in (0, 8, 16)] == [1, 1, 1]
    assert found.sent_ns[0] >= found.due_ns[7]


# -- windows ---------------------------------------------------------------------------------------


class Backlog(NoOp, Pipelined):
    """Answers the operations that it has collected, the last first, once they are `depth`, or nothing more comes."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.most = 0
        self._open: list[tuple[Operation, Future[Receipt]]] = []
        self._lock = threading.Lock()
        self._idle_turns = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def submit(self, operation: Operation) -> Future[Receipt]:
        future: Future[Receipt] = Future()
        with self._lock:
            self._open.append((operation, future))
            self._idle_turns = 0
            self.most = max(self.most, len(self._open))
        return future

    def _answer(self) -> None:
        while not self._ended.wait(0.002):
            with self._lock:
                self._idle_turns += 1
                if len(self._open) < self.depth and self._idle_turns < 10:
                    continue
                answered = self._open[::-1]
                self._open.clear()
            for operation, future in answered:
                time.sleep(0.0002)
                future.set_result(Receipt(operation.amount, 0, 1))

    def __enter__(self) -> Backlog:
        return self

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def test_no_more_than_the_window_is_in_flight_and_the_window_is_used() -> None:
    with Backlog(depth=6) as backlog:
        found = recorded(generate(backlog, share(deposits(0), capacity=60, window=6)))
    assert backlog.most == 6
    starts = [(at, 1) for at in found.sent_ns.tolist()] + [(at, -1) for at in found.done_ns.tolist()]
    in_flight = np.cumsum([change for _, change in sorted(starts)])
    assert in_flight.max() <= 6


def test_each_operation_is_done_when_its_own_future_is() -> None:
    """Answered the last first: within each window, what was sent later was done earlier."""
    with Backlog(depth=5) as backlog:
        found = recorded(generate(backlog, share(deposits(0), capacity=50, window=5)))
    assert found.seq.tolist() == found.amount.tolist(), "a receipt landed in another operation's row"
    assert (np.diff(found.done_ns.reshape(10, 5), axis=1) < 0).mean() > 0.9
    assert (np.diff(found.sent_ns) >= 0).all()


def test_a_future_that_never_completes() -> None:
    class Loses(NoOp, Pipelined):
        def submit(self, operation: Operation) -> Future[Receipt]:
            return Future()

    with pytest.raises(TimeoutError, match=r"not done after 0\.1 s"):
        generate(Loses(), share(deposits(0), window=4, patience_s=0.1))


def test_the_last_future_that_never_completes() -> None:
    class LosesTheLast(NoOpAll):
        def submit(self, operation: Operation) -> Future[Receipt]:
            assert operation.op_id is not None
            return Future() if operation.op_id[1] == 9 else super().submit(operation)

    with pytest.raises(TimeoutError):
        generate(LosesTheLast(), share(deposits(0), window=4, capacity=10, patience_s=0.1))


def test_a_submission_that_is_refused() -> None:
    class Refuses(NoOpAll):
        def submit(self, operation: Operation) -> Future[Receipt]:
            if operation.amount % 2:
                raise Unavailable("told to")
            return super().submit(operation)

    found = recorded(generate(Refuses(), share(deposits(0), capacity=40, window=3)))
    assert found.fate.tolist() == [UNAVAILABLE, OK] * 20
    assert (found.done_ns >= found.sent_ns).all()


# -- open loops ------------------------------------------------------------------------------------


@given(
    gaps_ms=st.lists(st.floats(0, 2), min_size=1, max_size=60),
    clients=st.integers(1, 4),
    form=st.sampled_from([{}, {"batch": 3}, {"window": 2}]),
)
@settings(max_examples=40, deadline=None)
def test_every_due_time_is_taken_once_and_not_before_it_is_due(
    gaps_ms: list[float], clients: int, form: dict[str, Any]
) -> None:
    due_s = np.cumsum(gaps_ms) / 1000
    plans = [deposits(index) for index in range(clients)]
    found = recorded(generate(NoOpAll(), share(*plans, due_s=(due_s,), **form)))
    taken = np.sort(found.due_ns)
    assert len(found) == len(due_s)
    assert np.array_equal(taken - taken[0], (due_s * 1e9).astype(np.int64) - int(due_s[0] * 1e9))
    assert (found.sent_ns >= found.due_ns).all()


def test_places_in_the_plan_are_those_of_the_schedule() -> None:
    """Whoever is free takes the next due time, and with it the operation of its own plan at that place."""
    found = recorded(generate(Book(), share(deposits(0), deposits(1), due_s=(np.linspace(0, 0.05, 200),))))
    order = np.argsort(found.due_ns, kind="stable")
    assert found.amount[order].tolist() == [place % 10 + 1 for place in range(200)]


def test_with_schedules_of_their_own_no_client_takes_anothers() -> None:
    due_s = (np.arange(10) * 0.002, np.arange(20) * 0.001)
    found = recorded(generate(NoOp(), share(deposits(0), deposits(1), due_s=due_s)))
    assert Counter(found.client.tolist()) == {0: 10, 1: 20}


def test_a_backlog_is_sent_at_once_and_counts_from_when_it_was_due() -> None:
    """One client, each call three gaps long: nothing is skipped, and waits grow."""

    class Slow(NoOp):
        def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
            time.sleep(0.003)
            return self._receipt

    found = recorded(generate(Slow(), share(deposits(0), due_s=(np.arange(50) * 0.001,))))
    assert len(found) == 50
    waits = found.done_ns - found.due_ns
    assert waits[-1] > 5 * waits[0]
    between = found.sent_ns[1:] - found.done_ns[:-1]
    assert np.median(between) < np.median(found.done_ns - found.sent_ns) / 5


def test_after_the_end_nothing_is_sent_that_has_not_been() -> None:
    class Slow(NoOp):
        def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
            time.sleep(0.02)
            return self._receipt

    late = share(deposits(0), seconds=0.1, drain_s=0.1, due_s=(np.arange(100) * 0.001,))
    found = recorded(generate(Slow(), late))
    assert 1 < len(found) < 12
    assert (found.sent_ns < found.due_ns[0] + 0.2 * 1e9 + MS).all()


def test_a_schedule_without_due_times() -> None:
    part = generate(NoOp(), share(deposits(0), capacity=1, due_s=(np.empty(0),)))
    assert len(recorded(part)) == part.stopped_full == 0


# -- how it ends -----------------------------------------------------------------------------------


WAITING: dict[str, dict[str, Any]] = {
    "closed": {},
    "batch": {"batch": 4},
    "window": {"window": 4},
    "open": {"due_s": (np.array([0.0, LONG_S / 2]), np.array([LONG_S / 2]))},
    "open window": {"window": 4, "due_s": (np.array([0.0, LONG_S / 2]), np.array([LONG_S / 2]))},
}
"""Loads that would go on for long; in open loops, while waiting for the next due time."""


class Stuck(NoOpAll):
    """Answers calls slowly, and what is submitted never."""

    def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
        time.sleep(0.001)
        return self._receipt

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        time.sleep(0.001)
        return super().apply(operations)

    def submit(self, operation: Operation) -> Future[Receipt]:
        return Future()


def raises_when_first(handle: type[NoOpAll], error: BaseException) -> Accounts:
    """Raises for client 1, whatever it calls."""

    class Raises(handle):  # type: ignore[misc, valid-type]
        def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
            self._check(op_id)
            receipt: Receipt = super().deposit(account, amount, op_id=op_id)
            return receipt

        def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
            self._check(operations[0].op_id)
            answers: list[Receipt | Rejected] = super().apply(operations)
            return answers

        def submit(self, operation: Operation) -> Future[Receipt]:
            self._check(operation.op_id)
            future: Future[Receipt] = super().submit(operation)
            return future

        def _check(self, op_id: Any) -> None:
            if op_id[0] == "session-1":
                raise error

    return Raises()


@pytest.mark.parametrize("form", [{}, {"batch": 4}, {"window": 4}, {"due_s": (np.array([0.0, 1.0, LONG_S / 2]),) * 2}])
def test_an_error_that_nobody_mapped_ends_the_load_soon(form: dict[str, Any]) -> None:
    begin_s = time.perf_counter()
    clients = [deposits(index) for index in range(3)]
    with pytest.raises(ZeroDivisionError, match="a bug"):
        generate(raises_when_first(Stuck, ZeroDivisionError("a bug")), share(*clients, capacity=10_000_000, **form))
    assert time.perf_counter() - begin_s < LONG_S / 50


def test_an_error_before_the_first_operation_ends_the_load_soon() -> None:
    broken = replace(deposits(1), account=np.array([-1], np.int32))  # nobody is called -1
    begin_s = time.perf_counter()
    with pytest.raises(KeyError):
        generate(NoOp(), share(deposits(0), broken, capacity=10_000_000))
    assert time.perf_counter() - begin_s < LONG_S / 50


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread as Ctrl-C does, a moment after it is called."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers = []

    def soon() -> None:
        timers.append(threading.Timer(0.1, _thread.interrupt_main))
        timers[-1].start()

    yield soon
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("form", WAITING.values(), ids=list(WAITING))
def test_ctrl_c_ends_a_load_soon(form: dict[str, Any], ctrl_c: Callable[[], None]) -> None:
    threads_before = threading.active_count()
    begin_s = time.perf_counter()
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        generate(Stuck(), share(deposits(0), deposits(1), capacity=10_000_000, **form))
    assert time.perf_counter() - begin_s < LONG_S / 50
    assert threading.active_count() <= threads_before + 1  # the timer's


@pytest.mark.parametrize("form", WAITING.values(), ids=list(WAITING))
def test_whoever_offers_a_load_can_end_it(form: dict[str, Any]) -> None:
    given_up: list[bool] = []
    begun = threading.Event()

    def give_up() -> None:
        begun.wait()
        given_up.append(True)

    ending = threading.Thread(target=give_up)
    ending.start()
    begin_s = time.perf_counter()
    found = recorded(generate(Stuck(), share(deposits(0), capacity=10_000_000, **form), given_up, begun))
    ending.join()
    assert time.perf_counter() - begin_s < LONG_S / 50
    assert set(found.fate.tolist()) <= {UNKNOWN if "window" in form else OK}
    assert (found.done_ns >= found.sent_ns).all()


# -- what it says of itself ------------------------------------------------------------------------


def test_processor_time_and_wall_time() -> None:
    idle = generate(NoOp(), share(deposits(0), due_s=(np.array([0.0, 0.2]),)))
    busy = generate(NoOp(), share(deposits(0), seconds=0.2, capacity=10_000_000))
    assert idle.wall_s >= 0.2
    assert idle.cpu_s / idle.wall_s < busy.cpu_s / busy.wall_s
    assert busy.stood_still_s < busy.wall_s


def test_clients_do_not_begin_before_the_start() -> None:
    start_ns = time.time_ns() + 50 * MS
    between_clocks_ns = time.time_ns() - time.perf_counter_ns()
    found = recorded(generate(NoOp(), share(deposits(0), deposits(1), capacity=5, start_ns=start_ns)))
    assert found.sent_ns.min() + between_clocks_ns >= start_ns - MS


def test_timed_in_turn() -> None:
    one = share(deposits(0), capacity=2000)
    wall_s, calls_s = timed_in_turn(NoOp(), one)
    assert 0 < calls_s < wall_s
    bare_s, nothing = timed_in_turn(NoOp(), one, record=False)
    assert nothing == 0
    assert bare_s > 0


def test_unrecorded_calls_are_the_same_calls() -> None:
    plan = client(0, (DEPOSIT, 1, -1, 5), (WITHDRAW, 2, -1, 6), (TRANSFER, 3, 4, 7))

    def answer(operation: Operation) -> Any:
        return (Receipt(1, 0, 1),) * 2 if operation.function is Function.TRANSFER else Receipt(1, 0, 1)

    books = [Book(answer), Book(answer)]
    for book, record in zip(books, (True, False), strict=True):
        timed_in_turn(book, share(plan, capacity=30), record=record)
    assert books[0].calls == books[1].calls
    assert len(books[0].calls) == 30
