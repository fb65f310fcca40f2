"""What is special about actors: workers die with their state, connections break, tasks fill the cluster."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from distributed import Client, LocalCluster, Security

from benchmarks.harness.environment import Environment
from strategies.actor_per_account import ActorPerAccount
from strategies.actor_pool import SHARDS, ActorPool
from strategies.actor_single import ActorSingle
from strategies.interface import (
    AccountError,
    Accounts,
    Batched,
    Context,
    Function,
    Indeterminate,
    Operation,
    OpId,
    Receipt,
    StateLost,
    Unavailable,
    UnknownAccount,
)
from strategies.support.actor_ways import ActorGone
from strategies.support.actors import VARIANTS
from strategies.support.ledger_actor import STREAM

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TIMEOUT_S = 5.0
KINDS: list[type[Accounts]] = [ActorSingle, ActorPool, ActorPerAccount]
NAMES = [f"account-{number}" for number in range(8)]

Opener = Callable[..., Accounts]

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """An environment whose workers these tests kill; each test leaves it with all of them."""
    with Environment() as raised:
        yield raised


@pytest.fixture
def crew(breakable: Environment) -> Environment:
    breakable.await_workers()
    breakable.drop_actors()
    gc.collect()  # errors and the frames that they came through are cycles, which hold on to actors
    deadline = time.monotonic() + 10
    while breakable.workers_with_actors():
        assert time.monotonic() < deadline, "an earlier test's actors are still there"
        time.sleep(0.01)
    return breakable


@pytest.fixture
def opened(crew: Environment, bank: str) -> Iterator[Opener]:
    """Opens handles on the test's bank."""
    handles: list[Accounts] = []

    def open_one(kind: type[Accounts], variant: str | None = None, bank: str = bank) -> Accounts:
        handles.append(kind.open(context(crew, bank, variant)))
        return handles[-1]

    yield open_one
    for handle in handles:
        handle.close()
        vars(handle).clear()  # or the traceback of a test that failed keeps its actors alive


@pytest.fixture
def small() -> Iterator[Environment]:
    """A new cluster of one worker, which nobody has made a client in yet."""
    with Environment(workers=1) as raised:
        yield raised


def fate(act: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What it returned, or the type of the error that it raised: the error itself would keep actors alive."""
    try:
        return act(*args, **options)
    except AccountError as error:
        return type(error)


def fates_in_task(handle: Accounts, names: list[str]) -> list[Any]:
    return [fate(handle.deposit, name, 1) for name in names]


def context(environment: Environment, bank: str, variant: str | None = None, timeout_s: float = TIMEOUT_S) -> Context:
    return Context(client=environment.client, bank=bank, variant=variant, timeout_s=timeout_s)


def kill(environment: Environment, address: str) -> None:
    """SIGKILL of one worker; returns when the scheduler knows."""
    pid = environment.worker_pids()[address]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while address in environment.client.scheduler_info(n_workers=-1)["workers"]:
        assert time.monotonic() < deadline, "the scheduler does not see that its worker died"
        time.sleep(0.01)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """SIGSTOP: they answer nothing, and their connections stay."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            process = psutil.Process(pid)
            while process.status() != psutil.STATUS_STOPPED:
                time.sleep(0.005)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# -- where they are --------------------------------------------------------------------------------


@every_variant
def test_the_pools_shards_lie_on_distinct_workers(crew: Environment, opened: Opener, variant: str) -> None:
    opened(ActorPool, variant)
    assert len(crew.workers_with_actors()) == min(SHARDS, len(crew.worker_pids())) > 1


def test_banks_do_not_crowd_the_same_worker(crew: Environment, opened: Opener, bank: str) -> None:
    for number in range(12):
        opened(ActorSingle, bank=f"{bank}-{number}")
    assert len(crew.workers_with_actors()) > 1


@every_kind
def test_many_who_open_a_bank_at_once_share_it(environment: Environment, bank: str, kind: type[Accounts]) -> None:
    there = context(environment, bank)
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(lambda _: kind.open(there), range(8)))
    opened = handles[0].open_account("a")
    for handle in handles:
        handle.deposit("a", 1)
    assert {handle.balance("a") for handle in handles} == {Receipt(9, 8, opened.epoch)}
    for handle in handles:
        handle.close()
    environment.drop_actors()


# -- a worker dies ---------------------------------------------------------------------------------


