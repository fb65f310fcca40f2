"""Which strategies meet a reader's needs: a ranking by figures and claims, and a reason for each that is not in it.

Four rules, none of which knows a name:

- *Rate and p99.* An open loop decides where it was measured: at the highest rate that was kept with this p99 and
  below, the need is met; from the lowest rate above it that was not kept, it is not. In between, and where there is no
  open loop, a closed loop decides: what it answered at its number of callers, and its service time. Each is said.
- *Survive.* In every measured trial with this fault nothing was lost, doubled, torn or answered out of order, and
  whoever asked was served again; operations were sent once or with op ids. And it is claimed.
- *Retries, transfers, callers, accounts.* Claimed, and measured: no operation doubled with op ids, transfers that kept
  the sum, calls from there, at least so many accounts.
- What is claimed and was not measured counts as unmeasured: nothing speaks against it, and it is ranked behind.

A strategy is ruled out by one need that it does not meet. So a stricter need never adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.harness import failure_outcomes
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.generator import Retry
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.table_text import MARKS
from strategies.interface import Caller, Capabilities, Durability, Fault, Retries, Transfers

RULE = (
    "Ranked by the fewest needs that are claimed or open and not measured; then, where a p99 was asked for, response "
    "times before service times and the lowest p99 first, else the most calls/s first."
)

_TRANSFERS = list(Transfers)
"""From the narrowest scope to the widest."""
_OUTLIVES_POWER = (Durability.POWER_LOSS, Durability.REPLICATED)
"""Classes that have more than one machine's memory, or the page cache, behind an acknowledgement."""


class NeedsError(ValueError):
    """Needs that nobody can have; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a reader asks for. What is not asked for rules nobody out."""

    accounts: int | None = None
    """At least so many."""
    rate_per_s: float | None = None
    """Operations each second, all callers together."""
    p99_ms: float | None = None
    """Of one operation's time, at that rate."""
    survive: frozenset[Fault] = frozenset()
    retries: Retries = Retries.UNSAFE
    """`SAFE_WITH_OP_ID`: an operation that is sent again must have its effect once."""
    transfers: Transfers = Transfers.NONE
    callers: frozenset[Caller] = frozenset()
    """From each of these."""

    def __post_init__(self) -> None:
        for name, least, most in (("accounts", 1, 1e9), ("rate_per_s", 0, 1e9), ("p99_ms", 0, 1e6)):
            value = getattr(self, name)
            if value is not None and not (least <= value <= most and value > 0):
                option = name.removesuffix("_per_s").replace("_", "-")
                above = "1" if least else "above 0"
                raise NeedsError(f"--{option} must be {above} to {most:,.0f}, not {value:g}")

    def as_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "accounts": self.accounts,
            "rate_per_s": self.rate_per_s,
            "p99_ms": self.p99_ms,
            "survive": sorted(self.survive),
            "retries": str(self.retries),
            "transfers": str(self.transfers),
            "callers": sorted(self.callers),
        }


# -- what is known -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One rate of an open loop, over its trials."""

    offered_per_s: float
    sustained: bool
    """Whether all but a hundredth of it was answered."""
    p99_us: tuple[float, ...]
    """Response times, of each trial; none where one cannot tell."""


