"""Loads whose callers may die: what they did is there afterwards, and what they send again is told apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import journal
from benchmarks.harness.driver_processes import DriverFailed, DriverProcess
from benchmarks.harness.generator import CallerFailed, Client, Retry, Share, generate, generate_by_copy
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    NEVER_NS,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    History,
)
from benchmarks.harness.simulated import NoOp
from strategies.interface import (
    Indeterminate,
    InsufficientFunds,
    OpId,
    Receipt,
    StateLost,
    Unavailable,
    UnknownAccount,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Scripted(NoOp):
    """Deposits that end as the script says, one after the other; the last of it goes on."""

    def __init__(self, *script: Exception | Receipt) -> None:
        self.script = list(script)
        self.op_ids: list[OpId | None] = []

    def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
        self.op_ids.append(op_id)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Slow(NoOp):
    """Answers five deposits at once, and is silent for long after that."""

    def __init__(self) -> None:
        self.calls = 0

    def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
        self.calls += 1
        if self.calls > 5:
            time.sleep(60)
        return Receipt(1 + self.calls, self.calls, 7)


def share(directory: Path, retry: Retry, *, operations: int = 3, clients: int = 1, **more: Any) -> Share:
    plan = [
        Client(
            index,
            np.full(4, DEPOSIT, np.int8),
            np.full(4, index, np.int32),
            np.full(4, -1, np.int32),
            np.arange(1, 5, dtype=np.int64),
        )
        for index in range(clients)
    ]
    return Share(
        session="s",
        clients=tuple(plan),
        seconds=0.05,
        start_ns=time.time_ns(),
        capacity=1000,
        due_s=tuple(np.linspace(0.0, 0.04, operations) for _ in plan),
        drain_s=0.5,
        journal=str(directory),
        retry=retry,
        **more,
    )


def offered(handle: NoOp, of: Share) -> History:
    assert not generate(handle, of).columns
    assert of.journal is not None
    return journal.read(of.journal)


def table(history: History, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(getattr(history, column).tolist() for column in columns), strict=True))


def test_what_was_answered_is_written_down(tmp_path: Path) -> None:
    found = offered(Scripted(Receipt(2, 11, 7), Receipt(3, 13, 7)), share(tmp_path, Retry.NONE))
    assert table(found, "client", "number", "attempt", "keyed", "function", "account", "target", "amount") == [
        (0, number, 0, True, DEPOSIT, 0, -1, number + 1) for number in range(3)
    ]
    assert table(found, "fate", "seq", "balance", "epoch") == [(OK, 2, 11, 7), (OK, 3, 13, 7), (OK, 3, 13, 7)]
    assert (found.due_ns <= found.sent_ns).all()
    assert (found.sent_ns <= found.done_ns).all()


@pytest.mark.parametrize(
    ("error", "fate", "reason"),
    [
        (UnknownAccount("x"), REJECTED, "UnknownAccount"),
        (InsufficientFunds("x"), REJECTED, "InsufficientFunds"),
        (StateLost("x"), LOST, ""),
    ],
)
@pytest.mark.parametrize("retry", list(Retry))
def test_what_is_final_is_not_sent_again(
    tmp_path: Path, retry: Retry, error: Exception, fate: int, reason: str
) -> None:
    found = offered(Scripted(error), share(tmp_path, retry))
    assert table(found, "number", "attempt", "fate", "reason") == [
        (number, 0, fate, REASONS.index(reason)) for number in range(3)
    ]


@pytest.mark.parametrize("error", [Unavailable("x"), Indeterminate("x")])
def test_what_did_not_or_may_not_have_happened_is_sent_again(tmp_path: Path, error: Exception) -> None:
    fate = UNAVAILABLE if isinstance(error, Unavailable) else UNKNOWN
    for retry in (Retry.NAIVE, Retry.OP_ID):
        directory = tmp_path / retry
        directory.mkdir()
        handle = Scripted(error, error, Receipt(2, 1, 7))
        found = offered(handle, share(directory, retry, operations=1))
        assert table(found, "number", "attempt", "fate") == [(0, 0, fate), (0, 1, fate), (0, 2, OK)]
        assert found.keyed.tolist() == [retry is Retry.OP_ID] * 3
        assert handle.op_ids == [OpId("s-0", 0) if retry is Retry.OP_ID else None] * 3
        assert len(set(found.due_ns.tolist())) == 1, "it is due once, however often it is sent"


def test_who_does_not_retry_sends_once(tmp_path: Path) -> None:
    handle = Scripted(Indeterminate("x"), Receipt(2, 1, 7))
    found = offered(handle, share(tmp_path, Retry.NONE))
    assert table(found, "number", "attempt", "fate") == [(0, 0, UNKNOWN), (1, 0, OK), (2, 0, OK)]
    assert handle.op_ids == [OpId("s-0", number) for number in range(3)]


def test_sending_again_ends_with_the_load(tmp_path: Path) -> None:
    begin_s = time.monotonic()
    found = offered(Scripted(Unavailable("x")), share(tmp_path, Retry.OP_ID, operations=1))
    assert time.monotonic() - begin_s < 5.0  # 0.55 s are its time
    assert 3 <= len(found) <= 60


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("retry", list(Retry))
def test_a_life_after_death(tmp_path: Path, retry: Retry, goes_on: bool) -> None:
    """A caller is killed in its sixth call; another begins the same work, or goes on with it."""
    # A process that starts beside other tests may need seconds to import what it calls, and the load has an end.
    of = replace(share(tmp_path, retry, operations=8, goes_on=goes_on), drain_s=20.0)
    with DriverProcess() as driver:
        driver.send(generate_by_copy, cloudpickle.dumps(Slow()), of)
        deadline = time.monotonic() + 30
        while len(journal.read(str(tmp_path))) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.kill()
        with pytest.raises(DriverFailed):
            driver.answer()
    dead = journal.read(str(tmp_path))
    assert dead.fate.tolist() == [OK] * 5 + [UNKNOWN]
    assert (dead.done_ns == NEVER_NS).tolist() == [False] * 5 + [True]
    assert (dead.seq[-1], dead.balance[-1], dead.epoch[-1]) == (0, 0, 0)
    assert journal.begun_again(str(tmp_path)) == 0

    found = offered(Scripted(Receipt(9, 9, 9)), of)
    assert journal.begun_again(str(tmp_path)) == 1
    again = found.where(found.process != found.process[0])
    if retry is Retry.NONE:
        # What was not answered is not sent again; a caller that goes on goes on behind it.
        assert again.number.tolist() == ([6, 7] if goes_on else [])
        return
    begins_at = 5 if goes_on else 0
    assert table(again, "number", "attempt") == [(number, int(number < 6)) for number in range(begins_at, 8)]
    assert set(again.keyed.tolist()) == {retry is Retry.OP_ID}
    assert np.ptp(found.due_ns[found.number == 0]) < 1e6  # two clocks are read one after the other


def test_a_task_that_is_to_fail_fails_once_and_after_a_call(tmp_path: Path) -> None:
    of = share(tmp_path, Retry.NAIVE, operations=8, clients=2, fail_after_s=0.02)
    with pytest.raises(CallerFailed):
        generate(NoOp(), of)
    first = journal.read(str(tmp_path))
    assert 0 < len(first) < 16
    assert (first.fate == OK).all()
    generate(NoOp(), of)
    assert len(journal.read(str(tmp_path))) == len(first) + 16


def test_transfers_and_reads_are_written_down_too(tmp_path: Path) -> None:
    class Bank(NoOp):
        def transfer(self, source: str, target: str, amount: int, *, op_id: Any = None) -> tuple[Receipt, Receipt]:
            return Receipt(2, 90, 7), Receipt(5, 110, 8)

    client = Client(
        0,
        np.array([TRANSFER, BALANCE], np.int8),
        np.array([0, 1], np.int32),
        np.array([1, -1], np.int32),
        np.array([10, 0], np.int64),
    )
    found = offered(Bank(), replace(share(tmp_path, Retry.NONE, operations=2), clients=(client,)))
    assert table(found, "function", "account", "target", "seq", "target_seq", "target_balance", "target_epoch") == [
        (TRANSFER, 0, 1, 2, 5, 110, 8),
        (BALANCE, 1, -1, 1, 0, 0, 0),
    ]


@settings(deadline=None)  # it waits for the disk
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**31 - 1), st.integers(0, 2**62)), max_size=20))
def test_every_row_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: Sequence[tuple[int, int, int]]) -> None:
    directory = str(tmp_path_factory.mktemp("journals"))
    journals: dict[int, journal.Journal] = {}
    for sent_ns, (client, seq, balance) in enumerate(rows, start=1):
        if client not in journals:
            journals[client] = journal.Journal(directory, client, 20)
        written = journals[client]
        place = written.begin(sent_ns, 0, True, (DEPOSIT, client, -1, balance), sent_ns, sent_ns)
        written.answered(place, Receipt(seq, balance, 2**62), sent_ns)
    found = journal.read(directory)
    wanted = sorted((client, number, seq, balance) for number, (client, seq, balance) in enumerate(rows, start=1))
    assert table(found, "client", "number", "seq", "balance") == wanted
    assert not journal.begun_again(directory)


def test_a_journal_that_is_full_says_so(tmp_path: Path) -> None:
    written = journal.Journal(str(tmp_path), 0, 1)
    assert not written.full
    written.begin(0, 0, True, (DEPOSIT, 0, -1, 1), 1, 1)
    assert written.full


def test_a_directory_without_journals_is_an_empty_history(tmp_path: Path) -> None:
    assert not len(journal.read(str(tmp_path)))
