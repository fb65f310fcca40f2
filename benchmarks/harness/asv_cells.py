"""What asv's classes share: cells measured once per class tree, and their figures handed to `track_*` methods.

asv runs every benchmark and parameter in a process of its own. So `setup_cache` measures all cells of
a class tree in one environment and leaves them in the cache that asv keeps, and each `track_*` reads
its own. Classes here have no `track_*`: asv imports this module too.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

from benchmarks.harness import cells, workloads
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.environment import Environment
from benchmarks.harness.measure import QUICK, Settings, footprint, measure, trial_seed
from benchmarks.harness.plan import SHORT_FAULTS, SHORT_RETRIES
from benchmarks.harness.records import Trial
from strategies.interface import Caller, Fault, load, names

ROWS = [f"{name}:{variant}" for name in names() for variant in load(name).capabilities.variants]

_SEED = 1
_CLIENTS = 4
_SPEED = Settings(seconds=0.3, warmup_s=0.1)
_SPEED_TRIALS = 8
"""Fewer than this, and asv can give no interval."""
_FAULT_TRIALS = 3
_FOOTPRINT_ACCOUNTS = 500
_SETUP_TIMEOUT_S = 1800

Cache = dict[tuple[str, ...], list[Trial]]


class Measured:
    """A class tree over cells."""

    timeout = 60.0
    params: ClassVar[list[list[str]]]
    param_names: ClassVar[list[str]]

    def setup(self, cache: Cache, *parameters: str) -> None:
        """Pick this cell's trials.

        Raises:
            NotImplementedError: the cell is not applicable or lacks a resource; asv skips it.
            RuntimeError: it failed.
        """
        self.trials = cache[parameters]
        for trial in self.trials:
            if trial.status in (Status.NOT_APPLICABLE, Status.RESOURCE_MISSING):
                raise NotImplementedError(trial.reason)
            if trial.status == Status.FAILED:
                raise RuntimeError(trial.reason)


class Speed(Measured):
    """Strategy × workload × caller, in a closed loop."""

    params: ClassVar[list[list[str]]] = [ROWS, workloads.names(), [caller.value for caller in Caller]]
    param_names: ClassVar[list[str]] = ["strategy", "workload", "caller"]

    def setup_cache(self) -> Cache:
        """Measure every cell, in blocks."""
        chosen: dict[tuple[str, ...], Cell] = {
            (row, workload, caller): Cell(*_split(row), workload, Caller(caller), _CLIENTS)
            for row, workload, caller in itertools.product(*self.params)
        }
        return _measured(chosen, _SPEED, _SPEED_TRIALS)

    setup_cache.timeout = _SETUP_TIMEOUT_S  # type: ignore[attr-defined]

    def samples(self, figure: str) -> dict[str, Any]:
        """One value per trial, in the form that asv compares statistically; not a number where no trial can tell."""
        values = [float(value) for trial in self.trials if (value := getattr(trial, figure)) is not None]
        return {"samples": values or [math.nan], "number": 1}


class Faults(Measured):
    """Strategy × fault of the short matrix, with unit deposits around it that are sent again with their op ids."""

    params: ClassVar[list[list[str]]] = [ROWS, [fault.value for fault in SHORT_FAULTS]]
    param_names: ClassVar[list[str]] = ["strategy", "fault"]

    def setup_cache(self) -> Cache:
        """Measure every cell, in blocks."""
        chosen: dict[tuple[str, ...], Cell] = {
            (row, fault): cells.fault_cells([_split(row)], [Fault(fault)], retries=SHORT_RETRIES)[0]
            for row, fault in itertools.product(*self.params)
        }
        return _measured(chosen, QUICK, _FAULT_TRIALS)

    setup_cache.timeout = _SETUP_TIMEOUT_S  # type: ignore[attr-defined]


class Footprints:
    """Strategy × nothing: what it costs before it does anything."""

    timeout = 60.0
    params: ClassVar[list[str]] = ROWS
    param_names: ClassVar[list[str]] = ["strategy"]

    def setup_cache(self) -> dict[str, tuple[float, float] | str]:
        """Measure every row; what is missing is a reason in place of figures."""
        found: dict[str, tuple[float, float] | str] = {}
        with Environment() as environment:
            for row in ROWS:
                cell = Cell(*_split(row), workloads.names()[0], Caller.DRIVER, 1)
                decision = cells.decide(cell, environment)
                if decision.status is Status.OK:
                    measured = footprint(cell, environment, _FOOTPRINT_ACCOUNTS)
                    found[row] = (measured.open_s, measured.bytes_per_account)
                else:
                    found[row] = decision.reason or decision.status
        return found

    setup_cache.timeout = _SETUP_TIMEOUT_S  # type: ignore[attr-defined]

    def setup(self, cache: dict[str, tuple[float, float] | str], row: str) -> None:
        """Pick this row's figures.

        Raises:
            NotImplementedError: a resource is missing; asv skips it.
        """
        found = cache[row]
        if isinstance(found, str):
            raise NotImplementedError(found)
        self.open_s, self.bytes_per_account = found


def _measured(chosen: dict[tuple[str, ...], Cell], settings: Settings, trials: int) -> Cache:
    found: Cache = {parameters: [] for parameters in chosen}
    with Environment() as environment:
        for repeat in range(trials):
            for parameters, cell in chosen.items():
                trial = measure(cell, environment, settings, repeat, trial_seed(_SEED, cell, repeat))
                found[parameters].append(trial)
    return found


def _split(row: str) -> tuple[str, str]:
    strategy, _, variant = row.partition(":")
    return strategy, variant
