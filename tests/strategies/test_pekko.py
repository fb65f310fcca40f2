"""Ledgers of the Pekko service: the same answers as Python's, also after a crash, a takeover, and from nobody twice."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, cast

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
    decode_answers,
    encode,
)

TIMEOUT_S = 10.0
GIVEN_UP_S = 30.0
"""For the other node to take over, on a busy machine; 5 s where there is time."""
LEASE_S = 4.0
"""Whoever has given up another node keeps the lease for 3 s."""

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


NAMES = [f"account-{place}" for place in range(16)]
SPREAD = 8
"""Ledgers: some are on the node that is struck, some on the other."""


class Depositor:
    """Deposits of 1 with op ids into one account after the other, each sent until it is answered."""

    def __init__(self, accounts: Pekko) -> None:
        self.receipts: list[tuple[str, Receipt]] = []
        self._accounts = accounts
        self._numbers = itertools.count()
        for name in NAMES:
            accounts.open_account(name)

    def until_all_are_served(self) -> None:
        """Each account twice in a row without an error."""
        until = time.monotonic() + GIVEN_UP_S
        in_a_row = 0
        for number in self._numbers:
            name = NAMES[number % len(NAMES)]
            while True:
                try:
                    self.receipts.append((name, self._accounts.deposit(name, 1, op_id=("s", number))))
                    break
                except AccountError:
                    in_a_row = -1
                    assert time.monotonic() < until, "the other node did not take over"
                    time.sleep(0.02)
            in_a_row += 1
            if in_a_row == 2 * len(NAMES):
                return

    def check(self) -> None:
        """Nothing acknowledged is lost, nothing was done twice, and each owner is what it was."""
        for name in NAMES:
            own = [receipt for of, receipt in self.receipts if of == name]
            assert [receipt[:2] for receipt in own] == [(place + 2, place + 1) for place in range(len(own))]
            assert len({receipt.epoch for receipt in own}) == 1
            assert self._accounts.balance(name) == own[-1]


def test_the_other_node_takes_over_and_nothing_acknowledged_is_lost(two: PekkoServer) -> None:
    where = context(two, shards=SPREAD)
    with Pekko.open(where), Pekko.open(replace(where, timeout_s=1.0)) as accounts:
        depositor = Depositor(accounts)
        for _ in range(2):  # the second time it is the other one
            depositor.until_all_are_served()
            two.kill()
            assert not two.runs
            depositor.until_all_are_served()
            depositor.check()
            two.start()
            depositor.until_all_are_served()
            depositor.check()


def test_a_node_that_was_paused_tells_nothing_old_and_becomes_a_member_again(two: PekkoServer) -> None:
    where = context(two, shards=SPREAD)
    with Pekko.open(where), Pekko.open(replace(where, timeout_s=1.0)) as accounts, ExitStack() as stack:
        depositor = Depositor(accounts)
        depositor.until_all_are_served()
        time.sleep(LEASE_S)
        paused = addresses(two.url)[two.oldest]
        two.pause()
        stack.callback(two.resume)
        links = {name: PekkoLinks([paused])._take(time.monotonic() + TIMEOUT_S)[1] for name in NAMES}
        for link in links.values():
            stack.callback(link.close)
        depositor.until_all_are_served()
        depositor.check()
        for name, link in links.items():  # these lie there until the node goes on
            batch = encode(Batch(bytes([BALANCE]), (name,), (0,), ()))
            ledger = cast("Ledger", accounts._owner_of[name])
            link.send(Request(ledger, BATCH, batch).encode(0), time.monotonic() + TIMEOUT_S)
        two.resume()
        latest = dict(depositor.receipts)
        for name, link in links.items():
            try:
                reply = bytes(link.receive(time.monotonic() + TIMEOUT_S))
            except OSError:
                continue  # the node left the cluster, and its connections ended
            if reply[4] == 0:
                assert decode_answers(reply[5:], 1) == [latest[name]], "it told what was true before"
        depositor.until_all_are_served()
        depositor.check()
        assert two._all_answer()
        assert two.runs, "the process is the same, and a member again"


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
