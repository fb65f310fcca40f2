"""What is special about Redis: how it refuses, hangs, forgets and is reached."""

from __future__ import annotations

import datetime
import ipaddress
import pickle
import socket
import ssl
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.harness.redis_server import RedisServer
from strategies.interface import (
    AccountError,
    Accounts,
    Context,
    Durability,
    Indeterminate,
    Receipt,
    StateLost,
    Unavailable,
)
from strategies.redis_lua import RedisLua
from tests.strategies.servers import free_port, listener, redis_server

TIMEOUT_S = 1.0
SLACK_S = 2.0
SECRET = "s3cret-Pa55word"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server whose settings these tests may change, if they change them back."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def admin(server: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=server) as client:
        yield client


def context(port: int, **options: object) -> Context:
    return Context(redis_url=f"redis://127.0.0.1:{port}/0", bank=uuid.uuid4().hex, timeout_s=TIMEOUT_S, **options)  # type: ignore[arg-type]


def at(url: str, timeout_s: float = TIMEOUT_S) -> Context:
    return Context(redis_url=url, bank=uuid.uuid4().hex, timeout_s=timeout_s)


@pytest.fixture
def accounts(server: int) -> Iterator[RedisLua]:
    with RedisLua.open(context(server)) as opened:
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


# -- reaching the server -------------------------------------------------------------------------


def test_nobody_listens() -> None:
    in_time(lambda: RedisLua.open(context(free_port())), Unavailable)


