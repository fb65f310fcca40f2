"""How far a run is and how long it will still take, told between trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

_SLOWER_AT_MOST, _FASTER_AT_MOST = 10.0, 0.2
"""Times its expected duration that a trial counts as at most and at least: one that hung until its deadline, or failed
at once, says little of the others."""
_TRUST_IN_EXPECTED = 0.05
"""Share of the run's expected duration that the expectation itself weighs against what was observed. Without it the
first trial, which waits for whatever is raised when it is first used, alone would decide."""
_LINE_EVERY_S = 60.0


class Remaining:
    """The time that is left, from what trials were expected to take and what those that ended took.

    What is left is expected to be off by the ratio of totals (time taken ÷ time expected) and not by a median of each
    trial's ratio: what is predicted is a sum, most of which the long trials are, and a fixed cost around each trial
    makes short ones' ratios large. Each trial's ratio is bounded, and so their weighted mean is.

    Trials that are expected to take no time are not counted: nothing is measured in them.
    """

    def __init__(self, expected_s: Sequence[float]) -> None:
        _refuse_senseless(expected_s)
        self.total = sum(seconds > 0 for seconds in expected_s)
        """Trials to measure; fewer once some are skipped."""
        self.done = 0
        self._left_s = dict(enumerate(expected_s))
        # The same of both: until something was observed their ratio is 1.
        self._taken_s = self._expected_s = _TRUST_IN_EXPECTED * math.fsum(expected_s)

    def end(self, index: int, taken_s: float) -> None:
        """This trial took so long."""
        expected_s = self._left_s.pop(index)
        if expected_s > 0:
            self.done += 1
            self._expected_s += expected_s
            self._taken_s += min(max(taken_s, _FASTER_AT_MOST * expected_s), _SLOWER_AT_MOST * expected_s)

    def skip(self, index: int) -> None:
        """This trial is not measured."""
        if self._left_s.pop(index) > 0:
            self.total -= 1

    @property
    def ratio(self) -> float:
        """What trials take of what was expected of them."""
        return self._taken_s / self._expected_s if self._expected_s > 0 else 1.0

    @property
    def seconds(self) -> float:
        """Until all have ended."""
        return math.fsum(self._left_s.values()) * self.ratio


class Progress:
    """A bar on a terminal, a line a minute anywhere else; to be entered, and told of each trial.

    It is drawn between trials only, by whoever calls. A thread that draws would do it within the measured time:
    a frame took 1.2 ms with the interpreter locked, many times a call of the fastest strategies.
    """

    def __init__(
        self, console: Console, expected_s: Sequence[float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.remaining = Remaining(expected_s)
        self._console = console
        self._clock = clock
        self._start_s = self._begin_s = self._line_s = clock()
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._start_s = self._begin_s = self._line_s = self._clock()
        if self._console.is_interactive and self.remaining.total:
            self._bar = Bar(
                BarColumn(bar_width=30),
                TextColumn("{task.fields[text]}", markup=False),
                TextColumn("{task.description}", markup=False, style="dim"),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,  # results go there, to be read by programs
            )
            self._task = self._bar.add_task("", total=1.0, text=self.text())
            self._bar.start()
            self._draw("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._draw("")
            self._bar.stop()
            self._bar = None

    def begin(self, index: int, description: str) -> None:
        """This trial is being measured from now on."""
        self._begin_s = self._clock()
        if self._bar is not None:
            self._draw(description)
        elif not self._console.is_interactive and self._begin_s - self._line_s >= _LINE_EVERY_S:
            self._line_s = self._begin_s
            self._console.print(self.text(), highlight=False, markup=False, soft_wrap=True)

    def end(self, index: int, seconds_taken: float | None = None) -> None:
        """It has ended; without its duration, that is the time since it began."""
        self.remaining.end(index, self._clock() - self._begin_s if seconds_taken is None else seconds_taken)

    def skip(self, index: int) -> None:
        """It was not measured."""
        self.remaining.skip(index)

    def text(self) -> str:
        """Trials done and to do, time so far, time left."""
        words = [f"{self.remaining.done:,}/{_trials(self.remaining.total)}"]
        elapsed_s = self._clock() - self._start_s
        if elapsed_s >= 1:
            words.append(f"{duration_text(elapsed_s)} so far")
        if self.remaining.done < self.remaining.total:
            words.append(f"about {duration_text(self.remaining.seconds)} left")
        return ", ".join(words)

    def _draw(self, description: str) -> None:
        assert self._bar is not None
        elapsed_s, left_s = self._clock() - self._start_s, self.remaining.seconds
        share = elapsed_s / (elapsed_s + left_s) if left_s > 0 else 1.0
        self._bar.update(self._task, completed=share, description=description, text=self.text())
        self._bar.refresh()


def expected_total_text(seconds_by_trial: Sequence[float]) -> str:
    """How many trials there are, and how long they take together if each takes as long as expected."""
    _refuse_senseless(seconds_by_trial)
    if not seconds_by_trial:
        return "no trials"
    return f"{_trials(len(seconds_by_trial))}, about {duration_text(math.fsum(seconds_by_trial))}"


def duration_text(seconds: float) -> str:
    """As people say it: the coarser, the longer it is. It never says less than a second."""
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 600:
        return _in_units(round(seconds / 5) * 5, 60, "min", "s")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return _in_units(minutes, 60, "h", "min")
    return _in_units(round(minutes / 60), 24, "d", "h")


def _in_units(count: int, per_large: int, large: str, small: str) -> str:
    whole, rest = divmod(count, per_large)
    return f"{whole:,} {large} {rest} {small}" if rest else f"{whole:,} {large}"


def _trials(count: int) -> str:
    return f"{count:,} trial" if count == 1 else f"{count:,} trials"


def _refuse_senseless(expected_s: Sequence[float]) -> None:
    for seconds in expected_s:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a trial cannot be expected to take {seconds} s")
