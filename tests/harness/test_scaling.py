"""A fitted law is the one that made the data, and says how far it may be off."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.intervals import Estimate
from benchmarks.harness.scaling import MIN_POINTS, Scaling, fit

SIZES = [1, 2, 4, 8, 16, 32]
TRUTH = {"ops_per_s_of_one": 1000.0, "contention": 0.05, "coherency": 0.002, "peak": sqrt(0.95 / 0.002)}


def law(n: float, one: float, contention: float, coherency: float) -> float:
    return one * n / (1 + contention * (n - 1) + coherency * n * (n - 1))


def noisy(spread: float, repeats: int, seed: int) -> dict[int, list[float]]:
    rng = np.random.default_rng(seed)
    return {n: (law(n, 1000.0, 0.05, 0.002) * rng.lognormal(0.0, spread, repeats)).tolist() for n in SIZES}


def coverage(spread: float, repeats: int, fits: int) -> dict[str, float]:
    """By figure, the share of fits whose interval contains the truth."""
    found = [fit(noisy(spread, repeats, seed), seed) for seed in range(fits)]
    return {name: sum(covers(getattr(each, name), truth) for each in found) / fits for name, truth in TRUTH.items()}


def covers(estimate: Estimate | None, truth: float) -> bool:
    return (
        estimate is not None
        and (estimate.low is not None and estimate.low <= truth)
        and (estimate.high is None or truth <= estimate.high)
    )


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def is_plain(scaling: Scaling) -> bool:
    """JSON has no word for NaN and infinity."""
    return bool(json.dumps(asdict(scaling), allow_nan=False))


@given(
    one=st.floats(1.0, 1e6),
    contention=st.floats(0.0, 0.9),
    coherency=st.floats(1e-4, 0.5),
    repeats=st.integers(1, 3),
)
@settings(max_examples=30, deadline=None)
def test_data_without_noise_give_their_law_back(one: float, contention: float, coherency: float, repeats: int) -> None:
    found = fit({n: [law(n, one, contention, coherency)] * repeats for n in SIZES})
    assert found.ops_per_s_of_one.value == pytest.approx(one, rel=1e-6)
    assert found.contention.value == pytest.approx(contention, abs=1e-6)
    assert found.coherency.value == pytest.approx(coherency, rel=1e-5)
    peak = max(1.0, sqrt((1 - contention) / coherency))
    assert found.peak is not None
    assert found.peak.value == pytest.approx(peak, rel=1e-4)
    assert found.peak_ops_per_s is not None
    assert found.peak_ops_per_s.value == pytest.approx(law(peak, one, contention, coherency), rel=1e-5)
    assert found.ops_per_s(8) == pytest.approx(law(8, one, contention, coherency), rel=1e-6)
    assert found.misfit == pytest.approx(0.0, abs=1e-6)
    assert (found.peak.low is None) is (repeats < 3)


@pytest.mark.parametrize(("spread", "repeats"), [(0.05, 3), (0.05, 8)])
def test_intervals_contain_the_truth(spread: float, repeats: int) -> None:
    shares = coverage(spread, repeats, fits=25)
    assert min(shares.values()) >= 0.8, shares


def test_an_interval_narrows_with_trials() -> None:
    few, many = (sum(width(fit(noisy(0.05, repeats, seed)).contention) for seed in range(5)) for repeats in (3, 30))
    assert many < few / 2


@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize(
    ("shape", "peaks"),
    [
        pytest.param(lambda n: 100.0 * n, False, id="linear"),
        pytest.param(lambda n: 100.0 * n**1.2, False, id="better than linear"),
        pytest.param(lambda n: 100.0, False, id="flat"),
        pytest.param(lambda n: 100.0 / n, True, id="falling"),
        pytest.param(lambda n: 100.0 / n**3, True, id="falling fast"),
        pytest.param(lambda n: 1e-9 * law(n, 1.0, 0.1, 0.01), True, id="tiny"),
        pytest.param(lambda n: 1e12 * law(n, 1.0, 0.1, 0.01), True, id="huge"),
    ],
)
@pytest.mark.parametrize("sizes", [[1, 2, 4, 8], [10, 20, 1000, 100_000]], ids=["from one", "from ten"])
def test_any_shape_has_a_fit_of_plain_numbers(
    shape: Callable[[int], float], peaks: bool, spread: float, sizes: list[int]
) -> None:
    rng = np.random.default_rng(1)
    found = fit({n: (shape(n) * rng.lognormal(0.0, spread, 3)).tolist() for n in sizes})
    assert is_plain(found)
    if not spread:
        assert (found.peak is not None) is peaks
    assert found.contention.value >= 0
    assert found.coherency.value >= 0
    for estimate in (found.peak, found.peak_ops_per_s, found.contention, found.ops_per_s_of_one):
        if estimate is not None:
            assert estimate.low is not None
            assert estimate.high is None or estimate.high >= estimate.low


def test_what_falls_from_the_start_peaks_at_one() -> None:
    found = fit({n: [100.0 / n] * 3 for n in SIZES})
    assert found.peak == Estimate(1.0, 1.0, 1.0, 18)
    assert found.peak_ops_per_s is not None
    assert found.peak_ops_per_s.value == pytest.approx(100.0)


def test_what_flattens_out_has_a_limit_and_no_peak() -> None:
    found = fit({n: [law(n, 100.0, 0.2, 0.0)] * 2 for n in SIZES})
    assert found.peak is None
    assert found.peak_ops_per_s is not None
    assert found.peak_ops_per_s.value == pytest.approx(500.0)


def test_a_law_that_does_not_hold_shows_as_misfit() -> None:
    steps = {1: [100.0], 2: [100.0], 4: [400.0], 8: [400.0], 16: [1600.0]}
    assert fit(steps).misfit > 0.2


def test_the_same_seed_gives_the_same_interval() -> None:
    points = noisy(0.05, 3, seed=1)
    assert fit(points, 5) == fit(dict(reversed(points.items())), 5)
    assert fit(points, 5) != fit(points, 6)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "not at 0"),
        ({n: [1.0] for n in range(1, MIN_POINTS)}, "4 different n or more, not at 3"),
        ({1: [1.0], 2: [1.0], 3: [1.0], 4: []}, "not at 3"),
        ({0: [1.0], 1: [1.0], 2: [1.0], 3: [1.0]}, "n from 1 on"),
        ({1: [0.0], 2: [1.0], 3: [1.0], 4: [1.0]}, "above zero"),
        ({1: [float("nan")], 2: [1.0], 3: [1.0], 4: [1.0]}, "finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(points: Mapping[int, Sequence[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(points)
