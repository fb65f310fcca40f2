"""What the notebooks show of frames: plots as SVG, a panel for each durability class, never told apart by colour alone.

Each function takes a frame of `frames` and leaves out nothing silently: what was not measured stands there as its mark
(n/a, missing, failed, - for no figure), and what distrusts itself is hollow.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import failure_pictures
from benchmarks.harness.advice import Advice, Judged, State
from benchmarks.harness.cells import Status
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.records import read_all
from benchmarks.harness.report import SUMMARY_WORKLOAD
from benchmarks.harness.table_text import MARKS, NO_FIGURE
from strategies.interface import Durability

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

_COLOURS = {"volatile": "#7a8ba0", "process_crash": "#3a7ca5", "power_loss": "#1b4965", "replicated": "#2a9d8f"}
_OTHER_COLOUR = "#999999"
_MARKERS = "osD^vP*X<>phd8"
_LINES = ("-", "--", "-.", ":")
_PERCENTILES = {"latency_us_p50": 2, "latency_us_p90": 10, "latency_us_p99": 100, "latency_us_p999": 1000}
"""Columns, and 1/(1-p): equal steps for each nine."""
_ROW_INCHES, _PANEL_INCHES = 0.26, 0.6

_KEPT, _HURT, _ABSENT = "#d7ebdf", "#f6cfa5", "#eeeeee"
_HARMS = (
    ("L", "trials_lost", "loses what was acknowledged"),
    ("D", "trials_doubled", "doubles"),
    ("T", "trials_torn", "tears transfers"),
    ("N", "trials_never_recovered", "never serves again"),
)
_NOT_TOLD = ("?", "answers out of order, or the accounts could not be read")

_STYLE: Any = {
    "text.parse_math": False,  # names are the users', not formulas
    "svg.hashsalt": "dask-state-bench",  # the same frame gives the same picture
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def closed_loop(frame: pd.DataFrame, workload: str | None = None) -> pd.DataFrame:
    """Speed trials of one form: closed loop, one call at a time, by as many callers as most trials have.

    Of one workload, or of all.
    """
    plain = frame[
        frame.fault.isna()
        & (frame.arrivals.isna() | (frame.arrivals == "closed"))
        & frame[["batch", "window", "shards"]].isna().all(axis=1)
        & (frame.drivers.isna() | (frame.drivers == 1))
    ]
    clients = plain.clients.mode()
    if len(clients):
        plain = plain[plain.clients.isna() | (plain.clients == clients[0])]
    return plain if workload is None else plain[plain.workload == workload]


def together(*found: pd.DataFrame) -> pd.DataFrame:
    """Several frames as one; a durability that one does not record is that of the same row in another."""
    import pandas as pd

    frame = pd.concat(found, ignore_index=True)
    recorded = frame.dropna(subset=["durability"]).groupby("row").durability.first()
    return frame.assign(durability=frame.durability.astype("string").fillna(frame.row.map(recorded).astype("string")))


def summary_workload(frame: pd.DataFrame) -> str:
    """The workload that is shown where there is room for one."""
    measured = sorted(frame.workload[frame.fault.isna()].dropna().unique())
    return SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in measured or not measured else str(measured[0])


# -- one figure of each strategy -----------------------------------------------------------------------


def by_strategy(
    frame: pd.DataFrame, figure: str, label: str, columns: str = "caller", series: str | None = None, scale: float = 1
) -> str:
    """Medians with their 95 % intervals on a logarithmic axis, a line for each strategy.

    There is a panel for each durability class and each value of `columns`; with `series`, a marker for each of its
    values.
    """
    found = _estimates(frame, figure, [columns, *([series] if series else [])], scale)
    return _dots(found, label, columns, series)


def outages(cells: pd.DataFrame, figure: str, label: str, faults: Sequence[str], caller: str, retry: str) -> str:
    """The same of cells around faults (`load_failures`), a column of panels for each fault."""
    here = cells[(cells.caller == caller) & (cells.retry == retry) & cells.fault.isin(list(faults))]
    found = [
        {
            "row": cell["row"],
            "durability": cell["durability"],
            "fault": cell["fault"],
            "estimate": _published(cell, figure),
            "mark": _mark([cell["status"]]),
            "trusted": not cell["trials_distrusted"],
        }
        for cell in _records(here)
    ]
    return _dots(found, label, "fault", None)


def _estimates(frame: pd.DataFrame, figure: str, keys: Sequence[str], scale: float) -> list[dict[str, Any]]:
    found = []
    durabilities = frame.dropna(subset=["durability"]).groupby("row").durability.first()
    for key, group in frame.groupby(["row", *keys], observed=True):
        values = group[figure].dropna().tolist()
        whole = len(values) == len(group) or group.source.isin(["asv"]).all()  # asv leaves out who lacks it
        known = bool(values) and whole and (group.status == Status.OK).all()
        row, *rest = key
        found.append(
            {
                "row": row,
                "durability": durabilities.get(row),
                **dict(zip(keys, rest, strict=True)),
                "estimate": median([value / scale for value in values]) if known else None,
                "mark": _mark(group.status.tolist()),
                "trusted": not (group.trusted == False).any(),  # noqa: E712 - it may be missing
            }
        )
    return found


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _published(cell: Mapping[str, Any], figure: str) -> Estimate | None:
    import pandas as pd

    if pd.isna(cell[figure]):
        return None
    low, high = (None if pd.isna(end) else float(end) for end in (cell[f"{figure}_low"], cell[f"{figure}_high"]))
    return Estimate(float(cell[figure]), low, high, int(cell["trials"]))


def _mark(statuses: Sequence[Any]) -> str:
    """Of what has no figure."""
    for status in (Status.FAILED, Status.RESOURCE_MISSING, Status.NOT_APPLICABLE):
        if status in statuses:
            return MARKS[status]
    return NO_FIGURE


def _dots(found: Sequence[Mapping[str, Any]], label: str, columns: str, series: str | None) -> str:
    places = sorted({str(each[columns]) for each in found})
    classes = _classes(found)
    if not classes or not places:
        return _nothing(f"No {label} to show")
    names = sorted({str(each[series]) for each in found}) if series else []
    with _Drawing(list(map(len, classes.values())), len(places), sharex=True) as drawing:
        ends = [
            end
            for each in found
            if each["estimate"] is not None
            for end in (each["estimate"].value, each["estimate"].low, each["estimate"].high)
            if end is not None and end > 0
        ]
        for down, (durability, rows) in enumerate(classes.items()):
            for across, place in enumerate(places):
                axes = drawing.axes[down][across]
                _rows_of(axes, rows, durability, place if down == 0 else "", named=across == 0)
                axes.set_xscale("log")
                if ends:
                    axes.set_xlim(min(ends) / 1.6, max(ends) * 1.6)
                for each in found:
                    if each["row"] not in rows or str(each[columns]) != place:
                        continue
                    order = names.index(str(each[series])) if series else 0
                    at = (
                        rows.index(each["row"]) + (order - (len(names) - 1) / 2) * 0.24
                        if series
                        else (rows.index(each["row"]))
                    )
                    _dot(axes, at, each, _colour(durability), _MARKERS[order], marked=not series)
        for axes in drawing.axes[-1]:
            axes.set_xlabel(f"{label} (log scale)")
        handles = [_handle(marker, name) for marker, name in zip(_MARKERS, names, strict=False)]
        handles += [_handle("o", "distrusts itself", hollow=True)] if _any_distrusted(found) else []
        drawing.legend(handles)
        return drawing.svg()


def _dot(axes: Any, at: float, each: Mapping[str, Any], colour: str, marker: str, *, marked: bool) -> None:
    found = each["estimate"]
    if found is None or found.value <= 0:  # no place on a logarithmic axis
        if marked:
            words = "0" if found is not None else each["mark"]
            axes.text(0.01, at, words, transform=axes.get_yaxis_transform(), va="center", color="#555555", fontsize=7)
        return
    if found.low is not None and found.high is not None and found.low > 0:
        axes.plot([found.low, found.high], [at, at], "-", color=colour, lw=1.4, solid_capstyle="butt")
    axes.plot([found.value], [at], marker, ms=5, color=colour, mfc=colour if each["trusted"] else "white")


def _any_distrusted(found: Sequence[Mapping[str, Any]]) -> bool:
    return any(each["estimate"] is not None and not each["trusted"] for each in found)


# -- latency -------------------------------------------------------------------------------------------


def percentiles(frame: pd.DataFrame) -> str:
    """Service times in a closed loop at p50, p90, p99 and p99.9, on an axis that gives each nine as much room."""
    found: list[dict[str, Any]] = []
    for column, nines in _PERCENTILES.items():
        for each in _estimates(frame, column, ["caller"], 1e3):
            if each["estimate"] is not None:
                found.append({**each, "x": nines})
    places = sorted({str(each["caller"]) for each in found})
    return _lines(
        found,
        "caller",
        places,
        "service time, ms (log scale)",
        "percentile",
        ticks=dict(zip((2, 10, 100, 1000), ("p50", "p90", "p99", "p99.9"), strict=True)),
    )


def latency_over_rate(frame: pd.DataFrame) -> str:
    """Response times over the rate that was achieved, in an open loop: p50 and p99 beside each other."""
    opened = frame[frame.fault.isna() & frame.arrivals.isin(["poisson", "constant"]) & (frame.status == Status.OK)]
    opened = opened[opened.workload == summary_workload(opened)]
    if opened.caller.nunique() > 1:
        opened = opened.assign(row=opened.row + ", from a " + opened.caller.astype("string"))
    found: list[dict[str, Any]] = []
    for figure in ("latency_us_p50", "latency_us_p99"):
        for each in _estimates(opened, figure, ["offered_per_s"], 1e3):
            at_rate = opened[(opened.row == each["row"]) & (opened.offered_per_s == each["offered_per_s"])]
            if each["estimate"] is not None:
                found.append({**each, "x": float(at_rate.ops_per_s.median()), "figure": figure[-3:]})
    if not found:
        return _nothing("No open loop in this run. One is measured by: python -m benchmarks sweep")
    label = "response time, ms (log scale)"
    return _lines(found, "figure", ["p50", "p99"], label, "operations/s achieved (log scale)")


def _lines(
    found: Sequence[Mapping[str, Any]],
    columns: str,
    places: Sequence[str],
    label: str,
    x_label: str,
    ticks: Mapping[int, str] | None = None,
) -> str:
    """A line for each strategy, in panels by durability and `columns`; names at the right of each class."""
    classes = _classes(found)
    if not classes:
        return _nothing("No trial has these figures")
    with _Drawing(
        [max(9, len(rows) + 1) for rows in classes.values()], len(places), sharex=True, sharey=True
    ) as drawing:
        for down, (durability, rows) in enumerate(classes.items()):
            for across, place in enumerate(places):
                axes = drawing.axes[down][across]
                axes.set_title(", ".join(filter(None, (_said(durability), place))), loc="left")
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.grid(alpha=0.25)
                if ticks is not None:
                    axes.set_xticks(list(ticks), list(ticks.values()))
                    axes.set_xticks([], minor=True)
                for order, row in enumerate(rows):
                    points = sorted(
                        (each for each in found if each["row"] == row and str(each[columns]) == place),
                        key=lambda each: each["x"],
                    )
                    style = {"color": f"C{order % 10}", "lw": 1.1, "ls": _LINES[order // 3 % len(_LINES)]}
                    marker = _MARKERS[order % len(_MARKERS)]
                    axes.plot([e["x"] for e in points], [e["estimate"].value for e in points], **style)
                    for each in points:
                        hollow = {} if each["trusted"] else {"mfc": "white"}
                        axes.plot([each["x"]], [each["estimate"].value], marker, ms=4, color=style["color"], **hollow)
                    if across == len(places) - 1:
                        axes.plot([], [], marker=marker, ms=4, label=row, **style)
            drawing.axes[down][0].set_ylabel(label)
            drawing.axes[down][-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=7)
        for axes in drawing.axes[-1]:
            axes.set_xlabel(x_label)
        drawing.legend([_handle("o", "distrusts itself", hollow=True)] if _any_distrusted(found) else [])
        return drawing.svg()


# -- faults --------------------------------------------------------------------------------------------


def outcome_matrix(cells: pd.DataFrame, caller: str, retry: str) -> str:
    """What each fault left of each strategy (`load_failures`), in letters and tints."""
    here = cells[(cells.caller == caller) & (cells.retry == retry)]
    classes = _classes(_records(here))
    if not classes:
        return _nothing(f"No fault was met from a {caller} with the retry {retry}")
    faults = [str(fault) for fault in here.fault.cat.categories if fault in set(here.fault)]
    words = {(cell["row"], cell["fault"]): _letters(cell) for cell in _records(here)}
    with _Drawing(list(map(len, classes.values())), 1, width=2.4 + 0.42 * len(faults), spare=0) as drawing:
        for down, (durability, rows) in enumerate(classes.items()):
            axes = drawing.axes[down][0]
            _rows_of(axes, rows, durability, "", named=True)
            axes.set_xlim(-0.5, len(faults) - 0.5)
            axes.grid(visible=False)
            axes.xaxis.tick_top()
            axes.set_xticks(
                range(len(faults)), faults if down == 0 else [], rotation=55, ha="left", rotation_mode="anchor"
            )
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            for y, row in enumerate(rows):
                for x, fault in enumerate(faults):
                    text, tint = words.get((row, fault), (NO_FIGURE, _ABSENT))
                    hatch = "////" if tint == _HURT else None
                    axes.add_patch(_box(x, y, tint, hatch))
                    box = {"facecolor": tint, "edgecolor": "none", "pad": 1.2} if hatch else None
                    axes.text(x, y, text, ha="center", va="center", fontsize=6.5, bbox=box)
        meanings = ", ".join(f"{letter} {meaning}" for letter, _, meaning in _HARMS)
        drawing.figure.supxlabel(
            f"ok survives every trial, {meanings}, {' '.join(_NOT_TOLD)}\n"
            "n/a cannot reach it, missing: a resource was not there, - no such cell, * a trial distrusts itself",
            fontsize=7,
            x=0.01,
            ha="left",
        )
        return drawing.svg()


def availability(run: Path, fault: str) -> str:
    """What callers were told around this fault, over time: of a run whose histories are still there."""
    struck = [trial for trial in read_all(run).trials if trial.fault == fault]
    drawn = failure_pictures.timelines(run, struck)
    if drawn.found:
        return drawn.found[0].svg
    return _nothing("\n".join(textwrap.wrap(" ".join(drawn.notes) or f"No trial with {fault} in {run.name}", 100)))


def _letters(cell: Mapping[str, Any]) -> tuple[str, str]:
    """And the tint."""
    if cell["status"] != Status.OK:
        return MARKS[Status(cell["status"])], _ABSENT
    star = "*" if cell["trials_distrusted"] else ""
    if cell["trials_survived"] == cell["trials"]:
        return f"ok{star}", _KEPT
    return ("".join(letter for letter, column, _ in _HARMS if cell[column]) or _NOT_TOLD[0]) + star, _HURT


def _box(x: float, y: float, tint: str, hatch: str | None) -> Any:
    from matplotlib.patches import Rectangle

    edge = "#c98a4b" if hatch else "white"
    return Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, facecolor=tint, edgecolor=edge, hatch=hatch, lw=0)


# -- a choice ------------------------------------------------------------------------------------------


def choice(advice: Advice) -> str:
    """The p99 over calls/s of everybody, in panels by durability, and where the needs lie: down and right is better."""
    judged = [*advice.ranked, *advice.ruled_out]
    found: list[dict[str, Any]] = [
        {"row": each.candidate.row, "durability": each.candidate.durability, "judged": each}
        for each in judged
        if each.ops_per_s and each.p99_us
    ]
    classes = _classes(found)
    if not classes:
        return _nothing("Nobody has a rate and a p99")
    with _Drawing([max(8, len(rows) + 2) for rows in classes.values()], 1, sharex=True, sharey=True) as drawing:
        for down, (durability, rows) in enumerate(classes.items()):
            axes = drawing.axes[down][0]
            axes.set_title(_said(durability), loc="left")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.grid(alpha=0.25)
            if advice.needs.rate_per_s is not None:
                axes.axvline(advice.needs.rate_per_s, color="#aa3333", lw=1, ls="--")
            if advice.needs.p99_ms is not None:
                axes.axhline(advice.needs.p99_ms, color="#aa3333", lw=1, ls="--")
            for order, row in enumerate(rows):
                (each,) = (each["judged"] for each in found if each["row"] == row)
                _chosen(axes, each, f"C{order % 10}", _MARKERS[order % len(_MARKERS)])
            axes.set_ylabel("p99, ms (log scale)")
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=7)
        drawing.axes[-1][0].set_xlabel("calls/s (log scale)")
        return drawing.svg()


def _chosen(axes: Any, each: Judged, colour: str, marker: str) -> None:
    """Full if it meets the needs as measured, half if as far as it was measured, hollow if it is ruled out."""
    rate, p99 = median(each.ops_per_s), median([value / 1e3 for value in each.p99_us])
    open_needs = bool(each.in_state(State.UNMEASURED))
    fill = "none" if not each.meets else "left" if open_needs else "full"
    said = "ruled out" if not each.meets else "meets it, as far as measured" if open_needs else "meets it"
    if rate.low is not None and rate.high is not None and p99.low is not None and p99.high is not None:
        axes.plot([rate.low, rate.high], [p99.value] * 2, "-", color=colour, lw=0.8)
        axes.plot([rate.value] * 2, [p99.low, p99.high], "-", color=colour, lw=0.8)
    label = f"{each.candidate.row}: {said}, {each.kind} time"
    axes.plot([rate.value], [p99.value], marker, ls="", ms=7, color=colour, fillstyle=fill, label=label)


def table(lines: Sequence[Sequence[str]]) -> Styler:
    """A table of `advice_text` for a notebook, with its entries' lines kept."""
    import pandas as pd

    shown = pd.DataFrame(lines[1:], columns=pd.Index(lines[0]))
    return shown.style.hide(axis="index").set_properties(
        **{"white-space": "pre-wrap", "text-align": "left", "vertical-align": "top"}  # type: ignore[arg-type]
    )


