"""Load that is offered: arrivals, how they are dealt out, and what a client that runs elsewhere needs with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed.protocol import pickle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.harness import load, workloads
from benchmarks.harness.driver_processes import DriverFailed, DriverProcess
from benchmarks.harness.environment import Environment
from benchmarks.harness.generator import Part, generate
from benchmarks.harness.history import Floats
from benchmarks.harness.load import Arrivals, Load, _on_this_clock, shipped_by_value
from benchmarks.harness.simulated import NoOp
from strategies.interface import Accounts, Receipt

YCSB_A = workloads.load("ycsb_a")

WITHOUT_THE_RULER = """
import importlib.util, pickle, sys
assert importlib.util.find_spec("benchmarks") is None, "this interpreter can import the ruler, so it proves nothing"
(task,) = pickle.loads(sys.stdin.buffer.read())
try:
    task()
except TypeError as error:
    assert "missing" in str(error) and "generate" in str(error), error
else:
    raise AssertionError("generate() without arguments did not complain of them")
"""


def test_a_load_task_needs_no_import_of_the_ruler(tmp_path: Path) -> None:
    """asv loads the ruler by an importer of its own: workers cannot, and died of a task that named it."""
    payload = pickle.dumps([shipped_by_value(generate)])
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_RULER], input=payload, cwd=tmp_path, capture_output=True, check=False
    )
    assert loaded.returncode == 0, loaded.stderr.decode()


def test_by_reference_it_would_not_load(tmp_path: Path) -> None:
    """The check above can fail: this is what Dask makes of the function as it stands."""
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_RULER],
        input=pickle.dumps([generate]),  # within a graph, as it travels
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert b"No module named 'benchmarks'" in loaded.stderr


# -- arrivals --------------------------------------------------------------------------------------


def schedules(offered: Load, processes: int = 1, seed: int = 1) -> list[Floats]:
    """The due times of each process."""
    shares = load.shares(YCSB_A, offered, "session", seed, processes, lead_s=0.0)
    return [due_s for share in shares for due_s in share.due_s]


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_arrivals(processes: int, seed: int) -> None:
    """Exponential gaps with the right mean: of each process, and of all together."""
    each = schedules(Load(4, 20.0, Arrivals.POISSON, 1000.0), processes, seed)
    assert len(each) == processes
    for due_s in each:
        assert 0 <= due_s[0] <= due_s[-1] < 20.0
        assert stats.kstest(np.diff(due_s), "expon", args=(0, processes / 1000)).pvalue > 0.001
    together = np.sort(np.concatenate(each))
    assert len(together) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    assert stats.kstest(np.diff(together), "expon", args=(0, 1 / 1000)).pvalue > 0.001
    # Exponential gaps could still follow each other: counts in equal times must be Poisson's, variance = mean.
    counts = np.bincount((together * 10).astype(int))
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.4)


def test_poisson_arrivals_of_processes_are_independent() -> None:
    first, second = schedules(Load(2, 5.0, Arrivals.POISSON, 1000.0), processes=2)
    size = min(len(first), len(second)) - 1
    assert abs(np.corrcoef(np.diff(first)[:size], np.diff(second)[:size])[0, 1]) < 0.1


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_constant_arrivals_are_staggered_over_processes(processes: int) -> None:
    each = schedules(Load(6, 2.0, Arrivals.CONSTANT, 300.0), processes)
    together = np.sort(np.concatenate(each))
    assert np.allclose(np.diff(together), 1 / 300)
    assert len(together) == pytest.approx(600, abs=processes)
    for due_s in each:
        assert np.allclose(np.diff(due_s), processes / 300)


def test_clients_with_schedules_of_their_own() -> None:
    offered = Load(5, 1.0, Arrivals.CONSTANT, 100.0, own_schedules=True)
    shares = load.shares(YCSB_A, offered, "session", 1, 2, lead_s=0.0)
    assert [len(share.due_s) for share in shares] == [len(share.clients) for share in shares] == [3, 2]
    for share in shares:
        for due_s in share.due_s:
            assert np.allclose(due_s, np.arange(20) / 20)


@pytest.mark.parametrize("arrivals", [Arrivals.POISSON, Arrivals.CONSTANT])
@given(
    clients=st.integers(1, 20),
    processes=st.integers(1, 6),
    rate=st.floats(0.1, 20_000),
    seconds=st.floats(0.05, 1.5),
    own=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_shares_of_an_open_loop(
    arrivals: Arrivals, clients: int, processes: int, rate: float, seconds: float, own: bool
) -> None:
    offered = Load(clients, seconds, arrivals, rate, own_schedules=own)
    shares = load.shares(workloads.UNIT_DEPOSITS, offered, "session", 1, processes, lead_s=0.1)
    assert sorted(client.index for share in shares for client in share.clients) == list(range(clients))
    assert len(shares) == min(clients, processes)
    assert len({share.start_ns for share in shares}) == 1
    count = 0
    for share in shares:
        assert len(share.due_s) == (len(share.clients) if own else 1)
        for due_s in share.due_s:
            count += len(due_s)
            assert len(due_s) < share.capacity
            assert (due_s >= 0).all()
            assert (due_s < seconds).all()
            assert (np.diff(due_s) >= 0).all()
    expected = rate * seconds
    allowance = 6 * expected**0.5 + 6 if arrivals is Arrivals.POISSON else clients
    assert count == pytest.approx(expected, abs=allowance)


@pytest.mark.parametrize("clients", [1, 7, 256])
def test_a_trial_records_no_more_than_it_says(clients: int) -> None:
    shares = load.shares(YCSB_A, Load(clients, 3600.0), "session", 1, 4, lead_s=0.0)
    total = sum(share.capacity * len(share.clients) for share in shares)
    assert 0.99 * load.CAPACITY < total <= load.CAPACITY


# -- the same operations ---------------------------------------------------------------------------


def test_operations_follow_from_the_seed_wherever_they_come_from() -> None:
    def plans(processes: int, seed: int) -> dict[int, list[Any]]:
        shares = load.shares(YCSB_A, Load(5, 1.0), "session", seed, processes, lead_s=0.0)
        return {
            client.index: [client.function.tolist(), client.account.tolist(), client.amount.tolist()]
            for share in shares
            for client in share.clients
        }

    assert plans(1, 7) == plans(2, 7) == plans(5, 7)
    assert plans(1, 7) != plans(1, 8)


def test_arrivals_follow_from_the_seed() -> None:
    offered = Load(2, 1.0, Arrivals.POISSON, 500.0)
    assert np.array_equal(schedules(offered, seed=3)[0], schedules(offered, seed=3)[0])
    assert len(schedules(offered, seed=3)[0]) != len(schedules(offered, seed=4)[0]) or not np.array_equal(
        schedules(offered, seed=3)[0], schedules(offered, seed=4)[0]
    )


def test_arrivals_do_not_follow_the_operations() -> None:
    """The generators of plans and of arrivals have seeds of their own."""
    (due_s,) = schedules(Load(1, 4.0, Arrivals.POISSON, 1000.0))
    amounts = YCSB_A.plan(1, 0, 1).account[: len(due_s) - 1]
    assert abs(np.corrcoef(np.diff(due_s), amounts)[0, 1]) < 0.1


# -- in this process -------------------------------------------------------------------------------


def test_a_load_in_this_process() -> None:
    begun = threading.Event()
    found = load.in_driver(NoOp(), YCSB_A, Load(3, 0.1, Arrivals.POISSON, 2000.0), "session", 1, begun)
    assert begun.is_set()
    assert len(found.history) == len(found.due_s)
    assert (found.history.sent_ns >= found.history.due_ns).all()
    assert found.generator_cpu > 0
    assert found.stopped_full == 0
    taken = np.sort(found.history.due_ns)
    assert np.allclose((taken - taken[0]) / 1e9, found.due_s - found.due_s[0], atol=1e-8)


def test_a_closed_loop_has_no_due_times() -> None:
    found = load.in_driver(NoOp(), YCSB_A, Load(2, 0.05), "session", 1)
    assert len(found.due_s) == 0
    assert set(found.history.client.tolist()) == {0, 1}


# -- in several processes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[DriverProcess]]:
    with DriverProcess() as first, DriverProcess() as second:
        yield [first, second]


def tells_its_process(error: str = "", only_client: str = "") -> Accounts:
    """Its balances are the ids of the processes that it is called in. A class that no other process can import."""

    class TellsItsProcess(NoOp):
        def deposit(self, account: str, amount: int, *, op_id: Any = None) -> Receipt:
            if error and op_id[0].endswith(f"-{only_client}"):
                raise ZeroDivisionError(error)
            return Receipt(1, os.getpid(), 1)

        def balance(self, account: str) -> Receipt:
            return Receipt(1, os.getpid(), 1)

    return TellsItsProcess()


def test_each_driver_process_has_its_share_of_the_clients(drivers: list[DriverProcess]) -> None:
    found = load.in_drivers(tells_its_process(), YCSB_A, Load(5, 0.1), "session", 1, drivers).history
    where = {client: set(found.balance[found.client == client].tolist()) for client in np.unique(found.client).tolist()}
    first, second = ({driver.pid} for driver in drivers)
    assert where == {0: first, 1: second, 2: first, 3: second, 4: first}


def test_driver_processes_share_an_open_loop(drivers: list[DriverProcess]) -> None:
    offered = Load(4, 0.2, Arrivals.CONSTANT, 2000.0)
    found = load.in_drivers(tells_its_process(), YCSB_A, offered, "session", 1, drivers)
    assert len(found.history) == len(found.due_s) == pytest.approx(400, abs=2)
    assert set(found.history.balance.tolist()) == {driver.pid for driver in drivers}
    assert (found.history.sent_ns >= found.history.due_ns).all()
    for pid in (driver.pid for driver in drivers):
        due = np.sort(found.history.due_ns[found.history.balance == pid])
        assert np.allclose(np.diff(due), 1e6, atol=2)


def test_driver_processes_begin_together(drivers: list[DriverProcess]) -> None:
    offered = load.in_drivers(NoOp(), YCSB_A, Load(2, 2.0, Arrivals.CONSTANT, 400.0), "session", 1, drivers)
    found = offered.history
    begins = [int(found.sent_ns[found.client == index].min()) for index in (0, 1)]
    ends = [int(found.done_ns[found.client == index].max()) for index in (0, 1)]
    assert max(begins) < min(ends), "one had ended before the other began"
    assert offered.apart_s == pytest.approx((max(begins) - min(begins)) / 1e9, abs=0.1)


def test_more_driver_processes_than_clients(drivers: list[DriverProcess]) -> None:
    found = load.in_drivers(tells_its_process(), YCSB_A, Load(1, 0.05), "session", 1, drivers).history
    assert set(found.balance.tolist()) == {drivers[0].pid}


@pytest.mark.parametrize("only_client", ["0", "1"])
def test_an_error_in_a_driver_process_comes_back(drivers: list[DriverProcess], only_client: str) -> None:
    """And the next load's answers are its own, not what the others answered in this one."""
    with pytest.raises(DriverFailed, match=r"^ZeroDivisionError: a bug of the strategy$"):
        load.in_drivers(
            tells_its_process("a bug of the strategy", only_client), YCSB_A, Load(2, 0.1), "failed", 1, drivers
        )
    offered = Load(2, 0.1, Arrivals.CONSTANT, 1000.0)
    found = load.in_drivers(tells_its_process(), YCSB_A, offered, "session", 1, drivers)
    assert len(found.history) == len(found.due_s)
    assert set(found.history.balance.tolist()) == {driver.pid for driver in drivers}


