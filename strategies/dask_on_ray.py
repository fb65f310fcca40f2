"""Callers that are a Dask graph run by Ray's scheduler for Dask, with the state in Ray actors: the book's best of both.

Each call is a graph, run by `ray.util.dask.ray_dask_get` (https://docs.ray.io/en/latest/ray-more-libs/dask-on-ray.html):
it has a task for each shard that is concerned, which asks the Ray actor that owns the shard. A batch is one graph,
and what is submitted while a graph runs is the next one. No part of Dask's own distributed scheduler takes part, so
there are no Dask tasks to call from.

The shards are those of `ray_pool` in its variant `plain`: what is said there of losses and of hosts holds here too.
The way to them is longer, by a Ray task. Ray runs a task again, up to three times, when its process dies
(https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html): that is turned off, since the actor may have done
by then what the task asked for. The scheduler has no deadline, so a graph is persisted, and its references are waited
for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Self

from strategies.interface import CALLER_FAULTS, Caller, Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.fates import NotSent
from strategies.support.ray_bank import NEEDS, PLAIN, SURVIVES, Gone, HostRef, RayBank, parts, reply_of
from strategies.support.ray_host import ask
from strategies.support.sharding import HashRing

SHARDS = 4


class DaskOnRay(ShardedAccounts):
    """A handle on the pool's shards."""

    capabilities = Capabilities(
        survives=SURVIVES - CALLER_FAULTS,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER}),
        needs=NEEDS,
        sharded=True,
    )

    def __init__(self, bank: _GraphBank, shards: Sequence[HostRef]) -> None:
        super().__init__(bank, shards, HashRing(len(shards)).shard_of)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = _GraphBank.of(context, cls.name, {"default": PLAIN})
        return cls(bank, bank.open_shards(context.shards or SHARDS))


class _GraphBank(RayBank):
    """A bank whose owners are asked by the tasks of a graph."""

    def _exchange(
        self, requests: Iterable[tuple[HostRef, bytes, bool]], deadline: float
    ) -> Iterator[bytes | Exception]:
        self.check_open()
        tasks: dict[str, tuple[Any, ...]] = {}
        begun: list[str | Exception] = []
        ends = time.time() + (deadline - time.monotonic())
        for owner, payload, _ in requests:
            try:
                key = f"shard-{len(tasks)}"
                tasks[key] = (ask, self._actor(owner, deadline), ends, self._name, owner.epoch, parts(payload))
                begun.append(key)
            except (NotSent, Gone) as error:
                begun.append(error)
        refs = dict(zip(tasks, self._run(tasks), strict=True))
        for each in begun:
            yield each if isinstance(each, Exception) else reply_of(refs[each], deadline)

    def _run(self, tasks: dict[str, tuple[Any, ...]]) -> Sequence[Any]:
        """References to what the tasks of this graph will have returned."""
        if not tasks:
            return ()
        refs: Sequence[Any] = _scheduler()(
            tasks, list(tasks), ray_persist=True, ray_remote_args={"max_retries": 0}, pool=_Here
        )
        return refs


class _Here:
    """In place of the scheduler's pool of threads that submit tasks: this one. To submit blocks nobody."""

    _pool = (None,)
    """The scheduler counts its threads."""

    @staticmethod
    def apply_async(
        function: Callable[..., Any], args: Any = (), kwds: Any = None, callback: Callable[..., Any] | None = None
    ) -> None:
        """Apply it now."""
        result = function(*args, **(kwds or {}))
        if callback is not None:
            callback(result)


@cache
def _scheduler() -> Any:
    """Ray's. Its package replaces `dask.persist`, for everybody, by one that other schedulers may not understand."""
    import dask

    persist, method = dask.persist, dask.base.DaskMethodsMixin.persist
    try:
        from ray.util.dask import ray_dask_get
    finally:
        dask.persist, dask.base.DaskMethodsMixin.persist = persist, method
    return ray_dask_get
