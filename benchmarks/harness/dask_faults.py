"""Faults by Dask's own hands: what users call to tidy a cluster up, while it holds state."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from benchmarks.harness.environment import in_time
from benchmarks.harness.faults import NotInjected
from benchmarks.harness.process_faults import ClusterFault
from strategies.interface import Accounts, Caller, Capabilities, Context, Fault, Resource

if TYPE_CHECKING:
    from distributed import Scheduler

_CALL_S = 10.0
"""For a call that takes milliseconds."""
_RESTART_S = 20.0
"""For worker processes to end, within `client.restart`. Its own default is 120 s."""
_DOWN_S = 20.0
"""For an adaptive cluster to scale down, which takes it some intervals and its workers' end."""
_RETRIES = 4
"""Two do; a key that was in error before takes one."""
_ADAPT_INTERVAL_S = 0.1
_POLL_S = 0.02
_USERS_DATA_BYTES = 2**20


class _StateFault(ClusterFault):
    """What befalls keys that Dask holds in memory: only state in Dask is among those."""

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if Resource.DASK in claims.needs else "its state is no data of Dask's"

    def struck_actors(self) -> tuple[str, str, list[str]]:
        """The address of a worker that holds state, how to call it in a record, and its actors' keys.

        Raises:
            NotInjected: there is none.
        """
        actors = self.actors()
        if not actors:
            raise NotInjected("no worker holds an actor")
        worker, name = self.struck_worker()
        return worker, name, actors[worker]


