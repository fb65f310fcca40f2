"""The published failure tables: `python -m benchmarks.harness.failure_tables [--once] RUN...` makes one from runs.

It writes results/failures.json, a line for each cell over all its trials, and results/failures.md, the same for people.
With `--once` they are called failures-once: every strategy under every fault takes hours with many trials of each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.harness import failure_figures, failure_outcomes
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.records import Contents, RunError, Trial, read_all, write_atomically
from benchmarks.harness.table_text import markdown
from strategies.interface import load, names

RESULTS = Path(__file__).resolve().parents[2] / "results"
JSON, MARKDOWN = "failures.json", "failures.md"
ONCE_JSON, ONCE_MARKDOWN = "failures-once.json", "failures-once.md"
FORMAT = 1
"""Rises when older code would misread the file."""

_SAME = {
    "machine": "measured on different machines",
    "versions": "measured with different versions",
    "method": "measured by different methods (CHANGELOG.md)",
    "quick": "of trials on different schedules (only one of them is of quick trials)",
}
"""What runs must share to be one table, and what is wrong with those that do not."""


@dataclass(frozen=True)
class FailureTable:
    """Cells, and where they come from."""

    about: Mapping[str, Any]
    """`method`, `machine`, `versions`, `quick`, and `runs`: name, command, commit, seed, started, finished, trials."""
    claims: Mapping[str, Mapping[str, Any]]
    """What each row's strategy needs and claims to survive. A strategy that is not in this repository has none."""
    cells: Sequence[FaultFigures]

    def as_json(self) -> str:
        """A line for each cell."""
        parts = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in self.about.items()]
        claims = [f"  {json.dumps(row)}: {json.dumps(claim)}" for row, claim in self.claims.items()]
        cells = [json.dumps(cell.as_json(), allow_nan=False, separators=(",", ":")) for cell in self.cells]
        parts.append('"claims": {\n' + ",\n".join(claims) + "\n}")
        parts.append('"cells": [\n' + ",\n".join(cells) + "\n]")
        return "{\n" + ",\n".join([f'"format": {FORMAT}', *parts]) + "\n}\n"

    @classmethod
    def of_json(cls, text: str) -> Self:
        """What `as_json` gave.

        Raises:
            RunError: it is no failure table, or of a newer format.
        """
        try:
            found = json.loads(text)
            number = found.pop("format")
            if number > FORMAT:
                raise RunError(f"the failure table has format {number}, this program reads up to {FORMAT}; update it")
            cells = [FaultFigures.of_json(cell) for cell in found.pop("cells")]
            return cls(claims=found.pop("claims"), cells=cells, about=found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"this is no failure table ({type(error).__name__}: {error}); make it again") from error

    def markdown(self) -> str:
        """All of it, for people."""
        wrong = failure_outcomes.mismatches(self.cells)
        lines = ["# What faults leave", "", *self.provenance(), "", failure_outcomes.LEGEND, ""]
        lines += ["## Against the claims", ""]
        lines += wrong or ["Every cell that was measured is as its strategy claims."]
        lines += ["", *self._claims_in_words(), ""]
        for section in failure_outcomes.sections(self.cells):
            lines += [f"## {section.heading}", "", *markdown(section.lines), ""]
        failed = [
            f"- {cell.row}, {cell.fault}, {cell.caller}, {cell.retry}: {cell.trials_failed} of "
            f"{cell.trials_failed + cell.trials} trials: {' '.join(str(cell.reason).split())}"
            for cell in self.cells
            if cell.trials_failed
        ]
        if failed:
            lines += ["## Trials that failed", "", *sorted(failed), ""]
        return "\n".join(lines)

    def provenance(self) -> list[str]:
        """Where the figures come from."""
        machine, runs = self.about["machine"], self.about["runs"]
        versions = ", ".join(f"{package} {version}" for package, version in self.about["versions"].items())
        most = max((cell.trials + cell.trials_failed for cell in self.cells), default=0)
        of = "One seeded trial" if most == 1 else f"Medians (95 % bootstrap interval) of up to {most} seeded trials"
        lines = [
            f"{of} of each cell, {len(self.cells):,} cells. "
            f"Measured on {machine['cores_usable']} cores of {machine['cpu']}, {machine['system']}; {versions}; "
            f"method {self.about['method']}.",
            "",
        ]
        for run in runs:
            unfinished = "" if run["finished"] else " It was interrupted: some cells have fewer trials."
            lines.append(
                f"- {run['trials']:,} trials of run `{run['run']}`, commit {run['commit'][:10]}, seed {run['seed']}: "
                f"`{run['command']}`.{unfinished}"
            )
        return lines

    def unbacked(self) -> list[str]:
        """Claims to survive a fault that no measured cell stands for, a line each."""
        found = []
        for row, claim in self.claims.items():
            for fault in claim["survives"]:
                cells = [cell for cell in self.cells if (cell.row, cell.fault) == (row, fault)]
                if not any(cell.trials_judged for cell in cells):
                    mark = failure_outcomes.outcome_of(self.cells, row, fault, None) if cells else "not run"
                    found.append(f"{row}, {fault}: {mark}")
        return found

    def _claims_in_words(self) -> list[str]:
        total = sum(len(claim["survives"]) for claim in self.claims.values())
        unbacked = self.unbacked()
        lines = [f"Of {total:,} claims to survive a fault, {total - len(unbacked):,} are backed by measured cells."]
        if unbacked:
            lines += ["The others:", "", *(f"- {each}" for each in unbacked)]
        return lines


