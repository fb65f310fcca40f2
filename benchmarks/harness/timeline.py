"""Availability over time: what callers were told in each tenth of a second, goodput and gaps around a fault, as SVG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from benchmarks.harness.history import (
    LOST,
    NEVER_NS,
    OK,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    Bools,
    History,
    Int64s,
)

KINDS = {"acknowledged": OK, "rejected": REJECTED, "unknown": UNKNOWN, "unavailable": UNAVAILABLE, "state lost": LOST}
"""What a caller can be told, in the order in which it is drawn."""

BIN_S = 0.1
BINS_MAX = 100_000
"""A timeline of almost three hours."""

DURING_MIN_S = 1.0
"""A blow that needs no remedy is over at once, and what it does to callers is not: so long it counts as going on."""


@dataclass(frozen=True)
class Timeline:
    """Answers by the time at which callers got them. An attempt each."""

    bin_s: float
    counts: dict[str, Int64s]
    """By kind: how many in each bin, the first of which begins at the start."""
    fault_s: tuple[float, float] | None = None
    """When the fault struck and when it was healed, from the start."""

    def __len__(self) -> int:
        return len(next(iter(self.counts.values())))


def timeline(
    history: History,
    start_ns: int,
    fault_ns: tuple[int, int] | None = None,
    *,
    end_ns: int | None = None,
    bin_s: float = BIN_S,
) -> Timeline:
    """From `start_ns` to `end_ns`, when the load was to end; else to the last answer.

    `fault_ns` is when the fault struck and when it was healed.

    What never returned counts as unknown when it was sent: the last that is known of it. When an operation that was
    acknowledged before is sent again, as an audit does, its answer does not count.

    Raises:
        ValueError: that would be more than `BINS_MAX` bins.
    """
    at_ns = _told_ns(history)
    if end_ns is None:
        end_ns = int(at_ns.max(initial=start_ns)) + 1
    bins = max(1, int(np.ceil((end_ns - start_ns) / (bin_s * 1e9))))
    if bins > BINS_MAX:
        raise ValueError(f"a timeline has at most {BINS_MAX} bins, and this would have {bins}; choose a longer bin_s")
    place = (at_ns - start_ns) // int(bin_s * 1e9)
    counted = (place >= 0) & (place < bins) & ~_acknowledged_before(history)
    counts = {
        kind: np.bincount(place[counted & (history.fate == fate)], minlength=bins) for kind, fate in KINDS.items()
    }
    fault_s = None if fault_ns is None else ((fault_ns[0] - start_ns) / 1e9, (fault_ns[1] - start_ns) / 1e9)
    return Timeline(bin_s, counts, fault_s)


def _told_ns(history: History) -> Int64s:
    told_ns: Int64s = np.where(history.done_ns == NEVER_NS, history.sent_ns, history.done_ns)
    return told_ns


def _operation(history: History) -> Int64s:
    """One number for each (client, number)."""
    found: Int64s = (history.client.astype(np.int64) << 32) | history.number
    return found


def _acknowledged_before(history: History) -> Bools:
    """Acknowledgements of operations that had been acknowledged."""
    rows = np.flatnonzero(history.fate == OK)
    order = rows[np.lexsort((history.done_ns[rows], _operation(history)[rows]))]
    again = np.zeros(len(history), np.bool_)
    again[order[1:]] = np.diff(_operation(history)[order]) == 0
    return again


# -- figures ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What one fault did to the flow of acknowledgements. How long it was felt is told by `statistics.outage`."""

    goodput_before_per_s: float | None
    """Acknowledged operations per second, from the start to the blow. None if there was no such time."""
    goodput_during_per_s: float | None
    """From the blow to its remedy, at least `DURING_MIN_S`."""
    goodput_after_per_s: float | None
    """From then to the end of the load."""
    gap_max_s: float
    """The longest time between two acknowledgements to anybody, from the start to the end of the load."""
    gap_max_s_by_account: dict[int, float]
    """The same of each account that was asked: an account is the finest shard there can be."""
    unknown_share: float | None
    """Of all operations, those of which the caller never learnt whether they happened. Told in the end by an answer
    to the same op id, it has learnt; told of another attempt without one, it has not."""

    @property
    def account_gap_max_s(self) -> float:
        """The longest gap of any account."""
        return max(self.gap_max_s_by_account.values(), default=0.0)


