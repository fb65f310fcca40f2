"""Ledgers of the Pekko service: the same answers as Python's, also after a crash, a takeover, and from nobody twice."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from benchmarks.harness.pekko_server import PekkoServer
from strategies.interface import (
    AccountError,
    Answer,
    Context,
    Durability,
    Function,
    Operation,
    OpId,
    Receipt,
    StateLost,
    Unavailable,
)
from strategies.interface.account import MAX_MONEY
from strategies.pekko import Pekko, PekkoBank
from strategies.support.fates import InDoubt, NotAnswered, NotSent
from strategies.support.op_window import Outcome
from strategies.support.pekko_link import BATCH, MAX_BYTES, Ledger, PekkoLinks, Request, addresses
from strategies.support.two_phase import TwoPhaseLedger
from strategies.support.wire import (
    BALANCE,
    DEBIT,
    FORGET,
    HAS_TARGET,
    NO_NUMBER,
    PEND,
    POST,
    SETTLE,
    TRANSFER,
    VOID,
    Batch,
    encode,
)

TIMEOUT_S = 10.0
GIVEN_UP_S = 20.0
"""For the other node to take over, on a busy machine; 3 to 4 s where there is time."""

missing = PekkoServer.missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(scope="module")
def one() -> Iterator[PekkoServer]:
    with PekkoServer(Durability.PROCESS_CRASH) as server:
        yield server


@pytest.fixture(scope="module")
def two() -> Iterator[PekkoServer]:
    with PekkoServer(Durability.PROCESS_CRASH, nodes=2) as server:
        yield server


def context(server: PekkoServer, timeout_s: float = TIMEOUT_S, **options: Any) -> Context:
    return Context(pekko_url=server.url, bank=uuid.uuid4().hex, timeout_s=timeout_s, **options)


# -- the same state machine in Java and in Python --------------------------------------------------

ACCOUNTS = ("a", "b", "c", "ä" * 128, "never opened", "", "x" * 257, 'quo"te\\')
SESSIONS = ("s", "t")


def random_batch(chance: random.Random, size: int) -> Batch:
    """Operations and steps of every kind, good and bad. What it leaves pending it voids at its end."""
    functions, accounts, amounts, targets, attempts, session_of, numbers = bytearray(), [], [], [], [], [], []

    def add(code: int, attempt: str) -> None:
        functions.append(code)
        accounts.append(chance.choice(ACCOUNTS))
        amounts.append(chance.choice((-1, 0, 1, 2, 5, 100, MAX_MONEY - 150, MAX_MONEY, MAX_MONEY + 1)))
        if HAS_TARGET[code]:
            targets.append(chance.choice(ACCOUNTS))
        if code > BALANCE:
            attempts.append(attempt)
        has_id = code not in (POST, VOID, SETTLE, FORGET) and chance.random() < 0.7
        session_of.append(chance.randrange(len(SESSIONS)))
        numbers.append(chance.choice((chance.randrange(300), chance.randrange(20_000))) if has_id else NO_NUMBER)

    plain = (*range(BALANCE + 1), 1, 1, 2, TRANSFER)
    begun = [f"{chance.random()}"]
    for _ in range(size):
        code = chance.choice((*plain, *plain, PEND, DEBIT, POST, VOID, SETTLE, FORGET))
        if code == PEND:  # an attempt is pended once
            begun.append(f"{chance.random()}")
        add(code, begun[-1] if code == PEND else chance.choice(begun[-4:]))
    for attempt in begun:
        add(VOID, attempt)
    return Batch(bytes(functions), accounts, amounts, targets, SESSIONS, session_of, numbers, attempts)


def plainly(answers: Sequence[Answer | Outcome]) -> list[object]:
    """Without epochs and texts, which are each owner's own."""
    return [_plain(answer) for answer in answers]


def _plain(answer: Any) -> object:
    if isinstance(answer, AccountError):
        return type(answer)
    if isinstance(answer, Receipt):
        return answer.seq, answer.balance
    if isinstance(answer[0], Receipt):
        return *answer[0][:2], *answer[1][:2]
    return answer


