"""Connections to a ZooKeeper server or ensemble: requests in a pipeline, within a deadline, and their fates.

kazoo's messages, without its client. That keeps what is called while it has no connection and sends it when it has
one again, though its caller has given up; and it takes requests for heartbeats, so that under load it never leaves a
server that hangs (`kazoo.protocol.connection`; tests/strategies/test_zookeeper.py shows both). Here a connection is
one caller's at a time, and ends with the first call that it does not answer.

Each connection is a session of its own. Nothing hangs on it: no ephemeral znode, no watch. It sends no heartbeats,
and is replaced when the server has ended it.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from kazoo.exceptions import EXCEPTIONS, KazooException, RolledBackError, RuntimeInconsistency
from kazoo.protocol.serialization import (
    CloseInstance,
    Connect,
    ReplyHeader,
    Transaction,
    int_struct,
    reply_header_struct,
)

from strategies.support.fates import NotAnswered, NotSent

_DEFAULT_PORT = 2181
_SESSION_MS = 60_000
"""Asked for; a server that is set as usual grants 40 s."""
_MAX_IDLE = 64
"""Connections kept for reuse; there are never more than concurrent callers."""
_PIPELINED = 500
"""Requests sent before their replies are read. A server does not read on while 1,000 wait (globalOutstandingLimit)."""
_CHUNK_BYTES = 1 << 16
_MAX_REPLY_BYTES = 1 << 28
_SHORTEST_S = 0.001
"""A timeout of zero would make the socket non-blocking."""
_HEADER_BYTES = reply_header_struct.size
_NO_PASSWORD = bytes(16)
_SYSTEM_ERRORS = range(-99, 0)
"""Codes of what went wrong in the server; those below are reasons why a request had no effect."""

MAX_REQUEST_BYTES = 1_000_000
"""A server that is set as usual hangs up on one of 1,048,575 bytes (jute.maxbuffer)."""


class TooLarge(Exception):
    """The request has more bytes than a server takes. Nothing was sent."""


def read_url(url: str) -> tuple[list[tuple[str, int]], str]:
    """The servers' addresses, and the path below which to stay: empty, or with a slash in front.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        places = [urlsplit(f"//{place}") for place in parts.netloc.split(",")]
        addresses = [(place.hostname or "", place.port or _DEFAULT_PORT) for place in places]
    except ValueError:
        addresses = []
    path = parts.path.rstrip("/") if addresses else ""
    if not (addresses and parts.scheme == "zookeeper" and all(host for host, _ in addresses)) or "//" in path:
        raise ValueError("the ZooKeeper URL cannot be read; write zookeeper://HOST:PORT,HOST:PORT/PATH")
    return addresses, path


