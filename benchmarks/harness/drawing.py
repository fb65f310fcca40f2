"""Figures of matplotlib as SVG: the same bytes on every machine, readable without seeing them, safe side by side."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from xml.sax.saxutils import escape

from strategies.interface import Durability

LABEL_MAX = 44
"""Characters of a name that are shown beside a plot."""
MARKERS = "osD^vP*X<>"
COLOURS: Mapping[str, str] = {
    Durability.VOLATILE: "#7a8ba0",
    Durability.PROCESS_CRASH: "#3a7ca5",
    Durability.POWER_LOSS: "#1b4965",
    Durability.REPLICATED: "#2a9d8f",
}
"""By durability class; always beside the word."""
OTHER_COLOUR = "#bbbbbb"

_HASHED = re.compile(r'(?<=id=")[a-z][0-9a-f]{10}(?=")')
_LONG = re.compile(r"\d+\.\d{3,}(?=[^<>]*>)")
"""A number within a tag, which is a coordinate: processors round its last digits each in their own way."""
_FONTS = "'DejaVu Sans', Verdana, sans-serif"


@dataclass(frozen=True)
class Margins:
    """Around the axes, in inches. To let matplotlib find them takes several times as long as drawing."""

    left: float
    right: float
    bottom: float
    top: float = 0.1


@contextmanager
def drawn(
    width_in: float, height_in: float, rows: int = 1, columns: int = 1, margins: Margins | None = None
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, which are a grid if there are several. Without `margins`, matplotlib finds some.

    Text stays text: it is small, and can be searched. The reader's font may be another, of other widths: leave room.
    """
    import matplotlib

    settings: Any = {
        "svg.hashsalt": "dask-state-bench",
        "svg.fonttype": "none",
        "text.parse_math": False,  # names are the users', not formulas
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width_in, height_in), layout="constrained" if margins is None else None)
        grid = figure.subplots(rows, columns, squeeze=False)
        if margins is not None:
            figure.subplots_adjust(
                left=margins.left / width_in,
                right=1 - margins.right / width_in,
                bottom=margins.bottom / height_in,
                top=1 - margins.top / height_in,
            )
        yield figure, grid[0, 0] if (rows, columns) == (1, 1) else grid


def label(name: str) -> str:
    """With its middle left out where it is too long to stand beside a plot."""
    return name if len(name) <= LABEL_MAX else f"{name[: LABEL_MAX // 2 - 1]}…{name[-LABEL_MAX // 2 :]}"


def label_in(labels: Iterable[str], points: float = 8) -> float:
    """Room for the longest of these in inches, on the safe side, as the reader's font may be wide."""
    return max((min(len(each), LABEL_MAX) for each in labels), default=0) * points * 0.62 / 72 + 0.15


def svg(figure: Any, title: str, words: str) -> str:
    """As one element; `words` say what it shows to whoever cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    found = _renamed(_LONG.sub(lambda number: f"{float(number[0]):.2f}", text[text.index("<svg") :]))
    found = found.replace("'DejaVu Sans', 'Bitstream Vera Sans'", _FONTS)
    opening, bracket, rest = found.partition(">")
    described = f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
    quoted = escape(f"{title}. {words}", {'"': "&quot;"})
    return f'{opening} role="img" aria-label="{quoted}"{bracket}{described}{rest}'


def log_axes(*axes: Any) -> None:
    """Logarithmic axes with plain numbers, where the default writes powers as formulas, and without minor ticks."""
    from matplotlib.ticker import NullLocator

    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_locator(NullLocator())


def decades(values: Sequence[float]) -> tuple[float, float]:
    """Limits around these that hold a decade, so that an axis has a tick."""
    low, high = min(values), max(values)
    margin = 1.5 if high > 40 * low else 4
    return low / margin, high * margin


def _renamed(text: str) -> str:
    """Hashes in names are of what a figure is, floats' last digits included, and these differ by processor.

    Numbered names would be those of the next figure on a page too: the rest of the figure tells them apart.
    """
    names = list(dict.fromkeys(_HASHED.findall(text)))
    if not names:
        return text
    of_names = re.compile("|".join(names))
    digest = blake2b(of_names.sub("", text).encode(), digest_size=4).hexdigest()
    numbers = {name: f"{name[0]}{digest}{place}" for place, name in enumerate(names)}
    return of_names.sub(lambda found: numbers[found[0]], text)
