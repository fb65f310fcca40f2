"""A deposit by hand with Dask's own objects: acquire a Lock, get a Variable, set it, release the Lock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """A Variable with a dict of one account."""
    from distributed import Lock, Variable

    client, name = context.client, f"by-hand-{uuid.uuid4().hex}"
    assert client is not None
    lock, variable = Lock(name, scheduler_rpc=client.scheduler, loop=client.loop), Variable(name, client=client)
    variable.set({"a": (1, 0)})

    def deposit() -> Sequence[int]:
        with lock:
            accounts = variable.get()
            seq, balance = accounts["a"]
            accounts["a"] = (seq + 1, balance + 1)
            variable.set(accounts)
        return seq + 1, balance + 1

    try:
        yield deposit
    finally:
        variable.delete()
