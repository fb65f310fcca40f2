"""This process's way into the Dask cluster: one message, one answer, within a deadline, and its fate.

Goes through the connection pools of the client or worker that lives here, so that the cluster's
own protocol, TLS settings and serializers apply. `distributed.actor.Actor` is not used for calls:
it calls again by itself after an OSError, so that one call can have two effects, and it never
resolves when the answer is not one that it knows.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from strategies.support.dask_link import PROTOCOLS, Links, protocol_of
from strategies.support.fates import NotAnswered, NotSent

if TYPE_CHECKING:
    from distributed import Client
    from distributed.core import ConnectionPool
    from tornado.ioloop import IOLoop

_LATE_S = 60.0
"""How long an answer that nobody waits for any more is waited for, where something is to be undone then."""
_TELLINGS = 5
"""Of one message, where its connections break."""

_links: WeakKeyDictionary[ConnectionPool, Links] = WeakKeyDictionary()
_links_lock = threading.Lock()


class NoCluster(RuntimeError):
    """This process has neither a Dask worker nor a Dask client."""


@dataclass(frozen=True)
class Cluster:
    """The pool, loop and scheduler of the client or worker in this process."""

    pool: ConnectionPool
    loop: IOLoop
    scheduler: str
    in_worker: bool

    @classmethod
    def of_client(cls, client: Client) -> Cluster:
        if client.asynchronous:
            raise ValueError("strategies block, so they need a synchronous client; open one with asynchronous=False")
        if client.scheduler is None or client.status != "running":
            raise NoCluster(f"the Dask client is {client.status}; open another")
        return cls(pool=client.rpc, loop=client.loop, scheduler=client.scheduler.addr, in_worker=False)

    @classmethod
    def here(cls) -> Cluster:
        """That of the worker in this process, else that of the process's current client.

        Raises:
            NoCluster: there is neither.
        """
        from distributed import Worker, get_client, get_worker

        try:
            worker = get_worker()
        except ValueError:
            # In a thread that a task started, Dask does not know the worker; the process has one.
            worker = next(iter(Worker._instances), None)
        if worker is not None:
            return cls(pool=worker.rpc, loop=worker.loop, scheduler=worker.scheduler.addr, in_worker=True)
        try:
            return cls.of_client(get_client())
        except ValueError:
            raise NoCluster("there is no Dask worker or client in this process; connect a Client first") from None

    @property
    def links(self) -> Links | None:
        """The blocking connections that handles in this process share; None where the protocol has none."""
        if protocol_of(self.scheduler) not in PROTOCOLS:
            return None
        with _links_lock:
            links = _links.get(self.pool)
            if links is None:
                links = _links[self.pool] = Links(self.pool)
            return links

    def ask(self, address: str, deadline: float, *, connect_s: float | None = None, **message: Any) -> Any:
        """Send `message` (its `op` names the handler) to `address` and return the answer.

        `deadline` is a reading of `time.monotonic()`; `connect_s` can end the attempt to connect
        sooner. An exception that the handler did not catch
        is raised here as it was there.

        Raises:
            NotSent: no connection, or the deadline had passed.
            NotAnswered: the connection broke, or the deadline passed, after sending began.
        """
        from distributed.utils import sync

        # Taken once, by the exchange when it begins to send or by the caller when it gives up:
        # so a call that was given up before it was sent can never be sent afterwards.
        fate = threading.Lock()

        async def exchange() -> Any:
            comm = await self.pool.connect(address, timeout=connect_s)
            try:
                if not fate.acquire(blocking=False):
                    raise TimeoutError
                return await _send_and_receive(comm, message)
            finally:
                self.pool.reuse(address, comm)

        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise NotSent("the deadline had passed")
        try:
            return sync(self.loop, exchange, callback_timeout=remaining_s)
        except OSError as error:
            problem = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            unsent = fate.acquire(blocking=False)
            raise (NotSent if unsent else NotAnswered)(f"{address}: {problem}") from error
        except RuntimeError as error:
            # A closed connection pool or event loop; or the handler's own error, which came after sending.
            if fate.acquire(blocking=False):
                raise NotSent(f"this process has left the cluster: {error}") from error
            raise

    def ask_in_order(
        self, address: str, deadline: float, messages: Sequence[dict[str, Any]], undo: dict[str, Any] | None = None
    ) -> list[Any]:
        """Send all of these by one connection, whose other end works them off in this order; their answers.

        One with `reply=False` has none. An exception that a handler did not catch is the answer in its place. What is
        given up for want of an answer has been sent all the same: as soon as its answers come after all, `undo`
        follows it by the same connection.

        Raises:
            NotSent: no connection, or the deadline had passed.
            NotAnswered: the connection broke, or the deadline passed, after sending began.
        """
        begun, heard = threading.Lock(), threading.Lock()  # each taken once, as `fate` in `ask`
        remaining_s = deadline - time.monotonic()

        async def exchange() -> list[Any]:
            async with asyncio.timeout(remaining_s + _LATE_S):
                comm = await self.pool.connect(address)
                try:
                    if not begun.acquire(blocking=False):
                        return []
                    for message in messages:
                        await comm.write(message, on_error="raise")
                    answers = [_answer(await comm.read()) for each in messages if each.get("reply", True)]
                    if not heard.acquire(blocking=False) and undo is not None:
                        await comm.write({**undo, "reply": False}, on_error="raise")
                    return answers
                except BaseException:
                    comm.abort()  # a later exchange must not read what belongs to this one
                    raise
                finally:
                    self.pool.reuse(address, comm)

        if remaining_s <= 0:
            raise NotSent("the deadline had passed")
        work = exchange()
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop.asyncio_loop)  # type: ignore[attr-defined]
        except RuntimeError as error:  # a closed event loop
            work.close()
            raise NotSent(f"this process has left the cluster: {error}") from error
        futures.wait([future], remaining_s)
        if not future.done():
            if begun.acquire(blocking=False):
                raise NotSent(f"{address}: no connection in time")
            if heard.acquire(blocking=False):
                raise NotAnswered(f"{address}: no answer in time")
        try:
            return future.result()
        except (OSError, RuntimeError, futures.CancelledError) as error:
            unsent = begun.acquire(blocking=False)
            raise (NotSent if unsent else NotAnswered)(f"{address}: {error}") from error

    def tell(self, address: str, message: dict[str, Any]) -> None:
        """Send it soon, again if its connection breaks, and wait for nothing."""

        async def send() -> None:
            async with asyncio.timeout(_LATE_S):
                for _ in range(_TELLINGS):
                    with suppress(OSError):
                        comm = await self.pool.connect(address)
                        try:
                            await _send_and_receive(comm, dict(message))
                        finally:
                            self.pool.reuse(address, comm)
                        return

        work = send()
        try:
            asyncio.run_coroutine_threadsafe(work, self.loop.asyncio_loop)  # type: ignore[attr-defined]
        except RuntimeError:  # a closed event loop
            work.close()

    def ask_scheduler(self, deadline: float, **message: Any) -> Any:
        """`ask` for a question to the scheduler that changes nothing: no answer is `NotSent` too."""
        try:
            return self.ask(self.scheduler, deadline, **message)
        except NotAnswered as error:
            raise NotSent(f"the scheduler at {error}") from error


def _answer(reply: Any) -> Any:
    if isinstance(reply, dict) and reply.get("status") == "uncaught-error":
        from distributed.core import clean_exception

        return clean_exception(**reply)[1]
    return reply


async def _send_and_receive(comm: Any, message: dict[str, Any]) -> Any:
    from distributed.core import send_recv

    return await send_recv(comm, **message)
