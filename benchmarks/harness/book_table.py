"""The book's comparison of where state can live, measured: its words, our figure with its interval, and a verdict.

A verdict is worked out from each strategy of a column by the rule of `RULES`: all of them fit what the book says, none
does, or it depends on which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median as middle

from scipy import stats

from benchmarks.harness.book_columns import Column, column_of, column_of_row
from benchmarks.harness.cells import Status
from benchmarks.harness.companions import Companions
from benchmarks.harness.complexity import Complexity
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.generator import Retry
from benchmarks.harness.intervals import CONFIDENCE, Estimate, median, ratio_paired, ratio_unpaired
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.table_text import Section, count, estimate, microseconds, seconds
from strategies.interface import Caller, Fault


class Verdict(StrEnum):
    """On one entry of the book's table."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    DEPENDS = "depends"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Entry:
    """One cell."""

    says: str
    """The book's words."""
    figures: tuple[str, ...]
    """What we measured, in words and numbers; empty where nothing was."""
    verdict: Verdict
    on: str = ""
    """What it depends on, or what is to be measured."""


@dataclass(frozen=True)
class Line:
    """One criterion."""

    criterion: str
    entries: Mapping[Column, Entry]
    rule: str
    """How its verdicts are made."""


SAYS: Mapping[str, Mapping[Column, str]] = {
    "Scalability": {
        Column.LOCAL: "No, all state must fit on single machine",
        Column.ACTORS: "State within each actor must fit on a machine, but actors are spread out",
        Column.EXTERNAL: "Yes",
    },
    "Resilience": {
        Column.LOCAL: "semi … loss of driver is already catastrophic",
        Column.ACTORS: "No, loss of any worker with an actor becomes catastrophic",
        Column.EXTERNAL: "Yes, loss of entire cluster can be recovered from",
    },
    "Performance overhead": {
        Column.LOCAL: "RPC to driver",
        Column.ACTORS: "Same as dask.delayed",
        Column.EXTERNAL: "RPC to external system + external systems overhead",
    },
    "Code complexity": {Column.LOCAL: "Low", Column.ACTORS: "Medium", Column.EXTERNAL: "High (new library …)"},
    "Deployment complexity": {
        Column.LOCAL: "Low",
        Column.ACTORS: "Low",
        Column.EXTERNAL: "High (new system to maintain)",
    },
}
"""The book's Table "Comparison of techniques for managing mutable state", shortened where … stands."""

RULES: Mapping[str, str] = {
    "Scalability": "A strategy scales where its throughput from the most callers or owners, over that from the fewest, "
    "has an interval wholly above 1. On one machine: whether state outgrows a machine was not tried. Where local state "
    "scales so, it depends on what grows: it has one owner, in one process.",
    "Resilience": "Of trials in which a driver (local), a worker (actors), or a worker, the scheduler or all of the "
    "cluster (external) was lost, with op ids: it is catastrophic where acknowledged deposits were lost, and recovered "
    "from where nothing was lost or doubled and all accounts were served again; in 95 % of its trials or more.",
    "Performance overhead": "Local: a call from a task takes at least twice as long as one in the driver. Actors: one "
    "call, over an empty dask.delayed task in the same process, has an interval that reaches between ½ and 2. "
    "External: one call takes longer than one on local state. Intervals count, not medians.",
    "Code complexity": "Of lines and cyclomatic complexity (the strategy with what it shares) and of a caller's lines, "
    "each against the other columns' medians: lower, higher, or within a factor of two of an equal word of the book's. "
    "Differences of less than a tenth are none. The majority tells.",
    "Deployment complexity": "The same with processes, ports, installed megabytes, settings and seconds to the first "
    "acknowledgement, all beyond the Dask cluster and the packages that a Dask program has anyway. A megabyte, two "
    "settings and a second are nothing.",
}
"""How verdicts are made."""

_SCALING_ROW, _SCALING_COLUMN = "pool_scaling_4", Column.ACTORS
"""Of the scoreboard: 4 owners called from 4 processes over 1 from 1."""

