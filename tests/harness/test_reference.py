"""Reference results are measured by commands that anybody can give, and replace the old ones when all is well."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import failure_tables, reference, workloads
from strategies.interface import Fault
from tests.harness.runs import run_folder, survivor


class Commands:
    """What would be run; each leaves behind what it would."""

    def __init__(self, runs: Path, fails: str = "") -> None:
        self._runs = runs
        self._fails = fails
        self.given: list[tuple[str, ...]] = []

    def __call__(self, *words: str, stdout: Any = None) -> None:
        self.given.append(words)
        if stdout is not None:
            stdout.write(f"{words[0]} anew".encode())
        if words[0] == self._fails:
            raise subprocess.CalledProcessError(1, words)
        if words[0] in ("sweep", "run"):
            over = words[words.index("--over") + 1] if words[0] == "sweep" else ""
            made = f"{words[0]}{over or len(self.given)}"
            run_folder(self._runs.parents[1], survivor()).rename(self._runs / made)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    (folder / "runs" / "older").mkdir(parents=True)
    (folder / "selftest.json").write_text("old")
    monkeypatch.setattr(failure_tables, "RESULTS", folder)
    monkeypatch.setattr(reference, "RUNS", folder / "runs")
    return folder


def test_everything_is_measured_and_the_matrix_is_the_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(results / "runs")
    monkeypatch.setattr(reference, "_run", commands)
    assert reference.record() == [results / "runs" / "run6", results / "runs" / "sweeprate"]
    assert [words[0] for words in commands.given] == [*reference._BESIDE, "sweep", "sweep", "run", "run"]
    assert (results / "selftest.json").read_text() == "selftest anew"
    assert {each.name for each in results.iterdir()} == {
        "runs",
        *(f"{name}.json" for name in reference._BESIDE),
        failure_tables.ONCE_JSON,
        failure_tables.ONCE_MARKDOWN,
    }
    matrix, faults = commands.given[-2:]
    assert set(workloads.names()) <= set(matrix)
    assert set(Fault) <= set(faults)


def test_a_command_that_fails_leaves_the_old_results(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_run", Commands(results / "runs", fails="selftest"))
    with pytest.raises(subprocess.CalledProcessError):
        reference.record()
    assert (results / "selftest.json").read_text() == "old"
