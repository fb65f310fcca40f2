"""pytest-benchmark: the short failure matrix, by the measuring function that all front doors share.

pytest-benchmark times whole trials; the figures to read are in `extra_info`. What a strategy must keep is asserted in
tests/failure/test_claims.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.cells import Cell, Status, fault_cells
from benchmarks.harness.environment import Environment
from benchmarks.harness.failure_figures import aggregate
from benchmarks.harness.measure import QUICK, measure, trial_seed
from benchmarks.harness.plan import SHORT_FAULTS, SHORT_RETRIES
from benchmarks.harness.records import Trial
from strategies.interface import Fault, load, names

CELLS = fault_cells(
    [(name, variant) for name in names() for variant in load(name).capabilities.variants],
    SHORT_FAULTS,
    retries=SHORT_RETRIES,
)
ROUNDS = 3
ONCE = replace(QUICK, fault=replace(QUICK.fault, tail_s=0.6))
DISABLED = next(cell for cell in CELLS if cell.fault is Fault.TASK_RETRY)
"""What is measured, once, when benchmarks are disabled: that this file works is all that is asked then."""


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """A cluster and servers of these tests' own: their workers die."""
    with Environment() as raised:
        yield raised


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cells = [DISABLED] if metafunc.config.getoption("benchmark_disable") else CELLS
    metafunc.parametrize("cell", cells, ids=lambda cell: f"{cell.row}-{cell.fault}-{cell.caller}")


def test_failure(benchmark: BenchmarkFixture, breakable: Environment, cell: Cell) -> None:
    benchmark.group = f"{cell.fault}, called from a {cell.caller}, {cell.claims.durability}"
    trials: list[Trial] = []

    def one_trial() -> None:
        repeat = len(trials)
        settings = QUICK if benchmark.enabled else ONCE
        trials.append(measure(cell, breakable, settings, repeat, trial_seed(1, cell, repeat)))

    benchmark.pedantic(one_trial, rounds=ROUNDS, iterations=1)
    # Before it may end here: what was not measured is recorded too, with its reason.
    benchmark.extra_info["trials"] = [asdict(trial) for trial in trials]

    for trial in trials:
        if trial.status in (Status.NOT_APPLICABLE, Status.RESOURCE_MISSING):
            pytest.skip(f"{trial.status}: {trial.reason}")
        assert trial.status == Status.OK, trial.reason
    (cell_figures,) = aggregate(trials)
    assert cell_figures.trials == len(trials)
    benchmark.extra_info["trials_never_recovered"] = cell_figures.trials_never_recovered
    benchmark.extra_info |= {name: asdict(found) for name, found in cell_figures.figures.items()}
