"""A page's first words: what is fastest, what stays when something dies, how the book fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.harness import failure_outcomes
from benchmarks.harness.book_table import Line, Verdict
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.intervals import Estimate
from benchmarks.harness.records import Trial
from benchmarks.harness.report_tables import OPS, P99, SUMMARY_WORKLOAD, entry, forms, rows_of, speed_cells, spread
from benchmarks.harness.table_text import Section, present
from benchmarks.harness.three_sentences import three_sentences

_NAMED = 6
"""Rows that are named each; the others are counted."""
_FAULTS_NAMED = 4
"""With more faults, rows are counted only."""


def answer(trials: Sequence[Trial], cells: Sequence[FaultFigures], lines: Sequence[Line]) -> list[str]:
    """Sentences."""
    return [*_measured(trials), *three_sentences(trials), *_survivors(cells), *_book(lines), *_trouble(trials, cells)]


def fastest(trials: Sequence[Trial]) -> Section | None:
    """For each durability class and caller the strategy that answers most, and those not clearly slower."""
    if len(forms(trials)) != 1:
        return None
    workloads = present(trial.workload for trial in trials if trial.fault is None)
    workload = SUMMARY_WORKLOAD if SUMMARY_WORKLOAD in workloads else workloads[0]
    by_cell = speed_cells(trials)
    lines = [["survives", "called from a", "fastest", "not clearly slower", OPS.title, P99.title]]
    for durability in dict.fromkeys(row[2] for row in rows_of(trials)):
        for caller in present(trial.caller for trial in trials if trial.workload == workload):
            found: dict[str, tuple[Estimate, Sequence[Trial]]] = {}
            for strategy, variant, of_class in rows_of(trials):
                cell: Sequence[Trial] = by_cell.get((strategy, variant, workload, caller), ())
                if of_class == durability and cell and all(trial.status == Status.OK for trial in cell):
                    speed = spread(cell, OPS)
                    if speed is not None:
                        found[f"{strategy}:{variant}"] = (speed, cell)
            if not found:
                lines.append([_outlived(durability), caller, "nothing was measured", "-", "-", "-"])
                continue
            best = max(found, key=lambda row: found[row][0].value)
            speed, cell = found[best]
            near = [row for row, (other, _) in found.items() if row != best and _overlap(other, speed)]
            lines.append([_outlived(durability), caller, best, _named(near) or "-", entry(cell, OPS), entry(cell, P99)])
    return Section(f"Fastest, {workload}", lines, 4)


def _outlived(durability: str) -> str:
    return {
        "volatile": "nothing (volatile)",
        "process_crash": "its process's crash",
        "power_loss": "a power loss",
        "replicated": "a machine's loss",
    }.get(durability, durability or "unknown")


def _measured(trials: Sequence[Trial]) -> list[str]:
    if not trials:
        return ["This run has no trials: nothing was measured."]
    sound = [trial for trial in trials if trial.status == Status.OK]
    if not sound:
        return [f"None of this run's {len(trials):,} trials ended well: there are no figures, only reasons."]
    if len(sound) == 1:
        return ["This run has one trial that ended well: figures have no interval, and nothing can be compared."]
    return []


def _survivors(cells: Sequence[FaultFigures]) -> list[str]:
    """Of few faults who they are, of many how many."""
    kept: dict[str, dict[str, bool]] = {}
    for cell in cells:
        if cell.status == Status.OK:
            rows = kept.setdefault(cell.fault, {})
            whole = failure_outcomes.outcome(cell).startswith(
                (failure_outcomes.SURVIVES, failure_outcomes.NOBODY_ASKED)
            )
            rows[cell.row] = rows.get(cell.row, True) and whole
    if not kept:
        return []
    parts = []
    for fault, rows in sorted(kept.items()):
        survive = [row for row, whole in rows.items() if whole]
        words = f"{fault} {len(survive)} of {len(rows)}"
        names = f" ({_named(survive)})" if survive and len(survive) < len(rows) and len(kept) <= _FAULTS_NAMED else ""
        parts.append(words + names)
    return [
        "Rows in which nothing was lost, doubled or out of order and everybody was served again, in every way of "
        f"calling, after {'; '.join(parts)}."
    ]


def _book(lines: Sequence[Line]) -> list[str]:
    verdicts = Counter(entry.verdict for line in lines for entry in line.entries.values())
    words = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict])
    return [f"Of the {verdicts.total()} entries of the book's table: {words}."] if verdicts else []


def _trouble(trials: Sequence[Trial], cells: Sequence[FaultFigures]) -> list[str]:
    failed = sum(trial.status == Status.FAILED for trial in trials)
    missing = {trial.row for trial in trials if trial.status == Status.RESOURCE_MISSING}
    distrusted = sum(trial.trusted is False for trial in trials)
    wrong = sum(cell.mismatch is not None for cell in cells)
    words = [f"{failed:,} trials failed"] if failed else []
    words += [f"{len(missing)} row{'' if len(missing) == 1 else 's'} lacked a resource"] if missing else []
    words += [f"{distrusted:,} of {len(trials):,} trials distrust themselves"] if distrusted else []
    words += [f"{wrong} fault cells are not as claimed"] if wrong else []
    return [f"To know before you read on: {'; '.join(words)}."] if words else []


def _overlap(one: Estimate, other: Estimate) -> bool:
    """Where one of them has no interval, nothing is clear."""
    if one.high is None or other.low is None:
        return True
    return one.high >= other.low


def _named(rows: Sequence[str]) -> str:
    more = [f"{len(rows) - _NAMED} more"] if len(rows) > _NAMED else []
    return ", ".join([*rows[:_NAMED], *more])