_RANKS: Mapping[str, Mapping[Column, int]] = {
    "Code complexity": {Column.LOCAL: 0, Column.ACTORS: 1, Column.EXTERNAL: 2},
    "Deployment complexity": {Column.LOCAL: 0, Column.ACTORS: 0, Column.EXTERNAL: 1},
}
_SAME_WITHIN, _MORE_THAN = 2.0, 1.1
_SHARE = 0.95
_REMOTE = 2.0
_NAMED = 4
"""Strategies that are named each; the others are counted."""


@dataclass(frozen=True)
class _Ranked:
    """A figure of complexity that a column's place is worked out from."""

    words: str
    value: Callable[[Complexity], float | None]
    least: float
    """What is as good as nothing."""
    timed: Callable[[Complexity], Estimate | None] | None = None
    """Where it has an interval."""


def _deployed(name: str) -> Callable[[Complexity], float | None]:
    return lambda row: None if (found := row.figure(name)) is None else found.value


def _beyond_dask_s(row: Complexity) -> Estimate | None:
    spent = [
        total - of_dask
        for total, of_dask in zip(row.trials.get("first_ack_s", ()), row.trials.get("dask_s", ()), strict=True)
        if total is not None and of_dask is not None
    ]
    return median(spent) if spent else None


_CODE = (
    _Ranked("lines", lambda row: float(row.lines("own", "shared")), 10),
    _Ranked("cyclomatic", lambda row: float(row.ways("own", "shared")), 5),
    _Ranked("a caller's lines", lambda row: float(row.lines("caller")), 1),
)
_DEPLOYMENT = (
    _Ranked("processes", _deployed("processes"), 0),
    _Ranked("ports", _deployed("ports"), 0),
    _Ranked("MB installed", lambda row: row.installed_mb, 1),
    _Ranked("settings", _deployed("settings"), 2),
    _Ranked(
        "seconds to the first answer",
        lambda row: None if (found := _beyond_dask_s(row)) is None else found.value,
        1,
        _beyond_dask_s,
    ),
)


def table(trials: Sequence[Trial], faults: Sequence[FaultFigures], companions: Companions) -> list[Line]:
    """Of a run, with what is recorded beside it. `faults` are the run's own cells, beside those of published tables."""
    cells = [*faults, *(cell for table in companions.failures for cell in table.cells)]
    complexities = companions.complexity.rows if companions.complexity is not None else ()
    entries = {
        "Scalability": _scalability(trials, companions),
        "Resilience": _resilience(cells),
        "Performance overhead": _overhead(trials, complexities),
        "Code complexity": _ranked("Code complexity", _CODE, _each_strategy(complexities)),
        "Deployment complexity": _ranked("Deployment complexity", _DEPLOYMENT, complexities),
    }
    return [Line(criterion, entries[criterion], RULES[criterion]) for criterion in SAYS]


def section(lines: Sequence[Line]) -> Section:
    """As one table of words."""
    header = ["the book's criterion", *(str(column) for column in Column)]
    rows = [[line.criterion, *(_in_words(line.entries[column]) for column in Column)] for line in lines]
    return Section("Table 1, measured", [header, *rows], len(header))


def verdicts(lines: Sequence[Line]) -> Section:
    """The book's words, and the verdicts alone."""
    header = ["the book's criterion", *(str(column) for column in Column)]
    rows = [
        [line.criterion, *(f"“{line.entries[column].says}”: **{line.entries[column].verdict}**" for column in Column)]
        for line in lines
    ]
    return Section("The book's table", [header, *rows], len(header))


def _in_words(entry: Entry) -> str:
    verdict = f"{entry.verdict} ({entry.on})" if entry.on else str(entry.verdict)
    return ". ".join([f"“{entry.says}”: {verdict}", *entry.figures])


# -- verdicts --------------------------------------------------------------------------------------


def _entry(criterion: str, column: Column, fits: Mapping[str, bool], figures: Sequence[str], lacking: str) -> Entry:
    """`fits` are strategies' rows, and whether what they measured is as the book says."""
    says = SAYS[criterion][column]
    if not fits:
        return Entry(says, tuple(figures), Verdict.NOT_MEASURED, lacking)
    as_said = [row for row, fit in fits.items() if fit]
    other = [row for row, fit in fits.items() if not fit]
    if not other:
        return Entry(says, tuple(figures), Verdict.CONFIRMED)
    if not as_said:
        return Entry(says, tuple(figures), Verdict.REFUTED)
    return Entry(says, tuple(figures), Verdict.DEPENDS, f"on the strategy: {_named(as_said)}; not {_named(other)}")


