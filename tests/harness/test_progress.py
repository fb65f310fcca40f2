"""The time that is said to be left is neither negative nor wild, and right when trials take what was expected."""

from __future__ import annotations

import io
import itertools
import math
import random
import re
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.harness.progress import Progress, Remaining, duration_text, expected_total_text

SECONDS = st.just(0.0) | st.floats(1e-3, 1e5)
POSITIVE = st.floats(0.01, 1e4)
REPRODUCIBLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


# -- the estimate ----------------------------------------------------------------------------------


@REPRODUCIBLE
@given(st.lists(st.tuples(SECONDS, st.floats(0.0, 1e9) | st.none()), max_size=30), st.randoms())
def test_what_is_left_is_never_negative_and_ends_at_nothing(
    trials: list[tuple[float, float | None]], chance: random.Random
) -> None:
    remaining = Remaining([expected for expected, _ in trials])
    order = list(enumerate(trials))
    chance.shuffle(order)
    for index, (_, taken) in order:
        if taken is None:
            remaining.skip(index)
        else:
            remaining.end(index, taken)
        assert remaining.seconds >= 0
        assert remaining.ratio * (1 + 1e-9) >= 0.2
        assert remaining.ratio <= 10 * (1 + 1e-9)
        assert remaining.done <= remaining.total
    assert remaining.seconds == 0
    assert remaining.done == remaining.total


@REPRODUCIBLE
@given(st.lists(SECONDS, max_size=30))
def test_with_perfect_predictions_it_falls_by_what_each_took(expected: list[float]) -> None:
    remaining = Remaining(expected)
    assert remaining.seconds == pytest.approx(math.fsum(expected))
    for index, seconds in enumerate(expected):
        before = remaining.seconds
        remaining.end(index, seconds)
        assert remaining.seconds <= before
        assert remaining.seconds == pytest.approx(math.fsum(expected[index + 1 :]))


@REPRODUCIBLE
@given(st.lists(POSITIVE, min_size=100, max_size=100), st.floats(0.25, 8.0))
def test_it_learns_how_far_predictions_are_off(expected: list[float], off: float) -> None:
    remaining = Remaining(expected)
    half = len(expected) // 2
    for index in range(half):
        remaining.end(index, expected[index] * off)
    assert min(1, off) <= remaining.ratio * (1 + 1e-9)
    assert remaining.ratio <= max(1, off) * (1 + 1e-9)
    share = sum(expected[:half]) / sum(expected)
    # The expectation weighs 5 % of the run.
    assert remaining.ratio == pytest.approx((0.05 + share * off) / (0.05 + share))


def test_one_trial_that_hung_does_not_decide() -> None:
    remaining = Remaining([1.0] * 100)
    remaining.end(0, 3600.0)
    assert remaining.seconds == pytest.approx(99 * (5 + 10) / (5 + 1))
    for index in range(1, 50):
        remaining.end(index, 1.0)
    assert remaining.seconds == pytest.approx(50 * 64 / 55)


def test_the_first_trial_may_be_slow() -> None:
    """As it is when it waits for a cluster: 9 s too long in three minutes are not to become half an hour."""
    remaining = Remaining([1.0] * 180)
    remaining.end(0, 10.0)
    assert remaining.seconds < 2 * 180


def test_what_is_skipped_leaves_the_total() -> None:
    remaining = Remaining([5.0, 5.0, 5.0, 0.0])
    assert (remaining.done, remaining.total, remaining.seconds) == (0, 3, 15.0)
    remaining.skip(0)
    assert (remaining.done, remaining.total, remaining.seconds) == (0, 2, 10.0)
    remaining.end(3, 0.2)  # nothing was to be measured: it does not count, and tells nothing
    assert (remaining.done, remaining.total, remaining.seconds) == (0, 2, 10.0)
    remaining.end(1, 5.0)
    assert (remaining.done, remaining.total, remaining.seconds) == (1, 2, 5.0)