@every_kind
@every_variant
def test_a_worker_dies(crew: Environment, opened: Opener, kind: type[Accounts], variant: str) -> None:
    """What it held is lost for ever to the handles there are; what others held stays; a new open starts blank."""
    accounts = opened(kind, variant)
    before = {name: accounts.open_account(name, 100) for name in NAMES}
    holders = crew.workers_with_actors()
    kill(crew, holders[0])

    began = time.monotonic()
    first = {name: fate(accounts.deposit, name, 1) for name in NAMES}
    assert time.monotonic() - began < (TIMEOUT_S + 2) * len(NAMES)
    assert {answer for answer in first.values() if isinstance(answer, type)} <= {StateLost, Indeterminate}
    lost = [name for name, answer in first.items() if isinstance(answer, type)]
    kept = [name for name in NAMES if name not in lost]
    assert lost
    assert bool(kept) == (len(holders) > 1), "the others survive"
    for name in kept:
        assert first[name] == Receipt(2, 101, before[name].epoch)

    assert_lost(accounts, lost)
    assert fate(accounts.snapshot) is StateLost
    crew.await_workers()
    in_task = crew.client.submit(fates_in_task, accounts, NAMES, pure=False).result()
    assert [answer for name, answer in zip(NAMES, in_task, strict=True) if name in lost] == [StateLost] * len(lost)
    assert [answer[:2] for name, answer in zip(NAMES, in_task, strict=True) if name in kept] == [(3, 102)] * len(kept)

    reopened = opened(kind, variant)
    assert reopened.snapshot().keys() == set(kept)
    for name in lost:
        assert fate(reopened.balance, name) is UnknownAccount
        assert fate(reopened.deposit, name, 1) is UnknownAccount
        receipt = reopened.open_account(name, 7)
        assert receipt == Receipt(1, 7, receipt.epoch)
        assert receipt.epoch > before[name].epoch
    for name in kept:
        assert reopened.balance(name) == Receipt(3, 102, before[name].epoch)
    assert_lost(accounts, lost)
    assert {name: receipt.balance for name, receipt in reopened.snapshot().items()} == {
        name: 7 if name in lost else 102 for name in NAMES
    }


def assert_lost(accounts: Accounts, names: list[str]) -> None:
    session = uuid.uuid4().hex
    for number, name in enumerate(names):
        assert fate(accounts.balance, name) is StateLost
        assert fate(accounts.deposit, name, 1) is StateLost
        assert fate(accounts.withdraw, name, 1, op_id=(session, number)) is StateLost
        assert fate(accounts.open_account, name) is StateLost


@every_kind
@every_variant
def test_a_worker_dies_with_a_call_in_flight(
    crew: Environment, opened: Opener, kind: type[Accounts], variant: str
) -> None:
    """The call was sent, so nobody knows; stopped before it is killed, the worker cannot answer it first."""
    accounts = opened(kind, variant)
    accounts.open_account("a", 100)
    holders = crew.workers_with_actors()
    answers: dict[str, Any] = {}

    def deposit() -> None:
        began = time.monotonic()
        answers["deposit"] = fate(accounts.deposit, "a", 1, op_id=("s", 1))
        answers["seconds"] = time.monotonic() - began

    pids = [crew.worker_pids()[address] for address in holders]
    caller = threading.Thread(target=deposit)
    with stopped(pids):
        caller.start()
        time.sleep(0.5)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                time.sleep(0.005)
    caller.join()
    assert answers["deposit"] is Indeterminate
    assert answers["seconds"] < TIMEOUT_S + 2
    assert fate(accounts.deposit, "a", 1, op_id=("s", 1)) is StateLost


def test_a_restarted_cluster_has_lost_the_state(small: Environment, bank: str) -> None:
    with ActorSingle.open(context(small, bank)) as accounts:
        epoch = accounts.open_account("a", 1).epoch
        small.client.restart()
        assert fate(accounts.deposit, "a", 1) is StateLost
        assert fate(accounts.snapshot) is StateLost
        with ActorSingle.open(context(small, bank)) as blank:
            assert blank.snapshot() == {}
            assert blank.open_account("a", 5).epoch > epoch
        assert fate(accounts.balance, "a") is StateLost


# -- a connection breaks ---------------------------------------------------------------------------


@pytest.fixture
def other_client(environment: Environment) -> Iterator[Client]:
    """One of this test's own, on the shared cluster."""
    with Client(environment.client.scheduler.address, set_as_default=False) as client:
        yield client
    environment.drop_actors()


def break_connection(client: Client) -> None:
    """Of the client to the scheduler; returns when it is connected again."""
    broken = client.scheduler_comm
    client.loop.add_callback(broken.comm.abort)
    while client.scheduler_comm is broken:
        time.sleep(0.01)
    await_connection(client)


