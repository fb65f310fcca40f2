"""Connections to a PostgreSQL server: statements that leave together, their results, within a deadline, and their fate.

libpq by psycopg's thin wrapper (`psycopg.pq`), not psycopg's own connections: their calls have no deadline, and where a
server hangs they wait for it. Neither sends anything again by itself. In pipeline mode several statements take one
round trip (https://www.postgresql.org/docs/current/libpq-pipeline-mode.html).
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from strategies.support.fates import NotAnswered, NotSent

_MAX_IDLE = 64
"""Connections kept for reuse; there are never more than concurrent callers."""

_BINARY = 1
_BYTEA_OID, _INT8_OID = 17, 20
_INT8 = struct.Struct("!q")
_ARRAY = struct.Struct("!iiiii")
"""Of one dimension: dimensions, whether items can be null, their type; how many, the first one's index."""
_INT8_ITEM = struct.Struct("!iq")

Row = tuple[Any, ...]
"""Its values: bytes, or numbers where they are `bigint`."""
Value = bytes | int | Sequence[bytes] | Sequence[int]


class Refused(Exception):
    """The server answered with an error: nothing of what left together was done."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state
        """The error's code: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


class Statement(NamedTuple):
    """Prepared on a connection when first needed there; values are `bytea`, `bigint`, or arrays of them, not empty."""

    name: bytes
    text: bytes


Step = tuple[Statement, Sequence[Value]]
"""A statement, and its values."""


