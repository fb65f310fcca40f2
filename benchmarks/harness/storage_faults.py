"""Faults of storage: what was never flushed is lost with the power; the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.harness import embedded_store, sync_watch
from benchmarks.harness.embedded_store import EmbeddedStore
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.servers import Server, kind_for, limit_files
from strategies.interface import Accounts, Caller, Capabilities, Context, Durability, Fault

_ROOM_BYTES = 2048
"""The most that still fits on a full disk: some operations, the last of them in part."""


class PowerLoss(FaultAction):
    """SIGKILL of who writes the files, and these are as they were at their last sync, which the harness answers.

    Which outcome of the many that a power cut could have is said in `sync_watch` and `durable_files`.
    """

    fault = Fault.POWER_LOSS
    target = "the store's process (of an embedded store, its caller's) and what its files had not been synced of"
    emulates = (
        "a power cut, on a disk that keeps what it says it has flushed: of all outcomes, the one that keeps least"
    )
    healed_by = "a restart on what is left, at the same address, after a quarter of a second"
    cannot_show = (
        "disks that lie about a flush, sectors written in part, and unsynced bytes that were written by chance, "
        "out of order; syncs cost about 0.3 ms more than without the harness in between"
    )
    callers_go_on = True
    store: Server | EmbeddedStore

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        kind = kind_for(claims)
        return kind.not_watched if kind is not None else embedded_store.out_of_reach(claims, caller)

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return environment.users_server(claims) or sync_watch.missing()

    @property
    def lasts_s(self) -> float:
        return 0.25

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        kind = kind_for(self.claims)
        if kind is not None:
            with kind(self.claims.durability, nodes=self.claims.nodes, watched=True) as self.store:
                yield kind.found_at(self.store.url, context)
            return
        with EmbeddedStore(watched=True) as self.store:
            self.child = self.store.driver
            yield replace(context, directory=self.store.directory)

    def armed(self) -> None:
        # A bank that loses its opening shows only that it is young.
        self.store.await_synced()

    def inject(self, accounts: Accounts) -> str:
        who = "the server" if self.child is None else "the driver process"
        if not self.store.runs:
            raise NotInjected(f"{who} was gone already")
        lost = self.store.lose_power()
        return f"{who} and {lost.appended_bytes:,} bytes that were never synced"

    def heal(self) -> None:
        self.store.start()
        if isinstance(self.store, EmbeddedStore):
            self.child = self.store.driver


class DiskFull(FaultAction):
    """No file may grow beyond what the log has, and a little: RLIMIT_FSIZE of who writes it, set while it runs."""

    fault = Fault.DISK_FULL
    target = "the store's log"
    emulates = "a full file system: writes are done in part, then fail, until there is space again"
    healed_by = "space, and a restart where the server ended itself"
    cannot_show = (
        "ENOSPC at once (a write in part, then EFBIG: Valkey and Redis treat them the same), other files that are "
        "full too, and a sync that fails where the write was taken"
    )
    store: Server | EmbeddedStore

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        kind = kind_for(claims)
        if kind is None:
            return embedded_store.out_of_reach(claims, caller)
        if claims.durability is Durability.VOLATILE and not kind.always_writes:
            return "it writes nothing to a disk"
        return None

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        if not hasattr(resource, "prlimit"):
            return "a running process's limits are set by prlimit, which is Linux's; run on Linux"
        return environment.users_server(claims)

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        if kind_for(self.claims) is not None:
            self.store = self.environment.server(self.claims)
            yield context
            return
        with EmbeddedStore(watched=False) as self.store:
            self.child = self.store.driver
            yield replace(context, directory=self.store.directory)

    def inject(self, accounts: Accounts) -> str:
        if not self.store.runs:
            raise NotInjected("who writes to the disk was gone already")
        room = self.chance.randrange(_ROOM_BYTES)
        self._pid = self.store.pid
        self._limit(self._log_bytes() + room)
        return f"the disk, with room for {room:,} bytes"

    def heal(self) -> None:
        if self.store.runs:
            self._limit(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
        else:
            self.store.start()

    def _log_bytes(self) -> int:
        """How far the log is written: the largest file's size, unless the store knows better."""
        known = self.store.log_bytes() if isinstance(self.store, Server) else None
        sizes = [path.stat().st_size for path in self.store.directory.rglob("*") if path.is_file()]
        return max(sizes) if known is None else known

    def _limit(self, size: int) -> None:
        if isinstance(self.store, Server):
            self.store.limit_files(self._pid, size)
        else:
            limit_files(self._pid, size)
