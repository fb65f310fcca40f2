"""Operations that queue while a batch is in flight leave together, in order, and none waits for long."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

import pytest

from strategies.interface import Answer, Function, Operation, OpId, Receipt, Unavailable
from strategies.support import coalescing
from strategies.support.coalescing import Coalescer

PATIENCE_S = 10.0


class Owner:
    """Answers each operation with a receipt of its op id's number; holds what it was sent while `open` is not set."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.batches: list[list[int]] = []
        self.came_at: list[float] = []
        self.open = threading.Event()
        self.open.set()
        self.queue = Coalescer(self._send, timeout_s=PATIENCE_S, queue_limit=1000, blocks=False)

    def _send(self, operations: Sequence[Operation], deadline: float) -> list[Answer]:
        self.came_at.append(time.monotonic())
        numbers = [operation.op_id.number for operation in operations if operation.op_id is not None]
        self.batches.append(numbers)
        time.sleep(self.takes_s)
        assert self.open.wait(PATIENCE_S)
        return [Receipt(number, 0, 1) for number in numbers]

    def submit(self, *numbers: int) -> list[int]:
        """The answers, once all are there."""
        futures = [self.queue.submit(operation(number)) for number in numbers]
        return [future.result(PATIENCE_S).seq for future in futures]

    def await_batches(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.batches) < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def operation(number: int) -> Operation:
    return Operation(Function.DEPOSIT, "alice", 1, None, OpId("session", number))


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.open.set()
    made.queue.close()


def test_what_queues_while_a_batch_is_in_flight_leaves_together_and_in_order(owner: Owner) -> None:
    owner.open.clear()
    first = owner.queue.submit(operation(0))
    owner.await_batches(1)
    others = [owner.queue.submit(operation(number)) for number in range(1, 50)]
    owner.open.set()
    assert [each.result(PATIENCE_S).seq for each in [first, *others]] == list(range(50))
    assert owner.batches == [[0], list(range(1, 50))]


def test_a_handful_waits_for_more_where_many_came_lately() -> None:
    owner = Owner(takes_s=0.1)
    try:
        owner.submit(*range(100))
        sent = len(owner.batches)
        begin = time.monotonic()
        futures = [owner.queue.submit(operation(100))]
        time.sleep(0.002)
        futures += [owner.queue.submit(operation(number)) for number in range(101, 200)]
        assert [each.result(PATIENCE_S).seq for each in futures] == list(range(100, 200))
        came = owner.batches[sent:]
        assert came[0] == [100] or len(came) == 1
        assert len(came) == 1 or owner.came_at[sent] - begin > 0.01
    finally:
        owner.queue.close()


def test_one_by_one_after_a_burst_is_not_held_up_for_longer_than_a_call_takes(owner: Owner) -> None:
    owner.takes_s = 0.05
    owner.submit(*range(200))
    owner.takes_s = 0.0
    begin = time.monotonic()
    for number in range(200, 260):
        assert owner.submit(number) == [number]
    assert time.monotonic() - begin < 60 * coalescing._GATHERING_S / 2
    assert owner.batches[-60:] == [[number] for number in range(200, 260)]


def test_a_full_queue_refuses_more(owner: Owner) -> None:
    owner.open.clear()
    owner.queue.submit(operation(0))
    owner.await_batches(1)
    waiting = [owner.queue.submit(operation(number)) for number in range(1, 1001)]
    with pytest.raises(Unavailable, match="1000 operations wait already"):
        owner.queue.submit(operation(1001))
    owner.open.set()
    assert [each.result(PATIENCE_S).seq for each in waiting] == list(range(1, 1001))


def test_closing_ends_what_was_never_sent(owner: Owner) -> None:
    owner.open.clear()
    sent = owner.queue.submit(operation(0))
    owner.await_batches(1)
    waiting = owner.queue.submit(operation(1))
    threading.Timer(0.1, owner.open.set).start()
    owner.queue.close()
    assert sent.result(PATIENCE_S).seq == 0
    with pytest.raises(Unavailable, match="closed before this was sent"):
        waiting.result(PATIENCE_S)
    with pytest.raises(Unavailable, match="closed"):
        owner.queue.submit(operation(2))


@pytest.mark.parametrize("used", [False, True])
def test_what_was_closed_is_not_kept_until_garbage_is_collected(used: bool) -> None:
    owner = Owner()
    if used:
        assert owner.submit(1, 2) == [1, 2]
    gone = weakref.ref(owner)
    gc.disable()
    try:
        owner.queue.close()
        del owner
        assert gone() is None
    finally:
        gc.enable()
