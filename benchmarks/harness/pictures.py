"""A violation for people: the few rows that prove it and what went on around them, as SVG and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    NEVER_NS,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
    Int64s,
)

if TYPE_CHECKING:
    from benchmarks.harness.violations import Violation

ROWS_MAX = 24
"""Rows of a violation that are shown; the rest are counted."""
CONTEXT = 4
"""Rows around them that are shown too, unless told."""

_VERBS = {BALANCE: "balance", DEPOSIT: "deposit", WITHDRAW: "withdraw", TRANSFER: "transfer"}
_FATES = {UNAVAILABLE: "unavailable", LOST: "state lost", UNKNOWN: "unknown"}
_NAME_MAX = 24
"""Characters of an account's name that are shown: ids may have 256."""


@dataclass(frozen=True)
class _Bar:
    """One row, ready to be shown."""

    sent_ns: int
    done_ns: int
    lane: int
    """The client."""
    number: int
    attempt: int
    what: str
    offends: bool
    unknown: bool
    """Its effect may come after its end."""

    @property
    def never(self) -> bool:
        return self.done_ns == NEVER_NS


def _bars(violation: Violation, history: History, names: Sequence[str], context: int) -> list[_Bar]:
    """In the order in which they were sent."""
    mine = np.unique(np.array(violation.rows, np.int64)[:ROWS_MAX])
    shown = np.concatenate([mine, _around(mine, history, context)])
    shown = shown[np.lexsort((shown, history.sent_ns[shown]))].tolist()
    accounts = {int(history.account[row]) for row in shown}
    found = []
    for row in shown:
        what = _what(history, row, names)
        if len(accounts) > 1:
            what = f"{_name(names, int(history.account[row]))}: {what}"
        found.append(
            _Bar(
                sent_ns=int(history.sent_ns[row]),
                done_ns=int(history.done_ns[row]),
                lane=int(history.client[row]),
                number=int(history.number[row]),
                attempt=int(history.attempt[row]),
                what=what,
                offends=row in violation.rows,
                unknown=bool(history.fate[row] == UNKNOWN),
            )
        )
    return found


def _around(rows: Int64s, history: History, context: int) -> Int64s:
    """What helps to understand these rows.

    Other attempts of the same operations first; then, on the same accounts, the neighbours by seq; then by time.
    """
    if not len(rows):
        return rows
    accounts = np.unique(np.concatenate([history.account[rows], history.target[rows]]))
    accounts = accounts[accounts >= 0]
    same = np.zeros(len(history), np.bool_)
    for row in rows:
        same |= (history.client == history.client[row]) & (history.number == history.number[row])
    near = np.isin(history.account, accounts) | np.isin(history.target, accounts)
    candidates = np.setdiff1d(np.flatnonzero(same | near), rows)
    told = rows[history.fate[rows] == OK]
    seqs = history.seq[told].astype(np.int64)
    far = np.iinfo(np.int64).max
    by_seq = np.full(len(candidates), far)
    if len(seqs):
        distance = np.maximum(0, np.maximum(seqs.min() - history.seq[candidates], history.seq[candidates] - seqs.max()))
        answered = (history.fate[candidates] == OK) & np.isin(history.account[candidates], history.account[told])
        by_seq = np.where(answered, distance, far)
    begin, end = history.sent_ns[rows].min(), history.sent_ns[rows].max()
    by_time = np.maximum(begin - history.sent_ns[candidates], history.sent_ns[candidates] - end)
    order = np.lexsort((by_time, by_seq, ~same[candidates]))[:context]
    around: Int64s = candidates[order]
    return around


def _what(history: History, row: int, names: Sequence[str]) -> str:
    """Such as `deposit 7 → seq 9, 131`."""
    function, fate = int(history.function[row]), int(history.fate[row])
    asked = _VERBS[function]
    if function != BALANCE:
        asked += f" {history.amount[row]}"
    if function == TRANSFER:
        asked += f" to {_name(names, int(history.target[row]))}"
    if fate == OK:
        answer = f"seq {history.seq[row]}, {history.balance[row]}"
        if function == TRANSFER:
            answer += f" and seq {history.target_seq[row]}, {history.target_balance[row]}"
    elif fate == REJECTED:
        answer = REASONS[history.reason[row]] or "rejected"
    elif history.done_ns[row] == NEVER_NS:
        answer = "never returned"
    else:
        answer = _FATES[fate]
    return f"{asked} → {answer}"


def _name(names: Sequence[str], account: int) -> str:
    name = _plain(names[account])
    return name if len(name) <= _NAME_MAX else f"{name[: _NAME_MAX // 2]}…{name[1 - _NAME_MAX // 2 :]}"