def test_an_address_from_which_nothing_comes_back() -> None:
    """A full backlog drops connection attempts, as a firewall would."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        fillers = []
        try:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)
            in_time(lambda: RedisLua.open(context(port)), Unavailable)
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("userinfo", ["", f":{SECRET}@"])
def test_a_server_that_accepts_and_never_answers(scheme: str, userinfo: str) -> None:
    with listener(_read_for_ever) as port:
        in_time(lambda: RedisLua.open(at(f"{scheme}://{userinfo}127.0.0.1:{port}/0")), Unavailable)


def test_a_server_that_answers_in_drips() -> None:
    """Each byte comes in time, the reply does not: the deadline is the call's, not a read's."""

    def drip(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"$1000\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.1)

    with listener(drip) as port:
        in_time(lambda: RedisLua.open(context(port)), Unavailable)


def test_a_server_that_speaks_something_else() -> None:
    def http(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with listener(http) as port:
        in_time(lambda: RedisLua.open(context(port)), Unavailable)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path, unixsocket=str(path)), RedisLua.open(at(f"unix://{path}")) as accounts:
        assert accounts.open_account("a", 1)[:2] == (1, 1)
        copy = pickle.loads(pickle.dumps(accounts))
        assert copy.deposit("a", 1)[:2] == (2, 2)
        copy.close()
    in_time(lambda: RedisLua.open(at(f"unix://{tmp_path}/nobody.sock")), Unavailable)


def test_the_database_number_of_the_url_counts(server: int) -> None:
    bank = uuid.uuid4().hex
    three, four = (Context(redis_url=f"redis://127.0.0.1:{server}/{number}", bank=bank) for number in (3, 4))
    with RedisLua.open(three) as in_three, RedisLua.open(four) as in_four:
        in_three.open_account("a", 3)
        assert in_four.snapshot() == {}
        in_four.open_account("a", 4)
        assert in_three.balance("a").balance == 3
    in_time(lambda: RedisLua.open(at(f"redis://127.0.0.1:{server}/9999")), Unavailable)


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "http://localhost", "redis://localhost:port/0", "redis://localhost/0?no_such_option=1",
     "redis://localhost/0?socket_timeout=soon", "redis://[::1"],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        RedisLua.open(at(url))


@pytest.mark.parametrize(
    "url",
    [f"http://:{SECRET}@localhost", f"redis://:{SECRET}@localhost:port", f"redis://:{SECRET}/x@localhost:6379",
     f"redis://:{SECRET}@localhost/0?no_such_option=1", f"redis://localhost/0?password={SECRET}&no_such_option=1"],
)  # fmt: skip
def test_an_error_about_a_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        RedisLua.open(at(url))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# -- who may --------------------------------------------------------------------------------------


def test_passwords(tmp_path: Path) -> None:
    with redis_server(tmp_path, requirepass=SECRET) as port:
        with RedisLua.open(at(f"redis://:{SECRET}@127.0.0.1:{port}/0")) as accounts:
            assert accounts.open_account("a", 1)[:2] == (1, 1)
            assert SECRET not in repr(accounts)
            assert SECRET not in repr(vars(accounts)["_link"])
        for wrong in (f":not-{SECRET}@", f"nobody:not-{SECRET}@", ""):
            refused = at(f"redis://{wrong}127.0.0.1:{port}/0")
            error = in_time(partial(RedisLua.open, refused), Unavailable)
            assert SECRET not in "".join(traceback.format_exception(error))
            assert SECRET not in repr(error) + repr(refused)


def test_a_password_that_changes_under_an_open_handle(tmp_path: Path) -> None:
    with redis_server(tmp_path, requirepass=SECRET) as port:
        with RedisLua.open(at(f"redis://:{SECRET}@127.0.0.1:{port}/0")) as accounts:
            receipt = accounts.open_account("a", 1)
            with redis.Redis(port=port, password=SECRET) as admin:
                admin.config_set("requirepass", f"new-{SECRET}")
                admin.client_kill_filter(_type="normal", skipme=True)
            in_time(lambda: accounts.deposit("a", 1), Unavailable)
            with redis.Redis(port=port, password=f"new-{SECRET}") as admin:
                admin.config_set("requirepass", SECRET)
            assert accounts.balance("a") == receipt


def test_a_user_who_may_not_read_settings(server: int, admin: redis.Redis) -> None:
    """Hosted servers hide CONFIG. Where a variant is asked for, that is worth a warning; it is no reason to refuse."""
    admin.acl_setuser(
        "guest", enabled=True, passwords=[f"+{SECRET}"], categories=["+@all"], commands=["-config"], keys=["*"]
    )
    url = f"redis://guest:{SECRET}@127.0.0.1:{server}/0"
    with RedisLua.open(at(url)) as accounts:
        assert accounts.open_account("a", 1)[:2] == (1, 1)
    with pytest.warns(RuntimeWarning, match="everysec"):
        RedisLua.open(Context(redis_url=url, bank=uuid.uuid4().hex, variant="everysec")).close()


def test_a_user_who_may_not_run_scripts(server: int, admin: redis.Redis) -> None:
    admin.acl_setuser("reader", enabled=True, passwords=[f"+{SECRET}"], categories=["+@all", "-@scripting"], keys=["*"])
    error = in_time(lambda: RedisLua.open(at(f"redis://reader:{SECRET}@127.0.0.1:{server}/0")), Unavailable)
    assert SECRET not in "".join(traceback.format_exception(error))


# -- how the server is set ------------------------------------------------------------------------


@pytest.mark.parametrize("durability", [Durability.VOLATILE, Durability.PROCESS_CRASH, Durability.POWER_LOSS])
def test_a_variant_is_opened_only_on_a_server_that_is_set_so(durability: Durability) -> None:
    with RedisServer(durability) as server:
        for variant in RedisLua.capabilities.variants:
            wanted = Context(redis_url=server.url, bank="b", variant=variant)
            if RedisLua.claims(variant).durability is durability:
                RedisLua.open(wanted).close()
            else:
                with pytest.raises(Unavailable, match=variant):
                    RedisLua.open(wanted)
        RedisLua.open(Context(redis_url=server.url, bank="b")).close()


def test_a_server_that_evicts_accounts_is_refused(server: int, admin: redis.Redis) -> None:
    try:
        for policy in ("allkeys-lru", "allkeys-lfu", "allkeys-random"):
            admin.config_set("maxmemory-policy", policy)
            RedisLua.open(context(server)).close()  # without a limit it never does
            admin.config_set("maxmemory", "1gb")
            error = in_time(lambda: RedisLua.open(context(server)), Unavailable)
            assert "maxmemory-policy" in str(error)
            admin.config_set("maxmemory", "0")
        admin.config_set("maxmemory", "1gb")
        for policy in ("noeviction", "volatile-lru"):  # accounts have no time to live
            admin.config_set("maxmemory-policy", policy)
            RedisLua.open(context(server)).close()
    finally:
        admin.config_set("maxmemory", "0")
        admin.config_set("maxmemory-policy", "noeviction")


def test_a_full_server_changes_nothing_and_says_so(server: int, admin: redis.Redis, accounts: RedisLua) -> None:
    accounts.open_account("b", 100)
    before = accounts.snapshot()
    try:
        admin.config_set("maxmemory", "1mb")
        for act in (
            lambda: accounts.deposit("a", 1),
            lambda: accounts.deposit("a", 1, op_id=("s", 1)),
            lambda: accounts.withdraw("a", 1),
            lambda: accounts.transfer("a", "b", 1),
            lambda: accounts.transfer("a", "b", 1, op_id=("s", 2)),
            lambda: accounts.open_account("c", 1),
        ):
            in_time(act, Unavailable)
        assert accounts.snapshot() == before, "reading needs no memory"
    finally:
        admin.config_set("maxmemory", "0")
    assert accounts.snapshot() == before
    assert accounts.deposit("a", 1, op_id=("s", 1))[:2] == (2, 101)


def test_a_read_only_server_changes_nothing_and_says_so(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path) as port,
        RedisLua.open(context(port)) as accounts,
        redis.Redis(port=port) as admin,
    ):
        receipt = accounts.open_account("a", 100)
        admin.config_set("min-replicas-to-write", 1)
        in_time(lambda: accounts.deposit("a", 1), Unavailable)
        admin.config_set("min-replicas-to-write", 0)
        assert accounts.balance("a") == receipt
        admin.replicaof("127.0.0.1", free_port())
        in_time(lambda: accounts.deposit("a", 1), Unavailable)
        admin.replicaof("NO", "ONE")
        assert accounts.deposit("a", 1)[:2] == (2, 101)


# -- what the server forgets ----------------------------------------------------------------------


def test_a_server_that_forgot_its_scripts_learns_them_again(admin: redis.Redis, accounts: RedisLua) -> None:
    for number, act in enumerate(
        (lambda: accounts.deposit("a", 1), lambda: accounts.balance("a"), lambda: accounts.snapshot()["a"]), 1
    ):
        admin.script_flush()
        assert act()[:2] == (2, 101), number


def test_a_flushed_server_has_lost_the_state(server: int, admin: redis.Redis, accounts: RedisLua) -> None:
    bank = Context(redis_url=f"redis://127.0.0.1:{server}/0", bank=accounts._arrival[1], timeout_s=TIMEOUT_S)
    epoch = accounts.balance("a").epoch
    copy = pickle.loads(pickle.dumps(accounts))
    admin.flushall()
    assert_lost(accounts)
    assert_lost(copy)
    with RedisLua.open(bank) as blank:
        assert blank.snapshot() == {}
        opened = blank.open_account("a", 7)
        assert opened == Receipt(1, 7, opened.epoch)
        assert opened.epoch > epoch
        assert_lost(accounts)
        assert_lost(copy)
        assert blank.snapshot() == {"a": opened}
    copy.close()


def assert_lost(accounts: Accounts) -> None:
    """Every call, the audit included."""
    in_time(lambda: accounts.deposit("a", 1), StateLost)
    in_time(lambda: accounts.withdraw("a", 1, op_id=("s", 1)), StateLost)
    in_time(lambda: accounts.transfer("a", "b", 1), StateLost)
    in_time(lambda: accounts.open_account("a", 1), StateLost)
    in_time(lambda: accounts.balance("a"), StateLost)
    in_time(accounts.snapshot, StateLost)


def test_a_bank_that_lost_its_accounts_is_not_taken_for_a_blank_one(admin: redis.Redis, accounts: RedisLua) -> None:
    accounts.deposit("a", 1, op_id=("s", 1))
    admin.delete(accounts._bank_key)
    assert_lost(accounts)


def test_a_server_killed_and_started_again_on_its_log(tmp_path: Path) -> None:
    with RedisServer(Durability.POWER_LOSS) as server:
        with RedisLua.open(Context(redis_url=server.url, bank="b", variant="always", timeout_s=TIMEOUT_S)) as accounts:
            accounts.open_account("a", 100)
            receipt = accounts.deposit("a", 1, op_id=("s", 1))
            server.kill()
            in_time(lambda: accounts.deposit("a", 1, op_id=("s", 2)), Unavailable)
            in_time(lambda: accounts.balance("a"), Unavailable)
            server.start()
            assert accounts.deposit("a", 1, op_id=("s", 1)) == receipt
            assert accounts.deposit("a", 1, op_id=("s", 2))[:2] == (3, 102)


def test_a_volatile_server_killed_and_started_again_has_lost_the_state() -> None:
    with RedisServer(Durability.VOLATILE) as server:
        with RedisLua.open(Context(redis_url=server.url, bank="b", timeout_s=TIMEOUT_S)) as accounts:
            accounts.open_account("a", 100)
            server.kill()
            server.start()
            assert_lost(accounts)


def test_a_snapshot_of_more_accounts_than_one_page(server: int) -> None:
    with RedisLua.open(Context(redis_url=f"redis://127.0.0.1:{server}/0", bank=uuid.uuid4().hex)) as accounts:
        for number in range(2_500):
            accounts.open_account(f"account-{number}", number)
        snapshot = accounts.snapshot()
        assert {name: receipt[:2] for name, receipt in snapshot.items()} == {
            f"account-{number}": (1, number) for number in range(2_500)
        }


# -- connections that break -----------------------------------------------------------------------


class _Cut:
    """Passes everything on to the server until told to; then hangs up when a call was sent, before its reply."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.armed = threading.Event()
        self.deliver = True

    def __call__(self, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as onward:
            while chunk := connection.recv(65_536):
                if self.armed.is_set():
                    if self.deliver:
                        onward.sendall(chunk)
                        onward.recv(65_536)  # the server has answered: the change has happened
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                onward.sendall(chunk)
                connection.sendall(onward.recv(65_536))


@pytest.mark.parametrize("deliver", [True, False], ids=["after it was applied", "before it was applied"])
def test_a_connection_that_breaks_in_mid_call(server: int, deliver: bool) -> None:
    cut = _Cut(server)
    cut.deliver = deliver
    with listener(cut) as port, RedisLua.open(context(port)) as accounts:
        opened = accounts.open_account("a", 100)
        cut.armed.set()
        in_time(lambda: accounts.deposit("a", 1, op_id=("s", 1)), Indeterminate)
        cut.armed.clear()
        assert accounts.balance("a")[:2] == ((2, 101) if deliver else (1, 100))
        assert accounts.deposit("a", 1, op_id=("s", 1)) == Receipt(2, 101, opened.epoch)
        assert accounts.balance("a")[:2] == (2, 101)
        cut.armed.set()
        in_time(lambda: accounts.balance("a"), Unavailable)
        in_time(accounts.snapshot, Unavailable)
        cut.armed.clear()
        assert accounts.balance("a")[:2] == (2, 101)


def test_an_idle_connection_that_the_server_closed_is_replaced(admin: redis.Redis, accounts: RedisLua) -> None:
    for number in range(3):
        admin.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.05)
        assert accounts.deposit("a", 1)[:2] == (number + 2, 101 + number)