@pytest.mark.parametrize("killed", [0, 1])
def test_a_driver_process_that_is_killed_in_a_load(killed: int) -> None:
    with DriverProcess() as first, DriverProcess() as second:
        both = [first, second]
        threading.Timer(0.3, os.kill, (both[killed].pid, signal.SIGKILL)).start()
        with pytest.raises(DriverFailed, match=f"driver process {both[killed].pid} is gone"):
            load.in_drivers(NoOp(), YCSB_A, Load(2, 1.0), "session", 1, both)
        other = both[1 - killed]
        other.send(time.sleep, 0)
        assert other.answer() is None, "an answer of the load that failed"
        with pytest.raises(DriverFailed, match="is gone"):
            load.in_drivers(NoOp(), YCSB_A, Load(2, 0.1), "session", 1, both)


# -- in tasks --------------------------------------------------------------------------------------


def test_tasks_share_an_open_loop(environment: Environment) -> None:
    offered = Load(6, 0.3, Arrivals.POISSON, 1000.0)
    found = load.in_tasks(tells_its_process(), YCSB_A, offered, "session", 1, environment.client)
    assert len(found.history) == len(found.due_s)
    workers = set(environment.worker_pids().values())
    assert set(found.history.balance.tolist()) == workers
    assert (found.history.sent_ns >= found.history.due_ns).all()


