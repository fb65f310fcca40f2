"""Tables, plots and the page of a run: a function of its files alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.harness.cells import Status
from benchmarks.harness.records import RunError, Trial, read
from benchmarks.harness.statistics import Summary, summary
from strategies.interface import Caller, Durability

MARKS = {Status.NOT_APPLICABLE: "n/a", Status.RESOURCE_MISSING: "missing", Status.FAILED: "failed"}
"""How what was not measured is shown: three different things."""

SUMMARY_WORKLOAD = "ycsb_a"
"""What one table shows where there is room for one workload."""

_DURABILITY_ORDER = {durability: place for place, durability in enumerate(Durability)}
_COLOURS = {"volatile": "#7a8ba0", "process_crash": "#3a7ca5", "power_loss": "#1b4965", "replicated": "#2a9d8f"}


@dataclass(frozen=True)
class Metric:
    """One column of the tables: which figure of which trials, and how it is written."""

    title: str
    value: Callable[[Trial], float | None]
    write: Callable[[float], str]
    spread: bool = True
    """Whether to show the range over repeats too."""


def write(folder: Path) -> Path:
    """Write `table.md` and `report.html` into the run's folder; returns the page's path."""
    about, trials = read(folder)
    try:
        (folder / "table.md").write_text(tables(about, trials))
        page = folder / "report.html"
        page.write_text(_page(about, trials))
    except OSError as error:
        raise RunError(f"the report cannot be written into {folder}: {error.filename}: {error.strerror}") from error
    return page


def tables(about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """All of a run's tables, as Markdown."""
    parts = [f"# Run of {about['started']}", ""]
    for heading, table in [_first_section(trials), *_sections(trials)]:
        parts += [f"## {heading}", "", *_markdown(table), ""]
    parts += [*_notes(trials), *provenance(about, trials)]
    return "\n".join(parts) + "\n"


def summary_table(trials: Sequence[Trial], workload: str) -> str:
    """One row per strategy and variant: its speed on one workload, and what faults left of the money."""
    return "\n".join(_markdown(_summary(trials, workload)))


def _summary(trials: Sequence[Trial], workload: str | None) -> list[list[str]]:
    by_cell = _by_cell(trials)
    callers = _present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload)
    faults = _present(trial.fault for trial in trials)
    header = ["strategy", "durability"]
    header += [f"{metric.title}, {caller}" for caller in callers for metric in _SPEED]
    header += [f"deposits lost by {fault}" for fault in faults]
    rows = []
    for strategy, variant, durability in _rows(trials):
        speeds = [
            _entry(by_cell.get((strategy, variant, workload or "", caller, None), ()), metric)
            for caller in callers
            for metric in _SPEED
        ]
        lost = [_lost(_of_fault(by_cell, strategy, variant, fault)) for fault in faults]
        rows.append([f"{strategy}:{variant}", durability, *speeds, *lost])
    return [header, *rows]


