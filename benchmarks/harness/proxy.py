"""A TCP proxy that misbehaves when told to: late, lossy, mute or reset connections, on loopback, without root.

It never cuts a stream and goes on with it: a connection that lost bytes passes none any more in that direction, and
is reset when the proxy is healed, or at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.helper_process import HelperProcess

Address = tuple[str, int]

_LINKS_MAX = 256
"""Connections at a time; more are reset."""
_BACKLOG = 128
_BUFFER_BYTES = 1 << 20
"""In each direction of each connection, that wait for their time or their reader."""
_CONNECT_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Way:
    """What becomes of bytes in one direction."""

    delay_s: tuple[float, float] = (0.0, 0.0)
    """The least and the most that they are late. Their order is kept."""
    swallowed: bool = False
    """They are read, and that is all."""
    reset_share: float = 0.0
    """Of the pieces that arrive; with such a piece dropped, its connection is reset."""


@dataclass(frozen=True)
class Counts:
    """Since the proxy was started."""

    connections: int = 0
    connections_refused: int = 0
    """They were too many."""
    connections_reset: int = 0
    requests_bytes: int = 0
    """Passed on, as are those of replies."""
    replies_bytes: int = 0
    requests_delayed: int = 0
    """In pieces, as are those of replies."""
    replies_delayed: int = 0
    requests_swallowed_bytes: int = 0
    replies_swallowed_bytes: int = 0
    requests_dropped: int = 0
    """By resets of their connections, as are replies."""
    replies_dropped: int = 0


class Proxy:
    """In front of one address or several, each with a port of its own. Use as a context manager."""

    def __init__(self, targets: Sequence[Address]) -> None:
        self._helper = HelperProcess(__name__, json.dumps(list(targets)))
        try:
            self.addresses: list[Address] = [(host, port) for host, port in self._helper.ask("addresses")]
        except BaseException:
            self._helper.close()
            raise

    def delay(self, low_s: float, high_s: float, *, seed: int) -> None:
        """Bytes are late by so much, in each direction."""
        late = Way(delay_s=(low_s, high_s))
        self.behave(late, late, seed=seed)

    def drop_replies(self, share: float, *, seed: int) -> None:
        """That share of replies is dropped and its connection reset; their requests were passed on."""
        self.behave(Way(), Way(reset_share=share), seed=seed)

    def half_open(self) -> None:
        """Requests pass, replies do not, and connections stay open."""
        self.behave(Way(), Way(swallowed=True))

    def partition(self) -> None:
        """Nothing passes, connections stay open, and who connects is not answered."""
        self.behave(Way(swallowed=True), Way(swallowed=True), accepts=False)

    def behave(self, requests: Way, replies: Way, *, accepts: bool = True, seed: int = 0) -> None:
        """From now on, on connections that are there and on new ones; `accepts`: whether there can be new ones."""
        self._helper.ask("behave", requests=asdict(requests), replies=asdict(replies), accepts=accepts, seed=seed)

    def reset(self) -> None:
        """Reset every connection."""
        self._helper.ask("reset")

    def heal(self) -> None:
        """Pass on everything again; connections that lost bytes are reset."""
        self._helper.ask("heal")

    def counts(self) -> Counts:
        return Counts(**self._helper.ask("counts"))

    @property
    def pid(self) -> int:
        return self._helper.pid

    def close(self) -> None:
        """Close every connection and stop listening. Idempotent."""
        self._helper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# -- in the helper ---------------------------------------------------------------------------------


def main(control: socket.socket, targets: str) -> None:
    """In the helper."""
    asyncio.run(_serve(control, [(host, port) for host, port in json.loads(targets)]))


async def _serve(control: socket.socket, targets: Sequence[Address]) -> None:
    relay = _Relay(targets)
    control.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=control.dup())
    while question := await reader.readline():  # ends with the harness
        answer = relay.answer(**json.loads(question))
        writer.write(json.dumps({"answer": answer}).encode() + b"\n")
    relay.close()
    writer.close()


class _Relay:
    """All connections, and what becomes of their bytes."""

    def __init__(self, targets: Sequence[Address]) -> None:
        self.loop = asyncio.get_running_loop()
        self.requests = self.replies = Way()
        self.chance = random.Random(0)
        self.counts = dict.fromkeys(asdict(Counts()), 0)
        self.links: set[_Link] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._listeners = [(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG), target) for target in targets]
        self._fillers: dict[Address, socket.socket] = {}
        self._accepts = False
        for listener, _ in self._listeners:
            listener.setblocking(False)
        self._accept_again()

    def answer(self, ask: str, **arguments: Any) -> object:
        if ask == "addresses":
            return [listener.getsockname() for listener, _ in self._listeners]
        if ask == "counts":
            return self.counts
        if ask == "behave":
            self._behave(**arguments)
        elif ask == "reset":
            self._reset(self.links)
        else:
            self._heal()
        return None

    def close(self) -> None:
        self._refuse_silently()
        for listener, _ in self._listeners:
            listener.close()
        for filler in self._fillers.values():
            filler.close()
        self._reset(self.links)

    def _behave(self, requests: dict[str, Any], replies: dict[str, Any], accepts: bool, seed: int) -> None:
        self.requests, self.replies = Way(**requests), Way(**replies)
        self.chance = random.Random(seed)
        if accepts:
            self._accept_again()
        else:
            self._refuse_silently()

    def _heal(self) -> None:
        self.requests = self.replies = Way()
        self._reset({link for link in self.links if link.lost})
        for link in list(self.links):  # one whose end is passed on is a link no more
            link.flush()
        self._accept_again()

    def _reset(self, links: set[_Link]) -> None:
        for link in list(links):
            link.reset()

    def _accept_again(self) -> None:
        if not self._accepts:
            for listener, target in self._listeners:
                listener.listen(_BACKLOG)
                self.loop.add_reader(listener, self._accept, listener, target)
        self._accepts = True

    def _refuse_silently(self) -> None:
        """Keep the queue of connections full: the kernel then drops the packets of those who connect."""
        if self._accepts:
            for listener, _ in self._listeners:
                self.loop.remove_reader(listener)
                listener.listen(0)
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                self._fillers[filler.getsockname()] = filler
        self._accepts = False

    def _accept(self, listener: socket.socket, target: Address) -> None:
        with suppress(BlockingIOError):
            connection, address = listener.accept()
            if address in self._fillers:
                self._fillers.pop(address).close()
                connection.close()
            elif len(self.links) >= _LINKS_MAX:
                self.counts["connections_refused"] += 1
                _reset_on_close(connection)
                connection.close()
            else:
                connection.setblocking(False)
                link = _Link(self)
                self.links.add(link)
                opening = self.loop.create_task(self._open(link, connection, target))
                self._opening.add(opening)
                opening.add_done_callback(self._opening.discard)

    async def _open(self, link: _Link, connection: socket.socket, target: Address) -> None:
        with suppress(OSError):
            async with asyncio.timeout(_CONNECT_S):
                await self.loop.create_connection(lambda: link.server, *target)
            if link in self.links:  # not reset meanwhile
                self.counts["connections"] += 1
                await self.loop.connect_accepted_socket(lambda: link.client, connection)
                return
        self.links.discard(link)
        link.server.reset()
        _reset_on_close(connection)
        connection.close()


class _Link:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, relay: _Relay) -> None:
        self.relay = relay
        self.lost = False
        """Whether bytes or an end were swallowed."""
        self.client = _End(self, "requests")
        self.server = _End(self, "replies")

    def other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def flush(self) -> None:
        """Pass on what is late, now."""
        for end in (self.client, self.server):
            end.flush(float("inf"))

    def reset(self) -> None:
        """End both connections at once, noticeably."""
        self.relay.links.discard(self)
        self.relay.counts["connections_reset"] += 1
        for end in (self.client, self.server):
            end.reset()


class _End(asyncio.Protocol):
    """One of a link's connections: what it receives is for the other."""

    def __init__(self, link: _Link, kind: str) -> None:
        self._link = link
        self._kind = kind
        """Of what it receives."""
        self._transport: asyncio.Transport | None = None
        self._late: deque[tuple[float, bytes | None]] = deque()
        """What it is to be sent, and when; None for its end."""
        self._late_bytes = 0
        self._full = False
        """Whether it takes less than it is sent."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _way(self) -> Way:
        way: Way = getattr(self._link.relay, self._kind)
        return way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self is self._link.server:
            transport.pause_reading()  # until the client's side is there
        else:
            self._link.server.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._pass_on(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        if self._link in self._link.relay.links:
            self._pass_on(None)

    def pause_writing(self) -> None:
        self._full = True
        self._regulate()

    def resume_writing(self) -> None:
        self._full = False
        self._regulate()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _regulate(self) -> None:
        """Read for this end only what it can take."""
        sender = self._link.other(self)
        if self._full or self._late_bytes >= _BUFFER_BYTES:
            sender.pause_reading()
        else:
            sender.resume_reading()

    def _pass_on(self, data: bytes | None) -> None:
        relay, way, other = self._link.relay, self._way, self._link.other(self)
        if way.swallowed:
            self._link.lost = True
            relay.counts[f"{self._kind}_swallowed_bytes"] += len(data or b"")
            return
        if data is not None and way.reset_share and relay.chance.random() < way.reset_share:
            relay.counts[f"{self._kind}_dropped"] += 1
            self._link.reset()
            return
        if any(way.delay_s):
            relay.counts[f"{self._kind}_delayed"] += data is not None
            other.send_at(relay.loop.time() + relay.chance.uniform(*way.delay_s), data)
        else:
            other.send_at(0.0, data)
        relay.counts[f"{self._kind}_bytes"] += len(data or b"")

    def send_at(self, at: float, data: bytes | None) -> None:
        """At that time of the event loop, and not before what came before."""
        if not at and not self._late:
            self._send(data)
            return
        self._late.append((max(at, self._late[-1][0]) if self._late else at, data))
        self._late_bytes += len(data or b"")
        self._regulate()
        if self._timer is None:
            self._timer = self._link.relay.loop.call_at(self._late[0][0], self._flush_in_time)

    def flush(self, until: float) -> None:
        """Send what is due until then."""
        self._stop_timer()
        while self._late and self._late[0][0] <= until:
            data = self._late.popleft()[1]
            self._late_bytes -= len(data or b"")
            self._send(data)
        if self._late:
            self._timer = self._link.relay.loop.call_at(self._late[0][0], self._flush_in_time)
        self._regulate()

    def reset(self) -> None:
        self._stop_timer()
        self._late.clear()
        if self._transport is not None:
            _reset_on_close(self._transport.get_extra_info("socket"))
            self._transport.abort()

    def _flush_in_time(self) -> None:
        self.flush(self._link.relay.loop.time())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, data: bytes | None) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if data is None:
            self._link.relay.links.discard(self._link)
            self._transport.close()
        else:
            self._transport.write(data)


def _reset_on_close(connection: Any) -> None:
    with suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
