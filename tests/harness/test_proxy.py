"""The proxy passes bytes as they are, until it is told not to; then no stream loses any and goes on."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from benchmarks.harness import proxy as proxies
from benchmarks.harness.helper_process import HelperFailed, HelperProcess
from benchmarks.harness.proxy import Proxy, Way
from tests.harness.commands import is_alive
from tests.strategies.servers import listener

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 10.0


class Echo:
    """A server that answers each piece with itself, and remembers all that it received."""

    def __init__(self) -> None:
        self.received = b""
        self.connections = 0

    def serve(self, connection: socket.socket) -> None:
        self.connections += 1
        while piece := connection.recv(65536):
            self.received += piece
            connection.sendall(piece)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with listener(echo.serve) as port, Proxy([("127.0.0.1", port)]) as started:
        yield started


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def connected(proxy: Proxy, stack: ExitStack, timeout_s: float = PATIENCE_S) -> socket.socket:
    return stack.enter_context(socket.create_connection(proxy.addresses[0], timeout=timeout_s))


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The answer, which may come in pieces."""
    connection.sendall(request)
    answer = b""
    while len(answer) < len(request):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError("closed")
        answer += piece
    return answer


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_passes_everything_in_both_directions(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    """More than it buffers, to a client that reads nothing until all is sent."""
    sent = os.urandom(8 << 20)
    connection = connected(proxy, stack)
    thread = threading.Thread(target=connection.sendall, args=(sent,))
    thread.start()
    digest, size = hashlib.sha256(), 0
    while size < len(sent):
        piece = connection.recv(65536)
        digest.update(piece)
        size += len(piece)
    thread.join()
    assert digest.digest() == hashlib.sha256(sent).digest()
    counts = proxy.counts()
    assert (counts.connections, counts.requests_bytes, counts.replies_bytes) == (1, len(sent), len(sent))


def test_an_end_is_passed_on(stack: ExitStack) -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_RDWR)

    with listener(hang_up) as port, Proxy([("127.0.0.1", port)]) as proxy:
        connection = connected(proxy, stack)
        assert connection.recv(3) == b"bye"
        assert connection.recv(3) == b""


def test_a_target_that_is_not_there_is_a_broken_connection(stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()
    with Proxy([nobody]) as proxy, pytest.raises(ConnectionError):
        ask(connected(proxy, stack), b"anyone?")


def test_several_targets_are_kept_apart(stack: ExitStack) -> None:
    echoes = [Echo(), Echo()]
    ports = [stack.enter_context(listener(each.serve)) for each in echoes]
    proxy = stack.enter_context(Proxy([("127.0.0.1", port) for port in ports]))
    for address, request in zip(proxy.addresses, (b"one", b"two"), strict=True):
        ask(stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)), request)
    assert [each.received for each in echoes] == [b"one", b"two"]


def test_late_bytes_keep_their_order(proxy: Proxy, stack: ExitStack) -> None:
    connection = connected(proxy, stack)
    ask(connection, b"before")
    proxy.delay(0.05, 0.1, seed=1)
    began = time.monotonic()
    for number in range(20):
        connection.sendall(b"%03d" % number)
        time.sleep(0.002)
    answer = b""
    while len(answer) < 60:
        answer += connection.recv(60)
    assert time.monotonic() - began >= 0.1
    assert answer == b"".join(b"%03d" % number for number in range(20))
    assert proxy.counts().requests_delayed >= 1
    assert proxy.counts().replies_delayed >= 1