def _plain(text: str) -> str:
    """Without what a terminal would obey and XML does not allow."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def _heading(violation: Violation) -> str:
    where = f" on {_plain(violation.account)}" if violation.account else ""
    return f"{violation.kind}{where}"


def _ranks(bars: Sequence[_Bar]) -> list[int]:
    """Every instant at which something was sent or came back, in order."""
    return sorted({bar.sent_ns for bar in bars} | {bar.done_ns for bar in bars if not bar.never})


def _ms(at_ns: int, start_ns: int) -> str:
    return f"{(at_ns - start_ns) / 1e6:,.3f}"


def _left_out(violation: Violation) -> str | None:
    more = len(set(violation.rows)) - ROWS_MAX
    return f"and {more} more rows" if more > 0 else None


# -- text ------------------------------------------------------------------------------------------

_CHART_MAX = 48


def in_words(violation: Violation, history: History, names: Sequence[str], context: int = CONTEXT) -> str:
    """For a terminal: a line for each row, in ms since the first was sent; `>` marks those that prove it.

    The bars keep the order of calls and answers, not their distances.
    """
    bars = _bars(violation, history, names, context)
    lines = textwrap.wrap(f"{_heading(violation)}: {_plain(violation.words)}", 100)
    if bars:
        ranks = _ranks(bars)
        width = min(_CHART_MAX, 2 * len(ranks))
        column = {at: round(rank * (width - 1) / max(1, len(ranks) - 1)) for rank, at in enumerate(ranks)}
        lines.append(f"  {'sent ms':>12} {'done ms':>12}  {'client':>6} {'call':>6}  {'':{width}}")
        for bar in bars:
            done = "-" if bar.never else _ms(bar.done_ns, ranks[0])
            begin, end = column[bar.sent_ns], width if bar.never else column[bar.done_ns]
            chart = " " * begin + ("|" + ("=" if bar.offends else "-") * (end - begin - 1))
            chart += ">" if bar.never else "|" * (end > begin)
            lines.append(
                f"{'>' if bar.offends else ' '} {_ms(bar.sent_ns, ranks[0]):>12} {done:>12}  {bar.lane:>6} "
                f"{'#' + str(bar.number):>6}  {chart:{width + 1}} {bar.what.replace('→', '->')}{_again(bar)}"
            )
    lines += [more] if (more := _left_out(violation)) else []
    return "\n".join(line.rstrip() for line in lines)


def _again(bar: _Bar) -> str:
    return f" (attempt {bar.attempt + 1})" if bar.attempt else ""


# -- picture ---------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT = 960, 96, 20
_ROW, _BAR, _LABEL_PX, _TICK_PX = 36, 11, 12, 10
_GLYPH = 0.58
"""Width of a sans-serif letter beside its height: on the safe side for digits and lower case."""
_GLYPH_BOLD = 0.64
_MARK = 14
"""Room for the mark of an offending row."""
_OFFENDING, _OTHER, _INK, _FAINT = "#D55E00", "#56B4E9", "#222222", "#dddddd"


@dataclass(frozen=True)
class _Placed:
    bar: _Bar
    begin: float
    end: float
    label: str
    label_at: float
    slot: int
    """Line within its lane."""


def picture(violation: Violation, history: History, names: Sequence[str], context: int = CONTEXT) -> str:
    """SVG: a lane for each client, a bar for each row from its call to its answer.

    Distances are not to scale, so that what lasted microseconds can be told from what came before it.
    """
    bars = _bars(violation, history, names, context)
    ranks = _ranks(bars)
    step = (_WIDTH - _LEFT - _RIGHT - _MARK) / max(1, len(ranks))
    at = {instant: _LEFT + 8 + rank * step for rank, instant in enumerate(ranks)}
    placed = _placed(bars, at)

    parts: list[str] = []
    title = textwrap.wrap(_plain(violation.words), 130) + ([more] if (more := _left_out(violation)) else [])
    parts.append(_text(12, 20, _heading(violation), size=14, weight="bold"))
    parts += [_text(12, 38 + 16 * place, line, size=_LABEL_PX) for place, line in enumerate(title)]
    top = y = 52 + 16 * len(title)
    for lane in dict.fromkeys(bar.lane for bar in bars):
        mine = [each for each in placed if each.bar.lane == lane]
        height = _ROW * (1 + max(each.slot for each in mine)) + 6
        parts.append(f'<rect x="0" y="{y}" width="{_WIDTH}" height="{height - 2}" fill="#f6f6f6"/>')
        parts.append(_text(12, y + 20, f"client {lane}", size=_LABEL_PX))
        y += height
    bottom, y = y, top
    ticks = [f'<path d="M{at[each]:.1f} {top}V{bottom}" stroke="{_FAINT}"/>' for each in ranks]
    parts += [*ticks, *_tick_labels(ranks, at, bottom)]
    for lane in dict.fromkeys(bar.lane for bar in bars):
        mine = [each for each in placed if each.bar.lane == lane]
        for each in mine:
            parts += _drawn(each, y + 4 + _ROW * each.slot)
        y += _ROW * (1 + max(each.slot for each in mine)) + 6
    parts += _legend(bars, bottom + 48)
    height = bottom + 62
    words = in_words(violation, history, names, context)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="DejaVu Sans, Verdana, sans-serif" fill="{_INK}">'
        f"<title>{escape(_heading(violation))}</title><desc>{escape(words)}</desc>"
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _placed(bars: Sequence[_Bar], at: dict[int, float]) -> list[_Placed]:
    """Bars of one client below each other where they, or their labels, would overlap."""
    free: dict[tuple[int, int], float] = {}
    found = []
    for bar in bars:
        begin = at[bar.sent_ns]
        end = _WIDTH - _RIGHT if bar.never else max(at[bar.done_ns], begin + 4)
        mark = _MARK if bar.offends else 0
        label, length = _fitted(bar.what + _again(bar), _WIDTH - _RIGHT - _LEFT - mark, bold=bar.offends)
        label_at = min(begin + mark, _WIDTH - _RIGHT - length)
        slot = 0
        while free.get((bar.lane, slot), 0) > min(begin, label_at - mark):
            slot += 1
        free[bar.lane, slot] = max(end, label_at + length) + 8
        found.append(_Placed(bar, begin, end, label, label_at, slot))
    return found


def _fitted(text: str, room: float, *, bold: bool) -> tuple[str, float]:
    """As much of a text as has room, and its length."""
    glyph = _LABEL_PX * (_GLYPH_BOLD if bold else _GLYPH)
    fits = int(room / glyph)
    text = text if len(text) <= fits else text[: fits - 1] + "…"
    return text, len(text) * glyph


def _drawn(each: _Placed, y: float) -> list[str]:
    bar, begin, end = each.bar, each.begin, each.end
    colour = _OFFENDING if bar.offends else _OTHER
    top, bottom = y + 17, y + 17 + _BAR
    style = f'fill="{colour}" fill-opacity="{0.25 if bar.unknown else 1}" stroke="{colour}" stroke-width="1.5"'
    dashes = ' stroke-dasharray="4 2"' if bar.unknown else ""
    if bar.never:
        tip = end - _BAR / 2
        shape = f"M{tip:.1f} {top}H{begin:.1f}V{bottom}H{tip:.1f}"
        arrow = f"M{tip - 4:.1f} {top - 3}L{end:.1f} {(top + bottom) / 2}L{tip - 4:.1f} {bottom + 3}"
        outline = [
            f'<path d="{shape}" {style}{dashes}/>',
            f'<path d="{arrow}" fill="none" stroke="{colour}" stroke-width="2"/>',
        ]
    else:
        outline = [f'<path d="M{begin:.1f} {top}H{end:.1f}V{bottom}H{begin:.1f}Z" {style}{dashes}/>']
    if bar.offends:
        outline.append(_diamond(each.label_at - _MARK + 5, y + 8))
    weight = "bold" if bar.offends else "normal"
    return [*outline, _text(each.label_at, y + 12, each.label, size=_LABEL_PX, weight=weight)]


def _tick_labels(ranks: Sequence[int], at: dict[int, float], bottom: float) -> list[str]:
    """Times of the instants, as many as have room."""
    found, free = [], 0.0
    for instant in ranks:
        label = _ms(instant, ranks[0])
        length = len(label) * _TICK_PX * _GLYPH
        begin = max(0.0, at[instant] - length / 2)
        if begin >= free and begin + length <= _WIDTH:
            found.append(_text(begin, bottom + 14, label, size=_TICK_PX))
            free = begin + length + 6
    unit = "ms since the first of these calls, not to scale"
    return [*found, _text(_LEFT, bottom + 30, unit, size=_TICK_PX)] if found else []


def _legend(bars: Sequence[_Bar], y: float) -> list[str]:
    keys = []
    if any(bar.offends for bar in bars):
        keys.append(("proves it", f'{_diamond(-8, -4)}<rect y="-9" width="20" height="9" fill="{_OFFENDING}"/>'))
    if any(not bar.offends for bar in bars):
        keys.append(("shown beside it", f'<rect y="-9" width="20" height="9" fill="{_OTHER}"/>'))
    if any(bar.unknown and not bar.never for bar in bars):
        dashed = 'fill="none" stroke-width="1.5" stroke-dasharray="4 2"'
        keys.append(("its caller was not told", f'<rect y="-9" width="20" height="9" stroke="{_INK}" {dashed}/>'))
    if any(bar.never for bar in bars):
        arrow = f'<path d="M0 -9H16M0 0H16M0 -9V0M13 -11L20 -4.5L13 2" fill="none" stroke="{_INK}" stroke-width="1.5"/>'
        keys.append(("never returned", arrow))
    found, x = [], float(_LEFT)
    for words, shape in keys:
        found.append(f'<g transform="translate({x:.1f} {y})">{shape}{_text(26, 0, words, size=11)}</g>')
        x += 26 + len(words) * 11 * _GLYPH + 30
    return found


def _diamond(x: float, y: float) -> str:
    return f'<path d="M{x - 5:.1f} {y}L{x:.1f} {y - 5}L{x + 5:.1f} {y}L{x:.1f} {y + 5}Z" fill="{_OFFENDING}"/>'


def _text(x: float, y: float, text: str, *, size: int, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
