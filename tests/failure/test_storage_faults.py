"""What a power cut and a full disk take; and that a server which lies about its syncs is told from others."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from benchmarks.harness import faults, launch, storage_faults, sync_watch
from benchmarks.harness.durable_files import DurableFiles
from benchmarks.harness.environment import Environment
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.storage_faults import DiskFull, PowerLoss
from benchmarks.harness.sync_watch import SyncWatch
from strategies.interface import (
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Context,
    Durability,
    Fault,
    Resource,
    Unavailable,
    load,
)

WATCHED = pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
DEADLINE_S = 2.0


# -- which files would be left ---------------------------------------------------------------------


class Disk:
    """A directory, and who follows its syncs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = DurableFiles(directory)

    def sync(self, name: str = "", *, appends: bool = False) -> None:
        descriptor = os.open(self.directory / name, os.O_RDONLY)
        try:
            self.files.syncing(descriptor, appends=appends)()
        finally:
            os.close(descriptor)

    def write(self, name: str, content: str) -> None:
        (self.directory / name).write_text(content)

    def left(self) -> dict[str, str]:
        self.files.restore()
        return {
            str(path.relative_to(self.directory)): path.read_text()
            for path in self.directory.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "old").write_text("old")
    made = Disk(tmp_path)
    with closing(made.files):
        yield made


def test_what_was_there_before_is_on_disk(disk: Disk) -> None:
    assert disk.left() == {"old": "old"}


def test_what_settled_is_on_disk(disk: Disk) -> None:
    (disk.directory / "old").write_text("newer")
    (disk.directory / "new").write_text("settled")
    disk.files.settle()
    (disk.directory / "new").write_text("lost")
    disk.files.restore()
    assert disk.left() == {"old": "newer", "new": "settled"}


@pytest.mark.parametrize("appends", [True, False])
def test_appended_bytes_are_lost_until_they_are_synced(disk: Disk, appends: bool) -> None:
    with (disk.directory / "old").open("a") as file:
        for more in (" synced", " unsynced"):
            file.write(more)
            file.flush()
            if more == " synced":
                disk.sync("old", appends=appends)
    lost = disk.files.restore()
    assert (lost.files, lost.appended_bytes) == (1, len(" unsynced"))
    assert disk.left() == {"old": "old synced"}


def test_an_overwritten_block_is_as_it_was_synced(disk: Disk) -> None:
    blocks = [bytes([number]) * 300_000 for number in range(4)]
    path = disk.directory / "blocks"
    path.write_bytes(b"".join(blocks))
    disk.sync("blocks")
    with path.open("r+b") as file:
        file.seek(300_000)
        file.write(b"s" * 300_000)
        file.flush()
        disk.sync("blocks")
        file.seek(600_000)
        file.write(b"u" * 300_000)
        file.truncate(900_000)
    assert disk.files.restore().files == 1
    assert path.read_bytes() == blocks[0] + b"s" * 300_000 + blocks[2] + blocks[3]


def test_a_file_that_was_cut_is_cut_once_that_is_synced(disk: Disk) -> None:
    disk.write("old", "o")
    assert disk.left() == {"old": "old"}
    disk.write("old", "o")
    disk.sync("old", appends=True)
    assert disk.left() == {"old": "o"}


def test_a_new_file_is_lost_until_it_or_its_directory_is_synced(disk: Disk) -> None:
    for name in ("lost", "empty", "kept"):
        disk.write(name, "content")
        if name == "empty":
            disk.sync("")
    disk.sync("kept")
    (disk.directory / "lost").rename(disk.directory / "renamed")
    assert disk.left() == {"old": "old", "lost": "", "empty": "", "kept": "content"}


def test_names_change_with_their_directorys_sync(disk: Disk) -> None:
    """The way in which files are replaced: written aside, synced, renamed; then the directory is synced."""
    disk.write("new", "new")
    disk.sync("new")
    (disk.directory / "new").rename(disk.directory / "old")
    disk.write("deleted", "deleted")
    disk.sync("deleted")
    (disk.directory / "deleted").unlink()
    assert disk.left() == {"old": "old", "new": "new", "deleted": "deleted"}


def test_a_directorys_sync_makes_renames_and_deletions_last(disk: Disk) -> None:
    for name in ("new", "deleted"):
        disk.write(name, name)
        disk.sync(name)
    (disk.directory / "new").rename(disk.directory / "old")
    (disk.directory / "deleted").unlink()
    disk.sync("")
    assert disk.left() == {"old": "new"}


