"""What is special about PostgreSQL: where a connection breaks, who waits for whom, what is left in the database."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.harness.postgres_server import PostgresServer
from strategies.interface import (
    AccountError,
    Context,
    Durability,
    Function,
    Indeterminate,
    InsufficientFunds,
    Operation,
    OpId,
    Receipt,
    StateLost,
    Unavailable,
    UnknownAccount,
)
from strategies.postgres import Postgres
from strategies.support.postgres_link import Statement
from tests.strategies.servers import free_port, listener

psycopg = pytest.importorskip("psycopg", reason="run: pip install '.[postgres]'")

TIMEOUT_S = 1.0
SLACK_S = 2.0
PATIENCE_S = 20.0
"""Where the deadline is not what is tested: a busy machine takes its time."""
SECRET = "s3cret-Pa55word"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    missing = PostgresServer.missing()
    if missing:
        pytest.skip(missing)
    with PostgresServer(Durability.POWER_LOSS) as server:
        yield server.url


@pytest.fixture
def admin(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(admin: Any, url: str) -> Iterator[str]:
    """The URL of a database that holds nothing yet."""
    name = f"test_{uuid.uuid4().hex}"
    admin.execute(f"CREATE DATABASE {name}")
    yield urlsplit(url)._replace(path=f"/{name}").geturl()
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def at(url: str, timeout_s: float = PATIENCE_S, **options: Any) -> Context:
    return Context(postgres_url=url, bank=uuid.uuid4().hex, timeout_s=timeout_s, **options)


def through(port: int, context: Context) -> Context:
    """The same bank, reached by this port."""
    parts = urlsplit(context.postgres_url or "")
    user = parts.netloc.rpartition("@")[0]
    return replace(context, postgres_url=parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl())


@pytest.fixture
def context(url: str) -> Context:
    return at(url)


@pytest.fixture
def accounts(context: Context) -> Iterator[Postgres]:
    with Postgres.open(context) as opened:
        opened.open_account("a", 100)
        opened.open_account("b", 100)
        yield opened


def in_time(act: Callable[[], object], *errors: type[AccountError]) -> AccountError:
    """Assert that it raises one of these errors before the deadline; return it."""
    began = time.monotonic()
    with pytest.raises(errors) as caught:
        act()
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert type(caught.value) in errors
    return caught.value


# -- reaching the server -------------------------------------------------------------------------


def test_nobody_listens(url: str) -> None:
    in_time(lambda: Postgres.open(through(free_port(), at(url, TIMEOUT_S))), Unavailable)


def test_a_server_that_accepts_and_never_answers(url: str) -> None:
    def read_for_ever(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    with listener(read_for_ever) as port:
        in_time(lambda: Postgres.open(through(port, at(url, TIMEOUT_S))), Unavailable)


def test_a_server_that_answers_in_drips(url: str) -> None:
    """Each byte comes in time, the message does not: the deadline is the call's, not a read's."""

    def drip(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"N")  # no TLS
        connection.recv(1024)
        connection.sendall(b"E\0\0\3\xe8")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.1)

    with listener(drip) as port:
        in_time(lambda: Postgres.open(through(port, at(url, TIMEOUT_S))), Unavailable)


@pytest.mark.parametrize("userinfo", [f"bench:{SECRET}", f"{SECRET}:x", f"bench:x@{SECRET}", f"bench:1/{SECRET}"])
def test_a_password_is_never_shown(url: str, userinfo: str) -> None:
    """Neither where it is wrong, nor where libpq would take it for something else."""
    wrong = urlsplit(url)._replace(netloc=f"{userinfo}@127.0.0.1:{urlsplit(url).port}").geturl()
    with pytest.raises((Unavailable, ValueError)) as caught:
        Postgres.open(at(wrong))
    told = "".join(traceback.format_exception(caught.value))
    assert f"@{SECRET}" not in told
    assert f":{SECRET}" not in told
    if not userinfo.startswith(SECRET):  # that is the user's name
        assert SECRET not in told
    assert SECRET not in repr(at(wrong))


def test_no_url_and_no_such_variant(url: str) -> None:
    with pytest.raises(ValueError, match="postgres_url"):
        Postgres.open(Context())
    with pytest.raises(ValueError, match="commit_on, commit_off"):
        Postgres.open(at(url, variant="commit_maybe"))


def test_an_idle_connection_that_the_server_ended_is_noticed(accounts: Postgres, admin: Any) -> None:
    accounts.deposit("a", 1)
    ended = admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ).fetchall()
    assert ended
    assert accounts.deposit("a", 1)[:2] == (3, 102)


def test_a_forked_child_has_connections_of_its_own(accounts: Postgres) -> None:
    accounts.deposit("a", 1)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            accounts.deposit("a", 1)
            accounts.close()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert accounts.deposit("a", 1)[:2] == (4, 103)


# -- where a connection breaks -------------------------------------------------------------------


class Cut:
    """Passes everything on, until a caller sends something with `word` in it: then both connections end.

    The server gets that as well if `passed_on`.
    """

    def __init__(self, url: str, word: bytes, *, passed_on: bool) -> None:
        parts = urlsplit(url)
        self._server = parts.hostname, parts.port
        self._word = word
        self._passed_on = passed_on
        self.cuts = 0

    def __call__(self, caller: socket.socket) -> None:
        with socket.create_connection(self._server) as server:
            while True:
                for source in select.select([caller, server], [], [])[0]:
                    data = source.recv(1 << 20)
                    if not data:
                        return
                    if source is server:
                        caller.sendall(data)
                        continue
                    is_last = self._word in data
                    if not is_last or self._passed_on:
                        server.sendall(data)
                    if is_last:
                        self.cuts += 1
                        if self._passed_on:
                            server.recv(1 << 20)  # the answer: it is done
                        caller.shutdown(socket.SHUT_RDWR)
                        return


COMMIT, CHANGE, LOCK = b"\0commit\0", b"\0change\0", b"\0lock_accounts\0"
"""Names of statements, as in messages that have them done."""


def with_ids(number: int) -> OpId:
    return OpId("s", number)


@pytest.mark.parametrize("passed_on", [True, False])
@pytest.mark.parametrize("word", [COMMIT, CHANGE])
def test_a_commit_without_an_answer_may_have_happened(
    accounts: Postgres, context: Context, word: bytes, passed_on: bool
) -> None:
    """Sent again with its op id it has one effect; libpq sent it once."""
    cut = Cut(context.postgres_url or "", word, passed_on=passed_on)
    accounts.deposit("b", 1, op_id=with_ids(1))  # makes the session
    with listener(cut) as port, closing(Postgres(through(port, context), accounts._epoch, accounts._id)) as struck:
        if word == COMMIT:
            change: Callable[[Postgres], Any] = lambda handle: handle.transfer("a", "b", 5, op_id=with_ids(2))[0]  # noqa: E731
        else:
            change = lambda handle: handle.withdraw("a", 5, op_id=with_ids(2))  # noqa: E731
        before = cut.cuts
        with pytest.raises(Indeterminate):
            change(struck)
        assert cut.cuts == before + 1
    _await_balance(accounts, 95 if passed_on else 100)
    assert change(accounts)[:2] == (2, 95)
    assert change(accounts)[:2] == (2, 95)
    assert accounts.balance("a")[:2] == (2, 95)


def test_a_connection_that_breaks_before_the_commit_had_no_effect(accounts: Postgres, context: Context) -> None:
    cut = Cut(context.postgres_url or "", LOCK, passed_on=True)
    with listener(cut) as port, closing(Postgres(through(port, context), accounts._epoch, accounts._id)) as struck:
        with pytest.raises(Unavailable):
            struck.transfer("a", "b", 5)
        answers = struck.apply([Operation(Function.DEPOSIT, "a", 1), Operation(Function.DEPOSIT, "b", 1)])
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert cut.cuts == 2
    assert accounts.transfer("a", "b", 1)[0][:2] == (2, 99)


def _await_balance(accounts: Postgres, balance: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while accounts.balance("a").balance != balance:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- who waits for whom --------------------------------------------------------------------------


def test_who_waits_for_a_row_gives_up_in_time(url: str, admin: Any) -> None:
    context = at(url)
    with Postgres.open(context) as patient, Postgres.open(replace(context, timeout_s=TIMEOUT_S)) as hasty:
        patient.open_account("a", 10)
        patient.open_account("b", 10)
        with admin.transaction():
            admin.execute("SELECT FROM dask_state_bench.accounts WHERE bank = %s FOR UPDATE", (patient._id,))
            in_time(lambda: hasty.deposit("a", 1), Unavailable, Indeterminate)
            in_time(lambda: hasty.transfer("a", "b", 1), Unavailable)
            assert hasty.balance("a")[:2] == (1, 10)
        assert patient.deposit("b", 1)[:2] == (2, 11)
        assert patient.balance("a").balance in (10, 11)


def test_a_transaction_that_nobody_goes_on_with_lets_go(url: str) -> None:
    """Its caller is there and says nothing, as behind a broken link."""
    context = at(url)
    lock = Statement(b"t", b"SELECT 1 FROM dask_state_bench.accounts WHERE bank = $1 FOR UPDATE")
    with Postgres.open(context) as patient, Postgres.open(replace(context, timeout_s=TIMEOUT_S)) as hasty:
        patient.open_account("a", 10)
        deadline = time.monotonic() + PATIENCE_S
        with hasty._link.connection(deadline) as connection:
            connection.run(deadline, (Statement(b"b", b"BEGIN"), ()), (lock, (hasty._id,)))
            began = time.monotonic()
            assert patient.deposit("a", 1)[:2] == (2, 11)
            assert 0.5 * TIMEOUT_S < time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_transfers_in_opposite_directions_never_deadlock(context: Context, admin: Any) -> None:
    """By several handles, alone and in batches, with op ids of sessions that they share in opposite orders."""
    rounds, names = 40, ["a", "b", "c"]
    (before,) = admin.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'").fetchone()
    with Postgres.open(context) as accounts:
        for name in names:
            accounts.open_account(name, 10_000)

    def run(caller: int) -> None:
        ways = [(x, y) for x in names for y in names if x != y]
        ways = ways if caller % 2 else ways[::-1]
        sessions = [f"s{caller % 2}", f"s{1 - caller % 2}"]
        with Postgres.open(context) as accounts:
            for turn in range(rounds):
                source, target = ways[turn % len(ways)]
                accounts.transfer(source, target, 1, op_id=(f"own{caller}", turn))
                accounts.withdraw(source, 1, op_id=(f"own{caller}", 1000 + turn))
                batch = [
                    Operation(Function.TRANSFER, *_legs(way), op_id=OpId(session, 1000 * turn + 100 * caller + number))
                    for number, (way, session) in enumerate(zip(ways, sessions * 3, strict=True))
                ]
                answers = accounts.apply(batch)
                assert all(isinstance(answer, tuple) for answer in answers), answers

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    with Postgres.open(context) as accounts:
        cut = accounts.snapshot()
        assert sum(receipt.balance for receipt in cut.values()) == 30_000 - 4 * rounds
        assert sum(receipt.seq for receipt in cut.values()) == 3 + 4 * rounds * (2 + 1 + 12)
    admin.execute("SELECT pg_stat_force_next_flush()")
    (after,) = admin.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'").fetchone()
    assert after == before


def _legs(way: tuple[str, str]) -> tuple[str, int, str]:
    return way[0], 1, way[1]


def test_one_operation_sent_by_many_at_once_has_one_effect(context: Context) -> None:
    """The account and the session are new, then they are not."""
    callers = 6
    gate = threading.Barrier(callers)

    def run(_: int) -> list[Receipt]:
        with Postgres.open(context) as accounts:
            gate.wait()
            answers = [accounts.open_account("a", 10, op_id=("s", 1))]
            for number in range(2, 12):
                answers.append(accounts.deposit("a", 1, op_id=("s", number)))
            return answers

    with ThreadPoolExecutor(callers) as threads:
        first, *others = threads.map(run, range(callers))
    assert [receipt[:2] for receipt in first] == [(number, 9 + number) for number in range(1, 12)]
    assert all(answers == first for answers in others)


def test_many_open_banks_in_a_blank_database_at_once(database: str) -> None:
    callers = 6
    gate = threading.Barrier(callers)

    def run(caller: int) -> int:
        gate.wait()
        with Postgres.open(Context(postgres_url=database, bank=f"bank {caller // 2}", timeout_s=PATIENCE_S)) as opened:
            return opened._epoch

    with ThreadPoolExecutor(callers) as threads:
        epochs = list(threads.map(run, range(callers)))
    assert epochs[::2] == epochs[1::2]


# -- what is left in the database ----------------------------------------------------------------


@pytest.mark.parametrize(("variant", "setting"), [(None, b"on"), ("commit_on", b"on"), ("commit_off", b"off")])
def test_sessions_commit_as_the_variant_says(url: str, variant: str | None, setting: bytes) -> None:
    shown = [Statement(b"c", b"SHOW synchronous_commit"), Statement(b"i", b"SHOW transaction_isolation")]
    deadline = time.monotonic() + PATIENCE_S
    with (
        Postgres.open(at(f"{url}?options=-c%20synchronous_commit%3Dlocal", variant=variant)) as accounts,
        accounts._link.connection(deadline) as connection,
    ):
        found = connection.run(deadline, *((each, ()) for each in shown))
    assert found == [[(setting,)], [(b"read committed",)]]


def test_rejections_with_op_ids_leave_the_next_number_alone(accounts: Postgres) -> None:
    """The function in the server has moved the session on by then."""
    accounts.deposit("a", 1, op_id=with_ids(1))
    for _ in range(2):
        with pytest.raises(InsufficientFunds):
            accounts.withdraw("a", 1000, op_id=with_ids(2))
        with pytest.raises(UnknownAccount):
            accounts.deposit("nobody", 1, op_id=with_ids(3))
    accounts.deposit("a", 2000, op_id=with_ids(4))
    with pytest.raises(InsufficientFunds):
        accounts.withdraw("a", 1000, op_id=with_ids(2))
    assert accounts.deposit("a", 2000, op_id=with_ids(4))[:2] == (3, 2101)
    assert accounts.balance("a")[:2] == (3, 2101)


def test_a_bank_that_was_dropped_is_lost_and_can_be_opened_again(database: str) -> None:
    context = Context(postgres_url=database, timeout_s=PATIENCE_S)
    with Postgres.open(context) as accounts, psycopg.connect(database, autocommit=True) as admin:
        first = accounts.open_account("a", 1)
        admin.execute("DELETE FROM dask_state_bench.banks")
        accounts._link.close()
        for act in (lambda: accounts.deposit("a", 1), accounts.snapshot):
            with pytest.raises(StateLost):
                act()
        admin.execute("DROP SCHEMA dask_state_bench CASCADE")
        with pytest.raises((StateLost, Unavailable)):
            accounts.balance("a")
        with Postgres.open(context) as blank:
            assert blank.snapshot() == {}
            assert blank.open_account("a", 1).epoch > first.epoch


def test_updates_find_room_beside_their_rows(accounts: Postgres, admin: Any) -> None:
    """Or the thousandth call would do more than the first."""
    for number in range(300):
        accounts.deposit("a", 1, op_id=with_ids(number))
    sizes = (f"pg_total_relation_size('dask_state_bench.{table}')" for table in ("accounts", "sessions"))
    size = f"SELECT {' + '.join(sizes)}"
    (before,) = admin.execute(size).fetchone()
    for number in range(300, 1300):
        accounts.deposit("a", 1, op_id=with_ids(number))
    (after,) = admin.execute(size).fetchone()
    assert after - before <= 4 * 8192
