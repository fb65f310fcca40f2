"""The columns of the book's comparison, and which strategies stand in each: what they need decides."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cache

from strategies.interface import Resource, load, names


class Column(StrEnum):
    """Where the state is, as the book has it."""

    LOCAL = "Local state"
    ACTORS = "Dask actors"
    EXTERNAL = "External state"


IN_DASK = frozenset({Resource.DASK, Resource.SCHEDULER})
"""What a strategy needs whose state is in a Dask cluster."""


def column_of(needs: Iterable[str]) -> Column | None:
    """Of a strategy that needs these resources: nothing, Dask workers alone, or a server or files as well.

    None where Dask's scheduler holds the state: the book compares no such strategy.
    """
    needed = set(needs)
    if not needed:
        return Column.LOCAL
    if needed <= IN_DASK:
        return Column.ACTORS if needed == {Resource.DASK} else None
    return Column.EXTERNAL


@cache
def column_of_row(strategy: str, variant: str) -> Column | None:
    """None, too, of a strategy that is not in this repository: what it needs is not known here."""
    if strategy not in names() or variant not in load(strategy).capabilities.variants:
        return None
    return column_of(load(strategy).claims(variant).needs)
