"""A table of trials has the same columns and types whatever is in it, and nothing stands for what is not there."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from benchmarks.harness.cells import Status
from benchmarks.harness.export import write
from benchmarks.harness.records import RunError, Trial, read
from tests.harness.runs import run_folder, trial, unmeasured

COLUMNS = ["run", *(field.name for field in fields(Trial))]
STRANGE = 'a "quoted", line\nbroken; None, NaN, ünïcode'
TRIALS = [
    trial(),
    trial(repeat=1, ops_per_s=0.1 + 0.2, conserved=False, seed=2**32 - 1),
    unmeasured(Status.FAILED, STRANGE, repeat=2),
]
NULLABLE = {"run": "string", "strategy": "string", "clients": "Int64", "batch": "Int64", "ops_per_s": "Float64"} | {
    "conserved": "boolean",
    "trusted": "boolean",
    "reason": "string",
    "zipf_theta": "Float64",
}


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1], TRIALS[2:], []], ids=["all", "measured", "unmeasured", "none"])
def test_parquet_has_each_value_and_each_type(trials: list[Trial], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *trials)
    target = tmp_path / "trials.parquet"
    assert write([folder], target) == []
    frame = pd.read_parquet(target)
    assert list(frame.columns) == COLUMNS
    assert {name: str(frame[name].dtype) for name in NULLABLE} == NULLABLE
    table = parquet.read_table(target)
    assert table.to_pylist() == [{"run": folder.name, **asdict(each)} for each in trials]
    kinds = {name: table.schema.field(name).type for name in NULLABLE}
    assert kinds["clients"] == kinds["batch"] == pyarrow.int64()
    assert kinds["ops_per_s"] == kinds["zipf_theta"] == pyarrow.float64()
    assert kinds["conserved"] == kinds["trusted"] == pyarrow.bool_()
    assert pyarrow.types.is_string(kinds["reason"]) or pyarrow.types.is_large_string(kinds["reason"])


def test_csv_has_each_value_and_nothing_for_none(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *TRIALS)
    target = tmp_path / "trials.csv"
    write([folder], target)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    for row, each in zip(rows, TRIALS, strict=True):
        expected = {name: "" if value is None else str(value) for name, value in asdict(each).items()}
        assert row == {"run": folder.name, **expected}
    frame = pd.read_csv(target, dtype=NULLABLE)
    assert list(frame["ops_per_s"][:2]) == [12345.0, 0.1 + 0.2]
    assert frame["batch"].isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_several_runs_are_told_apart(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [run_folder(tmp_path, *TRIALS[:1]).rename(tmp_path / "run-a"), run_folder(tmp_path, *TRIALS[1:])]
    monkeypatch.chdir(folders[1])
    target = tmp_path / f"trials{suffix}"
    write([folders[0], Path()], target)
    frame = pd.read_csv(target) if suffix == ".csv" else pd.read_parquet(target)
    assert list(frame["run"]) == ["run-a", folders[1].name, folders[1].name]


@pytest.mark.parametrize("name", ["trials", "trials.json", "trials.csv.gz", "trials.CSV", ".csv"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    with pytest.raises(RunError, match=re.escape(f"{target} must end in .csv or .parquet")):
        write([run_folder(tmp_path, trial())], target)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_older_file_is_replaced_by_a_whole_one_or_kept(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = run_folder(tmp_path, trial()), tmp_path / "place"
    place.mkdir()
    target = place / f"trials{suffix}"
    target.write_text("older")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(RunError, match="No space left"):
            write([folder], target)
    assert target.read_text() == "older"
    write([folder], target)
    assert target.read_bytes() != b"older"
    assert list(place.iterdir()) == [target]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_half_a_surrogate_pair_is_spelled_out(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"trials{suffix}"
    write([run_folder(tmp_path, unmeasured(Status.FAILED, "no file \udcff"))], target)
    frame = pd.read_csv(target) if suffix == ".csv" else pd.read_parquet(target)
    assert list(frame["reason"]) == [r"no file \udcff"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_place_that_is_not_there(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        write([run_folder(tmp_path, trial())], tmp_path / "nowhere" / f"trials{suffix}")


def test_a_damaged_run_is_written_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), trial(repeat=1))
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"cut')
    [damage] = write([folder], tmp_path / "trials.parquet")
    assert "line 3" in damage
    assert len(pd.read_parquet(tmp_path / "trials.parquet")) == len(read(folder)[1]) == 2


def test_a_folder_that_is_no_runs_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run's folder"):
        write([tmp_path / "nowhere"], tmp_path / "trials.csv")
    assert list(tmp_path.iterdir()) == []
