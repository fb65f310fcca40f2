"""A deposit by hand with kazoo: a get, and a set on condition of the version that was read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In a znode of its own, at the server's root."""
    from kazoo.client import KazooClient

    with ExitStack() as stack:
        client = KazooClient(urlsplit(context.zookeeper_url or "").netloc)
        client.start(context.timeout_s)
        stack.callback(client.close)
        stack.callback(client.stop)
        path = f"/by-hand-{uuid.uuid4().hex}"
        client.create(path, b"1 0")

        def deposit() -> Sequence[int]:
            data, status = client.get(path)
            seq, balance = map(int, data.split())
            client.set(path, b"%d %d" % (seq + 1, balance + 1), version=status.version)
            return seq + 1, balance + 1

        yield deposit