# -- panels --------------------------------------------------------------------------------------------


def _classes(found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Rows by durability class, in the order of classes; those of no known class last."""
    order = [str(durability) for durability in Durability]
    classes: dict[str, set[str]] = {}
    for each in found:
        durability = each["durability"]
        classes.setdefault(durability if isinstance(durability, str) else "", set()).add(str(each["row"]))
    ranked = sorted(classes, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: sorted(classes[name]) for name in ranked}


def _colour(durability: str) -> str:
    return _COLOURS.get(durability, _OTHER_COLOUR)


def _said(durability: str) -> str:
    return durability.replace("_", " ") or "durability not recorded"


def _rows_of(axes: Any, rows: Sequence[str], durability: str, title: str, *, named: bool) -> None:
    """A line for each row, the first at the top."""
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows if named else [])
    axes.grid(axis="x", alpha=0.3)
    axes.grid(axis="y", alpha=0.12)
    if title:
        axes.set_title(title)
    if named:
        axes.set_ylabel(_said(durability).replace(" ", "\n"), rotation=0, ha="right", va="center", fontweight="bold")


def _ticks(axis: Any) -> None:
    """Of a logarithmic axis: 1 and 3 of each decade where these are few."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 300 * low else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")  # the default writes powers as formulas


def _handle(marker: str, label: str, *, hollow: bool = False) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], ls="", marker=marker, ms=5, color="#444444", mfc="white" if hollow else "#444444", label=label
    )