def figures(
    history: History, struck_ns: int, healed_ns: int, *, start_ns: int | None = None, end_ns: int | None = None
) -> Figures:
    """Of a history around a fault. The load goes from when its first operation was due to when its last one was.

    Give `end_ns` where callers may have died early: their silence counts then.
    """
    first = history.where(history.attempt == 0)  # an audit sends again what is long over
    if start_ns is None:
        start_ns = int(first.due_ns.min(initial=struck_ns))
    if end_ns is None:
        end_ns = max(start_ns, int(first.due_ns.max(initial=struck_ns)))
    acknowledged = (history.fate == OK) & ~_acknowledged_before(history)
    done_ns = np.sort(history.done_ns[acknowledged])
    over_ns = max(healed_ns, struck_ns + int(DURING_MIN_S * 1e9))

    def goodput(begin_ns: int, stop_ns: int) -> float | None:
        stop_ns = min(stop_ns, end_ns)
        if stop_ns <= begin_ns:
            return None
        within = np.diff(np.searchsorted(done_ns, [begin_ns, stop_ns]))[0]
        return float(within / (stop_ns - begin_ns) * 1e9)

    return Figures(
        goodput_before_per_s=goodput(start_ns, struck_ns),
        goodput_during_per_s=goodput(struck_ns, over_ns),
        goodput_after_per_s=goodput(over_ns, end_ns),
        gap_max_s=_gap_max_s(done_ns, start_ns, end_ns),
        gap_max_s_by_account=_gaps_by_account(history, acknowledged, start_ns, end_ns),
        unknown_share=_unknown_share(history),
    )


def _gap_max_s(done_ns: Int64s, start_ns: int, end_ns: int) -> float:
    within = done_ns[(done_ns > start_ns) & (done_ns < end_ns)]
    return int(np.diff(within, prepend=start_ns, append=end_ns).max()) / 1e9


def _gaps_by_account(history: History, acknowledged: Bools, start_ns: int, end_ns: int) -> dict[int, float]:
    transfers = history.function == TRANSFER
    account = np.concatenate([history.account, history.target[transfers]])
    counted = np.concatenate([acknowledged, acknowledged[transfers]])
    done_ns = np.concatenate([history.done_ns, history.done_ns[transfers]])
    order = np.lexsort((done_ns, account))
    account, counted, done_ns = account[order], counted[order], done_ns[order]
    asked, begins = np.unique(account, return_index=True)
    edges = pairwise(np.append(begins, len(account)).tolist())
    return {
        int(number): _gap_max_s(done_ns[begin:end][counted[begin:end]], start_ns, end_ns)
        for number, (begin, end) in zip(asked, edges, strict=True)
    }


def _unknown_share(history: History) -> float | None:
    if not len(history):
        return None
    operation = np.unique(_operation(history), return_inverse=True)[1]
    size = int(operation.max()) + 1
    unknown = np.bincount(operation[history.fate == UNKNOWN], minlength=size) > 0
    answered = history.keyed & ((history.fate == OK) | (history.fate == REJECTED))
    told = np.bincount(operation[answered], minlength=size) > 0
    return float((unknown & ~told).mean())


# -- pictures --------------------------------------------------------------------------------------

_STYLES = {
    "acknowledged": ("#0072B2", "", "white"),
    "rejected": ("#F0E442", "\\\\\\\\", "#333333"),
    "unknown": ("#E69F00", "////", "white"),
    "unavailable": ("#CC79A7", "xxxx", "white"),
    "state lost": ("#000000", "----", "white"),
}
"""Colours that the colour-blind tell apart; a hatching each, and its colour. Dotted ones make files large."""

_FAULT = "#d9d9d9"
_TITLE_WIDTH = 110
_WIDTH_IN, _PANEL_IN, _MARGIN_IN = 8.0, 1.15, 1.0


@dataclass(frozen=True)
class Panel:
    """One timeline under a title, such as a strategy's name."""

    title: str
    timeline: Timeline


