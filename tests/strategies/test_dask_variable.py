"""What only a Variable under a Lock promises: whom the lock keeps out, how long, and what its lease cannot keep."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster, Lock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies import dask_variable
from strategies.dask_variable import DaskVariable
from strategies.interface import (
    DEDUP_WINDOW,
    AccountError,
    Context,
    Function,
    Indeterminate,
    Operation,
    OpId,
    Receipt,
    Unavailable,
)
from strategies.support.fates import NotAnswered
from strategies.support.ledger import Ledger
from strategies.support.transaction import Transaction
from strategies.support.wire import Batch

LEASE_S = 0.5
TIMEOUT_S = 5.0
HURRIED_S = 0.2
SLACK_S = 2.0


@pytest.fixture(scope="module")
def scheduler() -> Iterator[LocalCluster]:
    """One without workers, that looks for ended leases often."""
    locks = "distributed.scheduler.locks"
    with (
        dask.config.set({f"{locks}.lease-timeout": LEASE_S, f"{locks}.lease-validation-interval": 0.05}),
        LocalCluster(n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(scheduler: LocalCluster) -> Iterator[Client]:
    """In an event loop of its own."""
    with Client(scheduler.scheduler_address, set_as_default=False) as client:
        assert client.loop is not scheduler.loop
        yield client


@pytest.fixture
def bank() -> str:
    return uuid.uuid4().hex


def opened(client: Client, bank: str) -> DaskVariable:
    return DaskVariable.open(Context(client=client, bank=bank, timeout_s=TIMEOUT_S))


def hurried(accounts: DaskVariable, client: Client) -> DaskVariable:
    """Another handle, whose calls have less time."""
    return DaskVariable(replace(accounts._context, client=client, timeout_s=HURRIED_S), accounts._epoch)


def dasks_lock(client: Client, bank: str) -> Lock:
    name = f"dask-state-bench/dask_variable/{bank}"
    return Lock(name, scheduler_rpc=client.scheduler, loop=client.loop)


def holds_up(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The next set: as if its process stood still just before."""
    ask = dask_variable._Objects.ask

    def slow(self: Any, deadline: float, messages: Sequence[dict[str, Any]], *undo: Any, **options: Any) -> Any:
        if messages[0]["op"] == "variable_set":
            monkeypatch.setattr(dask_variable._Objects, "ask", ask)
            time.sleep(seconds)
            deadline += seconds
        return ask(self, deadline, messages, *undo, **options)

    monkeypatch.setattr(dask_variable._Objects, "ask", slow)


def test_it_is_dasks_own_lock(client: Client, bank: str) -> None:
    """Who holds that changes the bank alone; reads wait for nobody."""
    with opened(client, bank) as accounts:
        first = accounts.open_account("a", 1)
        lock = dasks_lock(client, bank)
        with lock:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                hurried(accounts, client).deposit("a", 1)
            assert time.monotonic() - began < HURRIED_S + SLACK_S
            assert accounts.balance("a") == first
        assert accounts.deposit("a", 1)[:2] == (2, 2)
        assert not lock.locked()


def test_a_caller_that_died_holds_everybody_up_until_its_lease_ends(client: Client, bank: str) -> None:
    with opened(client, bank) as accounts:
        accounts.open_account("a", 1)
        lock = dasks_lock(client, bank)
        lock.refresh_leases = False  # as a dead process would
        lock.acquire()
        with pytest.raises(Unavailable):
            hurried(accounts, client).deposit("a", 1)
        assert accounts.deposit("a", 1)[:2] == (2, 2)


def test_who_gave_up_waiting_for_a_silent_scheduler_gives_the_lock_back(
    scheduler: LocalCluster, client: Client, bank: str
) -> None:
    """It gets the lock all the same, when nobody waits for it any more."""
    with dask.config.set({"distributed.scheduler.locks.lease-timeout": 10 * TIMEOUT_S}):
        accounts = opened(client, bank)
    with accounts:
        accounts.open_account("a", 1)
        scheduler.loop.add_callback(time.sleep, 5 * HURRIED_S)
        time.sleep(HURRIED_S)
        with pytest.raises(Unavailable):
            hurried(accounts, client).deposit("a", 1)
        assert accounts.deposit("a", 1)[:2] == (2, 2)


