"""A history comes back as it was, or a sentence says why not."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.harness import history_files
from benchmarks.harness.history import NEVER_NS, TRANSFER, UNKNOWN, History
from benchmarks.harness.history_files import HistoryFile, HistoryFileError, load, save
from strategies.interface import Receipt
from tests.harness.rows import history, row

ROWS = history(
    row(sent_ns=1, done_ns=5, seq=2, balance=101, epoch=7, keyed=1),
    row(sent_ns=2, done_ns=NEVER_NS, fate=UNKNOWN, client=3, account=1),
    row(sent_ns=3, done_ns=9, function=TRANSFER, target=1, seq=3, balance=100, target_seq=2, target_balance=101),
)
FILE = HistoryFile(
    ROWS, ["a", "späť\n"], 100, {"a": Receipt(3, 100, 7)}, {"fault": "worker_kill", "struck_ns": NEVER_NS, "seed": None}
)


def columns(rows: History) -> dict[str, npt.NDArray[Any]]:
    return {each.name: getattr(rows, each.name) for each in fields(rows)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trial.npz"
    save(path, FILE)
    return path


def rewritten(path: Path, **members: bytes | npt.NDArray[Any] | None) -> Path:
    """With members changed, or left out."""
    with zipfile.ZipFile(path) as archive:
        held: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in (held | {f"{name}.npy": value for name, value in members.items()}).items():
            if isinstance(value, np.ndarray):
                array = io.BytesIO()
                np.lib.format.write_array(array, value)
                value = array.getvalue()
            if value is not None:
                archive.writestr(name, value)
    return path


def test_a_history_comes_back_as_it_was(path: Path) -> None:
    found = load(path)
    assert found.names == FILE.names
    assert found.opening == 100
    assert found.final == FILE.final
    assert found.about == FILE.about
    for name, column in columns(found.history).items():
        assert column.dtype == columns(ROWS)[name].dtype, name
        assert column.tolist() == columns(ROWS)[name].tolist(), name
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_accounts_that_could_not_be_read_are_not_accounts_that_were_lost(path: Path) -> None:
    for final in (None, {}):
        save(path, replace(FILE, final=final))
        assert load(path).final == final


def test_a_column_of_one_value_takes_no_more_room_when_it_is_back(path: Path) -> None:
    size = 100_000
    rows = History(**{name: np.broadcast_to(column[:1].reshape(()), (size,)) for name, column in columns(ROWS).items()})
    save(path, replace(FILE, history=rows))
    assert path.stat().st_size < 20_000
    for name, column in columns(load(path).history).items():
        assert column.strides == (0,), name
        assert len(column) == size, name
        assert column[size - 1] == columns(ROWS)[name][0], name


@pytest.mark.parametrize("size", [0, 1])
def test_few_rows(path: Path, size: int) -> None:
    rows = ROWS.where(np.arange(len(ROWS)) < size)
    save(path, replace(FILE, history=rows))
    assert len(load(path).history) == size


def test_the_same_history_gives_the_same_file(path: Path, tmp_path: Path) -> None:
    save(tmp_path / "again.npz", FILE)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_numpy_reads_it_without_pickle(path: Path) -> None:
    with np.load(path, allow_pickle=False) as members:
        assert members["done_ns"].tolist() == ROWS.done_ns.tolist()
        assert json.loads(members["names"].tobytes()) == FILE.names


# -- trouble ---------------------------------------------------------------------------------------


def assert_refused(path: Path, *words: str, **limits: int) -> None:
    with pytest.raises(HistoryFileError) as caught:
        load(path, **limits)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message.replace(str(path), "")
    for word in words:
        assert word in message


def test_no_such_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere.npz", "there is no file")
    assert_refused(tmp_path, "cannot be read", "directory")


@pytest.mark.parametrize("content", [b"", b"strategy,ops\n", b"\x93NUMPY" + bytes(100)])
def test_what_is_no_history(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_refused(path, "is no history")


def test_another_archive_is_no_history(path: Path) -> None:
    np.savez(path, samples=np.arange(3))
    assert_refused(path, "is no history", "format")


def test_every_truncation_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(4, len(whole), 97):
        path.write_bytes(whole[:length])
        assert_refused(path, "damaged")


def test_every_flipped_byte_of_the_data_is_noticed_or_harmless(path: Path) -> None:
    """Names, sizes and dates in the archive's own headers may differ without a difference in what is read."""
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 29):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = load(path)
        except HistoryFileError:
            refused += 1
        else:
            assert found.about == FILE.about
            assert all((columns(found.history)[name] == column).all() for name, column in columns(ROWS).items())
    assert refused > 50