def provenance(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[str]:
    """Where numbers come from: machine, versions, seed, command."""
    machine = about["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    repeats = max((trial.repeat for trial in trials if trial.fault is None), default=0) + 1
    clients = ", ".join(str(clients) for clients in sorted({trial.clients for trial in trials if trial.fault is None}))
    return [
        f"Median (lowest–highest) of {repeats} trials with {clients or 'no'} callers in a closed loop; latency is "
        f"service time. Measured on {machine['cores_usable']} cores of {machine['cpu']}, {machine['system']}; "
        f"{versions}; commit {about['commit'][:10]}; seed {about['plan']['seed']}; command: `{about['command']}`.",
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
    return "\n".join(_markdown([header, *rows]))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


_OPS = Metric("calls/s", lambda trial: trial.ops_per_s, _count)
_P50 = Metric("p50 µs", lambda trial: trial.latency_us_p50, _microseconds, spread=False)
_P99 = Metric("p99 µs", lambda trial: trial.latency_us_p99, _microseconds, spread=False)
_SPEED = (_OPS, _P50, _P99)
_FAULT = (
    Metric("acknowledged", lambda trial: trial.acknowledged, _count, spread=False),
    Metric("of these lost", lambda trial: trial.acknowledged_lost, _count),
    Metric("duplicated", lambda trial: trial.duplicated, _count, spread=False),
    Metric("unknown to the caller", lambda trial: trial.indeterminate, _count, spread=False),
    Metric("of these applied", lambda trial: trial.indeterminate_applied, _count, spread=False),
    Metric("longest outage s", lambda trial: trial.unavailable_s, _seconds),
    Metric("noticed after s", lambda trial: trial.detection_s, _seconds, spread=False),
    Metric("served again after s", lambda trial: trial.recovery_s, _seconds, spread=False),
)


def _first_section(trials: Sequence[Trial]) -> tuple[str, list[list[str]]]:
    workloads = _present(trial.workload for trial in trials if trial.fault is None)
    workload = SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in workloads else next(iter(workloads), None)
    heading = f"Summary, {workload}" if workload else "Summary"
    return heading, _summary(trials, workload)


def _sections(trials: Sequence[Trial]) -> list[tuple[str, list[list[str]]]]:
    by_cell = _by_cell(trials)
    sections = []
    for workload in _present(trial.workload for trial in trials if trial.fault is None):
        for caller in _present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload):
            rows = [
                [
                    f"{strategy}:{variant}",
                    durability,
                    *(
                        _entry(by_cell.get((strategy, variant, workload, caller, None), ()), metric)
                        for metric in _SPEED
                    ),
                ]
                for strategy, variant, durability in _rows(trials)
            ]
            header = ["strategy", "durability", *(metric.title for metric in _SPEED)]
            sections.append((f"{workload}, called from a {caller}", [header, *rows]))
    for fault in _present(trial.fault for trial in trials):
        rows = []
        for strategy, variant, durability in _rows(trials):
            cell = _of_fault(by_cell, strategy, variant, fault)
            entries = [
                _entry(cell, metric, absent="never" if metric.title.startswith("served") else "-") for metric in _FAULT
            ]
            rows.append([f"{strategy}:{variant}", durability, *entries, _verdicts(cell)])
        header = ["strategy", "durability", *(metric.title for metric in _FAULT), "verdict"]
        sections.append((f"{fault}: unit deposits around a fault", [header, *rows]))
    return sections


def _notes(trials: Sequence[Trial]) -> list[str]:
    notes = []
    for trial in trials:
        what = f"{trial.row}, {trial.fault or trial.workload}, {trial.caller}"
        if trial.status != Status.OK and (trial.repeat == 0 or trial.status == Status.FAILED):
            notes.append(f"- {MARKS[Status(trial.status)]}: {what}: {trial.reason}")
        elif trial.trusted is False:
            notes.append(f"- not trusted: {what}, repeat {trial.repeat}: {trial.distrust}")
    return [*sorted(notes), ""] if notes else []


def _by_cell(trials: Sequence[Trial]) -> dict[tuple[str, str, str, str, str | None], list[Trial]]:
    cells: dict[tuple[str, str, str, str, str | None], list[Trial]] = {}
    for trial in trials:
        cells.setdefault((trial.strategy, trial.variant, trial.workload, trial.caller, trial.fault), []).append(trial)
    return cells


def _of_fault(
    cells: Mapping[tuple[str, str, str, str, str | None], list[Trial]], strategy: str, variant: str, fault: str
) -> list[Trial]:
    return [
        trial
        for key, found in cells.items()
        if (key[0], key[1], key[4]) == (strategy, variant, fault)
        for trial in found
    ]


def _rows(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Strategies and variants by durability class: results are compared within one."""
    found = {(trial.strategy, trial.variant, trial.durability or "") for trial in trials}
    return sorted(found, key=lambda row: (_DURABILITY_ORDER[Durability(row[2])], row))


def _present(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _spread(trials: Sequence[Trial], metric: Metric) -> Summary | None:
    values = [value for trial in trials if trial.status == Status.OK and (value := metric.value(trial)) is not None]
    return summary(values) if values else None


def _entry(trials: Sequence[Trial], metric: Metric, absent: str = "-") -> str:
    """A figure, or the mark of why there is none. Distrusted figures are marked with an asterisk."""
    if not trials:
        return "not run"
    if any(trial.status == Status.FAILED for trial in trials):
        return MARKS[Status.FAILED]
    if trials[0].status != Status.OK:
        return MARKS[Status(trials[0].status)]
    found = _spread(trials, metric)
    if found is None:
        return absent
    text = metric.write(found.median)
    if metric.spread and found.low != found.high:
        text += f" ({metric.write(found.low)}–{metric.write(found.high)})"
    return text if all(trial.trusted for trial in trials) else f"{text}*"


def _lost(trials: Sequence[Trial]) -> str:
    mark = _entry(trials, _FAULT[1])
    acknowledged = sum(trial.acknowledged or 0 for trial in trials)
    if not acknowledged:
        return mark
    lost = sum(trial.acknowledged_lost or 0 for trial in trials)
    return f"{lost:,} of {acknowledged:,}"


def _verdicts(trials: Sequence[Trial]) -> str:
    return ", ".join(_present(trial.verdict for trial in trials)).replace("_", " ") or "-"


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(entry).replace("|", "\\|") for entry in line) + " |" for line in lines]


# -- plots and page --------------------------------------------------------------------------------


def plot_speed(trials: Sequence[Trial], workload: str, metric: Metric = _OPS) -> str:
    """A bar per strategy and variant and caller, with the range over repeats, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["text.parse_math"] = False  # names are the users', not formulas
    matplotlib.rcParams["svg.hashsalt"] = "dask-state-bench"  # the same figure gives the same file
    from matplotlib import pyplot

    rows = list(reversed(_rows(trials)))
    callers = _present(trial.caller for trial in trials if trial.workload == workload and trial.fault is None)
    figure, axes = pyplot.subplots(
        figsize=(8, 1.2 + 0.36 * len(rows) * max(1, len(callers)) ** 0.5), layout="constrained"
    )
    by_cell = _by_cell(trials)
    height = 0.8 / max(1, len(callers))
    for place, (strategy, variant, durability) in enumerate(rows):
        for order, caller in enumerate(callers):
            cell = by_cell.get((strategy, variant, workload, caller, None), ())
            at = place + 0.4 - height * (order + 0.5)
            found = _spread(cell, metric)
            if found is None:
                axes.text(0.01, at, _entry(cell, metric), transform=axes.get_yaxis_transform(), va="center", fontsize=7)
                continue
            axes.barh(
                at,
                found.median,
                height * 0.92,
                color=_COLOURS[durability],
                hatch="" if caller == Caller.DRIVER else "///",
                edgecolor="white",
                xerr=[[found.median - found.low], [found.high - found.median]],
                error_kw={"lw": 0.8},
            )
            axes.text(found.high * 1.05, at, metric.write(found.median), va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [f"{strategy}:{variant}" for strategy, variant, _ in rows], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")  # the default writes powers as formulas
    axes.xaxis.set_minor_formatter("")
    # Several times the range, so that a decade is in it: without one, every minor tick gets a label.
    drawn = [found for cell in by_cell.values() if (found := _spread(cell, metric)) is not None]
    if drawn:
        axes.set_xlim(min(found.low for found in drawn) / 4, max(found.high for found in drawn) * 4)
    axes.set_xlabel(f"{metric.title}, {workload} (log scale)")
    handles = [
        matplotlib.patches.Patch(color=_COLOURS[name], label=name.replace("_", " "))
        for name in _present(row[2] for row in rows)
    ]
    handles += [
        matplotlib.patches.Patch(
            facecolor="#bbbbbb",
            edgecolor="white",
            hatch="" if caller == Caller.DRIVER else "///",
            label=f"called from a {caller}",
        )
        for caller in callers
    ]
    axes.legend(handles=handles, fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.1), ncols=5, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()


def _page(about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    plots = []
    for workload in _present(trial.workload for trial in trials if trial.fault is None and trial.status == Status.OK):
        for metric in (_OPS, _P50):
            svg = plot_speed(trials, workload, metric)
            plots.append({"title": f"{metric.title}, {workload}", "svg": svg[svg.index("<svg") :]})
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_TEMPLATE).render(
        about=about,
        sections=[_first_section(trials), *_sections(trials)],
        plots=plots,
        notes=_notes(trials),
        provenance=provenance(about, trials),
    )


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Where Dask state can live: run of {{ about.started }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
th { white-space: normal; vertical-align: bottom; }
.scroll { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } code { font-size: 90%; }
</style>
</head>
<body>
<h1>Where Dask state can live, measured</h1>
{% if not about.finished %}<p><strong>This run was not finished.</strong></p>{% endif %}
{% for line in provenance %}<p>{{ line | replace("`", "") }}</p>{% endfor %}
<p><strong>n/a</strong>: the strategy does not claim it, or the fault cannot reach it.
<strong>missing</strong>: a resource was not there. <strong>failed</strong>: it broke.
<strong>*</strong>: a trial distrusts itself. Compare rows of one
durability class: a store that survives more does more.</p>
{% for heading, table in sections %}
<h2>{{ heading }}</h2>
<div class="scroll"><table>
<thead><tr>{% for entry in table[0] %}<th>{{ entry }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table[1:] %}<tr>{% for entry in row %}<td>{{ entry }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
<h2>Plots</h2>
{% for plot in plots %}
<figure><figcaption><strong>{{ plot.title }}</strong> (the same figures are in the tables above)</figcaption>
{{ plot.svg | safe }}</figure>
{% endfor %}
{% if notes %}<h2>Not measured, or not trusted</h2>
<ul>{% for note in notes %}{% if note %}<li>{{ note[2:] }}</li>{% endif %}{% endfor %}</ul>{% endif %}
</body>
</html>
"""
