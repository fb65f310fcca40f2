"""Blocking connections to Dask's own servers: one message, one answer, within a deadline, and its fate.

Between the caller's thread and the socket there is no event loop to cross to and back from. Speaks the
framing of `distributed.comm.tcp` for `tcp://` and `tls://` addresses, with the cluster's TLS settings
(docs/adr/0006-blocking-connections.md); for every other protocol there is `strategies.support.cluster`.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
import weakref
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strategies.support.fates import NotSent
from strategies.support.stream_link import StreamLink, remaining_s

if TYPE_CHECKING:
    from distributed.core import ConnectionPool

PROTOCOLS = frozenset({"tcp", "tls"})

_MAX_IDLE = 64
"""Connections to one address kept for reuse; there are never more than concurrent callers."""

ACCEPTED = "accepted"
"""What a handler answers that takes a connection over as a stream."""


def protocol_of(address: str) -> str:
    """The part before `://`."""
    return address.partition("://")[0]


class Link(StreamLink):
    """One connection. Not for two threads at once."""

    def __init__(self, address: str, connection_args: dict[str, Any], deadline: float) -> None:
        """Connect, and shake hands as `distributed.comm.core.connect` does.

        Raises:
            OSError: nobody is there, or not in time.
            RuntimeError: the cluster demands encryption and the address has none.
        """
        from distributed.comm.addressing import parse_host_port

        protocol, _, where = address.partition("://")
        if protocol == "tcp" and connection_args.get("require_encryption"):
            raise RuntimeError(f"the cluster demands encryption, so nothing is sent to {address}")
        host, port = parse_host_port(where)
        connection = socket.create_connection((host, port), remaining_s(deadline))
        try:
            if protocol == "tls":
                connection = connection_args["ssl_context"].wrap_socket(
                    connection, server_hostname=connection_args.get("server_hostname") or host
                )
            super().__init__(connection)
            self.write({"compression": None, "python": tuple(sys.version_info)[:3], "pickle-protocol": 5}, deadline)
            self.read(deadline)
        except BaseException:
            connection.close()
            raise

    # -- one message of Dask's ---------------------------------------------------------------------

    def write(self, message: Any, deadline: float) -> None:
        from distributed.protocol import dumps

        frames = dumps(message, on_error="raise")
        sizes = [len(frame) for frame in frames]
        prelude = struct.pack(f"<Q{len(sizes)}Q", len(sizes), *sizes)
        self._send(b"".join((struct.pack("<Q", len(prelude) + sum(sizes)), prelude, *frames)), deadline)

    def read(self, deadline: float) -> Any:
        from distributed.protocol import loads

        (size,) = struct.unpack("<Q", self._exactly(8, deadline))
        body = memoryview(self._exactly(size, deadline))
        (count,) = struct.unpack_from("<Q", body)
        sizes = struct.unpack_from(f"<{count}Q", body, 8)
        begin = 8 * (count + 1)
        # Large frames may follow the body instead of being a part of it.
        body = memoryview(bytes(body) + self._exactly(begin + sum(sizes) - size, deadline))
        frames = []
        for size in sizes:
            frames.append(body[begin : begin + size])
            begin += size
        return loads(frames)


class Links:
    """The blocking connections that the handles in one process share, on its client's or worker's cluster.

    Idle ones are closed with the last handle that was opened on them, or with the client or worker.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = weakref.ref(pool)
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._idle: defaultdict[str, deque[Link]] = defaultdict(deque)
        weakref.finalize(pool, _close_all, self._idle)

    def enter(self, user: object) -> None:
        """Keep idle connections for `user` too."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        self._users.discard(user)
        if not self._users:
            _close_all(self._idle)

    def has_idle(self, address: str) -> bool:
        """Whether `take` will probably have nothing to wait for."""
        return bool(self._idle[address])

    def take(self, address: str, deadline: float, connect_s: float, stream: str | None = None) -> Link:
        """A connection for one exchange; then `keep` or close it.

        `stream` names the handler that a new connection is handed to.

        Raises:
            NotSent: no connection within `connect_s`, or the deadline had passed, or the client is closed.
            LookupError: the server knows no such handler.
        """
        pool = self._pool()
        if pool is None or pool.status.name != "running":
            _close_all(self._idle)
            raise NotSent("this process has left the cluster")
        now = time.monotonic()
        if now >= deadline:
            raise NotSent("the deadline had passed")
        idle = self._idle[address]
        while idle:
            with suppress(IndexError):  # another thread was faster
                link = idle.pop()
                if not link.readable:
                    return link
                link.close()
        deadline = min(deadline, now + connect_s)
        try:
            link = Link(address, pool.connection_args, deadline)
        except (OSError, RuntimeError) as error:
            raise NotSent(f"{address}: {error}") from error
        if stream is not None:
            try:
                link.write({"op": stream}, deadline)
                accepted = link.read(deadline)
            except OSError as error:
                link.close()
                raise NotSent(f"{address}: {error}") from error
            if accepted != ACCEPTED:
                link.close()
                raise LookupError(stream)
        return link

    def keep(self, address: str, link: Link) -> None:
        """Give it back after an exchange that was completed."""
        idle = self._idle[address]
        if self._users and len(idle) < _MAX_IDLE:
            idle.append(link)
        else:
            link.close()


def _close_all(idle: dict[str, deque[Link]]) -> None:
    for links in list(idle.values()):
        while links:
            links.pop().close()
