"""Holds contenders against each other: all take turns in one run, and each row is a ratio of two of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from benchmarks.harness.intervals import ratio_paired

Block = Callable[[], float]
"""Measures a contender for a fraction of a second; returns operations per second, or the median seconds of a call."""

ROUNDS_MIN, ROUNDS_MAX = 6, 15
ROUNDS_S = 110.0
"""No round begins that would probably end later, once there are enough."""


class Sense(StrEnum):
    """What a row's target asks of its ratio."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    REPORT = "report"
    """Nothing: there is no target here, and the row says why."""


@dataclass(frozen=True)
class Comparison:
    """One row before it is measured: two contenders by name."""

    row: str
    above: str
    below: str
    sense: Sense = Sense.REPORT
    target: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A contender over another: the median ratio of paired blocks, with its 95 % interval."""

    row: str
    ratio: float
    low: float
    high: float
    sense: Sense
    target: float | None
    verdict: str
    """`holds` or `short`: the ratio against the target; `report` where there is none."""
    above: float
    """The first contender's median block, in operations per second or in seconds a call."""
    below: float
    rounds: int
    note: str

    @classmethod
    def of_record(cls, recorded: Mapping[str, Any]) -> Self:
        """A row as it was written to JSON."""
        return cls(**{**recorded, "sense": Sense(recorded["sense"])})

    @property
    def wanted(self) -> str:
        """The target as a table shows it."""
        if self.sense is Sense.REPORT:
            return "-"
        return f"{'≥' if self.sense is Sense.AT_LEAST else '≤'} {self.target:g}"

    @property
    def cells(self) -> tuple[str, ...]:
        """Row, ratio, interval, target and verdict."""
        interval = f"{_shown(self.low)}–{_shown(self.high)}"
        return self.row, _shown(self.ratio), interval, self.wanted, self.verdict


COLUMNS = ("row", "ratio", "95 % interval", "target", "verdict")


def measured(
    contenders: Mapping[str, Block], comparisons: Sequence[Comparison], seed: int, rounds_s: float = ROUNDS_S
) -> list[Row]:
    """Measure every contender once a round, in an order that is shuffled anew each time.

    There are as many rounds as fit into `rounds_s`, from `ROUNDS_MIN` to `ROUNDS_MAX`.
    """
    blocks: dict[str, list[float]] = {name: [] for name in contenders}
    chance = random.Random(seed)
    for block in contenders.values():
        block()  # what is made and cached at first is no part of it
    begin = time.monotonic()
    for done in range(ROUNDS_MAX):
        if done >= ROUNDS_MIN and (time.monotonic() - begin) * (done + 1) / done > rounds_s:
            break
        for name in chance.sample(sorted(contenders), len(contenders)):
            blocks[name].append(contenders[name]())
    return [_row(each, blocks[each.above], blocks[each.below], seed) for each in comparisons]


def _row(comparison: Comparison, above: Sequence[float], below: Sequence[float], seed: int) -> Row:
    found = ratio_paired(above, below, seed)
    assert found.low is not None
    assert found.high is not None
    return Row(
        row=comparison.row,
        ratio=round(found.value, 4),
        low=round(found.low, 4),
        high=round(found.high, 4),
        sense=comparison.sense,
        target=comparison.target,
        verdict=_verdict(comparison, found.value),
        above=float(f"{_median(above):.4g}"),
        below=float(f"{_median(below):.4g}"),
        rounds=len(above),
        note=comparison.note,
    )


def _verdict(comparison: Comparison, ratio: float) -> str:
    if comparison.sense is Sense.REPORT:
        return "report"
    assert comparison.target is not None
    holds = ratio >= comparison.target if comparison.sense is Sense.AT_LEAST else ratio <= comparison.target
    return "holds" if holds else "short"


def _shown(ratio: float) -> str:
    """With three digits, zeros among them; a thousand and more with all of theirs."""
    return f"{ratio:#.3g}".removesuffix(".") if ratio < 1000 else f"{ratio:,.0f}"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
