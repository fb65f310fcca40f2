"""A deposit by hand with Ray, of several actors: the account's is found by a digest, and called."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.harness.by_hand import Deposit, ray_actor
from strategies.interface import Context

_ACTORS = 4


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In as many actors as the strategy makes, kept as its first variant has them."""
    import ray

    with ExitStack() as stack:
        actors = [stack.enter_context(ray_actor.bank(context)) for _ in range(_ACTORS)]

        def deposit() -> Sequence[int]:
            actor = actors[zlib.crc32(b"a") % _ACTORS]
            answer: tuple[int, int] = ray.get(actor.deposit.remote("a", 1))
            return answer

        yield deposit
