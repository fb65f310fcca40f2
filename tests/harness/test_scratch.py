"""Directories of the harness's own go with their owner, or with the next one's start; nobody else's do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.harness import scratch
from tests.harness.commands import ROOT

_OWNER = """
import sys, tempfile, time
from benchmarks.harness import scratch
tempfile.tempdir = sys.argv[1]
with scratch.directory("test") as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_directory_goes_when_it_is_left() -> None:
    with scratch.directory("test") as path:
        (path / "folder").mkdir()
        (path / "folder" / "file").write_text("something")
    assert not path.exists()


def test_only_what_a_dead_owner_left_is_swept(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert owner.stdout is not None
        theirs = Path(owner.stdout.readline().strip())
        stranger = tmp_path / f"{scratch.PREFIX}stranger"
        stranger.mkdir()
        link = tmp_path / f"{scratch.PREFIX}link"
        with scratch.directory("test") as ours:
            (theirs / "file").write_text("something")
            assert scratch.sweep() == []
            owner.kill()
            owner.wait()
            link.symlink_to(theirs)
            assert scratch.sweep() == [theirs]
            assert not theirs.exists()
            assert ours.exists()
        assert stranger.exists()
        assert link.is_symlink()
    finally:
        owner.kill()
        owner.wait()
        if owner.stdout is not None:
            owner.stdout.close()