def picture(panels: Sequence[Panel], title: str) -> str:
    """SVG of timelines below each other, on one scale. Its text alternative says in words what each shows."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    settings: Any = {"svg.hashsalt": "dask-state-bench", "text.parse_math": False, "hatch.linewidth": 0.6}
    bin_s = max((panel.timeline.bin_s for panel in panels), default=BIN_S)
    end_s = max((len(panel.timeline) * panel.timeline.bin_s for panel in panels), default=1.0)
    shown = [kind for kind in KINDS if any(panel.timeline.counts[kind].any() for panel in panels)]
    rows = max(1, len(panels))
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH_IN, _MARGIN_IN + _PANEL_IN * rows), layout="constrained")
        grid = figure.subplots(rows, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel)
        grid[0].set_xlim(0, end_s)
        grid[0].yaxis.set_major_locator(MaxNLocator(3, integer=True))
        grid[-1].set_xlabel("seconds since the load began", fontsize=8)
        figure.supylabel(f"answers per {bin_s * 1e3:,.6g} ms", fontsize=8)
        figure.suptitle(textwrap.fill(title, _TITLE_WIDTH), fontsize=9)
        keys = [_patch(Patch, kind) for kind in shown]
        if any(panel.timeline.fault_s for panel in panels):
            keys.append(Patch(facecolor=_FAULT, edgecolor="#333333", linestyle="--", label="fault, until healed"))
        if keys:
            figure.legend(handles=keys, fontsize=8, loc="outside lower center", ncols=len(keys), frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _described(buffer.getvalue(), title, [in_words(panel) for panel in panels])


def _patch(patch: Any, kind: str) -> Any:
    colour, hatch, hatch_colour = _STYLES[kind]
    return patch(facecolor=colour, hatch=hatch, edgecolor=hatch_colour, linewidth=0, label=kind)


def in_words(panel: Panel) -> str:
    """What a timeline shows, for whoever cannot see it."""
    line = panel.timeline
    totals = ", ".join(f"{int(count.sum()):,} {kind}" for kind, count in line.counts.items() if count.any())
    words = f"{panel.title}: {totals or 'no answers'} in {len(line) * line.bin_s:.1f} s"
    if line.fault_s is not None:
        words += f"; the fault struck after {line.fault_s[0]:.2f} s and was healed after {line.fault_s[1]:.2f} s"
    silent = _longest_run(line.counts["acknowledged"] == 0)
    if silent is not None:
        begin, length = silent
        words += f"; nothing was acknowledged for {length * line.bin_s:.1f} s from {begin * line.bin_s:.1f} s on"
    return words + "."


def _longest_run(flags: Bools) -> tuple[int, int] | None:
    """Where the longest run of true begins, and its length."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    if not len(edges):
        return None
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int((ends - begins)[longest])


def _draw(axes: Any, panel: Panel) -> None:
    line = panel.timeline
    edges = np.arange(len(line) + 1) * line.bin_s
    below = np.zeros(len(line), np.int64)
    if line.fault_s is not None:
        struck_s, healed_s = line.fault_s
        axes.axvspan(struck_s, max(struck_s, healed_s), color=_FAULT, lw=0, zorder=0)
        axes.axvline(struck_s, color="#333333", lw=1, ls="--", zorder=3)
    for kind, count in line.counts.items():
        if count.any():
            colour, hatch, hatch_colour = _STYLES[kind]
            above = axes.stairs(below + count, edges, baseline=below, fill=True, facecolor=colour, lw=0)
            above.set(hatch=hatch, edgecolor=hatch_colour)
            below = below + count
    axes.set_title(textwrap.shorten(panel.title, _TITLE_WIDTH, placeholder="…"), fontsize=8, loc="left", pad=2)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _described(svg: str, title: str, words: Sequence[str]) -> str:
    """With a title and a description, which screen readers read out."""
    opening, bracket, rest = svg[svg.index("<svg") :].partition(">")
    text = f"<title>{escape(title)}</title><desc>{escape(' '.join(words))}</desc>"
    return f'{opening} role="img"{bracket}{text}{rest}'
