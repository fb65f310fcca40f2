"""What advice rests on: the trials of a run, the published failure table, and the claims in the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import failure_tables, faults, workloads
from benchmarks.harness.advice import Candidate, Point, Setting
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures, aggregate
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial, read_all
from benchmarks.harness.report import SUMMARY_WORKLOAD
from benchmarks.harness.sweeps import ACHIEVED
from benchmarks.harness.table_text import MARKS, present
from benchmarks.harness.workloads import UnknownWorkload
from strategies.interface import Caller, Capabilities, Fault, Transfers, load, names


@dataclass(frozen=True)
class Evidence:
    """What was found, and where."""

    run: str
    about: Mapping[str, Any]
    """The run's."""
    workload: str
    """That speed is of."""
    candidates: Sequence[Candidate]
    damage: Sequence[str]
    """A sentence for each thing that was left out of the run."""

    @property
    def sources(self) -> str:
        """Where figures are from, in words."""
        machine = self.about.get("machine") or {}
        where = f" on {machine.get('cores_usable')} cores of {machine.get('cpu')}" if machine else ""
        return (
            f"Speed: {self.workload}, run {self.run}{where}. Faults: results/failures*.json and this run. "
            "Claims: the strategies' code."
        )


def gather(folder: Path, workload: str | None = None) -> Evidence:
    """All that is known from this run, the published failure tables and the code.

    Raises:
        RunError: the run or a table cannot be read.
        UnknownWorkload: the run has no such workload; it says which there are.
    """
    contents = read_all(folder)
    measured = workloads_of(contents.trials)
    if workload is None:
        workload = SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in measured or not measured else measured[0]
    elif workload not in measured:
        raise UnknownWorkload(
            f"{folder} has no speed of the workload {workload!r}; it has {', '.join(measured) or 'none'}"
        )
    tables = failure_tables.published()
    run = folder.resolve().name
    trials = contents.trials
    if any(each["run"] == run for table in tables for each in table.about["runs"]):
        trials = [trial for trial in trials if trial.fault is None]  # else they would count twice
    found = candidates(trials, [cell for table in tables for cell in table.cells], workload)
    return Evidence(run, contents.about, workload, found, contents.damage)


def workloads_of(trials: Iterable[Trial]) -> list[str]:
    """Workloads whose speed was measured, without their sizes and skews."""
    return present(_base(trial.workload) for trial in trials if trial.fault is None)


def candidates(trials: Sequence[Trial], cells: Sequence[FaultFigures], workload: str) -> list[Candidate]:
    """Every strategy and variant of the code, of these trials and of these cells around faults.

    Speed is of `workload` in whatever size it was measured, and of trials that trust themselves. That a rate was not
    sustained is believed of the others too: what is offered beyond what is served is the reason for much distrust.
    """
    of_run: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        of_run.setdefault((trial.strategy, trial.variant), []).append(trial)
    of_faults: dict[tuple[str, str], list[FaultFigures]] = {}
    # Counts decide; each median would cost a bootstrap.
    for cell in (*aggregate(trials, figures=()), *cells):
        of_faults.setdefault((cell.strategy, cell.variant), []).append(cell)
    claimed = {(name, variant): load(name).claims(variant) for name in names() for variant in _variants(name)}
    rows = sorted({*claimed, *of_run, *of_faults})
    return [_candidate(row, claimed.get(row), of_run.get(row, []), of_faults.get(row, []), workload) for row in rows]


def _variants(name: str) -> tuple[str, ...]:
    return load(name).capabilities.variants


def _candidate(
    row: tuple[str, str],
    claims: Capabilities | None,
    trials: Sequence[Trial],
    cells: Sequence[FaultFigures],
    workload: str,
) -> Candidate:
    speed = [trial for trial in trials if trial.fault is None]
    settings, reasons = _settings([trial for trial in speed if _base(trial.workload) == workload])
    recorded = present([*(trial.durability for trial in trials), *(cell.durability for cell in cells)])
    return Candidate(
        strategy=row[0],
        variant=row[1],
        durability=str(claims.durability) if claims else recorded[0] if recorded else "",
        claims=claims,
        settings=tuple(settings),
        cells=tuple(cells),
        out_of_reach=_out_of_reach(claims, cells),
        transfers_kept=sum(_kept_transfers(trial) for trial in speed),
        unsound=sum(_unsound(trial) for trial in speed),
        unmeasured="; ".join(reasons),
    )