def test_who_is_late_before_its_set_does_not_set(client: Client, bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(client, bank) as accounts:
        accounts.open_account("a", 1)
        apply = Transaction.apply

        def slow(self: Any) -> Any:
            time.sleep(LEASE_S)
            return apply(self)

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "apply", slow)
            with pytest.raises(Unavailable, match="lease"):
                accounts.deposit("a", 1)
        assert accounts.balance("a")[:2] == (1, 1)


def test_who_stands_still_for_longer_than_its_lease_undoes_what_others_did(
    client: Client, bank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fences it off: the reason for which the lease is long, and this no place for other people's money."""
    with opened(client, bank) as stopped, opened(client, bank) as other, ThreadPoolExecutor(1) as thread:
        stopped.open_account("a", 1)
        stopped.open_account("b", 1)
        holds_up(monkeypatch, 2 * LEASE_S)
        late = thread.submit(stopped.deposit, "a", 1)
        time.sleep(LEASE_S / 2)
        acknowledged = other.deposit("b", 1)
        assert acknowledged[:2] == (2, 2)
        assert late.result()[:2] == (2, 2)
        assert other.balance("b")[:2] == (1, 1)


def test_op_ids_outlive_a_caller_that_dies_while_it_moves_them(
    client: Client, bank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(client, bank) as accounts:
        accounts.open_account("a")
        size = dask_variable._MOST_RECENT + 1
        deposits = [Operation(Function.DEPOSIT, "a", 1, op_id=OpId("s", number)) for number in range(size)]
        first = accounts.apply(deposits)
        ask = dask_variable._Objects.ask

        def dying(self: Any, deadline: float, messages: Sequence[dict[str, Any]], *undo: Any, **options: Any) -> Any:
            if messages[0]["op"] != "variable_set":
                return ask(self, deadline, messages, *undo, **options)
            *pages, _, release = messages
            assert pages
            ask(self, deadline, [*pages, release])
            raise NotAnswered("it died")

        with monkeypatch.context() as patch:
            patch.setattr(dask_variable._Objects, "ask", dying)
            with pytest.raises(Indeterminate):
                accounts.deposit("a", 1, op_id=("s", size))
        assert accounts.apply(deposits) == first
        assert accounts.deposit("a", 1, op_id=("s", size))[:2] == (size + 2, size + 1)
        assert accounts.apply(deposits) == first  # from the pages now


operations = st.builds(
    Operation,
    st.sampled_from([Function.OPEN_ACCOUNT, Function.DEPOSIT, Function.WITHDRAW]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.none(),
    st.one_of(
        st.none(), st.builds(OpId, st.sampled_from(["s", "t"]), st.sampled_from([0, 1, 2, 159, 160, DEDUP_WINDOW + 1]))
    ),
)


@given(batches=st.lists(st.lists(operations, min_size=1, max_size=4), max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_answers_as_a_ledger_does_wherever_its_op_ids_are(
    client: Client, monkeypatch: pytest.MonkeyPatch, batches: list[list[Operation]]
) -> None:
    monkeypatch.setattr(dask_variable, "_MOST_RECENT", 1)
    ledger = Ledger()
    with opened(client, uuid.uuid4().hex) as accounts:
        for batch in batches:
            answers = [plain(answer) for answer in accounts.apply(batch)]
            assert answers == [plain(outcome) for outcome in ledger.apply(Batch.of(batch))]


def plain(answer: Any) -> Any:
    if isinstance(answer, AccountError):
        return type(answer), str(answer)
    return answer[:2] if isinstance(answer, Receipt) else answer