def test_a_renamed_file_that_is_synced_again_has_one_name(disk: Disk) -> None:
    disk.write("new", "new")
    disk.sync("new")
    (disk.directory / "new").rename(disk.directory / "newer")
    disk.sync("newer")
    assert disk.left() == {"old": "old", "newer": "new"}


def test_a_files_own_sync_keeps_the_directories_that_it_is_in(disk: Disk) -> None:
    (disk.directory / "one" / "two").mkdir(parents=True)
    (disk.directory / "none").mkdir()
    disk.write("one/two/file", "content")
    disk.write("one/two/lost", "content")
    disk.sync("one/two/file")
    assert disk.left() == {"old": "old", "one/two/file": "content"}
    assert not (disk.directory / "none").exists()


def test_deleted_files_do_not_lend_their_place_to_new_ones(disk: Disk) -> None:
    """A file system gives the next file the inode of the last deleted one."""
    for number in range(20):
        disk.write("file", f"{number}" * 10)
        disk.sync("file", appends=True)
        (disk.directory / "file").unlink()
    disk.write("file", "x")
    disk.sync("file", appends=True)
    assert disk.left() == {"old": "old", "file": "x"}


# -- whose syncs are answered ----------------------------------------------------------------------


@contextmanager
def watched(directory: Path, program: str) -> Iterator[tuple[SyncWatch, subprocess.Popen[str]]]:
    """A Python program, whose syncs in `directory`, its working directory, are answered."""
    with SyncWatch(directory) as watch:
        process = subprocess.Popen(
            [
                *launch.command(handover=watch.handover),
                *(sys.executable, "-I", "-c", program),
            ],
            cwd=directory,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(watch.handover,),
        )
        watch.close_handover()
        try:
            yield watch, process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@WATCHED
@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_killed_program_loses_what_it_did_not_sync(tmp_path: Path, call: str) -> None:
    program = f"""
import os, time
file = os.open("file", os.O_WRONLY | os.O_CREAT)
os.write(file, b"synced"); os.{call}(file); os.write(file, b" not")
print("ready", flush=True); time.sleep(60)
"""
    with watched(tmp_path, program) as (watch, process):
        assert said(process) == "ready"
        assert (tmp_path / "file").read_text() == "synced not"
        assert watch.syncs()[0] == 1
        process.kill()
        process.wait()
        lost = watch.lose()
    assert (lost.files, lost.appended_bytes) == (1, 4)
    assert (tmp_path / "file").read_text() == "synced"


@WATCHED
def test_syncs_of_its_threads_and_children_count_and_bad_ones_fail(tmp_path: Path) -> None:
    program = """
import errno, os, threading, time
def make(name):
    file = os.open(name, os.O_WRONLY | os.O_CREAT)
    os.write(file, b"synced"); os.fsync(file)
threads = [threading.Thread(target=make, args=(f"thread-{number}",)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if not (child := os.fork()):
    make("child"); os._exit(0)
os.waitpid(child, 0)
try:
    os.fsync(999)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
time.sleep(60)
"""
    with watched(tmp_path, program) as (watch, process):
        assert said(process) == "EBADF"
        process.kill()
        process.wait()
        watch.lose()
    names = {"child", *(f"thread-{number}" for number in range(4))}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "synced")


@WATCHED
def test_without_its_watch_a_program_cannot_sync(tmp_path: Path) -> None:
    """It must not believe that something is on disk which nobody wrote down."""
    program = """
import os, time
file = os.open("file", os.O_WRONLY | os.O_CREAT)
os.fsync(file)
print("first", flush=True)
while True:
    try:
        os.fsync(file)
    except OSError as error:
        print(type(error).__name__, flush=True)
        break
    time.sleep(0.01)
time.sleep(60)
"""
    with watched(tmp_path, program) as (watch, process):
        assert said(process) == "first"
        watch.close()
        assert said(process) == "OSError"


SQLITE = """
import sqlite3, time
database = sqlite3.connect("database", isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = {synchronous}")
database.execute("PRAGMA wal_autocheckpoint = 20")
database.execute("CREATE TABLE changes (number)")
for number in range({changes}):
    database.execute("INSERT INTO changes VALUES (?)", (number,))
    print(number, flush=True)
time.sleep(60)
"""