def _out_of_reach(claims: Capabilities | None, cells: Sequence[FaultFigures]) -> dict[Fault, str]:
    """By the code, where that is here, else by the records."""
    found: dict[Fault, str] = {}
    for fault in Fault:
        if claims is None:
            here = [cell for cell in cells if cell.fault == fault]
            reasons = [cell.reason if cell.status == Status.NOT_APPLICABLE else None for cell in here]
        else:
            reasons = [faults.load(fault).out_of_reach(claims, caller) for caller in sorted(claims.callers)]
        if reasons and None not in reasons:
            found[fault] = str(reasons[0])
    return found


def _settings(trials: Sequence[Trial]) -> tuple[list[Setting], list[str]]:
    """Those that were measured, and why others were not."""
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        form = (trial.workload, trial.caller, trial.clients, trial.drivers, trial.shards, trial.batch, trial.window)
        groups.setdefault(form, []).append(trial)
    settings, reasons = [], []
    for group in groups.values():
        closed = [trial for trial in group if trial.arrivals in (None, Arrivals.CLOSED)]
        amiss = [trial for trial in closed if trial.status != Status.OK]
        reasons += [f"{MARKS[Status(trial.status)]}: {' '.join(str(trial.reason).split())}" for trial in amiss]
        ran = [] if amiss else closed
        points = _points([trial for trial in group if trial not in closed and trial.status == Status.OK])
        if not ran and not points:
            continue
        trusted = [trial for trial in ran if trial.trusted]
        first = group[0]
        settings.append(
            Setting(
                caller=Caller(first.caller),
                form=_form(first),
                plain=(first.drivers or 1) == 1 and first.shards is first.batch is first.window is None,
                accounts=first.accounts or 0,
                ops_per_s=_of_all([trial.ops_per_s for trial in trusted]),
                p99_us=_of_all([trial.latency_us_p99 for trial in trusted]),
                points=points,
            )
        )
    return settings, sorted(set(reasons))


def _points(trials: Sequence[Trial]) -> tuple[Point, ...]:
    points = []
    for rate in sorted({trial.offered_per_s for trial in trials if trial.offered_per_s}):
        at_rate = [trial for trial in trials if trial.offered_per_s == rate]
        trusted = [trial for trial in at_rate if trial.trusted]
        sustained = median(trial.achieved_ratio or 0.0 for trial in at_rate) >= ACHIEVED
        if trusted or not sustained:
            points.append(Point(rate, sustained, _of_all([trial.latency_us_p99 for trial in trusted])))
    return tuple(points)


def _of_all(values: Sequence[float | None]) -> tuple[float, ...]:
    """None of them unless every trial has it: those without a p99 are the slow ones."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else ()


def _form(trial: Trial) -> str:
    """How its callers called, in words."""
    words = [f"{trial.clients} callers"]
    words += [f"{trial.drivers} driver processes"] if (trial.drivers or 1) > 1 else []
    words += [f"{trial.shards} shards"] if trial.shards is not None else []
    words += [f"batches of {trial.batch}"] if trial.batch is not None else []
    words += [f"{trial.window} in flight each"] if trial.window is not None else []
    words += [trial.workload] if ":" in trial.workload else []
    return ", ".join(words)


def _base(workload: str) -> str:
    return workload.partition(":")[0]


def _unsound(trial: Trial) -> bool:
    return bool(
        trial.acknowledged_lost
        or trial.duplicated
        or trial.torn
        or trial.conserved is False
        or trial.linearizable == "no"
    )


def _kept_transfers(trial: Trial) -> bool:
    try:
        transfers = workloads.load(trial.workload).transfers is Transfers.ANY
    except UnknownWorkload:
        return False  # a later program's
    return transfers and trial.status == Status.OK and bool(trial.conserved) and not _unsound(trial)