def _named(rows: Sequence[str]) -> str:
    more = [f"{len(rows) - _NAMED} more"] if len(rows) > _NAMED else []
    return ", ".join([*rows[:_NAMED], *more])


def _from_to(words: str, found: Mapping[str, Estimate], write: Callable[[float], str]) -> list[str]:
    """The least and the most of some rows' figures, each with its interval and its row."""
    if not found:
        return []
    ordered = sorted(found, key=lambda row: found[row].value)
    ends = [f"{estimate(found[row], write)} {row}" for row in dict.fromkeys((ordered[0], ordered[-1]))]
    return [f"{words}: {' to '.join(ends)}"]


def _times(value: float) -> str:
    return f"{value:,.0f}×" if value >= 1_000 else f"{value:.3g}×"


# -- scalability -----------------------------------------------------------------------------------


def _scalability(trials: Sequence[Trial], companions: Companions) -> dict[Column, Entry]:
    gains = _gains([trials, *(sweep.trials for sweep in companions.sweeps)])
    entries = {}
    for column in Column:
        found = gains[column]
        scales = {row: gain.low is not None and gain.low > 1 for row, (gain, _) in found.items()}
        figures = [
            line
            for over in dict.fromkeys(over for _, over in found.values())
            for line in _from_to(over, {row: gain for row, (gain, of) in found.items() if of == over}, _times)
        ]
        if column is _SCALING_COLUMN and companions.scoreboard is not None:
            for row in companions.scoreboard.rows:
                if row.row == _SCALING_ROW:
                    scales[row.row] = row.low > 1
                    gain = Estimate(row.ratio, row.low, row.high, row.rounds)
                    figures.append(f"4 owners over 1: {estimate(gain, _times)}")
        fits = {row: not scaled for row, scaled in scales.items()} if column is Column.LOCAL else scales
        entry = _entry("Scalability", column, fits, figures, "sweep --over clients measures it")
        if column is Column.LOCAL and any(scales.values()):  # the book's reason is the state's size
            entry = replace(entry, verdict=Verdict.DEPENDS, on="on what grows: calls do, state stays in one process")
        entries[column] = entry
    return entries


def _gains(series: Sequence[Sequence[Trial]]) -> dict[Column, dict[str, tuple[Estimate, str]]]:
    """Of each row: throughput of the most callers, or owners, over that of the fewest; and what of."""
    points: dict[tuple[object, ...], dict[int, list[float]]] = {}
    for number, trials in enumerate(series):
        for trial in trials:
            if trial.fault or trial.status != Status.OK or trial.arrivals not in (None, Arrivals.CLOSED):
                continue
            if not trial.ops_per_s or not trial.trusted:
                continue
            form = (number, trial.strategy, trial.variant, trial.workload, trial.caller, trial.batch, trial.window)
            by_callers = points.setdefault((*form, "callers", trial.shards, trial.drivers), {})
            by_callers.setdefault(trial.clients, []).append(trial.ops_per_s)
            if trial.shards is not None:
                by_owners = points.setdefault((*form, "owners", trial.clients, trial.drivers), {})
                by_owners.setdefault(trial.shards, []).append(trial.ops_per_s)
    found: dict[Column, dict[str, tuple[Estimate, str]]] = {column: {} for column in Column}
    for key, sizes in points.items():
        column = column_of_row(str(key[1]), str(key[2]))
        if column is None or len(sizes) < 2:
            continue
        most, fewest = max(sizes), min(sizes)
        gain = ratio_unpaired(sizes[most], sizes[fewest])
        found[column].setdefault(f"{key[1]}:{key[2]}", (gain, f"{most} {key[7]} over {fewest}"))
    return found


# -- resilience ------------------------------------------------------------------------------------


