"""A client's operations in a file that outlives it: written before each call and after it, read when it is dead.

The file is mapped into memory, so what a client wrote is there after a SIGKILL. Sent by value to processes that cannot
import the ruler, so it imports nothing of the ruler's but `history`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import numpy as np
import numpy.typing as npt

from benchmarks.harness import history
from benchmarks.harness.history import NEVER_NS, OK, UNKNOWN, History
from strategies.interface import Receipt

_ROW = np.dtype(
    [
        ("begun", np.bool_),
        ("client", np.int16),
        ("number", np.int32),
        ("attempt", np.int16),
        ("keyed", np.bool_),
        ("function", np.int8),
        ("account", np.int32),
        ("target", np.int32),
        ("amount", np.int64),
        ("due_ns", np.int64),
        ("sent_ns", np.int64),
        ("done_ns", np.int64),
        ("fate", np.int8),
        ("reason", np.int8),
        ("seq", np.int32),
        ("balance", np.int64),
        ("epoch", np.int64),
        ("target_seq", np.int32),
        ("target_balance", np.int64),
        ("target_epoch", np.int64),
    ]
)
_RECEIPT, _TARGET_RECEIPT = ("seq", "balance", "epoch"), ("target_seq", "target_balance", "target_epoch")
_SUFFIX = ".rows"
_OVER = "over"


class Journal:
    """One client's, of one life: when it is run again, it begins another."""

    def __init__(self, directory: str, client: int, capacity: int) -> None:
        self.directory = directory
        self._client = client
        earlier = _files(directory, client)
        self.lives_before = len(earlier)
        """How often this client was begun before."""
        self.answered_before = -1
        """The highest number of an operation that was answered in earlier lives."""
        self._attempts_before: dict[int, int] = {}
        for path in earlier:
            rows = _begun_rows(path)
            for number in rows["number"].tolist():
                self._attempts_before[number] = self._attempts_before.get(number, 0) + 1
            answered = rows["number"][rows["done_ns"] != NEVER_NS]
            self.answered_before = max(self.answered_before, int(answered.max(initial=-1)))
        with _new_file(directory, client, self.lives_before) as file:
            file.truncate(capacity * _ROW.itemsize)
            self._rows = np.memmap(file, mode="r+", dtype=_ROW, shape=(capacity,))
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be written."""
        return self._size == len(self._rows)

    def attempts(self, number: int) -> int:
        """How often the operation was sent in earlier lives."""
        return self._attempts_before.get(number, 0)

    def begin(
        self,
        number: int,
        attempt: int,
        keyed: bool,
        operation: tuple[int, int, int, int],
        due_ns: int,
        sent_ns: int,
    ) -> int:
        """Write down that the operation (function, account, target, amount) will be sent now; returns its row."""
        row = self._size
        receipts = (0, 0, 0, 0, 0, 0)
        values = (self._client, number, attempt, keyed, *operation, due_ns, sent_ns, NEVER_NS, UNKNOWN, 0, *receipts)
        self._rows[row] = (False, *values)
        self._rows["begun"][row] = True
        self._size = row + 1
        return row

    def answered(self, row: int, answer: Receipt | tuple[Receipt, Receipt], done_ns: int) -> None:
        """Write down a call's receipts."""
        receipt: Any = answer
        if isinstance(receipt[0], tuple):
            receipt, targets = receipt
            self._set(row, _TARGET_RECEIPT, targets)
        self._set(row, _RECEIPT, receipt)
        self._rows["fate"][row] = OK
        self._rows["done_ns"][row] = done_ns

    def failed(self, row: int, fate: int, reason: int, done_ns: int) -> None:
        """Write down that a call raised."""
        self._rows["fate"][row], self._rows["reason"][row] = fate, reason
        self._rows["done_ns"][row] = done_ns

    def _set(self, row: int, columns: Sequence[str], values: Sequence[int]) -> None:
        for column, value in zip(columns, values, strict=True):
            self._rows[column][row] = value


def _new_file(directory: str, client: int, life: int) -> BinaryIO:
    """A file of this life's own: Dask may begin a task again while its first life goes on, even in one process."""
    while True:  # ends: there are only so many lives
        try:
            return Path(directory, f"{client:05d}-{life:03d}-{os.getpid()}{_SUFFIX}").open("xb+")
        except FileExistsError:
            life += 1


def read(directory: str) -> History:
    """What all clients did in all their lives, by client, then in the order of sending."""
    parts, processes = [], []
    numbers: dict[tuple[str, str], int] = {}
    for file in _files(directory):
        _, life, pid = file.stem.split("-")
        rows = _begun_rows(file)
        parts.append(rows)
        processes.append(np.full(len(rows), numbers.setdefault((life, pid), len(numbers)), dtype=np.int16))
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=_ROW)
    order = np.lexsort((rows["sent_ns"], rows["client"]))
    rows = rows[order]
    columns: dict[str, Any] = {name: np.ascontiguousarray(rows[name]) for name in _ROW.names or () if name != "begun"}
    died = columns["done_ns"] == NEVER_NS  # perhaps while it wrote the rest down
    columns["fate"][died] = UNKNOWN
    for name in ("reason", *_RECEIPT, *_TARGET_RECEIPT):
        columns[name][died] = 0
    return History(process=np.concatenate([*processes, np.empty(0, np.int16)])[order], **columns)


def begun(directory: str) -> int:
    """How many clients were begun."""
    return len({file.name.split("-")[0] for file in _files(directory)})


def begun_again(directory: str) -> int:
    """How often a client was begun that had been begun before."""
    return sum(int(file.stem.split("-")[1]) > 0 for file in _files(directory))


def end(directory: str) -> None:
    """Tell all clients, wherever they run, to send nothing more."""
    Path(directory, _OVER).touch()


def ended(directory: str) -> bool:
    """Whether clients were told so."""
    return Path(directory, _OVER).exists()


def _files(directory: str, client: int | None = None) -> list[Path]:
    """In the order of clients, then of their lives."""
    return sorted(Path(directory).glob(f"{'*' if client is None else f'{client:05d}-*'}{_SUFFIX}"))


def _begun_rows(file: Path) -> npt.NDArray[Any]:
    # Not np.load: it parses a header, and CPython 3.11 fails when two threads parse at once (python/cpython#106905).
    rows = np.fromfile(file, dtype=_ROW)
    begun: npt.NDArray[Any] = rows[rows["begun"]]
    return begun


for _module in (sys.modules[__name__], history):
    cloudpickle.register_pickle_by_value(_module)
