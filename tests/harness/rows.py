"""Histories given row by row, by the columns that matter."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from benchmarks.harness.history import DEPOSIT, OK, History

_NARROW = {
    "keyed": np.bool_,
    **dict.fromkeys(("function", "fate", "reason"), np.int8),
    **dict.fromkeys(("process", "client", "attempt"), np.int16),
    **dict.fromkeys(("number", "account", "target", "seq", "target_seq"), np.int32),
}
_USUAL = {"amount": 1, "function": DEPOSIT, "fate": OK, "target": -1}


def row(**columns: int) -> dict[str, int]:
    """A row's columns. What is not given is of an acknowledged deposit of 1 to account 0 by client 0."""
    return columns


def history(*rows: dict[str, int]) -> History:
    """Each row is an operation of its own unless it has a number."""

    def column(name: str) -> list[int]:
        if name == "number":
            return [each.get(name, place) for place, each in enumerate(rows)]
        if name == "due_ns":
            return [each.get(name, each["sent_ns"]) for each in rows]
        return [each.get(name, _USUAL.get(name, 0)) for each in rows]

    return History(
        **{each.name: np.array(column(each.name), _NARROW.get(each.name, np.int64)) for each in fields(History)}
    )
