"""The ways that a request can take to a Dask actor: straight to its worker, by the scheduler, or by Dask's own pool."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from strategies.support.dask_link import Link, Links
from strategies.support.fates import NotAnswered
from strategies.support.ledger_actor import ANSWERED, ASK, GONE, STREAM, request

if TYPE_CHECKING:
    from strategies.support.cluster import Cluster

Reply = Callable[[], "bytes | memoryview"]
"""Waits for the reply to a request that was sent.

Raises:
    NotAnswered: the connection broke, or the deadline passed.
    ActorGone: the worker no longer has the actor.
"""


class ActorGone(Exception):
    """The worker has no such actor; nothing was applied."""


class Way(Protocol):
    """How requests get from this process to actors."""

    def is_open(self, address: str) -> bool:
        """Whether `send` will probably have to connect to nobody first."""

    def send(self, address: str, key: str, payload: bytes, deadline: float, connect_s: float) -> Reply:
        """Send a request to the actor `key` at the worker's `address`.

        Raises:
            NotSent: no connection within `connect_s`, or the deadline had passed.
            NotAnswered: the connection broke, or the deadline passed, after sending began.
            ActorGone: the worker no longer has the actor.
        """


class ToWorker:
    """A stream straight to the worker."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def is_open(self, address: str) -> bool:
        return self._links.has_idle(address)

    def send(self, address: str, key: str, payload: bytes, deadline: float, connect_s: float) -> Reply:
        try:
            link = self._links.take(address, deadline, connect_s, STREAM)
        except LookupError:
            raise ActorGone from None  # no actor was ever made in that process
        exchange = partial(_tried, address, link)
        exchange(link.send, request(key, payload), deadline)
        return lambda: _content(self._kept(address, link, exchange(link.receive, deadline)))

    def _kept(self, address: str, link: Link, reply: memoryview) -> memoryview:
        self._links.keep(address, link)
        return reply


class ByScheduler:
    """A message to the scheduler, which passes it on to the worker, and the reply back."""

    def __init__(self, links: Links, scheduler: str) -> None:
        self._links = links
        self._scheduler = scheduler

    def is_open(self, address: str) -> bool:
        return self._links.has_idle(self._scheduler)

    def send(self, address: str, key: str, payload: bytes, deadline: float, connect_s: float) -> Reply:
        link = self._links.take(self._scheduler, deadline, float("inf"))
        exchange = partial(_tried, self._scheduler, link)
        message = {"op": ASK, "actor": key, "payload": payload}
        exchange(link.write, {"op": "proxy", "worker": address, "msg": message}, deadline)
        return lambda: self._kept(link, exchange(link.read, deadline))

    def _kept(self, link: Link, reply: Any) -> bytes | memoryview:
        self._links.keep(self._scheduler, link)
        if isinstance(reply, dict):
            from distributed.core import clean_exception

            error = clean_exception(**reply)[1]
            if isinstance(error, OSError):
                raise NotAnswered(f"the scheduler did not reach {error}")
            raise RuntimeError(f"the scheduler failed: {error!r}")
        return _content(reply)


class ByPool:
    """Messages through the pool of the client or worker here: any protocol, one request after another."""

    def __init__(self, cluster: Cluster, *, proxied: bool) -> None:
        self._cluster = cluster
        self._proxied = proxied

    def is_open(self, address: str) -> bool:
        return True

    def send(self, address: str, key: str, payload: bytes, deadline: float, connect_s: float) -> Reply:
        message = {"op": ASK, "actor": key, "payload": payload}
        reply: Any
        if self._proxied:
            reply = self._cluster.ask(self._cluster.scheduler, deadline, op="proxy", worker=address, msg=message)
        else:
            reply = self._cluster.ask(address, deadline, connect_s=connect_s, **message)
        return lambda: _content(reply)


def _tried(address: str, link: Link, act: Callable[..., Any], *args: Any) -> Any:
    """Do one half of an exchange. A connection on which it fails is of no more use: a reply may still come."""
    try:
        return act(*args)
    except OSError as error:
        link.close()
        problem = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        raise NotAnswered(f"{address}: {problem}") from error
    except BaseException:
        link.close()
        raise


def _content(reply: Any) -> bytes | memoryview:
    """What the worker's door answered; None where there is no door, since no actor was ever made there."""
    if reply is None or reply[:1] == GONE:
        raise ActorGone
    if reply[:1] != ANSWERED:
        raise RuntimeError(bytes(reply[1:]).decode())
    content: bytes | memoryview = reply[1:]
    return content