def test_a_trial_ends_once() -> None:
    remaining = Remaining([1.0])
    remaining.end(0, 1.0)
    for again in (remaining.skip, lambda index: remaining.end(index, 1.0)):
        with pytest.raises(KeyError):
            again(0)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_senseless_expectation_is_refused(seconds: float) -> None:
    for use in (Remaining, expected_total_text):
        with pytest.raises(ValueError, match="expected"):
            use([1.0, seconds])


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ([], "no trials"),
        ([5.0], "1 trial, about 5 s"),
        ([0.01, 0.01], "2 trials, about 1 s"),
        ([6.3] * 1240, "1,240 trials, about 2 h 10 min"),
    ],
)
def test_the_expected_total(seconds: list[float], text: str) -> None:
    assert expected_total_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min"),
        (83, "1 min 25 s"),
        (598, "10 min"),
        (600, "10 min"),
        (59.4 * 60, "59 min"),
        (59.6 * 60, "1 h"),
        (7799, "2 h 10 min"),
        (86_390, "1 d"),
        (100_000, "1 d 4 h"),
        (1e9, "11,574 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@REPRODUCIBLE
@given(st.floats(30.0, 1e7))
def test_durations_are_rounded_by_little(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    words = duration_text(seconds).replace(",", "").split()
    said = sum(int(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert said == pytest.approx(seconds, rel=0.05)


# -- the display -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def a_usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def shown(expected: list[float], taken: list[float | None], *, terminal: bool, **how: Any) -> str:
    """What a run of trials that take so long writes."""
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, force_terminal=terminal, width=120, **how)
    with Progress(console, expected, clock=clock) as progress:
        for index, seconds in enumerate(taken):
            if seconds is None:
                progress.skip(index)
                continue
            progress.begin(index, f"vault[{index}]:default ycsb_a")
            clock.now_s += seconds
            progress.end(index)
    return file.getvalue()


def test_a_terminal_shows_trials_and_times() -> None:
    text = shown([5.0] * 4, [5.0, None, 5.0, 5.0], terminal=True)
    lines = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r|━|╸|╺", "", frame).strip() for frame in text.split("\r")]
    texts = filter(None, (" ".join(line.split()) for line in lines))
    frames = [text for text, _ in itertools.groupby(texts)]  # some are drawn twice
    assert frames == [
        "0/4 trials, about 20 s left",
        "0/4 trials, about 20 s left vault[0]:default ycsb_a",
        "1/3 trials, 5 s so far, about 10 s left vault[2]:default ycsb_a",
        "2/3 trials, 10 s so far, about 5 s left vault[3]:default ycsb_a",
        "3/3 trials, 15 s so far",
    ]


def test_no_terminal_gets_a_line_a_minute() -> None:
    assert shown([5.0] * 4, [5.0] * 4, terminal=False) == ""
    assert shown([20.0] * 10, [20.0] * 10, terminal=False) == (
        "3/10 trials, 1 min so far, about 2 min 20 s left\n"
        "6/10 trials, 2 min so far, about 1 min 20 s left\n"
        "9/10 trials, 3 min so far, about 20 s left\n"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_to_measure_shows_nothing(terminal: bool) -> None:
    assert shown([], [], terminal=terminal) == ""
    assert shown([0.0, 0.0], [None, 0.1], terminal=terminal) == ""


def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    assert "\x1b" not in shown([70.0] * 3, [70.0] * 3, terminal=True, force_interactive=False)


def test_nothing_is_drawn_while_a_trial_runs() -> None:
    file = io.StringIO()
    before = threading.active_count()
    with Progress(Console(file=file, force_terminal=True, width=120), [5.0]) as progress:
        progress.begin(0, "vault")
        assert threading.active_count() == before
        drawn = file.getvalue()
        progress.end(0, 5.0)
        assert file.getvalue() == drawn


def test_an_interrupted_run_leaves_the_terminal_as_it_was() -> None:
    file = io.StringIO()

    def interrupted() -> None:
        with Progress(Console(file=file, force_terminal=True, width=120), [5.0, 5.0]) as progress:
            progress.begin(0, "vault")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in file.getvalue()  # the cursor is shown again
    assert "0/2 trials" in file.getvalue()
