"""Blocking connections that carry one message after another, each behind its length, within a deadline."""

from __future__ import annotations

import select
import socket
import time
from ssl import SSLSocket, SSLWantReadError, SSLWantWriteError

_SHORTEST_S = 0.001
"""A timeout of zero would make the socket non-blocking."""

_CHUNK = 65_536
PREFIX_BYTES = 4
"""Of each message in a stream: its length, big-endian."""


class StreamLink:
    """One connection. Not for two threads at once."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With a timeout of its own, each of the socket's calls would be three of the system's, and at each of
        # them the caller's other threads may take the interpreter.
        connection.setblocking(False)
        self._socket = connection
        self._poll_in, self._poll_out = _poll(connection, select.POLLIN), _poll(connection, select.POLLOUT)
        self._early = b""

    def close(self) -> None:
        self._socket.close()

    @property
    def readable(self) -> bool:
        """Whether something has come; when idle, that is the other side hanging up."""
        return bool(self._poll_in.poll(0))

    def send(self, payload: bytes, deadline: float) -> None:
        self._send(len(payload).to_bytes(PREFIX_BYTES) + payload, deadline)

    def receive(self, deadline: float) -> memoryview:
        """The next message; it usually comes in one piece."""
        found = self._early or self._receive(_CHUNK, deadline)
        if len(found) < PREFIX_BYTES:
            found += self._exactly(PREFIX_BYTES - len(found), deadline)
        end = PREFIX_BYTES + int.from_bytes(found[:PREFIX_BYTES])
        if end > len(found):
            found += self._exactly(end - len(found), deadline)
        self._early = found[end:]
        return memoryview(found)[PREFIX_BYTES:end]

    def _exactly(self, size: int, deadline: float) -> bytes:
        chunks = []
        while size > 0:
            chunk = self._receive(min(size, _CHUNK), deadline)
            if not chunk:
                raise ConnectionResetError("the other side hung up")
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    # -- the socket, which never blocks ------------------------------------------------------------

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:  # ends with the deadline
            try:
                rest = rest[self._socket.send(rest) :]
            except SSLWantReadError:
                _await(self._poll_in, deadline)
            except (BlockingIOError, SSLWantWriteError):
                _await(self._poll_out, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        """What has come by now, once something has; nothing if the other side hung up."""
        while True:  # ends with the deadline
            if not (isinstance(self._socket, SSLSocket) and self._socket.pending()):
                _await(self._poll_in, deadline)
            try:
                return self._socket.recv(size)
            except (BlockingIOError, SSLWantReadError):
                continue
            except SSLWantWriteError:
                _await(self._poll_out, deadline)


def _poll(connection: socket.socket, event: int) -> select.poll:
    poll = select.poll()
    poll.register(connection, event)
    return poll


def _await(poll: select.poll, deadline: float) -> None:
    if not poll.poll(1000 * remaining_s(deadline)):
        raise TimeoutError("timed out")


def remaining_s(deadline: float) -> float:
    """For a socket's own timeout."""
    return max(deadline - time.monotonic(), _SHORTEST_S)
