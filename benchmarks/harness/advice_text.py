"""Advice as tables, and needs as words on a command line."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from benchmarks.harness.advice import Advice, Judged, Needs, NeedsError, State
from benchmarks.harness.intervals import Estimate, median
from benchmarks.harness.table_text import NO_FIGURE, count, estimate
from strategies.interface import Caller, Fault, Retries, Transfers

STRATEGY = "strategy, durability"
"""Heading of the column that is not to be broken into lines."""

_Word = TypeVar("_Word", bound=StrEnum)

_RETRIES = {
    "unsafe": Retries.UNSAFE,
    "safe": Retries.SAFE_WITH_OP_ID,
    str(Retries.SAFE_WITH_OP_ID): Retries.SAFE_WITH_OP_ID,
}


def needs(
    accounts: int | None = None,
    rate: float | None = None,
    p99_ms: float | None = None,
    survive: Iterable[str] = (),
    retries: str = "unsafe",
    transfers: str = "none",
    callers: Iterable[str] = (),
) -> Needs:
    """Needs as a command line spells them; lists may have commas in them.

    Raises:
        NeedsError: one of them cannot be; it says which words there are.
    """
    if retries not in _RETRIES:
        raise NeedsError(f"--retries must be {', '.join(_RETRIES)}, not {retries!r}")
    (scope,) = _words("transfers", [transfers], Transfers) or [Transfers.NONE]
    return Needs(
        accounts=accounts,
        rate_per_s=rate,
        p99_ms=p99_ms,
        survive=frozenset(_words("survive", survive, Fault)),
        retries=_RETRIES[retries],
        transfers=scope,
        callers=frozenset(_words("callers", callers, Caller)),
    )


def _words(option: str, given: Iterable[str], kind: type[_Word]) -> list[_Word]:
    found = []
    for word in (part.strip() for each in given for part in each.split(",")):
        if word not in list(kind):
            raise NeedsError(f"--{option} must be {', '.join(kind)}, not {word!r}")
        found.append(kind(word))
    return found


def asked(wanted: Needs) -> str:
    """The needs in one line."""
    words = []
    words += [f"{wanted.accounts:,} accounts"] if wanted.accounts is not None else []
    words += [f"{wanted.rate_per_s:,.10g} operations/s"] if wanted.rate_per_s is not None else []
    words += [f"a p99 of {wanted.p99_ms:g} ms"] if wanted.p99_ms is not None else []
    words += [f"survives {', '.join(sorted(wanted.survive))}"] if wanted.survive else []
    words += ["safe to send again"] if wanted.retries is Retries.SAFE_WITH_OP_ID else []
    words += [f"transfers: {wanted.transfers}"] if wanted.transfers is not Transfers.NONE else []
    words += [f"calls from a {caller}" for caller in sorted(wanted.callers)]
    return "; ".join(words) or "nothing in particular"


def conclusion(advice: Advice) -> str:
    """What came of it, in one or two sentences."""
    everybody = len(advice.ranked) + len(advice.ruled_out)
    if not advice.ranked:
        fewest = len(advice.nearest[0].in_state(State.UNMET)) if advice.nearest else 0
        return (
            f"None of {everybody} meets all of it. The nearest miss {fewest} "
            f"{'need' if fewest == 1 else 'needs'} each: {', '.join(each.candidate.row for each in advice.nearest)}."
            if advice.nearest
            else "There is nothing to choose from."
        )
    if advice.needs == Needs():
        return f"Nothing was asked for, so nobody is ruled out: all {everybody}, by speed."
    proven = sum(not each.in_state(State.UNMEASURED) for each in advice.ranked)
    claimed = len(advice.ranked) - proven
    said = f"{proven} of {everybody} meet all of it, measured."
    return said + (f" {claimed} more may, as far as they were measured." if claimed else "")


def ranked(advice: Advice) -> list[list[str]]:
    """Header, then a line for each that meets the needs."""
    lines = [["", STRATEGY, "speed", "decided by", "not measured"]]
    for place, each in enumerate(advice.ranked, start=1):
        entries = [_answers(each, state) for state in (State.MET, State.UNMEASURED)]
        lines.append([str(place), _name(each), _speed(each), *entries])
    return lines


def nearest(advice: Advice) -> list[list[str]]:
    """Header, then a line for each of the nearest misses; of these, all that is known."""
    lines = [[STRATEGY, "lacks", "meets", "not measured"]]
    for each in advice.nearest:
        lines.append([_name(each), *(_answers(each, state) for state in (State.UNMET, State.MET, State.UNMEASURED))])
    return lines


def ruled_out(advice: Advice) -> list[list[str]]:
    """Header, then a line for each that does not and is none of the nearest misses, the nearer first."""
    lines = [[STRATEGY, "lacks"]]
    for each in advice.ruled_out[len(advice.nearest) :]:
        lines.append([_name(each), _answers(each, State.UNMET)])
    return lines


def _name(each: Judged) -> str:
    return f"{each.candidate.row}\n{each.candidate.durability}"


def _answers(each: Judged, state: State) -> str:
    """A line for each; one for all that have the same reason and no figure."""
    together: dict[str, list[str]] = {}
    for answer in each.in_state(state):
        figure = "" if answer.figure is None else f"{_figure(answer.figure)} {answer.unit}, "
        together.setdefault(f"{figure}{answer.words}", []).append(answer.need)
    return "\n".join(f"{', '.join(needs)}: {words}" for words, needs in together.items()) or NO_FIGURE


def _speed(each: Judged) -> str:
    words = [f"{_figure(median(each.ops_per_s))} calls/s"] if each.ops_per_s else []
    if each.p99_us:
        words.append(f"p99 {_figure(median([value / 1e3 for value in each.p99_us]))} ms, {each.kind} time")
    return "\n".join(words) or NO_FIGURE


def _figure(found: Estimate) -> str:
    return estimate(found, lambda value: count(value) if value >= 100 else f"{value:.3g}")
