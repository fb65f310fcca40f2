"""Which cells there are, and which of them can be run: claims decide, names never do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from benchmarks.harness import faults, workloads
from benchmarks.harness.environment import Environment
from benchmarks.harness.generator import Retry
from benchmarks.harness.load import Arrivals
from benchmarks.harness.workloads import UNIT_DEPOSITS, Workload
from strategies.interface import Accounts, Batched, Caller, Capabilities, Fault, Pipelined, Transfers, load


class Status(StrEnum):
    """What became of a cell's trial. Four different things, in every table and plot."""

    OK = "ok"
    NOT_APPLICABLE = "not_applicable"
    RESOURCE_MISSING = "resource_missing"
    FAILED = "failed"


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    strategy: str
    """A name that `strategies.interface.load` understands."""
    variant: str
    workload: str
    caller: Caller
    clients: int
    """Concurrent callers, over all processes."""
    fault: Fault | None = None
    retry: Retry = Retry.NONE
    """What callers do whose operation did not, or may not, have happened; with a fault only."""
    drivers: int = 1
    """Driver processes that call; several have copies of the handle, as tasks do."""
    arrivals: Arrivals = Arrivals.CLOSED
    rate_per_s: float | None = None
    """Operations due each second, all callers together; with an open loop only."""
    batch: int | None = None
    """Operations in each call of `apply`; None for calls of their own."""
    window: int | None = None
    """Operations that each caller has in flight by `submit`; None for one call at a time."""
    shards: int | None = None
    """Owners of the accounts; None for the strategy's own number."""

    @property
    def accounts(self) -> type[Accounts]:
        """The strategy's class."""
        return load(self.strategy)

    @property
    def claims(self) -> Capabilities:
        """What is claimed for this variant."""
        return self.accounts.claims(self.variant)

    @property
    def mix(self) -> Workload:
        """What its callers do."""
        return workloads.load(self.workload)

    @property
    def name(self) -> str:
        """The strategy's name in records; with the class's, where it is in a file: that may hold several."""
        path, _, class_name = self.strategy.rpartition(":")
        return f"{self.accounts.name}.{class_name}" if path.endswith(".py") else self.accounts.name

    @property
    def row(self) -> str:
        """The strategy's name and variant, as tables show it."""
        return f"{self.name}:{self.variant}"


@dataclass(frozen=True)
class Decision:
    """Whether a cell can be measured here; if not, why not, or what is missing."""

    status: Status
    """`OK` to run it, else `NOT_APPLICABLE` or `RESOURCE_MISSING`."""
    reason: str | None = None


def decide(cell: Cell, environment: Environment) -> Decision:
    """From the claims and the environment alone."""
    claims = cell.claims
    if cell.caller not in claims.callers:
        return Decision(Status.NOT_APPLICABLE, f"{cell.row} claims no calls from a {cell.caller}")
    if cell.fault is not None:
        out_of_reach = faults.load(cell.fault).out_of_reach(claims, cell.caller)
        if out_of_reach:
            return Decision(Status.NOT_APPLICABLE, out_of_reach)
    unclaimed = _unclaimed(cell, claims)
    if unclaimed:
        return Decision(Status.NOT_APPLICABLE, f"{cell.row} claims no {unclaimed}")
    missing = environment.missing(claims)
    if missing is None and cell.fault is not None:
        missing = faults.load(cell.fault).missing(environment, claims)
        if missing is None and cell.caller is Caller.TASK and not environment.owns_cluster:
            missing = "calling tasks must write their journals on this machine; leave --scheduler out"
    if missing:
        return Decision(Status.RESOURCE_MISSING, missing)
    return Decision(Status.OK)


def _unclaimed(cell: Cell, claims: Capabilities) -> str | None:
    """What the cell takes and the strategy does not claim; None if it claims all of it."""
    transfers = cell.mix.transfers
    if transfers is not Transfers.NONE and claims.transfers is not transfers:
        narrower = "" if claims.transfers is Transfers.NONE else f", only {claims.transfers.replace('_', ' ')}"
        return f"transfers between any two accounts{narrower}"
    if cell.drivers > 1 and Caller.TASK not in claims.callers:
        return "handles that other processes can use"
    if cell.shards is not None and not claims.sharded:
        return "shards"
    if cell.batch is not None and not issubclass(cell.accounts, Batched):
        return "batched calls"
    if cell.window is not None and not issubclass(cell.accounts, Pipelined):
        return "pipelined calls"
    if transfers is not Transfers.NONE and (cell.batch is not None or cell.window is not None):
        return "transfers as operations by value: these have one receipt each"
    return None


def speed_cells(
    rows: Iterable[tuple[str, str]], mixes: Sequence[str], callers: Sequence[Caller], clients: int, **form: Any
) -> list[Cell]:
    """Every strategy's variant × workload × caller, in one form: the other fields of `Cell`."""
    return [
        Cell(strategy, variant, workload, caller, clients, **form)
        for strategy, variant in rows
        for workload in mixes
        for caller in callers
    ]


def fault_cells(
    rows: Iterable[tuple[str, str]],
    wanted: Sequence[Fault],
    callers: Sequence[Caller] = (),
    retries: Sequence[Retry] = (Retry.NONE,),
) -> list[Cell]:
    """Every strategy's variant × fault × caller × what callers do about it.

    Claims are what to expect, not what to select by. Without `callers`, each fault is met from the first place from
    which it reaches the strategy. Where it reaches it from nowhere, one cell is there to say so.
    """
    found = []
    for strategy, variant in rows:
        for fault in wanted:
            reached = [each for each in callers or Caller if not _out_of_reach(strategy, variant, fault, each)]
            chosen = reached if callers else reached[:1]
            found += [_fault_cell(strategy, variant, fault, caller, retry) for caller in chosen for retry in retries]
            if not chosen:
                found.append(_fault_cell(strategy, variant, fault, next(iter(callers or Caller)), retries[0]))
    return found


def _fault_cell(strategy: str, variant: str, fault: Fault, caller: Caller, retry: Retry) -> Cell:
    return Cell(strategy, variant, UNIT_DEPOSITS.name, caller, UNIT_DEPOSITS.accounts, fault, retry)


def _out_of_reach(strategy: str, variant: str, fault: Fault, caller: Caller) -> str | None:
    claims = load(strategy).claims(variant)
    if caller not in claims.callers:
        return f"{strategy} claims no calls from a {caller}"
    return faults.load(fault).out_of_reach(claims, caller)
