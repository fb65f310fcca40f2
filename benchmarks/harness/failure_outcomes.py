"""What faults did, in words and tables: a matrix of outcomes, and a line of figures for each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.table_text import (
    MARKS,
    NO_FIGURE,
    Section,
    by_durability,
    count,
    estimate,
    present,
    seconds,
)

RETRIES = {"none": "sent once", "naive": "sent again without op ids", "op_id": "sent again with op ids"}
"""What callers do that were told that an operation did not, or may not, have happened; or that are begun again."""

SURVIVES, NOBODY_ASKED = "survives", "loses nothing, nobody asked again"

LEGEND = (
    "**survives**: in every trial nothing was lost, doubled, torn or answered out of order, and whoever asked was "
    "served again. **loses N %**: of what was acknowledged. **doubles N**: operations whose effect was there once too "
    "often, the median of trials. **n/a**: the fault cannot reach it. **missing**: a resource was not there. "
    "**failed**: the trial broke, or the fault could not be applied. **-**: no such cell, as the fault does not reach "
    "it from there, or it was not asked for. **\\***: a trial distrusts itself. An exclamation mark: not as claimed."
)
"""What the words of a matrix mean."""

_FIGURES: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("acknowledged", "acknowledged", count, False),
    ("of these lost", "acknowledged_lost", count, True),
    ("lost, in money", "acknowledged_lost_amount", count, False),
    ("duplicated", "duplicated", count, True),
    ("unknown to the caller", "indeterminate", count, False),
    ("of these applied", "indeterminate_applied", count, False),
    ("longest outage s", "unavailable_s", seconds, True),
    ("noticed after s", "detection_s", seconds, False),
    ("served again after s", "recovery_s", seconds, True),
    ("goodput/s before", "goodput_before_per_s", count, False),
    ("during", "goodput_during_per_s", count, False),
    ("after", "goodput_after_per_s", count, False),
)
"""Title, name, how it is written, whether with its interval."""

_ABSENT = {"detection_s": "nobody was told", "recovery_s": "nobody asked"}
"""What it means that a trial lacks these."""


def sections(cells: Sequence[FaultFigures]) -> list[Section]:
    """Matrices first, then a table for each fault."""
    faults = present(cell.fault for cell in cells)
    return [*matrices(cells), *(_of_fault(fault, cells) for fault in faults)]


def matrices(cells: Sequence[FaultFigures]) -> list[Section]:
    """Strategy × fault, in words: one for each caller and retry, or one for all where each fault was met in one way."""
    measured = [cell for cell in cells if cell.status == Status.OK] or cells
    ways = sorted({(cell.caller, cell.retry) for cell in measured}, key=_place)
    retries = {retry for _, retry in ways}
    several = len({(cell.row, cell.fault) for cell in cells}) < len(cells)
    if not several and len(retries) == 1:
        (retry,) = retries
        return [Section(f"What is left after a fault: {RETRIES.get(retry, retry)}", _matrix(cells, None), 1, True)]
    return [
        Section(
            f"What is left after a fault: called from a {caller}, {RETRIES.get(retry, retry)}",
            _matrix(cells, (caller, retry)),
            1,
            True,
        )
        for caller, retry in ways
    ]


def _place(way: tuple[str, str]) -> tuple[str, int, str]:
    """Among ways of calling: driver before task, each from no retry to the safe one."""
    caller, retry = way
    return caller, list(RETRIES).index(retry) if retry in RETRIES else len(RETRIES), retry


def _matrix(cells: Sequence[FaultFigures], way: tuple[str, str] | None) -> list[list[str]]:
    """With whichever there are fewer of, strategies or faults, as columns."""
    rows = _rows(cells)
    faults = present(cell.fault for cell in cells)
    groups: dict[tuple[str, str], list[FaultFigures]] = {}
    for cell in cells:
        groups.setdefault((cell.row, cell.fault), []).append(cell)
    table = [
        [
            outcome_of(groups.get((f"{strategy}:{variant}", fault), ()), f"{strategy}:{variant}", fault, way)
            for fault in faults
        ]
        for strategy, variant, _ in rows
    ]
    names = [f"{strategy}:{variant} ({durability})" for strategy, variant, durability in rows]
    if len(faults) <= len(rows):
        return [["strategy (durability)", *faults], *([name, *line] for name, line in zip(names, table, strict=True))]
    turned = zip(faults, zip(*table, strict=True), strict=True)
    return [["fault", *names], *([fault, *line] for fault, line in turned)]


def outcome_of(cells: Sequence[FaultFigures], row: str, fault: str, way: tuple[str, str] | None) -> str:
    """What a row's trials of a fault came to, where it was met in this way: (caller, retry), or in whichever."""
    found = [cell for cell in cells if (cell.row, cell.fault) == (row, fault)]
    chosen = [cell for cell in found if way is None or (cell.caller, cell.retry) == way]
    if chosen:
        return outcome(chosen[0])
    # One cell says for all that it is out of reach, or lacks a resource: neither depends on the retry.
    same_caller = [cell for cell in found if way is None or cell.caller == way[0]] or found
    told = {cell.status for cell in same_caller}
    if len(told) == 1 and told <= {Status.NOT_APPLICABLE, Status.RESOURCE_MISSING}:
        return MARKS[Status(told.pop())]
    return NO_FIGURE


