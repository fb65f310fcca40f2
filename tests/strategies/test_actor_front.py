"""What only fronts without state promise: they come and go, and what has an op id neither fails nor happens twice."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.environment import Environment
from strategies.actor_front import DATABASES, FRONTS, ActorFront
from strategies.interface import (
    MESSAGE_FAULTS,
    AccountError,
    Context,
    Function,
    Indeterminate,
    Operation,
    OpId,
    Receipt,
    Resource,
    StateLost,
    Unavailable,
    load,
)
from strategies.sqlite import Sqlite
from strategies.support import front_actor
from strategies.support.actors import ActorBank
from strategies.support.fates import NotAnswered
from strategies.support.front_actor import ANSWERS, FrontActor, request
from strategies.support.wire import Batch, decode_answers, encode, encode_answers
from tests.contract.callers import InTasks, call, kinds, outcomes

TIMEOUT_S = 5.0
THREADS = 4
CALLS_EACH = 100


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """An environment whose workers these tests kill."""
    with Environment(workers=3) as raised:
        yield raised


@pytest.fixture
def accounts(breakable: Environment, bank: str) -> Iterator[ActorFront]:
    breakable.await_workers()
    breakable.drop_actors()
    with ActorFront.open(context(breakable, bank)) as accounts:
        accounts.open_account("a", op_id=("opening", 0))
        yield accounts


def context(environment: Environment, bank: str) -> Context:
    return environment.context(ActorFront.claims("sqlite"), "sqlite", bank, TIMEOUT_S)


def workers_of(environment: Environment) -> list[str]:
    """With fronts, most of them first."""
    actors = environment.actors()
    return sorted(actors, key=lambda worker: -len(actors[worker]))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.005)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def deposits(accounts: ActorFront, session: str) -> list[Receipt]:
    return [accounts.deposit("a", 1, op_id=(session, number)) for number in range(CALLS_EACH)]


def await_fronts(environment: Environment, accounts: ActorFront) -> None:
    """Calls bring the missing ones about."""
    deadline = time.monotonic() + 30
    while sum(map(len, environment.actors().values())) < FRONTS:
        assert time.monotonic() < deadline, "the fronts that are gone were not replaced"
        accounts.balance("a")
        time.sleep(0.05)


def test_fronts_are_spread_over_the_workers(breakable: Environment, accounts: ActorFront) -> None:
    assert sorted(map(len, breakable.actors().values())) == [1, 1, 2]


def open_files(process: int, folder: Path) -> list[str]:
    return [each.path for each in psutil.Process(process).open_files() if Path(each.path).is_relative_to(folder)]


def test_who_closes_leaves_no_front_and_no_connection(breakable: Environment, bank: str) -> None:
    """Without garbage collection: a database has so many connections, and trials come one after another."""
    breakable.await_workers()
    breakable.drop_actors()
    gc.collect()
    asked = context(breakable, bank)
    assert asked.directory is not None
    gc.disable()
    breakable.client.run(gc.disable)
    try:
        with ActorFront.open(asked) as accounts:
            accounts.open_account("a")
            for _ in range(2 * FRONTS):
                accounts.deposit("a", 1)
            held = [path for pid in breakable.worker_pids().values() for path in open_files(pid, asked.directory)]
            assert held
        del accounts
        breakable.drop_actors()
        deadline = time.monotonic() + 10
        while any(breakable.actors().values()) or any(
            open_files(pid, asked.directory) for pid in breakable.worker_pids().values()
        ):
            assert time.monotonic() < deadline, "a front or its connections are still there"
            time.sleep(0.02)
    finally:
        breakable.client.run(gc.enable)
        gc.enable()


def test_callers_of_a_front_whose_worker_dies_feel_nothing(breakable: Environment, accounts: ActorFront) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        calling = [threads.submit(deposits, accounts, f"s{caller}") for caller in range(THREADS)]
        while accounts.balance("a").balance < CALLS_EACH // 2:
            time.sleep(0.005)
        os.kill(breakable.worker_pids()[workers_of(breakable)[0]], signal.SIGKILL)
        receipts = [receipt for future in calling for receipt in future.result()]
    total = THREADS * CALLS_EACH
    assert sorted(receipt.seq for receipt in receipts) == list(range(2, total + 2))
    assert accounts.balance("a")[:2] == (total + 1, total)
    await_fronts(breakable, accounts)


def test_a_front_that_stands_still_is_passed_over_and_does_nothing_twice(
    breakable: Environment, accounts: ActorFront
) -> None:
    with stopped(breakable.worker_pids()[workers_of(breakable)[0]]):
        receipts = [accounts.deposit("a", 1, op_id=("s", number)) for number in range(2 * FRONTS)]
    assert [receipt.seq for receipt in receipts] == list(range(2, 2 * FRONTS + 2))
    time.sleep(0.3)  # what it was sent is still to be read there
    assert accounts.balance("a") == receipts[-1]
    assert [accounts.deposit("a", 1, op_id=("s", number)) for number in range(2 * FRONTS)] == receipts


def test_without_an_op_id_nothing_is_sent_again(breakable: Environment, accounts: ActorFront) -> None:
    outcomes(accounts, *[call("balance", "a")] * FRONTS)  # connects
    accounts._fronts._avoided.clear()
    accounts._timeout_s = 0.5
    seen: list[Any] = []
    with stopped(breakable.worker_pids()[workers_of(breakable)[0]]):
        while Indeterminate not in kinds(seen) and len(seen) < 3 * FRONTS:
            seen += outcomes(accounts, call("deposit", "a", 1))
    assert set(kinds(seen)) <= {Receipt, Indeterminate, Unavailable}
    assert Indeterminate in kinds(seen)
    time.sleep(0.3)
    acknowledged, unknown = kinds(seen).count(Receipt), kinds(seen).count(Indeterminate)
    accounts._timeout_s = TIMEOUT_S
    assert acknowledged <= accounts.balance("a").balance <= acknowledged + unknown


@pytest.mark.parametrize("refusal", [Unavailable, StateLost])
def test_a_refusal_says_nothing_about_an_attempt_that_was_not_answered(
    accounts: ActorFront, monkeypatch: pytest.MonkeyPatch, refusal: type[AccountError]
) -> None:
    """The first attempt has its effect; the second finds that the database does not answer."""
    ask = ActorBank.ask

    def first(*arguments: Any) -> Any:
        monkeypatch.setattr(ActorBank, "ask", second)
        ask(*arguments)
        raise NotAnswered("the connection broke")

    def second(*_: Any) -> bytes:
        return ANSWERS + encode_answers([refusal("it was asked in vain")], 0)

    monkeypatch.setattr(ActorBank, "ask", first)
    assert kinds(outcomes(accounts, call("deposit", "a", 1, op_id=("s", 1)))) == [Indeterminate]
    assert kinds(outcomes(accounts, call("deposit", "a", 1, op_id=("s", 2)))) == [refusal]
    monkeypatch.undo()
    assert accounts.deposit("a", 1, op_id=("s", 1))[:2] == (2, 1)


def test_when_all_fronts_are_gone_others_are_made(breakable: Environment, accounts: ActorFront) -> None:
    first = accounts.deposit("a", 1, op_id=("s", 1))
    for pid in list(breakable.worker_pids().values()):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        (answer,) = outcomes(accounts, call("deposit", "a", 1, op_id=("s", 1)))
        if isinstance(answer, Receipt):
            break
        assert isinstance(answer, Unavailable | Indeterminate)
        assert time.monotonic() < deadline
    assert answer == first


def test_a_handle_in_a_task_has_fronts_made_too(breakable: Environment, accounts: ActorFront, bank: str) -> None:
    spared, *struck = reversed(workers_of(breakable))
    in_tasks = InTasks(accounts, breakable.client, [spared])
    in_tasks.deposit("a", 1)
    for worker in struck:
        os.kill(breakable.worker_pids()[worker], signal.SIGKILL)
    calls = [call("deposit", "a", 1, op_id=("s", number)) for number in range(2 * FRONTS)]
    assert [receipt.seq for receipt in outcomes(in_tasks, *calls)] == list(range(3, 2 * FRONTS + 3))


def test_the_cluster_is_not_told_where_the_database_is(breakable: Environment, accounts: ActorFront) -> None:
    """By names and representations, which are logged and shown."""
    where = str(breakable.directory)
    assert where not in repr(accounts._context)
    for task in list(breakable.scheduler.tasks.values()):
        assert where not in f"{task!r} {task.key} {task.run_spec!r}"


def test_every_database_has_one_owner_and_remembers_op_ids() -> None:
    """Or its answers would not fit into one message, nor be sent again. Where it is a server, its messages get lost."""
    for name in DATABASES:
        claims = load(name).capabilities
        assert not claims.sharded
        assert claims.needs == {Resource.DIRECTORY} or claims.survives >= MESSAGE_FAULTS
        assert ActorFront.claims(name).retries is claims.retries
        assert ActorFront.claims(name).durability is claims.durability


# -- the actor alone -------------------------------------------------------------------------------


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontActor]:
    monkeypatch.setattr(front_actor, "open_door", lambda: None)
    actor = FrontActor()
    yield actor
    actor._threads.shutdown()
    for handle in actor._handles.values():
        handle.close()


def test_what_waited_until_its_caller_gave_up_is_not_begun(front: FrontActor, tmp_path: Path) -> None:
    with Sqlite.open(Context(directory=tmp_path)) as database:
        database.open_account("a")
        batch = encode(Batch.of([Operation(Function.DEPOSIT, "a", 1)]))
        payload = request(pickle.dumps(database), 0.5, batch)
        with pytest.raises(TimeoutError):
            front._answered(payload, time.monotonic() - 1)
        assert database.balance("a").balance == 0
        (answer,) = decode_answers(front._answered(payload, time.monotonic())[1:], 1)
        assert answer == database.balance("a") == Receipt(2, 1, database._epoch)


def test_handles_are_forgotten_when_there_are_many(
    front: FrontActor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_actor, "_MOST_HANDLES", 2)
    for bank in ("one", "two", "three", "one"):
        with Sqlite.open(Context(directory=tmp_path, bank=bank)) as database:
            read = request(pickle.dumps(database), 1.0, encode(Batch.of([Operation(Function.BALANCE, "a")])))
            (answer,) = decode_answers(front._answered(read, time.monotonic())[1:], 1)
            assert isinstance(answer, AccountError)
            assert len(front._handles) <= 2


names = st.sampled_from(["a", "b", "é"])
op_ids = st.one_of(st.none(), st.builds(OpId, st.sampled_from(["s", "t"]), st.integers(0, 9)))
operations = st.one_of(
    st.builds(Operation, st.sampled_from(list(Function)[:3]), names, st.integers(0, 9), st.none(), op_ids),
    st.builds(Operation, st.just(Function.TRANSFER), names, st.integers(0, 9), names, op_ids),
    st.builds(Operation, st.just(Function.BALANCE), names, st.just(0), st.none(), st.none()),
)


@given(st.lists(operations))
def test_a_batch_becomes_the_operations_that_it_was_made_of(made: Sequence[Operation]) -> None:
    assert front_actor._operations(Batch.of(made)) == made
