"""What is recorded under results/ beside a run: the failure table, complexity, the scoreboard, and sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import complexity, failure_tables
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.failure_tables import FailureTable
from benchmarks.harness.records import RunError, Trial, read
from benchmarks.harness.scoreboard import Row

T = TypeVar("T")

RESULTS = failure_tables.RESULTS
_SCOREBOARD = "scoreboard.json"


@dataclass(frozen=True)
class Scoreboard:
    """Ratios, and where they come from."""

    about: Mapping[str, Any]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Sweep:
    """One recorded run over clients or shards."""

    about: Mapping[str, Any]
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Companions:
    """Each is None, or empty, where it is not recorded."""

    failures: Sequence[FailureTable] = ()
    complexity: complexity.Recorded | None = None
    scoreboard: Scoreboard | None = None
    sweeps: Sequence[Sweep] = ()
    damage: Sequence[str] = field(default=())
    """A sentence for each that is there and cannot be read."""

    def unpublished(self, run: str, cells: Sequence[FaultFigures]) -> Sequence[FaultFigures]:
        """A run's cells, or none where a published failure table counts them already."""
        published = any(each["run"] == run for table in self.failures for each in table.about["runs"])
        return () if published else cells


def load(results: Path = RESULTS) -> Companions:
    """All that is there. What cannot be read is left out, and said to be."""
    damage: list[str] = []

    def one(reader: Callable[[], T]) -> T | None:
        try:
            return reader()
        except RunError as error:
            damage.append(str(error))
            return None

    return Companions(
        failures=one(lambda: failure_tables.published(results)) or (),
        complexity=one(lambda: complexity.read(results)),
        scoreboard=one(lambda: _scoreboard(results / _SCOREBOARD)),
        sweeps=_sweeps(results / "runs"),
        damage=damage,
    )


def _scoreboard(path: Path) -> Scoreboard | None:
    try:
        found = json.loads(path.read_text())
        return Scoreboard(found, [Row.of_record(row) for row in found.pop("scoreboard")])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}); make it again") from error


def _sweeps(runs: Path) -> list[Sweep]:
    """Of finished runs. Which of them are sweeps, run.json says: only those are read."""
    found = []
    for path in sorted(runs.glob("*/run.json")):
        try:
            if '"sweep"' in path.read_text():
                about, trials = read(path.parent)
                if about.get("finished") and about.get("sweep"):
                    found.append(Sweep(about, trials))
        except (OSError, RunError):
            continue  # no figure of this page's run is lost by it
    return found
