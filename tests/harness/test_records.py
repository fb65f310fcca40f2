"""A run's folder can be read whatever interrupted its writing, and says so where it cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.harness.records import FORMAT, Run, RunError, latest_run, load_runs, machine, read, versions
from tests.harness.runs import run_folder, trial

ABOUT = {"command": "python -m benchmarks run", "plan": {"seed": 1}}


def test_a_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "runs", ABOUT)
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"\d{8}T\d{6}Z-(unknown|[0-9a-f]{7,10})", run.folder.name)
    about = json.loads((run.folder / "run.json").read_text())
    assert about["format"] == FORMAT
    assert about["finished"] is None
    assert about["command"] == ABOUT["command"]
    assert {"started", "commit", "machine", "versions", "plan"} <= set(about)
    assert about["versions"]["python"]
    assert about["machine"]["cores"]
    run.add(trial())
    run.add(trial(repeat=1))
    run.finish()
    assert json.loads((run.folder / "run.json").read_text())["finished"]
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.json", "trials.jsonl"]
    assert len((run.folder / "trials.jsonl").read_text().splitlines()) == 2


def test_a_trial_is_there_as_soon_as_it_was_added(tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    assert read(run.folder)[1] == []
    run.add(trial())
    assert read(run.folder)[1] == [trial()]


def test_records_name_no_host() -> None:
    import socket

    assert socket.gethostname() not in json.dumps([machine(), versions()])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_json_has_what_json_has_not(value: float, tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    with pytest.raises(ValueError, match="JSON"):
        run.add(trial(ops_per_s=value))
    assert read(run.folder)[1] == []


# -- interrupted -----------------------------------------------------------------------------------


def test_a_line_that_was_cut_short_is_dropped_and_measured_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), trial(repeat=1), finished=False)
    path = folder / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[0][:40])
    assert read(folder)[1] == [trial(), trial(repeat=1)]
    run = Run.resume(folder)
    assert path.read_text() == whole
    run.add(trial(repeat=2))
    assert [each.repeat for each in read(folder)[1]] == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_last_line_may_be_cut_anywhere(cut: int, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), trial(repeat=1), finished=False)
    path = folder / "trials.jsonl"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[:cut])
    assert read(folder)[1][0] == trial()
    run = Run.resume(folder)
    run.add(trial(repeat=2))
    assert read(folder)[1][-1] == trial(repeat=2)


def test_a_run_that_was_killed_before_its_first_trial_resumes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, finished=False)
    assert not (folder / "trials.jsonl").exists()
    Run.resume(folder).add(trial())
    assert read(folder)[1] == [trial()]


@pytest.mark.parametrize("line", ["{cut short", "not json at all", "5", "null", '["a list"]', '{"strategy": "x"}'])
def test_a_broken_line_in_the_middle_is_refused_by_number(line: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), finished=False)
    path = folder / "trials.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(RunError, match="line 1"):
        read(folder)


# -- not what it should be -------------------------------------------------------------------------


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))
    for use in (read, Run.resume):
        with pytest.raises(RunError, match=f"format {FORMAT + 1}"):
            use(folder)


def test_keys_that_a_later_program_added_are_left_alone(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    path = folder / "trials.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"a_later_key": 1}) + "\n")
    assert read(folder)[1] == [trial()]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "5"])
def test_a_folder_that_is_not_a_runs(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    for use in (read, Run.resume):
        with pytest.raises(RunError, match=re.escape(str(tmp_path))):
            use(tmp_path)


# -- cannot be written -----------------------------------------------------------------------------
# As root, permissions stop nobody: a file in a folder's place and a full disk do.


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(RunError, match="--out"):
        Run.start(tmp_path / "a-file", ABOUT)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    run = Run.start(tmp_path, ABOUT)
    (run.folder / "trials.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left"):
        run.add(trial())


def test_a_folder_that_vanishes_during_the_run(tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    shutil.rmtree(run.folder)
    with pytest.raises(RunError):
        run.add(trial())
    with pytest.raises(RunError):
        run.finish()


# -- many runs -------------------------------------------------------------------------------------


def test_runs_as_one_frame(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    folders = [run_folder(tmp_path, trial(), trial(repeat=1)), run_folder(tmp_path, trial(strategy="other"))]
    frame = load_runs(*folders)
    assert list(frame["strategy"]) == ["vault", "vault", "other"]
    assert list(frame["run"]) == [folders[0].name] * 2 + [folders[1].name]
    assert frame["ops_per_s"].sum() == 3 * 12345


def test_the_latest_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="make bench"):
        latest_run(tmp_path)
    for name, finished in (
        ("20260101T000000Z-aaa", True),
        ("20260201T000000Z-bbb", True),
        ("20260301T000000Z-ccc", False),
    ):
        run_folder(tmp_path / "elsewhere", trial(), finished=finished).rename(tmp_path / name)
    assert latest_run(tmp_path).name == "20260201T000000Z-bbb"