class PostgresLink:
    """The way to one server from one process, and after a fork from each; shared by threads."""

    def __init__(self, url: str, settings: dict[str, str], check: Callable[[PostgresConnection, float], None]) -> None:
        """Connects when first used. `check` is called with each new connection, and a deadline; it may raise.

        Raises:
            ValueError: the URL is none.
        """
        from psycopg import conninfo

        options = options_in(url)
        of_user = str(options.get("options") or "")
        options["options"] = " ".join([of_user, *(f"-c {name}={value}" for name, value in settings.items())]).strip()
        self._conninfo = conninfo.make_conninfo(**options).encode()
        self._check = check
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: deque[PostgresConnection] = deque()

    @contextmanager
    def connection(self, deadline: float) -> Iterator[PostgresConnection]:
        """A connection for one transaction, which must be over when it is left; closed where anything was raised.

        Raises:
            NotSent: there is none in time.
        """
        connection = self._taken(deadline)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        if self._process == os.getpid():
            while self._idle:
                self._idle.pop().close()

    def _taken(self, deadline: float) -> PostgresConnection:
        if self._process != os.getpid():  # the parent's connections are the parent's
            self._begin()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not connection.has_news():
                    return connection
                connection.close()  # the server hung up meanwhile
        connection = PostgresConnection(self._conninfo, deadline)
        try:
            self._check(connection, deadline)
        except (NotAnswered, Refused) as error:
            connection.close()
            raise NotSent(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection


class PostgresConnection:
    """One connection; of one thread at a time."""

    def __init__(self, conninfo: bytes, deadline: float) -> None:
        """Connect.

        Raises:
            NotSent: nobody answers, or lets us in.
        """
        from psycopg import OperationalError, pq

        self._prepared: set[bytes] = set()
        self._connection = connection = pq.PGconn.connect_start(conninfo)
        try:
            if connection.status == pq.ConnStatus.BAD:
                raise NotSent(_said(connection))
            reading, writing = int(pq.PollingStatus.READING), int(pq.PollingStatus.WRITING)
            state = writing
            while state in (reading, writing):
                self._wait(select.POLLIN if state == reading else select.POLLOUT, deadline)
                state = connection.connect_poll()
            if state != pq.PollingStatus.OK:
                raise NotSent(_said(connection))
            connection.nonblocking = 1
            connection.enter_pipeline_mode()
        except (OperationalError, OSError) as error:
            connection.finish()
            raise NotSent("no connection in time" if isinstance(error, TimeoutError) else str(error)) from error
        except BaseException:
            connection.finish()
            raise

    def run(self, deadline: float, *steps: Step) -> list[list[Row]]:
        """Have the statements done, all at once; the rows of each.

        They are one transaction, unless they begin or end one that reaches further.

        Raises:
            Refused: one failed.
            NotAnswered: the connection broke, or the deadline passed.
        """
        from psycopg import OperationalError, pq

        connection = self._connection
        try:
            for statement, values in steps:
                if statement.name not in self._prepared:
                    connection.send_prepare(*statement)
                packed = [_packed(value) for value in values]
                connection.send_query_prepared(statement.name, packed, [_BINARY] * len(packed), _BINARY)
            connection.pipeline_sync()
            while connection.flush():
                # What it answers meanwhile must be read, or it would stop reading.
                if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                    connection.consume_input()
            found: list[list[Row]] = []
            refused: Exception | None = None
            while (result := self._result(deadline)) is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
                if result is None:  # one statement's end; of a connection that is gone there is nothing else
                    if connection.status != pq.ConnStatus.OK:
                        raise NotAnswered(_said(connection))
                elif result.status == pq.ExecStatus.TUPLES_OK:
                    found.append(_rows(result))
                elif result.status == pq.ExecStatus.COMMAND_OK:
                    found.append([])
                elif result.status == pq.ExecStatus.FATAL_ERROR:
                    refused = refused or _refusal(result)
        except OperationalError as error:
            raise NotAnswered(str(error).strip()) from error
        except TimeoutError as error:
            raise NotAnswered("no answer in time") from error
        if refused is not None:
            raise refused
        rows = []
        for statement, _ in steps:
            if statement.name not in self._prepared:  # its preparation was answered before it
                self._prepared.add(statement.name)
                found.pop(0)
            rows.append(found.pop(0))
        return rows

    def has_news(self) -> bool:
        """Whether there is something to read, though nothing was asked: the server's farewell."""
        poll = select.poll()
        poll.register(self._connection.socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Idempotent. A transaction that is not over will have had no effect."""
        self._connection.finish()

    def _result(self, deadline: float) -> Any:
        while self._connection.is_busy():
            self._wait(select.POLLIN, deadline)
            self._connection.consume_input()
        return self._connection.get_result()

    def _wait(self, events: int, deadline: float) -> int:
        poll = select.poll()
        poll.register(self._connection.socket, events)
        remaining_s = deadline - time.monotonic()
        for _, event in poll.poll(remaining_s * 1e3) if remaining_s > 0 else ():
            return event
        raise TimeoutError


def options_in(url: str) -> dict[str, Any]:
    """What a URL says, by libpq's keywords.

    Raises:
        ValueError: it is none, or its password has special characters: libpq would take the rest of it for a host or
            a port, and quote that in errors.
    """
    from psycopg import ProgrammingError, conninfo

    with suppress(ProgrammingError):  # it may quote the password
        options = conninfo.conninfo_to_dict(url)
        place = f"{options.get('host', '')}{options.get('dbname', '')}"
        if "@" not in place and all(port.isdigit() for port in str(options.get("port", 0)).split(",")):
            return options
    raise ValueError(
        "the PostgreSQL URL cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special "
        "characters percent-encoded"
    )


def _rows(result: Any) -> list[Row]:
    columns = [(at, result.ftype(at) == _INT8_OID) for at in range(result.nfields)]
    return [
        tuple(
            _INT8.unpack(result.get_value(row, at))[0] if is_number else result.get_value(row, at)
            for at, is_number in columns
        )
        for row in range(result.ntuples)
    ]


def _packed(value: Value) -> bytes:
    """In PostgreSQL's binary format."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, int):
        return _INT8.pack(value)
    if isinstance(value[0], int):
        parts = [_ARRAY.pack(1, 0, _INT8_OID, len(value), 1), *(_INT8_ITEM.pack(8, each) for each in value)]
    else:
        parts = [_ARRAY.pack(1, 0, _BYTEA_OID, len(value), 1)]
        for each in value:
            parts += [len(each).to_bytes(4), each]  # type: ignore[arg-type, list-item]
    return b"".join(parts)


def _refusal(result: Any) -> Exception:
    from psycopg import pq

    message = _text(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY))
    if result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) != b"ERROR":
        return NotAnswered(message)  # the server ends, or the session: perhaps after the statement was done
    return Refused(message, _text(result.error_field(pq.DiagnosticField.SQLSTATE)))


def _said(connection: Any) -> str:
    return str(connection.get_error_message()).strip().replace("\n", " ")


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
