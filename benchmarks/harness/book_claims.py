"""What *Scaling Python with Dask* says of failures, beside what the published table measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.harness.book_columns import Column, column_of
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.failure_outcomes import outcome_of, share
from benchmarks.harness.failure_tables import FailureTable
from benchmarks.harness.generator import Retry
from benchmarks.harness.table_text import NO_FIGURE, by_durability
from strategies.interface import Caller, Fault

SOURCE = (
    "[chapter 7](https://github.com/scalingpythonml/scaling-python-with-dask/blob/main/ch07.asciidoc) of *Scaling "
    "Python with Dask* (Holden Karau and Mika Kimmins, O'Reilly 2023)"
)

_UNUSUAL = {Caller.TASK: "from a task", Retry.NAIVE: "without op ids"}
"""What the digest's header says; what it does not say is a driver that calls, and with op ids."""

_CONFIRMED, _REFUTED = 0.95, 0.05
"""Shares of trials from and up to which a claim is called the one or the other."""

DIGEST: tuple[tuple[Fault, Caller, Retry], ...] = (
    (Fault.WORKER_KILL, Caller.DRIVER, Retry.OP_ID),
    (Fault.WORKER_PAUSE, Caller.DRIVER, Retry.OP_ID),
    (Fault.TASK_RETRY, Caller.TASK, Retry.NAIVE),
    (Fault.TASK_RETRY, Caller.TASK, Retry.OP_ID),
    (Fault.DROP_REPLY, Caller.DRIVER, Retry.NAIVE),
    (Fault.DRIVER_KILL, Caller.DRIVER, Retry.OP_ID),
    (Fault.SERVER_KILL, Caller.DRIVER, Retry.OP_ID),
    (Fault.POWER_LOSS, Caller.DRIVER, Retry.OP_ID),
)
"""What the README shows of the table: each fault in the way of calling in which it tells most. With op ids, what is
left is the store's doing; without, it is also the caller's, which is the point where a task or a call is repeated."""


@dataclass(frozen=True)
class _Claim:
    """One of the book's, and the cells that can tell."""

    says: str
    column: Column
    """Of the strategies that it is about."""
    faults: tuple[Fault, ...]
    caller: Caller | None
    retry: Retry
    fits: Callable[[FaultFigures], int]
    """Trials of a cell that are as it says."""
    words: str
    """What happened in these trials."""
    amount: Callable[[Sequence[FaultFigures]], str]
    """How much of it, over all cells."""
    with_op_ids: bool = False
    """Whether to say what became of it with op ids."""


def _lost(cells: Sequence[FaultFigures]) -> str:
    shares = sorted(cell.acknowledged_lost_total / cell.acknowledged_total for cell in cells if cell.acknowledged_total)
    ends = [share(round(1e6 * each), 10**6) for each in shares[:: max(1, len(shares) - 1)]]
    return f"; {' to '.join(dict.fromkeys(ends))} of them, by strategy" if ends else ""


def _doubled(cells: Sequence[FaultFigures]) -> str:
    return f"; at most {max((cell.duplicated_max for cell in cells), default=0):,} in a trial"


def _nothing(cells: Sequence[FaultFigures]) -> str:
    return ""


_AGAIN = (Fault.TASK_RETRY, Fault.CALLING_TASK_KILL)

