"""A run's folder can be read whatever interrupted its writing, and says so where it cannot."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.harness import records
from benchmarks.harness.cells import Status
from benchmarks.harness.frames import load_runs
from benchmarks.harness.records import (
    FORMAT,
    METHOD,
    Run,
    RunError,
    Trial,
    latest_run,
    machine,
    read,
    read_all,
    versions,
)
from tests.harness.runs import run_folder, trial, unmeasured

ABOUT = {"command": "python -m benchmarks run", "plan": {"seed": 1}}


def test_runs_that_start_in_one_second_have_a_folder_each(tmp_path: Path) -> None:
    runs = [Run.start(tmp_path, ABOUT) for _ in range(5)]
    assert len({run.folder for run in runs}) == len(list(tmp_path.iterdir())) == 5
    for run in runs:
        run.add(trial())
        run.finish()
    assert latest_run(tmp_path) in {run.folder for run in runs}


def test_a_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "runs", ABOUT)
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"\d{8}T\d{6}Z-(unknown|[0-9a-f]{7,10})", run.folder.name)
    about = json.loads((run.folder / "run.json").read_text())
    assert about["format"] == FORMAT
    assert about["method"] == METHOD
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
    cut = whole.splitlines()[0][:40]
    path.write_text(whole + cut)
    assert read(folder)[1] == [trial(), trial(repeat=1)]
    [damage] = read_all(folder).damage
    assert "line 3" in damage
    run = Run.resume(folder)
    assert path.read_text() == whole
    assert (folder / "trials.jsonl.damaged").read_text() == cut + "\n"
    assert run.damage[0] == damage
    assert "trials.jsonl.damaged" in run.damage[1]
    run.add(trial(repeat=2))
    assert [each.repeat for each in read(folder)[1]] == [0, 1, 2]
    assert read_all(folder).damage == []


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


BROKEN = [
    b"{cut short",
    b"not json at all",
    b"5",
    b"null",
    b'["a list"]',
    b'{"strategy": "x"}',
    b"\x00" * 512,
    b"\xff\xfe\x80{}",
    b"[" * 100_000,
    b"9" * 10_000,
    json.dumps({"strategy": "x" * 100_000}).encode()[:-1],
]


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_broken_line_costs_itself_only_and_is_named_by_number(line: bytes, place: int, tmp_path: Path) -> None:
    kept = [trial(), trial(repeat=1)]
    folder = run_folder(tmp_path, *kept)
    path = folder / "trials.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:place], line + b"\n", *lines[place:]]))
    contents = read_all(folder)
    assert contents.trials == kept
    [damage] = contents.damage
    assert f"{path}, line {place + 1}: " in damage
    assert len(damage) < len(str(path)) + 200
    assert "\n" not in damage
    run = Run.resume(folder)
    assert path.read_bytes() == whole
    assert (folder / "trials.jsonl.damaged").read_bytes() == line + b"\n"
    assert run.about["finished"] is None  # a trial may be missing
    assert run.about["resumed"][-1]["set_aside"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": 5},
        {"clients": "4"},
        {"clients": 4.0},
        {"clients": True},
        {"clients": 2**63},
        {"conserved": 1},
        {"ops_per_s": "fast"},
        {"repeat": None},
        {"fault": []},
        {"batch": {}},
    ],
)
def test_a_value_of_another_type_is_no_trials(change: dict[str, object], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(repeat=1))
    path = folder / "trials.jsonl"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"repeat": 0} | change) + "\n" + path.read_text())
    contents = read_all(folder)
    assert contents.trials == [trial(repeat=1)]
    assert f"{next(iter(change))} is " in contents.damage[0]
    run = Run.resume(folder)
    with pytest.raises(TypeError, match=next(iter(change))):
        run.add(trial(**change))
    assert read(folder)[1] == [trial(repeat=1)]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_has_not_is_no_trials(value: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), trial(repeat=1))
    path = folder / "trials.jsonl"
    path.write_text(path.read_text().replace("12345.0", value, 1))
    contents = read_all(folder)
    assert contents.trials == [trial(repeat=1)]
    assert len(contents.damage) == 1


@pytest.mark.parametrize("between", ["", "}", "{", '{"strategy": "vault", "var', "\0\0\0\0"])
def test_a_trial_behind_what_was_cut_is_kept(between: str, tmp_path: Path) -> None:
    """A crash cuts a line, and what continues the run appends to it."""
    folder = run_folder(tmp_path, trial(), trial(repeat=1), trial(repeat=2), finished=False)
    path = folder / "trials.jsonl"
    whole = path.read_text()
    first, rest = whole.split("\n", 1)
    path.write_text(first + between + rest)
    contents = read_all(folder)
    assert contents.trials == [trial(repeat=repeat) for repeat in range(3)]
    assert ["line 1" in damage for damage in contents.damage] == [True] * bool(between)
    Run.resume(folder)
    assert path.read_text() == whole
    assert (folder / "trials.jsonl.damaged").exists() == bool(between)


def test_a_reason_may_look_like_a_trial(tmp_path: Path) -> None:
    """Where a line is cut apart, the cut is never within a string."""
    strange = unmeasured(Status.FAILED, 'RuntimeError: {"strategy": "vault"}{"} \n\u2028\x85 ünïcode', repeat=1)
    folder = run_folder(tmp_path, trial(), strange, trial(repeat=2))
    path = folder / "trials.jsonl"
    assert read_all(folder).trials[1] == strange
    path.write_text(path.read_text().replace("\n", '{"strat'))
    assert read_all(folder).trials == [trial(), strange, trial(repeat=2)]


def test_much_damage_is_counted(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    path = folder / "trials.jsonl"
    path.write_bytes(b"garbage\n" * 1000 + path.read_bytes())
    contents = read_all(folder)
    assert contents.trials == [trial()]
    assert len(contents.damage) == 21
    assert "980 more" in contents.damage[-1]


def test_of_trials_of_one_key_the_first_counts(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), trial(repeat=1), trial(ops_per_s=1.0))
    contents = read_all(folder)
    assert contents.trials == [trial(), trial(repeat=1)]
    [damage] = contents.damage
    assert "line 3" in damage
    assert "line 1" in damage
    run = Run.resume(folder)
    assert json.loads((folder / "trials.jsonl.damaged").read_text())["ops_per_s"] == 1.0
    assert run.about["finished"]  # nothing is missing
    assert read_all(folder).damage == []


def test_what_is_set_aside_is_kept_however_often_it_happens(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), finished=False)
    for text in ("first", "second"):
        with (folder / "trials.jsonl").open("a") as file:
            file.write(text)
        Run.resume(folder)
    assert (folder / "trials.jsonl.damaged").read_text() == "first\nsecond\n"


def test_what_an_interrupted_write_left_behind(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    for name in ("run.json", "trials.jsonl"):
        (folder / f"{name}.partial").write_text('{"cut')
    contents = read_all(folder)
    assert contents.trials == [trial()]
    assert ["run.json.partial" in contents.damage[0], "trials.jsonl.partial" in contents.damage[1]] == [True, True]
    Run.resume(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "trials.jsonl"]


# One folder for all examples: what is tested is what its one file holds.
TRIALS = [trial(repeat=repeat, reason='a "quoted" {reason}' if repeat else None) for repeat in range(4)]


UNHURRIED = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
"""Each example writes a file, for which a busy machine takes its time."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = run_folder(tmp_path_factory.mktemp("written"), *TRIALS)
    return folder, (folder / "trials.jsonl").read_bytes()


