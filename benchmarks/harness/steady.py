"""Where a load's warm-up ends: found in the load's own latencies, not fixed beforehand."""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks.harness.history import Floats, History

SLICES = 40
"""Equal parts of a load whose median latencies are looked at."""

_TREND_P = 0.01
_DRIFT = 0.2
"""A slice of the beginning, or a trend from the first third to the last, counts as different if it is both unlikely
to be chance and by more than this."""
_LEAST_SLICES = 6


def settled_s(history: History, seconds: float, allowance_s: float) -> float | None:
    """How much of the beginning of a load of `seconds` to cut, at most `allowance_s`; None if it never settles.

    The cut is where the rest has the smallest standard error: MSER (White, 1997, An effective truncation
    heuristic for bias reduction in simulation output), on medians of slices, which one slow call does not
    move. On a machine whose speed wanders that alone would cut where it happens to be quiet: of what comes before,
    only the beginning that differs from the rest is cut. What is left must show no trend by Kendall's rank
    correlation with time.
    """
    medians = _slice_medians(history, seconds)
    slices_allowed = int(allowance_s / seconds * SLICES)
    errors = [
        float(np.var(rest) / len(rest)) for cut in range(slices_allowed + 1) if len(rest := _known(medians[cut:]))
    ]
    quiet = int(np.argmin(errors))
    cut = _differing(medians[:quiet], _known(medians[quiet:]))
    return None if _drifts(_known(medians[cut:])) else cut * seconds / SLICES


def _slice_medians(history: History, seconds: float) -> Floats:
    """Median latency of what was due in each slice; NaN in a slice without any, which tells nothing."""
    begin_ns = int(history.due_ns.min())
    slice_ns = seconds * 1e9 / SLICES
    place = np.minimum((history.due_ns - begin_ns) // slice_ns, SLICES - 1).astype(np.int64)
    latency_ns = history.done_ns - history.due_ns
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(SLICES + 1))
    medians = np.full(SLICES, np.nan)
    for index in range(SLICES):
        rows = order[bounds[index] : bounds[index + 1]]
        if len(rows):
            medians[index] = np.median(latency_ns[rows])
    return medians


def _known(medians: Floats) -> Floats:
    known: Floats = medians[~np.isnan(medians)]
    return known


def _differing(before: Floats, rest: Floats) -> int:
    """How many slices of `before`, from the first on, are as no slice of the rest: most of them, if not all."""
    if not len(before):
        return 0
    usual = float(np.median(rest))
    differs = (abs(before - usual) > _DRIFT * usual) & ((before < rest.min()) | (before > rest.max()))
    surplus = np.cumsum(np.where(np.isnan(before), 0, np.where(differs, 1, -1)))
    return int(np.argmax(surplus)) + 1 if surplus.max() > 0 else 0


def _drifts(medians: Floats) -> bool:
    if len(medians) < _LEAST_SLICES:
        return False
    third = len(medians) // 3
    first, last = float(np.median(medians[:third])), float(np.median(medians[-third:]))
    if abs(last - first) <= _DRIFT * float(np.median(medians)):
        return False
    return bool(stats.kendalltau(np.arange(len(medians)), medians).pvalue < _TREND_P)
