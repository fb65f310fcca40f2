"""The highest rate that keeps a latency target, found in few probes; and the rates of a latency-throughput curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PROBES = 12
"""The most probes of one search."""
PRECISION = 0.02
"""A search ends when the rates between which the limit lies are this close."""
_WIDEN = 1.5

CURVE = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Of what a closed loop reaches: rates at which a sweep measures latency."""


@dataclass(frozen=True)
class Limit:
    """Where a search ended."""

    rate_per_s: float | None
    """The highest rate that kept the target; None if none did."""
    above_per_s: float | None
    """The lowest rate that did not; None if all did."""
    probes: int


def highest_rate(keeps: Callable[[float], bool], first_per_s: float, probes: int = PROBES) -> Limit:
    """Look for the highest rate at which `keeps` holds, from `first_per_s` on, by doubling back and bisecting.

    What is left of the probes once the limit is close is spent on the bound above: one unlucky probe there
    would hide all rates beyond it.

    Raises:
        ValueError: `first_per_s` or `probes` is not positive.
    """
    if first_per_s <= 0 or probes < 1:
        raise ValueError(f"a search needs a positive first rate and a probe, not {first_per_s} and {probes}")
    low: float | None = None
    high: float | None = None
    rate = first_per_s
    for _ in range(probes):
        if keeps(rate):
            low = max(rate, low or 0.0)
            high = None if high is not None and high <= rate else high
        else:
            high = min(rate, high or rate)
        if low is None or high is None:
            rate = low * _WIDEN if low is not None else rate / _WIDEN
        else:
            rate = (low * high) ** 0.5 if high / low > 1 + PRECISION else high
    return Limit(low, high, probes)