def test_threads_that_call_while_the_server_is_paused_keep_to_the_deadline(
    admin: redis.Redis, accounts: RedisLua
) -> None:
    admin.client_pause(int(1_000 * (TIMEOUT_S + 0.5)), all=True)
    began = time.monotonic()
    answers: list[type] = []

    def deposit(number: int) -> None:
        try:
            accounts.deposit("a", 1, op_id=("s", number))
        except AccountError as error:
            answers.append(type(error))

    threads = [threading.Thread(target=deposit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert set(answers) <= {Indeterminate, Unavailable}
    assert len(answers) == 6
    time.sleep(0.7)
    for number in range(6):
        accounts.deposit("a", 1, op_id=("s", number))
    assert accounts.balance("a")[:2] == (7, 106)


def test_a_closed_handle_leaves_no_connection(admin: redis.Redis, server: int) -> None:
    with RedisLua.open(context(server)) as accounts:
        accounts.open_account("a", 1)
        name = {client["addr"] for client in admin.client_list()}
    deadline = time.monotonic() + 5
    while len(admin.client_list()) >= len(name):
        assert time.monotonic() < deadline, "a connection of the closed handle is still open"
        time.sleep(0.01)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_port(server: int, certificate: Path) -> Iterator[int]:
    """Ends TLS in front of the server: the one from the wheel is built without."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        connection.settimeout(10)
        with tls.wrap_socket(connection.dup(), server_side=True) as secured:
            _forward_secured(secured, server)

    with listener(serve) as port:
        yield port


def _forward_secured(secured: ssl.SSLSocket, port: int) -> None:
    """One request, one reply: an SSLSocket must not be read and written by two threads at once."""
    with socket.create_connection(("127.0.0.1", port)) as onward:
        while chunk := secured.recv(65_536):
            onward.sendall(chunk)
            secured.sendall(onward.recv(65_536))


def test_tls(tls_port: int, certificate: Path) -> None:
    with RedisLua.open(at(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}", 5)) as accounts:
        receipt = accounts.open_account("a", 1)
        copy = pickle.loads(pickle.dumps(accounts))
        assert copy.balance("a") == receipt
        assert copy.deposit("a", 1)[:2] == (2, 2)
        copy.close()


def test_a_certificate_that_nobody_vouches_for(tls_port: int) -> None:
    in_time(lambda: RedisLua.open(at(f"rediss://127.0.0.1:{tls_port}/0")), Unavailable)


def test_tls_to_a_server_without(server: int) -> None:
    in_time(lambda: RedisLua.open(at(f"rediss://127.0.0.1:{server}/0")), Unavailable)


def test_no_tls_to_a_server_with(tls_port: int) -> None:
    in_time(lambda: RedisLua.open(at(f"redis://127.0.0.1:{tls_port}/0")), Unavailable)


def _read_for_ever(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


# -- why it has connections of its own -------------------------------------------------------------


@pytest.mark.parametrize("sends_again", [True, False])
def test_the_clients_own_default_sends_again_what_may_have_happened(sends_again: bool) -> None:
    """redis-py 8 does it without a word, up to ten times: one `incr` around a pause of the server counts twice or more.

    Not so a client that was made by `from_url`.
    """
    with RedisServer(Durability.VOLATILE) as running:
        parts = urlsplit(running.url)
        client = (
            redis.Redis(str(parts.hostname), parts.port or 0, socket_timeout=0.3)
            if sends_again
            else redis.Redis.from_url(running.url, socket_timeout=0.3)
        )
        with closing(client):
            client.set("counter", 0)
            running.pause()
            resumed = threading.Timer(0.75, running.resume)
            resumed.start()
            try:
                if sends_again:
                    assert client.incr("counter") > 1
                else:
                    with pytest.raises(redis.TimeoutError):
                        client.incr("counter")
            finally:
                resumed.join()
            assert (int(client.get("counter") or 0) > 1) == sends_again
