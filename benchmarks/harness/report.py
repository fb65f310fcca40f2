"""Tables, plots and the page of a run: a function of its files alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.harness import curves
from benchmarks.harness.cells import Status
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import RunError, Trial, read
from strategies.interface import Caller, Durability

MARKS = {Status.NOT_APPLICABLE: "n/a", Status.RESOURCE_MISSING: "missing", Status.FAILED: "failed"}
"""How what was not measured is shown: three different things."""

REPLAYED = (
    "status",
    "reason",
    "seed",
    "fault_at_s",
    "fault_lasts_s",
    "fault_target",
    "acknowledged",
    "acknowledged_lost",
    "duplicated",
    "indeterminate",
    "indeterminate_applied",
    "unavailable_s",
    "recovery_s",
    "linearizable",
    "verdict",
)
"""What `replay` shows of a trial."""

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
    """Whether to show its interval over repeats too."""


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
    for heading, table in _all_sections(about, trials):
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
    kinds = " and ".join(
        words
        for kind, words in (
            ("service", "service time, from the call to its answer"),
            ("response", "response time, from when it was due"),
        )
        if any(trial.latency_kind == kind and trial.fault is None for trial in trials)
    )
    return [
        f"Median (95 % bootstrap interval) of {repeats} trials with {clients or 'no'} callers; latency is "
        f"{kinds or 'not measured'}. Measured on {machine['cores_usable']} cores of {machine['cpu']}, "
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
    return "\n".join(_markdown([header, *rows]))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


_OFFERED = Metric("offered/s", lambda trial: trial.offered_per_s, _count, spread=False)
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


def _all_sections(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[tuple[str, list[list[str]]]]:
    if len(_forms(trials)) > 1:
        return [*_findings(about), *_series(trials)]
    return [_first_section(trials), *_sections(trials)]


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
    several = len(_forms(trials)) > 1
    for trial in trials:
        what = f"{trial.row}, {trial.fault or trial.workload}, {trial.caller}{f', {form(trial)}' if several else ''}"
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


def _forms(trials: Sequence[Trial]) -> list[str]:
    """Every form that speed was measured in, from the least offered to the most."""
    found = {form(trial): (trial.offered_per_s or 0.0, trial.clients) for trial in trials if trial.fault is None}
    return sorted(found, key=lambda name: found[name])


def _series(trials: Sequence[Trial]) -> list[tuple[str, list[list[str]]]]:
    """Where cells were measured in several forms: a table for each workload and caller, with a line for each form."""
    metrics = (_OFFERED, *_SPEED) if any(trial.offered_per_s for trial in trials) else _SPEED
    sections = []
    for workload in _present(trial.workload for trial in trials):
        for caller in _present(trial.caller for trial in trials if trial.workload == workload):
            lines = []
            for strategy, variant, durability in _rows(trials):
                cell = [
                    t for t in trials if (t.row, t.workload, t.caller) == (f"{strategy}:{variant}", workload, caller)
                ]
                for name in _forms(cell):
                    of_form = [trial for trial in cell if form(trial) == name]
                    figures = [_entry(of_form, metric) for metric in metrics]
                    lines.append([f"{strategy}:{variant}", durability, name, *figures])
            header = ["strategy", "durability", "form", *(metric.title for metric in metrics)]
            sections.append((f"{workload}, called from a {caller}", [header, *lines]))
    return sections


def _findings(about: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
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
                found["reason"] if found["rate_per_s"] is None else _count(found["rate_per_s"]),
                "-" if found["above_per_s"] is None else _count(found["above_per_s"]),
                "-" if found["latency_us_p99"] is None else _microseconds(found["latency_us_p99"]),
            ]
            for found in about["search"]
        ]
        sections.append(("Highest rate that keeps the target", [header, *lines]))
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
        sections.append(("Universal Scalability Law, with 95 % intervals", [header, *lines]))
    return sections


def _interval(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "none in sight"
    text = f"{estimate['value']:,.4g}"
    if estimate["low"] is not None and estimate["high"] is not None:
        text += f" ({estimate['low']:,.4g}–{estimate['high']:,.4g})"
    return text


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


def _spread(trials: Sequence[Trial], metric: Metric) -> Estimate | None:
    """None unless every trial has the figure: those with a p99 are the fast ones, those that recovered the lucky."""
    values = [metric.value(trial) for trial in trials if trial.status == Status.OK]
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


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
    text = metric.write(found.value)
    if metric.spread and found.low is not None and found.high is not None and found.low != found.high:
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
    """A bar per strategy and variant and caller, with the interval over repeats, as SVG."""
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
            if found is None or found.value <= 0:  # no place on a logarithmic axis
                axes.text(0.01, at, _entry(cell, metric), transform=axes.get_yaxis_transform(), va="center", fontsize=7)
                continue
            low, high = _ends(found)
            axes.barh(
                at,
                found.value,
                height * 0.92,
                color=_COLOURS[durability],
                hatch="" if caller == Caller.DRIVER else "///",
                edgecolor="white",
                xerr=[[found.value - low], [high - found.value]],
                error_kw={"lw": 0.8},
            )
            axes.text(high * 1.05, at, metric.write(found.value), va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [f"{strategy}:{variant}" for strategy, variant, _ in rows], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")  # the default writes powers as formulas
    axes.xaxis.set_minor_formatter("")
    # Several times the range, so that a decade is in it: without one, every minor tick gets a label.
    drawn = [found for cell in by_cell.values() if (found := _spread(cell, metric)) is not None and found.value > 0]
    if drawn:
        axes.set_xlim(min(_ends(found)[0] for found in drawn) / 4, max(_ends(found)[1] for found in drawn) * 4)
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


def _ends(found: Estimate) -> tuple[float, float]:
    """Of its interval; of one trial, which has none, the trial itself."""
    if found.low is None or found.high is None or found.low <= 0:
        return found.value, found.value
    return found.low, found.high


def _speed_plots(trials: Sequence[Trial]) -> list[tuple[str, str]]:
    workloads = _present(trial.workload for trial in trials if trial.fault is None and trial.status == Status.OK)
    return [
        (f"{metric.title}, {workload}", plot_speed(trials, workload, metric))
        for workload in workloads
        for metric in (_OPS, _P50)
    ]


def _series_plots(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[tuple[str, str]]:
    plots = []
    over = {found["over"] for found in about.get("sweep") or ()}
    for workload in _present(trial.workload for trial in trials):
        for caller in _present(trial.caller for trial in trials if trial.workload == workload):
            cell = [t for t in trials if (t.workload, t.caller) == (workload, caller) and t.status == Status.OK]
            title = f"{workload}, called from a {caller}"
            if any(trial.arrivals != Arrivals.CLOSED for trial in cell):
                plots.append((f"Latency over throughput, {title}", curves.latency_over_throughput(cell, title)))
            plots += [
                (f"Throughput over {what}, {title}", curves.throughput_over(cell, what, about["sweep"], title))
                for what in sorted(over)
            ]
    return plots


def _page(about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    plots = [
        {"title": title, "svg": svg[svg.index("<svg") :]}
        for title, svg in (_series_plots(about, trials) if len(_forms(trials)) > 1 else _speed_plots(trials))
    ]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_TEMPLATE).render(
        about=about,
        sections=_all_sections(about, trials),
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
.forms th:nth-child(3), .forms td:nth-child(3) { text-align: left; }
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
<div class="scroll"><table{% if "form" in table[0] %} class="forms"{% endif %}>
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