@dataclass(frozen=True)
class Setting:
    """One form in which speed was measured: from where, by how many callers, on how many accounts, how called."""

    caller: Caller
    form: str
    """In words."""
    plain: bool = True
    """One call at a time, from one process, on the strategy's own shards."""
    accounts: int = 0
    """0 where it is not known."""
    ops_per_s: tuple[float, ...] = ()
    """In a closed loop, of each trusted trial."""
    p99_us: tuple[float, ...] = ()
    """Service times of the same; none where one cannot tell."""
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One strategy and variant, and all that is known of it."""

    strategy: str
    variant: str
    durability: str
    claims: Capabilities | None
    """None where the code that claims is not here."""
    settings: tuple[Setting, ...] = ()
    cells: tuple[FaultFigures, ...] = ()
    out_of_reach: Mapping[Fault, str] = field(default_factory=dict)
    """Faults that cannot be applied to it, from wherever it is called, and why."""
    transfers_kept: int = 0
    """Trials with transfers between any accounts after which all was there."""
    unsound: int = 0
    """Trials without a fault that lost, doubled or made something up."""
    unmeasured: str = ""
    """Why it has no speed: what failed, or what was missing."""

    @property
    def row(self) -> str:
        """Strategy and variant, as tables show them."""
        return f"{self.strategy}:{self.variant}"


# -- what is said ------------------------------------------------------------------------------------


class State(StrEnum):
    """What became of one need."""

    MET = "met"
    UNMEASURED = "unmeasured"
    """Claimed, or not contradicted; no trial stands for it."""
    UNMET = "unmet"


@dataclass(frozen=True)
class Answer:
    """One need, held against what is known of one strategy."""

    need: str
    state: State
    words: str
    """What decided."""
    values: tuple[float, ...] = ()
    """The figure that decided, trial by trial."""
    unit: str | None = None
    kind: str | None = None
    """Of a p99: `service` or `response` time."""
    shortfall: float = 0.0
    """By how many doublings a figure misses the need."""

    @cached_property
    def figure(self) -> Estimate | None:
        """Median with its 95 % interval."""
        return median(self.values) if self.values else None

    def as_json(self) -> dict[str, Any]:
        """Plain types only."""
        found = self.figure
        figure = None if found is None else {**vars(found), "unit": self.unit, "kind": self.kind}
        return {"need": self.need, "state": str(self.state), "words": self.words, "figure": figure}


@dataclass(frozen=True)
class Judged:
    """One candidate with an answer to each need."""

    candidate: Candidate
    answers: tuple[Answer, ...]
    ops_per_s: tuple[float, ...] = ()
    """Of the setting that decided: from the slowest of the callers asked for."""
    p99_us: tuple[float, ...] = ()
    kind: str | None = None
    """Of the p99."""

    def in_state(self, state: State) -> list[Answer]:
        """Answers that are in this state."""
        return [answer for answer in self.answers if answer.state is state]

    @property
    def meets(self) -> bool:
        """Whether no need rules it out."""
        return not self.in_state(State.UNMET)

    def as_json(self) -> dict[str, Any]:
        """Plain types only."""
        figures = {
            name: None if not values else vars(median(values))
            for name, values in (("ops_per_s", self.ops_per_s), ("latency_us_p99", self.p99_us))
        }
        return {
            "strategy": self.candidate.strategy,
            "variant": self.candidate.variant,
            "durability": self.candidate.durability,
            "unmeasured": len(self.in_state(State.UNMEASURED)),
            **figures,
            "latency_kind": self.kind,
            "answers": [answer.as_json() for answer in self.answers],
        }


@dataclass(frozen=True)
class Advice:
    """Everybody, in one of two lists."""

    needs: Needs
    ranked: tuple[Judged, ...]
    ruled_out: tuple[Judged, ...]
    """The nearest first."""
    rule: str = field(default=RULE)

    @property
    def nearest(self) -> tuple[Judged, ...]:
        """Where nobody meets the needs: who misses the fewest."""
        if self.ranked or not self.ruled_out:
            return ()
        fewest = len(self.ruled_out[0].in_state(State.UNMET))
        return tuple(each for each in self.ruled_out if len(each.in_state(State.UNMET)) == fewest)

    def as_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "needs": self.needs.as_json(),
            "rule": self.rule,
            "ranked": [each.as_json() for each in self.ranked],
            "ruled_out": [each.as_json() for each in self.ruled_out],
            "nearest": [each.candidate.row for each in self.nearest],
        }


def advise(needs: Needs, candidates: Iterable[Candidate]) -> Advice:
    """Everybody ranked or ruled out; the order of `candidates` makes no difference."""
    judged = [judge(needs, candidate) for candidate in candidates]
    ranked = sorted((each for each in judged if each.meets), key=lambda each: _rank(needs, each))
    ruled_out = sorted((each for each in judged if not each.meets), key=_distance)
    return Advice(needs, tuple(ranked), tuple(ruled_out))


def judge(needs: Needs, candidate: Candidate) -> Judged:
    """One candidate, need by need."""
    callers: list[Caller | None] = [*sorted(needs.callers)]
    decided = [_speed(needs, candidate, caller) for caller in callers or [None]]
    answers = [answer for each in decided for answer in each.answers]
    answers += [_callers(candidate, caller) for caller in sorted(needs.callers)]
    answers += [_survive(candidate, fault) for fault in Fault if fault in needs.survive]
    if needs.retries is Retries.SAFE_WITH_OP_ID:
        answers.append(_retries(candidate))
    if needs.transfers is not Transfers.NONE:
        answers.append(_transfers(candidate, needs.transfers))
    if candidate.unsound:
        said = f"lost, doubled or made something up without a fault, in {candidate.unsound} trials"
        answers.append(Answer("sound", State.UNMET, said))
    slowest = min(decided, key=lambda each: _middle(each.ops_per_s) or 0.0)
    latest = max(decided, key=lambda each: (each.kind == "service", _middle(each.p99_us) or math.inf))
    return Judged(candidate, tuple(answers), slowest.ops_per_s, latest.p99_us, latest.kind)


def _rank(needs: Needs, each: Judged) -> tuple[Any, ...]:
    figure = -(_middle(each.ops_per_s) or 0.0)
    by_p99 = (each.kind != "response", _middle(each.p99_us) or math.inf) if needs.p99_ms is not None else ()
    return (len(each.in_state(State.UNMEASURED)), *by_p99, figure, each.candidate.row)


def _distance(each: Judged) -> tuple[Any, ...]:
    unmet = each.in_state(State.UNMET)
    return (
        len(unmet),
        sum(answer.shortfall for answer in unmet),
        len(each.in_state(State.UNMEASURED)),
        each.candidate.row,
    )


# -- rate and p99 ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Speed:
    """What one caller's settings say of rate and p99."""

    answers: tuple[Answer, ...]
    ops_per_s: tuple[float, ...] = ()
    p99_us: tuple[float, ...] = ()
    kind: str | None = None
    plain: bool = True

    @property
    def worst(self) -> State:
        states = {answer.state for answer in self.answers}
        return next((state for state in (State.UNMET, State.UNMEASURED) if state in states), State.MET)


