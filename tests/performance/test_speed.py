"""pytest-benchmark: the cells of the speed matrix, by the measuring function that all front doors share.

pytest-benchmark times whole trials, warm-up and all; the figures to read are in `extra_info`. Where benchmarks are
disabled, one workload is measured of each, with every function that it claims: what became of the money counts.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import workloads
from benchmarks.harness.cells import Cell, Status, speed_cells
from benchmarks.harness.environment import Environment
from benchmarks.harness.intervals import median
from benchmarks.harness.measure import Settings, measure, trial_seed
from benchmarks.harness.records import Trial
from strategies.interface import Caller, Transfers, load, names

CELLS = speed_cells(
    [(name, variant) for name in names() for variant in load(name).capabilities.variants],
    workloads.names(),
    list(Caller),
    clients=4,
)
MEASURED = Settings(seconds=0.4, warmup_s=0.1)
ONCE = Settings(seconds=0.1, warmup_s=0.02)
FIGURES = ("ops_per_s", "latency_us_p50", "latency_us_p90", "latency_us_p99")
ROUNDS = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    disabled = metafunc.config.getoption("benchmark_disable")
    cells = [cell for cell in CELLS if not disabled or cell.workload == _most_telling(cell)]
    metafunc.parametrize("cell", cells, ids=lambda cell: f"{cell.row}-{cell.workload}-{cell.caller}")


def _most_telling(cell: Cell) -> str:
    return "smallbank" if cell.claims.transfers is Transfers.ANY else "ycsb_a"


def test_speed(benchmark: BenchmarkFixture, environment: Environment, cell: Cell) -> None:
    benchmark.group = f"{cell.workload}, called from a {cell.caller}, {cell.claims.durability}"
    trials: list[Trial] = []

    def one_trial() -> None:
        repeat = len(trials)
        settings = MEASURED if benchmark.enabled else ONCE
        trials.append(measure(cell, environment, settings, repeat, trial_seed(1, cell, repeat)))

    benchmark.pedantic(one_trial, rounds=ROUNDS, iterations=1)
    # Before it may end here: what was not measured is recorded too, with its reason.
    benchmark.extra_info["trials"] = [asdict(trial) for trial in trials]

    for trial in trials:
        if trial.status in (Status.NOT_APPLICABLE, Status.RESOURCE_MISSING):
            pytest.skip(f"{trial.status}: {trial.reason}")
        assert trial.status == Status.OK, trial.reason
        assert trial.operations or not trial.trusted  # a machine too busy to run the load is no fault of the code
        assert trial.acknowledged_lost == trial.duplicated == 0
        assert trial.conserved
        assert trial.linearizable == "yes"
    for figure in FIGURES:
        values = [value for trial in trials if (value := getattr(trial, figure)) is not None]
        if values:
            benchmark.extra_info[figure] = asdict(median(values))