@WATCHED
@pytest.mark.parametrize(("synchronous", "loses"), [("FULL", False), ("NORMAL", True)])
def test_a_database_with_overwritten_pages_keeps_what_it_promises(
    tmp_path: Path, synchronous: str, loses: bool
) -> None:
    """SQLite: FULL syncs its log at each commit, NORMAL at checkpoints only; both stay whole."""
    # NORMAL rests between two checkpoints, at 98 and 118 changes: killed just after one, it would have lost nothing
    changes = 113 if loses else 100_000
    with watched(tmp_path, SQLITE.format(synchronous=synchronous, changes=changes)) as (watch, process):
        acknowledged = -1
        while acknowledged < 112:  # past several checkpoints, which overwrite the log from its beginning
            acknowledged = int(said(process))
        process.kill()
        process.wait()
        assert process.stdout is not None
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().splitlines() if line)])
        watch.lose()
    with closing(sqlite3.connect(tmp_path / "database")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = [number for (number,) in database.execute("SELECT number FROM changes ORDER BY number")]
    assert kept == list(range(len(kept)))
    assert len(kept) >= 20
    if loses:
        assert len(kept) <= acknowledged
    else:
        assert len(kept) > acknowledged


# -- power loss ------------------------------------------------------------------------------------

VOLATILE, EVERYSEC, ALWAYS = "volatile", "everysec", "always"


class Depositors:
    """One thread for each account; who was told what."""

    def __init__(self, accounts: Accounts, count: int = 4, pause_s: float = 0.0) -> None:
        self._accounts = accounts
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.names = [f"account-{number}" for number in range(count)]
        self.acknowledged = dict.fromkeys(self.names, 0)
        self.unknown = dict.fromkeys(self.names, 0)
        self.refusals: list[AccountError] = []
        self.longest_s = 0.0
        for name in self.names:
            accounts.open_account(name)
        self._threads = [threading.Thread(target=self._deposit, args=(name,)) for name in self.names]

    def _deposit(self, name: str) -> None:
        while not self._stop.wait(self._pause_s):
            began = time.monotonic()
            try:
                self._accounts.deposit(name, 1)
            except AccountError as error:
                if isinstance(error, Unavailable):
                    self.refusals.append(error)
                    self._stop.wait(0.01)
                else:
                    self.unknown[name] += 1
            else:
                self.acknowledged[name] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    @property
    def total(self) -> int:
        return sum(self.acknowledged.values())

    def kept(self) -> int:
        """Acknowledged deposits that are in the accounts; an account that is not there has none."""
        kept = 0
        for name in self.names:
            try:
                balance = self._accounts.balance(name).balance
            except AccountError:
                continue
            assert balance <= self.acknowledged[name] + self.unknown[name]
            kept += min(balance, self.acknowledged[name])
        return kept

    def __enter__(self) -> Depositors:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def prepared(environment: Environment, fault: Fault, variant: str, seed: int) -> Iterator[tuple[Any, Accounts]]:
    """The fault's action, and a handle that was opened as in a trial."""
    kind = load("redis_lua")
    claims = kind.claims(variant)
    action = faults.load(fault)(environment, claims, Caller.DRIVER, DEADLINE_S, random.Random(seed))
    url = environment.server(claims).url
    context = Context(redis_url=url, bank=f"test-{uuid.uuid4().hex}", timeout_s=DEADLINE_S, variant=variant)
    with action.prepared(context) as changed, kind.open(changed) as accounts:
        action.armed()
        yield action, accounts


def lost_by_power_cut(environment: Environment, variant: str, seed: int, load_s: float) -> tuple[int, int]:
    """Acknowledged deposits, and how many of them were lost."""
    with prepared(environment, Fault.POWER_LOSS, variant, seed) as (action, accounts), Depositors(accounts) as load_:
        time.sleep(load_s)
        action.inject(accounts)
        load_.stop()
        action.heal()
        return load_.total, load_.total - load_.kept()


@WATCHED
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_synced_at_every_change_nothing_is_lost(environment: Environment, seed: int) -> None:
    acknowledged, lost = lost_by_power_cut(environment, ALWAYS, seed, random.Random(seed).uniform(0.5, 1.0))
    assert acknowledged
    assert lost == 0


@WATCHED
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_synced_every_second_the_last_of_them_is_lost(environment: Environment, seed: int) -> None:
    acknowledged, lost = lost_by_power_cut(environment, EVERYSEC, seed, random.Random(seed).uniform(2.5, 3.2))
    assert 0 < lost < acknowledged


@WATCHED
def test_never_synced_all_is_lost(environment: Environment) -> None:
    acknowledged, lost = lost_by_power_cut(environment, VOLATILE, 1, 0.5)
    assert lost == acknowledged > 0


@WATCHED
def test_a_server_that_lies_about_its_syncs_is_found() -> None:
    """It says that it is set to `always`, and its log is handed to the kernel only."""
    kind = load("redis_lua")
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(Durability.POWER_LOSS, settings={"appendfsync": "no"}, watched=True))
        accounts = stack.enter_context(kind.open(Context(redis_url=server.url, timeout_s=DEADLINE_S)))
        with Depositors(accounts) as depositors:
            time.sleep(0.5)
            server.lose_power()
        server.start()
        assert depositors.total
        assert depositors.kept() == 0