def _speed(needs: Needs, candidate: Candidate, caller: Caller | None) -> _Speed:
    """By the setting that meets the most; of any caller, where none is asked for."""
    if caller is None:
        claimed = set(Caller) if candidate.claims is None else candidate.claims.callers
        possible = claimed | {each.caller for each in candidate.settings}
        return min((_speed(needs, candidate, each) for each in sorted(possible)), key=_merit, default=_Speed(()))
    here = [each for each in candidate.settings if each.caller is caller]
    large = [each for each in here if each.accounts >= (needs.accounts or 0)]
    # So many accounts were never measured: what most were measured with tells more than nothing.
    most = max((each.accounts for each in here), default=0)
    chosen = [_in_setting(needs, each) for each in large or [each for each in here if each.accounts == most]]
    best = min(chosen, key=_merit) if chosen else _nothing(needs, candidate, caller)
    if needs.accounts is None:
        return best
    said = f"measured with up to {most:,}" if here else "not measured"
    size = Answer(_from("accounts", caller), State.MET if large else State.UNMEASURED, said)
    return replace(best, answers=(*best.answers, size))


def _merit(each: _Speed) -> tuple[Any, ...]:
    """The best is the least. Figures decide last, so that equals do not depend on their order."""
    return (
        (State.MET, State.UNMEASURED, State.UNMET).index(each.worst),
        sum(answer.shortfall for answer in each.answers),
        not each.plain,
        -(_middle(each.ops_per_s) or 0.0),
        _middle(each.p99_us) or math.inf,
        [answer.words for answer in each.answers],
    )