def test_ends_that_are_late_are_passed_on_when_it_is_healed(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    connections = [connected(proxy, stack) for _ in range(4)]
    for connection in connections:
        assert ask(connection, b"here") == b"here"
    proxy.delay(60.0, 60.0, seed=1)
    for connection in connections:
        connection.sendall(b"last")
        connection.shutdown(socket.SHUT_WR)
    eventually(lambda: proxy.counts().requests_delayed == 4)
    proxy.heal()
    eventually(lambda: echo.received == 4 * b"here" + 4 * b"last")
    assert ask(connected(proxy, stack), b"after") == b"after"


def test_one_direction_can_be_late(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    connection = connected(proxy, stack)
    proxy.behave(Way(), Way(delay_s=(30.0, 30.0)))
    connection.sendall(b"request")
    eventually(lambda: echo.received == b"request")
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PATIENCE_S)
    proxy.heal()  # does not wait for what is late
    assert connection.recv(7) == b"request"
    assert proxy.counts().requests_delayed == 0


def test_a_dropped_reply_ends_its_connection_after_the_effect(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    connection = connected(proxy, stack)
    ask(connection, b"before")
    proxy.drop_replies(1.0, seed=1)
    with pytest.raises(ConnectionResetError):
        ask(connection, b"effect")
    assert echo.received == b"beforeeffect"
    proxy.heal()
    assert ask(connected(proxy, stack), b"after") == b"after"
    counts = proxy.counts()
    assert (counts.replies_dropped, counts.connections_reset) == (1, 1)


def test_the_seed_decides_which_replies_are_dropped(proxy: Proxy, stack: ExitStack) -> None:
    def outcomes(seed: int) -> list[bool]:
        proxy.drop_replies(0.5, seed=seed)
        found = []
        for _ in range(20):
            try:
                found.append(ask(connected(proxy, stack), b"x") == b"x")
            except ConnectionResetError:
                found.append(False)
        return found

    first = outcomes(1)
    assert True in first
    assert False in first
    assert outcomes(1) == first
    assert outcomes(2) != first


def test_half_open_connections_pass_requests_and_no_replies(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    used, idle = connected(proxy, stack), connected(proxy, stack)
    ask(used, b"1")
    ask(idle, b"2")
    proxy.half_open()
    late = connected(proxy, stack)
    for connection in (used, late):
        connection.sendall(b"3")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
    assert echo.received == b"1233"
    eventually(lambda: proxy.counts().replies_swallowed_bytes == 2)
    proxy.heal()
    for connection in (used, late):
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert ask(idle, b"4") == b"4"  # it lost nothing, so it goes on


def test_a_partition_passes_nothing_and_answers_nobody(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    used, idle = connected(proxy, stack), connected(proxy, stack)
    ask(used, b"1")
    ask(idle, b"2")
    proxy.partition()
    used.sendall(b"3")
    eventually(lambda: proxy.counts().requests_swallowed_bytes == 1)
    assert echo.received == b"12"
    for _ in range(2):
        with pytest.raises(TimeoutError):
            connected(proxy, stack, timeout_s=0.3)
    assert proxy.counts().connections == 2
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        used.recv(1)
    assert ask(idle, b"4") == b"4"
    assert ask(connected(proxy, stack), b"5") == b"5"
    assert echo.connections == 3


def test_who_gives_up_during_a_partition_is_forgotten_afterwards(proxy: Proxy, echo: Echo, stack: ExitStack) -> None:
    connection = connected(proxy, stack)
    ask(connection, b"1")
    proxy.partition()
    connection.close()
    with pytest.raises(TimeoutError):
        connected(proxy, stack, timeout_s=0.1)
    proxy.heal()
    eventually(lambda: proxy.counts().connections_reset == 1)


def test_a_partition_can_come_again(proxy: Proxy, stack: ExitStack) -> None:
    for _ in range(3):
        proxy.partition()
        with pytest.raises(TimeoutError):
            connected(proxy, stack, timeout_s=0.1)
        proxy.heal()
        assert ask(connected(proxy, stack), b"x") == b"x"


def test_reset(proxy: Proxy, stack: ExitStack) -> None:
    connections = [connected(proxy, stack) for _ in range(3)]
    for connection in connections:
        ask(connection, b"x")
    proxy.reset()
    for connection in connections:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert ask(connected(proxy, stack), b"y") == b"y"


def test_connections_are_limited(stack: ExitStack) -> None:
    """More than the limit are reset, and those within it live on."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as target, Proxy([target.getsockname()]) as proxy:
        connections = [connected(proxy, stack) for _ in range(proxies._LINKS_MAX)]
        eventually(lambda: proxy.counts().connections == len(connections))
        with pytest.raises(ConnectionResetError):
            connected(proxy, stack).recv(1)
        counts = proxy.counts()
        assert (counts.connections, counts.connections_refused) == (len(connections), 1)


def test_it_listens_on_loopback_only(proxy: Proxy) -> None:
    listening = [
        each.laddr
        for each in psutil.Process(proxy.pid).net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert [(address.ip, address.port) for address in listening] == proxy.addresses
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_closing_leaves_neither_process_nor_port_nor_connection(echo: Echo, stack: ExitStack) -> None:
    with listener(echo.serve) as port:
        with Proxy([("127.0.0.1", port)]) as proxy:
            process = psutil.Process(proxy.pid)
            connection = connected(proxy, stack)
            ask(connection, b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert not process.is_running()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy, stack)
        proxy.close()


def test_it_ends_with_the_harness() -> None:
    """Also where that is given no chance to end it."""
    script = (
        "import time\n"
        "from benchmarks.harness.proxy import Proxy\n"
        "proxy = Proxy([('127.0.0.1', 1)])\n"
        "print(proxy.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            proxy = psutil.Process(int(parent.stdout.readline()))
        finally:
            parent.kill()
    eventually(lambda: not is_alive(proxy))


def test_a_helper_that_fails_says_why() -> None:
    with HelperProcess("benchmarks.harness.proxy", "no json") as helper:
        with pytest.raises(HelperFailed, match="JSONDecodeError"):
            helper.ask("addresses")
        with pytest.raises(HelperFailed):
            helper.ask("addresses")
