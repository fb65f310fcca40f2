"""What a run measures, from what the user asked for."""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from benchmarks.harness import cells, servers, workloads
from benchmarks.harness.cells import Cell
from benchmarks.harness.generator import Retry
from benchmarks.harness.load import Arrivals
from benchmarks.harness.measure import QUICK, Settings, unmeasured
from strategies.interface import MAX_SHARDS, Caller, Fault, Resource, load, names

QUICK_REPEATS, REPEATS = 3, 6
"""Trials per cell. Six are the least that two runs can be compared by."""

QUICK_FAULTS = (Fault.WORKER_KILL, Fault.SERVER_KILL)
"""What a quick run breaks."""
SHORT_FAULTS = (
    Fault.WORKER_KILL,
    Fault.WORKER_PAUSE,
    Fault.TASK_RETRY,
    Fault.CALLING_TASK_KILL,
    Fault.SERVER_KILL,
    Fault.POWER_LOSS,
)
"""What the short failure matrix breaks."""
SHORT_RETRIES = (Retry.OP_ID,)
FAILURE_REPEATS = 20

_LIMITS = {
    "clients": (1, 256),
    "drivers": (1, 64),
    "shards": (1, MAX_SHARDS),
    "batch": (1, 10_000),
    "window": (1, 100_000),
    "repeats": (1, 1000),
}


class UsageError(ValueError):
    """The command line asks for something that cannot be."""