@contextmanager
def ledger(server: PekkoServer) -> Iterator[tuple[PekkoBank, Ledger]]:
    with closing(PekkoBank(addresses(server.url), TIMEOUT_S, 100, True)) as bank:
        (opened,) = bank.open_ledgers(uuid.uuid4().hex, 1)
        yield bank, opened


def applied(bank: PekkoBank, to: Ledger, batch: Batch) -> list[Answer]:
    (answers,) = bank.apply([(to, batch)], bank.deadline(), "a batch")
    return answers


@pytest.mark.parametrize("size", [1, 3, 30, 1000])
def test_java_and_python_give_the_same_answers_also_after_crashes(one: PekkoServer, size: int) -> None:
    chance = random.Random(size)
    with ledger(one) as (bank, java):
        python = TwoPhaseLedger()
        rounds = max(40, 30_000 // size) if size > 30 else 60  # the longest is in a snapshot too
        for turn in range(rounds):
            batch = random_batch(chance, size) if turn else Batch.of([Operation(Function.OPEN_ACCOUNT, "a", 7)])
            assert plainly(applied(bank, java, batch)) == plainly(python.apply_steps(batch)), f"batch {turn}"
            if turn == rounds - rounds // 4:
                one.kill()
                one.start()
        snapshot = bank.snapshots([java], bank.deadline())
        assert {account: receipt[:2] for account, receipt in snapshot.items()} == python._states
        assert {receipt.epoch for receipt in snapshot.values()} == {java.epoch}


def test_credits_in_doubt_are_told_alike(one: PekkoServer) -> None:
    now_s = 0.0
    python = TwoPhaseLedger(clock=lambda: now_s)
    with ledger(one) as (bank, java):
        opened = Batch.of([Operation(Function.OPEN_ACCOUNT, each, 10) for each in ("a", "b")])
        pend = Batch(bytes([PEND]), ("a",), (3,), ('so"urce',), attempts=("caller/7",))
        both = Batch.of([Operation(Function.DEPOSIT, "a", 1), Operation(Function.TRANSFER, "b", 1, "a")])
        for batch in (opened, pend):
            assert plainly(applied(bank, java, batch)) == plainly(python.apply_steps(batch))
        time.sleep(0.6)
        now_s = 0.6
        found = applied(bank, java, both)
        assert plainly(found) == plainly(python.apply_steps(both)) == [InDoubt, InDoubt]
        assert isinstance(found[0], InDoubt)
        assert found[0].pending == [("caller/7", 'so"urce')]
        with pytest.raises(InDoubt) as raised:
            bank.snapshots([java], bank.deadline())
        assert raised.value.pending == found[0].pending
        one.kill()
        one.start()
        post = Batch(bytes([POST]), ("a",), (0,), (), attempts=("caller/7",))
        for batch in (post, both, post):
            assert plainly(applied(bank, java, batch)) == plainly(python.apply_steps(batch))


def test_a_snapshot_has_every_account_however_many(one: PekkoServer) -> None:
    with ledger(one) as (bank, java):
        names = [f"account-{place}" for place in range(20_000)]
        for begin in (0, 10_000):
            applied(
                bank, java, Batch.of([Operation(Function.OPEN_ACCOUNT, each, 1) for each in names[begin:][:10_000]])
            )
        assert list(bank.snapshots([java], bank.deadline())) == names


# -- recovery --------------------------------------------------------------------------------------


def test_a_crash_loses_neither_receipts_nor_op_ids(one: PekkoServer) -> None:
    where = context(one, shards=3)
    with Pekko.open(where) as accounts:
        opened = [accounts.open_account(name, 10, op_id=("s", place)) for place, name in enumerate("abcdef")]
        moved = accounts.transfer("a", "b", 4, op_id=("s", 10))
        one.kill()
        with pytest.raises(Unavailable):
            accounts.balance("a")
        one.start()
        assert accounts.balance("b") == moved[1]
        assert accounts.transfer("a", "b", 4, op_id=("s", 10)) == moved
        assert accounts.open_account("a", 10, op_id=("s", 0)) == opened[0]
        assert accounts.deposit("a", 1) == (moved[0].seq + 1, moved[0].balance + 1, moved[0].epoch)
    with Pekko.open(Context(pekko_url=one.url, bank=where.bank, shards=7)) as again:
        assert len(again._shards) == 3
        assert sum(receipt.balance for receipt in again.snapshot().values()) == 61


def test_state_that_was_lost_is_no_other_bank(one: PekkoServer) -> None:
    where = context(one)
    with Pekko.open(where) as accounts:
        first = accounts.open_account("a", 10)
        one.kill()
        for path in one.directory.iterdir():
            shutil.rmtree(path)
        one.start()
        with pytest.raises(StateLost):
            accounts.deposit("a", 1)
        with pytest.raises(StateLost):
            accounts.snapshot()
        with Pekko.open(where) as blank:
            assert blank.open_account("a", 10).epoch > first.epoch
        with pytest.raises(StateLost):
            accounts.balance("a")


def test_the_log_of_a_busy_ledger_stays_short(one: PekkoServer) -> None:
    """At most what was done between three snapshots is kept, so a recovery is as short."""
    with ledger(one) as (bank, java):
        applied(bank, java, Batch.of([Operation(Function.OPEN_ACCOUNT, "a", 1)]))
        directory = one.directory / java.name
        largest = 0
        for turn in range(40):
            deposits = [
                Operation(Function.DEPOSIT, "a", 1, None, OpId("s", 10_000 * turn + place)) for place in range(10_000)
            ]
            assert applied(bank, java, Batch.of(deposits))[-1][:2] == (10_000 * (turn + 1) + 1,) * 2  # type: ignore[index]
            largest = max(largest, sum(path.stat().st_size for path in directory.glob("*.log")))
        deadline = time.monotonic() + TIMEOUT_S
        while len(list(directory.iterdir())) > 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(directory.iterdir())) <= 6
        assert largest < 4_000_000 < 40 * 140_000
        one.kill()
        one.start()
        assert bank.snapshots([java], bank.deadline()) == {"a": (400_001, 400_001, java.epoch)}