@UNHURRIED
@given(data=st.data())
def test_wherever_the_file_ends_trials_before_are_readable(written: tuple[Path, bytes], data: st.DataObject) -> None:
    folder, whole = written
    size = data.draw(st.integers(0, len(whole)))
    (folder / "trials.jsonl").write_bytes(whole[:size])
    contents = read_all(folder)
    ends = _ends(whole)
    assert contents.trials == TRIALS[: sum(end <= size for end in ends)]  # a newline may lack
    assert len(contents.damage) == (size not in {0, *ends, *(end + 1 for end in ends)})


@UNHURRIED
@given(data=st.data())
def test_whichever_byte_is_wrong_the_other_trials_are_readable(
    written: tuple[Path, bytes], data: st.DataObject
) -> None:
    folder, whole = written
    at = data.draw(st.integers(0, len(whole) - 1))
    wrong = data.draw(st.integers(0, 255) | st.sampled_from(list(b'{}"\n, ')))
    (folder / "trials.jsonl").write_bytes(whole[:at] + bytes([wrong]) + whole[at + 1 :])
    contents = read_all(folder)
    hit = sum(end < at for end in _ends(whole))
    others = [each for number, each in enumerate(TRIALS) if number != hit or at in _ends(whole)]
    assert [each for each in contents.trials if each in others] == others
    assert len(contents.trials) + len(contents.damage) >= len(TRIALS)


