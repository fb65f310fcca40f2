"""Servers for one test each: a Redis with settings of the test's own, and sockets that misbehave."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.servers import ServerMissing

_READY_S = 10.0


@contextmanager
def redis_server(directory: Path, **settings: str) -> Iterator[int]:
    """A server of this test's own on a loopback port, which it yields; settings as in its configuration file."""
    try:
        program = RedisServer.find_program()
    except ServerMissing as error:
        pytest.skip(str(error))
    port = free_port()
    defaults = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "logfile": str(directory / "log"),
    }
    arguments = [
        text for name, value in (defaults | settings).items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    process = subprocess.Popen(
        [program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_answer(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64)[:7] in (b"+PONG\r\n", b"-NOAUTH"):
                return
        time.sleep(0.005)
    raise AssertionError("the server did not answer")


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accepts connections on a loopback port, which it yields, and hands each to `serve` in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    stop = threading.Event()
    accepted: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def run(connection: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError):
            serve(connection)

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            accepted.append(connection)
            threads.append(threading.Thread(target=run, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        acceptor.join()
        server.close()
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for connection in accepted:
            connection.close()