def _nothing(needs: Needs, candidate: Candidate, caller: Caller) -> _Speed:
    said = candidate.unmeasured or "not measured"
    wanted = (("rate", needs.rate_per_s), ("p99", needs.p99_ms))
    asked_for = [need for need, value in wanted if value is not None]
    return _Speed(tuple(Answer(_from(need, caller), State.UNMEASURED, said) for need in asked_for))


def _from(need: str, caller: Caller) -> str:
    return f"{need} from a {caller}"


def _in_setting(needs: Needs, setting: Setting) -> _Speed:
    rate = needs.rate_per_s or 0.0
    keeps = [each for each in setting.points if _keeps(each, needs.p99_ms) is True]
    kept = max(keeps, key=lambda each: each.offered_per_s, default=None)
    floor = kept.offered_per_s if kept else 0.0
    refused = min(
        (each for each in setting.points if _keeps(each, needs.p99_ms) is False and each.offered_per_s > floor),
        key=lambda each: each.offered_per_s,
        default=None,
    )
    if kept is not None and rate <= kept.offered_per_s:
        # At the lowest rate that is enough, among those that keep it: what the reader would see.
        enough = min((each for each in keeps if each.offered_per_s >= rate), key=lambda each: each.offered_per_s)
        return _by_open_loop(needs, setting, enough)
    if refused is not None and rate >= refused.offered_per_s:
        return _by_open_loop(needs, setting, refused)
    return _by_closed_loop(needs, setting)


def _keeps(point: Point, p99_ms: float | None) -> bool | None:
    """Whether a rate was answered in time; None where it cannot be told."""
    if not point.sustained:
        return False
    if p99_ms is None:
        return True
    p99_us = _middle(point.p99_us)
    return None if p99_us is None else p99_us <= p99_ms * 1e3


def _by_open_loop(needs: Needs, setting: Setting, point: Point) -> _Speed:
    answers = []
    rate = _from("rate", setting.caller)
    where = f"open loop, {point.offered_per_s:,.10g}/s from {setting.form}"
    if needs.rate_per_s is not None:
        state = State.MET if point.sustained else State.UNMET
        said = f"{where}: {'sustained' if point.sustained else 'not sustained'}"
        short = 0.0 if point.sustained else max(0.0, math.log2(needs.rate_per_s / point.offered_per_s))
        answers.append(Answer(rate, state, said, (point.offered_per_s,), "ops/s", shortfall=short))
    if needs.p99_ms is not None:
        answers.append(_p99(needs.p99_ms, point.p99_us, "response", where, setting.caller, lost=not point.sustained))
    reached = setting.ops_per_s or (point.offered_per_s,)
    return _Speed(tuple(answers), reached, point.p99_us, "response", setting.plain)


def _by_closed_loop(needs: Needs, setting: Setting) -> _Speed:
    answers = []
    rate = _from("rate", setting.caller)
    where = f"closed loop, {setting.form}"
    ops = _middle(setting.ops_per_s)
    if needs.rate_per_s is not None:
        if ops is None:
            answers.append(Answer(rate, State.UNMEASURED, f"{where}: no trial that trusts itself"))
        else:
            state = State.MET if ops >= needs.rate_per_s else State.UNMET
            short = max(0.0, math.log2(needs.rate_per_s / ops)) if ops > 0 else math.inf
            answers.append(Answer(rate, state, where, setting.ops_per_s, "ops/s", shortfall=short))
    if needs.p99_ms is not None:
        answers.append(_p99(needs.p99_ms, setting.p99_us, "service", where, setting.caller))
    return _Speed(
        tuple(answers), setting.ops_per_s, setting.p99_us, "service" if setting.p99_us else None, setting.plain
    )


def _p99(
    wanted_ms: float, values_us: tuple[float, ...], kind: str, where: str, caller: Caller, *, lost: bool = False
) -> Answer:
    found = _middle(values_us)
    said, need = f"{where}: {kind} time", _from("p99", caller)
    if found is None:
        state = State.UNMET if lost else State.UNMEASURED
        return Answer(need, state, f"{where}: too few operations for a p99")
    state = State.MET if found <= wanted_ms * 1e3 and not lost else State.UNMET
    short = max(0.0, math.log2(found / (wanted_ms * 1e3)))
    return Answer(need, state, said, tuple(each / 1e3 for each in values_us), "ms", kind, short)


