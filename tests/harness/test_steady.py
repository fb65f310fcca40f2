"""The end of the warm-up, found in series of which it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.harness.history import Floats, History
from benchmarks.harness.simulated import queue
from benchmarks.harness.steady import SLICES, settled_s

SECONDS = 4.0
ALLOWANCE_S = 1.6
SLICE_S = SECONDS / SLICES
OPS_PER_SLICE = 50


def noise(seed: int, size: int, spread: float = 0.3) -> Floats:
    """Latencies, in seconds, around 1 ms, with a tail."""
    return 1e-3 * np.random.default_rng(seed).lognormal(0.0, spread, size)


def load_of(latency_s: Floats, due_s: Floats | None = None) -> History:
    """Operations with these latencies, evenly over the load's time unless told."""
    due_s = np.arange(len(latency_s)) * SECONDS / len(latency_s) if due_s is None else due_s
    begin_ns = 123_456_789_000
    due_ns = begin_ns + (due_s * 1e9).astype(np.int64)
    made = queue(due_s, latency_s)
    return replace(made, due_ns=due_ns, sent_ns=due_ns, done_ns=due_ns + (latency_s * 1e9).astype(np.int64))


def usual(seed: int, spread: float = 0.3) -> Floats:
    return noise(seed, SLICES * OPS_PER_SLICE, spread)


def times() -> Floats:
    return np.arange(SLICES * OPS_PER_SLICE) / OPS_PER_SLICE * SLICE_S


# -- a beginning that differs ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slices", [1, 2, 4, 8, 15])
@pytest.mark.parametrize("factor", [0.4, 2.0, 20.0])
def test_a_known_transient_is_cut(slices: int, factor: float, seed: int) -> None:
    latency_s = usual(seed)
    latency_s[times() < slices * SLICE_S] *= factor
    assert settled_s(load_of(latency_s), SECONDS, ALLOWANCE_S) == pytest.approx(slices * SLICE_S, abs=1.5 * SLICE_S)


@pytest.mark.parametrize("seed", range(5))
def test_one_that_fades_is_cut_until_it_does_not_matter(seed: int) -> None:
    """Ten times as slow at first, halved every 0.1 s."""
    latency_s = usual(seed) * (1 + 9 * 0.5 ** (times() / 0.1))
    cut_s = settled_s(load_of(latency_s), SECONDS, ALLOWANCE_S)
    assert cut_s is not None
    assert 9 * 0.5 ** (cut_s / 0.1) < 1.0
    assert cut_s <= 1.0


def test_it_is_found_by_when_operations_were_due() -> None:
    """A closed loop makes few operations while it is slow: its transient is long in time, not in operations."""
    latency_s = np.concatenate([np.full(10, 0.08), noise(1, 3200)])
    due_s = np.concatenate([np.arange(10) * 0.08, 0.8 + np.arange(3200) * 1e-3])
    assert settled_s(load_of(latency_s, due_s), SECONDS, ALLOWANCE_S) == pytest.approx(0.8, abs=1.5 * SLICE_S)


def test_no_more_is_cut_than_allowed() -> None:
    latency_s = usual(1)
    latency_s[times() < 1.0] *= 5
    for allowance_s in (0.0, 0.3, 0.5, 1.0, 2.0):
        cut_s = settled_s(load_of(latency_s), SECONDS, allowance_s)
        assert cut_s is None or cut_s <= allowance_s


# -- nothing to cut --------------------------------------------------------------------------------


def test_steady_noise_is_mostly_left_alone() -> None:
    cuts = [settled_s(load_of(usual(seed)), SECONDS, ALLOWANCE_S) for seed in range(200)]
    assert cuts.count(0.0) >= 196
    assert cuts.count(None) <= 1


def test_noise_that_wanders_is_mostly_left_alone() -> None:
    """A machine's speed does not jump from slice to slice: it drifts around its mean."""
    kept = 0
    for seed in range(100):
        steps = np.random.default_rng(seed).normal(0, 0.05, SLICES)
        wander = np.zeros(SLICES)
        for place in range(1, SLICES):
            wander[place] = 0.8 * wander[place - 1] + steps[place]
        cut_s = settled_s(load_of(usual(seed) * np.exp(np.repeat(wander, OPS_PER_SLICE))), SECONDS, ALLOWANCE_S)
        kept += cut_s == 0.0
    assert kept >= 90


def test_a_few_slow_calls_are_no_transient() -> None:
    latency_s = usual(1)
    latency_s[[0, 1, 60, 130]] = 1.0
    assert settled_s(load_of(latency_s), SECONDS, ALLOWANCE_S) == 0.0


def test_a_stall_in_the_middle_is_not_cut() -> None:
    latency_s = usual(1)
    latency_s[(times() > 2.0) & (times() < 2.3)] *= 100
    assert settled_s(load_of(latency_s), SECONDS, ALLOWANCE_S) == 0.0


@pytest.mark.parametrize("latency", [0.0, 1e-3])
def test_latencies_that_are_all_the_same(latency: float) -> None:
    assert settled_s(load_of(np.full(2000, latency)), SECONDS, ALLOWANCE_S) == 0.0


# -- no steady state -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("last", [0.3, 3.0, 10.0])
def test_a_trend_never_settles(last: float, seed: int) -> None:
    latency_s = usual(seed) * np.linspace(1.0, last, SLICES * OPS_PER_SLICE)
    assert settled_s(load_of(latency_s), SECONDS, ALLOWANCE_S) is None


def test_more_than_is_served_never_settles() -> None:
    due_s = np.arange(0.0, SECONDS, 0.001)
    assert settled_s(queue(due_s, noise(1, len(due_s)) * 1.1), SECONDS, ALLOWANCE_S) is None


@pytest.mark.parametrize("served", [0.2, 0.4, 0.9])
def test_a_backlog_of_which_most_was_never_sent_never_settles(served: float) -> None:
    """What was sent was due early; what was due later says nothing, and not that all is as it was."""
    due_s = np.arange(0.0, served * SECONDS, 0.001)
    waited_s = np.linspace(0.03, 1.3, len(due_s))
    assert settled_s(load_of(waited_s, due_s), SECONDS, allowance_s=0.1 * served * SECONDS) is None


def test_a_transient_beyond_what_may_be_cut_never_settles() -> None:
    latency_s = usual(1)
    latency_s[times() < SECONDS / 2] *= 3
    assert settled_s(load_of(latency_s), SECONDS, allowance_s=0.2) is None


# -- little to look at -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 39, 41])
def test_few_operations(count: int) -> None:
    cut_s = settled_s(load_of(noise(1, count)), SECONDS, ALLOWANCE_S)
    assert cut_s is not None
    assert 0.0 <= cut_s <= ALLOWANCE_S


@pytest.mark.parametrize("allowance_s", [0.0, ALLOWANCE_S, SECONDS, 3 * SECONDS])
def test_slices_without_operations(allowance_s: float) -> None:
    due_s = np.concatenate([np.arange(0.0, 0.5, 0.01), np.arange(3.0, 4.0, 0.01)])
    assert settled_s(load_of(noise(1, len(due_s)), due_s), SECONDS, allowance_s) == 0.0


def test_operations_after_the_end_belong_to_its_last_slice() -> None:
    due_s = np.linspace(0.0, 1.2 * SECONDS, 3000)
    assert settled_s(load_of(noise(1, 3000), due_s), SECONDS, ALLOWANCE_S) == 0.0
