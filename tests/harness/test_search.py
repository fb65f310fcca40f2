"""A search for a rate finds it, in few probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import sweeps
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.load import Arrivals
from benchmarks.harness.measure import unmeasured
from benchmarks.harness.records import Trial
from benchmarks.harness.search import CURVE, PRECISION, PROBES, Limit, highest_rate
from strategies.interface import Caller, load, names


class Probes:
    """A backend that keeps its target up to a rate; counts how often it is asked."""

    def __init__(self, limit_per_s: float) -> None:
        self.limit_per_s = limit_per_s
        self.rates: list[float] = []

    def __call__(self, rate_per_s: float) -> bool:
        assert rate_per_s > 0
        self.rates.append(rate_per_s)
        return rate_per_s <= self.limit_per_s


@given(limit=st.floats(0.01, 1e7), log_off=st.floats(-1, 1))
def test_a_limit_within_a_factor_of_eight_is_found(limit: float, log_off: float) -> None:
    probes = Probes(limit)
    found = highest_rate(probes, limit * 8**log_off)
    assert len(probes.rates) == found.probes == PROBES == 12
    assert found.rate_per_s is not None
    assert found.above_per_s is not None
    assert found.rate_per_s <= limit < found.above_per_s
    assert found.above_per_s / found.rate_per_s <= 1 + PRECISION
    assert limit / found.rate_per_s <= 1 + PRECISION


@given(limit=st.floats(1e-3, 1e7), first=st.floats(1e-3, 1e7), probes=st.integers(1, 40))
def test_wherever_it_starts_it_asks_no_more_and_tells_no_lie(limit: float, first: float, probes: int) -> None:
    asked = Probes(limit)
    found = highest_rate(asked, first, probes)
    assert 1 <= len(asked.rates) == found.probes <= probes
    assert asked.rates[0] == first
    kept = [rate for rate in asked.rates if rate <= limit]
    missed = [rate for rate in asked.rates if rate > limit]
    assert found.rate_per_s == (max(kept) if kept else None)
    assert found.above_per_s == (min(missed) if missed else None)


@given(answers=st.lists(st.booleans(), min_size=1, max_size=40), first=st.floats(1e-3, 1e7))
def test_whatever_it_is_told_its_bounds_are_in_order(answers: list[bool], first: float) -> None:
    """A backend near its limit now keeps the target, now does not."""
    told = iter(answers)
    asked: dict[float, set[bool]] = {}

    def keeps(rate: float) -> bool:
        assert 0 < rate < float("inf")
        answer = next(told)
        asked.setdefault(rate, set()).add(answer)
        return answer

    found = highest_rate(keeps, first, len(answers))
    if found.rate_per_s is not None:
        assert True in asked[found.rate_per_s]
    if found.above_per_s is not None:
        assert False in asked[found.above_per_s]
    if found.rate_per_s is not None and found.above_per_s is not None:
        assert found.rate_per_s < found.above_per_s


def test_nothing_keeps_the_target() -> None:
    found = highest_rate(lambda rate: False, 100.0)
    assert found.rate_per_s is None
    assert found.above_per_s is not None
    assert found.above_per_s < 100 / 8


def test_everything_keeps_the_target() -> None:
    found = highest_rate(lambda rate: True, 100.0)
    assert found.above_per_s is None
    assert found.rate_per_s is not None
    assert found.rate_per_s > 100 * 8


def test_one_unlucky_probe_does_not_hide_the_rates_beyond_it() -> None:
    """The bound above is asked again before the search ends, and then passed."""
    asked: list[float] = []

    def keeps(rate: float) -> bool:
        asked.append(rate)
        return rate <= 1000 and len(asked) != 2

    found = highest_rate(keeps, 400.0, 30)
    assert found.rate_per_s == pytest.approx(1000, rel=PRECISION)


@pytest.mark.parametrize(("first", "probes"), [(0.0, 12), (-1.0, 12), (100.0, 0), (100.0, -1)])
def test_what_cannot_be_searched(first: float, probes: int) -> None:
    with pytest.raises(ValueError, match="a search needs a positive first rate and a probe"):
        highest_rate(lambda rate: True, first, probes)


def test_a_curve_goes_from_idle_to_overload() -> None:
    assert list(CURVE) == sorted(set(CURVE))
    assert CURVE[0] <= 0.1
    assert max(CURVE) > 1.0


# -- as trials -------------------------------------------------------------------------------------

CELL = Cell(names()[0], load(names()[0]).capabilities.variants[0], "ycsb_a", Caller.DRIVER, 16)


class Backend:
    """Trials of a backend with this capacity, whose p99 is 1 ms below it; beyond it, it falls behind."""

    def __init__(self, capacity_per_s: float, closed_per_s: float) -> None:
        self.capacity_per_s, self.closed_per_s = capacity_per_s, closed_per_s
        self.measured: list[tuple[Cell, int]] = []

    def __call__(self, cell: Cell, repeat: int) -> Trial:
        self.measured.append((cell, repeat))
        trial = replace(unmeasured(CELL, repeat), status=Status.OK, offered_per_s=cell.rate_per_s, trusted=True)
        if cell.rate_per_s is None:
            return replace(trial, ops_per_s=self.closed_per_s)
        return replace(trial, achieved_ratio=min(1.0, self.capacity_per_s / cell.rate_per_s), latency_us_p99=1e3)


def found_by(backend: Callable[[Cell, int], Trial], probes: int = PROBES) -> sweeps.Found:
    return sweeps.search(CELL, backend, 10.0, probes, Arrivals.POISSON)


@pytest.mark.parametrize("closed_per_s", [2000.0, 9000.0, 40_000.0])
def test_a_search_by_trials(closed_per_s: float) -> None:
    backend = Backend(9000.0, closed_per_s)
    found = found_by(backend)
    assert len(backend.measured) == found.probes == PROBES
    assert found.rate_per_s == pytest.approx(9000, rel=2 * PRECISION)
    assert found.above_per_s is not None
    assert found.rate_per_s is not None
    assert found.above_per_s > found.rate_per_s
    assert (found.latency_us_p99, found.reason) == (1e3, None)
    (closed, _), *opened = backend.measured
    assert closed == CELL
    assert all(cell.arrivals is Arrivals.POISSON and cell.rate_per_s for cell, _ in opened)
    assert len({repeat for _, repeat in backend.measured}) == PROBES, "two trials under one name"


def test_what_misses_the_target_at_every_rate() -> None:
    def slow(cell: Cell, repeat: int) -> Trial:
        return replace(Backend(1e9, 5000.0)(cell, repeat), latency_us_p99=11e3)

    found = found_by(slow)
    assert (found.rate_per_s, found.latency_us_p99) == (None, None)
    assert found.reason is not None
    assert found.reason.startswith("no rate down to ")


def test_a_target_that_is_just_met() -> None:
    def exact(cell: Cell, repeat: int) -> Trial:
        return replace(Backend(9000.0, 5000.0)(cell, repeat), latency_us_p99=10e3)

    assert found_by(exact).rate_per_s == pytest.approx(9000, rel=2 * PRECISION)


def test_a_p99_that_is_not_known_keeps_no_target() -> None:
    def unknown(cell: Cell, repeat: int) -> Trial:
        return replace(Backend(1e9, 5000.0)(cell, repeat), latency_us_p99=None)

    assert found_by(unknown).rate_per_s is None


def test_a_cell_that_cannot_be_measured_is_probed_once() -> None:
    found = found_by(lambda cell, repeat: replace(unmeasured(CELL, repeat), reason="claims no such thing"))
    assert (found.rate_per_s, found.probes, found.reason) == (None, 1, "claims no such thing")


def test_a_sweep_over_rates() -> None:
    backend = Backend(9000.0, 8000.0)
    sweeps.curve(CELL, backend, None, Arrivals.CONSTANT, 2)
    rates = [cell.rate_per_s for cell, _ in backend.measured]
    assert rates == [None, *np.round(np.array(CURVE) * 8000, 1).tolist() * 2]


def test_a_limit_is_plain_data() -> None:
    assert highest_rate(Probes(100.0), 100.0, 1) == Limit(100.0, None, 1)
