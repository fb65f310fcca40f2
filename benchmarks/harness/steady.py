"""Where a load's warm-up ends: found in the load's own latencies, not fixed beforehand."""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks.harness.history import Floats, History

SLICES = 40
"""Equal parts of a load whose median latencies are looked at."""

_TREND_P = 0.01
_DRIFT = 0.2
"""A beginning, or a trend from the first third to the last, counts as such if it is both unlikely to be chance and
larger than this."""
_LEAST_SLICES = 6


def settled_s(history: History, seconds: float, allowance_s: float) -> float | None:
    """How much of the beginning of a load of `seconds` to cut, at most `allowance_s`; None if it never settles.

    The cut is where the rest has the smallest standard error: MSER (White, 1997, An effective truncation
    heuristic for bias reduction in simulation output), on medians of slices, which one slow call does not
    move. On a machine whose speed wanders that alone would cut where it happens to be quiet: nothing is cut unless
    it differs from the rest. What is left must show no trend by Kendall's rank correlation with time.
    """
    medians = _slice_medians(history, seconds)
    slices_allowed = int(allowance_s / seconds * SLICES)
    errors = [float(np.var(rest) / len(rest)) for cut in range(slices_allowed + 1) if len(rest := medians[cut:])]
    cut = int(np.argmin(errors))
    if cut and not _differs(medians[:cut], medians[cut:]):
        cut = 0
    return None if _drifts(medians[cut:]) else cut * seconds / SLICES


def _slice_medians(history: History, seconds: float) -> Floats:
    """Median latency of what was sent in each slice; of a slice without any, that of the one before."""
    begin_ns = int(history.due_ns.min())
    slice_ns = seconds * 1e9 / SLICES
    place = np.minimum((history.due_ns - begin_ns) // slice_ns, SLICES - 1).astype(np.int64)
    latency_ns = history.done_ns - history.due_ns
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(SLICES + 1))
    medians = np.empty(SLICES)
    for index in range(SLICES):
        rows = order[bounds[index] : bounds[index + 1]]
        medians[index] = np.median(latency_ns[rows]) if len(rows) else (medians[index - 1] if index else np.nan)
    return medians[~np.isnan(medians)]


def _differs(beginning: Floats, rest: Floats) -> bool:
    usual = float(np.median(rest))
    if abs(float(np.median(beginning)) - usual) <= _DRIFT * usual:
        return False
    return bool(stats.mannwhitneyu(beginning, rest).pvalue < _TREND_P)


def _drifts(medians: Floats) -> bool:
    if len(medians) < _LEAST_SLICES:
        return False
    third = len(medians) // 3
    first, last = float(np.median(medians[:third])), float(np.median(medians[-third:]))
    if abs(last - first) <= _DRIFT * float(np.median(medians)):
        return False
    return bool(stats.kendalltau(np.arange(len(medians)), medians).pvalue < _TREND_P)
