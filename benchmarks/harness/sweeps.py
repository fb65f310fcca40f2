"""Trials that belong together: a search for the highest rate, a curve over rates, scaling over clients or shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import Trial
from benchmarks.harness.scaling import fit
from benchmarks.harness.search import CURVE, PROBES, highest_rate

__all__ = ["CURVE", "PROBES"]

CLIENTS, SHARDS = "clients", "shards"
"""What throughput is measured over, by the name of a cell's field."""

Measure = Callable[[Cell, int], Trial]
"""Runs one trial of a cell, as the repeat of this number, and records it."""

ACHIEVED = 0.99
"""Of what is offered, what a sustained rate achieves."""


@dataclass(frozen=True)
class Found:
    """The highest rate that kept a target, for one cell."""

    strategy: str
    variant: str
    workload: str
    caller: str
    target_p99_ms: float
    rate_per_s: float | None
    """None if none kept it, or none could be measured."""
    above_per_s: float | None
    """The lowest rate that did not keep it."""
    latency_us_p99: float | None
    """At the rate that was found."""
    probes: int
    reason: str | None
    """Why there is no rate."""


def search(cell: Cell, measure: Measure, target_p99_ms: float, probes: int, arrivals: Arrivals) -> Found:
    """At most `probes` trials: a closed loop, which tells where to look, and then an open loop at each rate."""
    closed = measure(cell, 0)
    if closed.status != Status.OK or not closed.ops_per_s:
        return _found(cell, target_p99_ms, None, None, None, 1, closed.reason or "a closed loop was answered nothing")
    p99_us: dict[float, float] = {}
    tried = iter(range(1, probes))
    trials: list[Trial] = []

    def keeps(rate_per_s: float) -> bool:
        trial = measure(replace(cell, arrivals=arrivals, rate_per_s=_written(rate_per_s)), next(tried))
        trials.append(trial)
        kept = _sustained(trial) and trial.latency_us_p99 is not None and trial.latency_us_p99 <= target_p99_ms * 1e3
        if kept:
            assert trial.latency_us_p99 is not None
            p99_us[rate_per_s] = trial.latency_us_p99
        return kept

    limit = highest_rate(keeps, closed.ops_per_s, probes - 1)
    reason: str | None = None
    if limit.rate_per_s is None:
        last = trials[-1]
        reason = last.reason or last.distrust or f"no rate down to {last.offered_per_s:g}/s kept the target"
    rate = None if limit.rate_per_s is None else _written(limit.rate_per_s)
    return _found(
        cell, target_p99_ms, rate, limit.above_per_s, p99_us.get(limit.rate_per_s or 0.0), 1 + limit.probes, reason
    )


def _found(
    cell: Cell,
    target_p99_ms: float,
    rate_per_s: float | None,
    above_per_s: float | None,
    p99_us: float | None,
    probes: int,
    reason: str | None,
) -> Found:
    above = None if above_per_s is None else _written(above_per_s)
    return Found(
        cell.name,
        cell.variant,
        cell.workload,
        cell.caller,
        target_p99_ms,
        rate_per_s,
        above,
        p99_us,
        probes,
        reason,
    )


def _written(rate_per_s: float) -> float:
    """To four digits: finer than any search can tell."""
    return float(f"{rate_per_s:.4g}")


def _sustained(trial: Trial) -> bool:
    return trial.status == Status.OK and (trial.achieved_ratio or 0.0) >= ACHIEVED


def curve(cell: Cell, measure: Measure, rates: Sequence[float] | None, arrivals: Arrivals, repeats: int) -> None:
    """Latency at each rate; without `rates`, at those of `CURVE` times what a closed loop is answered."""
    if rates is None:
        closed = measure(cell, 0)
        if not closed.ops_per_s:
            return
        rates = list(dict.fromkeys(_written(closed.ops_per_s * share) for share in CURVE))
    for repeat in range(repeats):
        for rate in rates:
            measure(replace(cell, arrivals=arrivals, rate_per_s=rate), repeat)


def over(cell: Cell, what: str, values: Sequence[int], measure: Measure, repeats: int) -> None:
    """A closed loop with each number of clients, or of shards."""
    for repeat in range(repeats):
        for value in values:
            changed = replace(cell, clients=value) if what == CLIENTS else replace(cell, shards=value)
            measure(changed, repeat)


def scaling(trials: Sequence[Trial], what: str) -> list[dict[str, Any]]:
    """The fit of throughput over clients or shards for each row, workload and caller that has enough of them."""
    groups: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for trial in trials:
        if trial.ops_per_s and trial.trusted and trial.arrivals == Arrivals.CLOSED:
            points = groups.setdefault((trial.strategy, trial.variant, trial.workload, trial.caller), {})
            points.setdefault(getattr(trial, what), []).append(trial.ops_per_s)
    return [_fitted(group, what, points) for group, points in groups.items()]


def _fitted(group: Sequence[str], what: str, points: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    names = dict(zip(("strategy", "variant", "workload", "caller"), group, strict=True))
    try:
        return {**names, "over": what, "reason": None, **asdict(fit(points))}
    except ValueError as error:
        return {**names, "over": what, "reason": str(error)}
