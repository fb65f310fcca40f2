"""A deposit by hand with Ray: a call of an actor that has a dict, and `ray.get`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context
from strategies.support import ray_link

_CONNECT_S = 30.0


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In an actor of its own, kept as the strategy's first variant has it: never started again."""
    import ray

    with bank(context) as actor:

        def deposit() -> Sequence[int]:
            answer: tuple[int, int] = ray.get(actor.deposit.remote("a", 1))
            return answer

        yield deposit


@contextmanager
def bank(context: Context) -> Iterator[Any]:
    """An actor with one account, that runs. Its class is nested, so that it travels by value."""
    import ray

    class Bank:
        def __init__(self) -> None:
            self._accounts = {"a": (1, 0)}

        def deposit(self, account: str, amount: int) -> tuple[int, int]:
            seq, balance = self._accounts[account]
            after = self._accounts[account] = (seq + 1, balance + amount)
            return after

    assert context.ray_url is not None
    # A process has one connection, and the strategy's is there.
    ray_link.join(context, ray_link.address_of(context.ray_url), time.monotonic() + _CONNECT_S)
    actor = ray.remote(Bank).options(num_cpus=0).remote()
    ray.get(actor.deposit.remote("a", 1))
    try:
        yield actor
    finally:
        ray.kill(actor)
        ray_link.leave(context)