@UNHURRIED
@given(garbage=st.lists(st.binary(max_size=40), min_size=5, max_size=5))
def test_garbage_between_lines_costs_no_trial(written: tuple[Path, bytes], garbage: list[bytes]) -> None:
    folder, whole = written
    lines = [*whole.splitlines(keepends=True), b""]
    text = b"".join(before + b"\n" + line for before, line in zip(garbage, lines, strict=True))
    (folder / "trials.jsonl").write_bytes(text)
    contents = read_all(folder)
    assert contents.trials == TRIALS
    assert bool(contents.damage) == any(part.strip() for part in garbage)


def _ends(whole: bytes) -> list[int]:
    """Where its newlines are."""
    return [place for place, byte in enumerate(whole) if byte == ord("\n")]


# -- what a trial is -------------------------------------------------------------------------------

IDENTIFYING = {
    "strategy": "other",
    "variant": "other",
    "workload": "other",
    "caller": "task",
    "clients": 9,
    "batch": 10,
    "window": 16,
    "drivers": 2,
    "shards": 8,
    "arrivals": "poisson",
    "fault": "worker_kill",
    "repeat": 7,
}


def test_a_trial_is_known_by_its_cell_and_repeat() -> None:
    for name, value in IDENTIFYING.items():
        assert trial(**{name: value}).key != trial().key, name
    figures: dict[str, Any] = {"seed": 9, "status": "failed", "reason": "why", "ops_per_s": 1.0, "offered_per_s": 5.0}
    for name, value in figures.items():
        assert trial(**{name: value}).key == trial().key, name


@pytest.mark.parametrize(
    ("arrivals", "tells"), [("poisson", True), ("constant", True), ("closed", False), (None, False)]
)
def test_what_is_offered_tells_trials_apart_where_it_was_asked_for(arrivals: str | None, tells: bool) -> None:
    slow, fast = (trial(arrivals=arrivals, offered_per_s=rate) for rate in (100.0, 200.0))
    assert (slow.key != fast.key) == tells


@UNHURRIED
@given(
    values=st.fixed_dictionaries(
        {
            each.name: {
                "str": st.text(),
                "int": st.integers(-(2**63) + 1, 2**63 - 1),
                "str | None": st.none() | st.text(),
                "int | None": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
                "float | None": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "bool | None": st.none() | st.booleans(),
            }[str(each.type)]
            for each in fields(Trial)
        }
    )
)
def test_whatever_can_be_added_is_read_back(written: tuple[Path, bytes], values: dict[str, Any]) -> None:
    folder, _ = written
    (folder / "trials.jsonl").write_bytes(b"")
    run = Run(folder, {})
    run.add(Trial(**values))
    assert read_all(folder).trials == [Trial(**values)]
    assert read_all(folder).damage == []


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
    text = json.dumps(json.loads(path.read_text()) | {"a_later_key": {"nested": [1]}}) + "\n"
    path.write_text(text + "damage\n")
    assert read(folder)[1] == [trial()]
    Run.resume(folder)
    assert path.read_text() == text


@pytest.mark.parametrize("text", [None, "", "{", "[]", "5", '{"format": "x"}', "\0" * 64, "[" * 100_000])
def test_a_folder_that_is_not_a_runs(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    for use in (read, Run.resume):
        with pytest.raises(RunError, match=re.escape(str(tmp_path))):
            use(tmp_path)


@pytest.mark.parametrize("text", [None, b"", b"\xff\x00", b"[]"])
def test_trials_whose_run_json_is_lost_are_pointed_at(text: bytes | None, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    (folder / "run.json").unlink()
    if text is not None:
        (folder / "run.json").write_bytes(text)
    for use in (read, Run.resume):
        with pytest.raises(RunError, match=r"what was measured is still in .*trials\.jsonl"):
            use(folder)
    assert (folder / "trials.jsonl").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for use in (read, Run.resume):
        with pytest.raises(RunError, match="not a run's folder"):
            use(tmp_path / "nowhere")


def test_trials_that_cannot_be_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "trials.jsonl").mkdir()
    for use in (read, Run.resume):
        with pytest.raises(RunError, match="directory"):
            use(folder)


# -- resumed elsewhere -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [1, METHOD - 1, METHOD + 1, None, "x"])
def test_numbers_made_another_way_are_not_mixed(method: object, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), about={"method": method})
    if method == 1:  # older runs do not say
        about = json.loads((folder / "run.json").read_text())
        del about["method"]
        (folder / "run.json").write_text(json.dumps(about))
    before = _contents(folder)
    with pytest.raises(RunError, match=f"method {method} .* method {METHOD}"):
        Run.resume(folder)
    assert _contents(folder) == before
    assert read(folder)[1] == [trial()]


