"""Tables, plots and the page of a run: a function of its files, and of what is recorded under results/ beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import book_table, companions, failure_figures, failure_outcomes, report_page
from benchmarks.harness.book_table import Line
from benchmarks.harness.companions import RESULTS
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.records import RunError, Trial, read
from benchmarks.harness.report_plots import plot_speed
from benchmarks.harness.report_tables import (
    SUMMARY_WORKLOAD,
    all_sections,
    broken_claims,
    claims_table,
    form,
    notes_of,
    provenance,
    summary_table,
)
from benchmarks.harness.table_text import Section, markdown

__all__ = ["SUMMARY_WORKLOAD", "claims_table", "form", "plot_speed", "provenance", "summary_table", "write"]

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


def write(folder: Path, results: Path = RESULTS) -> Path:
    """Write `table.md` and `report.html` into the run's folder; returns the page's path.

    `results` is where that is recorded which one run does not hold. What of it is damaged is left out, and the page
    says so.
    """
    about, trials = read(folder)
    beside = companions.load(results)
    cells = failure_figures.aggregate(trials)
    lines = book_table.table(trials, beside.unpublished(folder.name, cells), beside)
    sections = all_sections(about, trials, cells)
    try:
        (folder / "table.md").write_text(_tables(about, trials, cells, sections, lines))
        page = folder / "report.html"
        page.write_text(report_page.page(folder, about, trials, cells, beside, sections, lines))
    except OSError as error:
        raise RunError(f"the report cannot be written into {folder}: {error.filename}: {error.strerror}") from error
    return page


def _tables(
    about: Mapping[str, Any],
    trials: Sequence[Trial],
    cells: Sequence[FaultFigures],
    sections: Sequence[Section],
    lines: Sequence[Line],
) -> str:
    """All of a run's tables, as Markdown."""
    parts = [f"# Run of {about['started']}", ""]
    for section in [*sections, book_table.section(lines)]:
        parts += [f"## {section.heading}", "", *markdown(section.lines), ""]
    parts += [failure_outcomes.LEGEND, "", *broken_claims(cells), ""] if cells else []
    parts += [*notes_of(trials), *provenance(about, trials)]
    return "\n".join(parts) + "\n"
