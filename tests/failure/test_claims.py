"""Every strategy keeps exactly the promises it makes, for every fault of the short matrix that can reach it.

One that loses what it claims to keep breaks the build; so does one that survives what it does not claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from benchmarks.harness import faults
from benchmarks.harness.book_columns import IN_DASK
from benchmarks.harness.cells import Cell, Status, decide, fault_cells
from benchmarks.harness.environment import Environment
from benchmarks.harness.fault_trials import Schedule
from benchmarks.harness.generator import Retry
from benchmarks.harness.measure import Settings, measure
from benchmarks.harness.plan import SHORT_FAULTS, SHORT_RETRIES
from benchmarks.harness.records import Trial
from strategies.interface import CALLER_FAULTS, CLUSTER_FAULTS, Caller, Fault, Transfers, load, names
from tests.harness.own import fault_cell

SHORT = Settings(fault=Schedule(after_s=0.3, tail_s=0.8))
LUCK = 3
"""Trials: nothing may have been there to lose when the fault struck; a busy machine may have served nobody in time."""

ROWS = [(name, variant) for name in names() for variant in load(name).capabilities.variants]
CELLS = fault_cells(ROWS, SHORT_FAULTS, retries=SHORT_RETRIES)
SENT_AGAIN = (Fault.WORKER_PAUSE, Fault.DROP_REPLY)
"""Callers do not know what became of a transfer, and send it again by its op id."""
TRANSFERS = [
    replace(cell, workload="transfer")
    for cell in fault_cells(ROWS, SENT_AGAIN, [Caller.DRIVER], [Retry.OP_ID])
    if cell.claims.transfers is Transfers.ANY
    and cell.fault in cell.claims.survives
    and (cell.fault is Fault.DROP_REPLY or cell.claims.sharded)
]


def reached(cells: list[Cell], *, everywhere: bool) -> list[Cell]:
    """Those that the fault can reach. What strikes Dask meets one variant of each strategy whose state is elsewhere,
    unless all are wanted: variants are settings of where state is. Thirty rows took ten minutes of CI's twenty-five.
    """
    return [
        cell
        for cell in cells
        if cell.fault is not None
        and not faults.load(cell.fault).out_of_reach(cell.claims, cell.caller)
        and (
            everywhere
            or cell.fault not in CLUSTER_FAULTS | CALLER_FAULTS
            or cell.claims.needs <= IN_DASK
            or cell.variant == load(cell.strategy).capabilities.variants[0]
        )
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        everywhere = metafunc.config.getoption("everywhere")
        of_test = {test_claims_are_kept: CELLS, test_transfers_are_whole_whatever_their_callers_know: TRANSFERS}
        cells = reached(of_test[metafunc.function], everywhere=everywhere)
        metafunc.parametrize("cell", cells, ids=lambda cell: f"{cell.row}-{cell.fault}")


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """A cluster and servers of these tests' own: their workers die."""
    with Environment(workers=2) as raised:
        yield raised


def broken(cell: Cell, environment: Environment, seed: int = 11) -> Trial:
    decision = decide(cell, environment)
    if decision.status is Status.RESOURCE_MISSING:
        pytest.skip(decision.reason or "")
    return measure(cell, environment, SHORT, repeat=0, seed=seed)


def test_claims_are_kept(cell: Cell, breakable: Environment) -> None:
    for seed in range(LUCK):
        trial = broken(cell, breakable, seed)
        if cell.fault in cell.claims.survives and trial.acknowledged_lost is not None:  # None: it could not be judged
            assert (trial.acknowledged_lost, trial.duplicated) == (0, 0)
            assert trial.linearizable != "no"
        if trial.verdict == "as_claimed":
            break
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.trusted, trial.distrust
    assert trial.verdict == "as_claimed", asdict(trial)
    assert trial.acknowledged
    assert trial.duplicated == 0
    if cell.fault in cell.claims.survives:
        assert trial.conserved
        assert trial.violations is None
    assert (trial.fault, trial.retry, trial.latency_kind) == (cell.fault, cell.retry, "response")
    # One more caller sends probes, for a part of the time.
    assert trial.offered_per_s == pytest.approx((cell.clients + 1) / SHORT.fault.interval_s, rel=0.1)
    assert trial.fault_at_s is not None
    assert trial.fault_at_s >= SHORT.fault.after_s


def test_transfers_are_whole_whatever_their_callers_know(cell: Cell, breakable: Environment) -> None:
    trial = broken(cell, breakable)
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.violations is None, asdict(trial)
    assert (trial.torn, trial.duplicated, trial.acknowledged_lost, trial.conserved) == (0, 0, 0, True)
    assert trial.verdict == "as_claimed"
    assert trial.acknowledged


def test_every_fault_can_be_applied() -> None:
    assert {faults.load(fault).fault for fault in Fault} == set(Fault)


def test_every_fault_reaches_somebody() -> None:
    struck = {
        fault
        for fault in Fault
        for name, variant in ROWS
        for caller in load(name).claims(variant).callers
        if not faults.load(fault).out_of_reach(load(name).claims(variant), caller)
    }
    assert struck == set(Fault)


def test_a_loss_that_was_claimed_away_is_found(breakable: Environment) -> None:
    """State in an actor that nobody recovers, claimed to survive its worker: that one worker dies and is replaced."""
    before = breakable.worker_pids()
    trial = broken(fault_cell("ClaimsTooMuch", Fault.WORKER_KILL, variant="proxied"), breakable)
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.acknowledged_lost
    assert trial.verdict == "worse_than_claimed"
    after = breakable.worker_pids()
    assert len(after) == len(before)
    assert len(set(before.values()) - set(after.values())) == 1


def test_a_strategy_that_claims_too_little_is_found(breakable: Environment) -> None:
    trial = broken(fault_cell("ClaimsTooLittle", Fault.WORKER_KILL), breakable)
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.acknowledged_lost == 0
    assert trial.verdict == "better_than_claimed"
