"""Tables, plots and the page of a run: a function of its files alone."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from benchmarks.harness import curves, failure_figures, failure_outcomes, failure_pictures
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import RunError, Trial, read
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
from strategies.interface import Caller

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

_COLOURS = {"volatile": "#7a8ba0", "process_crash": "#3a7ca5", "power_loss": "#1b4965", "replicated": "#2a9d8f"}
_OTHER_COLOUR = "#bbbbbb"


def write(folder: Path) -> Path:
    """Write `table.md` and `report.html` into the run's folder; returns the page's path."""
    about, trials = read(folder)
    try:
        (folder / "table.md").write_text(tables(about, trials))
        page = folder / "report.html"
        page.write_text(_page(folder, about, trials))
    except OSError as error:
        raise RunError(f"the report cannot be written into {folder}: {error.filename}: {error.strerror}") from error
    return page


def tables(about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """All of a run's tables, as Markdown."""
    cells = failure_figures.aggregate(trials)
    parts = [f"# Run of {about['started']}", ""]
    for section in _all_sections(about, trials, cells):
        parts += [f"## {section.heading}", "", *markdown(section.lines), ""]
    parts += [failure_outcomes.LEGEND, "", *_against_claims(cells), ""] if cells else []
    parts += [*_notes(trials), *provenance(about, trials)]
    return "\n".join(parts) + "\n"


def summary_table(trials: Sequence[Trial], workload: str) -> str:
    """One row per strategy and variant: its speed on one workload, and what faults left of the money."""
    return "\n".join(markdown(_summary(trials, workload)))


def _summary(trials: Sequence[Trial], workload: str | None) -> list[list[str]]:
    by_cell = _by_cell(trials)
    callers = present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload)
    faults = _summed_up(trials)
    header = ["strategy", "durability"]
    header += [f"{metric.title}, {caller}" for caller in callers for metric in _SPEED]
    header += [f"deposits lost by {fault}" for fault in faults]
    rows = []
    for strategy, variant, durability in _rows(trials):
        speeds = [
            _entry(by_cell.get((strategy, variant, workload or "", caller), ()), metric)
            for caller in callers
            for metric in _SPEED
        ]
        lost = [
            _lost([each for each in trials if (each.strategy, each.variant, each.fault) == (strategy, variant, fault)])
            for fault in faults
        ]
        rows.append([f"{strategy}:{variant}", durability, *speeds, *lost])
    return [header, *rows]


def _summed_up(trials: Sequence[Trial]) -> list[str]:
    """Faults that each row met in one way: what was lost in several ways of calling is not one figure."""
    ways: dict[tuple[str, str], set[tuple[str, str | None]]] = {}
    for trial in trials:
        if trial.fault is not None:
            ways.setdefault((trial.fault, trial.row), set()).add((trial.caller, trial.retry))
    several = {fault for (fault, _), found in ways.items() if len(found) > 1}
    return present(fault for fault, _ in ways if fault not in several)


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
_OPS = Metric("calls/s", lambda trial: trial.ops_per_s, count)
_P50 = Metric("p50 µs", lambda trial: trial.latency_us_p50, microseconds, spread=False)
_P99 = Metric("p99 µs", lambda trial: trial.latency_us_p99, microseconds, spread=False)
_SPEED = (_OPS, _P50, _P99)
_LOST = Metric("lost", lambda trial: trial.acknowledged_lost, count)


def _all_sections(about: Mapping[str, Any], trials: Sequence[Trial], cells: Sequence[FaultFigures]) -> list[Section]:
    if len(_forms(trials)) > 1:
        return [*_findings(about), *_series(trials), *failure_outcomes.sections(cells)]
    speed = [_first_section(trials), *_sections(trials)] if len(_forms(trials)) or not cells else []
    return [*speed, *failure_outcomes.sections(cells)]