_CLAIMS = (
    _Claim(
        says="Dask actors are “not resilient”: what was in one is lost with its process",
        column=Column.ACTORS,
        faults=(Fault.WORKER_KILL,),
        caller=None,
        retry=Retry.OP_ID,
        fits=lambda cell: cell.trials_lost,
        words="acknowledged deposits were lost",
        amount=_lost,
    ),
    _Claim(
        says="The loss of any worker with an actor is “catastrophic”; there is no recovery",
        column=Column.ACTORS,
        faults=(Fault.WORKER_KILL,),
        caller=None,
        retry=Retry.OP_ID,
        fits=lambda cell: cell.trials_never_recovered,
        words="some account was never served again",
        amount=_nothing,
    ),
    _Claim(
        says="Dask may run a task again that failed; its calls on actors are then “duplicated”",
        column=Column.ACTORS,
        faults=_AGAIN,
        caller=Caller.TASK,
        retry=Retry.NAIVE,
        fits=lambda cell: cell.trials_doubled,
        words="deposits were doubled",
        amount=_doubled,
        with_op_ids=True,
    ),
    _Claim(
        says="State in the driver: its loss is “already catastrophic”",
        column=Column.LOCAL,
        faults=(Fault.DRIVER_KILL,),
        caller=Caller.DRIVER,
        retry=Retry.OP_ID,
        fits=lambda cell: cell.trials_lost,
        words="acknowledged deposits were lost",
        amount=_lost,
    ),
    _Claim(
        says="State outside: the loss of the whole cluster “can be recovered from”",
        column=Column.EXTERNAL,
        faults=(Fault.WORKER_KILL, Fault.SCHEDULER_KILL, Fault.CLIENT_RESTART),
        caller=None,
        retry=Retry.OP_ID,
        fits=lambda cell: cell.trials_survived,
        words="nothing was lost or doubled, and all accounts were served again",
        amount=_nothing,
    ),
    _Claim(
        says="State outside: “extra logic” is needed against duplicate execution",
        column=Column.EXTERNAL,
        faults=_AGAIN,
        caller=Caller.TASK,
        retry=Retry.NAIVE,
        fits=lambda cell: cell.trials_doubled,
        words="deposits were doubled",
        amount=_doubled,
        with_op_ids=True,
    ),
)


def claims(table: FailureTable) -> list[list[str]]:
    """The book says, we measured, verdict."""
    lines = [["the book says", "faults", "we measured", "verdict"]]
    for claim in _CLAIMS:
        cells = _cells(table, claim, claim.retry)
        judged, fit = sum(cell.trials_judged for cell in cells), sum(map(claim.fits, cells))
        if judged:
            measured = f"{claim.words} in {fit:,} of {judged:,} trials{claim.amount(cells)}"
            with_op_ids = _cells(table, claim, Retry.OP_ID) if claim.with_op_ids else []
            if again := sum(cell.trials_judged for cell in with_op_ids):
                measured += f". With op ids: in {sum(map(claim.fits, with_op_ids)):,} of {again:,}"
        else:
            measured = NO_FIGURE
        faults = ", ".join(f"`{fault}`" for fault in claim.faults)
        lines.append([claim.says, faults, measured, _verdict(fit, judged)])
    return lines


def digest(table: FailureTable) -> list[list[str]]:
    """A row for each strategy and variant, a column for each of `DIGEST`."""
    rows = sorted({(cell.strategy, cell.variant, cell.durability) for cell in table.cells}, key=by_durability)
    header = ["strategy", "durability"]
    header += [
        ", ".join(filter(None, (f"`{fault}`", _UNUSUAL.get(caller), _UNUSUAL.get(retry))))
        for fault, caller, retry in DIGEST
    ]
    lines = [header]
    for strategy, variant, durability in rows:
        row = f"{strategy}:{variant}"
        entries = [outcome_of(table.cells, row, fault, (caller, retry)) for fault, caller, retry in DIGEST]
        lines.append([row, durability, *entries])
    return lines


def _cells(table: FailureTable, claim: _Claim, retry: Retry) -> list[FaultFigures]:
    return [
        cell
        for cell in table.cells
        if cell.fault in claim.faults
        and cell.retry == retry
        and cell.caller == (claim.caller or cell.caller)
        and cell.row in table.claims
        and column_of(table.claims[cell.row]["needs"]) is claim.column
    ]


def _verdict(fit: int, judged: int) -> str:
    if not judged:
        return "not measured"
    part = fit / judged
    return "confirmed" if part >= _CONFIRMED else "not confirmed" if part <= _REFUTED else "in part"
