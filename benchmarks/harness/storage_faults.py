"""Faults of storage: what was never flushed is lost with the power; the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import sync_watch
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.servers import Server, kind_for
from strategies.interface import Accounts, Caller, Capabilities, Context, Durability, Fault

_ROOM_BYTES = 2048
"""The most that still fits on a full disk: some operations, the last of them in part."""


class PowerLoss(FaultAction):
    """SIGKILL of the server, and its files are as they were at their last sync. Its syncs are answered by the harness.

    Which outcome of the many that a power cut could have is said in `sync_watch` and `durable_files`.
    """

    fault = Fault.POWER_LOSS
    target = "the external store's process and what its files had not been synced of"
    emulates = (
        "a power cut, on a disk that keeps what it says it has flushed: of all outcomes, the one that keeps least"
    )
    healed_by = "a restart on what is left, at the same address, after a quarter of a second"
    cannot_show = (
        "disks that lie about a flush, sectors written in part, and unsynced bytes that were written by chance, "
        "out of order; syncs cost about 0.3 ms more than without the harness in between"
    )
    server: Server

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        kind = kind_for(claims)
        if kind is not None:
            return kind.not_watched
        return "its state is in memory only: a power cut takes all of it, and there is nothing to measure"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return environment.users_server(claims) or sync_watch.missing()

    @property
    def lasts_s(self) -> float:
        return 0.25

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        kind = kind_for(self.claims)
        assert kind is not None
        with kind(self.claims.durability, nodes=self.claims.nodes, watched=True) as self.server:
            yield kind.found_at(self.server.url, context)

    def armed(self) -> None:
        # A bank that loses its opening shows only that it is young.
        self.server.await_synced()

    def inject(self, accounts: Accounts) -> str:
        if not self.server.runs:
            raise NotInjected("the server was gone already")
        lost = self.server.lose_power()
        return f"the server and {lost.appended_bytes:,} bytes that were never synced"

    def heal(self) -> None:
        self.server.start()


class DiskFull(FaultAction):
    """No file of the server may grow beyond what its log has, and a little: RLIMIT_FSIZE, set while it runs."""

    fault = Fault.DISK_FULL
    target = "the external store's append-only file"
    emulates = "a full file system: writes are done in part, then fail, until there is space again"
    healed_by = "space, and a restart where the server ended itself"
    cannot_show = (
        "ENOSPC at once (a write in part, then EFBIG: Valkey and Redis treat them the same), other files that are "
        "full too, and a sync that fails where the write was taken"
    )
    server: Server

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        if kind_for(claims) and claims.durability is not Durability.VOLATILE:
            return None
        return "it writes nothing to a disk"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        if not hasattr(resource, "prlimit"):
            return "a running server's limits are set by prlimit, which is Linux's; run on Linux"
        return environment.users_server(claims)

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    def inject(self, accounts: Accounts) -> str:
        self.server = self.environment.server(self.claims)
        if not self.server.runs:
            raise NotInjected("the server was gone already")
        sizes = [path.stat().st_size for path in self.server.directory.rglob("*") if path.is_file()]
        room = self.chance.randrange(_ROOM_BYTES)
        self._usual, most = resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (max(sizes) + room, most))
        return f"the server's disk, with room for {room:,} bytes"

    def heal(self) -> None:
        if self.server.runs:
            _, most = resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (self._usual, most))
        else:
            self.server.start()