def _first_section(trials: Sequence[Trial]) -> Section:
    workloads = present(trial.workload for trial in trials if trial.fault is None)
    workload = SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in workloads else next(iter(workloads), None)
    return Section(f"Summary, {workload}" if workload else "Summary", _summary(trials, workload))


def _sections(trials: Sequence[Trial]) -> list[Section]:
    by_cell = _by_cell(trials)
    sections = []
    for workload in present(trial.workload for trial in trials if trial.fault is None):
        for caller in present(trial.caller for trial in trials if trial.fault is None and trial.workload == workload):
            rows = [
                [
                    f"{strategy}:{variant}",
                    durability,
                    *(_entry(by_cell.get((strategy, variant, workload, caller), ()), metric) for metric in _SPEED),
                ]
                for strategy, variant, durability in _rows(trials)
            ]
            header = ["strategy", "durability", *(metric.title for metric in _SPEED)]
            sections.append(Section(f"{workload}, called from a {caller}", [header, *rows]))
    return sections


def _against_claims(cells: Sequence[FaultFigures]) -> list[str]:
    """What breaks a build; nothing where no cell was measured."""
    if not any(cell.verdicts for cell in cells):
        return []
    return failure_outcomes.mismatches(cells) or ["Every cell with a verdict is as its strategy claims."]


def _notes(trials: Sequence[Trial]) -> list[str]:
    notes = []
    several = len(_forms(trials)) > 1
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


def _forms(trials: Sequence[Trial]) -> list[str]:
    """Every form that speed was measured in, from the least offered to the most."""
    found = {form(trial): (trial.offered_per_s or 0.0, trial.clients) for trial in trials if trial.fault is None}
    return sorted(found, key=lambda name: found[name])


def _series(trials: Sequence[Trial]) -> list[Section]:
    """Where cells were measured in several forms: a table for each workload and caller, with a line for each form."""
    metrics = (_OFFERED, *_SPEED) if any(trial.offered_per_s for trial in trials) else _SPEED
    sections = []
    for workload in present(trial.workload for trial in trials):
        for caller in present(trial.caller for trial in trials if trial.workload == workload):
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
            sections.append(Section(f"{workload}, called from a {caller}", [header, *lines], 3))
    return sections


def _findings(about: Mapping[str, Any]) -> list[Section]:
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
    text = f"{estimate['value']:,.4g}"
    if estimate["low"] is not None and estimate["high"] is not None:
        text += f" ({estimate['low']:,.4g}–{estimate['high']:,.4g})"
    return text


