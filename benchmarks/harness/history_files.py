"""A trial's history as one file: what was opened, every call, and what the accounts held when all was over."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from benchmarks.harness.history import REASONS, TRANSFER, UNKNOWN, History
from benchmarks.harness.records import write_atomically
from strategies.interface import Receipt

FORMAT = 1
"""Rises when older code would misread the file."""

BYTES_MAX = 2 << 30
"""The most that a file may unpack to, unless told: twenty million operations."""

_MEMBER_BYTES_MAX = 64 << 20
"""The most that the accounts' names, or what is said about the trial, may take."""
_COMPRESSION = 1
"""Of zlib, which at its default took six times as long and saved 4 %."""
_SUFFIX = ".npy"
_CHUNK_BYTES = 1 << 20


class HistoryFileError(RuntimeError):
    """A file cannot be read as a history; the message says why."""


@dataclass(frozen=True)
class HistoryFile:
    """What is needed to judge a trial again."""

    history: History
    names: Sequence[str]
    """Of the accounts, by the history's numbers."""
    opening: int
    final: Mapping[str, Receipt] | None
    """The accounts' last receipts, without those that were lost; None if they could not be read."""
    about: Mapping[str, Any]
    """The trial, as JSON has it: cell, seed, fault, struck_ns, healed_ns, retry, commit, …"""


