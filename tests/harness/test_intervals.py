"""An interval covers what it says, at the sizes that runs have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from benchmarks.harness.intervals import (
    BOOTSTRAP_FROM,
    CALLED_CONFIDENCE,
    MARGIN,
    Difference,
    Estimate,
    difference,
    median,
    ratio_paired,
    ratio_unpaired,
)

Ratio = Callable[[Sequence[float], Sequence[float], int, float], Estimate]
RATIOS = [pytest.param(ratio_paired, id="paired"), pytest.param(ratio_unpaired, id="unpaired")]


def calls(ratio: Ratio, trials: int, spread: float, factor: float, comparisons: int) -> list[Difference]:
    """What is called of so many comparisons of lognormal trials, `factor` apart."""
    rng = np.random.default_rng(trials)
    samples = rng.lognormal(0.0, spread, (comparisons, 2, trials))
    return [
        difference(ratio(factor * after, before, seed, CALLED_CONFIDENCE))
        for seed, (after, before) in enumerate(samples)
    ]


def false_alarm_shares(ratio: Ratio, sizes: Sequence[int], spread: float, comparisons: int) -> dict[int, float]:
    """By number of trials, how often a difference is called where there is none."""
    quiet = {trials: calls(ratio, trials, spread, 1.0, comparisons).count(Difference.NONE) for trials in sizes}
    return {trials: 1 - count / comparisons for trials, count in quiet.items()}


# -- false alarms and power ------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("ratio", RATIOS)
def test_false_alarms_are_at_most_one_in_twenty(ratio: Ratio, spread: float) -> None:
    comparisons = 40 if spread == 0.2 else 5
    shares = false_alarm_shares(ratio, range(2, 21), spread, comparisons)
    for trials, share in shares.items():
        alarms = stats.binomtest(round(share * comparisons), comparisons, 0.05, alternative="greater")
        assert alarms.pvalue > 0.001, f"{trials} trials: {share:.1%}"
    assert np.mean(list(shares.values())) <= 0.05


@pytest.mark.parametrize("trials", range(6, 21))
def test_one_samples_interval_is_never_narrower_than_the_exact_one(trials: int) -> None:
    """Whatever the distribution, the median is among the values in between in at least 95 % of samples."""
    outside = int(stats.binom.ppf(0.025, trials, 0.5))
    assert 2 * stats.binom.cdf(outside - 1, trials, 0.5) <= 0.05
    for seed in range(20):
        values = np.sort(np.random.default_rng(seed).standard_cauchy(trials))
        found = median(values, seed)  # type: ignore[arg-type]
        assert found.low is not None
        assert found.high is not None
        assert found.low <= values[outside - 1]
        assert found.high >= values[-outside]


def test_fewer_trials_have_no_exact_interval_to_call_by() -> None:
    """All ratios of a block on one side of 1, both tails."""
    tails = 1 - CALLED_CONFIDENCE
    assert 2 * 0.5 ** (BOOTSTRAP_FROM - 1) > tails >= 2 * 0.5**BOOTSTRAP_FROM


@pytest.mark.parametrize("ratio", RATIOS)
def test_few_trials_are_enough_for_what_is_plain(ratio: Ratio) -> None:
    found = calls(ratio, 3, 0.02, 0.5, 40)
    assert found.count(Difference.BELOW) == len(found)


@pytest.mark.parametrize("factor", [1 / 1.05, 1.05])
@pytest.mark.parametrize("ratio", RATIOS)
def test_five_percent_is_seen_among_trials_of_two_percent(ratio: Ratio, factor: float) -> None:
    found = calls(ratio, 25, 0.02, factor, 160)
    wanted = Difference.ABOVE if factor > 1 else Difference.BELOW
    assert found.count(wanted) >= 0.95 * len(found)


# -- values ----------------------------------------------------------------------------------------


def test_a_block_that_slows_both_sides_does_not_widen_a_paired_ratio() -> None:
    before = [100.0, 50.0, 200.0, 80.0, 120.0, 60.0, 90.0]
    found = ratio_paired([value * 0.9 for value in before], before)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))
    assert difference(found) is Difference.BELOW
    assert difference(ratio_unpaired([value * 0.9 for value in before], before)) is Difference.NONE


def test_an_unpaired_ratio_is_of_medians() -> None:
    found = ratio_unpaired([1.0, 2.0, 9.0], [4.0, 5.0])
    assert found.value == pytest.approx(2.0 / 4.5)
    assert found.trials == 2
    many = ratio_unpaired([1.0, 2.0, 9.0] * 3, [4.0, 5.0] * 4)
    assert many.low is not None
    assert many.high is not None
    assert 1.0 / 5.0 <= many.low < many.value < many.high <= 9.0 / 4.0


def test_one_trial_has_no_interval() -> None:
    assert median([3.0]) == Estimate(3.0, None, None, 1)
    assert ratio_paired([3.0], [2.0]) == Estimate(1.5, None, None, 1)
    assert ratio_unpaired([3.0, 3.0], [2.0]) == Estimate(1.5, None, None, 1)


@pytest.mark.parametrize("trials", [2, 3, 6, 20])
def test_constant_trials_have_an_interval_without_width(trials: int) -> None:
    same = [7.0] * trials
    assert median(same) == Estimate(7.0, 7.0, 7.0, trials)
    assert ratio_paired(same, same) == Estimate(1.0, 1.0, 1.0, trials)
    assert ratio_unpaired(same, same) == Estimate(1.0, 1.0, 1.0, trials)


def test_two_and_three_trials_span_their_range() -> None:
    assert median([2.0, 1.0]) == Estimate(1.5, 1.0, 2.0, 2)
    assert median([2.0, 1.0, 4.0]) == Estimate(2.0, 1.0, 4.0, 3)


def test_the_same_trials_and_seed_give_the_same_interval() -> None:
    after, before = np.random.default_rng(1).lognormal(0.0, 0.1, (2, 10)).tolist()
    assert ratio_unpaired(after, before, 3) == ratio_unpaired(after[::-1], before, 3)
    assert ratio_paired(after, before, 3) == ratio_paired(after[::-1], before[::-1], 3)
    assert ratio_unpaired(after, before, 3) != ratio_unpaired(after, before, 4)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (1 + 2 * MARGIN, 1.5, Difference.ABOVE),
        (1 + MARGIN / 2, 1.5, Difference.NONE),
        (0.5, 1 - MARGIN / 2, Difference.NONE),
        (0.5, 1 - 2 * MARGIN, Difference.BELOW),
        (0.5, 1.5, Difference.NONE),
        (None, None, Difference.NONE),
    ],
)
def test_a_difference_is_an_interval_beyond_the_margin(
    low: float | None, high: float | None, wanted: Difference
) -> None:
    assert difference(Estimate(1.0, low, high, 8)) is wanted


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    ("after", "before"),
    [([], []), ([1.0], [0.0]), ([1.0, 2.0], [1.0, -1.0]), ([float("nan")], [1.0]), ([1.0], [float("inf")])],
)
def test_what_has_no_ratio_is_refused(ratio: Ratio, after: list[float], before: list[float]) -> None:
    with pytest.raises(ValueError, match="needs"):
        ratio(after, before, 0, CALLED_CONFIDENCE)


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="not 3 and 2"):
        ratio_paired([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize("trials", [2, 3, 6, 7, 20, 41])
def test_the_interval_of_a_median_is_that_of_scipys_bootstrap(trials: int) -> None:
    sample = np.sort(np.random.default_rng(trials).lognormal(size=trials))
    found = median(sample.tolist(), seed=3)
    expected = stats.bootstrap(
        (sample,), np.median, n_resamples=4999, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert found.low is not None
    assert found.high is not None
    assert found.low <= expected.low  # widened to the exact interval where trials are many enough
    assert found.high >= expected.high
    if trials < 6:
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_sample_that_does_not_scatter_beside_one_that_does() -> None:
    found = ratio_unpaired([1.0, 1.1, 1.2], [2.0, 2.0, 2.0])
    assert found.value == pytest.approx(0.55)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.55 < found.high
