"""Dask's own hands: what users' calls really do to a cluster that holds state, and that it is whole afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.harness import faults
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from strategies.interface import Caller, Capabilities, Context, Fault, Indeterminate, Receipt, Resource, StateLost
from strategies.support.actors import LedgerActor
from tests.failure.struck import OPENING, PATIENCE_S, begun, struck

NOBODY: Any = None
"""Takes a handle's place where none is called."""


@pytest.fixture(scope="module")
def raised() -> Iterator[Environment]:
    with Environment(workers=2) as environment:
        yield environment


@pytest.fixture
def breakable(raised: Environment) -> Environment:
    """Without the last test's actors: the scheduler hears some 10 ms after their futures are gone that they are."""
    deadline = time.monotonic() + PATIENCE_S
    while raised.actors():
        assert time.monotonic() < deadline, "a test's actors outlived it"
        time.sleep(0.001)
    return raised


def balances_in_actors(environment: Environment) -> dict[str, dict[str, dict[str, int]]]:
    """What actors' objects know, by worker and key: asked of the workers, not of the scheduler."""

    def look(dask_worker: object) -> dict[str, dict[str, int]]:
        actors = dask_worker.state.actors  # type: ignore[attr-defined]
        return {
            key: {account: receipt.balance for account, receipt in actor.snapshot().items()}
            for key, actor in actors.items()
        }

    found: dict[str, dict[str, dict[str, int]]] = environment.client.run(look)
    return found


def by_hand(environment: Environment, fault: Fault) -> FaultAction:
    """Without a bank."""
    claims = Capabilities(needs=frozenset({Resource.DASK}))
    return faults.load(fault)(environment, claims, Caller.DRIVER, 1.0, random.Random(0))


def test_rebalance_destroys_a_live_actor_and_says_nothing(breakable: Environment) -> None:
    scheduler = breakable.scheduler
    settings = (scheduler.MEMORY_REBALANCE_MEASURE, scheduler.MEMORY_REBALANCE_SENDER_MIN)
    with struck(breakable, Fault.REBALANCE, "actor_single", "direct") as trial:
        ((worker, (key,)),) = breakable.actors().items()
        assert key in balances_in_actors(breakable)[worker]
        assert trial.all_of_it() == "1 actors of worker 0 of 1"
        assert all(key not in actors for actors in balances_in_actors(breakable).values())
        assert {type(each) for each in trial.deposits()} == {StateLost}
        assert breakable.actors() == {}
    assert settings == (scheduler.MEMORY_REBALANCE_MEASURE, scheduler.MEMORY_REBALANCE_SENDER_MIN)
    assert worker not in breakable.worker_pids(), "the scheduler would never retire that worker again"
    begun(breakable, "actor_single")


def test_retiring_a_worker_that_holds_state_is_refused(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.RETIRE_WORKERS, "actor_single") as trial:
        assert trial.all_of_it() == "worker 0 of 1, which refused"
        assert all(isinstance(each, Receipt) for each in trial.deposits())
    assert breakable.worker_pids() == before


def test_a_worker_without_state_retires_and_is_replaced(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.RETIRE_WORKERS, "driver_dict") as trial:
        assert trial.all_of_it().endswith("which went")
    after = breakable.worker_pids()
    assert len(set(before) & set(after)) == 1
    assert len(after) == 2


def test_retry_gives_live_actors_up_and_makes_them_again(breakable: Environment) -> None:
    with struck(breakable, Fault.CLIENT_RETRY, "actor_pool", "direct") as trial:
        before = {key: worker for worker, keys in breakable.actors().items() for key in keys}
        trial.all_of_it()
        states = {key: [each.finish for each in breakable.scheduler.story(key)] for key in before}
        made_again = [key for key in before if "erred" in states[key]]
        assert made_again
        assert len({before[key] for key in made_again}) == 1
        assert all(breakable.scheduler.tasks[key].state == "memory" for key in before)
    begun(breakable, "actor_single")


def test_retry_can_leave_two_actors_of_one_key(breakable: Environment) -> None:
    action = by_hand(breakable, Fault.CLIENT_RETRY)
    with action.prepared(Context(client=breakable.client)):
        future = breakable.client.submit(LedgerActor, actor=True, pure=False)
        future.result().open_account("account", OPENING).result()
        ((old, _),) = breakable.actors().items()
        action.inject(NOBODY)
        found = {worker: actors[future.key] for worker, actors in balances_in_actors(breakable).items() if actors}
        assert found.pop(old) == {"account": OPENING}
        assert list(found.values()) == [{}]


def test_restart_replaces_every_worker(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.CLIENT_RESTART, "actor_single", "direct") as trial:
        trial.all_of_it()
        assert {type(each) for each in trial.deposits()} == {StateLost}
    after = breakable.worker_pids()
    assert not set(before.values()) & set(after.values())
    assert len(after) == 2
    begun(breakable, "actor_single", "direct")


def test_an_adaptive_cluster_closes_the_worker_with_the_state(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.ADAPT_DOWN, "actor_single", "direct") as trial:
        (holder,) = breakable.workers_with_actors()
        assert trial.blow() == "1 of 2 workers"
        (stays,) = breakable.scheduler.workers
        assert stays in before
        assert stays != holder
        assert {type(each) for each in trial.deposits()} <= {StateLost, Indeterminate}
        trial.action.heal()
        assert len(breakable.worker_pids()) == 2
    time.sleep(0.5)  # five looks of one that still adapted
    assert len(breakable.scheduler.workers) == 2
    begun(breakable, "actor_single")


@pytest.mark.parametrize("fault", [Fault.REBALANCE, Fault.CLIENT_RETRY])
def test_where_there_is_no_actor_there_is_nothing_to_strike(breakable: Environment, fault: Fault) -> None:
    action = by_hand(breakable, fault)
    with action.prepared(Context(client=breakable.client)):
        with pytest.raises(NotInjected, match="no worker holds an actor"):
            action.inject(NOBODY)


def test_an_earlier_trials_actors_are_not_struck(breakable: Environment) -> None:
    with struck(breakable, Fault.REBALANCE, "actor_single"):
        (earlier,) = breakable.actors().values()
        with struck(breakable, Fault.REBALANCE, "actor_single") as trial:
            ((_, keys),) = trial.action.actors().items()  # type: ignore[attr-defined]
            assert keys
            assert keys != earlier
