"""Numbers from histories and from repeated trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.history import OK, History, Int64s

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}

_SAMPLES_BEYOND = 3
"""Samples that must lie beyond a percentile: 300 for a p99. With fewer it is one operation's luck."""


@dataclass(frozen=True)
class Speed:
    """Throughput and latency of one trial's answered operations."""

    seconds: float
    operations: int
    ops_per_s: float
    latency_us: dict[str, float | None]
    """By percentile name and `max`. A percentile that too few samples lie beyond is None."""


def speed(history: History, warmup_s: float) -> Speed:
    """Of the operations sent after the warm-up, up to the moment at which the first client had finished."""
    begin_ns = int(history.sent_ns.min()) + int(warmup_s * 1e9)
    end_ns = min(int(history.done_ns[history.client == client].max()) for client in np.unique(history.client))
    rows = (history.sent_ns >= begin_ns) & (history.done_ns <= end_ns) & (history.fate == OK)
    seconds = max((end_ns - begin_ns) / 1e9, 1e-9)
    latency_ns = (history.done_ns - history.due_ns)[rows]
    operations = len(latency_ns)
    return Speed(seconds, operations, operations / seconds, _percentiles_us(latency_ns))


def _percentiles_us(latency_ns: Int64s) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        name: round(float(np.percentile(latency_ns, percentile)) / 1e3, 3)
        if len(latency_ns) * (100 - percentile) / 100 >= _SAMPLES_BEYOND
        else None
        for name, percentile in PERCENTILES.items()
    }
    found["max"] = round(float(latency_ns.max()) / 1e3, 3) if len(latency_ns) else None
    return found


@dataclass(frozen=True)
class Outage:
    """How one fault was felt by callers. Seconds; a mean gap between due times is the resolution."""

    unavailable_s: float
    """Longest time for which some account got no acknowledgement, from the fault to the end of the load."""
    detection_s: float | None
    """From the fault to the first caller that was told of it; None if nobody was."""
    recovery_s: float | None
    """From the fault until every account had been served again; None if one never was."""


def outage(history: History, fault_ns: int) -> Outage:
    """What the accounts' callers saw after `fault_ns`, a reading of `perf_counter_ns`."""
    end_ns = int(history.done_ns.max())
    failed = history.where((history.fate != OK) & (history.done_ns >= fault_ns))
    acknowledged = history.where(history.fate == OK)
    gaps_ns, back_ns = [], []
    for account in np.unique(history.account):
        done = np.sort(acknowledged.done_ns[acknowledged.account == account])
        edges = np.concatenate([[fault_ns], done[done >= fault_ns], [end_ns]])
        gaps_ns.append(int(np.diff(edges).max()))
        served = acknowledged.done_ns[(acknowledged.account == account) & (acknowledged.sent_ns >= fault_ns)]
        back_ns.append(int(served.min()) - fault_ns if len(served) else None)
    latest = [back for back in back_ns if back is not None]
    return Outage(
        unavailable_s=max(gaps_ns) / 1e9,
        detection_s=(int(failed.done_ns.min()) - fault_ns) / 1e9 if len(failed) else None,
        recovery_s=max(latest) / 1e9 if len(latest) == len(back_ns) else None,
    )


@dataclass(frozen=True)
class Summary:
    """Of repeated trials: their median, and the range that they span."""

    median: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    return Summary(float(np.median(values)), float(min(values)), float(max(values)))
