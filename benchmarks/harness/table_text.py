"""How figures are written in tables, and what stands there where there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.harness.cells import Status
from benchmarks.harness.intervals import Estimate
from benchmarks.harness.records import Trial
from strategies.interface import Durability

MARKS = {Status.NOT_APPLICABLE: "n/a", Status.RESOURCE_MISSING: "missing", Status.FAILED: "failed"}
"""How what was not measured is shown: three different things."""

NO_FIGURE = "-"

_DURABILITY_ORDER = {str(durability): place for place, durability in enumerate(Durability)}


@dataclass(frozen=True)
class Metric:
    """One column of the tables: which figure of which trials, and how it is written."""

    title: str
    value: Callable[[Trial], float | None]
    write: Callable[[float], str]
    spread: bool = True
    """Whether to show its interval over repeats too."""


@dataclass(frozen=True)
class Section:
    """A table under a heading."""

    heading: str
    lines: list[list[str]]
    """The first is the header."""
    text_columns: int = 2
    """Of the first columns, how many hold words."""
    matrix: bool = False
    """Whether every entry is a finding in words."""


def count(value: float) -> str:
    """Whole."""
    return f"{value:,.0f}"


def microseconds(value: float) -> str:
    """With a decimal where that says something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def seconds(value: float) -> str:
    """To the hundredth."""
    return f"{value:.2f}"


def estimate(found: Estimate, write: Callable[[float], str], *, spread: bool = True) -> str:
    """A figure, with its interval if that has a width in as many digits."""
    text = write(found.value)
    if not spread or found.low is None or found.high is None:
        return text
    low, high = write(found.low), write(found.high)
    return text if low == high else f"{text} ({low}–{high})"


def present(values: Iterable[str | None]) -> list[str]:
    """Those that there are, each once, sorted."""
    return sorted({value for value in values if value is not None})


def durability_place(durability: str) -> int:
    """Of a class in tables: from the weakest on, unknown ones last."""
    return _DURABILITY_ORDER.get(durability, len(_DURABILITY_ORDER))


def by_durability(row: tuple[str, str, str]) -> tuple[int, tuple[str, str, str]]:
    """The place of (strategy, variant, durability) in a table: results are compared within one class."""
    return durability_place(row[2]), row


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines; the first of `table` is its header."""
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(_plain(entry) for entry in line) + " |" for line in lines]


def _plain(entry: str) -> str:
    return " ".join(str(entry).split()).replace("|", "\\|")
