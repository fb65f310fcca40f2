"""A trial whose clocks disagree says so, and says which way."""

from __future__ import annotations

import time

import pytest

from benchmarks.harness.cells import Status
from benchmarks.harness.environment import Environment
from benchmarks.harness.measure import Settings, measure
from tests.harness.own import speed_cell


class Leap:
    """A clock that leaps by some seconds from its second reading on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, by_s: float) -> None:
        self.readings = 0
        self.true = getattr(time, name)
        self.by_s = by_s
        monkeypatch.setattr(f"benchmarks.harness.measure.time.{name}", self)

    def __call__(self, *arguments: int) -> float:
        self.readings += 1
        return float(self.true(*arguments)) + (self.by_s if self.readings > 1 else 0.0)


@pytest.mark.parametrize(
    ("clock", "by_s", "said"),
    [("clock_gettime", 30.0, "the machine was suspended for 30.0"), ("clock_gettime", 0.0, None)],
)
def test_a_machine_that_slept(
    monkeypatch: pytest.MonkeyPatch, environment: Environment, clock: str, by_s: float, said: str | None
) -> None:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("only Linux has a clock that goes on while the machine sleeps")
    Leap(monkeypatch, clock, by_s)
    trial = measure(speed_cell("Plain"), environment, Settings(seconds=0.1, warmup_s=0.05), 0, 1)
    assert trial.status == Status.OK
    if said is None:
        assert "suspended" not in (trial.distrust or "")
    else:
        assert trial.trusted is False
        assert said in (trial.distrust or "")


def test_a_wall_clock_that_was_set(monkeypatch: pytest.MonkeyPatch, environment: Environment) -> None:
    from benchmarks.harness import measure as module

    clocks = module._Clocks()
    true = time.time
    monkeypatch.setattr("benchmarks.harness.measure.time.time", lambda: true() - 5.0)
    (said,) = clocks.disagreements()
    assert said.startswith("the clock jumped by -5.0")
