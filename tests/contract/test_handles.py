"""Opening, closing and copying handles."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from distributed import Client

from benchmarks.harness import servers
from benchmarks.harness.environment import Environment
from strategies.interface import (
    Accounts,
    Caller,
    Capabilities,
    Context,
    Receipt,
    Resource,
    StateLost,
    Unavailable,
    UnknownAccount,
    load,
    names,
)
from tests.contract.callers import InTasks, call, kinds, outcomes
from tests.contract.conftest import Opener, skip_if_missing
from tests.contract.rows import PLACES, Place, Row, rows

FIELD_OF = {Resource.DASK: "client", Resource.SCHEDULER: "client", Resource.DIRECTORY: "directory"} | {
    resource: kind.url_field for resource, kind in servers.kinds().items()
}
"""Which field of a context holds which resource."""

EVERY_CALL = (
    call("open_account", "b", 1),
    call("deposit", "a", 1),
    call("withdraw", "a", 1),
    call("transfer", "a", "a", 1),
    call("transfer", "a", "b", 1),
    call("deposit", "a", 1, op_id=("s", 1)),
    call("balance", "a"),
    call("balance", "unknown"),
    call("snapshot"),
)


def test_every_strategy_is_covered() -> None:
    assert {place.strategy for place in PLACES} == set(names())
    for name in names():
        variants = load(name).capabilities.variants
        assert variants
        assert len(set(variants)) == len(variants)
        for variant in variants:
            callers = load(name).claims(variant).callers
            assert callers, "a strategy that nobody may call is not covered by anything"
            own = [row.caller for row in rows(everywhere=True) if row.place == Place(name, variant)]
            assert sorted(own) == sorted(callers)
        usual = [row for row in rows(everywhere=False) if row.place.strategy == name]
        assert {row.place.variant for row in usual} == set(variants)
        assert {row.caller for row in usual} == load(name).capabilities.callers


def test_claims_are_a_capabilities_object_that_names_the_variants(place: Place) -> None:
    assert isinstance(place.claims, Capabilities)
    assert place.claims.variants == place.kind.capabilities.variants
    assert place.kind.name == place.strategy


# -- opening -------------------------------------------------------------------------------------


def test_open_without_a_resource_that_it_needs(place: Place, environment: Environment, bank: str) -> None:
    skip_if_missing(place.claims, environment)
    assert place.claims.needs <= FIELD_OF.keys()
    context = place.context(environment, bank)
    for resource in place.claims.needs:
        without: dict[str, Any] = {FIELD_OF[resource]: None}
        with pytest.raises(ValueError, match=r"\S"):
            place.kind.open(dataclasses.replace(context, **without))


def test_open_with_a_variant_that_there_is_not(place: Place, environment: Environment, bank: str) -> None:
    skip_if_missing(place.claims, environment)
    context = place.context(environment, bank)
    for variant in ("no such variant", "", place.variant.upper()):
        with pytest.raises(ValueError, match=repr(variant)):
            place.kind.open(dataclasses.replace(context, variant=variant))


def test_open_without_a_variant(place: Place, environment: Environment, bank: str) -> None:
    skip_if_missing(place.claims, environment)
    with place.kind.open(dataclasses.replace(place.context(environment, bank), variant=None)) as accounts:
        assert accounts.open_account("a", 1)[:2] == (1, 1)
    environment.drop_actors()


def test_open_with_a_closed_client(place: Place, environment: Environment, bank: str) -> None:
    skip_if_missing(place.claims, environment)
    if place.claims.needs.isdisjoint({Resource.DASK, Resource.SCHEDULER}):
        pytest.skip("needs no client")
    client = Client(environment.client.scheduler.address, set_as_default=False)
    context = dataclasses.replace(place.context(environment, bank), client=client)
    client.close()
    with pytest.raises(Unavailable):
        place.kind.open(context)


def test_open_with_a_client_that_was_closed_under_an_open_handle(
    place: Place, environment: Environment, bank: str
) -> None:
    skip_if_missing(place.claims, environment)
    if place.claims.needs.isdisjoint({Resource.DASK, Resource.SCHEDULER}):
        pytest.skip("needs no client")
    client = Client(environment.client.scheduler.address, set_as_default=False)
    context = dataclasses.replace(place.context(environment, bank), client=client)
    first = place.kind.open(context)
    try:
        first.open_account("a", 1)
        client.close()
        with pytest.raises(Unavailable):
            place.kind.open(context)
        (answer,) = outcomes(first, call("deposit", "a", 1))
        assert type(answer) in (Unavailable, StateLost, Receipt)
    finally:
        first.close()
        client.close()
        environment.drop_actors()


def test_open_under_another_client_finds_the_bank(place: Place, environment: Environment, bank: str) -> None:
    skip_if_missing(place.claims, environment)
    with place.kind.open(place.context(environment, bank)) as first:
        receipt = first.open_account("a", 1)
        with Client(environment.client.scheduler.address, set_as_default=False) as client:
            context = dataclasses.replace(place.context(environment, bank), client=client)
            with place.kind.open(context) as second:
                assert second.balance("a") == receipt
                assert second.deposit("a", 1)[:2] == (2, 2)
                second.open_account("b", 5)
        assert first.snapshot() == {"a": Receipt(2, 2, receipt.epoch), "b": first.balance("b")}
    environment.drop_actors()


def test_banks_do_not_share_accounts_whatever_their_names(place: Place, environment: Environment, bank: str) -> None:
    """Names that could run together when they are glued into one key."""
    skip_if_missing(place.claims, environment)
    banks = {f"{bank}": ["b/c", "b", "{b}:epoch"], f"{bank}/b": ["c"], f"{bank}/b/c": ["c"], f"{bank}:b": ["c"],
             f"{bank} b": ["c"], f"{{{bank}}}": ["c"], f"Zoë\n\0{bank}": ["c"], bank.upper(): ["c"]}  # fmt: skip
    handles = {name: place.kind.open(place.context(environment, name)) for name in banks}
    try:
        for name, accounts in banks.items():
            for number, account in enumerate(accounts):
                assert handles[name].open_account(account, number)[:2] == (1, number)
        for name, accounts in banks.items():
            assert {account: receipt[:2] for account, receipt in handles[name].snapshot().items()} == {
                account: (1, number) for number, account in enumerate(accounts)
            }
    finally:
        for handle in handles.values():
            handle.close()
        environment.drop_actors()


def test_a_context_refuses_what_makes_no_sense() -> None:
    for timeout_s in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout_s"):
            Context(timeout_s=timeout_s)
    with pytest.raises(ValueError, match="bank"):
        Context(bank="")


def test_a_context_does_not_show_the_url() -> None:
    assert "secret" not in repr(Context(redis_url="redis://:secret@localhost"))


# -- closing -------------------------------------------------------------------------------------


def test_close_is_idempotent_and_ends_every_call(place: Place, open_in_driver: Opener) -> None:
    accounts = open_in_driver()
    accounts.open_account("a", 10)
    accounts.deposit("a", 1, op_id=("s", 1))
    accounts.close()
    accounts.close()
    answers = outcomes(accounts, *EVERY_CALL)
    assert {str(each): type(answer) for each, answer in zip(EVERY_CALL, answers, strict=True)} == {
        str(each): Unavailable for each in EVERY_CALL
    }
    assert all(str(answer) for answer in answers)
    accounts.close()
    again = open_in_driver()
    assert again.snapshot().keys() == {"a"}
    assert again.balance("a")[:2] == (2, 11)


def test_a_handle_closed_before_its_first_call_ends_every_call(open_in_driver: Opener) -> None:
    open_in_driver().open_account("a", 10)
    accounts = open_in_driver()
    accounts.close()
    assert kinds(outcomes(accounts, *EVERY_CALL)) == [Unavailable] * len(EVERY_CALL)


def test_a_rejection_is_no_answer_of_a_closed_handle(open_in_driver: Opener) -> None:
    """Whatever a handle remembers of its op ids: closed is closed."""
    accounts = open_in_driver()
    calls = [call("deposit", "unknown", 1, op_id=("s", 1)), call("transfer", "unknown", "other", 1, op_id=("s", 2))]
    outcomes(accounts, *calls)
    accounts.close()
    assert kinds(outcomes(accounts, *calls)) == [Unavailable] * 2


def test_one_handle_closed_leaves_the_others_open(open_handle: Opener) -> None:
    one, other = open_handle(), open_handle()
    one.open_account("a", 1)
    one.close()
    assert other.deposit("a", 1)[:2] == (2, 2)


# -- copying -------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [lambda handle: pickle.loads(pickle.dumps(handle)),
                                  lambda handle: cloudpickle.loads(cloudpickle.dumps(handle))],
                         ids=["pickle", "cloudpickle"])  # fmt: skip
def test_a_pickled_handle_is_one_more_handle_on_the_bank(
    place: Place, open_in_driver: Opener, copy: Callable[[Accounts], Accounts]
) -> None:
    if Caller.TASK not in place.claims.callers:
        pytest.skip("claims no calls from tasks")
    original = open_in_driver()
    opened = original.open_account("a", 1)
    copied, of_copy = copy(original), copy(copy(original))
    assert type(copied).name == place.strategy
    assert copied.balance("a") == opened
    assert copied.deposit("a", 2)[:2] == (2, 3)
    assert of_copy.withdraw("a", 1)[:2] == (3, 2)
    copied.open_account("b", 5)
    assert original.snapshot() == of_copy.snapshot() == copied.snapshot()
    assert original.snapshot().keys() == {"a", "b"}

    copied.close()
    assert kinds(outcomes(copied, call("balance", "a"), call("deposit", "a", 1))) == [Unavailable] * 2
    assert original.deposit("a", 1)[:2] == (4, 3)
    assert of_copy.balance("a")[:2] == (4, 3)
    of_copy.close()


def test_a_copy_closed_in_a_task_leaves_the_original_open(row: Row, open_handle: Opener) -> None:
    if row.caller is not Caller.TASK:
        pytest.skip("is about tasks")
    accounts = open_handle()
    assert isinstance(accounts, InTasks)
    answers = outcomes(accounts, call("open_account", "a", 1), call("close"), call("balance", "a"), call("close"))
    assert kinds(answers) == [Receipt, type(None), Unavailable, type(None)]
    assert accounts.deposit("a", 1)[:2] == (2, 2)


def test_a_handle_goes_from_task_to_task(row: Row, open_handle: Opener, environment: Environment) -> None:
    """Pickled again where it was unpickled, after use, and back to the driver."""
    if row.caller is not Caller.TASK:
        pytest.skip("is about tasks")
    accounts = open_handle()
    assert isinstance(accounts, InTasks)
    client = environment.client
    first = client.submit(_use_and_pass_on, accounts._handle, workers=sorted(environment.worker_pids())[:1], pure=False)
    second = client.submit(_use_and_pass_on, first, workers=sorted(environment.worker_pids())[1:2], pure=False)
    returned = second.result()
    assert accounts.balance("a")[:2] == (3, 2)
    assert returned.deposit("a", 1)[:2] == (4, 3)
    returned.close()


def _use_and_pass_on(handle: Accounts) -> Accounts:
    try:
        handle.balance("a")
    except UnknownAccount:
        handle.open_account("a")
    handle.deposit("a", 1)
    return handle


cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_a_task_on_every_worker_can_call(row: Row, open_handle: Opener, environment: Environment, bank: str) -> None:
    if row.caller is not Caller.TASK:
        pytest.skip("is about tasks")
    accounts = open_handle()
    accounts.open_account("a")
    assert isinstance(accounts, InTasks)
    for worker in environment.worker_pids():
        there = InTasks(accounts._handle, environment.client, [worker])
        there.deposit("a", 1)
        there.open_account(worker)
    assert accounts.balance("a").balance == len(environment.worker_pids())
    assert accounts.snapshot().keys() == {"a", *environment.worker_pids()}
