"""What a strategy costs before it is fast or slow: code, deployment, memory; measured, recorded, read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from benchmarks.harness import cells, code_size, deployment, installed, measure, workloads
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.deployment import Deployed
from benchmarks.harness.environment import Environment
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.records import RunError
from strategies.interface import AccountError, Caller, load

FILE = "complexity.json"
"""Below results/."""
REPEATS = 5
ACCOUNTS = 1000
"""That memory is measured over."""

_OF_TRIALS = tuple(each.name for each in fields(Deployed))


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """One strategy's variant. Where it could not be deployed here, only its code is known."""

    strategy: str
    variant: str
    durability: str
    needs: tuple[str, ...]
    status: str
    reason: str | None = None
    code: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """`own`, `shared` and `caller`: `lines` and `complexity`."""
    installed_mb: float | None = None
    trials: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Every figure of `Deployed`, and `bytes_per_account`: a value for each trial."""

    @property
    def row(self) -> str:
        """Strategy and variant, as tables show them."""
        return f"{self.strategy}:{self.variant}"

    def figure(self, name: str) -> Estimate | None:
        """Over its trials; None where it was not measured."""
        values = [value for value in self.trials.get(name, ()) if value is not None]
        return median(values) if values else None

    def lines(self, *parts: str) -> int:
        """Of these parts of its code."""
        return sum(self.code[part]["lines"] for part in parts)

    def ways(self, *parts: str) -> int:
        """Cyclomatic complexity of these parts of its code."""
        return sum(self.code[part]["complexity"] for part in parts)

    @classmethod
    def of_record(cls, recorded: Mapping[str, Any]) -> Self:
        """As it was written to JSON. Keys that a later program added are left alone."""
        known = {each.name for each in fields(cls)}
        found = {name: value for name, value in recorded.items() if name in known}
        return cls(**found | {"needs": tuple(found["needs"])})


@dataclass(frozen=True)
class Recorded:
    """What `python -m benchmarks complexity --json` wrote."""

    about: Mapping[str, Any]
    """`commit`, `seed`, `machine`, `versions`, `command`."""
    rows: Sequence[Complexity]


def measured(
    rows: Sequence[tuple[str, str]], repeats: int, told: Callable[[str], None] = lambda words: None
) -> list[Complexity]:
    """Of these strategies and variants, `repeats` trials of each, by turns. `told` hears what goes on."""
    found: dict[tuple[str, str], Complexity] = {}
    trials: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    unknown: dict[tuple[str, str], str] = {}
    with Environment() as environment:
        decided = {row: cells.decide(_cell(*row), environment) for row in rows}
        ready = [row for row, decision in decided.items() if decision.status is Status.OK]
        for row in ready:
            told(f"{':'.join(row)}: memory of {ACCOUNTS:,} accounts")
            trials[row] = {name: [] for name in (*_OF_TRIALS, "bytes_per_account")}
            try:
                footprint = measure.footprint(_cell(*row), environment, ACCOUNTS)
            except AccountError as error:
                unknown[row] = f"its memory is not known: {error}"
            else:
                trials[row]["bytes_per_account"].append(footprint.bytes_per_account)
    reasons: dict[tuple[str, str], str] = {}
    for repeat in range(repeats):
        for row in ready:
            if row in reasons:
                continue
            told(f"{':'.join(row)}: from nothing to the first acknowledgement, {repeat + 1} of {repeats}")
            try:
                deployed = asdict(deployment.trial(*row))
            except deployment.DeploymentFailed as error:
                reasons[row] = str(error)
                continue
            for name in _OF_TRIALS:
                trials[row][name].append(deployed[name])
    for row, decision in decided.items():
        kind = load(row[0])
        claims = kind.claims(row[1])
        failed = reasons.get(row)
        found[row] = Complexity(
            strategy=kind.name,
            variant=row[1],
            durability=claims.durability,
            needs=tuple(sorted(claims.needs)),
            status=Status.FAILED if failed else decision.status,
            reason=failed or decision.reason or unknown.get(row),
            code=asdict(code_size.of_strategy(kind, row[1])),
            installed_mb=installed.megabytes(claims) if row in ready else None,
            trials={} if failed else trials.get(row, {}),
        )
    return list(found.values())


def read(results: Path) -> Recorded | None:
    """What is recorded below results/; None if nothing is.

    Raises:
        RunError: it cannot be read.
    """
    path = results / FILE
    try:
        found = json.loads(path.read_text())
        rows = [Complexity.of_record(each) for each in found.pop("complexity")]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}); make it again") from error
    return Recorded(found, rows)


def _cell(strategy: str, variant: str) -> Cell:
    return Cell(strategy, variant, workloads.names()[0], Caller.DRIVER, 1)
