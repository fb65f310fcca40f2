"""A run's tables: what its trials come to, as sections, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import failure_outcomes
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.plan import QUICK_FAULTS
from benchmarks.harness.records import Trial
from benchmarks.harness.table_text import (
    MARKS,
    NO_FIGURE,
    Metric,
    Section,
    by_durability,
    count,
    estimate,
    markdown,
    microseconds,
    present,
)

SUMMARY_WORKLOAD = "ycsb_a"
"""What one table shows where there is room for one workload."""
_FAULTS_SUMMED_UP = 4
"""With more of them, a table has no room for all."""


def summary_table(trials: Sequence[Trial], workload: str) -> str:
    """One row per strategy and variant: its speed on one workload, and what faults left of the money."""
    return "\n".join(markdown(_summary(trials, workload)))


def _summary(trials: Sequence[Trial], workload: str | None) -> list[list[str]]:
    by_cell = speed_cells(trials)
    callers = present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload)
    faults = _summed_up(trials)
    header = ["strategy", "durability"]
    header += [f"{metric.title}, {caller}" for caller in callers for metric in SPEED]
    header += [f"deposits lost by {fault}" for fault in faults]
    rows = []
    for strategy, variant, durability in rows_of(trials):
        speeds = [
            entry(by_cell.get((strategy, variant, workload or "", caller), ()), metric)
            for caller in callers
            for metric in SPEED
        ]
        lost = [
            _lost([each for each in trials if (each.strategy, each.variant, each.fault) == (strategy, variant, fault)])
            for fault in faults
        ]
        rows.append([f"{strategy}:{variant}", durability, *speeds, *lost])
    return [header, *rows]


def _summed_up(trials: Sequence[Trial]) -> list[str]:
    """Faults that each row met in one way: what was lost in several ways of calling is not one figure.

    Of many faults those that a quick run has: all of them have a table of their own.
    """
    ways: dict[tuple[str, str], set[tuple[str, str | None]]] = {}
    for trial in trials:
        if trial.fault is not None:
            ways.setdefault((trial.fault, trial.row), set()).add((trial.caller, trial.retry))
    several = {fault for (fault, _), found in ways.items() if len(found) > 1}
    found = present(fault for fault, _ in ways if fault not in several)
    return found if len(found) <= _FAULTS_SUMMED_UP else [fault for fault in found if fault in QUICK_FAULTS]


def provenance(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[str]:
    """Where numbers come from: machine, versions, seed, command."""
    machine = about["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    speed = [trial for trial in trials if trial.fault is None]
    repeats = max((trial.repeat for trial in speed or trials), default=0) + 1
    clients = ", ".join(str(clients) for clients in sorted({trial.clients for trial in speed}))
    kinds = " and ".join(
        words
        for kind, words in (
            ("service", "service time, from the call to its answer"),
            ("response", "response time, from when it was due"),
        )
        if any(trial.latency_kind == kind for trial in speed)
    )
    form = f" with {clients} callers; latency is {kinds or 'not measured'}" if speed or not trials else " of each cell"
    return [
        f"Median (95 % bootstrap interval) of {repeats} trials{form}. "
        f"Measured on {machine['cores_usable']} cores of {machine['cpu']}, "
        f"{machine['system']}; {versions}; commit {about['commit'][:10]}; seed {about['plan']['seed']}; command: "
        f"`{about['command']}`.",
    ]


def claims_table(found: Iterable[Mapping[str, Any]]) -> str:
    """What `list` shows."""
    header = ["strategy", "durability", "consistency", "transfers", "retries", "callers", "survives", "needs", "here"]
    rows = [
        [
            f"{claim['strategy']}:{claim['variant']}",
            *(claim[name] for name in header[1:5]),
            *(", ".join(claim[name]) or "-" for name in header[5:8]),
            f"missing: {claim['missing']}" if claim["missing"] else "ready",
        ]
        for claim in found
    ]
    return "\n".join(markdown([header, *rows]))


_OFFERED = Metric("offered/s", lambda trial: trial.offered_per_s, count, spread=False)
OPS = Metric("calls/s", lambda trial: trial.ops_per_s, count)
P50 = Metric("p50 µs", lambda trial: trial.latency_us_p50, microseconds, spread=False)
P99 = Metric("p99 µs", lambda trial: trial.latency_us_p99, microseconds, spread=False)
SPEED = (OPS, P50, P99)
_LOST = Metric("lost", lambda trial: trial.acknowledged_lost, count)


def all_sections(about: Mapping[str, Any], trials: Sequence[Trial], cells: Sequence[FaultFigures]) -> list[Section]:
    """Of speed, then of faults; of a search or a sweep what it found, and a line for each form."""
    if len(forms(trials)) > 1:
        return [*findings(about), *_series(trials), *failure_outcomes.sections(cells)]
    speed = [_first_section(trials), *_sections(trials)] if len(forms(trials)) or not cells else []
    return [*speed, *failure_outcomes.sections(cells)]


def _first_section(trials: Sequence[Trial]) -> Section:
    workloads = present(trial.workload for trial in trials if trial.fault is None)
    workload = SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in workloads else next(iter(workloads), None)
    return Section(f"Summary, {workload}" if workload else "Summary", _summary(trials, workload))


def _sections(trials: Sequence[Trial]) -> list[Section]:
    by_cell = speed_cells(trials)
    sections = []
    for workload in present(trial.workload for trial in trials if trial.fault is None):
        for caller in present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload):
            rows = [
                [
                    f"{strategy}:{variant}",
                    durability,
                    *(entry(by_cell.get((strategy, variant, workload, caller), ()), metric) for metric in SPEED),
                ]
                for strategy, variant, durability in rows_of(trials)
            ]
            header = ["strategy", "durability", *(metric.title for metric in SPEED)]
            sections.append(Section(f"{workload}, called from a {caller}", [header, *rows]))
    return sections


def broken_claims(cells: Sequence[FaultFigures]) -> list[str]:
    """What breaks a build; nothing where no cell was measured."""
    if not any(cell.verdicts for cell in cells):
        return []
    return failure_outcomes.mismatches(cells) or ["Every cell with a verdict is as its strategy claims."]


def notes_of(trials: Sequence[Trial]) -> list[str]:
    """Why something was not measured, or is not to be trusted; a line each."""
    notes = []
    several = len(forms(trials)) > 1
    for trial in trials:
        what = ", ".join(filter(None, (trial.row, trial.fault or trial.workload, trial.caller, trial.retry)))
        what += f", {form(trial)}" if several and trial.fault is None else ""
        if trial.status != Status.OK and (trial.repeat == 0 or trial.status == Status.FAILED):
            notes.append(f"- {MARKS[Status(trial.status)]}: {what}: {trial.reason}")
        elif trial.trusted is False:
            notes.append(f"- not trusted: {what}, repeat {trial.repeat}: {trial.distrust}")
    return [*sorted(notes), ""] if notes else []


def form(trial: Trial) -> str:
    """How a speed trial was called, in words."""
    words = [f"{trial.clients} callers"]
    words += [f"in {trial.drivers} driver processes"] if (trial.drivers or 1) > 1 else []
    words += [f"{trial.shards} shards"] if trial.shards is not None else []
    words += [f"batches of {trial.batch}"] if trial.batch is not None else []
    words += [f"{trial.window} in flight each"] if trial.window is not None else []
    if trial.offered_per_s is not None:
        words.append(f"{trial.arrivals} arrivals, {trial.offered_per_s:,.10g}/s")
    return ", ".join(words)


def forms(trials: Sequence[Trial]) -> list[str]:
    """Every form that speed was measured in, from the least offered to the most."""
    found = {form(trial): (trial.offered_per_s or 0.0, trial.clients) for trial in trials if trial.fault is None}
    return sorted(found, key=lambda name: found[name])


def _series(trials: Sequence[Trial]) -> list[Section]:
    """Where cells were measured in several forms: a table for each workload and caller, with a line for each form."""
    metrics = (_OFFERED, *SPEED) if any(trial.offered_per_s for trial in trials) else SPEED
    sections = []
    for workload in present(trial.workload for trial in trials):
        for caller in present(trial.caller for trial in trials if trial.workload == workload):
            lines = []
            for strategy, variant, durability in rows_of(trials):
                cell = [
                    t for t in trials if (t.row, t.workload, t.caller) == (f"{strategy}:{variant}", workload, caller)
                ]
                for name in forms(cell):
                    of_form = [trial for trial in cell if form(trial) == name]
                    figures = [entry(of_form, metric) for metric in metrics]
                    lines.append([f"{strategy}:{variant}", durability, name, *figures])
            header = ["strategy", "durability", "form", *(metric.title for metric in metrics)]
            sections.append(Section(f"{workload}, called from a {caller}", [header, *lines], 3))
    return sections


def findings(about: Mapping[str, Any]) -> list[Section]:
    """What a search or a sweep worked out from its trials."""
    sections = []
    if about.get("search"):
        header = ["strategy", "workload", "caller", "p99 target ms", "highest rate, calls/s", "not kept at", "p99 µs"]
        lines = [
            [
                f"{found['strategy']}:{found['variant']}",
                found["workload"],
                found["caller"],
                f"{found['target_p99_ms']:g}",
                found["reason"] if found["rate_per_s"] is None else count(found["rate_per_s"]),
                "-" if found["above_per_s"] is None else count(found["above_per_s"]),
                "-" if found["latency_us_p99"] is None else microseconds(found["latency_us_p99"]),
            ]
            for found in about["search"]
        ]
        sections.append(Section("Highest rate that keeps the target", [header, *lines]))
    if about.get("sweep"):
        header = ["strategy", "workload", "caller", "over", "contention", "coherency", "peak at", "calls/s of one"]
        lines = [
            [
                f"{found['strategy']}:{found['variant']}",
                found["workload"],
                found["caller"],
                found["over"],
                *(
                    [found["reason"], "-", "-", "-"]
                    if found["reason"]
                    else [_interval(found[name]) for name in ("contention", "coherency", "peak", "ops_per_s_of_one")]
                ),
            ]
            for found in about["sweep"]
        ]
        sections.append(Section("Universal Scalability Law, with 95 % intervals", [header, *lines]))
    return sections


def _interval(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "none in sight"
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return _digits(value) if low is None or high is None else f"{_digits(value)} ({_digits(low)}–{_digits(high)})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def speed_cells(trials: Sequence[Trial]) -> dict[tuple[str, str, str, str], list[Trial]]:
    """Of speed, in one form."""
    cells: dict[tuple[str, str, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.fault is None:
            cells.setdefault((trial.strategy, trial.variant, trial.workload, trial.caller), []).append(trial)
    return cells


def rows_of(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Strategies and variants by durability class: results are compared within one."""
    return sorted({(trial.strategy, trial.variant, trial.durability or "") for trial in trials}, key=by_durability)


def spread(trials: Sequence[Trial], metric: Metric) -> Estimate | None:
    """None unless every trial has the figure: those with a p99 are the fast ones, those that recovered the lucky."""
    values = [metric.value(trial) for trial in trials if trial.status == Status.OK]
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def entry(trials: Sequence[Trial], metric: Metric) -> str:
    """A figure, or the mark of why there is none. Distrusted figures are marked with an asterisk."""
    if not trials:
        return "not run"
    if any(trial.status == Status.FAILED for trial in trials):
        return MARKS[Status.FAILED]
    if trials[0].status != Status.OK:
        return MARKS[Status(trials[0].status)]
    found = spread(trials, metric)
    if found is None:
        return NO_FIGURE
    text = estimate(found, metric.write, spread=metric.spread)
    return text if all(trial.trusted for trial in trials) else f"{text}*"


def _lost(trials: Sequence[Trial]) -> str:
    mark = entry(trials, _LOST)
    acknowledged = sum(trial.acknowledged or 0 for trial in trials)
    if not acknowledged:
        return mark
    lost = sum(trial.acknowledged_lost or 0 for trial in trials)
    return f"{lost:,} of {acknowledged:,}"
