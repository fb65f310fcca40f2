"""Connections to the nodes of the Pekko service: requests to ledgers, replies within a deadline, and their fates.

A request is

    id (4 bytes), kind (1), epoch of the ledger (8), length of its name (1), name, payload

and a reply

    id (4 bytes), status (1), content

each behind its length (4 bytes), integers big-endian. Several requests may follow each other before the first reply
comes, and replies come in any order; the id tells which is whose.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from strategies.support.fates import NotAnswered, NotSent
from strategies.support.stream_link import StreamLink, remaining_s

BATCH, ACCOUNTS, OPEN = range(3)
"""Kinds of requests: a batch in the wire form; a page of all accounts; have the ledger come to be."""

MAX_BYTES = 2**24
"""Of one message. The largest batch of the longest names has half of it."""

_DONE, _GONE, _REFUSED = range(3)
"""Statuses; what is none of these may have happened."""

_REQUEST = struct.Struct(">IBQB")
_REPLY = struct.Struct(">IB")
_MAX_IDLE = 64
"""Connections kept for reuse; there are never more than concurrent callers."""
_CONNECT_S = 1.0
"""To one node of several: another may answer."""

Address = tuple[str, int]


class Ledger(NamedTuple):
    """One ledger, as a handle knows it."""

    name: str
    epoch: int = 0
    """Of the ledger that is meant; one that came to be again has another."""


class LedgerGone(Exception):
    """The service has no ledger of this name and epoch; nothing was applied."""


class Request(NamedTuple):
    """What one ledger is asked."""

    ledger: Ledger
    kind: int
    payload: bytes

    def encode(self, place: int) -> bytes:
        """Its bytes, with this place for its id."""
        (name, epoch), kind, payload = self
        return _REQUEST.pack(place, kind, epoch, len(name)) + name.encode() + payload


Reply = memoryview | NotSent | NotAnswered | LedgerGone
"""The content, or what became of the request."""


def addresses(url: str) -> list[Address]:
    """Of the nodes.

    Raises:
        ValueError: the URL is none.
    """
    try:
        parts = urlsplit(url)
        found = []
        for each in parts.netloc.split(","):
            host, _, port = each.rpartition(":")
            if not (host and 0 < int(port) < 2**16):
                raise ValueError
            found.append((host.strip("[]"), int(port)))
        if parts.scheme != "pekko" or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        raise ValueError("the Pekko URL cannot be read; write pekko://HOST:PORT,HOST:PORT, one of each node") from None
    return found


class PekkoLinks:
    """The ways to the nodes from one process; shared by its threads. Connects when first used.

    All nodes serve all ledgers. Requests go to one of them, as long as it answers, then to the next one.
    """

    def __init__(self, nodes: Sequence[Address]) -> None:
        self._nodes = nodes
        self._preferred = 0
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: deque[tuple[int, StreamLink]] = deque()

    def ask(self, request: Request, deadline: float) -> Reply:
        """As `exchange` of one request, in less time of this process."""
        message = request.encode(0)
        if len(message) > MAX_BYTES:
            return _too_large(message)
        try:
            taken = self._take(deadline)
        except NotSent as error:
            return error
        link = taken[1]
        try:
            link.send(message, deadline)
            reply = link.receive(deadline)
            _, status = _REPLY.unpack_from(reply)
        except (OSError, struct.error) as error:
            self._discard(taken)
            return NotAnswered(_problem(error))
        except BaseException:
            link.close()
            raise
        self._keep(taken)
        return _reply(status, reply[_REPLY.size :])

    def exchange(self, requests: Iterable[Request], deadline: float) -> list[Reply]:
        """Send each request as soon as it is made, all over one connection; then wait for the replies."""
        fates: list[Reply | None] = []
        taken: tuple[int, StreamLink] | None = None
        broken: NotSent | None = None
        try:
            for place, request in enumerate(requests):
                fates.append(broken)
                if broken is not None:
                    continue
                message = request.encode(place)
                if len(message) > MAX_BYTES:
                    fates[place] = _too_large(message)
                    continue
                try:
                    taken = taken or self._take(deadline)
                    taken[1].send(message, deadline)
                except NotSent as error:
                    fates[place] = broken = error
                except OSError as error:
                    fates[place] = NotAnswered(_problem(error))
                    broken = NotSent("the connection broke")
            if taken is None:
                return [fate or NotSent("there was no connection") for fate in fates]
            if broken is None:
                self._receive(taken, fates, deadline)
            else:
                self._discard(taken)
        except BaseException:
            if taken is not None:
                taken[1].close()  # replies may be on their way that nobody will read
            raise
        return [fate or NotAnswered("the connection broke") for fate in fates]

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        while self._idle:
            self._idle.pop()[1].close()

    def _receive(self, taken: tuple[int, StreamLink], fates: list[Reply | None], deadline: float) -> None:
        waiting = {place for place, fate in enumerate(fates) if fate is None}
        try:
            while waiting:  # ends with the deadline
                message = taken[1].receive(deadline)
                place, status = _REPLY.unpack_from(message)
                waiting.remove(place)
                fates[place] = _reply(status, message[_REPLY.size :])
        except (OSError, struct.error, KeyError) as error:
            self._discard(taken)
            for place in waiting:
                fates[place] = NotAnswered(_problem(error))
        else:
            self._keep(taken)

    def _take(self, deadline: float) -> tuple[int, StreamLink]:
        """A connection for one exchange, to the preferred node or else to the next that there is."""
        if self._process != os.getpid():  # connections must not be shared with the process that this one is a fork of
            self._begin()
        with suppress(IndexError):
            while True:  # ends when no connection is left
                taken = self._idle.pop()
                if taken[0] == self._preferred and not taken[1].readable:
                    return taken
                taken[1].close()
        problems: list[str] = []
        for turn in range(len(self._nodes)):
            if time.monotonic() >= deadline:
                raise NotSent("; ".join(problems) or "the deadline had passed")
            node = (self._preferred + turn) % len(self._nodes)
            limit = deadline if len(self._nodes) == 1 else min(deadline, time.monotonic() + _CONNECT_S)
            try:
                link = StreamLink(socket.create_connection(self._nodes[node], remaining_s(limit)))
            except OSError as error:
                host, port = self._nodes[node]
                problems.append(f"{host}:{port}: {error}")
            else:
                self._preferred = node
                return node, link
        raise NotSent("; ".join(problems))

    def _keep(self, taken: tuple[int, StreamLink]) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(taken)
        else:
            taken[1].close()

    def _discard(self, taken: tuple[int, StreamLink]) -> None:
        """One that broke, or a node that does not answer: the next call tries another."""
        node, link = taken
        link.close()
        if self._preferred == node:
            self._preferred = (node + 1) % len(self._nodes)


def _reply(status: int, content: memoryview) -> Reply:
    if status == _DONE:
        return content
    if status == _GONE:
        return LedgerGone()
    text = bytes(content).decode(errors="replace")
    return NotSent(text) if status == _REFUSED else NotAnswered(text)


def _too_large(message: bytes) -> NotSent:
    return NotSent(f"a message of {len(message)} bytes, of at most {MAX_BYTES}; split it")


def _problem(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