class Rebalance(_StateFault):
    """`Client.rebalance` while a worker that holds state also holds more data than others."""

    fault = Fault.REBALANCE
    target = "the data on a worker that holds state"
    emulates = "a user who evens out the workers' memory in a session that also has actors"
    healed_by = "nothing: the actors' objects are gone, and nobody is told"
    cannot_show = (
        "how rarely it moves anything: by default only from a worker above 30 % of its memory limit; here 1 MiB of "
        "a user's data lies on it, and the thresholds (distributed.worker.memory.rebalance) are set to zero"
    )

    def inject(self, accounts: Accounts) -> str:
        worker, name, keys = self.struck_actors()
        client = self.environment.client
        data = client.scatter([bytes(_USERS_DATA_BYTES // 4)] * 4, workers=[worker], hash=False, timeout=_CALL_S)
        with _no_thresholds(self.environment.scheduler):
            client.rebalance(callback_timeout=_CALL_S)
        del data
        left = self.actors().get(worker, ())
        moved = [key for key in keys if key not in left]
        if not moved:
            raise NotInjected("rebalance moved none of the actors")
        return f"{len(moved)} actors of {name}"


class RetireWorkers(ClusterFault):
    """`Client.retire_workers` of the worker that holds state; of any worker where none does."""

    fault = Fault.RETIRE_WORKERS
    target = "the Dask worker that holds state, or any where none does"
    emulates = "an operator who drains a node, or a deployment that scales down with care"
    healed_by = "another worker, if it went"
    cannot_show = "a node that is taken away although its worker would not retire"

    def inject(self, accounts: Accounts) -> str:
        worker, name = self.struck_worker()
        retired = self.environment.client.retire_workers([worker], callback_timeout=_CALL_S)
        return f"{name}, which {'went' if worker in retired else 'refused'}"

    def heal(self) -> None:
        self.environment.await_workers()


class ClientRetry(_StateFault):
    """`Client.retry` of the futures of the actors on one worker, until they are finished again.

    The first call makes Dask take live actors for lost. The second makes them again: where Dask chooses the worker
    that has the old one, that goes on; elsewhere a blank one comes to live beside the old one, of the same key.
    """

    fault = Fault.CLIENT_RETRY
    target = "the futures of the actors on one worker"
    emulates = "a user who retries futures that look stuck, actors among them, until they look well"
    healed_by = "nothing: the old actors live on, and beside them blank ones of the same keys, if there are any"
    cannot_show = "one retry only, after which the futures are in error and the actors still answer"

    def inject(self, accounts: Accounts) -> str:
        from distributed import Future as DaskFuture

        _, name, keys = self.struck_actors()
        client = self.environment.client
        futures = [DaskFuture(key, client) for key in keys]
        for _ in range(_RETRIES):
            in_time(_CALL_S, lambda: client.retry(futures))
            if self._settled(keys) == {"memory"}:
                return f"{len(keys)} actors of {name}"
        raise NotInjected(f"the actors were not made again by {_RETRIES} retries")

    def _settled(self, keys: list[str]) -> set[str]:
        """The states that the keys come to, as the scheduler has them."""
        deadline = time.monotonic() + _CALL_S
        while True:
            tasks = [self.environment.scheduler.tasks.get(key) for key in keys]
            states = {task.state if task is not None else "forgotten" for task in tasks}
            if states <= {"memory", "erred", "forgotten"} or time.monotonic() > deadline:
                return states
            time.sleep(_POLL_S)


class ClientRestart(ClusterFault):
    """`Client.restart`: every worker process ends and is started again, and every key is forgotten."""

    fault = Fault.CLIENT_RESTART
    target = "all workers, and all that the scheduler knows"
    emulates = "a user who restarts the cluster to get rid of stuck tasks or of memory"
    healed_by = "the workers' nannies, which start blank ones"
    cannot_show = "a restart by one user of a cluster that another one's state is on: both are the same client here"

    def inject(self, accounts: Accounts) -> str:
        client = self.environment.client
        # A worker that does not end in time is given up by the scheduler: the restart has been, all the same.
        with suppress(TimeoutError):
            in_time(_RESTART_S + _CALL_S, lambda: client.restart(timeout=_RESTART_S, wait_for_workers=False))
        return "all workers"

    def heal(self) -> None:
        self.environment.await_workers()


class AdaptDown(ClusterFault):
    """`cluster.adapt(minimum=1, maximum=1)`: all workers but one are closed, those with state among them."""

    fault = Fault.ADAPT_DOWN
    target = "all workers but the one that holds the most data, which is one without state where there is one"
    emulates = "an adaptive cluster that finds itself idle while it holds state"
    healed_by = "an end to adapting, and as many workers as before"
    cannot_show = (
        "the default patience (three looks, a second apart; here 0.1 s); state that is the cluster's largest data, "
        "which is kept: here 1 MiB of a user's data lies on the worker that stays"
    )

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with super().prepared(context), ExitStack() as self._stack:
            yield context

    def armed(self) -> None:
        holders = self.actors()
        workers = sorted(self.environment.worker_pids())
        stays = self.chance.choice([each for each in workers if each not in holders] or workers)
        self._data = self.environment.client.scatter(
            bytes(_USERS_DATA_BYTES), workers=[stays], hash=False, timeout=_CALL_S
        )
        self._stack.callback(self._data.release)

    def inject(self, accounts: Accounts) -> str:
        cluster = self.environment.cluster
        before = len(cluster.worker_spec)
        self._stack.callback(self._stop)
        cluster.adapt(minimum=1, maximum=1, interval=_ADAPT_INTERVAL_S)
        deadline = time.monotonic() + _DOWN_S
        while len(cluster.workers) > 1 or len(self.environment.scheduler.workers) > 1:
            if time.monotonic() > deadline:
                raise NotInjected(f"the cluster did not scale down to one worker within {_DOWN_S:.0f} s")
            time.sleep(_POLL_S)
        return f"{before - 1} of {before} workers"

    def heal(self) -> None:
        self._stop()
        self.environment.await_workers()

    def _stop(self) -> None:
        cluster = self.environment.cluster

        async def stop() -> None:
            adaptive = getattr(cluster, "_adaptive", None)
            if adaptive is not None:
                adaptive.stop()

        cluster.sync(stop, callback_timeout=_CALL_S)


@contextmanager
def _no_thresholds(scheduler: Scheduler) -> Iterator[None]:
    """What `distributed.worker.memory.rebalance` can be set to: managed data counts, and every difference does."""
    settings: dict[str, Any] = {
        "MEMORY_REBALANCE_MEASURE": "managed",
        "MEMORY_REBALANCE_SENDER_MIN": 0.0,
        "MEMORY_REBALANCE_HALF_GAP": 0.0,
    }
    before = {name: getattr(scheduler, name) for name in settings}
    for name, value in settings.items():
        setattr(scheduler, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(scheduler, name, value)
