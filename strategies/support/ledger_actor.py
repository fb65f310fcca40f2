"""A ledger as a Dask actor, and the door through which its worker lets batches in.

The worker answers them on its event loop, not on the one thread that runs actors' methods: that saves
two changes of thread per message. What is asked of a ledger cannot interleave all the same, since the
ledger works through a batch under its own lock, and the event loop has nothing else to do meanwhile: it
takes about a microsecond per operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from strategies.support.dask_link import ACCEPTED
from strategies.support.stream_link import PREFIX_BYTES
from strategies.support.wire_ledger import SNAPSHOT, WireLedger

if TYPE_CHECKING:
    from distributed import Worker
    from distributed.comm import Comm

ASK = "dask_state_bench_ask"
"""The worker's handler for one batch: what the scheduler passes on."""

STREAM = "dask_state_bench_stream"
"""The worker's handler that takes over a connection for one batch after another."""

ANSWERED, GONE, FAILED = b"\0", b"\1", b"\2"
"""The first byte of a reply: answers follow; the actor is not here; it failed, and the reason follows."""

_CHUNK = 2**16

_MAX_BYTES = 2**24
"""Of one request: twice the largest batch of the longest names."""


class DoorActor(Protocol):
    """An actor that has opened the door of its worker."""

    def reply(self, payload: bytes) -> bytes | Awaitable[bytes]:
        """Called on the worker's event loop: what may take long there is to be awaited."""


def open_door() -> None:
    """Let callers in to the actors of the worker where this is called, from an actor that is being made."""
    from distributed import get_worker

    worker = get_worker()
    door = Door(worker)
    worker.handlers.setdefault(ASK, door.ask)
    worker.handlers.setdefault(STREAM, door.stream)


class LedgerActor(WireLedger):
    """A ledger that opens the door of the worker where it is made."""

    def __init__(self) -> None:
        super().__init__()
        open_door()

    def reply(self, payload: bytes) -> bytes | Awaitable[bytes]:
        if payload == SNAPSHOT:  # takes a second for a million accounts, which would stop the event loop
            return asyncio.to_thread(self.packed_snapshot, self.doubts())
        return self.answer(payload)


def request(key: str, payload: bytes) -> bytes:
    """What goes into the stream: to whom, and what."""
    name = key.encode()
    return len(name).to_bytes() + name + payload


class Door:
    """Hands what comes in from callers to the actors that live on this worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def ask(self, actor: str, payload: bytes) -> bytes:
        """Handler of one message."""
        found: DoorActor | None = self._worker.state.actors.get(actor)
        if found is None:
            return GONE
        try:
            reply = found.reply(payload)
            return ANSWERED + (reply if isinstance(reply, bytes) else await reply)
        except Exception as error:
            return FAILED + repr(error).encode(errors="replace")

    async def stream(self, comm: Comm) -> Any:
        """Handler of a connection, until one side hangs up. Dask's own framing costs as much as all the rest."""
        from distributed.core import Status

        try:
            await comm.write(ACCEPTED)
            stream = comm.stream
            while True:  # ends with an OSError, when the caller or the worker closes the connection
                message = await stream.read_bytes(_CHUNK, partial=True)  # all of it, as a rule
                if len(message) < PREFIX_BYTES:
                    message += await stream.read_bytes(PREFIX_BYTES - len(message))
                end = PREFIX_BYTES + int.from_bytes(message[:PREFIX_BYTES])
                if end > _MAX_BYTES or end < len(message):
                    break
                if end > len(message):
                    message += await stream.read_bytes(end - len(message))
                begin = PREFIX_BYTES + 1 + message[PREFIX_BYTES]
                reply = await self.ask(message[PREFIX_BYTES + 1 : begin].decode(), message[begin:])
                stream.write(len(reply).to_bytes(PREFIX_BYTES) + reply)
        except (OSError, IndexError, UnicodeDecodeError):  # it hung up, or names no actor in the way of `request`
            pass
        finally:
            comm.abort()
        return Status.dont_reply
