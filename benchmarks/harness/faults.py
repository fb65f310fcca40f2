"""What a fault is to the ruler: whom it can reach, how it strikes, how it is healed. `*_faults.py` hold the faults."""

from __future__ import annotations

import importlib
import pkgutil
import random
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import ClassVar

import benchmarks.harness
from benchmarks.harness.driver_processes import DriverProcess
from benchmarks.harness.environment import Environment
from strategies.interface import Accounts, Caller, Capabilities, Context, Fault


class NotInjected(RuntimeError):
    """The fault could not be applied, so the trial says nothing."""


class FaultAction(ABC):
    """One fault of one trial. What it draws at random, it draws from `chance`, so that a seed strikes the same again.

    A trial goes: `prepared` around all of it; the bank and its accounts are opened; `armed`; load begins; `inject`;
    `lasts_s` later `heal`; the load ends; the accounts are read and judged; `prepared` is left.
    """

    fault: ClassVar[Fault]
    target: ClassVar[str]
    """What is struck."""
    emulates: ClassVar[str]
    """What in the world it stands for."""
    healed_by: ClassVar[str]
    """What ends it."""
    cannot_show: ClassVar[str]
    """What of the world it leaves out, so that nobody takes the figure for more than it is."""

    child: DriverProcess | None = None
    """Opens the bank and calls it in the driver's stead, where the driver is to be killed."""
    callers_go_on = False
    """Whether callers that are begun again go on where they were cut off: doing all again would hide what was lost."""
    fails_a_task = False
    """Whether one of the calling tasks is to raise when the fault is due."""

    def __init__(
        self,
        environment: Environment,
        claims: Capabilities,
        caller: Caller,
        deadline_s: float,
        chance: random.Random,
    ) -> None:
        self.environment = environment
        self.claims = claims
        self.caller = caller
        self.deadline_s = deadline_s
        """After which a call gives up."""
        self.chance = chance

    @classmethod
    @abstractmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        """Why it cannot physically reach a strategy that needs these resources, called from there; None if it can."""

    @classmethod
    @abstractmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        """Why it cannot be applied here, with the command that helps; None if it can.

        Only what the harness started is ever broken.
        """

    @property
    def lasts_s(self) -> float:
        """From the blow to its remedy."""
        return 0.0

    def prepared(self, context: Context) -> AbstractContextManager[Context]:
        """What must be in place before the bank is opened; the context that it is to be opened with."""
        return nullcontext(context)

    def armed(self) -> None:  # noqa: B027 - most need nothing more
        """What must be in place when the bank is open and no load is offered yet."""

    @abstractmethod
    def inject(self, accounts: Accounts) -> str:
        """Break it, and say what was hit. `accounts` is the driver's handle.

        Raises:
            NotInjected: there was nothing to break.
        """

    def confirm(self, begun_again: int) -> None:  # noqa: B027 - most know at once
        """Whether the load felt it, of whose clients so many were begun again.

        Raises:
            NotInjected: it did not.
        """

    def heal(self) -> None:  # noqa: B027 - nothing is a remedy too
        """Bring back what an operator would bring back. What heals by itself is left alone."""


def load(fault: Fault) -> type[FaultAction]:
    """What applies this fault."""
    return _actions()[fault]


@cache
def _actions() -> dict[Fault, type[FaultAction]]:
    """Every concrete action in this package's modules whose names end in `_faults`."""
    found: dict[Fault, type[FaultAction]] = {}
    for module in pkgutil.iter_modules(benchmarks.harness.__path__):
        if not module.name.endswith("_faults"):
            continue
        for value in vars(importlib.import_module(f"{benchmarks.harness.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, FaultAction) and "fault" in vars(value):
                found[value.fault] = value
    return found
