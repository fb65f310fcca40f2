"""Histories are merged column by column, no wider than their clients recorded them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from benchmarks.harness.history import History
from tests.harness.histories import Op, deposit, history, read, transfer

WIDTHS = {
    "process": 2,
    "attempt": 2,
    "keyed": 1,
    "reason": 1,
    "client": 2,
    "number": 4,
    "function": 1,
    "account": 4,
    "target": 4,
    "fate": 1,
    "seq": 4,
    "target_seq": 4,
}
"""Bytes; of every other column, 8."""

PLAIN = [deposit(5, 2, 105, at=(0, 10)), read(2, 105, at=(11, 20))]
MOVES = [transfer(10, (3, 95), (2, 110), at=(21, 30))]


def columns(ops: list[Op]) -> dict[str, Any]:
    made = history(ops)
    return {column.name: getattr(made, column.name) for column in fields(History)}


def test_merging_keeps_order_and_width() -> None:
    merged = History.merged([columns(PLAIN), columns(MOVES), columns([])])
    assert len(merged) == 3
    assert merged.sent_ns.tolist() == [0, 11, 21]
    assert merged.target.tolist() == [-1, -1, 1]
    assert merged.target_seq.tolist() == [0, 0, 2]
    for column in fields(History):
        assert getattr(merged, column.name).itemsize == WIDTHS.get(column.name, 8), column.name


def test_merging_takes_the_columns_out_of_the_parts() -> None:
    """So that a part's column can be freed when it is merged: the most memory is one history and one column."""
    parts = [columns(PLAIN), columns(PLAIN)]
    History.merged(parts)
    assert parts == [{}, {}]


def test_receipts_of_targets_take_no_room_without_transfers() -> None:
    merged = History.merged([columns(PLAIN), columns(PLAIN)])
    assert merged.target_balance.strides == (0,)
    assert merged.target_balance.tolist() == [0, 0, 0, 0]


def test_rows_are_chosen_in_every_column() -> None:
    chosen = History.merged([columns(PLAIN), columns(MOVES)])
    chosen = chosen.where(chosen.is_change)
    assert chosen.amount.tolist() == [5, 10]
    assert {len(getattr(chosen, column.name)) for column in fields(History)} == {2}


def test_a_million_operations_take_at_most_100_mb() -> None:
    assert sum(np.dtype(getattr(history(MOVES), column.name).dtype).itemsize for column in fields(History)) <= 100