def save(path: Path, file: HistoryFile) -> None:
    """Write it all, or nothing. It is an .npz of plain arrays; numpy can load it without pickle.

    Raises:
        ValueError: it holds what could not be read back.
        OSError: it cannot be written.
    """
    about = json.dumps(dict(file.about), allow_nan=False).encode()
    names = json.dumps(list(file.names)).encode()
    columns = {}
    for name, dtype in _dtypes().items():
        column = getattr(file.history, name)
        if column.dtype != dtype or column.ndim != 1:
            raise ValueError(f"the history's column {name} is {column.dtype}, not {dtype}")
        columns[name] = column[:1] if column.strides == (0,) else column
    members: dict[str, npt.NDArray[Any]] = {
        "format": np.array([FORMAT], np.int64),
        "rows": np.array([len(file.history)], np.int64),
        "opening": np.array([file.opening], np.int64),
        "about": np.frombuffer(about, np.uint8),
        "names": np.frombuffer(names, np.uint8),
        **columns,
    }
    if file.final is not None:
        receipts = [file.final.get(name) for name in file.names]
        members["final_present"] = np.array([receipt is not None for receipt in receipts], np.bool_)
        for place, part in enumerate(Receipt._fields):
            values = [0 if receipt is None else receipt[place] for receipt in receipts]
            members[f"final_{part}"] = np.array(values, np.int64)
    if (wrong := _out_of_range(file.history, len(file.names))) is not None:
        raise ValueError(wrong)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
        for name, array in members.items():
            # A fixed date: the same history gives the same file.
            entry = zipfile.ZipInfo(name + _SUFFIX, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry._compresslevel = _COMPRESSION  # type: ignore[attr-defined]
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    write_atomically(path, packed.getvalue())


def load(path: Path, bytes_max: int = BYTES_MAX) -> HistoryFile:
    """Read what `save` wrote. A column that was views of one value is so again.

    Raises:
        HistoryFileError: it cannot be read, is no history, is damaged, of a newer format, unpacks to more than
            `bytes_max`, or holds what no history can.
    """
    with _plain_failure(path), zipfile.ZipFile(path) as archive:
        members = _Members(path, archive, bytes_max)
        found = int(members.numbers("format", np.dtype(np.int64), 1)[0])
        if found > FORMAT:
            raise HistoryFileError(
                f"{path} has format {found} and this program reads up to {FORMAT}; read it with a newer version"
            )
        rows = members.rows()
        columns = {name: members.column(name, dtype, rows) for name, dtype in _dtypes().items()}
        names = members.document("names")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise HistoryFileError(f"{path} is no history: the accounts' names are not a list of strings")
        about = members.document("about")
        if not isinstance(about, dict):
            raise HistoryFileError(f"{path} is no history: what it says about the trial is not a JSON object")
        opening = int(members.numbers("opening", np.dtype(np.int64), 1)[0])
        final = members.final(names)
    history = History(**columns)
    if (wrong := _out_of_range(history, len(names))) is not None:
        raise HistoryFileError(f"{path} is damaged: {wrong}")
    return HistoryFile(history, names, opening, final, about)


@cache
def _dtypes() -> dict[str, np.dtype[Any]]:
    """Of the history's columns, as they are declared."""
    hints = get_type_hints(History)
    return {each.name: np.dtype(get_args(get_args(hints[each.name])[1])[0]) for each in fields(History)}


def _out_of_range(history: History, accounts: int) -> str | None:
    """What no history can hold, as a sentence."""
    lengths = {name: len(getattr(history, name)) for name in _dtypes()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return f"its columns differ in length: {listed}"
    is_transfer = history.function == TRANSFER
    for name, rows, low, high in (
        ("function", slice(None), 0, TRANSFER),
        ("fate", slice(None), 0, UNKNOWN),
        ("reason", slice(None), 0, len(REASONS) - 1),
        ("account", slice(None), 0, accounts - 1),
        ("target", is_transfer, 0, accounts - 1),
        ("target", ~is_transfer, -1, -1),
    ):
        column = getattr(history, name)[rows]
        wrong = column[(column < low) | (column > high)]
        if len(wrong):
            where = " of a transfer" if rows is is_transfer else ""
            return f"its column {name} holds {wrong[0]}{where}, which must be {low} to {high}"
    return None


class _Members:
    """The arrays of one file. Nothing is unpacked before its declared size is known to be right and bearable."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, bytes_max: int) -> None:
        self._path = path
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._bytes_max = bytes_max
        self._bear(sum(entry.file_size for entry in archive.infolist()))

    def _bear(self, size: int) -> None:
        if size > self._bytes_max:
            raise HistoryFileError(
                f"{self._path} would unpack to {size:,} bytes, and at most {self._bytes_max:,} are read; "
                "is it really a history?"
            )

    def numbers(self, name: str, dtype: np.dtype[Any], size: int | None) -> npt.NDArray[Any]:
        """One array of this type; with a size, of this length."""
        entry = self._entries.get(name + _SUFFIX)
        if entry is None:
            raise HistoryFileError(f"{self._path} is no history: it has no {name}")
        encrypted = entry.flag_bits & 1
        if encrypted or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise HistoryFileError(f"{self._path} is no history: it is packed in a way that this program does not use")
        with self._archive.open(entry) as member:
            version = np.lib.format.read_magic(member)
            if version != (1, 0):
                raise HistoryFileError(f"{self._path} is no history: its {name} is not as this program writes it")
            shape, _, found = np.lib.format.read_array_header_1_0(member)
            if found != dtype or len(shape) != 1:
                raise HistoryFileError(f"{self._path} is no history: its {name} is {found}{list(shape)}, not {dtype}")
            if size is not None and shape[0] != size:
                raise HistoryFileError(f"{self._path} is damaged: its {name} has {shape[0]} values, not {size}")
            if shape[0] * dtype.itemsize != entry.file_size - member.tell():
                raise HistoryFileError(f"{self._path} is damaged: its {name} is not as long as it says")
            array = np.empty(shape, dtype)
            into, at = array.view(np.uint8), 0
            while chunk := member.read(_CHUNK_BYTES):
                into[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
                at += len(chunk)
        return array

    def rows(self) -> int:
        """How many the history has. What one value stands for will be unpacked too, where it is looked at."""
        rows = int(self.numbers("rows", np.dtype(np.int64), 1)[0])
        if rows < 0:
            raise HistoryFileError(f"{self._path} is damaged: it says that it has {rows} rows")
        self._bear(rows * sum(dtype.itemsize for dtype in _dtypes().values()))
        return rows

    def column(self, name: str, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
        """A column of the history. One value stands for all."""
        found = self.numbers(name, dtype, None)
        if len(found) == 1 and rows > 1:
            return np.broadcast_to(found[0], (rows,))
        if len(found) != rows:
            raise HistoryFileError(
                f"{self._path} is damaged: its columns differ in length, {name} has {len(found)} of {rows} rows"
            )
        return found

    def document(self, name: str) -> Any:
        """JSON."""
        entry = self._entries.get(name + _SUFFIX)
        if entry is not None and entry.file_size > _MEMBER_BYTES_MAX:
            raise HistoryFileError(f"{self._path} is no history: its {name} takes {entry.file_size:,} bytes")
        text = self.numbers(name, np.dtype(np.uint8), None).tobytes()
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HistoryFileError(f"{self._path} is damaged: its {name} is not JSON") from error

    def final(self, names: Sequence[str]) -> dict[str, Receipt] | None:
        """The accounts' last receipts."""
        if "final_present" + _SUFFIX not in self._entries:
            return None
        present = self.numbers("final_present", np.dtype(np.bool_), len(names))
        columns = [self.numbers(f"final_{part}", np.dtype(np.int64), len(names)).tolist() for part in Receipt._fields]
        return {
            name: Receipt(*receipt)
            for name, there, *receipt in zip(names, present.tolist(), *columns, strict=True)
            if there
        }


@contextmanager
def _plain_failure(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of headers that it had to mend
            yield
    except FileNotFoundError as error:
        raise HistoryFileError(f"there is no file {path}") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, Warning) as error:
        begins = path.read_bytes()[:4] if path.is_file() else b""
        raise HistoryFileError(f"{path} is {'damaged' if begins.startswith(b'PK') else 'no history'}") from error
    except OSError as error:
        raise HistoryFileError(f"{path} cannot be read: {error.strerror or error}") from error