def _resilience(cells: Sequence[FaultFigures]) -> dict[Column, Entry]:
    whole = (Fault.WORKER_KILL, Fault.SCHEDULER_KILL, Fault.CLIENT_RESTART)
    asked: Mapping[Column, tuple[tuple[Fault, ...], Callable[[FaultFigures], int], str]] = {
        Column.LOCAL: ((Fault.DRIVER_KILL,), lambda cell: cell.trials_lost, "acknowledged deposits lost"),
        Column.ACTORS: ((Fault.WORKER_KILL,), lambda cell: cell.trials_lost, "acknowledged deposits lost"),
        Column.EXTERNAL: (whole, lambda cell: cell.trials_survived, "nothing lost or doubled, served again"),
    }
    entries = {}
    for column, (faults, fits, words) in asked.items():
        judged = [
            cell
            for cell in cells
            if column_of_row(cell.strategy, cell.variant) is column and cell.fault in faults and cell.trials_judged
        ]
        chosen = [cell for cell in judged if cell.retry == Retry.OP_ID] or judged
        by_row: dict[str, tuple[int, int]] = {}
        for cell in chosen:
            fit, of = by_row.get(cell.row, (0, 0))
            by_row[cell.row] = fit + fits(cell), of + cell.trials_judged
        figures = []
        if by_row:
            met = " or ".join(fault for fault in faults if any(cell.fault == fault for cell in chosen))
            figures.append(f"{words}: {_share(*map(sum, zip(*by_row.values(), strict=True)))} after {met}")
        kept = {row: fit >= _SHARE * of for row, (fit, of) in by_row.items()}
        entries[column] = _entry("Resilience", column, kept, figures, "failures measures it")
    return entries


def _share(part: int, whole: int) -> str:
    interval = stats.binomtest(part, whole).proportion_ci(CONFIDENCE, method="exact")
    return f"{part:,} of {whole:,} trials ({100 * interval.low:.3g}–{100 * interval.high:.3g} %)"


# -- performance overhead --------------------------------------------------------------------------


def _overhead(trials: Sequence[Trial], complexities: Sequence[Complexity]) -> dict[Column, Entry]:
    lacking = "complexity measures it"
    by_column: dict[Column, dict[str, Complexity]] = {column: {} for column in Column}
    for row in complexities:
        column = column_of(row.needs)
        if row.status == Status.OK and column is not None:
            by_column[column][row.row] = row
    p50 = {column: _p50_us(trials, column) for column in Column}
    entries = {}

    remote = {
        row: ratio_unpaired(p50[Column.LOCAL][row, Caller.TASK], driver)
        for (row, caller), driver in p50[Column.LOCAL].items()
        if caller == Caller.DRIVER and (row, Caller.TASK) in p50[Column.LOCAL]
    }
    figures = [*_from_to("from a task over in the driver", remote, _times), *_p50_words(p50[Column.LOCAL])]
    fits = {row: (found.value if found.low is None else found.low) >= _REMOTE for row, found in remote.items()}
    entries[Column.LOCAL] = _entry("Performance overhead", Column.LOCAL, fits, figures, "run measures it")

    over_task = {
        row: ratio_paired(*pairs)
        for row, found in by_column[Column.ACTORS].items()
        if (pairs := _pairs(found, "call_us_p50", "task_us_p50"))
    }
    figures = [*_from_to("a call over an empty task", over_task, _times), *_p50_words(p50[Column.ACTORS])]
    fits = {
        row: (found.value if found.low is None else found.low) <= _SAME_WITHIN
        and (found.value if found.high is None else found.high) >= 1 / _SAME_WITHIN
        for row, found in over_task.items()
    }
    entries[Column.ACTORS] = _entry("Performance overhead", Column.ACTORS, fits, figures, lacking)

    local = [us for found in by_column[Column.LOCAL].values() for us in _known(found, "call_us_p50")]
    over_local = {
        row: ratio_unpaired(calls, local)
        for row, found in by_column[Column.EXTERNAL].items()
        if local and (calls := _known(found, "call_us_p50"))
    }
    figures = [*_from_to("a call over one on local state", over_local, _times), *_p50_words(p50[Column.EXTERNAL])]
    fits = {row: (found.value if found.low is None else found.low) > 1 for row, found in over_local.items()}
    entries[Column.EXTERNAL] = _entry("Performance overhead", Column.EXTERNAL, fits, figures, lacking)
    return entries


