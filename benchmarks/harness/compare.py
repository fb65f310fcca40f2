"""Two runs side by side: per cell and figure the ratio B ÷ A, its interval, and what may be said of it.

Ratios are unpaired: the runs were not interleaved in time, so that a repeat of one has no twin in the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.cells import Status
from benchmarks.harness.intervals import CALLED_CONFIDENCE, Difference, Estimate, difference, ratio_unpaired
from benchmarks.harness.records import Trial, read
from benchmarks.harness.table_text import markdown


class Verdict(StrEnum):
    """What may be said of B beside A."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference seen"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Figure:
    """What is compared, and in which direction it is better."""

    name: str
    """A key of trial lines."""
    higher_is_better: bool = False


_SPEED = (Figure("ops_per_s", higher_is_better=True), Figure("latency_us_p50"), Figure("latency_us_p99"))
_FAULT = (Figure("unavailable_s"), Figure("recovery_s"))

_NAMED = ("strategy", "variant", "fault", "workload", "caller", "clients")
_FORM = ("batch", "window", "accounts", "zipf_theta", "drivers", "shards", "arrivals", "offered_per_s")
_CELL = (*_NAMED, *_FORM)
"""Keys of trial lines that together make a cell this one."""

_SELECTS = {"strategies", "workloads", "callers", "faults", "repeats", "seed", "rate_per_s", *_CELL}
"""Of a plan, what decides which trials there are, and how many, or is in the cell. Anything else changes what a trial
is, keys that are not known here too."""

LEAST_TRIALS = 3
"""On each side. With two, Student's t has one degree of freedom and calls nothing."""

_MEMORY_SLACK = 0.01
"""Kernels of one machine reserve a little more or less of its memory."""


@dataclass(frozen=True)
class Side:
    """One run's trials of a cell."""

    median: float | None
    """Of trusted trials."""
    trials: int
    """Trusted, with this figure."""
    untrusted: int
    """Left out."""


@dataclass(frozen=True)
class Row:
    """One figure of one cell."""

    cell: dict[str, Any]
    figure: str
    higher_is_better: bool
    a: Side
    b: Side
    ratio: Estimate | None
    """B ÷ A; None where they are not comparable."""
    verdict: Verdict
    reason: str | None
    """Why they are not comparable, as far as it is this cell's own; the rest is in `Comparison.reasons`."""


@dataclass(frozen=True)
class Comparison:
    """All rows, and what keeps the runs as a whole from being compared."""

    run_a: str
    run_b: str
    reasons: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def comparable(self) -> bool:
        """Whether cells can be compared at all."""
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """Plain types only; a row's reason holds the runs' too."""
        rows = [
            asdict(row) | {"verdict": row.verdict.value, "reason": "; ".join(self._reasons(row)) or None}
            for row in self.rows
        ]
        return {
            "run_a": self.run_a,
            "run_b": self.run_b,
            "comparable": self.comparable,
            "reasons": list(self.reasons),
            "rows": rows,
        }

    def markdown(self) -> str:
        """A table, below what holds for all of its rows."""
        header = ["strategy", "cell", "figure", "A", "B", "B ÷ A (95 %)", "trials", "verdict", "reason"]
        lines = [f"A: {self.run_a}, B: {self.run_b}", ""]
        if self.reasons:
            lines += ["Not comparable:", "", *(f"- {reason}" for reason in self.reasons), ""]
        return "\n".join([*lines, *markdown([header, *map(_entries, self.rows)])]) + "\n"

    def _reasons(self, row: Row) -> list[str]:
        return [*self.reasons, *([row.reason] if row.reason else [])]


def compare(run_a: Path, run_b: Path) -> Comparison:
    """B beside A.

    Raises:
        RunError: one of them cannot be read.
    """
    (about_a, trials_a), (about_b, trials_b) = read(run_a), read(run_b)
    reasons = tuple(_of_runs(about_a, about_b))
    cells_a, cells_b = _by_cell(trials_a), _by_cell(trials_b)
    rows = [
        _row(dict(zip(_CELL, cell, strict=True)), figure, cells_a.get(cell, []), cells_b.get(cell, []), bool(reasons))
        for cell in sorted({*cells_a, *cells_b}, key=_order)
        for figure in (_SPEED if cell[_CELL.index("fault")] is None else _FAULT)
    ]
    return Comparison(run_a.resolve().name, run_b.resolve().name, reasons, tuple(rows))


# -- cells -----------------------------------------------------------------------------------------


def _row(
    cell: dict[str, Any], figure: Figure, trials_a: Sequence[Trial], trials_b: Sequence[Trial], runs_differ: bool
) -> Row:
    values_a, values_b = _values(trials_a, figure), _values(trials_b, figure)
    reasons = _of_cells(trials_a, trials_b, figure)
    ratio, verdict = None, Verdict.NOT_COMPARABLE
    if not runs_differ and not reasons:
        ratio = ratio_unpaired(values_b, values_a)
        called = ratio_unpaired(values_b, values_a, confidence=CALLED_CONFIDENCE)
        verdict = _verdict(difference(called), figure)
    return Row(
        cell=cell,
        figure=figure.name,
        higher_is_better=figure.higher_is_better,
        a=_side(values_a, trials_a),
        b=_side(values_b, trials_b),
        ratio=ratio,
        verdict=verdict,
        reason="; ".join(reasons) or None,
    )


def _verdict(found: Difference, figure: Figure) -> Verdict:
    if found is Difference.NONE:
        return Verdict.NO_DIFFERENCE
    return Verdict.FASTER if (found is Difference.ABOVE) is figure.higher_is_better else Verdict.SLOWER