def await_connection(client: Client) -> None:
    """Until it is connected again; one that is closed before leaks a socket (distributed 2026.8)."""
    deadline = time.monotonic() + 10
    while client.scheduler_comm is None or client.scheduler_comm.closed() or client.status != "running":
        assert time.monotonic() < deadline, "the client did not connect again"
        time.sleep(0.01)


@every_kind
@every_variant
def test_state_is_not_called_lost_because_a_connection_was(
    other_client: Client, bank: str, kind: type[Accounts], variant: str
) -> None:
    """A client that reconnects has cancelled all its futures. The actors are still there: they are published."""
    accounts = kind.open(Context(client=other_client, bank=bank, variant=variant, timeout_s=TIMEOUT_S))
    opened = accounts.open_account("a", 100)
    break_connection(other_client)
    answer = fate(accounts.deposit, "a", 1, op_id=("s", 1))
    if answer is Unavailable or answer is Indeterminate:
        answer = fate(accounts.deposit, "a", 1, op_id=("s", 1))
    assert answer == Receipt(2, 101, opened.epoch)
    assert accounts.snapshot() == {"a": answer}
    accounts.close()


@every_kind
def test_a_connection_that_breaks_while_actors_are_made(small: Environment, bank: str, kind: type[Accounts]) -> None:
    """A worker that is stopped makes none; meanwhile the connection goes."""
    address = small.client.scheduler.address
    with Client(address, set_as_default=False) as client, stopped(list(small.worker_pids().values())):
        timer = threading.Timer(0.5, lambda: client.loop.add_callback(client.scheduler_comm.comm.abort))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            kind.open(Context(client=client, bank=bank, timeout_s=1.5)).open_account("a")
        assert time.monotonic() - began < 1.5 + 2
        timer.join()
        await_connection(client)


@every_kind
def test_a_cluster_without_workers(bank: str, kind: type[Accounts]) -> None:
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            kind.open(Context(client=client, bank=bank, timeout_s=1)).open_account("a")
        assert time.monotonic() - began < 1 + 2


# -- batches and their connections -----------------------------------------------------------------

every_batched_kind = pytest.mark.parametrize("kind", [ActorSingle, ActorPool], ids=lambda kind: kind.name)


def batch(session: str | None = None, names: list[str] = NAMES) -> list[Operation]:
    """A deposit into and a look at each account."""
    deposits = [
        Operation(Function.DEPOSIT, name, 1, op_id=session and OpId(session, number))
        for number, name in enumerate(names)
    ]
    return [each for deposit in deposits for each in (deposit, Operation(Function.BALANCE, deposit.account))]


def plain(answers: list[Any]) -> list[Any]:
    return [type(answer) if isinstance(answer, AccountError) else answer[:2] for answer in answers]


@every_batched_kind
@every_variant
def test_a_worker_dies_between_batches(crew: Environment, opened: Opener, kind: type[Accounts], variant: str) -> None:
    """Of one batch, what the dead worker held is lost, and what others held is applied."""
    accounts = opened(kind, variant)
    assert isinstance(accounts, Batched)
    accounts.apply([Operation(Function.OPEN_ACCOUNT, name, 100) for name in NAMES])
    assert plain(accounts.apply(batch())) == [(2, 101)] * 2 * len(NAMES)
    holders = crew.workers_with_actors()
    kill(crew, holders[0])
    first = plain(accounts.apply(batch("s")))
    again = plain(accounts.apply(batch("s")))
    lost = {name for name, answer in zip(NAMES, again[::2], strict=True) if isinstance(answer, type)}
    assert lost
    assert len(lost) < len(NAMES) or kind is ActorSingle, "the others survive"
    for place, name in enumerate(NAMES):
        changed, read = first[2 * place : 2 * place + 2]
        if name in lost:
            assert changed in (StateLost, Indeterminate)
            assert read in (StateLost, Unavailable)
            assert again[2 * place : 2 * place + 2] == [StateLost] * 2
        else:
            assert changed == read == (3, 102)
            assert again[2 * place : 2 * place + 2] == [(3, 102)] * 2