def test_each_resumption_is_recorded(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), finished=False)
    for _ in range(2):
        assert Run.resume(folder).damage == []
    resumed = read(folder)[0]["resumed"]
    assert [set(each) for each in resumed] == [{"at", "commit", "machine", "versions", "set_aside"}] * 2
    assert resumed[0]["machine"] == machine()
    assert resumed[0]["versions"] == versions()


def test_a_run_that_is_resumed_elsewhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path, trial(), finished=False)
    monkeypatch.setattr(records, "machine", lambda: machine() | {"cores": 999})
    monkeypatch.setattr(records, "versions", lambda: versions() | {"dask": "1.2.3"})
    monkeypatch.setattr(records, "git_commit", lambda: "abcdef")
    run = Run.resume(folder)
    [damage] = run.damage
    for part in ("cores was 999", "dask was 1.2.3", "commit was abcdef"):
        assert part in damage
    run.add(trial(repeat=1))
    run.finish()
    assert read_all(folder).damage == [damage]
    assert read(folder)[1] == [trial(), trial(repeat=1)]
    with pytest.warns(UserWarning, match="cores was 999"):
        load_runs(folder)


@pytest.mark.parametrize("resumed", [5, [5], {"at": 5}, [{"machine": 5}], None])
def test_a_list_of_resumptions_that_is_none(resumed: object, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), about={"resumed": resumed})
    assert read_all(folder).trials == [trial()]
    Run.resume(folder).add(trial(repeat=1))


# -- written by two --------------------------------------------------------------------------------

HOLDING = """
import sys
from pathlib import Path
from benchmarks.harness.records import Run
run = Run.resume(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_writes(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, folder],
        cwd=records._ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_ended(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), finished=False)
    with another_process_writes(folder) as process:
        before = _contents(folder)
        with pytest.raises(RunError, match="another process"):
            Run.resume(folder)
        with pytest.raises(RunError, match="another process"):
            Run(folder, {}).add(trial(repeat=1))
        assert read(folder)[1] == [trial()]  # whoever only reads may
        assert _contents(folder) == before
        process.kill()
        process.wait()
        Run.resume(folder).add(trial(repeat=1))
    assert len(read(folder)[1]) == 2


def test_a_run_that_is_measured_is_held_until_it_is_finished(tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    resume = [sys.executable, "-c", HOLDING, str(run.folder)]

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run(resume, cwd=records._ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    assert "is being written by another process" in other().stderr
    run.finish()
    assert other().returncode == 0


def test_runs_of_one_process_do_not_lock_each_other_out(tmp_path: Path) -> None:
    first = Run.start(tmp_path, ABOUT)
    first.add(trial())
    second = Run.resume(first.folder)
    first.finish()
    second.add(trial(repeat=1))
    assert len(read(first.folder)[1]) == 2


# -- cannot be written -----------------------------------------------------------------------------


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(RunError, match="--out"):
        Run.start(tmp_path / "a-file", ABOUT)


@contextmanager
def without_privilege() -> Iterator[None]:
    """As somebody whom permissions stop: they do not stop root."""
    if os.geteuid() != 0:
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(records, "git_commit", lambda: "0123456789abcdef")  # git refuses who is not the owner
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], Path]]:
    """Makes a copy of a folder that nobody may write, in a place that all may reach."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)

        def copy(folder: Path) -> Path:
            copied = Path(shutil.copytree(folder, Path(parent) / folder.name))
            for path in copied.iterdir():
                path.chmod(0o444)
            copied.chmod(0o555)
            return copied

        yield copy
        for path in Path(parent).iterdir():
            path.chmod(0o755)