def _of_cells(trials_a: Sequence[Trial], trials_b: Sequence[Trial], figure: Figure) -> list[str]:
    """Why one cell's figures are not comparable; the first few that are true hide those that follow from them."""
    for name, trials in (("A", trials_b), ("B", trials_a)):
        if not trials:
            return [f"only in run {name}"]
    statuses = [
        f"{trial.status} in {name}: {' '.join((trial.reason or 'no reason given').split())}"
        for name, trials in (("A", trials_a), ("B", trials_b))
        for trial in trials
        if trial.status != Status.OK
    ]
    if statuses:
        return list(dict.fromkeys(statuses))
    reasons = []
    for what, name in (("durability", "durability"), ("kind of latency", "latency_kind")):
        kinds = [", ".join(sorted({str(getattr(each, name)) for each in trials})) for trials in (trials_a, trials_b)]
        if kinds[0] != kinds[1]:
            reasons.append(f"other {what}: {kinds[0]} in A, {kinds[1]} in B")
    for name, trials in (("A", trials_a), ("B", trials_b)):
        trusted = [trial for trial in trials if trial.trusted]
        values = _values(trials, figure)
        if len(trusted) < LEAST_TRIALS:
            reasons.append(
                f"{len(trusted)} trusted trials in {name}, fewer than {LEAST_TRIALS}"
                + (f" ({len(trials) - len(trusted)} untrusted left out)" if len(trials) > len(trusted) else "")
            )
        elif len(values) < len(trusted):
            reasons.append(f"{len(trusted) - len(values)} of {len(trusted)} trials in {name} have no {figure.name}")
        elif min(values) <= 0:
            reasons.append(f"{figure.name} of zero in {name}: that has no ratio")
    return reasons


def _by_cell(trials: Sequence[Trial]) -> dict[tuple[Any, ...], list[Trial]]:
    cells: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        cells.setdefault(_cell(trial), []).append(trial)
    return cells


def _order(cell: tuple[Any, ...]) -> list[tuple[bool, Any]]:
    """What is not given comes before what is."""
    return [(value is not None, value) for value in cell]


def _cell(trial: Trial) -> tuple[Any, ...]:
    """The rate makes a cell in an open loop only: elsewhere it is no choice."""
    cell = {name: getattr(trial, name) for name in _CELL}
    cell["arrivals"] = cell["arrivals"] or ("closed" if trial.fault is None else None)
    if cell["arrivals"] in ("closed", None):
        cell["offered_per_s"] = None
    return tuple(cell.values())


def _values(trials: Sequence[Trial], figure: Figure) -> list[float]:
    return [
        float(value)
        for trial in trials
        if trial.status == Status.OK
        and trial.trusted
        and (value := getattr(trial, figure.name)) is not None
        and math.isfinite(value)
    ]


def _side(values: Sequence[float], trials: Sequence[Trial]) -> Side:
    untrusted = sum(trial.status == Status.OK and not trial.trusted for trial in trials)
    return Side(float(np.median(values)) if values else None, len(values), untrusted)


# -- runs ------------------------------------------------------------------------------------------


def _of_runs(about_a: Mapping[str, Any], about_b: Mapping[str, Any]) -> list[str]:
    """Why nothing in these runs is comparable."""
    reasons = []
    for what, name in (("machine", "machine"), ("versions", "versions"), ("settings", "plan")):
        a, b = about_a.get(name), about_b.get(name)
        if not isinstance(a, dict) or not isinstance(b, dict):
            unsaid = [run for run, found in (("A", a), ("B", b)) if not isinstance(found, dict)]
            reasons.append(f"{what} unknown of {' and '.join(unsaid)}")
            continue
        differences = [f"{key} {_said(a, key)} and {_said(b, key)}" for key in _differing(name, a, b)]
        if differences:
            reasons.append(f"other {what}: {', '.join(differences)}")
    if about_a.get("method", 1) != about_b.get("method", 1):
        reasons.append(f"other method: {_said(about_a, 'method')} and {_said(about_b, 'method')}")
    return reasons


def _differing(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = {
        "machine": ["cpu", "cores_usable", "memory_bytes", "system"],
        "versions": sorted({*a, *b}),
        "plan": sorted({*a, *b} - _SELECTS),
    }[name]
    return [key for key in keys if a.get(key) != b.get(key) and not (key == "memory_bytes" and _as_much(a, b))]


def _as_much(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    bytes_a, bytes_b = a.get("memory_bytes"), b.get("memory_bytes")
    if not isinstance(bytes_a, int) or not isinstance(bytes_b, int):
        return False
    return abs(bytes_a - bytes_b) <= _MEMORY_SLACK * max(bytes_a, bytes_b)


def _said(about: Mapping[str, Any], key: str) -> str:
    value = about.get(key)
    return "none" if value is None else str(value)


# -- table -----------------------------------------------------------------------------------------


def _entries(row: Row) -> list[str]:
    what = [row.cell["fault"] or row.cell["workload"], row.cell["caller"], f"{row.cell['clients']} clients"]
    what += [f"{name} {row.cell[name]}" for name in _FORM if row.cell[name] not in (None, "closed")]
    ratio = "-"
    if row.ratio is not None:
        ratio = f"{row.ratio.value:.3f} ({row.ratio.low:.3f}–{row.ratio.high:.3f})"
    left_out = row.a.untrusted + row.b.untrusted
    trials = f"{row.a.trials}, {row.b.trials}" + (f" ({left_out} untrusted left out)" if left_out else "")
    return [
        f"{row.cell['strategy']}:{row.cell['variant']}",
        ", ".join(what),
        row.figure,
        _number(row.a.median),
        _number(row.b.median),
        ratio,
        trials,
        row.verdict.value,
        row.reason or "",
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
