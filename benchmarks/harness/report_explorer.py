"""The interactive plots of a page, by Bokeh: every speed cell as a point and a line, with its figures on hover.

The page holds Bokeh's own script, so that it works from a disk without a network. The filters are the page's own
controls, which can be reached by keyboard; `EXPLORE` applies them to the models that are named here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.cells import Status
from benchmarks.harness.drawing import COLOURS, OTHER_COLOUR
from benchmarks.harness.records import Trial
from benchmarks.harness.report_tables import OPS, entry, form, spread
from benchmarks.harness.table_text import Metric, count, durability_place, microseconds, present
from strategies.interface import Caller

TARGET = "explorer"
"""Id of the element that it is drawn into."""

FILTERS = ("durability", "workload", "caller")
LATENCIES = {"p50": "latency_us_p50", "p90": "latency_us_p90", "p99": "latency_us_p99", "p99.9": "latency_us_p999"}
_PLACES = {"p50": 2.0, "p90": 10.0, "p99": 100.0, "p99.9": 1000.0}
_MARKERS: Mapping[str, str] = {Caller.DRIVER: "circle", Caller.TASK: "triangle"}
_ID = re.compile(r'"id":"(p\d+)"')

EXPLORE = """
const item = JSON.parse(document.getElementById("explorer-data").textContent);
const controls = document.getElementById("explorer-controls");
const explore = () => {
  const [named] = Bokeh.documents.map(each => name => each.get_model_by_name(name));
  const data = named("cells").data;
  const chosen = new Map();
  for (const each of controls.querySelectorAll("input[type=checkbox]")) {
    if (!chosen.has(each.name)) chosen.set(each.name, new Set());
    if (each.checked) chosen.get(each.name).add(each.value);
  }
  const shown = data.row.map((_, place) => [...chosen].every(([name, values]) => values.has(data[name][place])));
  named("shown").booleans = shown;
  const latency = controls.querySelector("select").value;
  for (const glyph of ["glyph", "nonselection_glyph", "hover_glyph", "muted_glyph"]) {
    if (named("points")[glyph] && named("points")[glyph].y) named("points")[glyph].y = {field: latency};
  }
  named("latency-axis").axis_label = `${latency}, ms (log)`;
  named("cells").change.emit();
  document.getElementById("explorer-count").value = `${shown.filter(Boolean).length} of ${shown.length} cells shown`;
};
Bokeh.embed.embed_item(item).then(() => {
  controls.hidden = false;
  controls.addEventListener("change", explore);
  explore();
  document.getElementById("explorer").dataset.ready = "yes";
});
"""
"""The page's own script. It does nothing but show what the controls say."""


@dataclass(frozen=True)
class Explorer:
    """What a page needs to show it."""

    script: str
    """Bokeh's."""
    data: str
    """JSON without a `<`, for `Bokeh.embed.embed_item`."""
    choices: Mapping[str, Sequence[tuple[str, str | None]]]
    """By filter: values, and their colour where they have one."""
    latency: str
    """Which of `LATENCIES` is shown at first."""
    cells: int


def explorer(trials: Sequence[Trial]) -> Explorer | None:
    """Of a run's speed trials; None where none was measured."""
    columns = _columns(trials)
    if not columns["row"]:
        return None
    from bokeh.core.types import ID
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    resources = Resources(mode="inline", components=["bokeh"], log_level="error")
    latency = _most_known(columns)
    item = json.dumps(json_item(_layout(columns, latency), ID(TARGET)), separators=(",", ":"), allow_nan=False)
    return Explorer(
        script="\n".join(resources.js_raw).replace("</script", "<\\/script"),
        data=_numbered(item).replace("<", "\\u003c"),
        choices={name: _choices(columns, name) for name in FILTERS},
        latency=latency,
        cells=len(columns["row"]),
    )


