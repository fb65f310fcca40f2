"""Pictures of a run's failure trials, from the histories that were kept: availability over time, and violations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import history_files, judging, pictures, timeline
from benchmarks.harness.failure_outcomes import RETRIES
from benchmarks.harness.generator import Retry
from benchmarks.harness.history_files import HistoryFileError
from benchmarks.harness.records import HISTORIES, Trial
from benchmarks.harness.table_text import by_durability

VIOLATIONS_SHOWN = 24
"""Examples on one page, of a few kilobytes each; every other trial's are shown by `check`."""

PANELS_SHOWN = 120
"""Timelines on one page: each is drawn in a tenth of a second, and takes some ten kilobytes."""


@dataclass(frozen=True)
class Picture:
    """A figure with its title."""

    title: str
    svg: str
    words: str = ""
    """The same as text, where it is worth more than a text alternative."""


@dataclass(frozen=True)
class Pictures:
    """What could be drawn, and a sentence for each thing that could not."""

    found: list[Picture]
    notes: list[str]


def timelines(folder: Path, trials: Sequence[Trial]) -> Pictures:
    """For each fault, caller and retry one figure with a panel for each strategy.

    A cell is shown by its trial with the median outage.
    """
    groups: dict[tuple[str, str, str], list[list[Trial]]] = {}
    for cell in _cells(trials):
        first = cell[0]
        groups.setdefault((str(first.fault), first.caller, first.retry or "none"), []).append(cell)
    found, notes, absent, drawn, more = [], [], 0, 0, 0
    for (fault, caller, retry), cells in sorted(groups.items(), key=_most_told):
        if drawn >= PANELS_SHOWN:
            more += 1
            continue
        panels = []
        for cell in cells:
            kept = [trial for trial in cell if (path := _path(folder, trial)) is not None and path.is_file()]
            absent += not kept
            if not kept:
                continue
            chosen = kept[(len(kept) - 1) // 2]
            try:
                panels.append(_panel(folder, chosen, len(cell)))
            except (HistoryFileError, ValueError) as error:
                notes.append(str(error))
        drawn += len(panels)
        if panels:
            title = f"{fault}, called from a {caller}, {RETRIES.get(retry, retry)}"
            found.append(Picture(title, timeline.picture(panels, title)))
    found.sort(key=lambda picture: picture.title)
    if more:
        notes.append(f"Of {more} more ways in which a fault was met, none is drawn here: `check` shows each history.")
    if absent:
        notes.append(
            f"Cells that have no history in {HISTORIES}/ ({absent}) are not drawn: these files stay on the machine "
            "that measured. To measure a trial again: python -m benchmarks replay RUN LINE."
        )
    return Pictures(found, notes)


def _most_told(group: tuple[tuple[str, str, str], object]) -> tuple[object, ...]:
    """Calls that are sent again with op ids first: what is left then is the store's doing. Then by name."""
    fault, caller, retry = group[0]
    return retry != Retry.OP_ID, caller, fault, retry


def violations(folder: Path, trials: Sequence[Trial]) -> Pictures:
    """One example of each kind for each strategy, those that break claims first."""
    examples: dict[tuple[str, str], Trial] = {}
    wrong = [trial for trial in trials if trial.fault is not None and trial.violations]
    for trial in sorted(wrong, key=lambda trial: trial.verdict != "worse_than_claimed"):
        for kind in str(trial.violations).split(","):
            examples.setdefault((trial.row, kind.strip()), trial)
    found: list[Picture] = []
    notes, absent = [], 0
    for (_, kind), trial in examples.items():
        path = _path(folder, trial)
        if path is None or not path.is_file():
            absent += 1
            continue
        if len(found) == VIOLATIONS_SHOWN:
            notes.append("There are more: python -m benchmarks check HISTORY shows each trial's.")
            break
        try:
            judgement = judging.judge(path)
        except HistoryFileError as error:
            notes.append(str(error))
            continue
        for violation in judgement.verdict.violations:
            if violation.kind == kind:
                title = f"{kind}: {trial.row}, {trial.fault}, {trial.caller}, {trial.retry}, repeat {trial.repeat}"
                arguments = (violation, judgement.file.history, judgement.file.names)
                found.append(Picture(title, pictures.picture(*arguments), pictures.in_words(*arguments)))
                break
    if absent:
        notes.append(f"Examples that have no history in {HISTORIES}/ ({absent}) cannot be shown.")
    return Pictures(found, notes)


def _cells(trials: Sequence[Trial]) -> Iterable[list[Trial]]:
    """Of measured trials, in the order of tables; the trials of each by their outage."""
    cells: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        if trial.fault is not None and trial.unavailable_s is not None:
            cells.setdefault(trial.key[:-1], []).append(trial)
    of_rows = sorted(cells.values(), key=lambda cell: _place(cell[0]))
    return (sorted(cell, key=lambda trial: (trial.unavailable_s or 0.0, trial.repeat)) for cell in of_rows)


def _place(trial: Trial) -> tuple[object, ...]:
    return by_durability((trial.strategy, trial.variant, trial.durability or ""))


def _path(folder: Path, trial: Trial) -> Path | None:
    """The name alone counts: a record from elsewhere is not to choose the folder."""
    return None if not trial.history else folder / HISTORIES / Path(trial.history).name


def _panel(folder: Path, trial: Trial, repeats: int) -> timeline.Panel:
    path = _path(folder, trial)
    assert path is not None
    file = history_files.load(path)
    moments = [
        moment
        for name in ("start_ns", "struck_ns", "healed_ns", "ended_ns")
        if isinstance(moment := file.about.get(name), int)
    ]
    if len(moments) < 4:
        raise HistoryFileError(f"{path} does not say when its load began and ended and when the fault struck")
    start_ns, struck_ns, healed_ns, ended_ns = moments
    words = f"{trial.row} ({trial.durability})" + (
        f", repeat {trial.repeat}, the median of {repeats}" if repeats > 1 else ""
    )
    return timeline.Panel(words, timeline.timeline(file.history, start_ns, (struck_ns, healed_ns), end_ns=ended_ns))
