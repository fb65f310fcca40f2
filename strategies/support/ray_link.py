"""This process's one connection to a Ray cluster: made in time, shared by handles, never by a forked child."""

from __future__ import annotations

import logging
import os
import socket
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

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""A frame of HTTP/2 with no setting in it."""
_LEAST_S = 0.001

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
    serves = current is not None and not _forked and current.serves(address)
    if current is None or not serves or user not in _users:
        if not serves:
            knock(address, deadline)
        current = _attempted(user, address)
        wait([current.made], timeout=_left(deadline))
        error = current.made.exception() if current.made.done() else TimeoutError("no answer in time")
        if error is not None:
            leave(user)
            raise NotSent(f"the Ray cluster at {address} cannot be used: {error}") from error
    return current


def knock(address: str, deadline: float) -> None:
    """Return if a gRPC server is there, as GCS is: it answers the beginning of HTTP/2 (RFC 9113, 3.4) with its own.

    Ray's client tries for more than a minute, and cannot be told to give up.

    Raises:
        NotSent: none answered by the deadline.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _left(deadline)) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(_PREFACE + _SETTINGS)
            if connection.recv(len(_SETTINGS))[3:4] != _SETTINGS[3:4]:
                raise NotSent(f"what answers at {address} is no Ray cluster")
    except OSError as error:
        raise NotSent(f"no Ray cluster answered at {address}: {error}") from error


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
    wait([answer], timeout=_left(deadline))
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
    # That is about what workers print. What Ray has to say of their deaths would go to this program's own output all
    # the same, where somebody may read JSON; there is no public way to stop it.
    ray._private.worker._worker_logs_enabled = False


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


def _left(deadline: float) -> float:
    return max(_LEAST_S, deadline - time.monotonic())  # no time at all would mean not to block


def _canonical(host: str, port: int | str) -> str:
    """An address that Ray takes as it is.

    Ray 2.60 takes `localhost` and 127.0.0.1 for the host's outward address, where a cluster on loopback does not
    listen. Names of hosts have no case, but Ray looks for this one in lower case only.
    """
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
