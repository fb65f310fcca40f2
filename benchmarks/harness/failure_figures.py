"""What the trials of one fault cell come to: counts, and medians with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from benchmarks.harness.cells import Status
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.records import Trial

FIGURES = (
    "acknowledged",
    "acknowledged_lost",
    "acknowledged_lost_amount",
    "duplicated",
    "indeterminate",
    "indeterminate_applied",
    "unavailable_s",
    "detection_s",
    "recovery_s",
    "goodput_before_per_s",
    "goodput_during_per_s",
    "goodput_after_per_s",
    "unknown_share",
)
"""Of which there are medians, over the trials that have them: `detection_s` over those in which a caller was told at
all. A recovery that never came counts as the load after the fault."""

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class FaultFigures:
    """One cell."""

    strategy: str
    variant: str
    durability: str
    fault: str
    caller: str
    retry: str
    status: str
    """`ok` if one trial at least ran to its end."""
    reason: str | None = None
    """Why there are no figures, or why some trials failed: the first reason."""
    trials: int = 0
    """That ran to their end."""
    trials_failed: int = 0
    trials_judged: int = 0
    """Of `trials`, those after which the accounts could be read."""
    trials_distrusted: int = 0
    trials_survived: int = 0
    """Nothing was lost, torn, doubled or out of order, and whoever asked was served again."""
    trials_lost: int = 0
    """Something acknowledged was."""
    trials_doubled: int = 0
    trials_torn: int = 0
    trials_noticed: int = 0
    """Some caller was told."""
    trials_never_recovered: int = 0
    """Some account that was asked was not served again."""
    trials_not_asked: int = 0
    """All callers had died with the fault, and none began again."""
    acknowledged_total: int = 0
    """Operations, as are the next three."""
    acknowledged_lost_total: int = 0
    acknowledged_lost_max: int = 0
    duplicated_max: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    linearizable: Mapping[str, int] = field(default_factory=dict)
    violations: Mapping[str, int] = field(default_factory=dict)
    """In how many trials each kind was found."""
    figures: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def row(self) -> str:
        """Strategy and variant, as tables show them."""
        return f"{self.strategy}:{self.variant}"

    @property
    def mismatch(self) -> str | None:
        """How it breaks its claims, by the rule that `run` exits by: worse in one trial, or better in all."""
        if self.verdicts.get("worse_than_claimed"):
            return "worse_than_claimed"
        better = self.verdicts.get("better_than_claimed", 0)
        return "better_than_claimed" if better and better == sum(self.verdicts.values()) else None

    def as_json(self) -> dict[str, Any]:
        """Without what is nothing, and figures as short as can be: a thousand cells are one file.

        A figure is its value, or a list of value, low and high where it has an interval, and then, where these are
        fewer than the cell's, of the trials that have it.
        """
        found = {name: value for name, value in asdict(self).items() if value not in (None, 0, {})}
        if self.figures:
            found["figures"] = {name: self._figure(each) for name, each in self.figures.items()}
        return found

    def _figure(self, each: Estimate) -> Any:
        value, low, high = map(_short, (each.value, each.low, each.high))
        fewer = [each.trials] if each.trials != self.trials else []
        return value if low == high and not fewer else [value, low, high, *fewer]

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """What `as_json` gave. Keys that a later program added are left alone."""
        known = {each.name for each in fields(cls)}
        figures = {}
        for name, each in found.get("figures", {}).items():
            value, low, high, *fewer = each if isinstance(each, list) else (each, None, None)
            figures[name] = Estimate(value, low, high, fewer[0] if fewer else found["trials"])
        return cls(**{name: value for name, value in found.items() if name in known} | {"figures": figures})


def aggregate(trials: Sequence[Trial], figures: Sequence[str] = FIGURES) -> list[FaultFigures]:
    """A cell for each that has trials with a fault, in the order in which they came, with medians of these figures."""
    by_cell: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        if trial.fault is not None:
            key = (trial.strategy, trial.variant, trial.fault, trial.caller, trial.retry or "none")
            by_cell.setdefault(key, []).append(trial)
    return [_of_cell(each, figures) for each in by_cell.values()]


def never_recovered(trial: Trial) -> bool:
    """Whether some account that was asked after the fault was not served again."""
    return trial.recovery_s is None and not not_asked(trial)


def not_asked(trial: Trial) -> bool:
    """Whether no account was asked after the fault: then none had to wait either."""
    return trial.recovery_s is None and not trial.unavailable_s


def recovered_s(trial: Trial) -> float | None:
    """Until all accounts were served again; where that never came, the load after the fault, which it took at least.

    None if nobody asked.
    """
    if trial.recovery_s is not None or not_asked(trial):
        return trial.recovery_s
    return max(trial.unavailable_s or 0.0, (trial.seconds or 0.0) - (trial.fault_at_s or 0.0))


def survived(trial: Trial) -> bool:
    """Whether nothing was lost, torn, doubled or out of order, and whoever asked was served again."""
    hurt = trial.acknowledged_lost or trial.duplicated or trial.torn or trial.linearizable == "no"
    return trial.acknowledged is not None and not hurt and not never_recovered(trial)


def _of_cell(trials: Sequence[Trial], figures: Sequence[str]) -> FaultFigures:
    first = trials[0]
    ran = [trial for trial in trials if trial.status == Status.OK]
    failed = [trial for trial in trials if trial.status == Status.FAILED]
    judged = [trial for trial in ran if trial.acknowledged is not None]
    status = Status.OK if ran else Status.FAILED if failed else Status(first.status)
    kinds = [kind.strip() for trial in ran for kind in (trial.violations or "").split(",")]
    return FaultFigures(
        strategy=first.strategy,
        variant=first.variant,
        durability=first.durability or "",
        fault=str(first.fault),
        caller=first.caller,
        retry=first.retry or "none",
        status=str(status),
        reason=failed[0].reason if failed else None if ran else first.reason,
        trials=len(ran),
        trials_failed=len(failed),
        trials_judged=len(judged),
        trials_distrusted=sum(trial.trusted is False for trial in ran),
        trials_survived=sum(map(survived, judged)),
        trials_lost=sum(bool(trial.acknowledged_lost) for trial in judged),
        trials_doubled=sum(bool(trial.duplicated) for trial in judged),
        trials_torn=sum(bool(trial.torn) for trial in judged),
        trials_noticed=sum(trial.detection_s is not None for trial in ran),
        trials_never_recovered=sum(map(never_recovered, ran)),
        trials_not_asked=sum(map(not_asked, ran)),
        acknowledged_total=sum(trial.acknowledged or 0 for trial in judged),
        acknowledged_lost_total=sum(trial.acknowledged_lost or 0 for trial in judged),
        acknowledged_lost_max=max((trial.acknowledged_lost or 0 for trial in judged), default=0),
        duplicated_max=max((trial.duplicated or 0 for trial in judged), default=0),
        verdicts=_counted(trial.verdict for trial in ran),
        linearizable=_counted(trial.linearizable for trial in judged),
        violations=_counted(kind or None for kind in kinds),
        figures={name: found for name in figures if (found := _median(ran, name)) is not None},
    )


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def _median(trials: Sequence[Trial], name: str) -> Estimate | None:
    """Of the trials that have the figure: how many these are is part of it."""
    values = [recovered_s(trial) if name == "recovery_s" else getattr(trial, name) for trial in trials]
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    if min(known) == max(known):  # a bootstrap takes milliseconds, and there are ten thousand to do
        only = None if len(known) == 1 else known[0]
        return Estimate(known[0], only, only, len(known))
    return median(known)


def _short(number: float | None) -> float | int | None:
    """To four digits, as no trial is more exact; whole where it is whole."""
    if number is None:
        return None
    rounded = float(f"{number:.{_DIGITS}g}") if abs(number) < 10**_DIGITS else round(number)
    return int(rounded) if rounded == int(rounded) else rounded
