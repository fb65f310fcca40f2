"""Intervals of medians and ratios over independent trials.

Percentile bootstrap: BCa's acceleration is a jackknife's, which fails for medians (Efron & Tibshirani 1993, "An
Introduction to the Bootstrap"), and of constant data it is 0/0.

The plain interval of one sample's median is too narrow while trials are few (Hesterberg 2015, "What Teachers Should
Know About the Bootstrap"). It is therefore widened to the exact interval from order statistics, which holds for
every continuous distribution. A ratio of two medians does not need it.

Shares of false alarms by `difference`, lowest–highest over 2 to 30 trials a side, before and after alike (2,000
comparisons each below 8 trials, 400 above; `calls` in tests/harness/test_intervals.py):

| trials | paired | unpaired |
|---|---|---|
| lognormal, spread 1 % | 0–0.3 % | 0–0.1 % |
| lognormal, spread 5 % | 0–0.9 % | 0–0.6 % |
| lognormal, spread 20 % | 0–1.3 % | 0–1.5 % |
| two speeds, 30 % of trials at 0.65 of the other | 0–2.2 % | 0–3.6 % |

A slowdown of 5 % among trials that spread by 2 % is called in 89 % of comparisons of 15 pairs, 94 % of 20, 99 % of 25.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness.history import Floats

CONFIDENCE = 0.95
"""Of intervals that are shown."""

CALLED_CONFIDENCE = 0.99
"""Of intervals by which a difference is called: two runs are compared in dozens of figures at a time."""

BOOTSTRAP_FROM = 8
"""With fewer trials, whole ranges are too narrow for `CALLED_CONFIDENCE` (of 7, the range covers the median in
98.4 %). Ratios then take Student's t of logarithms: trials scatter by factors, not by amounts."""

MARGIN = 0.01
"""A ratio this close to 1 makes no difference to anyone. Between builds of the same code, layout and neighbours move
medians by about as much; and it is what keeps false alarms well below 5 % where trials spread little."""

_RESAMPLES = 4999
_MEDIANS_KEPT = 10_000
_SIZES_KEPT = 64
_LARGEST_LOG = 700.0


class Difference(StrEnum):
    """Where a whole interval of a ratio lies."""

    ABOVE = "above"
    BELOW = "below"
    NONE = "none"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float | None
    high: float | None
    """None where nothing is known: both of one trial."""
    trials: int
    """That it rests on; of two samples, the smaller one's."""


def median(values: Sequence[float], seed: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Of at least one trial. With fewer than 6 the 95 % interval covers less than it says: 3 trials, 75 %."""
    # Sorted, so that the interval does not depend on their order. A page asks for the same ones again and again.
    return _median(tuple(np.sort(_sample(values)).tolist()), seed, confidence)


@lru_cache(maxsize=_MEDIANS_KEPT)
def _median(values: tuple[float, ...], seed: int, confidence: float) -> Estimate:
    sample = np.asarray(values)
    value = float(np.median(sample))
    if len(sample) < 2:
        return Estimate(value, None, None, len(sample))
    lower, upper = _middles(len(sample), seed)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile((sample[lower] + sample[upper]) / 2, [tail, 100 - tail]).tolist()
    outside = int(stats.binom.ppf((1 - confidence) / 2, len(sample), 0.5))
    if outside:
        low, high = min(low, float(sample[outside - 1])), max(high, float(sample[-outside]))
    return Estimate(value, low, high, len(sample))


@lru_cache(maxsize=_SIZES_KEPT)
def _middles(trials: int, seed: int) -> tuple[Any, Any]:
    """Which two places of a sorted sample are in the middle of each resample: the same for every sample of its size.

    Ten thousand medians of a run take seconds by it, and minutes by `scipy.stats.bootstrap`, which draws the same.
    """
    drawn = np.sort(np.random.default_rng(seed).integers(0, trials, (_RESAMPLES, trials)), axis=1)
    return drawn[:, (trials - 1) // 2], drawn[:, trials // 2]


def ratio_paired(
    after: Sequence[float], before: Sequence[float], seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Median of after ÷ before, block by block: for trials that took turns, so that a slow hour slows both."""
    ratios = np.sort(_positive(after) / _positive(before, len(after)))
    if 2 <= len(ratios) < BOOTSTRAP_FROM:
        return _by_t(float(np.median(ratios)), (ratios,), confidence)
    return median(ratios.tolist(), seed, confidence)


def ratio_unpaired(
    after: Sequence[float], before: Sequence[float], seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Median of after ÷ median of before, each resampled on its own: for runs at different times."""
    samples = np.sort(_positive(after)), np.sort(_positive(before))
    value = float(np.median(samples[0]) / np.median(samples[1]))
    trials = min(len(sample) for sample in samples)
    if trials < 2:
        return Estimate(value, None, None, trials)
    if trials < BOOTSTRAP_FROM:
        return _by_t(value, samples, confidence)
    low, high = _bootstrap(samples, _ratio_of_medians, seed, confidence)
    return Estimate(value, low, high, trials)


def difference(ratio: Estimate, margin: float = MARGIN) -> Difference:
    """Called where the whole interval, which is to be one of `CALLED_CONFIDENCE`, is further than `margin` from 1."""
    if ratio.low is None or ratio.high is None:
        return Difference.NONE
    if ratio.low > 1 + margin:
        return Difference.ABOVE
    if ratio.high < 1 - margin:
        return Difference.BELOW
    return Difference.NONE


def _by_t(value: float, samples: tuple[Floats, ...], confidence: float) -> Estimate:
    """Of the mean of logarithms, or of the difference of two (Welch), with the median within."""
    trials = min(len(sample) for sample in samples)
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value, value, value, trials)  # nothing scatters: t is 0/0
    logs = [np.log(sample) for sample in samples]
    with warnings.catch_warnings():
        # One of two samples may hardly scatter: of its variance, next to the other's, no digit matters.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_1samp(logs[0], 0.0) if len(logs) == 1 else stats.ttest_ind(*logs, equal_var=False)
    interval = test.confidence_interval(confidence)
    low, high = (float(np.exp(np.clip(end, -_LARGEST_LOG, _LARGEST_LOG))) for end in (interval.low, interval.high))
    return Estimate(value, min(low, value), max(high, value), trials)


def _bootstrap(
    samples: tuple[Floats, ...], statistic: Callable[..., Any], seed: int, confidence: float
) -> tuple[float, float]:
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _ratio_of_medians(after: Floats, before: Floats, axis: int = -1) -> Any:
    return np.median(after, axis=axis) / np.median(before, axis=axis)


def _sample(values: Sequence[float]) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError("an interval needs at least one trial, and figures that are finite")
    return sample


def _positive(values: Sequence[float], length: int | None = None) -> Floats:
    sample = _sample(values)
    if length is not None and len(sample) != length:
        raise ValueError(f"pairs need as many trials on both sides, not {length} and {len(sample)}")
    if sample.min() <= 0:
        raise ValueError("a ratio needs figures above zero to divide by")
    return sample