def outcome(cell: FaultFigures) -> str:
    """One cell in words."""
    if cell.status != Status.OK:
        return MARKS[Status(cell.status)]
    words = []
    if cell.trials_lost:
        words.append(
            f"loses {share(cell.acknowledged_lost_total, cell.acknowledged_total)}{_in(cell.trials_lost, cell)}"
        )
    if cell.trials_torn:
        words.append(f"tears transfers{_in(cell.trials_torn, cell)}")
    if cell.trials_doubled:
        doubled = cell.figures.get("duplicated") if cell.trials_doubled == cell.trials else None
        number = f"up to {cell.duplicated_max:,}" if doubled is None else f"{doubled.value:,.0f}"
        words.append(f"doubles {number}{_in(cell.trials_doubled, cell)}")
    if disordered := cell.linearizable.get("no", 0):
        words.append(f"answers out of order{_in(disordered, cell)}")
    if cell.trials_never_recovered:
        words.append(f"never served again{_in(cell.trials_never_recovered, cell)}")
    if cell.trials_judged < cell.trials:
        words.append(f"not told{_in(cell.trials - cell.trials_judged, cell)}: the accounts could not be read")
    if not words:
        words = [NOBODY_ASKED if cell.trials_not_asked == cell.trials else SURVIVES]
    if unknown := cell.linearizable.get("unknown", 0):
        words.append(f"order of answers unknown{_in(unknown, cell)}")
    if cell.trials_failed:
        words.insert(0, f"failed in {cell.trials_failed} of {cell.trials_failed + cell.trials}, else")
        words[:2] = [" ".join(words[:2])]
    text = ", ".join(words) + ("*" if cell.trials_distrusted else "")
    return f"{text}, {cell.mismatch.replace('_', ' ')}!" if cell.mismatch else text


def share(part: int, whole: int) -> str:
    """In per cent; `all` and nothing else for all."""
    if part >= whole:
        return "all"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return f"{min(percent, 99.9):.1f} %" if percent < 10 or percent >= 99 else f"{percent:.0f} %"


def mismatches(cells: Sequence[FaultFigures]) -> list[str]:
    """Cells that are not as claimed, a line each."""
    return [
        f"- {cell.row}, {cell.fault}, {cell.caller}, {RETRIES.get(cell.retry, cell.retry)}: {outcome(cell)}"
        for cell in cells
        if cell.mismatch
    ]


def _in(trials: int, cell: FaultFigures) -> str:
    return "" if trials == cell.trials else f" in {trials} of {cell.trials}"


def _rows(cells: Sequence[FaultFigures]) -> list[tuple[str, str, str]]:
    return sorted({(cell.strategy, cell.variant, cell.durability) for cell in cells}, key=by_durability)


def _of_fault(fault: str, cells: Sequence[FaultFigures]) -> Section:
    here = [cell for cell in cells if cell.fault == fault]
    header = ["strategy", "durability", "caller", "retry", "trials"]
    header += [title for title, *_ in _FIGURES] + ["linearizable", "verdict"]
    lines = []
    for strategy, variant, durability in _rows(cells):
        mine = [cell for cell in here if (cell.strategy, cell.variant) == (strategy, variant)]
        for cell in sorted(mine, key=lambda cell: _place((cell.caller, cell.retry))):
            lines.append([cell.row, durability, *_line(cell, alone=len(mine) == 1)])
    return Section(f"{fault}: unit deposits around a fault", [header, *lines], 4)


def _line(cell: FaultFigures, *, alone: bool) -> list[str]:
    way = [cell.caller, cell.retry]
    if cell.status != Status.OK:
        out_of_reach = cell.status == Status.NOT_APPLICABLE and alone
        way = [NO_FIGURE, NO_FIGURE] if out_of_reach else way
        return [*way, *[MARKS[Status(cell.status)]] * (len(_FIGURES) + 3)]
    figures = [_figure(cell, name, write, spread) for _, name, write, spread in _FIGURES]
    return [*way, _trials(cell), *figures, _counts(cell.linearizable), _verdicts(cell)]


def _trials(cell: FaultFigures) -> str:
    words = [str(cell.trials)]
    words += [f"{cell.trials_failed} failed"] if cell.trials_failed else []
    words += [f"{cell.trials - cell.trials_judged} not judged"] if cell.trials_judged < cell.trials else []
    return ", ".join(words) + ("*" if cell.trials_distrusted else "")


def _figure(cell: FaultFigures, name: str, write: Callable[[float], str], spread: bool) -> str:
    found = cell.figures.get(name)
    if name == "recovery_s" and cell.trials_never_recovered:
        if found is None or cell.trials_never_recovered == cell.trials:
            return "never"
        # A median among those that never came is the least that it can be.
        least = "> " if 2 * cell.trials_never_recovered >= found.trials else ""
        return f"{least}{write(found.value)}, never{_in(cell.trials_never_recovered, cell)}"
    if found is None:
        return _ABSENT.get(name, NO_FIGURE)
    text = estimate(found, write, spread=spread)
    return f"{text}{_in(found.trials, cell)}" if name in _ABSENT else text


def _counts(found: Mapping[str, int]) -> str:
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{word} {times}" for word, times in sorted(found.items(), key=lambda each: -each[1])) or NO_FIGURE


def _verdicts(cell: FaultFigures) -> str:
    marked = {word.replace("_", " ") + ("!" if word == cell.mismatch else ""): n for word, n in cell.verdicts.items()}
    return _counts(marked)
