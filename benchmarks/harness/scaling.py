"""How throughput scales over clients or shards: the Universal Scalability Law, fitted.

X(n) = alone·n ÷ (1 + contention·(n - 1) + coherency·n·(n - 1)) (Gunther 2007, "Guerrilla Capacity Planning"; there
lambda, sigma and kappa): what one does alone, what n wait for each other, what they tell each other. With coherency,
throughput has a peak.

n ÷ X(n) is linear in 1/alone, contention/alone and coherency/alone, none below zero: a least-squares problem with one
minimum and no first guess, so that no resample ends elsewhere. Each trial's residual is relative, measured ÷ X(n) - 1,
as trials of fast and slow cells scatter alike in proportion.

Measured by `coverage` in tests/harness/test_scaling.py, trials of 5 %, 400 fits each: of 3 trials at each of 6 n,
93–97 % of intervals of the law's figures and its peak contain the truth; of 5, 95 %; of 8, 96–97 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from benchmarks.harness.history import Floats
from benchmarks.harness.intervals import CONFIDENCE, Estimate

MIN_POINTS = 4
"""Different n that a fit needs. Through three the curve passes exactly: nothing would tell that the law is wrong."""

MIN_TRIALS = 3
"""At each n, for intervals. Those of two covered 78–84 %: two show too little of their scatter."""

_RESAMPLES = 999
_NEGLIGIBLE = 1e-6
"""A coherency that takes a smaller share than this at the largest n is zero up to rounding: its peak would be noise."""
_STEEPEST = 10.0
"""One alone does at most as many times the best X(n) ÷ n. Where throughput falls from the first n on and n = 1 was not
measured, nothing else keeps that from infinity."""


@dataclass(frozen=True)
class Scaling:
    """A fitted law. Without `MIN_TRIALS` trials at each n there are no intervals."""

    ops_per_s_of_one: Estimate
    """lambda."""
    contention: Estimate
    """sigma."""
    coherency: Estimate
    """kappa."""
    peak: Estimate | None
    """The n with the highest throughput, at least 1; None where coherency is zero, as its `high` is where some
    resample's was."""
    peak_ops_per_s: Estimate | None
    """Throughput there; where coherency is zero, what it tends to. None where it has no limit."""
    misfit: float
    """The furthest that the trials' median at any n lies from the curve, relative to the curve."""

    def ops_per_s(self, n: float) -> float:
        """The curve."""
        return throughput(n, self.ops_per_s_of_one.value, self.contention.value, self.coherency.value)


def fit(points: Mapping[int, Sequence[float]], seed: int = 0) -> Scaling:
    """Of trials' throughput by number of clients or shards.

    Raises:
        ValueError: fewer than `MIN_POINTS` different n, an n below 1, or a throughput that is not above zero.
    """
    samples = {n: np.sort(np.asarray(points[n], dtype=np.float64)) for n in sorted(points) if len(points[n])}
    if len(samples) < MIN_POINTS:
        raise ValueError(f"a scaling fit needs trials at {MIN_POINTS} different n or more, not at {len(samples)}")
    if min(samples) < 1 or not all(np.isfinite(sample).all() and sample.min() > 0 for sample in samples.values()):
        raise ValueError("a scaling fit needs n from 1 on, and throughput that is finite and above zero")
    sizes = np.repeat(np.array(list(samples), dtype=np.float64), [len(sample) for sample in samples.values()])
    trials = np.concatenate(list(samples.values()))
    found = _figures(sizes, trials)
    low, high = _interval(sizes, tuple(samples.values()), seed)
    one, contention, coherency = (
        Estimate(float(found[place]), _told(low[place]), _told(high[place]), len(trials)) for place in range(3)
    )
    curve = {n: throughput(n, one.value, contention.value, coherency.value) for n in samples}
    return Scaling(
        ops_per_s_of_one=one,
        contention=contention,
        coherency=coherency,
        peak=_inverted(found[3], low[3], high[3], len(trials)),
        peak_ops_per_s=_inverted(found[4], low[4], high[4], len(trials)),
        misfit=max(abs(float(np.median(sample) / curve[n]) - 1) for n, sample in samples.items()),
    )


def throughput(n: float, ops_per_s_of_one: float, contention: float, coherency: float) -> float:
    """The law."""
    return ops_per_s_of_one * n / (1 + contention * (n - 1) + coherency * n * (n - 1))


def _figures(sizes: Floats, trials: Floats) -> Floats:
    """The law's three, 1 ÷ peak and 1 ÷ its throughput: zeros are what has no end, so that all of them are finite."""
    least = (sizes / trials).min() / _STEEPEST
    terms = np.column_stack([np.ones_like(sizes), sizes - 1, sizes * (sizes - 1)])
    relative = terms * (trials / sizes)[:, np.newaxis]
    scale = np.abs(relative).max(axis=0)
    solution, _ = optimize.nnls(relative / scale, 1 - relative[:, 0] * least)
    inverse, contention, coherency = solution / scale + [least, 0.0, 0.0]
    contention, coherency = contention / inverse, coherency / inverse
    largest = sizes.max()
    taken = coherency * largest * (largest - 1)
    if taken < _NEGLIGIBLE * (1 + contention * (largest - 1)):
        coherency = 0.0
    peak_inverse = 0.0 if not coherency else min(1.0, float(np.sqrt(coherency / max(1 - contention, coherency))))
    if peak_inverse:
        top_inverse = 1 / throughput(1 / peak_inverse, 1 / inverse, contention, coherency)
    else:
        top_inverse = max(contention, 0.0) * inverse
    return np.array([1 / inverse, contention, coherency, peak_inverse, top_inverse])


def _interval(sizes: Floats, samples: tuple[Floats, ...], seed: int) -> tuple[Floats, Floats]:
    """Trials are drawn again within each n: which n there are was decided, not found."""
    fewest = min(len(sample) for sample in samples)
    if fewest < MIN_TRIALS:
        return np.full(5, np.nan), np.full(5, np.nan)

    def figures(*resampled: Floats, axis: int = -1) -> Floats:
        rows = np.concatenate(resampled, axis=axis)
        return np.apply_along_axis(lambda row: _figures(sizes, row), axis, rows).swapaxes(0, axis)

    found = stats.bootstrap(
        samples,
        figures,
        n_resamples=_RESAMPLES,
        vectorized=True,
        confidence_level=_level(fewest),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = np.array([found.low, found.high])  # of equal resamples, rounding may put the low end above the high one
    return ends.min(axis=0), ends.max(axis=0)


def _level(fewest: int) -> float:
    """What to ask of a percentile bootstrap of few trials for the confidence that is meant.

    Resampled trials' variance is too small by (trials - 1) ÷ trials, and Student's t is wider than normal (Hesterberg
    2015). Degrees of freedom as of two n, since each figure rests mainly on a few of them: with those of the whole
    fit, 3 trials at each of 6 n covered 84–90 %.
    """
    widened = np.sqrt(fewest / (fewest - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, 2 * (fewest - 1))
    return float(1 - 2 * stats.norm.sf(widened))


def _inverted(value: float, low: float, high: float, trials: int) -> Estimate | None:
    if not value:
        return None
    return Estimate(float(1 / value), _told(1 / high) if high else None, _told(1 / low) if low else None, trials)


def _told(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