# -- two nodes -------------------------------------------------------------------------------------


def deposited(accounts: Pekko, numbers: Iterator[int], until: float, want: int) -> list[Receipt]:
    """Receipts of deposits of 1 with op ids, each sent until it is answered; so many in a row without an error."""
    receipts: list[Receipt] = []
    in_a_row = 0
    while in_a_row < want:
        assert time.monotonic() < until, "the other node did not take over"
        number = next(numbers)
        while True:
            try:
                receipts.append(accounts.deposit("a", 1, op_id=("s", number)))
                in_a_row += 1
                break
            except AccountError:
                in_a_row = 0
                assert time.monotonic() < until, "the other node did not take over"
                time.sleep(0.02)
    return receipts


def test_the_other_node_takes_over_and_nothing_acknowledged_is_lost(two: PekkoServer) -> None:
    numbers = iter(range(10**6))
    with Pekko.open(context(two, timeout_s=1.0)) as accounts:
        accounts.open_account("a")
        receipts = deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
        two.kill()
        assert not two.runs
        receipts += deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
        two.start()
        receipts += deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
        assert [receipt.seq for receipt in receipts] == list(range(2, len(receipts) + 2))
        assert {receipt.epoch for receipt in receipts} == {receipts[0].epoch}
        assert accounts.balance("a").balance == len(receipts)