def table(folders: Sequence[Path]) -> tuple[FailureTable, list[str]]:
    """Of these runs' trials with a fault, and what had to be left out of them.

    Raises:
        RunError: a run cannot be read, they cannot be one table, or there is nothing to put in it.
    """
    if not folders:
        raise RunError("name the runs: python -m benchmarks.harness.failure_tables results/runs/A results/runs/B")
    contents = [read_all(folder) for folder in folders]
    shared = _shared(folders, contents)
    trials: list[Trial] = []
    runs = []
    seen: dict[tuple[Any, ...], Path] = {}
    for folder, found in zip(folders, contents, strict=True):
        struck = [trial for trial in found.trials if trial.fault is not None]
        if not struck:
            raise RunError(f"{folder} has no trial with a fault; make one with: python -m benchmarks failures")
        for trial in struck:
            if trial.status == Status.OK and (other := seen.setdefault((*trial.key, trial.seed), folder)) != folder:
                raise RunError(
                    f"{other} and {folder} both have {trial.row}, {trial.fault}, repeat {trial.repeat} with the seed "
                    f"{trial.seed}, which would count twice; give one of them another --seed"
                )
        trials += struck
        runs.append(_run(folder, found.about, len(struck)))
    cells = failure_figures.aggregate(trials)
    cells.sort(key=lambda cell: (cell.fault, cell.row, cell.caller, cell.retry))
    damage = [each for found in contents for each in found.damage]
    return FailureTable({**shared, "runs": runs}, _claims(cells), cells), damage


def write(folders: Sequence[Path], results: Path = RESULTS, *, once: bool = False) -> list[str]:
    """Write both files; returns what had to be left out.

    Raises:
        RunError: as `table`, or they cannot be written.
    """
    made, damage = table(folders)
    try:
        write_atomically(results / (ONCE_JSON if once else JSON), made.as_json().encode())
        write_atomically(results / (ONCE_MARKDOWN if once else MARKDOWN), made.markdown().encode())
    except OSError as error:
        raise RunError(f"the failure table cannot be written into {results}: {error.strerror}") from error
    return damage


def published(results: Path = RESULTS) -> list[FailureTable]:
    """All that there are.

    Raises:
        RunError: one cannot be read.
    """
    found = (read(results / name) for name in (JSON, ONCE_JSON))
    return [each for each in found if each is not None]


def read(path: Path = RESULTS / JSON) -> FailureTable | None:
    """The table of this file; None if there is none yet.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return FailureTable.of_json(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _shared(folders: Sequence[Path], contents: Sequence[Contents]) -> dict[str, Any]:
    """What all runs share."""
    shared = _conditions(contents[0].about)
    for folder, found in zip(folders, contents, strict=True):
        # A run that was resumed elsewhere is of two kinds itself.
        resumed = [each for each in found.about.get("resumed") or () if isinstance(each, dict)]
        for conditions in (_conditions(found.about), *(_conditions({**found.about, **each}) for each in resumed)):
            for name, words in _SAME.items():
                if conditions[name] != shared[name]:
                    others = "itself" if folder == folders[0] else folders[0]
                    raise RunError(f"{folder} and {others} are {words}, so they cannot be one table")
    return shared


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": about.get("method", 1),
        "machine": about.get("machine"),
        "versions": about.get("versions"),
        "quick": bool((about.get("plan") or {}).get("quick")),
    }


def _run(folder: Path, about: Mapping[str, Any], trials: int) -> dict[str, Any]:
    seed = (about.get("plan") or {}).get("seed")
    kept = {name: about.get(name) for name in ("command", "commit", "started", "finished")}
    return {"run": folder.resolve().name, **kept, "seed": seed, "trials": trials}


def _claims(cells: Sequence[FaultFigures]) -> dict[str, dict[str, Any]]:
    found = {}
    known = names()
    for cell in cells:
        if cell.strategy not in known or cell.variant not in load(cell.strategy).capabilities.variants:
            continue
        claims = load(cell.strategy).claims(cell.variant)
        found[cell.row] = {"needs": sorted(claims.needs), "survives": sorted(claims.survives)}
    return dict(sorted(found.items()))


def main(arguments: Sequence[str]) -> int:
    """Write the table of these runs; returns the exit code."""
    once = "--once" in arguments
    try:
        damage = write([Path(argument) for argument in arguments if argument != "--once"], once=once)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for each in damage:
        print(f"warning: {each}", file=sys.stderr)
    print(f"Written: {RESULTS / (ONCE_JSON if once else JSON)} and the same as .md; then run: make readme")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
