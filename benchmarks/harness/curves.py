"""Plots of trials at several rates, and at several numbers of clients or shards, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.intervals import median
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.scaling import throughput

_MARKERS = "osD^vP*X<>"


def latency_over_throughput(trials: Sequence[Trial], title: str) -> str:
    """The p50 and p99 of response times over achieved throughput, a line each for every row. Hollow: distrusted."""
    figure, axes = _axes(title, "calls/s achieved (log scale)", "response time, ms (log scale)")
    for place, (row, of_row) in enumerate(_by_row([trial for trial in trials if _is_open(trial)]).items()):
        points = []
        for rate in sorted({trial.offered_per_s for trial in of_row if trial.offered_per_s is not None}):
            at_rate = [trial for trial in of_row if trial.offered_per_s == rate and trial.ops_per_s]
            if at_rate:
                points.append(at_rate)
        for figure_name, style in (("latency_us_p50", ":"), ("latency_us_p99", "-")):
            drawn = [
                (median([t.ops_per_s for t in at_rate if t.ops_per_s]).value, median(values).value / 1e3, at_rate)
                for at_rate in points
                if (values := _of_all(at_rate, figure_name))
            ]
            if not drawn:
                continue
            colour, marker = f"C{place % 10}", _MARKERS[place % len(_MARKERS)]
            label = f"{row}, {figure_name[-3:]}"
            axes.plot([x for x, _, _ in drawn], [y for _, y, _ in drawn], style, color=colour, lw=1, label=label)
            for x, y, at_rate in drawn:
                trusted = all(trial.trusted for trial in at_rate)
                axes.plot([x], [y], marker, ms=4, color=colour, mfc=colour if trusted else "white")
    axes.set_xscale("log")
    axes.set_yscale("log")
    return _svg(figure, axes)


def _of_all(trials: Sequence[Trial], figure: str) -> list[float]:
    """None of them unless every trial has it: those without a p99 are the slow ones."""
    values = [getattr(trial, figure) for trial in trials]
    return [] if None in values else values


def throughput_over(trials: Sequence[Trial], what: str, fits: Sequence[Mapping[str, Any]], title: str) -> str:
    """Throughput over clients or shards with its 95 % interval, and the fitted curve where there is one."""
    figure, axes = _axes(title, what, "calls/s")
    closed = [trial for trial in trials if trial.arrivals == Arrivals.CLOSED and trial.ops_per_s]
    for place, (row, of_row) in enumerate(_by_row(closed).items()):
        colour = f"C{place % 10}"
        for number in sorted({getattr(trial, what) for trial in of_row}):
            found = median([trial.ops_per_s for trial in of_row if getattr(trial, what) == number and trial.ops_per_s])
            axes.plot([number], [found.value], _MARKERS[place % len(_MARKERS)], ms=4, color=colour)
            if found.low is not None and found.high is not None:
                axes.vlines(number, found.low, found.high, color=colour, lw=0.8)
        axes.plot([], [], _MARKERS[place % len(_MARKERS)], ms=4, color=colour, label=row)
        for fit in fits:
            if f"{fit['strategy']}:{fit['variant']}" == row and fit["reason"] is None:
                numbers = range(1, max(getattr(trial, what) for trial in of_row) + 1)
                axes.plot(numbers, [_law(fit, number) for number in numbers], "-", lw=0.8, color=colour)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes)


def _law(fit: Mapping[str, Any], number: int) -> float:
    return throughput(number, *(fit[name]["value"] for name in ("ops_per_s_of_one", "contention", "coherency")))


def _is_open(trial: Trial) -> bool:
    return trial.fault is None and trial.arrivals in (Arrivals.POISSON, Arrivals.CONSTANT)


def _by_row(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    rows: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.row):
        rows.setdefault(trial.row, []).append(trial)
    return rows


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["text.parse_math"] = False  # names are the users', not formulas
    matplotlib.rcParams["svg.hashsalt"] = "dask-state-bench"  # the same figure gives the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any, axes: Any) -> str:
    from matplotlib import pyplot

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")  # the default writes powers as formulas
        axis.set_minor_formatter("")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=7, loc="outside right upper", frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()
