"""Static plots of a run: bars of speed, latency percentiles, the front of rate against p99, and footprints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import drawing
from benchmarks.harness.cells import Status
from benchmarks.harness.complexity import Complexity
from benchmarks.harness.drawing import COLOURS, MARKERS, OTHER_COLOUR
from benchmarks.harness.intervals import Estimate
from benchmarks.harness.records import Trial
from benchmarks.harness.report_tables import OPS, entry, rows_of, speed_cells, spread
from benchmarks.harness.table_text import Metric, count, microseconds, present, seconds
from strategies.interface import Caller

_WIDTH_IN = 7.6
_BAR_IN, _PANEL_IN, _LEGEND_LINE_IN = 0.17, 1.5, 0.155
_PERCENTILES: Mapping[str, float] = {
    "latency_us_p50": 2.0,
    "latency_us_p90": 10.0,
    "latency_us_p99": 100.0,
    "latency_us_p999": 1000.0,
}
"""And where each is on an axis of 1/(1-p): as many operations there are to one that takes longer."""
_LINES = ("-", "--", ":")
_KINDS = {"service": "service time, from the call", "response": "response time, from when it was due"}


@dataclass(frozen=True)
class Plot:
    """A figure on the page."""

    title: str
    svg: str
    group: str = ""
    """What of: plots of one group stand together."""
    notes: Sequence[str] = ()
    """What it cannot show, a sentence each."""


def plot_speed(trials: Sequence[Trial], workload: str, metric: Metric = OPS) -> str:
    """A bar per strategy and variant and caller, with the interval over repeats, as SVG."""
    from matplotlib.patches import Patch

    rows = list(reversed(rows_of(trials)))
    callers = present(trial.caller for trial in trials if trial.workload == workload and trial.fault is None)
    cells = speed_cells(trials)
    height = 0.8 / max(1, len(callers))
    ends: list[float] = []
    words = []
    names = [drawing.label(f"{strategy}:{variant}") for strategy, variant, _ in rows]
    height_in = 1.1 + _BAR_IN * max(2, len(rows) * max(1, len(callers)))
    margins = drawing.Margins(left=drawing.label_in(names), right=0.2, bottom=1.0)
    with drawing.drawn(_WIDTH_IN, height_in, margins=margins) as (figure, axes):
        for place, (strategy, variant, durability) in enumerate(rows):
            for order, caller in enumerate(callers):
                cell = cells.get((strategy, variant, workload, caller), ())
                at = place + 0.4 - height * (order + 0.5)
                found = _figure(cell, metric)
                words.append(f"{strategy}:{variant} from a {caller}: {entry(cell, metric)}")
                if found is None or found.value <= 0:  # no place on a logarithmic axis
                    where = axes.get_yaxis_transform()
                    axes.text(0.01, at, entry(cell, metric), transform=where, va="center", fontsize=7.5, style="italic")
                    continue
                low, high = _ends(found)
                ends += [low, high]
                trusted = all(trial.trusted for trial in cell)
                axes.barh(
                    at,
                    found.value,
                    height * 0.92,
                    alpha=1 if trusted else 0.45,
                    color=COLOURS.get(durability, OTHER_COLOUR),
                    hatch="" if caller == Caller.DRIVER else "///",
                    edgecolor="white",
                    xerr=[[found.value - low], [high - found.value]],
                    error_kw={"lw": 0.8},
                )
                value = metric.write(found.value) + ("" if trusted else "* (distrusted)")
                axes.text(high * 1.05, at, value, va="center", fontsize=7.5)
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xscale("log")
        drawing.log_axes(axes.xaxis)
        if ends:
            axes.set_xlim(*drawing.decades(ends))
        axes.set_xlabel(f"{metric.title}, {workload} (log scale)")
        keys = [
            Patch(color=COLOURS.get(name, OTHER_COLOUR), label=name)
            for name in dict.fromkeys(row[2] for row in rows_of(trials))
        ]
        keys += [
            Patch(
                facecolor=OTHER_COLOUR,
                edgecolor="white",
                hatch="" if caller == Caller.DRIVER else "///",
                label=f"called from a {caller}",
            )
            for caller in callers
        ]
        figure.legend(handles=keys, fontsize=8, loc="lower center", ncols=3, frameon=False)
        return drawing.svg(figure, f"{metric.title}, {workload}", "; ".join(words[::-1]))


def percentiles(trials: Sequence[Trial], workload: str, caller: str) -> Plot | None:
    """Latency over 1/(1-p), a panel for each durability class; None where no trial has any."""
    cells = {key: cell for key, cell in speed_cells(trials).items() if key[2:] == (workload, caller)}
    lines: dict[str, list[tuple[str, list[tuple[float, float]], tuple[float, float] | None]]] = {}
    absent, words = [], []
    for strategy, variant, durability in rows_of(trials):
        cell = cells.get((strategy, variant, workload, caller), ())
        row = f"{strategy}:{variant}"
        points = [
            (place, found.value / 1e3)
            for name, place in _PERCENTILES.items()
            if (found := _figure(cell, Metric(name, lambda trial, name=name: getattr(trial, name), microseconds)))  # type: ignore[misc]
        ]
        if not points:
            absent.append(f"{row}: {entry(cell, OPS) if _unmeasured(cell) else 'too few operations'}")
            continue
        slowest = _figure(cell, Metric("max", lambda trial: trial.latency_us_max, microseconds))
        operations = _figure(cell, Metric("operations", lambda trial: trial.operations, count))
        last = (operations.value, slowest.value / 1e3) if slowest and operations else None
        shown = drawing.label(row) + ("" if all(trial.trusted for trial in cell) else ", distrusted")
        lines.setdefault(durability, []).append((shown, points, last))
        words.append(f"{row} " + ", ".join(f"p{100 - 100 / place:g} {ms:.3g} ms" for place, ms in points))
    if not lines:
        return None
    title = f"Latency percentiles, {workload}, called from a {caller}"
    with _panels(lines, f"{_kind(cells.values())}, ms (log)") as (figure, panels):
        for durability, axes in panels.items():
            for place, (row, points, last) in enumerate(lines[durability]):
                style = {"color": f"C{place % 10}", "lw": 1.1, "ls": _LINES[place // 10 % len(_LINES)]}
                marker = MARKERS[place % len(MARKERS)]
                axes.plot(*zip(*points, strict=True), marker=marker, ms=3.5, label=row, **style)
                if last is not None:
                    axes.plot(*zip(points[-1], last, strict=True), **{**style, "lw": 0.5})
                    axes.plot(*last, marker=marker, ms=4.5, color=style["color"], mfc="white")
            axes.set_xticks(
                [2, 10, 100, 1000, 10_000, 100_000], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]
            )
            axes.xaxis.set_minor_formatter("")
            axes.set_xlim(1.6, max([2000.0, *(1.5 * last[0] for _, _, last in lines[durability] if last)]))
        _finish(
            panels,
            [
                ms
                for of_class in lines.values()
                for _, points, last in of_class
                for _, ms in [*points, *([last] if last else [])]
            ],
        )
        last_axes = list(panels.values())[-1]
        last_axes.set_xlabel(
            "share of operations that take at most so long, on an axis of 1/(1-p); hollow: the slowest"
        )
        return Plot(title, drawing.svg(figure, title, "; ".join(words)), workload, _not_drawn(absent))


def front(trials: Sequence[Trial], workload: str, caller: str) -> Plot | None:
    """The p99 over throughput, a panel for each durability class, with the rows that none beats in both."""
    cells = {key: cell for key, cell in speed_cells(trials).items() if key[2:] == (workload, caller)}
    points: dict[str, list[tuple[str, float, float, bool]]] = {}
    absent, words = [], []
    p99 = Metric("p99", lambda trial: trial.latency_us_p99, microseconds)
    for strategy, variant, durability in rows_of(trials):
        cell = cells.get((strategy, variant, workload, caller), ())
        row, found, late = f"{strategy}:{variant}", _figure(cell, OPS), _figure(cell, p99)
        if found is None or late is None or found.value <= 0:
            absent.append(f"{row}: {entry(cell, OPS) if _unmeasured(cell) else 'too few operations for a p99'}")
            continue
        trusted = all(trial.trusted for trial in cell)
        points.setdefault(durability, []).append((row, found.value, late.value / 1e3, trusted))
    if not points:
        return None
    title = f"p99 against rate, {workload}, called from a {caller}"
    with _panels(points, f"p99 of {_kind(cells.values())}, ms (log)") as (figure, panels):
        everywhere = [rate for of_class in points.values() for _, rate, _, _ in of_class]
        for durability, axes in panels.items():
            best = _unbeaten(points[durability])
            steps = sorted((rate, slow) for row, rate, slow, _ in points[durability] if row in best)
            axes.step(*zip(*steps, strict=True), where="pre", color="#888888", lw=1, zorder=0)
            for place, (row, rate, slow, trusted) in enumerate(points[durability]):
                colour = f"C{place % 10}"
                label = f"{drawing.label(row)}, on the front" if row in best else drawing.label(row)
                style = {"color": colour, "mfc": colour if trusted else "white", "ls": "none"}
                axes.plot([rate], [slow], MARKERS[(place + place // 10) % len(MARKERS)], ms=6, label=label, **style)
                words.append(f"{durability}, {label}: {rate:,.0f}/s, p99 {slow:.3g} ms")
            axes.set_xscale("log")
            drawing.log_axes(axes.xaxis)
            axes.set_xlim(*drawing.decades(everywhere))
        _finish(panels, [slow for of_class in points.values() for _, _, slow, _ in of_class])
        list(panels.values())[-1].set_xlabel("calls/s (log); better is to the right and below; hollow: distrusted")
        return Plot(title, drawing.svg(figure, title, "; ".join(words)), workload, _not_drawn(absent))


def footprints(rows: Sequence[Complexity]) -> Plot | None:
    """Memory per account, and time from nothing to the first acknowledgement; None where neither was measured."""
    kinds: Sequence[tuple[str, str, Any]] = (
        ("bytes_per_account", "bytes per account (log)", count),
        ("first_ack_s", "seconds from nothing to the first answer (log)", seconds),
    )
    if not any(row.figure(name) for row in rows for name, _, _ in kinds):
        return None
    ordered = sorted(rows, key=lambda row: row.row, reverse=True)
    words = []
    margins = drawing.Margins(left=drawing.label_in(row.row for row in ordered), right=0.2, bottom=0.6)
    height_in = 0.7 + _BAR_IN * 1.4 * max(2, len(ordered))
    with drawing.drawn(_WIDTH_IN, height_in, columns=2, margins=margins) as (figure, grid):
        for axes, (name, label, write) in zip(grid[0], kinds, strict=True):
            values = []
            for place, row in enumerate(ordered):
                found = row.figure(name)
                if found is None or found.value <= 0:
                    mark = "not seen" if found is not None else row.status.replace("_", " ")
                    where = axes.get_yaxis_transform()
                    axes.text(0.01, place, mark, transform=where, va="center", fontsize=7.5, style="italic")
                    words.append(f"{row.row}: {label} {mark}")
                    continue
                low, high = _ends(found)
                values += [low, high]
                error = [[found.value - low], [high - found.value]]
                colour = COLOURS.get(row.durability, OTHER_COLOUR)
                axes.barh(place, found.value, 0.75, color=colour, xerr=error, error_kw={"lw": 0.8})
                axes.text(high * 1.06, place, write(found.value), va="center", fontsize=7.5)
                words.append(f"{row.row}: {label} {write(found.value)}")
            axes.set_xscale("log")
            drawing.log_axes(axes.xaxis)
            if values:
                axes.set_xlim(*drawing.decades(values))
            axes.set_xlabel(label)
            axes.set_ylim(-0.6, len(ordered) - 0.4)
            axes.set_yticks(range(len(ordered)), [])
        grid[0][0].set_yticks(range(len(ordered)), [drawing.label(row.row) for row in ordered], fontsize=8)
        title = "Memory per account, and start-up"
        return Plot(title, drawing.svg(figure, title, "; ".join(words)))


@contextmanager
def _panels(lines: Mapping[str, Sequence[Any]], y: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """One below the other in the order of durability classes, each high enough for its legend."""
    heights = [max(_PANEL_IN, 0.5 + _LEGEND_LINE_IN * len(of_class)) for of_class in lines.values()]
    legend_in = drawing.label_in((each[0] for of_class in lines.values() for each in of_class), 7.5) + 0.8
    margins = drawing.Margins(left=0.95, right=legend_in + 0.4, bottom=0.6, top=0.3)
    with drawing.drawn(_WIDTH_IN, sum(heights) + 0.4, rows=len(lines), margins=margins) as (figure, grid):
        figure.subplots_adjust(hspace=0.45)
        column = [grid] if len(lines) == 1 else list(grid[:, 0])
        column[0].get_gridspec().set_height_ratios(heights)
        for name, axes in zip(lines, column, strict=True):
            axes.set_title(name or "durability unknown", fontsize=9, loc="left", weight="bold")
            axes.set_yscale("log")
            axes.set_xscale("log")
            axes.grid(alpha=0.25)
        figure.supylabel(y, fontsize=8, x=0.01)
        yield figure, dict(zip(lines, column, strict=True))


def _finish(panels: Mapping[str, Any], latencies: Sequence[float]) -> None:
    """A legend beside each, and one scale for all, so that classes can be told apart by eye."""
    for axes in panels.values():
        axes.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1.01, 1.08), frameon=False, borderaxespad=0.2)
        axes.set_ylim(*drawing.decades(latencies))
        drawing.log_axes(axes.yaxis)


def _unbeaten(points: Sequence[tuple[str, float, float, bool]]) -> set[str]:
    """Rows than which none is both faster and sooner done."""
    return {
        row
        for row, rate, slow, _ in points
        if not any(other >= rate and later <= slow and (other, later) != (rate, slow) for _, other, later, _ in points)
    }


def _kind(cells: Any) -> str:
    kinds = present(trial.latency_kind for cell in cells for trial in cell)
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds)


def _unmeasured(cell: Sequence[Trial]) -> bool:
    return not cell or any(trial.status != Status.OK for trial in cell)


def _figure(cell: Sequence[Trial], metric: Metric) -> Estimate | None:
    """None, too, where a repeat failed: those that went well would hide it."""
    return None if _unmeasured(cell) else spread(cell, metric)


def _not_drawn(absent: Sequence[str]) -> list[str]:
    return [f"Not drawn: {'; '.join(absent)}."] if absent else []


def _ends(found: Estimate) -> tuple[float, float]:
    """Of its interval; of one trial, which has none, the trial itself."""
    if found.low is None or found.high is None or found.low <= 0:
        return found.value, found.value
    return found.low, found.high