def _by_cell(trials: Sequence[Trial]) -> dict[tuple[str, str, str, str], list[Trial]]:
    """Of speed, in one form."""
    cells: dict[tuple[str, str, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.fault is None:
            cells.setdefault((trial.strategy, trial.variant, trial.workload, trial.caller), []).append(trial)
    return cells


def _rows(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Strategies and variants by durability class: results are compared within one."""
    return sorted({(trial.strategy, trial.variant, trial.durability or "") for trial in trials}, key=by_durability)


def _spread(trials: Sequence[Trial], metric: Metric) -> Estimate | None:
    """None unless every trial has the figure: those with a p99 are the fast ones, those that recovered the lucky."""
    values = [metric.value(trial) for trial in trials if trial.status == Status.OK]
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def _entry(trials: Sequence[Trial], metric: Metric) -> str:
    """A figure, or the mark of why there is none. Distrusted figures are marked with an asterisk."""
    if not trials:
        return "not run"
    if any(trial.status == Status.FAILED for trial in trials):
        return MARKS[Status.FAILED]
    if trials[0].status != Status.OK:
        return MARKS[Status(trials[0].status)]
    found = _spread(trials, metric)
    if found is None:
        return NO_FIGURE
    text = estimate(found, metric.write, spread=metric.spread)
    return text if all(trial.trusted for trial in trials) else f"{text}*"


def _lost(trials: Sequence[Trial]) -> str:
    mark = _entry(trials, _LOST)
    acknowledged = sum(trial.acknowledged or 0 for trial in trials)
    if not acknowledged:
        return mark
    lost = sum(trial.acknowledged_lost or 0 for trial in trials)
    return f"{lost:,} of {acknowledged:,}"


# -- plots and page --------------------------------------------------------------------------------


def plot_speed(trials: Sequence[Trial], workload: str, metric: Metric = _OPS) -> str:
    """A bar per strategy and variant and caller, with the interval over repeats, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["text.parse_math"] = False  # names are the users', not formulas
    matplotlib.rcParams["svg.hashsalt"] = "dask-state-bench"  # the same figure gives the same file
    from matplotlib import pyplot

    rows = list(reversed(_rows(trials)))
    callers = present(trial.caller for trial in trials if trial.workload == workload and trial.fault is None)
    figure, axes = pyplot.subplots(
        figsize=(8, 1.2 + 0.36 * len(rows) * max(1, len(callers)) ** 0.5), layout="constrained"
    )
    by_cell = _by_cell(trials)
    height = 0.8 / max(1, len(callers))
    for place, (strategy, variant, durability) in enumerate(rows):
        for order, caller in enumerate(callers):
            cell = by_cell.get((strategy, variant, workload, caller), ())
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
                color=_COLOURS.get(durability, _OTHER_COLOUR),
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
        matplotlib.patches.Patch(color=_COLOURS.get(name, _OTHER_COLOUR), label=name.replace("_", " "))
        for name in present(row[2] for row in rows)
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
    workloads = present(trial.workload for trial in trials if trial.fault is None and trial.status == Status.OK)
    return [
        (f"{metric.title}, {workload}", plot_speed(trials, workload, metric))
        for workload in workloads
        for metric in (_OPS, _P50)
    ]


def _series_plots(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[tuple[str, str]]:
    plots = []
    over = {found["over"] for found in about.get("sweep") or ()}
    for workload in present(trial.workload for trial in trials):
        for caller in present(trial.caller for trial in trials if trial.workload == workload):
            cell = [t for t in trials if (t.workload, t.caller) == (workload, caller) and t.status == Status.OK]
            title = f"{workload}, called from a {caller}"
            if any(trial.arrivals != Arrivals.CLOSED for trial in cell):
                plots.append((f"Latency over throughput, {title}", curves.latency_over_throughput(cell, title)))
            plots += [
                (f"Throughput over {what}, {title}", curves.throughput_over(cell, what, about["sweep"], title))
                for what in sorted(over)
            ]
    return plots


def _page(folder: Path, about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    plots = [
        {"title": title, "svg": svg[svg.index("<svg") :]}
        for title, svg in (_series_plots(about, trials) if len(_forms(trials)) > 1 else _speed_plots(trials))
    ]
    cells = failure_figures.aggregate(trials)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["tone"] = _tone
    return environment.from_string(_TEMPLATE).render(
        about=about,
        sections=_all_sections(about, trials, cells),
        plots=plots,
        speed=any(trial.fault is None for trial in trials),
        legend=_emphasised(failure_outcomes.LEGEND) if cells else "",
        against_claims=_against_claims(cells),
        mismatches=sum(cell.mismatch is not None for cell in cells),
        timelines=failure_pictures.timelines(folder, trials),
        violations=failure_pictures.violations(folder, trials),
        notes=_notes(trials),
        provenance=provenance(about, trials),
    )


def _emphasised(words: str) -> markupsafe.Markup:
    """Markdown's bold and escapes, for HTML."""
    escaped = str(markupsafe.escape(words)).replace("\\*", "&#42;")
    return markupsafe.Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped))


def _tone(entry: str) -> str:
    """The class of a matrix's entry, for a tint beside the words."""
    if entry == MARKS[Status.FAILED]:
        return "failed"
    if entry in (*MARKS.values(), NO_FIGURE):
        return "absent"
    if not entry.endswith("!") and entry.startswith((failure_outcomes.SURVIVES, failure_outcomes.NOBODY_ASKED)):
        return "kept"
    return "hurt"


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
th { white-space: normal; vertical-align: bottom; }
.text { text-align: left; }
.matrix td { text-align: left; vertical-align: top; white-space: normal; min-width: 7rem; line-height: 1.3; }
.matrix th { text-align: left; }
.kept { background: #e8f3ec; } .hurt { background: #fdeedd; } .absent { color: #6b6b6b; }
.failed { outline: 2px dashed #999; outline-offset: -3px; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
.scroll { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } code { font-size: 90%; }
p, li, figcaption { overflow-wrap: anywhere; } summary { cursor: pointer; }
details pre { overflow-x: auto; font-size: 85%; }
</style>
</head>
<body>
<h1>Where Dask state can live, measured</h1>
{% if not about.finished %}<p><strong>This run was not finished.</strong></p>{% endif %}
{% for line in provenance %}<p>{{ line | replace("`", "") }}</p>{% endfor %}
{% if speed %}
<p><strong>n/a</strong>: the strategy does not claim it, or the fault cannot reach it.
<strong>missing</strong>: a resource was not there. <strong>failed</strong>: it broke.
<strong>*</strong>: a trial distrusts itself. Compare rows of one
durability class: a store that survives more does more.</p>
{% endif %}
{% if against_claims %}
<h2>Against the claims</h2>
<details{% if against_claims | length <= 10 %} open{% endif %}>
<summary>{{ mismatches or "No" }} cell{{ "" if mismatches == 1 else "s" }} not as claimed</summary>
<ul>{% for line in against_claims %}<li>{{ line.removeprefix("- ") }}</li>{% endfor %}</ul></details>
{% endif %}
{% for section in sections %}
<h2>{{ section.heading }}</h2>
{% if section.matrix and (loop.first or not loop.previtem.matrix) %}<p>{{ legend }}</p>{% endif %}

<div class="scroll"><table{% if section.matrix %} class="matrix"{% endif %}>
<thead><tr>{% for entry in section.lines[0] %}
<th{% if loop.index <= section.text_columns %} class="text"{% endif %}>{{ entry }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in section.lines[1:] %}<tr>{% for entry in row %}
{% if loop.index <= section.text_columns %}<td class="text">{% elif section.matrix %}<td class="{{ entry | tone }}">\
{% else %}<td>{% endif %}{% if entry.endswith("!") %}<strong>{{ entry }}</strong>{% else %}{{ entry }}{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% if plots %}<h2>Plots</h2>{% endif %}

{% for plot in plots %}
<figure><figcaption><strong>{{ plot.title }}</strong> (the same figures are in the tables above)</figcaption>
{{ plot.svg | safe }}</figure>
{% endfor %}
{% if timelines.found or timelines.notes %}
<h2>Availability over time</h2>
<p>What callers were told in each tenth of a second. Of several trials of a cell, the one with the median outage.</p>
{% for each in timelines.found %}
<details{% if loop.first %} open{% endif %}><summary>{{ each.title }}</summary>
<figure>{{ each.svg | safe }}</figure></details>
{% endfor %}
{% for note in timelines.notes %}<p>{{ note }}</p>{% endfor %}
{% endif %}
{% if violations.found or violations.notes %}
<h2>What went wrong, by example</h2>
<p>For each strategy the first of each kind: the calls that prove it, and what went on around them.</p>
{% for each in violations.found %}
<details{% if loop.first %} open{% endif %}><summary>{{ each.title }}</summary>
<figure>{{ each.svg | safe }}</figure><pre>{{ each.words }}</pre></details>
{% endfor %}
{% for note in violations.notes %}<p>{{ note }}</p>{% endfor %}
{% endif %}
{% if notes %}<h2>Not measured, or not trusted</h2>
<ul>{% for note in notes %}{% if note %}<li>{{ note[2:] }}</li>{% endif %}{% endfor %}</ul>{% endif %}
</body>
</html>
"""