def test_a_node_that_was_paused_neither_changes_nor_tells_what_is_the_others_now(two: PekkoServer) -> None:
    numbers = iter(range(10**6))
    with Pekko.open(context(two, timeout_s=1.0)) as accounts, ExitStack() as stack:
        accounts.open_account("a")
        deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
        paused = addresses(two.url)[two.oldest]
        to = accounts._owner_of["a"]
        read = Request(to, BATCH, encode(Batch(bytes([BALANCE]), ("a",), (0,), ())))  # type: ignore[arg-type]
        two.pause()
        try:
            links = [PekkoLinks([paused])._take(time.monotonic() + TIMEOUT_S)[1] for _ in range(4)]
            for link in links:
                stack.callback(link.close)
            receipts = deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
            for link in links:
                link.send(read.encode(0), time.monotonic() + TIMEOUT_S)  # it lies there until the node goes on
        finally:
            two.resume()
        for link in links:
            try:
                reply = bytes(link.receive(time.monotonic() + 2 * TIMEOUT_S))
            except OSError:
                continue  # it left the cluster, and began again
            status, content = reply[4], reply[5:]
            assert status != 0 or struct.pack("<I", receipts[-1].balance) in content, "it told what was true before"
        receipts += deposited(accounts, numbers, time.monotonic() + GIVEN_UP_S, 20)
        assert [each.seq for each in receipts] == list(range(receipts[0].seq, receipts[0].seq + len(receipts)))
        assert accounts.balance("a")[:2] == receipts[-1][:2]
    two._reap()  # whether it is a member again by now is not this test's to wait for
    two.start()


# -- messages that are none ------------------------------------------------------------------------


def test_a_message_of_another_version_is_refused_with_the_reason(one: PekkoServer) -> None:
    with ledger(one) as (bank, java):
        links = PekkoLinks(addresses(one.url))
        (reply,) = links.exchange([Request(java, BATCH, b"\x99\x09" + b"\xc0" * 8)], time.monotonic() + TIMEOUT_S)
        assert isinstance(reply, NotSent)
        assert "version 9, where 1 is known" in str(reply)
        (cut_off,) = links.exchange([Request(java, BATCH, b"\x99\x01\xc4")], time.monotonic() + TIMEOUT_S)
        assert isinstance(cut_off, NotSent)
        (strange,) = links.exchange([Request(java, 77, b"")], time.monotonic() + TIMEOUT_S)
        assert "unknown kind 77" in str(strange)
        (nameless,) = links.exchange([Request(Ledger("no/name"), BATCH, b"")], time.monotonic() + TIMEOUT_S)
        assert isinstance(nameless, NotSent)
        assert bank.snapshots([java], bank.deadline()) == {}
        links.close()


def test_a_message_that_is_too_large_is_refused_by_both_sides(one: PekkoServer) -> None:
    node = addresses(one.url)[0]
    links = PekkoLinks([node])
    (reply,) = links.exchange([Request(Ledger("x"), BATCH, bytes(MAX_BYTES))], time.monotonic() + TIMEOUT_S)
    assert isinstance(reply, NotSent)
    assert "split it" in str(reply)
    links.close()
    with socket.create_connection(node, TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">II", 2**31, 5))
        size, place, status = struct.unpack(">IIB", connection.recv(9))
        assert (place, status) == (5, 2)
        assert b"split it" in connection.recv(size)
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "pekko://", "pekko://127.0.0.1", "pekko://127.0.0.1:x", "pekko://a:1,b", "pekko://a:1/path"],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="pekko://HOST:PORT"):
        Pekko.open(Context(pekko_url=url))


def test_what_cannot_be_opened_says_so() -> None:
    with pytest.raises(ValueError, match="put its URL into the context"):
        Pekko.open(Context())
    with pytest.raises(ValueError, match="one_node, two_nodes"):
        Pekko.open(Context(pekko_url="pekko://127.0.0.1:1", variant="three_nodes"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="try again"):
        Pekko.open(Context(pekko_url=f"pekko://127.0.0.1:{free}"))


# -- fates -----------------------------------------------------------------------------------------


def test_one_node_that_does_not_answer_is_left_for_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        links = PekkoLinks([silent.getsockname(), other.getsockname()])
        (reply,) = links.exchange([Request(Ledger("x"), BATCH, b"")], time.monotonic() + 0.1)
        assert isinstance(reply, NotAnswered)
        node, link = links._take(time.monotonic() + TIMEOUT_S)
        link.close()
        assert node == 1
