"""The page of a run: its parts, gathered and put into the template beside this file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from benchmarks.harness import (
    complexity_table,
    curves,
    failure_outcomes,
    failure_pictures,
    report_answer,
    report_explorer,
    report_plots,
)
from benchmarks.harness.book_claims import SOURCE
from benchmarks.harness.book_columns import Column
from benchmarks.harness.book_table import Line
from benchmarks.harness.cells import Status
from benchmarks.harness.companions import Companions
from benchmarks.harness.complexity import Complexity
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.report_plots import Plot
from benchmarks.harness.report_tables import (
    OPS,
    P50,
    SUMMARY_WORKLOAD,
    broken_claims,
    forms,
    notes_of,
    provenance,
)
from benchmarks.harness.table_text import MARKS, NO_FIGURE, Section, present

_TEMPLATE = Path(__file__).with_name("report_page.html.jinja")
_OPEN_ROWS = 60
"""A table of more rows is closed until it is asked for."""


def page(
    folder: Path,
    about: Mapping[str, Any],
    trials: Sequence[Trial],
    cells: Sequence[FaultFigures],
    companions: Companions,
    sections: Sequence[Section],
    lines: Sequence[Line],
) -> str:
    """As one HTML file that loads nothing."""
    own = _own(companions, trials)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["tone"] = _tone
    against = broken_claims(cells)
    return environment.from_string(_TEMPLATE.read_text()).render(
        about=about,
        answer=report_answer.answer(trials, cells, lines),
        fastest=report_answer.fastest(trials),
        book=lines,
        columns=list(Column),
        book_source=_unlinked(SOURCE),
        companions_from=_from(about, companions),
        matrices=[section for section in sections if section.matrix],
        sections=[section for section in sections if not section.matrix],
        open_rows=_OPEN_ROWS,
        plots=_grouped(_series_plots(about, trials) if len(forms(trials)) > 1 else _speed_plots(trials)),
        explorer=report_explorer.explorer(trials),
        explore=markupsafe.Markup(report_explorer.EXPLORE),
        latencies=list(report_explorer.LATENCIES),
        footprints=report_plots.footprints(own),
        footprint_table=Section("Footprint", complexity_table.table(own)) if own else None,
        speed=any(trial.fault is None for trial in trials),
        legend=_emphasised(failure_outcomes.LEGEND) if cells else "",
        against_claims=against,
        mismatches=sum(cell.mismatch is not None for cell in cells),
        timelines=failure_pictures.timelines(folder, trials),
        violations=failure_pictures.violations(folder, trials),
        notes=[note[2:] for note in notes_of(trials) if note],
        provenance=provenance(about, trials),
    )


def _own(companions: Companions, trials: Sequence[Trial]) -> list[Complexity]:
    """Recorded complexity of this run's rows."""
    rows = {trial.row for trial in trials}
    recorded = companions.complexity.rows if companions.complexity is not None else ()
    return [row for row in recorded if row.row in rows]


def _from(about: Mapping[str, Any], companions: Companions) -> list[str]:
    """Where figures come from that are not this run's."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, table in enumerate(companions.failures):
        found["failures" if not number else "failures, once"] = table.about
    if companions.complexity is not None:
        found["complexity and deployment"] = companions.complexity.about
    if companions.scoreboard is not None:
        found["owners"] = companions.scoreboard.about
    for sweep in companions.sweeps:
        found[f"scaling ({sweep.about['started']})"] = sweep.about
    sentences = []
    for what, of in found.items():
        machine = of.get("machine") or {}
        other = "" if machine == about["machine"] else ", which is not this run's machine"
        sentences.append(
            f"Figures on {what} are recorded: {machine.get('cores_usable')} cores of {machine.get('cpu')}{other}."
        )
    return [*sentences, *companions.damage]


def _speed_plots(trials: Sequence[Trial]) -> list[Plot]:
    measured = [trial for trial in trials if trial.fault is None and trial.status == Status.OK]
    plots: list[Plot | None] = []
    for workload in present(trial.workload for trial in measured):
        plots += [
            Plot(f"{metric.title}, {workload}", report_plots.plot_speed(trials, workload, metric), workload)
            for metric in (OPS, P50)
        ]
        for caller in present(trial.caller for trial in measured if trial.workload == workload):
            plots.append(report_plots.front(trials, workload, caller))
            plots.append(report_plots.percentiles(trials, workload, caller))
    return [plot for plot in plots if plot is not None]


def _series_plots(about: Mapping[str, Any], trials: Sequence[Trial]) -> list[Plot]:
    plots = []
    over = {found["over"] for found in about.get("sweep") or ()}
    for workload in present(trial.workload for trial in trials):
        for caller in present(trial.caller for trial in trials if trial.workload == workload):
            cell = [t for t in trials if (t.workload, t.caller) == (workload, caller) and t.status == Status.OK]
            title = f"{workload}, called from a {caller}"
            if any(trial.arrivals != Arrivals.CLOSED for trial in cell):
                plots.append(
                    Plot(f"Latency over throughput, {title}", curves.latency_over_throughput(cell, title), workload)
                )
            plots += [
                Plot(
                    f"Throughput over {what}, {title}",
                    curves.throughput_over(cell, what, about["sweep"], title),
                    workload,
                )
                for what in sorted(over)
            ]
    return plots


def _grouped(plots: Sequence[Plot]) -> dict[str, list[Plot]]:
    """By workload, the one that is summed up first: of several, that one is open."""
    groups: dict[str, list[Plot]] = {}
    for plot in sorted(plots, key=lambda plot: plot.group != SUMMARY_WORKLOAD):
        groups.setdefault(plot.group, []).append(plot)
    return groups


def _emphasised(words: str) -> markupsafe.Markup:
    """Markdown's bold and escapes, for HTML."""
    escaped = str(markupsafe.escape(words)).replace("\\*", "&#42;")
    return markupsafe.Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped))


def _unlinked(words: str) -> str:
    """Markdown's links and emphasis as plain text: a page that loads nothing has no links out of it."""
    return re.sub(r"\[(.+?)\]\((.+?)\)", r"\1 (\2)", words).replace("*", "") + "."


def _tone(entry: str) -> str:
    """The class of an entry, for a pattern or a tint beside its words."""
    for status, mark in MARKS.items():
        if entry == mark:
            return str(status).replace("_", "-")
    if entry in (NO_FIGURE, "not run", "not measured"):
        return "none"
    if not entry.endswith("!") and entry.startswith((failure_outcomes.SURVIVES, failure_outcomes.NOBODY_ASKED)):
        return "kept"
    return "hurt"
