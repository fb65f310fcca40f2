"""What the contract suite is run on: every strategy, in every variant, and from every place it claims calls from.

Variants are settings, and what calls from tasks add to them is the way there: unless told, tasks call the first variant
of each strategy. So do all callers in tests marked `alike`: of arguments that are refused before any backend sees them,
and of deadlines, which one link keeps for all variants.
All of it, `--everywhere`, takes half as long again.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.environment import Environment
from strategies.interface import Accounts, Caller, Capabilities, Context, load, names

TIMEOUT_S = 10.0
"""Long enough that a slow machine never meets it; tests of deadlines choose their own."""


@dataclass(frozen=True)
class Place:
    """One strategy in one variant."""

    strategy: str
    variant: str

    def __str__(self) -> str:
        return f"{self.strategy}-{self.variant}"

    @property
    def kind(self) -> type[Accounts]:
        return load(self.strategy)

    @property
    def claims(self) -> Capabilities:
        return self.kind.claims(self.variant)

    def context(self, environment: Environment, bank: str, timeout_s: float = TIMEOUT_S) -> Context:
        return environment.context(self.claims, self.variant, bank, timeout_s)


@dataclass(frozen=True)
class Row:
    """A place, and from where it is called."""

    place: Place
    caller: Caller

    def __str__(self) -> str:
        return f"{self.place}-{self.caller}"

    @property
    def claims(self) -> Capabilities:
        return self.place.claims


PLACES = [Place(strategy, variant) for strategy in names() for variant in load(strategy).capabilities.variants]


def rows(*, everywhere: bool, alike: bool = False) -> list[Row]:
    """Of all places, from the first caller that each claims, or from all of them.

    Where variants are alike, of each strategy's first variant only.
    """
    return [
        Row(place, caller)
        for place in PLACES
        for number, caller in enumerate(each for each in Caller if each in place.claims.callers)
        if everywhere or not (number or alike) or place.variant == place.kind.capabilities.variants[0]
    ]
