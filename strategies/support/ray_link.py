"""This process's one connection to a Ray cluster: made within a deadline, shared by handles, never by a forked child."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

from strategies.support.fates import NotSent

T = TypeVar("T")

SCHEME = "ray"

_LOOPBACK = frozenset({"localhost", "127.0.0.1"})

_lock = threading.Lock()
_current: Connection | None = None
_users: WeakSet[object] = WeakSet()
_forked = False


class Connection:
    """One, or an attempt at it. Stays until the process ends, or needs another: to make one takes Ray half a second."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.made: Future[None] = Future()

    def serves(self, address: str) -> bool:
        """Whether calls to that cluster can go over it, so far as this process knows."""
        import ray

        if self.address != address or not self.made.done():
            return False
        return self.made.exception() is None and bool(ray.is_initialized())


def address_of(url: str) -> str:
    """HOST:PORT of a URL, as `ray.init` needs it.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme != SCHEME or not host or not port or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"a Ray cluster's address is {SCHEME}://HOST:PORT, of its head's GCS")
    return _canonical(host, port)


def join(user: object, address: str, deadline: float) -> Connection:
    """The connection to that cluster, made if there is none; kept at least until `user` leaves or is gone.

    Raises:
        NotSent: no cluster answers there by the deadline, or this process cannot connect to one.
    """
    current = _current
    if current is None or _forked or not current.serves(address):
        current = _attempted(user, address)
        wait([current.made], timeout=max(0.0, deadline - time.monotonic()))
        if not current.made.done():
            raise NotSent(f"no Ray cluster answered at {address} in time")
        error = current.made.exception()
        if error is not None:
            raise NotSent(f"the Ray cluster at {address} cannot be used: {error}") from error
    return current


def leave(user: object) -> None:
    """Let go of the connection: this user has no need of it any more."""
    with _lock:
        _users.discard(user)


def is_connected(address: str) -> bool:
    """Whether this process is, whoever connected it."""
    import ray

    return bool(ray.is_initialized()) and _address_here() == address


def in_time(deadline: float, call: Callable[[], T]) -> T:
    """What the call returns; for those of Ray's that know no deadline. One that does not return leaves a thread.

    Raises:
        NotSent: it did not return by the deadline.
    """
    answer: Future[T] = Future()
    _in_thread(answer, call)
    wait([answer], timeout=max(0.0, deadline - time.monotonic()))
    if not answer.done():
        raise NotSent("the Ray cluster did not answer in time")
    return answer.result()


def _attempted(user: object, address: str) -> Connection:
    global _current
    import ray

    with _lock:
        if _forked:
            raise NotSent("this process was forked from one that is connected to Ray; start it by spawn instead")
        if _current is not None and not _current.made.done():
            if _current.address != address:
                raise NotSent(f"this process still tries to connect to another Ray cluster, {_current.address}")
        elif ray.is_initialized():
            found = _address_here()
            ours = _current is not None and _current.address == found
            if found != address and (_users or not ours):
                raise NotSent(
                    f"this process is connected to another Ray cluster, {found}, and Ray allows one; "
                    f"close its handles, or call ray.shutdown()"
                )
            if found != address:
                ray.shutdown()
                _begin(address)
            elif not ours:  # whoever made it may end it, too
                _current = Connection(address)
                _current.made.set_result(None)
        else:
            _begin(address)
        assert _current is not None
        _users.add(user)
        return _current


def _address_here() -> str:
    """Of the cluster that this process is connected to."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return _canonical(host, port)


def _begin(address: str) -> None:
    global _current
    _current = Connection(address)
    _in_thread(_current.made, lambda: _connect(address))


def _connect(address: str) -> None:
    """Not from the main thread: `ray.init` would replace the process's handler of SIGTERM there."""
    import ray

    with _unlogged():
        ray.init(address=address, log_to_driver=False, configure_logging=False)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the warning that SIGTERM keeps its handler, which is what we want."""

    def is_other(record: logging.LogRecord) -> bool:
        return "SIGTERM" not in record.getMessage()

    logger = logging.getLogger("ray._private.worker")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _in_thread(answer: Future[T], call: Callable[[], T]) -> None:
    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="ray-link").start()


def _canonical(host: str, port: int | str) -> str:
    """Ray 2.60 takes `localhost` and 127.0.0.1 for the host's outward address, where a cluster on loopback does not
    listen. Names of hosts have no case, but Ray looks for this one in lower case only."""
    host = host.strip("[]").casefold()
    if host in _LOOPBACK:
        return f"LOCALHOST:{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _after_fork() -> None:
    """Ray's threads and sockets are the parent's."""
    global _forked, _lock
    _lock = threading.Lock()
    ray = sys.modules.get("ray")
    _forked = _forked or _current is not None or bool(ray is not None and ray.is_initialized())


os.register_at_fork(after_in_child=_after_fork)
