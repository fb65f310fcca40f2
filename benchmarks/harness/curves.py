"""Plots of trials at several rates, and at several numbers of clients or shards, as SVG.

The knee of a latency-throughput curve is where throughput over p99 is greatest: Kleinrock's "power" (1979, "Power and
Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications"), with the p99 as the delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import drawing
from benchmarks.harness.drawing import MARKERS
from benchmarks.harness.intervals import median
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.scaling import throughput

KNEE_POINTS = 4
"""Fewer rates show no knee."""


def latency_over_throughput(trials: Sequence[Trial], title: str) -> str:
    """The p50 and p99 of response times over achieved throughput, a line each for every row, with the p99's knee.

    Hollow: distrusted.
    """
    words = []
    with drawing.drawn(9, 4.5) as (figure, axes):
        for place, (row, of_row) in enumerate(_by_row([trial for trial in trials if _is_open(trial)]).items()):
            colour, marker = f"C{place % 10}", MARKERS[place % len(MARKERS)]
            found = knee(of_row)
            for figure_name, style in (("latency_us_p50", ":"), ("latency_us_p99", "-")):
                points = _points(of_row, figure_name)
                if not points:
                    continue
                label = f"{row}, {figure_name[-3:]}"
                shown = f"{label}, knee {found[0]:,.0f}/s" if found is not None and style == "-" else label
                axes.plot([x for x, _, _ in points], [y for _, y, _ in points], style, color=colour, lw=1, label=shown)
                for x, y, trusted in points:
                    axes.plot([x], [y], marker, ms=4, color=colour, mfc=colour if trusted else "white")
                words.append(f"{label}: {', '.join(f'{y:.3g} ms at {x:,.0f}/s' for x, y, _ in points)}")
            if found is not None:
                rate, ms = found
                axes.plot([rate], [ms], "o", ms=13, mfc="none", mec=colour, mew=1.4)
                words.append(f"{row}: knee at {rate:,.0f}/s, p99 {ms:.3g} ms")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("calls/s achieved (log scale); circled: the knee")
        axes.set_ylabel("response time, ms (log scale)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.25)
        return _finished(figure, axes, f"Latency over throughput, {title}", words)


def knee(trials: Sequence[Trial]) -> tuple[float, float] | None:
    """Calls/s and p99 in ms of one row's trusted points where the one over the other is greatest; None of too few."""
    trusted = [(x, y) for x, y, sound in _points([t for t in trials if _is_open(t)], "latency_us_p99") if sound]
    return max(trusted, key=lambda point: point[0] / point[1]) if len(trusted) >= KNEE_POINTS else None


def _points(trials: Sequence[Trial], figure: str) -> list[tuple[float, float, bool]]:
    """Calls/s, latency in ms, and whether all trials are trusted, for each rate that was offered."""
    found = []
    for rate in sorted({trial.offered_per_s for trial in trials if trial.offered_per_s is not None}):
        at_rate = [trial for trial in trials if trial.offered_per_s == rate and trial.ops_per_s]
        if at_rate and (values := _of_all(at_rate, figure)):
            achieved = median([trial.ops_per_s for trial in at_rate if trial.ops_per_s]).value
            found.append((achieved, median(values).value / 1e3, all(trial.trusted for trial in at_rate)))
    return found


def _of_all(trials: Sequence[Trial], figure: str) -> list[float]:
    """None of them unless every trial has it: those without a p99 are the slow ones."""
    values = [getattr(trial, figure) for trial in trials]
    return [] if None in values else values


def throughput_over(trials: Sequence[Trial], what: str, fits: Sequence[Mapping[str, Any]], title: str) -> str:
    """Throughput over clients or shards with its 95 % interval, and the fitted curve where there is one."""
    closed = [trial for trial in trials if trial.arrivals == Arrivals.CLOSED and trial.ops_per_s]
    words = []
    with drawing.drawn(9, 4.5) as (figure, axes):
        for place, (row, of_row) in enumerate(_by_row(closed).items()):
            colour, marker = f"C{place % 10}", MARKERS[place % len(MARKERS)]
            shown = []
            for number in sorted({getattr(trial, what) for trial in of_row}):
                found = median([t.ops_per_s for t in of_row if getattr(t, what) == number and t.ops_per_s])
                axes.plot([number], [found.value], marker, ms=4, color=colour)
                if found.low is not None and found.high is not None:
                    axes.vlines(number, found.low, found.high, color=colour, lw=0.8)
                shown.append(f"{found.value:,.0f}/s of {number}")
            words.append(f"{row}: {', '.join(shown)}")
            axes.plot([], [], marker, ms=4, color=colour, label=row)
            for fit in fits:
                if f"{fit['strategy']}:{fit['variant']}" == row and fit["reason"] is None:
                    numbers = range(1, max(getattr(trial, what) for trial in of_row) + 1)
                    axes.plot(numbers, [_law(fit, number) for number in numbers], "-", lw=0.8, color=colour)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"{what}; lines: the fitted Universal Scalability Law")
        axes.set_ylabel("calls/s")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        return _finished(figure, axes, f"Throughput over {what}, {title}", words)


def _law(fit: Mapping[str, Any], number: int) -> float:
    return throughput(number, *(fit[name]["value"] for name in ("ops_per_s_of_one", "contention", "coherency")))


def _is_open(trial: Trial) -> bool:
    return trial.fault is None and trial.arrivals in (Arrivals.POISSON, Arrivals.CONSTANT)


def _by_row(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    rows: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.row):
        rows.setdefault(trial.row, []).append(trial)
    return rows


def _finished(figure: Any, axes: Any, title: str, words: Sequence[str]) -> str:
    drawing.log_axes(axes.xaxis, axes.yaxis)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=7.5, loc="outside right upper", frameon=False)
    return drawing.svg(figure, title, "; ".join(words))