class ZookeeperLink:
    """The way to one ensemble from one process; shared by its threads."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Connects when first used, to any of them."""
        self._addresses = random.sample(addresses, len(addresses))
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: deque[Connection] = deque()

    @contextmanager
    def connection(self, deadline: float) -> Iterator[Connection]:
        """A connection for one call, whose deadline is a reading of `time.monotonic()`.

        Raises:
            NotSent: no server is there, or none that serves.
        """
        if self._process != os.getpid():  # sockets are shared across a fork: another process's replies would come
            for connection in self._idle:
                connection.drop()
            self._begin()
        connection = self._idle_one(deadline) or self._connected(deadline)
        try:
            yield connection
        except BaseException:
            if connection.in_step:
                self._keep(connection)
            else:
                self._give_up(connection)
            raise
        self._keep(connection)

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        while self._idle:
            self._idle.pop().close()

    def _idle_one(self, deadline: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_silent():
                connection.deadline = deadline
                return connection
            connection.drop()
        return None

    def _connected(self, deadline: float) -> Connection:
        problem: Exception = NotSent("the deadline had passed")
        addresses = self._addresses
        for tried, address in enumerate(addresses):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            try:
                return Connection(address, deadline, left_s / (len(addresses) - tried))
            except (NotSent, NotAnswered, OSError) as error:
                problem = error
        raise NotSent(f"no server lets this client in: {problem}") from problem

    def _keep(self, connection: Connection) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _give_up(self, connection: Connection) -> None:
        """Whatever is wrong with it is wrong with others to the same server: the next call tries another one first."""
        connection.drop()
        for other in list(self._idle):
            if other.address == connection.address:
                with suppress(ValueError):  # somebody took it meanwhile
                    self._idle.remove(other)
                    other.drop()
        self._addresses = sorted(self._addresses, key=lambda address: address == connection.address)


class Connection:
    """A session with one server, one caller's at a time."""

    def __init__(self, address: tuple[str, int], deadline: float, patience_s: float) -> None:
        """Connect and begin a session, within `patience_s`.

        Raises:
            NotSent, NotAnswered, OSError: that was not to be.
        """
        self.address = address
        self.deadline = time.monotonic() + patience_s
        self.in_step = True
        """Whether every request was answered: else a reply may be on its way that nobody will read."""
        self._received = bytearray()
        self._xid = 0
        self._socket = socket.create_connection(address, timeout=patience_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # No zxid: what is read after a quorum's answer is new enough on any server.
            self._send(_framed(Connect(0, 0, _SESSION_MS, 0, _NO_PASSWORD, False).serialize()))
            try:
                granted, _ = Connect.deserialize(self._packet(), 0)
            except struct.error as error:
                raise NotSent("what answers there is no ZooKeeper server") from error
            if granted.time_out <= 0:
                raise NotSent("the server refused a session")
        except BaseException:
            self.drop()
            raise
        self.deadline = deadline

    def ask(self, requests: Iterable[Any]) -> list[Any]:
        """Send the requests in a pipeline; the replies, or in their places the errors that the server replied.

        They are dealt with in order. All of it, or the connection is of no more use.

        Raises:
            NotSent: the deadline had passed.
            NotAnswered: the connection broke, or the deadline passed, after sending began.
        """
        replies: list[Any] = []
        remaining = iter(requests)
        while chunk := list(islice(remaining, _PIPELINED)):
            first = self._xid + 1
            self._send(
                b"".join(
                    _framed(int_struct.pack(xid) + int_struct.pack(request.type) + request.serialize())
                    for xid, request in enumerate(chunk, start=first)
                )
            )
            self._xid += len(chunk)
            replies += [self._reply(xid, request) for xid, request in enumerate(chunk, start=first)]
        return replies

    def change(self, operations: Sequence[Any]) -> KazooException | None:
        """All of these creates, sets and checks, in one transaction; or none, and the first reason why.

        Raises:
            TooLarge, NotSent, NotAnswered: see there.
        """
        payload = Transaction(operations).serialize()
        if len(payload) > MAX_REQUEST_BYTES:
            raise TooLarge(f"{len(payload):,} bytes")
        self._xid += 1
        self._send(_framed(int_struct.pack(self._xid) + int_struct.pack(Transaction.type) + payload))
        refused = refusal(self._reply(self._xid, Transaction))
        if refused is not None and getattr(refused, "code", None) in _SYSTEM_ERRORS:
            raise NotAnswered(f"the server failed: {type(refused).__name__}")
        return refused

    def is_silent(self) -> bool:
        """Whether nothing is there to be read; else the server hung up."""
        return not select.select([self._socket], [], [], 0)[0]

    def drop(self) -> None:
        """Hang up."""
        self._socket.close()

    def close(self) -> None:
        """End the session, as far as that can be done without waiting."""
        with suppress(OSError):
            self._socket.settimeout(_SHORTEST_S)
            self._socket.sendall(_framed(int_struct.pack(self._xid + 1) + int_struct.pack(CloseInstance.type)))
        self._socket.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was never connected
            self.drop()

    def _send(self, payload: bytes) -> None:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise NotSent("the deadline had passed")
        self.in_step = False
        try:
            self._socket.settimeout(left_s)
            self._socket.sendall(payload)
        except OSError as error:
            raise NotAnswered(str(error)) from error

    def _reply(self, xid: int, request: Any) -> Any:
        packet = self._packet()
        if len(packet) < _HEADER_BYTES:
            raise NotAnswered("what answers there is no ZooKeeper server")
        header, offset = ReplyHeader.deserialize(packet, 0)
        if header.xid != xid:
            raise NotAnswered(f"the server answered request {header.xid} in place of {xid}")
        try:
            reply = EXCEPTIONS[header.err]() if header.err else request.deserialize(packet, offset)
        except (RuntimeError, ValueError, struct.error) as error:  # one that kazoo has no name for, or none at all
            raise NotAnswered(f"the server's reply is not understood: {error}") from error
        self.in_step = xid == self._xid
        return reply

    def _packet(self) -> bytes:
        size = int_struct.unpack(self._read(int_struct.size))[0]
        if not 0 <= size <= _MAX_REPLY_BYTES:
            raise NotAnswered("what answers there is no ZooKeeper server")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        received = self._received
        while len(received) < size:
            try:
                self._socket.settimeout(max(self.deadline - time.monotonic(), _SHORTEST_S))
                chunk = self._socket.recv(_CHUNK_BYTES)
            except OSError as error:
                raise NotAnswered(str(error)) from error
            if not chunk:
                raise NotAnswered("the server hung up")
            received += chunk
        found = bytes(received[:size])
        del received[:size]
        return found


def refusal(reply: Any) -> KazooException | None:
    """Why the server did not do what it was asked, by its reply; None if it did. Of a transaction, the first reason."""
    results = reply if isinstance(reply, list) else [reply]
    errors = [result for result in results if isinstance(result, KazooException)]
    causes = [error for error in errors if not isinstance(error, (RolledBackError, RuntimeInconsistency))]
    return (causes or errors or [None])[0]


def _framed(payload: bytes) -> bytes:
    size: bytes = int_struct.pack(len(payload))
    return size + payload
