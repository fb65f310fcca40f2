"""One fault, struck by hand: a bank is opened, the blow falls when the test says so, and all is mended afterwards."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from benchmarks.harness import faults
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import FaultAction
from strategies.interface import AccountError, Accounts, Caller, Context, Fault, Receipt, load

A = TypeVar("A", bound=FaultAction)

DEADLINE_S = 0.5
PATIENCE_S = 5.0
ACCOUNTS = tuple(f"account-{index}" for index in range(6))
OPENING = 100


@dataclass
class Struck:
    """A bank under a fault that is armed."""

    action: FaultAction
    accounts: Accounts
    """A handle whose calls have `DEADLINE_S`."""
    context: Context

    def blow(self) -> str:
        return self.action.inject(self.accounts)

    def all_of_it(self) -> str:
        """The blow, its time, and its remedy."""
        try:
            told = self.blow()
            time.sleep(self.action.lasts_s)
        finally:
            self.action.heal()
        return told

    def deposits(self) -> list[Receipt | AccountError]:
        """What a deposit of 1 into each account gives."""
        return [outcome(self.accounts, account) for account in ACCOUNTS]


def outcome(accounts: Accounts, account: str) -> Receipt | AccountError:
    try:
        return accounts.deposit(account, 1)
    except AccountError as error:
        return error


@contextmanager
def struck(
    environment: Environment,
    fault: Fault,
    strategy: str,
    variant: str | None = None,
    *,
    caller: Caller = Caller.DRIVER,
    deadline_s: float = DEADLINE_S,
    seed: int = 0,
) -> Iterator[Struck]:
    made = load(strategy)
    variant = variant or made.capabilities.variants[0]
    claims = made.claims(variant)
    kind = faults.load(fault)
    assert kind.out_of_reach(claims, caller) is None
    assert kind.missing(environment, claims) is None
    action = kind(environment, claims, caller, deadline_s, random.Random(seed))
    try:
        context = environment.context(claims, variant, f"struck-{uuid.uuid4().hex}", PATIENCE_S)
        with action.prepared(context) as prepared:
            with made.open(prepared) as patient, made.open(replace(prepared, timeout_s=deadline_s)) as accounts:
                for account in ACCOUNTS:
                    patient.open_account(account, OPENING)
                action.armed()
                yield Struck(action, accounts, prepared)
    finally:
        environment.drop_actors()
        environment.await_workers()


def begun(environment: Environment, strategy: str, variant: str | None = None) -> None:
    """A trial that comes next works."""
    made = load(strategy)
    variant = variant or made.capabilities.variants[0]
    context = environment.context(made.claims(variant), variant, f"next-{uuid.uuid4().hex}", PATIENCE_S)
    with made.open(context) as accounts:
        assert accounts.open_account("next", 1).balance == 1
        assert accounts.deposit("next", 1).balance == 2
    environment.drop_actors()
