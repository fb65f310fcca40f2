"""Tables, plots and the page of a run: a function of its files, and of what is recorded under results/ beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import book_table, companions, failure_figures, failure_outcomes, report_page
from benchmarks.harness.companions import RESULTS, Companions
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
from benchmarks.harness.table_text import markdown

__all__ = ["SUMMARY_WORKLOAD", "claims_table", "form", "plot_speed", "provenance", "summary_table", "tables", "write"]

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
    try:
        (folder / "table.md").write_text(tables(about, trials, beside))
        page = folder / "report.html"
        page.write_text(report_page.page(folder, about, trials, cells, beside))
    except OSError as error:
        raise RunError(f"the report cannot be written into {folder}: {error.filename}: {error.strerror}") from error
    return page


def tables(about: Mapping[str, Any], trials: Sequence[Trial], beside: Companions) -> str:
    """All of a run's tables, as Markdown."""
    cells = failure_figures.aggregate(trials)
    parts = [f"# Run of {about['started']}", ""]
    for section in all_sections(about, trials, cells):
        parts += [f"## {section.heading}", "", *markdown(section.lines), ""]
    parts += [failure_outcomes.LEGEND, "", *broken_claims(cells), ""] if cells else []
    book = book_table.section(book_table.table(trials, cells, beside))
    parts += [f"## {book.heading}", "", *markdown(book.lines), ""]
    parts += [*notes_of(trials), *provenance(about, trials)]
    return "\n".join(parts) + "\n"