def _middle(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


# -- what claims and faults say ------------------------------------------------------------------------


def _callers(candidate: Candidate, caller: Caller) -> Answer:
    need = f"calls from a {caller}"
    if any(each.caller is caller for each in candidate.settings):
        return Answer(need, State.MET, "measured")
    if any(cell.caller == caller and cell.trials_judged for cell in candidate.cells):
        return Answer(need, State.MET, "measured around faults")
    return _by_claim(need, candidate, lambda claims: caller in claims.callers)


def _survive(candidate: Candidate, fault: Fault) -> Answer:
    need = f"survive {fault}"
    # What is sent again as if new is doubled by its caller.
    cells = [each for each in candidate.cells if each.fault == fault and each.retry != Retry.NAIVE]
    ran = [each for each in cells if each.trials]
    trials, survived = sum(each.trials for each in ran), sum(each.trials_survived for each in ran)
    if survived < trials:
        worst = min(ran, key=lambda each: (each.trials_survived / each.trials, failure_outcomes.outcome(each)))
        way = f"called from a {worst.caller}, {failure_outcomes.RETRIES.get(worst.retry, worst.retry)}"
        return Answer(need, State.UNMET, f"{failure_outcomes.outcome(worst)} ({way})")
    claimed = candidate.claims is None or fault in candidate.claims.survives
    if trials:
        # The exact bound: with a smaller share, so many trials in a row would survive in 5 % of cases.
        share = 100 * 0.05 ** (1 / trials)
        said = f"survived {survived} of {trials} trials (95 %: at least {share:.0f} % of them)"
        return Answer(need, State.MET, said) if claimed else Answer(need, State.UNMEASURED, f"{said}, not claimed")
    if fault is Fault.POWER_LOSS and candidate.durability not in _OUTLIVES_POWER:
        return Answer(need, State.UNMET, f"its durability is {candidate.durability}, which a power cut ends")
    if fault in candidate.out_of_reach:
        return Answer(need, State.UNMEASURED, f"{MARKS[Status.NOT_APPLICABLE]}: {candidate.out_of_reach[fault]}")
    return _by_claim(need, candidate, lambda claims: fault in claims.survives)


def _retries(candidate: Candidate) -> Answer:
    need = "safe to send again"
    cells = [each for each in candidate.cells if each.retry == Retry.OP_ID and each.trials_judged]
    judged, doubled = sum(each.trials_judged for each in cells), sum(each.trials_doubled for each in cells)
    if doubled:
        return Answer(need, State.UNMET, f"doubled in {doubled} of {judged} trials with op ids")
    by_claim = _by_claim(need, candidate, lambda claims: claims.retries is Retries.SAFE_WITH_OP_ID)
    if not judged or by_claim.state is State.UNMET:
        return by_claim
    return Answer(need, State.MET, f"doubled in 0 of {judged} trials with op ids")


def _transfers(candidate: Candidate, wanted: Transfers) -> Answer:
    need = f"transfers: {wanted}"
    by_claim = _by_claim(need, candidate, lambda claims: _TRANSFERS.index(claims.transfers) >= _TRANSFERS.index(wanted))
    if not candidate.transfers_kept or by_claim.state is State.UNMET:
        return by_claim
    return Answer(need, State.MET, f"between any accounts in {candidate.transfers_kept} trials, and the sum was kept")


def _by_claim(need: str, candidate: Candidate, claims: Callable[[Capabilities], bool]) -> Answer:
    if candidate.claims is None:
        return Answer(need, State.UNMEASURED, "not measured, and what it claims is not known here")
    if claims(candidate.claims):
        return Answer(need, State.UNMEASURED, "claimed, not measured")
    return Answer(need, State.UNMET, "not claimed, not measured")