def _nothing(words: str) -> str:
    with _Drawing([2], 1) as drawing:
        axes = drawing.axes[0][0]
        axes.axis("off")
        axes.text(0, 0.5, words)
        return drawing.svg()


class _Drawing:
    """A grid of axes, as high as its rows need, and the plots' style for as long as it is drawn."""

    def __init__(
        self,
        rows: Sequence[int],
        columns: int,
        *,
        width: float | None = None,
        spare: float = _PANEL_INCHES,
        **shared: Any,
    ) -> None:
        import matplotlib

        self._style = matplotlib.rc_context(_STYLE)
        self._heights = [spare + _ROW_INCHES * count for count in rows]
        self._size = (width or 3.2 + 3.0 * columns, sum(self._heights) + (0.5 if spare else 2.0))
        self._columns, self._shared = columns, shared

    def __enter__(self) -> _Drawing:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator

        self._fixed = FixedLocator
        self._style.__enter__()
        self.figure = Figure(figsize=self._size, layout="constrained")
        self.axes: Any = self.figure.subplots(
            len(self._heights), self._columns, squeeze=False, height_ratios=self._heights, **self._shared
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._style.__exit__(None, None, None)

    def legend(self, handles: Sequence[Any]) -> None:
        """Below everything."""
        if handles:
            self.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)

    def svg(self) -> str:
        """The picture, with ticks at numbers that people read."""
        for axes in self.axes.flat:
            for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
                if scale == "log" and not isinstance(axis.get_major_locator(), self._fixed):
                    _ticks(axis)
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