def test_a_folder_that_is_read_only_is_read(read_only: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    with (folder / "trials.jsonl").open("a") as file:
        file.write("cut")
    folder = read_only(folder)
    before = _contents(folder)
    with without_privilege():
        contents = read_all(folder)
        assert contents.trials == [trial()]
        assert len(contents.damage) == 1
        with pytest.raises(RunError, match="cannot be resumed: Permission denied"):
            Run.resume(folder)
        with pytest.raises(RunError, match="Permission denied; what was measured before stays readable"):
            Run(folder, contents.about).add(trial(repeat=1))
        with pytest.raises(RunError, match="Permission denied"):
            Run(folder, contents.about).finish()
    assert _contents(folder) == before


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    run = Run.start(tmp_path, ABOUT)
    (run.folder / "trials.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left"):
        run.add(trial())


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel cuts the write that goes beyond it short, as a disk does that fills up, and refuses the next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patched:
        # The limit is inherited, and git would die of it in the middle of refreshing the repository's index.
        patched.setattr(records, "git_commit", lambda: "0123456789abcdef")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 100, 500])
def test_a_line_that_does_not_fit_leaves_no_half(room: int, tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    run.add(trial())
    before = _contents(run.folder)
    with files_of_at_most((run.folder / "trials.jsonl").stat().st_size + room):
        with pytest.raises(RunError, match=r"can no longer be written: .*; what was measured before stays readable"):
            run.add(trial(repeat=1))
    assert _contents(run.folder) == before
    run.add(trial(repeat=1))  # once there is room
    assert read(run.folder)[1] == [trial(), trial(repeat=1)]


def test_a_half_line_that_could_not_be_taken_back_is_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.start(tmp_path, ABOUT)
    run.add(trial())

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    with files_of_at_most((run.folder / "trials.jsonl").stat().st_size + 100), monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", refuse)
        with pytest.raises(RunError, match="Input/output error"):
            run.add(trial(repeat=1))
    contents = read_all(run.folder)
    assert contents.trials == [trial()]
    assert len(contents.damage) == 1
    Run.resume(run.folder).add(trial(repeat=1))
    assert read_all(run.folder).damage == []
    assert read(run.folder)[1] == [trial(), trial(repeat=1)]


def test_a_disk_that_is_full_when_a_run_is_resumed_or_finished(tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    for repeat in range(3):
        run.add(trial(repeat=repeat))
    with (run.folder / "trials.jsonl").open("a") as file:
        file.write('{"cut')
    before = _contents(run.folder)
    with files_of_at_most(100):
        with pytest.raises(RunError, match="File too large"):
            Run.resume(run.folder)
        with pytest.raises(RunError, match="can no longer be written"):
            run.finish()
    after = _contents(run.folder)
    assert after.pop("trials.jsonl.damaged", b"") in (b"", b'{"cut\n')
    assert after == before


def test_a_disk_that_is_full_when_a_run_begins(tmp_path: Path) -> None:
    with files_of_at_most(10), pytest.raises(RunError, match=r"cannot be written: .*choose another --out"):
        Run.start(tmp_path / "runs", ABOUT)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_system_that_fills_up(tmp_path: Path) -> None:
    """A real one: where pages and not bytes run out."""
    small = tmp_path / "small"
    small.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system takes more privilege than there is")
    try:
        run = Run.start(small, ABOUT)
        added = []

        def fill() -> None:
            for repeat in range(1000):
                run.add(trial(repeat=repeat))
                added.append(trial(repeat=repeat))

        with pytest.raises(RunError, match="what was measured before stays readable"):
            fill()
        assert 10 < len(added) < 1000
        contents = read_all(run.folder)
        assert contents.trials == added
        assert contents.damage == []
        with pytest.raises(RunError, match="No space left"):
            run.finish()
        assert read_all(run.folder).trials == added
    finally:
        # Lazily: the run that failed to finish holds its folder.
        subprocess.run(["umount", "--lazy", small], check=True)


def test_a_folder_that_vanishes_during_the_run(tmp_path: Path) -> None:
    run = Run.start(tmp_path, ABOUT)
    shutil.rmtree(run.folder)
    with pytest.raises(RunError):
        run.add(trial())
    with pytest.raises(RunError):
        run.finish()


# -- many runs -------------------------------------------------------------------------------------


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


def test_the_latest_run_is_sought_past_one_that_is_half_written(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-aaa", "20260201T000000Z-bbb"):
        run_folder(tmp_path / "elsewhere", trial()).rename(tmp_path / name)
    (tmp_path / "20260201T000000Z-bbb" / "run.json").write_text("")
    with pytest.warns(UserWarning, match="20260201T000000Z-bbb"):
        assert latest_run(tmp_path).name == "20260101T000000Z-aaa"