@every_batched_kind
@every_variant
def test_a_worker_hangs_with_a_part_of_a_batch(
    crew: Environment, opened: Opener, kind: type[Accounts], variant: str
) -> None:
    """Nobody knows of its part; the other parts are answered, all in time; with op ids all can be sent again."""
    accounts = opened(kind, variant)
    assert isinstance(accounts, Batched)
    accounts.apply([Operation(Function.OPEN_ACCOUNT, name, 100) for name in NAMES])
    hung = crew.workers_with_actors()[0]
    with stopped([crew.worker_pids()[hung]]):
        began = time.monotonic()
        answers = plain(accounts.apply(batch("s")))
        assert time.monotonic() - began < TIMEOUT_S + 2
    unknown = [place for place, answer in enumerate(answers[::2]) if answer is Indeterminate]
    assert unknown
    assert len(unknown) < len(NAMES) or kind is ActorSingle
    for place in range(len(NAMES)):
        assert answers[2 * place : 2 * place + 2] == (
            [Indeterminate, Unavailable] if place in unknown else [(2, 101)] * 2
        )
    deadline = time.monotonic() + 20
    while (again := plain(accounts.apply(batch("s")))) != [(2, 101)] * 2 * len(NAMES):
        assert time.monotonic() < deadline, again
    assert {receipt[:2] for receipt in accounts.snapshot().values()} == {(2, 101)}


def test_a_worker_that_hangs_while_connecting_keeps_no_other_waiting(crew: Environment, opened: Opener) -> None:
    """A copy of a handle shares no connection of another process: its first batch has to connect to everybody."""
    accounts = opened(ActorPool, "direct")
    assert isinstance(accounts, ActorPool)
    accounts.apply([Operation(Function.OPEN_ACCOUNT, name, 100) for name in NAMES])
    holders = crew.workers_with_actors()
    links = accounts._bank._links
    assert links is not None
    for address in holders:
        while links.has_idle(address):
            links.take(address, time.monotonic() + 1, 1).close()
    with stopped([crew.worker_pids()[holders[0]]]):
        began = time.monotonic()
        answers = plain(accounts.apply(batch()))
        assert time.monotonic() - began < TIMEOUT_S + 2
    assert set(answers) == {Unavailable, (2, 101)}, "nothing was sent to who did not shake hands"


def test_connections_are_used_again_and_replaced_when_they_break(other_client: Client, bank: str) -> None:
    with ActorSingle.open(Context(client=other_client, bank=bank, variant="direct", timeout_s=TIMEOUT_S)) as accounts:
        accounts.open_account("a")
        address = accounts._shards[0].address
        links = accounts._bank._links
        assert links is not None
        before = list(links._idle[address])
        for _ in range(20):
            accounts.deposit("a", 1)
        assert list(links._idle[address]) == before
        assert len(before) == 1
        before[0]._socket.shutdown(socket.SHUT_RDWR)
        assert accounts.deposit("a", 1)[:2] == (22, 21)
        assert list(links._idle[address]) != before


def test_as_many_connections_as_callers(other_client: Client, bank: str) -> None:
    with ActorSingle.open(Context(client=other_client, bank=bank, variant="direct", timeout_s=TIMEOUT_S)) as accounts:
        accounts.open_account("a")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: accounts.deposit("a", 1), range(400)))
        links = accounts._bank._links
        assert links is not None
        assert 1 <= len(links._idle[accounts._shards[0].address]) <= 8
        assert accounts.balance("a")[:2] == (401, 400)


def test_connections_end_with_the_last_handle(other_client: Client, bank: str) -> None:
    there = Context(client=other_client, bank=bank, variant="direct", timeout_s=TIMEOUT_S)
    one, other = ActorSingle.open(there), ActorSingle.open(there)
    one.open_account("a")
    other.deposit("a", 1)
    links = other._bank._links
    assert links is not None
    (link,) = links._idle[other._shards[0].address]
    one.close()
    assert other.deposit("a", 1)[:2] == (3, 2)
    assert list(links._idle[other._shards[0].address]) == [link], "they share it"
    other.close()
    assert link._socket.fileno() == -1


def test_a_message_that_is_none_breaks_nothing(other_client: Client, bank: str) -> None:
    """Neither bytes that hold no batch, nor a length that nobody can mean, nor an actor that is not there."""
    with ActorSingle.open(Context(client=other_client, bank=bank, variant="direct", timeout_s=TIMEOUT_S)) as accounts:
        accounts.open_account("a", 1)
        shard = accounts._shards[0]
        way = accounts._bank._need_way()
        in_time = time.monotonic() + TIMEOUT_S
        with pytest.raises(RuntimeError, match="no message"):
            way.send(shard.address, shard.key, b"nonsense", in_time, 1)()
        with pytest.raises(ActorGone):
            way.send(shard.address, "another", b"nonsense", in_time, 1)()
        links = accounts._bank._links
        assert links is not None
        for message in (b"\xff" * 4, bytes(4), b"\0\0\0\2\1\xff"):
            link = links.take(shard.address, in_time, 1, STREAM)
            link._send(message, in_time)
            assert link._receive(1, in_time) == b"", "it hung up"
            link.close()
        assert accounts.balance("a")[:2] == (1, 1)


