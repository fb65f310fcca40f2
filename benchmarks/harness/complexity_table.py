"""The measured complexity of strategies as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.harness.cells import Status
from benchmarks.harness.complexity import Complexity
from benchmarks.harness.table_text import MARKS, NO_FIGURE, by_durability, count, estimate, microseconds, seconds

HEADER = (
    *("strategy", "durability", "lines, own", "shared", "caller's", "cyclomatic, own", "shared", "caller's"),
    *("processes", "ports", "installed MB", "settings", "first answer after s", "of which Dask s", "open s"),
    *("bytes per account", "call p50 µs", "empty task p50 µs"),
)

_FIGURES: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("first_ack_s", seconds),
    ("dask_s", seconds),
    ("open_s", lambda value: f"{value:.3f}"),
    ("bytes_per_account", count),
    ("call_us_p50", microseconds),
    ("task_us_p50", microseconds),
)


def table(rows: Sequence[Complexity]) -> list[list[str]]:
    """Header, then rows by durability class."""
    ordered = sorted(rows, key=lambda row: by_durability((row.strategy, row.variant, row.durability)))
    return [list(HEADER), *map(_line, ordered)]


def _line(row: Complexity) -> list[str]:
    parts = ("own", "shared", "caller")
    code = [count(row.lines(part)) for part in parts] + [count(row.ways(part)) for part in parts]
    if row.status != Status.OK:
        return [row.row, row.durability, *code, *[MARKS[Status(row.status)]] * (len(HEADER) - 2 - len(code))]
    megabytes = NO_FIGURE if row.installed_mb is None else f"{row.installed_mb:,.1f}"
    counts = [_figure(row, "processes", count), _figure(row, "ports", count), megabytes]
    figures = [_figure(row, name, write) for name, write in _FIGURES]
    return [row.row, row.durability, *code, *counts, _figure(row, "settings", count), *figures]


def _figure(row: Complexity, name: str, write: Callable[[float], str]) -> str:
    found = row.figure(name)
    return NO_FIGURE if found is None else estimate(found, write)