def test_a_newer_format_is_named(path: Path) -> None:
    assert_refused(rewritten(path, format=np.array([9])), "format 9", "newer version")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("client", None, "has no client"),
        ("client", np.zeros(2, np.int16), "client has 2 of 3 rows"),
        ("client", np.zeros(3, np.int64), "client is int64"),
        ("client", np.zeros((3, 1), np.int16), "client is int16[3, 1]"),
        ("fate", np.array([0, 5, 0], np.int8), "fate holds 5, which must be 0 to 4"),
        ("function", np.array([-1, 0, 3], np.int8), "function holds -1, which must be 0 to 3"),
        ("reason", np.array([0, 0, 99], np.int8), "reason holds 99"),
        ("account", np.array([0, 2, 0], np.int32), "account holds 2, which must be 0 to 1"),
        ("target", np.array([-1, -1, -1], np.int32), "target holds -1 of a transfer"),
        ("target", np.array([1, -1, 1], np.int32), "target holds 1, which must be -1 to -1"),
        ("rows", np.array([-1]), "-1 rows"),
        ("names", np.frombuffer(b'["a", 2]', np.uint8), "not a list of strings"),
        ("names", np.frombuffer(b'["a"', np.uint8), "names is not JSON"),
        ("about", np.frombuffer(b"[]", np.uint8), "not a JSON object"),
        ("about", np.frombuffer(b"[" * 100_000, np.uint8), "about is not JSON"),
        ("final_seq", np.zeros(1, np.int64), "final_seq has 1 values, not 2"),
        ("fate", np.array([{}, {}, {}], dtype=object), "fate is object"),
        ("fate", b"\x93NUMPY\x01\x00\xff\xff", "damaged"),
    ],
)
def test_what_no_history_holds(path: Path, name: str, value: bytes | npt.NDArray[Any] | None, words: str) -> None:
    assert_refused(rewritten(path, **{name: value}), words)


def test_what_would_unpack_to_too_much_is_not_unpacked(path: Path) -> None:
    assert_refused(path, "would unpack to", bytes_max=2_000)
    # One value a column, and a number of rows that no memory holds.
    ones = {name: column[:1] for name, column in columns(ROWS).items()}
    assert_refused(rewritten(path, rows=np.array([1 << 60]), **ones), "would unpack to")


def test_a_size_that_is_not_true_is_noticed(path: Path) -> None:
    """A header that promises more than there is must not be believed, let alone given memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)})
    assert_refused(rewritten(path, sent_ns=header.getvalue() + bytes(24)), "sent_ns is not as long as it says")
    whole = bytearray(rewritten(path, sent_ns=ROWS.sent_ns).read_bytes())
    entry = whole.index(b"PK\x01\x02")  # the first in the archive's directory
    whole[entry + 24 : entry + 28] = struct.pack("<I", 1 << 31)
    path.write_bytes(whole)
    assert_refused(path, "would unpack to")


def test_what_could_not_be_read_back_is_not_written(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    for wrong, words in (
        (replace(FILE, history=replace(ROWS, fate=ROWS.fate.astype(np.int64))), "fate is int64"),
        (replace(FILE, history=replace(ROWS, fate=ROWS.fate[:2])), "differ in length"),
        (replace(FILE, history=replace(ROWS, fate=ROWS.fate + np.int8(9))), "fate holds"),
        (replace(FILE, names=["a"]), "account holds 1"),
        (replace(FILE, about={"share": float("nan")}), "JSON compliant"),
    ):
        with pytest.raises(ValueError, match=words):
            save(path, wrong)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="nowhere"):
        save(tmp_path / "nowhere" / "trial.npz", FILE)


def test_every_column_has_its_type() -> None:
    assert {name: column.dtype for name, column in columns(ROWS).items()} == history_files._dtypes()
