"""Where state can live, in three sentences with a run's own figures: in the driver, in Dask actors, outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from benchmarks.harness.book_columns import Column, column_of_row
from benchmarks.harness.cells import Status
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.report_tables import SUMMARY_WORKLOAD
from benchmarks.harness.table_text import count, durability_place, present
from strategies.interface import Caller, Durability, Fault

_KEEPS = {
    Durability.PROCESS_CRASH: "a crash of its process",
    Durability.POWER_LOSS: "a power loss",
    Durability.REPLICATED: "the loss of a machine",
}

_PLACES = {Caller.DRIVER: "the driver", Caller.TASK: "a task"}


def three_sentences(trials: Sequence[Trial]) -> list[str]:
    """At most three: one of a column is left out where nothing of it was measured."""
    by_column = {column: [trial for trial in trials if _column(trial) is column] for column in Column}
    found = (
        _inside(by_column[Column.LOCAL], "state in the driver", Fault.DRIVER_KILL, "driver"),
        _inside(by_column[Column.ACTORS], "a Dask actor", Fault.WORKER_KILL, "worker"),
        _outside(by_column[Column.EXTERNAL]),
    )
    return [sentence for sentence in found if sentence]


def _column(trial: Trial) -> Column | None:
    return column_of_row(trial.strategy, trial.variant)


def _inside(trials: Sequence[Trial], call: str, fault: Fault, killed: str) -> str:
    """How long such a call takes, and what was lost with the process that held the state."""
    places = _places(trials)
    if not places:
        return ""
    lost = _lost(trials, fault)
    words = f"; with a killed {killed}, {lost} acknowledged deposits were gone" if lost else ""
    return f"A call of {call} takes {' and '.join(places)}{words}."


def _outside(trials: Sequence[Trial]) -> str:
    fastest = []
    for durability in sorted(present(trial.durability for trial in trials), key=durability_place):
        if durability not in _KEEPS:
            continue
        of_class = [trial for trial in trials if trial.durability == durability]
        speeds = {
            (row, caller): rate
            for caller in _callers(of_class)
            for row, rate in _medians(of_class, caller, "ops_per_s").items()
        }
        if speeds:
            row, caller = max(speeds, key=lambda key: speeds[key])
            figure = f"{count(speeds[row, caller])} calls/s from {_PLACES[caller]}"
            fastest.append(f"{_KEEPS[Durability(durability)]} is {row} ({figure})")
    if not fastest:
        return ""
    keeping = [trial for trial in trials if trial.durability in _KEEPS]
    lost = _lost(keeping, Fault.SERVER_KILL)
    words = f"; of all that claim it, a killed server took {lost} acknowledged deposits" if lost else ""
    return f"Of state outside, the fastest that outlasts {', '.join(fastest)}{words}."


def _places(trials: Sequence[Trial]) -> list[str]:
    """How long a call takes, for each place that calls."""
    return [
        f"{figure} from {_PLACES[caller]}"
        for caller in _callers(trials)
        if (figure := _range(_medians(trials, caller, "latency_us_p50")))
    ]


def _callers(trials: Iterable[Trial]) -> list[Caller]:
    return [Caller(caller) for caller in present(trial.caller for trial in trials)]


def _medians(trials: Iterable[Trial], caller: Caller, figure: str) -> Mapping[str, float]:
    """Of each row, on the workload that tables sum up, in a closed loop."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.fault is None and trial.workload == SUMMARY_WORKLOAD and trial.caller == caller:
            value = getattr(trial, figure)
            if trial.status == Status.OK and trial.arrivals in (None, Arrivals.CLOSED) and value:
                found.setdefault(trial.row, []).append(value)
    return {row: median(values) for row, values in found.items()}


def _range(us: Mapping[str, float]) -> str:
    if not us:
        return ""
    least, most = min(us, key=lambda row: us[row]), max(us, key=lambda row: us[row])
    if least == most:
        return f"{_time(us[least])} ({least})"
    return f"{_time(us[least])} ({least}) to {_time(us[most])} ({most})"


def _time(us: float) -> str:
    return f"{us:.3g} µs" if us < 999.5 else f"{us / 1_000:,.1f} ms"


def _lost(trials: Iterable[Trial], fault: Fault) -> str:
    struck = [trial for trial in trials if trial.fault == fault and trial.acknowledged_lost is not None]
    if not struck:
        return ""
    lost = sum(trial.acknowledged_lost or 0 for trial in struck)
    return f"{count(lost)} of {count(sum(trial.acknowledged or 0 for trial in struck))}"
