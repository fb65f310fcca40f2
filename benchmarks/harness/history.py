"""What happened to every operation of a trial: one row each, as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BALANCE, DEPOSIT, WITHDRAW = 0, 1, 2
"""Codes of functions."""

OK, REJECTED, UNAVAILABLE, LOST, UNKNOWN = 0, 1, 2, 3, 4
"""Codes of fates: a receipt; no effect and final; no effect; no effect and the state is gone; may have happened."""


@dataclass(frozen=True)
class History:
    """Columns of equal length. Times are readings of one machine's `perf_counter_ns`."""

    client: Int64s
    number: Int64s
    """In the client's session: with `client`, the op id."""
    function: Int8s
    account: Int64s
    """Index into the workload's accounts."""
    amount: Int64s
    due_ns: Int64s
    """When it should have been sent: equal to `sent_ns` in a closed loop."""
    sent_ns: Int64s
    done_ns: Int64s
    fate: Int8s
    seq: Int64s
    balance: Int64s
    epoch: Int64s
    """The receipt; zeros where there is none."""

    def __len__(self) -> int:
        return len(self.client)

    def where(self, rows: Bools) -> Self:
        """The rows that are true."""
        return type(self)(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @classmethod
    def merged(cls, parts: list[Self]) -> Self:
        """One history of several clients' own."""
        return cls(
            **{column.name: np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)}
        )

    @property
    def is_change(self) -> Bools:
        """Rows of operations that change an account."""
        changes: Bools = self.function != BALANCE
        return changes
