"""Judges a recorded history again: what `check` says of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import history_files, pictures
from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.history_files import HistoryFile, HistoryFileError
from strategies.interface import Consistency


@dataclass(frozen=True)
class Judgement:
    """A history and what the checker makes of it."""

    file: HistoryFile
    verdict: Verdict

    @property
    def sound(self) -> bool:
        """Whether nothing is lost, doubled, made up or out of order, as far as can be told."""
        return not self.verdict.violations

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        found = asdict(self.verdict)
        return {"about": dict(self.file.about), "operations": len(self.file.history), "sound": self.sound, **found}

    def in_words(self) -> str:
        """For people: what it is of, the counts, and each violation with the rows that prove it."""
        lines = [_about(self.file.about), f"{len(self.file.history):,} calls on {len(self.file.names):,} accounts"]
        verdict = self.verdict
        lines += [
            f"{verdict.acknowledged:,} changes acknowledged, {verdict.acknowledged_lost:,} of them lost "
            f"({verdict.acknowledged_lost_amount:,} in money)",
            f"{verdict.duplicated:,} applied once too often, {verdict.torn:,} transfers torn",
            f"{verdict.indeterminate:,} of unknown fate, {verdict.indeterminate_applied:,} of them applied",
            f"conserved: {_answer(verdict.conserved)}; linearizable: {verdict.linearizable}",
            "sound: nothing speaks against it" if self.sound else f"violations: {verdict.violations_total:,}",
        ]
        lines += ["\n" + pictures.in_words(each, self.file.history, self.file.names) for each in verdict.violations]
        return "\n".join(filter(None, lines))


def judge(path: Path) -> Judgement:
    """Check the history in a file.

    Raises:
        HistoryFileError: it holds none, or the accounts could not be read when it was over.
    """
    file = history_files.load(path)
    if file.final is None:
        raise HistoryFileError(
            f"{path} has no final balances: the accounts could not be read, so nothing can be judged"
        )
    across_accounts = file.about.get("consistency") == Consistency.LINEARIZABLE
    verdict = check(file.history, file.names, file.opening, file.final, across_accounts=across_accounts)
    return Judgement(file, verdict)


def _about(about: Mapping[str, Any]) -> str:
    words = [f"{about.get('strategy', '')}:{about.get('variant', '')}".strip(":")]
    words += [str(about[name]) for name in ("fault", "caller", "retry") if about.get(name)]
    return " ".join(filter(None, words))


def _answer(value: bool | None) -> str:
    return "not told" if value is None else "yes" if value else "no"
