"""However a run ends, nothing that it started outlives it, and what it measured can be continued."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from typer.testing import CliRunner

from benchmarks.harness.cli import app
from benchmarks.harness.environment import Environment
from benchmarks.harness.records import read
from tests.harness.commands import command
from tests.harness.own import own

SMALL = ("run", "--quick", "--workload", "hot", "--seconds", "0.1", "--clients", "2")
CLUSTER_AND_SERVER = ("--strategy", "redis_lua:volatile", "--strategy", "actor_single:proxied")


def keys(folder: Path) -> list[tuple[object, ...]]:
    return [trial.key for trial in read(folder)[1]]


def test_a_run_that_ends_by_itself(tmp_path: Path) -> None:
    """One of its strategies breaks; the other is in a file that workers cannot import, and is called from tasks too."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    path = tmp_path / "brought_along.py"
    path.write_text("from strategies.actor_single import ActorSingle\n\n\nclass Brought(ActorSingle):\n    pass\n")
    chosen = (
        "--strategy",
        f"{path}:Brought:proxied",
        "--strategy",
        own("RaisesUnexpectedly"),
    )
    with command(*SMALL, *chosen, "--repeats", "1", "--out", out, "--json", scratch=scratch) as running:
        code, output, errors = running.finish(45)
        assert code == 1, errors
        assert "a bug of the strategy" in errors
        assert "Traceback" not in output + errors
        assert running.started
        assert running.survivors() == []
        assert running.scratch_left() == []
    shown = json.loads(output)
    assert Path(shown["run"]).parent == out
    assert shown["finished"]
    statuses = {
        (each["strategy"].partition(".")[0], each["caller"]): (each["status"], each["linearizable"])
        for each in shown["trials"]
    }
    assert statuses == {
        ("brought_along", "driver"): ("ok", "yes"),
        ("brought_along", "task"): ("ok", "yes"),
        ("own_accounts", "driver"): ("failed", None),
        ("own_accounts", "task"): ("not_applicable", None),
    }


def test_ctrl_c_leaves_a_run_that_can_be_continued(tmp_path: Path, environment: Environment) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with command(
        *SMALL,
        *CLUSTER_AND_SERVER,
        "--caller",
        "task",
        "--repeats",
        "3",
        "--out",
        out,
        scratch=scratch,
    ) as running:
        folder = running.await_lines(out, 2)
        running.interrupt()
        code, output, errors = running.finish(60)
        assert code == 130, errors
        assert f"--resume {folder}" in errors
        assert "Traceback" not in output + errors
        assert running.started
        assert running.survivors() == []
        assert running.scratch_left() == []
    before = keys(folder)
    assert 2 <= len(before) < 6
    assert read(folder)[0]["finished"] is None

    scheduler = environment.client.scheduler_info()["address"]
    result = CliRunner().invoke(app, ["run", "--resume", str(folder), "--scheduler", scheduler])
    assert result.exit_code == 0, result.output
    after = keys(folder)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 2 * 3  # strategies, repeats
    assert read(folder)[0]["finished"]


def test_ctrl_c_does_not_wait_for_the_load_to_end(tmp_path: Path, environment: Environment) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    scheduler = environment.client.scheduler_info()["address"]
    long = (
        "run",
        "--workload",
        "hot",
        "--seconds",
        "600",
        "--caller",
        "driver",
        "--strategy",
        "driver_dict",
        "--scheduler",
        scheduler,
    )
    with command(*long, "--out", out, scratch=scratch) as running:
        deadline = time.monotonic() + 40
        while not list(out.glob("*/run.json")):
            assert running.running, running.finish(1)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)  # now it offers load
        running.interrupt()
        code, output, errors = running.finish(20)
    assert code == 130, errors
    assert "Traceback" not in output + errors


def test_a_harness_that_is_killed(tmp_path: Path) -> None:
    """It can clear nothing away any more; its processes end by themselves."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with command(*SMALL, *CLUSTER_AND_SERVER, "--repeats", "20", "--out", out, scratch=scratch) as running:
        running.await_lines(out, 2)
        assert any(name.startswith(("valkey", "redis")) for name in running.names())
        running.kill()
        code, _, _ = running.finish(20)
        assert code == -signal.SIGKILL
        assert running.survivors() == []
