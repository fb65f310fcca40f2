"""A backend that hangs: every call ends in time, says what is known, and an op id makes up for what is not."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psutil
import pytest

from benchmarks.harness.environment import WORKERS, Environment
from benchmarks.harness.servers import kind_for
from strategies.interface import Accounts, Caller, Capabilities, Indeterminate, Receipt, Retries, Unavailable
from tests.contract.callers import Call, InTasks, Outcome, call, outcomes, timed_outcome
from tests.contract.conftest import skip_if_missing
from tests.contract.rows import Row

PATIENCE_S = 10.0
"""To begin with: a busy machine takes a while to make actors, and that is not what is tested."""
TIMEOUT_S = 1.0
SLACK_S = 2.0
"""For slow machines. A call that does not know its deadline waits for minutes here, or for ever."""
_RECOVERY_S = 20.0


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """An environment that only these tests stop; with a worker more, so that tasks have one that runs."""
    with Environment(workers=WORKERS + 1) as raised:
        yield raised
        raised.drop_actors()


class Timed(NamedTuple):
    outcome: Outcome
    seconds: float


@pytest.mark.alike
def test_a_hung_backend(row: Row, breakable: Environment, bank: str) -> None:
    """The processes that hold the state are stopped (SIGSTOP): connections stay up, answers do not come."""
    skip_if_missing(row.claims, breakable)
    _await_no_actors(breakable)
    with row.place.kind.open(row.place.context(breakable, bank, PATIENCE_S)) as patient:  # makes the bank
        opened = patient.open_account("a", 100, op_id=("s", 1))
    handle = row.place.kind.open(row.place.context(breakable, bank, TIMEOUT_S))
    accounts = handle
    try:
        workers = breakable.worker_pids()
        running = sorted(set(workers) - set(breakable.workers_with_actors()))
        assert running or row.caller is Caller.DRIVER, "raise more workers: one must be left for tasks"
        deposit = call("deposit", "a", 5, op_id=("s", 2))
        reads = [call("balance", "a"), call("snapshot")]
        if row.caller is Caller.TASK:
            reads.pop()  # a worker has two threads for tasks; an audit is a driver's business
            accounts = InTasks(handle, breakable.client, running[:1])
        with ThreadPoolExecutor() as threads:
            _all_at_once(accounts, threads, [call("balance", "a")] * 3)  # connect before
            holders = _holders(row.claims, breakable)  # a server may have a process for each connection
            # Where nothing that holds state can be stopped, stop whatever else there is: it must not matter.
            stop = holders or [pid for address, pid in workers.items() if address != running[0]]
            with _stopped(stop):
                reopened = threads.submit(_open_another, row, breakable, bank)
                changed, *seen = _all_at_once(accounts, threads, [deposit, *reads])
                assert reopened.result() < TIMEOUT_S + SLACK_S

        for timed in (changed, *seen):
            assert timed.seconds < TIMEOUT_S + SLACK_S
        if holders:
            assert type(changed.outcome) in (Unavailable, Indeterminate)
            assert [type(timed.outcome) for timed in seen] == [Unavailable] * len(reads)
        else:
            assert changed.outcome == Receipt(2, 105, opened.epoch)

        if row.claims.retries is Retries.SAFE_WITH_OP_ID:
            assert _until_answered(accounts, deposit) == Receipt(2, 105, opened.epoch)
            assert _until_answered(accounts, call("balance", "a")) == Receipt(2, 105, opened.epoch)
            assert _until_answered(accounts, deposit) == Receipt(2, 105, opened.epoch)
    finally:
        handle.close()
        del handle, accounts  # or a failure's traceback keeps this test's actors alive in the next


def _await_no_actors(environment: Environment) -> None:
    """Or else workers that hold another test's state would count as holders of this one's."""
    environment.drop_actors()
    gc.collect()  # errors and the frames that they came through are cycles, which hold on to actors
    deadline = time.monotonic() + 10
    while environment.workers_with_actors():
        assert time.monotonic() < deadline, "an earlier test's actors are still there"
        time.sleep(0.01)


def _holders(claims: Capabilities, environment: Environment) -> list[int]:
    """Process ids of everything that holds the state of the one bank there is."""
    workers = environment.worker_pids()
    pids = [workers[address] for address in environment.workers_with_actors()]
    if kind_for(claims):
        pids += environment.server(claims).pids
    return pids


@contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            _await_stop(psutil.Process(pid))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _await_stop(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the process did not stop"
        time.sleep(0.005)


def _open_another(row: Row, environment: Environment, bank: str) -> float:
    """How long an `open` takes; it may well succeed, since the bank is there."""
    began = time.monotonic()
    with suppress(Unavailable):
        row.place.kind.open(row.place.context(environment, bank, TIMEOUT_S)).close()
    return time.monotonic() - began


def _all_at_once(accounts: Accounts, threads: ThreadPoolExecutor, calls: Sequence[Call]) -> list[Timed]:
    if isinstance(accounts, InTasks):
        return [Timed(*future.result()) for future in [accounts.submit_timed(each) for each in calls]]
    return [Timed(*answer) for answer in threads.map(lambda each: timed_outcome(accounts, each), calls)]


def _until_answered(accounts: Accounts, wanted: Call) -> Outcome:
    """Send it again until somebody answers, as a client would."""
    deadline = time.monotonic() + _RECOVERY_S
    while True:
        (outcome,) = outcomes(accounts, wanted)
        if not isinstance(outcome, (Unavailable, Indeterminate)):
            return outcome
        assert time.monotonic() < deadline, f"no answer after SIGCONT: {outcome!r}"
