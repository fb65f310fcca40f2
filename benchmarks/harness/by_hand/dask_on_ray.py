"""A deposit by hand with Dask on Ray: a graph of one task, which calls an actor that has a dict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.harness.by_hand import Deposit, ray_actor
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In an actor of its own. The task's function is nested, so that it travels by value."""
    from ray.util.dask import ray_dask_get

    def call(actor: object, account: str, amount: int) -> tuple[int, int]:
        import ray

        answer: tuple[int, int] = ray.get(actor.deposit.remote(account, amount))  # type: ignore[attr-defined]
        return answer

    with ray_actor.bank(context) as actor:

        def deposit() -> Sequence[int]:
            (answer,) = ray_dask_get({"deposit": (call, actor, "a", 1)}, ["deposit"])
            found: tuple[int, int] = answer
            return found

        yield deposit