@dataclass(frozen=True)
class Plan:
    """What a run measures. Recorded with it, so that it can be resumed."""

    quick: bool
    strategies: tuple[str, ...]
    workloads: tuple[str, ...]
    callers: tuple[str, ...]
    faults: tuple[str, ...]
    clients: int
    repeats: int
    seconds: float | None
    seed: int
    drivers: int = 1
    shards: int | None = None
    batch: int | None = None
    window: int | None = None
    arrivals: str = Arrivals.CLOSED
    rate_per_s: float | None = None
    retries: tuple[str, ...] = (Retry.NONE,)
    """What callers do around a fault."""
    fault_callers: tuple[str, ...] = ()
    """Where a fault is met from; empty for the first place from which it reaches the strategy."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"--{name} must be {low} to {high}, not {value}")
        for name, values, known in (
            ("arrivals", (self.arrivals,), Arrivals),
            ("caller", self.callers, Caller),
            ("caller", self.fault_callers, Caller),
            ("fault", self.faults, list(Fault)),
            ("retry", self.retries, Retry),
        ):
            for each in values:
                if each not in list(known):
                    raise UsageError(f"--{name} must be {', '.join(known)}, not {each!r}")
        if self.seconds is not None and not 0 < self.seconds <= 3600:
            raise UsageError(f"--seconds must be above 0 and at most 3600, not {self.seconds}")
        if self.rate_per_s is not None and not (0 < self.rate_per_s <= 1e7 and math.isfinite(self.rate_per_s)):
            raise UsageError(
                f"--rate must be above 0 and at most 10,000,000 operations a second, not {self.rate_per_s}"
            )
        if (self.rate_per_s is None) != (self.arrivals == Arrivals.CLOSED):
            raise UsageError("--arrivals poisson and constant need a --rate, and a --rate needs one of them")
        if self.drivers > self.clients:
            raise UsageError(f"{self.drivers} driver processes need as many --clients, not {self.clients}")
        if self.drivers > 1 and list(self.callers) != [Caller.DRIVER]:
            raise UsageError("several driver processes are callers of their own: add --caller driver")
        if self.batch is not None and self.window is not None:
            raise UsageError("--batch and --window are two forms of calling: choose one")

    @property
    def settings(self) -> Settings:
        """How long its trials take."""
        settings = QUICK if self.quick else Settings()
        return settings if self.seconds is None else replace(settings, seconds=self.seconds)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The (strategy, variant) pairs that are measured."""
        return [row for strategy in self.strategies for row in rows_of(strategy)]

    def speed_cells(self) -> list[Cell]:
        """Every cell whose speed is measured."""
        return cells.speed_cells(
            self.rows,
            self.workloads,
            [Caller(caller) for caller in self.callers],
            self.clients,
            drivers=self.drivers,
            shards=self.shards,
            batch=self.batch,
            window=self.window,
            arrivals=Arrivals(self.arrivals),
            rate_per_s=self.rate_per_s,
        )

    @property
    def _measures_the_usual(self) -> bool:
        usual = workloads.QUICK if self.quick else workloads.names()
        usual_faults = QUICK_FAULTS if self.quick else list(Fault)
        return list(self.workloads) == list(usual) and list(self.faults) == list(usual_faults)

    def trials(self) -> list[tuple[Cell, int]]:
        """Every cell and repeat in the order of measuring: each repeat is a block, shuffled by the seed.

        Speed comes before faults, which cost the cluster a worker each.
        """
        broken = cells.fault_cells(
            self.rows,
            [Fault(fault) for fault in self.faults],
            [Caller(caller) for caller in self.fault_callers],
            [Retry(retry) for retry in self.retries],
        )
        # A quick run that measures speed too breaks everything once.
        fault_repeats = 1 if self.quick and self.workloads else self.repeats
        chance = random.Random(self.seed)
        ordered = []
        for of_kind, repeats in ((self.speed_cells(), self.repeats), (broken, fault_repeats)):
            for repeat in range(repeats):
                block = list(of_kind)
                chance.shuffle(block)
                ordered += [(cell, repeat) for cell in block]
        return ordered

    def cell_of(self, key: tuple[Any, ...]) -> Cell:
        """The fault cell whose trial has this key.

        Raises:
            UsageError: it is of another plan, or no fault's.
        """
        for cell, repeat in self.trials():
            if cell.fault is not None and unmeasured(cell, repeat).key == key:
                return cell
        raise UsageError("this trial is none with a fault; choose the line of one")

    def recorded(self) -> dict[str, Any]:
        """As it is kept in `run.json`."""
        return asdict(self)

    @classmethod
    def of_record(cls, recorded: dict[str, Any]) -> Self:
        """The plan of a run that was interrupted."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
        }
        try:
            return cls(**fields)
        except TypeError as error:
            raise UsageError(f"the run's plan is not one that this program can continue: {error}") from error

    def command(
        self, name: str, scheduler: str | None, urls: Mapping[Resource, str], *, extra: Sequence[str] = ()
    ) -> str:
        """The command that measures the same again, without secrets."""
        words = [f"python -m benchmarks {name}"]
        words += ["--quick"] if self.quick and name != "failures" else []
        words += [
            f"--strategy {shlex.quote(strategy)}" for strategy in self.strategies if list(self.strategies) != names()
        ]
        if name == "failures":
            words += self._failure_options()
        elif not self._measures_the_usual:
            words += [f"--workload {workload}" for workload in self.workloads]
            words += [f"--fault {fault}" for fault in self.faults]
        if name != "failures" and self.retries != (Retry.NONE,):
            words += [f"--retry {retry}" for retry in self.retries]
        words += [f"--caller {self.callers[0]}"] if len(self.callers) == 1 else []
        words += [f"--clients {self.clients}"] if name != "failures" else []
        words += [f"--seed {self.seed}"]
        words += [] if name == "search" else [f"--repeats {self.repeats}"]  # it decides itself how often it measures
        words += [] if self.drivers == 1 else [f"--drivers {self.drivers}"]
        for option in ("seconds", "shards", "batch", "window"):
            value = getattr(self, option)
            words += [] if value is None else [f"--{option} {value:.12g}"]
        words += [] if self.rate_per_s is None else [f"--arrivals {self.arrivals} --rate {self.rate_per_s:.12g}"]
        words += extra
        words += [] if scheduler is None else [f"--scheduler {scheduler}"]
        words += [f"{servers.kinds()[resource].option} {servers.without_secret(url)}" for resource, url in urls.items()]
        return " ".join(words)

    def _failure_options(self) -> list[str]:
        if (self.faults, self.retries, self.fault_callers) == (SHORT_FAULTS, SHORT_RETRIES, ()):
            return ["--short"]
        words = [] if list(self.faults) == list(Fault) else [f"--fault {fault}" for fault in self.faults]
        return words + ([] if self.retries == tuple(Retry) else [f"--retry {retry}" for retry in self.retries])


def rows_of(strategy: str) -> list[tuple[str, str]]:
    """The (strategy, variant) pairs that NAME[:VARIANT] or FILE.py:CLASS[:VARIANT] stands for.

    Raises:
        UsageError: it has no such variant.
    """
    name, variant = strategy, None
    parts = strategy.rsplit(":", 1)
    if len(parts) == 2 and not parts[0].endswith(".py"):
        name, variant = parts
    variants = load(name).capabilities.variants
    if variant is None:
        return [(name, each) for each in variants]
    if variant not in variants:
        raise UsageError(f"{name} has no variant {variant!r}; it has {', '.join(variants)}")
    return [(name, variant)]


def checked(wanted: Sequence[str], check: Callable[[str], object]) -> tuple[str, ...]:
    """The same, once `check` raised for none."""
    for name in wanted:
        check(name)
    return tuple(wanted)


def fault_named(name: str) -> Fault:
    """The fault of this name.

    Raises:
        UsageError: there is none.
    """
    try:
        return Fault(name)
    except ValueError:
        raise UsageError(f"no fault is called {name!r}; there are {', '.join(Fault)}") from None


def spelled_workloads(wanted: Sequence[str], accounts: int | None, zipf: float | None) -> tuple[str, ...]:
    """Workloads with their size and skew in the names, as records have them."""
    return tuple(workloads.spelled(name, accounts, zipf) for name in wanted)
