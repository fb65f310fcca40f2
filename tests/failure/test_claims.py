"""Every strategy keeps exactly the promises it makes, for every fault that can reach it.

One that loses what it claims to keep breaks the build; so does one that survives what it does not claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest

from benchmarks.harness import faults
from benchmarks.harness.cells import Cell, Status, decide, fault_cells
from benchmarks.harness.environment import Environment
from benchmarks.harness.measure import Settings, measure
from benchmarks.harness.records import Trial
from strategies.interface import Fault, load, names
from tests.harness.own import fault_cell

SHORT = Settings(fault_after_s=0.25, fault_load_s=1.1, fault_timeout_s=0.5, fault_interval_s=0.05)

CELLS = fault_cells([(name, variant) for name in names() for variant in load(name).capabilities.variants], list(Fault))
REACHED = [cell for cell in CELLS if cell.fault is not None and not faults.load(cell.fault).out_of_reach(cell.claims)]


@pytest.fixture(scope="module")
def breakable() -> Iterator[Environment]:
    """A cluster and servers of these tests' own: their workers die."""
    with Environment(workers=2) as raised:
        yield raised


def broken(cell: Cell, environment: Environment) -> Trial:
    decision = decide(cell, environment)
    if decision.status is Status.RESOURCE_MISSING:
        pytest.skip(decision.reason or "")
    return measure(cell, environment, SHORT, repeat=0, seed=11)


@pytest.mark.parametrize("cell", REACHED, ids=lambda cell: f"{cell.row}-{cell.fault}")
def test_claims_are_kept(cell: Cell, breakable: Environment) -> None:
    trial = broken(cell, breakable)
    assert (trial.status, trial.reason) == (Status.OK, None)
    assert trial.trusted, trial.distrust
    assert trial.verdict == "as_claimed", asdict(trial)
    assert trial.acknowledged
    assert trial.acknowledged_lost is not None
    assert cell.fault is not None
    if cell.fault in cell.claims.survives:
        assert (trial.acknowledged_lost, trial.duplicated, trial.conserved) == (0, 0, True)
        assert trial.recovery_s is not None
    else:
        # A fault that takes nothing along shows that it was not injected, or that more could be claimed.
        assert trial.acknowledged_lost > 0
        assert trial.conserved is False
    assert trial.duplicated == 0
    assert (trial.fault, trial.latency_kind) == (cell.fault, "response")
    assert trial.offered_per_s == pytest.approx(cell.clients / SHORT.fault_interval_s)
    assert trial.unavailable_s is not None
    assert 0 < trial.unavailable_s <= SHORT.fault_load_s + SHORT.fault_timeout_s


def test_every_fault_reaches_somebody() -> None:
    assert {cell.fault for cell in REACHED} == set(Fault)


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