@WATCHED
def test_service_resumes_with_the_same_handle(environment: Environment) -> None:
    with prepared(environment, Fault.POWER_LOSS, ALWAYS, 1) as (action, accounts):
        accounts.open_account("account", 5)
        with redis.Redis.from_url(action.store.url) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert action.store is not environment.server(load("redis_lua").claims(ALWAYS))
        struck = action.inject(accounts)
        assert "never synced" in struck
        with pytest.raises(Unavailable):
            accounts.deposit("account", 1)
        action.heal()
        assert accounts.deposit("account", 1).balance == 6
        action.store.kill()
        with pytest.raises(faults.NotInjected):
            action.inject(accounts)


# -- a full disk -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
@pytest.mark.parametrize("variant", [EVERYSEC, ALWAYS])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_full_disk_refuses_and_loses_nothing(environment: Environment, variant: str, seed: int) -> None:
    """`everysec` refuses changes until there is space; `always` ends the server at the first that it cannot write."""
    server = environment.server(load("redis_lua").claims(variant))

    def largest() -> int:
        return max(path.stat().st_size for path in server.directory.rglob("*") if path.is_file())

    with prepared(environment, Fault.DISK_FULL, variant, seed) as (action, accounts):
        with Depositors(accounts, pause_s=0.002) as depositors:
            time.sleep(0.2)
            action.inject(accounts)
            full = largest() + storage_faults._ROOM_BYTES
            deadline = time.monotonic() + 10
            while not depositors.refusals:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.3)
            assert largest() <= full
            assert server.runs == (variant == EVERYSEC)
            refused, acknowledged = len(depositors.refusals), depositors.total
            assert refused > 1
            action.heal()
            while depositors.total == acknowledged:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert depositors.longest_s < DEADLINE_S + 1
        assert depositors.kept() == depositors.total
        time.sleep(1.2 if variant == EVERYSEC else 0)  # what could not be written is tried again once a second
        server.kill()
        server.start()
        assert depositors.kept() == depositors.total


# -- whom they reach -------------------------------------------------------------------------------


def test_whom_they_reach() -> None:
    redis_claims = {variant: load("redis_lua").claims(variant) for variant in (VOLATILE, EVERYSEC, ALWAYS)}
    memory = Capabilities(callers=frozenset({Caller.DRIVER}))
    assert "in memory only" in str(PowerLoss.out_of_reach(memory, Caller.DRIVER))
    assert [PowerLoss.out_of_reach(each, Caller.TASK) for each in redis_claims.values()] == [None] * 3
    assert "in memory only" in str(DiskFull.out_of_reach(memory, Caller.DRIVER))
    embedded = replace(memory, needs=frozenset({Resource.DIRECTORY}), durability=Durability.PROCESS_CRASH)
    written_by_workers = replace(embedded, needs=embedded.needs | {Resource.DASK})
    for kind in (PowerLoss, DiskFull):
        assert kind.out_of_reach(embedded, Caller.DRIVER) is None
        assert "Dask workers" in str(kind.out_of_reach(embedded, Caller.TASK))
        assert "Dask workers" in str(kind.out_of_reach(written_by_workers, Caller.DRIVER))
    assert "nothing to a disk" in str(DiskFull.out_of_reach(redis_claims[VOLATILE], Caller.DRIVER))
    assert DiskFull.out_of_reach(redis_claims[EVERYSEC], Caller.DRIVER) is None
    assert DiskFull.out_of_reach(redis_claims[ALWAYS], Caller.DRIVER) is None


@pytest.mark.parametrize("kind", [PowerLoss, DiskFull])
def test_a_users_server_is_left_alone(kind: type[PowerLoss] | type[DiskFull]) -> None:
    claims = load("redis_lua").claims(ALWAYS)
    users: Any = SimpleNamespace(users_server=lambda _: "leave --redis-url out", owns_cluster=True)
    assert "--redis-url" in str(kind.missing(users, claims))
    own: Any = SimpleNamespace(users_server=lambda _: None, owns_cluster=True)
    if sys.platform == "linux" and sync_watch.missing() is None:
        assert kind.missing(own, claims) is None


def test_without_seccomp_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc")
    assert "Linux 5.0" in str(sync_watch.missing())