def _columns(trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """A place in each for every cell that has a throughput."""
    cells: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        if trial.fault is None:
            cells.setdefault((trial.row, trial.workload, trial.caller, form(trial)), []).append(trial)
    names = ("row", *FILTERS, "form", "rate", "rate_words", "marker", "colour", "fill", "trust", "places", "latencies")
    columns: dict[str, list[Any]] = {name: [] for name in (*names, *LATENCIES)}
    columns |= {f"{name}_words": [] for name in LATENCIES}
    for (row, workload, caller, called), cell in cells.items():
        rate = spread(cell, OPS)
        if rate is None or rate.value <= 0 or any(trial.status != Status.OK for trial in cell):
            continue
        durability = cell[0].durability or "unknown"
        trusted = all(trial.trusted for trial in cell)
        colour = COLOURS.get(durability, OTHER_COLOUR)
        known: dict[str, float] = {}
        for name, key in LATENCIES.items():
            metric = Metric(name, lambda trial, key=key: getattr(trial, key), microseconds)  # type: ignore[misc]
            found = spread(cell, metric)
            columns[name].append(None if found is None else found.value / 1e3)
            columns[f"{name}_words"].append(entry(cell, metric))
            known |= {} if found is None else {name: found.value / 1e3}
        values: Mapping[str, Any] = {
            "row": row,
            "durability": durability,
            "workload": workload,
            "caller": caller,
            "form": called,
            "rate": rate.value,
            "rate_words": entry(cell, Metric(OPS.title, OPS.value, count)),
            "marker": _MARKERS.get(caller, "square"),
            "colour": colour,
            "fill": colour if trusted else "white",
            "trust": "trusted" if trusted else "a trial distrusts itself",
            "places": [_PLACES[name] for name in known],
            "latencies": list(known.values()),
        }
        for name, value in values.items():
            columns[name].append(value)
    return columns


def _layout(columns: Mapping[str, Sequence[Any]], latency: str) -> Any:
    from bokeh.layouts import column
    from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, HoverTool, NumeralTickFormatter
    from bokeh.plotting import figure

    source = ColumnDataSource({name: list(values) for name, values in columns.items()}, name="cells")
    view = CDSView(filter=BooleanFilter(booleans=[True] * len(columns["row"]), name="shown"))
    told = [("", "@row"), ("durability", "@durability"), ("called", "@workload from a @caller, @form")]
    told += [("calls/s", "@rate_words"), *((f"{name} µs", f"@{{{name}_words}}") for name in LATENCIES), ("", "@trust")]
    common: dict[str, Any] = {
        "sizing_mode": "stretch_width",
        "height": 400,
        "tools": "pan,box_zoom,wheel_zoom,reset",
        "active_scroll": None,
        "x_axis_type": "log",
        "y_axis_type": "log",
    }
    against = figure(**common, title="Latency against rate: better is to the right and below")
    against.xaxis.axis_label = "calls/s (log)"
    against.yaxis.name = "latency-axis"
    points = against.scatter(
        "rate",
        latency,
        source=source,
        view=view,
        marker="marker",
        size=11,
        line_color="colour",
        line_width=1.5,
        fill_color="fill",
        fill_alpha=0.75,
        name="points",
    )
    curves = figure(**common, title="Latency percentiles: a line for each cell")
    curves.xaxis.axis_label = "share of calls that take at most so long, on an axis of 1/(1-p)"
    curves.xaxis.ticker = list(_PLACES.values())
    curves.xaxis.major_label_overrides = {place: f"{100 - 100 / place:g} %" for place in _PLACES.values()}
    curves.yaxis.axis_label = "ms (log)"
    lines = curves.multi_line(
        "places",
        "latencies",
        source=source,
        view=view,
        line_color="colour",
        line_width=1.5,
        line_alpha=0.7,
        hover_line_color="#d55e00",
        hover_line_alpha=1.0,
    )
    against.xaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    for axis in (against.yaxis, curves.yaxis):
        axis.formatter = NumeralTickFormatter(format="0,0.[0000]")
    for plot, drawn in ((against, points), (curves, lines)):
        plot.add_tools(HoverTool(tooltips=told, renderers=[drawn]))
    return column(against, curves, sizing_mode="stretch_width")


def _choices(columns: Mapping[str, Sequence[Any]], name: str) -> list[tuple[str, str | None]]:
    """Durability classes from the weakest on."""
    values = present(columns[name])
    if name != "durability":
        return [(value, None) for value in values]
    return [(value, COLOURS.get(value, OTHER_COLOUR)) for value in sorted(values, key=durability_place)]


def _most_known(columns: Mapping[str, Sequence[Any]]) -> str:
    """The p99, or where more than half of the cells have none, the p50."""
    known = sum(value is not None for value in columns["p99"])
    return "p99" if 2 * known >= len(columns["p99"]) else "p50"


def _numbered(item: str) -> str:
    """With ids that count from 1: Bokeh's count what a process made before, so that no page would be like another."""
    places = {name: f"m{place}" for place, name in enumerate(dict.fromkeys(_ID.findall(item)), start=1)}
    return re.sub(r'"(p\d+)"', lambda found: f'"{places.get(found[1], found[1])}"', item)
