"""What happened to every operation of a trial: one row each, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BALANCE, DEPOSIT, WITHDRAW, TRANSFER = 0, 1, 2, 3
"""Codes of functions."""

OK, REJECTED, UNAVAILABLE, LOST, UNKNOWN = 0, 1, 2, 3, 4
"""Codes of fates: a receipt; no effect and final; no effect; no effect and the state is gone; may have happened."""

NEVER_NS = np.iinfo(np.int64).max
"""`done_ns` of an operation that never returned: its caller died first."""

REASONS = (
    "",
    "UnknownAccount",
    "AccountExists",
    "InsufficientFunds",
    "InvalidAmount",
    "OperationMismatch",
    "OperationExpired",
    "InvalidAccount",
    "OutOfScope",
    "Rejected",
)
"""Names of errors, by the code that a rejection has in the column `reason`."""


@dataclass(frozen=True)
class History:
    """One row for each time that an operation was sent. Times are readings of one machine's `perf_counter_ns`.

    As narrow as their values allow: a million operations take at most 100 MB, while they are recorded too. A column
    may be a view of one value.
    """

    process: Int16s
    """Of the caller. What runs again after a death counts as another process."""
    client: Int16s
    number: Int32s
    """Of the operation among its client's: with `client`, the op id."""
    attempt: Int16s
    """How often the operation had been sent before."""
    keyed: Bools
    """Whether the op id was sent along: with it, all attempts together may have one effect; without, each may."""
    function: Int8s
    account: Int32s
    """Index into the workload's accounts; of a transfer, the source."""
    target: Int32s
    """Of a transfer; -1 elsewhere."""
    amount: Int64s
    due_ns: Int64s
    """When it should have been sent: `sent_ns` in a closed loop."""
    sent_ns: Int64s
    done_ns: Int64s
    """`NEVER_NS` where nobody lived to see the answer."""
    fate: Int8s
    reason: Int8s
    """Of a rejection: index into `REASONS`; 0 elsewhere."""
    seq: Int32s
    balance: Int64s
    epoch: Int64s
    """The receipt, of a transfer the source's; zeros where there is none."""
    target_seq: Int32s
    target_balance: Int64s
    target_epoch: Int64s
    """The target's receipt; zeros where there is none. Without any transfer, views of one zero."""

    def __len__(self) -> int:
        return len(self.client)

    def where(self, rows: Bools) -> Self:
        """The rows that are true."""
        return type(self)(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @classmethod
    def merged(cls, parts: Sequence[dict[str, Any]]) -> Self:
        """One history of several clients' own columns, which are taken out of `parts` as they are merged."""
        merged: dict[str, Any] = {}
        for column in fields(cls):
            merged[column.name] = _concatenated([part.pop(column.name) for part in parts])
        return cls(**merged)

    @classmethod
    def concatenated(cls, histories: Sequence[Self]) -> Self:
        """One history of several loads, in their order."""
        if len(histories) == 1:
            return histories[0]
        return cls(
            **{
                column.name: np.concatenate([getattr(each, column.name) for each in histories])
                for column in fields(cls)
            }
        )

    @property
    def is_change(self) -> Bools:
        """Rows of operations that change an account."""
        changes: Bools = self.function != BALANCE
        return changes


def _concatenated(columns: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """One column; views of one value stay one."""
    if len(columns) == 1:
        return columns[0]
    first = columns[0][:1]
    if len(first) and all(column.strides == (0,) and len(column) and column[0] == first[0] for column in columns):
        return np.broadcast_to(first[0], (sum(map(len, columns)),))
    return np.concatenate(columns)
