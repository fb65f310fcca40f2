"""What is special about ZooKeeper: conflicts, what an ensemble's copies know, how it is reached, what has room."""

from __future__ import annotations

import pickle
import random
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.proxy import Proxy
from benchmarks.harness.servers import addresses_of, free_port
from benchmarks.harness.zookeeper_server import ZookeeperServer, _Node
from strategies.interface import (
    DEDUP_WINDOW,
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
from strategies.zookeeper import Zookeeper, _name
from tests.strategies.servers import listener

pytest.importorskip("kazoo")
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.serialization import Transaction

from strategies.support import zookeeper_link

TIMEOUT_S = 1.0
SLACK_S = 2.0
BATCH_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    if (lacking := ZookeeperServer.missing()) is not None:
        pytest.skip(lacking)
    with ZookeeperServer(Durability.PROCESS_CRASH) as started:
        yield started


@pytest.fixture
def admin(server: ZookeeperServer) -> Iterator[KazooClient]:
    with connected(server.url) as client:
        yield client


@contextmanager
def connected(url: str, **options: Any) -> Iterator[KazooClient]:
    client = KazooClient(",".join(f"{host}:{port}" for host, port in addresses_of(url)), **options)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


def at(url: str, timeout_s: float = TIMEOUT_S, **options: Any) -> Context:
    return Context(zookeeper_url=url, bank=uuid.uuid4().hex, timeout_s=timeout_s, **options)


@pytest.fixture
def accounts(server: ZookeeperServer) -> Iterator[Zookeeper]:
    with Zookeeper.open(at(server.url, 5.0)) as opened:
        opened.open_account("a", 100)
        yield opened


def in_time(act: Callable[[], object], error: type[AccountError]) -> AccountError:
    """Assert that it raises exactly this error before the deadline; return the error."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        act()
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert type(caught.value) is error
    return caught.value


# -- reaching the server ---------------------------------------------------------------------------


def test_nobody_listens() -> None:
    in_time(lambda: Zookeeper.open(at(f"zookeeper://127.0.0.1:{free_port()}")), Unavailable)


def _hang_up(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.shutdown(socket.SHUT_RDWR)


def _read_for_ever(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def _http(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def _drip(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(struct.pack("!i", 1000))
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("serve", [_hang_up, _read_for_ever, _http, _drip])
def test_what_is_no_server(serve: Callable[[socket.socket], None]) -> None:
    with listener(serve) as port:
        in_time(lambda: Zookeeper.open(at(f"zookeeper://127.0.0.1:{port}")), Unavailable)


def test_of_several_addresses_one_that_serves_is_enough(server: ZookeeperServer) -> None:
    ((host, port),) = addresses_of(server.url)
    with listener(_read_for_ever) as deaf:
        for _ in range(4):  # in an order of chance
            url = f"zookeeper://127.0.0.1:{free_port()},127.0.0.1:{deaf},{host}:{port}"
            with Zookeeper.open(at(url, 3.0)) as accounts:
                assert accounts.open_account("a", 1)[:2] == (1, 1)


@pytest.mark.parametrize(
    "url", ["", "localhost:2181", "http://localhost", "zookeeper://", "zookeeper://a,,b", "zookeeper://h:x", "zookeeper://h//x"]
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="zookeeper://HOST:PORT"):
        Zookeeper.open(at(url))


def test_the_path_of_the_url_counts(server: ZookeeperServer, admin: KazooClient) -> None:
    bank = uuid.uuid4().hex
    one, other = (Context(zookeeper_url=f"{server.url}{path}", bank=bank) for path in ("/x/y", ""))
    with Zookeeper.open(one) as in_one, Zookeeper.open(other) as in_other:
        in_one.open_account("a", 3)
        assert in_other.snapshot() == {}
        copy = pickle.loads(pickle.dumps(in_one))
        assert copy.balance("a").balance == 3
        copy.close()
    assert admin.exists(f"/x/y/{bank}")
    assert admin.exists(f"/dask-state-bench/{bank}")


@given(st.text(min_size=1))
def test_any_name_makes_a_znodes_name(text: str) -> None:
    assert "/" not in _name(text)
    assert _name(text) not in (".", "..")
    assert _name(text).isascii()
    assert unquote(_name(text), errors="surrogatepass") == text


# -- what the server has lost, or never had --------------------------------------------------------


def test_a_bank_that_is_gone_is_lost(server: ZookeeperServer, admin: KazooClient, accounts: Zookeeper) -> None:
    context = accounts._context
    epoch = accounts.balance("a").epoch
    admin.delete(f"/dask-state-bench/{context.bank}", recursive=True)
    for again in range(2):
        in_time(lambda: accounts.deposit("a", 1), StateLost)
        in_time(lambda: accounts.open_account("b", 1, op_id=("s", 1)), StateLost)
        in_time(lambda: accounts.balance("a"), StateLost)
        in_time(accounts.snapshot, StateLost)
        if not again:
            with Zookeeper.open(context) as blank:
                assert blank.snapshot() == {}
                assert blank.open_account("a", 7).epoch > epoch


def test_a_znode_that_is_no_bank_is_left_alone(server: ZookeeperServer, admin: KazooClient) -> None:
    context = at(server.url)
    admin.create(f"/dask-state-bench/{context.bank}", b"mine", makepath=True)
    in_time(lambda: Zookeeper.open(context), Unavailable)
    assert admin.get(f"/dask-state-bench/{context.bank}")[0] == b"mine"


# -- others change the same ------------------------------------------------------------------------


def test_a_change_that_somebody_else_made_in_between_is_not_overwritten(
    server: ZookeeperServer, accounts: Zookeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = zookeeper_link.Connection.change
    times = iter(range(3))
    with Zookeeper.open(accounts._context) as other:

        def after_another(connection: Any, operations: Any) -> Any:
            if next(times, None) is not None:
                with monkeypatch.context() as inner:
                    inner.setattr(zookeeper_link.Connection, "change", change)
                    other.withdraw("a", 30)
            return change(connection, operations)

        monkeypatch.setattr(zookeeper_link.Connection, "change", after_another)
        assert accounts.deposit("a", 1)[:2] == (5, 11)
        assert accounts.withdraw("a", 11, op_id=("s", 1))[:2] == (6, 0)
        with pytest.raises(InsufficientFunds):
            accounts.withdraw("a", 1)


def test_a_number_that_expires_in_between_is_not_taken_for_new(
    accounts: Zookeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session's highest number rises after it was read: what was remembered of it may be gone."""
    accounts.deposit("a", 1, op_id=("s", 5))
    accounts.deposit("a", 1, op_id=("s", 100))
    change = zookeeper_link.Connection.change
    times = iter(range(1))
    with Zookeeper.open(accounts._context) as other:

        def after_another(connection: Any, operations: Any) -> Any:
            if next(times, None) is not None:
                with monkeypatch.context() as inner:
                    inner.setattr(zookeeper_link.Connection, "change", change)
                    other.deposit("a", 1, op_id=("s", 100 + DEDUP_WINDOW))
            return change(connection, operations)

        monkeypatch.setattr(zookeeper_link.Connection, "change", after_another)
        with pytest.raises(AccountError, match="behind"):
            accounts.deposit("a", 1, op_id=("s", 50))
    assert accounts.balance("a")[:2] == (4, 103)


# -- what has room ---------------------------------------------------------------------------------


def test_a_batch_that_no_request_can_hold_is_applied_in_parts(server: ZookeeperServer) -> None:
    names = [f"{number:04}" + "\N{GRINNING FACE}" * 63 for number in range(1_500)]
    operations = [Operation(Function.OPEN_ACCOUNT, name, 1, op_id=OpId("s", n)) for n, name in enumerate(names)]
    with Zookeeper.open(at(server.url, BATCH_S)) as accounts:
        first = accounts.apply(operations)
        assert {answer[:2] for answer in first} == {(1, 1)}  # type: ignore[index]
        assert accounts.apply(operations) == first
        assert accounts.snapshot() == dict(zip(names, first, strict=True))


def test_a_sessions_memory_is_bounded(admin: KazooClient, accounts: Zookeeper) -> None:
    rising = 0
    randomly = random.Random(3)
    for _ in range(6):
        numbers = sorted({rising + randomly.randrange(8_000) for _ in range(3_000)})
        rising = numbers[-1] + 1
        accounts.apply([Operation(Function.DEPOSIT, "a", 1, op_id=OpId("s", number)) for number in numbers])
    assert rising > 3 * DEDUP_WINDOW
    path = f"{accounts._bank}/sessions/s"
    assert len(admin.get_children(path)) == DEDUP_WINDOW // 50
    assert sum(len(admin.get(f"{path}/{block}")[0]) for block in admin.get_children(path)) < 60 * DEDUP_WINDOW


# -- connections that break ------------------------------------------------------------------------


class _Cut:
    """Passes everything on, until told to hang up: when a change was sent, before its reply."""

    def __init__(self, address: tuple[str, int], *, deliver: bool) -> None:
        self._address = address
        self._deliver = deliver
        self.armed = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        with socket.create_connection(self._address) as onward:
            cut, answered = threading.Event(), threading.Event()

            def pass_back() -> None:
                while chunk := onward.recv(65_536):
                    if not cut.is_set():
                        connection.sendall(chunk)
                    answered.set()

            replies = threading.Thread(target=pass_back)
            replies.start()
            try:
                while chunk := connection.recv(65_536):
                    if self.armed.is_set() and chunk[8:12] == struct.pack("!i", Transaction.type):
                        cut.set()
                        answered.clear()
                        if self._deliver:
                            onward.sendall(chunk)
                            answered.wait(5)
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    onward.sendall(chunk)
            finally:
                onward.shutdown(socket.SHUT_RDWR)
                replies.join()


@pytest.mark.parametrize("deliver", [True, False], ids=["after it was applied", "before it was applied"])
def test_a_connection_that_breaks_in_mid_call(server: ZookeeperServer, deliver: bool) -> None:
    (address,) = addresses_of(server.url)
    cut = _Cut(address, deliver=deliver)
    with listener(cut) as port, Zookeeper.open(at(f"zookeeper://127.0.0.1:{port}")) as accounts:
        opened = accounts.open_account("a", 100)
        cut.armed.set()
        in_time(lambda: accounts.deposit("a", 1, op_id=("s", 1)), Indeterminate)
        cut.armed.clear()
        assert accounts.balance("a")[:2] == ((2, 101) if deliver else (1, 100))
        assert accounts.deposit("a", 1, op_id=("s", 1)) == Receipt(2, 101, opened.epoch)
        assert accounts.balance("a")[:2] == (2, 101)


def test_a_session_that_the_server_ended_is_replaced() -> None:
    with ZookeeperServer(Durability.PROCESS_CRASH, settings={"maxSessionTimeout": "1000"}) as short:
        with Zookeeper.open(at(short.url)) as accounts:
            accounts.open_account("a", 1)
            time.sleep(2.5)
            assert accounts.deposit("a", 1)[:2] == (2, 2)


def test_a_server_that_is_killed_and_comes_back() -> None:
    with ZookeeperServer(Durability.POWER_LOSS) as server:
        with Zookeeper.open(at(server.url)) as accounts:
            accounts.open_account("a", 100)
            receipt = accounts.deposit("a", 1, op_id=("s", 1))
            server.kill()
            in_time(lambda: accounts.deposit("a", 1, op_id=("s", 2)), Unavailable)
            in_time(lambda: accounts.balance("a"), Unavailable)
            server.start()
            assert accounts.deposit("a", 1, op_id=("s", 1)) == receipt
            assert accounts.deposit("a", 1, op_id=("s", 2))[:2] == (3, 102)


# -- why it has connections of its own -------------------------------------------------------------


def test_the_clients_own_connection_sends_what_its_caller_gave_up() -> None:
    """What is called while kazoo has no connection waits for one, however long, and can then be taken back no more."""
    with ZookeeperServer(Durability.PROCESS_CRASH) as server, connected(server.url) as client:
        client.create("/counter", b"0")
        server.kill()
        deadline = time.monotonic() + 10
        while client.connected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        late = client.set_async("/counter", b"1")
        with pytest.raises(KazooTimeoutError):
            late.get(timeout=0.3)
        server.start()
        assert late.get(timeout=20).version == 1
        assert client.get("/counter")[0] == b"1"


@pytest.mark.parametrize("calls", [True, False], ids=["who calls", "who is silent"])
def test_the_clients_own_connection_stays_with_a_server_that_hangs(calls: bool) -> None:
    with ZookeeperServer(Durability.PROCESS_CRASH) as server, connected(server.url, timeout=1.0) as client:
        server.pause()
        try:
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                if calls:
                    client.exists_async("/")
                time.sleep(0.02)
            assert client.connected == calls
        finally:
            server.resume()


# -- an ensemble -----------------------------------------------------------------------------------


def test_one_server_is_no_ensemble(server: ZookeeperServer) -> None:
    in_time(lambda: Zookeeper.open(at(server.url, variant="ensemble")), Unavailable)
    for variant in (None, "synced", "unsynced"):  # whether it syncs, it does not say
        Zookeeper.open(at(server.url, variant=variant)).close()


def test_the_others_go_on_without_their_leader() -> None:
    with ZookeeperServer(Durability.REPLICATED, nodes=3) as server:
        with Zookeeper.open(at(server.url, variant="ensemble")) as accounts:
            accounts.open_account("a", 100)
            receipt = accounts.deposit("a", 1, op_id=("s", 1))
            server.kill()
            deadline = time.monotonic() + 20
            while True:
                try:
                    answer = accounts.deposit("a", 1, op_id=("s", 2))
                except (Indeterminate, Unavailable):
                    assert time.monotonic() < deadline, "nobody was elected"
                else:
                    break
            assert not server.runs
            assert answer[:2] == (3, 102)
            assert accounts.deposit("a", 1, op_id=("s", 1)) == receipt
            server.start()
            assert accounts.balance("a") == answer


@contextmanager
def _with_one_behind(lag_s: float) -> Iterator[tuple[str, str]]:
    """URLs of an ensemble's other servers, and of a follower that hears of changes so much later."""
    with ExitStack() as stack:
        ports = [(free_port(), free_port()) for _ in range(3)]
        proxy = stack.enter_context(Proxy([("127.0.0.1", quorum) for quorum, _ in ports[1:]]))
        near = [f"127.0.0.1:{quorum}:{election}:participant" for quorum, election in ports]
        far = [
            near[0],
            *(
                f"127.0.0.1:{port}:{election}:participant"
                for (_, port), (_, election) in zip(proxy.addresses, ports[1:], strict=True)
            ),
        ]
        nodes = [_Node(Durability.REPLICATED) for _ in ports]
        for place, node in enumerate(nodes):
            node.place, node.peers = place, near if place else far
            stack.callback(node.stop)
        for wave in (nodes[1:], nodes[:1]):  # the first one joins those that have a leader
            for node in wave:
                node.start()
            deadline = time.monotonic() + 20
            while not all(node.mode for node in wave):
                assert time.monotonic() < deadline, "no leader"
                time.sleep(0.02)
        proxy.delay(lag_s, lag_s, seed=1)
        yield f"{nodes[1].url},{nodes[2].url.removeprefix('zookeeper://')}", nodes[0].url


def test_a_read_of_a_server_that_is_behind_is_stale_and_the_strategys_is_not(server: ZookeeperServer) -> None:
    """A plain read there gives the old balance; one behind a change, or behind `sync` while all is well, the new."""
    with _with_one_behind(0.4) as (near, far), connected(far) as behind:
        bank = uuid.uuid4().hex
        with (
            Zookeeper.open(Context(zookeeper_url=near, bank=bank, variant="ensemble")) as writer,
            Zookeeper.open(Context(zookeeper_url=far, bank=bank)) as reader,
            Zookeeper(Context(zookeeper_url=far, bank=bank, variant="synced"), writer._epoch) as careless,
        ):
            with pytest.raises(Unavailable, match="synced"):
                Zookeeper.open(careless._context)
            path = f"{writer._bank}/accounts/a"
            writer.open_account("a", 100)
            behind.sync(path)
            assert careless.balance("a").balance == 100  # connected by now
            changed = writer.deposit("a", 1)
            assert behind.get(path)[0] == b"1 100"
            assert careless.balance("a").balance == 100
            assert reader.balance("a") == changed

            changed = writer.deposit("a", 1)
            assert behind.get(path)[0] == b"2 101"
            behind.sync(path)
            assert behind.get(path)[0] == b"3 102"

            writer.open_account("b", 10)
            with pytest.raises(UnknownAccount):
                careless.withdraw("b", 10)
            assert reader.withdraw("b", 10)[:2] == (2, 0)
            writer.deposit("a", 1)
            assert reader.snapshot()["a"][:2] == (4, 103)