def _p50_us(trials: Sequence[Trial], column: Column) -> dict[tuple[str, str], list[float]]:
    """Service times by row and caller, of one workload and form: the first that was measured."""
    found: dict[tuple[str, str], list[float]] = {}
    forms: dict[tuple[str, str], tuple[object, ...]] = {}
    ordered = sorted(trials, key=lambda trial: trial.workload)
    for trial in ordered:
        plain = trial.fault is None and trial.status == Status.OK and trial.latency_kind == "service"
        if not plain or not trial.latency_us_p50 or column_of_row(trial.strategy, trial.variant) is not column:
            continue
        key, form = (trial.row, trial.caller), (trial.workload, trial.clients, trial.batch, trial.window)
        if forms.setdefault(key, form) == form:
            found.setdefault(key, []).append(trial.latency_us_p50)
    return found


def _p50_words(found: Mapping[tuple[str, str], Sequence[float]]) -> list[str]:
    words = []
    for caller in (Caller.DRIVER, Caller.TASK):
        of_caller = {row: median(values) for (row, each), values in found.items() if each == caller}
        words += _from_to(f"p50 µs from a {caller}", of_caller, microseconds)
    return words


def _known(row: Complexity, name: str) -> list[float]:
    return [value for value in row.trials.get(name, ()) if value]


def _pairs(row: Complexity, above: str, below: str) -> tuple[list[float], list[float]] | None:
    pairs = [
        (first, second)
        for first, second in zip(row.trials.get(above, ()), row.trials.get(below, ()), strict=True)
        if first and second
    ]
    return ([first for first, _ in pairs], [second for _, second in pairs]) if pairs else None


# -- complexity ------------------------------------------------------------------------------------


def _each_strategy(rows: Sequence[Complexity]) -> list[Complexity]:
    """One row of each: variants have the same code. What lacks a resource here has code all the same."""
    return list({row.strategy: row for row in reversed(rows)}.values())[::-1]


def _ranked(criterion: str, figures: Sequence[_Ranked], rows: Sequence[Complexity]) -> dict[Column, Entry]:
    ranks = _RANKS[criterion]
    by_column = {column: [row for row in rows if column_of(row.needs) is column] for column in Column}
    medians: dict[Column, dict[str, float]] = {}
    for column, of_column in by_column.items():
        medians[column] = {}
        for figure in figures:
            values = [value for row in of_column if (value := figure.value(row)) is not None]
            if values:
                medians[column][figure.words] = middle(values)
    entries = {}
    for column, of_column in by_column.items():
        fits = {}
        comparisons: list[bool] = []
        for row in of_column:
            held = [
                _holds(max(value, figure.least), max(medians[other][figure.words], figure.least), ranks[column], rank)
                for figure in figures
                for other, rank in ranks.items()
                if other is not column and figure.words in medians[other] and (value := figure.value(row)) is not None
            ]
            if held:
                fits[row.row] = sum(held) > len(held) / 2
                comparisons += held
        words = [line for figure in figures for line in _spread(figure, of_column)]
        if comparisons:
            words.append(f"as the book has it in {sum(comparisons)} of {len(comparisons)} comparisons")
        entries[column] = _entry(criterion, column, fits, words, "complexity measures it")
    return entries


def _holds(value: float, other: float, rank: int, other_rank: int) -> bool:
    """Whether one is to the other as the book's words are."""
    if rank == other_rank:
        return max(value, other) <= _SAME_WITHIN * min(value, other)
    more, less = (value, other) if rank > other_rank else (other, value)
    return more > _MORE_THAN * less


def _spread(figure: _Ranked, rows: Sequence[Complexity]) -> list[str]:
    """From the least to the most; with intervals where it was timed."""
    if figure.timed is not None:
        return _from_to(figure.words, {row.row: found for row in rows if (found := figure.timed(row))}, seconds)
    values = [value for row in rows if (value := figure.value(row)) is not None]
    if not values:
        return []
    ends = dict.fromkeys(_number(value) for value in (min(values), max(values)))
    return [f"{figure.words}: {'–'.join(ends)}"]


def _number(value: float) -> str:
    return count(value) if value == int(value) else f"{value:,.1f}"