def test_an_error_in_a_task_comes_back(environment: Environment) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug of the strategy"):
        load.in_tasks(tells_its_process("a bug of the strategy", "0"), YCSB_A, Load(2, 0.1), "s", 1, environment.client)


def test_tasks_that_do_not_end_in_time_are_said_to_be_somewhere(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_LATE_S", -2.0)
    with pytest.raises(TimeoutError, match=r"2 of 2 calling tasks did not end within 1 s; .* 2 are at: .*line \d+"):
        load.in_tasks(tells_its_process(), YCSB_A, Load(2, 2.0), "session", 1, environment.client)


def test_times_of_another_machine_are_brought_to_this_ones_clock() -> None:
    """Its `perf_counter_ns` counts from its own start."""
    away_ns = 3_600_000_000_000
    parts = [
        Part([{name: np.array([7]) for name in ("due_ns", "sent_ns", "done_ns")}], 0, 1, 0, 0, 0, clock_ns)
        for clock_ns in (time.time_ns() - time.perf_counter_ns(), time.time_ns() - time.perf_counter_ns() + away_ns)
    ]
    _on_this_clock(parts)
    here, there = (int(part.columns[0]["sent_ns"][0]) for part in parts)
    assert here == 7
    assert there - here == pytest.approx(away_ns, abs=1e8)