@every_kind
@every_variant
def test_over_tls(bank: str, kind: type[Accounts], variant: str) -> None:
    security = Security.temporary()
    with (
        LocalCluster(n_workers=1, protocol="tls", security=security, host="127.0.0.1",
                     dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        kind.open(Context(client=client, bank=bank, variant=variant, timeout_s=TIMEOUT_S)) as accounts,
    ):  # fmt: skip
        assert client.scheduler.address.startswith("tls://")
        opened = accounts.open_account("a", 1)
        for number in range(1, 4):
            assert accounts.deposit("a", 1) == Receipt(1 + number, 1 + number, opened.epoch)
        if isinstance(accounts, Batched):
            assert plain(accounts.apply([Operation(Function.DEPOSIT, "a", 1)] * 2_000))[-1] == (2_004, 2_004)
        assert client.submit(fates_in_task, accounts, ["a"], pure=False).result()[0][1] > 4
        assert accounts.snapshot().keys() == {"a"}


@every_kind
@every_variant
def test_over_a_protocol_without_sockets(bank: str, kind: type[Accounts], variant: str) -> None:
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address="127.0.0.1:0",
                     silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        kind.open(Context(client=client, bank=bank, variant=variant, timeout_s=TIMEOUT_S)) as accounts,
    ):  # fmt: skip
        assert client.scheduler.address.startswith("inproc://")
        for name in NAMES:
            assert accounts.open_account(name, 1)[:2] == (1, 1)
        assert accounts.deposit(NAMES[0], 1)[:2] == (2, 2)
        if isinstance(accounts, Batched):
            assert plain(accounts.apply(batch("s"))) == [(3, 3)] * 2 + [(2, 2)] * 2 * (len(NAMES) - 1)
        assert accounts.snapshot().keys() == set(NAMES)


# -- inside tasks ----------------------------------------------------------------------------------


def snapshot_in_task(handle: Accounts) -> Any:
    return fate(handle.snapshot)


def test_an_audit_can_be_the_first_call_in_a_task(small: Environment, bank: str) -> None:
    for kind in (ActorSingle, ActorPool):
        with kind.open(context(small, bank)) as accounts:
            opened = accounts.open_account("a", 1)
            assert small.client.submit(snapshot_in_task, accounts, pure=False).result() == {"a": opened}


def open_in_task(handle: Accounts, name: str, together: float) -> Any:
    time.sleep(max(0.0, together - time.time()))
    return fate(handle.open_account, name, 1)


@every_kind
def test_tasks_that_fill_the_cluster_can_open_accounts(small: Environment, bank: str, kind: type[Accounts]) -> None:
    """Making an actor takes a slot on a worker; tasks that wait for one must not hold them all."""
    slots = sum(small.client.nthreads().values())
    with kind.open(context(small, bank)) as accounts:
        together = time.time() + 0.5
        futures = [small.client.submit(open_in_task, accounts, f"{n}", together, pure=False) for n in range(2 * slots)]
        answers = [future.result() for future in futures]
        assert [answer if isinstance(answer, type) else answer[:2] for answer in answers] == [(1, 1)] * len(answers)
        assert len(accounts.snapshot()) == len(answers)


def retried(handle: Accounts, flag: Path) -> Any:
    """Fails once after its call, so that Dask runs it again."""
    receipt = handle.deposit("a", 1, op_id=("task", 1))
    if not flag.exists():
        flag.touch()
        raise RuntimeError("after the call")
    return receipt


@every_kind
def test_a_task_that_dask_retries_has_one_effect(
    environment: Environment, bank: str, kind: type[Accounts], tmp_path: Path
) -> None:
    with kind.open(context(environment, bank)) as accounts:
        accounts.open_account("a")
        future = environment.client.submit(retried, accounts, tmp_path / "failed once", retries=2, pure=False)
        assert future.result()[:2] == (2, 1)
        assert accounts.balance("a")[:2] == (2, 1)
    environment.drop_actors()


@every_kind
def test_an_asynchronous_client_is_refused(environment: Environment, bank: str, kind: type[Accounts]) -> None:
    """To wait for one would block the event loop that it needs."""

    async def open_it() -> None:
        async with Client(environment.client.scheduler.address, asynchronous=True, set_as_default=False) as client:
            kind.open(Context(client=client, bank=bank, timeout_s=1))

    with pytest.raises(ValueError, match="asynchronous"):
        asyncio.run(open_it())
