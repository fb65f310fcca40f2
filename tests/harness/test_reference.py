"""Reference results are measured by commands that anybody can give, and replace the old ones when all is well."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import failure_tables, reference, workloads
from strategies.interface import Fault


class Commands:
    """What would be run; each leaves behind what it would."""

    def __init__(self, runs: Path, fails: str = "") -> None:
        self._runs = runs
        self._fails = fails
        self.given: list[list[str]] = []

    def __call__(self, command: list[str], *, cwd: Path, stdout: Any, check: bool) -> None:
        words = command[3:]  # behind: python -m benchmarks
        self.given.append(words)
        if stdout is not None:
            stdout.write(f"{words[0]} anew".encode())
        if words[0] == self._fails:
            raise subprocess.CalledProcessError(1, command)
        if words[0] in ("sweep", "run"):
            over = words[words.index("--over") + 1] if words[0] == "sweep" else ""
            (self._runs / f"{words[0]}{over}").mkdir()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs" / "older").mkdir(parents=True)
    (tmp_path / "selftest.json").write_text("old")
    monkeypatch.setattr(failure_tables, "RESULTS", tmp_path)
    monkeypatch.setattr(reference, "RUNS", tmp_path / "runs")
    return tmp_path


def test_everything_is_measured_and_the_matrix_is_the_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(results / "runs")
    monkeypatch.setattr(subprocess, "run", commands)
    assert reference.record() == [results / "runs" / "run", results / "runs" / "sweeprate"]
    assert [words[0] for words in commands.given] == ["scoreboard", "selftest", "complexity", "sweep", "sweep", "run"]
    assert (results / "selftest.json").read_text() == "selftest anew"
    assert {each.name for each in results.iterdir()} == {"runs", *(f"{name}.json" for name in reference._BESIDE)}
    matrix = commands.given[-1]
    assert {*workloads.names(), *Fault} <= set(matrix)


def test_a_command_that_fails_leaves_the_old_results(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Commands(results / "runs", fails="selftest"))
    with pytest.raises(subprocess.CalledProcessError):
        reference.record()
    assert (results / "selftest.json").read_text() == "old"
