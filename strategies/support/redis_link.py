"""Connections to a Redis or Valkey server: one command, one reply, within a deadline, and its fate.

redis-py's connections and parser, without its client: that sends a command again by itself after an
error (an `INCR` counted twice in one call), and cannot say whether the first one had been sent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis import connection as redis_connection
from redis import exceptions

from strategies.support.fates import NotAnswered, NotSent

_MAX_IDLE = 64
"""Connections kept for reuse; there are never more than concurrent callers."""

_SHORTEST_S = 0.001
"""A timeout of zero would make the socket non-blocking."""

REFUSALS = (exceptions.AuthenticationError, exceptions.BusyLoadingError)
"""Replies that redis-py files under broken connections: the server answered, and did nothing."""


class _DeadlinedParser(redis_connection.DefaultParser):  # type: ignore[misc, valid-type]
    """Ends every read from the socket at the connection's deadline, however many reads a reply takes.

    Only hiredis's parser (this package's `redis` extra) reads by this method; the one in pure Python
    gives each read of a reply that arrives in pieces the time that was left when the first began.
    """

    _connection: Any = None

    def on_connect(self, connection: Any, **options: Any) -> None:
        self._connection = connection
        super().on_connect(connection, **options)

    def read_from_socket(self, *_: Any, **__: Any) -> Any:
        remaining_s = self._connection.deadline - time.monotonic()
        return super().read_from_socket(timeout=max(remaining_s, _SHORTEST_S))


class _Deadlined:
    """Makes every reply of a connection, those of its handshake included, come before one deadline."""

    deadline = float("inf")

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        options["timeout"] = max(self.deadline - time.monotonic(), _SHORTEST_S)
        return super().read_response(disable_decoding, **options)  # type: ignore[misc]


class _Tcp(_Deadlined, redis_connection.Connection):
    pass


class _Tls(_Deadlined, redis_connection.SSLConnection):
    pass


class _Unix(_Deadlined, redis_connection.UnixDomainSocketConnection):
    pass


_DEADLINED = {
    redis_connection.Connection: _Tcp,
    redis_connection.SSLConnection: _Tls,
    redis_connection.UnixDomainSocketConnection: _Unix,
}


class RedisLink:
    """The way to one server from one process; shared by its threads."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connects when first used.

        Raises:
            ValueError: the URL is not one of redis://, rediss:// or unix://, or has an option that nobody knows.
        """
        try:
            options = redis_connection.parse_url(url)
        except ValueError:
            # What was wrong may quote the password.
            raise ValueError(
                "the Redis URL cannot be read; write redis://:PASSWORD@HOST:PORT/DATABASE, rediss://... or "
                "unix://PATH, with special characters of the password percent-encoded"
            ) from None
        self._make = _DEADLINED[options.pop("connection_class", redis_connection.Connection)]
        options.update(
            protocol=2,  # no HELLO, no push messages: one reply per command
            parser_class=_DeadlinedParser,
            driver_info=None,  # no CLIENT SETINFO round trips
            retry=None,
            retry_on_timeout=False,
            health_check_interval=0,
            decode_responses=False,
            socket_timeout=timeout_s,
        )
        self._options = options
        self._idle: deque[Any] = deque()
        try:
            self._make(**options)
        except TypeError as error:
            raise ValueError(f"the Redis URL has an option that redis-py does not know: {error}") from None

    def execute(self, deadline: float, *command: Any) -> Any:
        """Send the command and return the server's reply.

        `deadline` is a reading of `time.monotonic()`.

        Raises:
            redis.exceptions.ResponseError, or one of `REFUSALS`: what the server replied.
            NotSent: no connection.
            NotAnswered: the connection broke, or the deadline passed, after sending began.
        """
        connection = self._connected(deadline)
        try:
            connection.send_command(*command, check_health=False)
            reply = connection.read_response()
        except (exceptions.ResponseError, *REFUSALS):
            self._keep(connection)
            raise
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise NotAnswered(str(error)) from error
        except BaseException:
            connection.disconnect()  # a reply may be on its way that nobody will read
            raise
        self._keep(connection)
        return reply

    def execute_all(self, deadline: float, commands: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """Send each command as soon as it is made, all over one connection; then yield the reply to each.

        In place of a reply comes what `execute` would have raised. All of it, or the connection is closed.
        """
        connection: Any = None
        fates: list[Exception | None] = []
        broken: Exception | None = None
        try:
            for command in commands:
                if broken is None:
                    try:
                        if connection is None:
                            connection = self._connected(deadline)
                        _send(connection, command, deadline)
                    except (NotSent, *REFUSALS) as error:
                        broken = error
                    except (exceptions.RedisError, OSError) as error:
                        broken = NotSent(str(error))
                        fates = [NotAnswered(str(error))] * (len(fates) + 1)
                        continue
                fates.append(broken)
            for fate in fates:
                yield fate or self._reply(connection)
        except BaseException:
            if connection is not None:
                connection.disconnect()  # replies may be on their way that nobody will read
            raise
        if connection is not None:
            self._keep(connection)

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        while self._idle:
            self._idle.pop().disconnect()

    def _connected(self, deadline: float) -> Any:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise NotSent("the deadline had passed")
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._make(**self._options)
        connection.deadline = deadline
        try:
            # An idle connection has nothing to read, unless the server hung up meanwhile.
            if connection.is_connected and _readable(connection):
                connection.disconnect()
            if not connection.is_connected:
                connection.socket_connect_timeout = remaining_s
                connection.connect()
        except REFUSALS:
            connection.disconnect()
            raise
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise NotSent(str(error)) from error
        return connection

    def _reply(self, connection: Any) -> Any:
        if not connection.is_connected:
            return NotAnswered("the connection broke")
        try:
            return connection.read_response()
        except (exceptions.ResponseError, *REFUSALS) as error:
            return error
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            return NotAnswered(str(error))

    def _keep(self, connection: Any) -> None:
        if connection.is_connected and len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()


def _send(connection: Any, command: Sequence[Any], deadline: float) -> None:
    """Unlike one call's, a batch's command may be longer than what a server takes in that does not answer."""
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise NotSent("the deadline had passed")
    connection._sock.settimeout(remaining_s)  # until the next read from the socket
    connection.send_command(*command, check_health=False)


def _readable(connection: Any) -> bool:
    try:
        return bool(connection.can_read())
    except (exceptions.RedisError, OSError):
        return True
