"""A ZooKeeper server of the harness's own, or an ensemble of them."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import java
from benchmarks.harness.durable_files import Lost
from benchmarks.harness.servers import (
    ResourceError,
    Server,
    ServerFailed,
    addresses_of,
    at_addresses,
    free_port,
    without_secret,
)
from strategies.interface import Durability, Resource

_OLDEST_JAVA = 8
_CONNECT_S = 10.0
_ASK_S = 1.0
_TRIES = 3
_POLL_S = 0.01
_LOG_LINES = 5
_MOST_BYTES = 4096
_ELECTION_S = 20.0
"""For an ensemble to have a leader whom all follow, on a busy machine."""
_DEFAULT_PORT = 2181

_JVM = (
    "-XX:+UseSerialGC",
    # Half the processor time: on two cores an ensemble made 1,330 changes a second with it and 650 without, in the
    # first five seconds of its life.
    "-XX:TieredStopAtLevel=1",
    # KiB by which the log's file grows ahead of what is in it. As fast as the usual 64 MiB here; those would keep a
    # full disk from being felt, and be compared at each sync of a watched server.
    "-Dzookeeper.preAllocSize=64",
    "-XX:-UsePerfData",  # nothing in the temporary folder
    "-Xmx512m",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dzookeeper.jmx.log4j.disable=true",
)

_FORCE_SYNC = {Durability.PROCESS_CRASH: "no", Durability.POWER_LOSS: "yes", Durability.REPLICATED: "yes"}
"""Whether the log is on disk before an answer, as each durability class's promise needs it."""

_SETTINGS = {
    "admin.enableServer": "false",
    "maxClientCnxns": "0",
    "maxSessionTimeout": "60000",
    "tickTime": "500",
    "initLimit": "20",
    "syncLimit": "4",  # ticks: a leader that hangs is given up after 2 s
}


class _Node(Server):
    """One server process, alone or as one of an ensemble."""

    resource = Resource.ZOOKEEPER
    product = "ZooKeeper"
    url_field = "zookeeper_url"
    client_module = "kazoo"
    extra = Resource.ZOOKEEPER
    option = "--zookeeper-url"
    remedy = "give the URL of one that does"

    peers: Sequence[str] = ()
    """Where each of its ensemble is reached by the others; empty where there is none."""
    place = 0
    """Its own among them."""

    @classmethod
    def find_program(cls) -> Path:
        """Java, if the jars are there too."""
        found = java.runtime(_OLDEST_JAVA)
        java.jars(cls.resource)
        return found

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        return java.versions(cls.resource, "zookeeper")

    @classmethod
    def durability_of(cls, url: str) -> Durability | None:
        """An ensemble says that it is one; whether a server syncs its log, it does not say."""
        problem: Exception | None = None
        try:
            for host, port in addresses_of(url):
                try:
                    mode = _mode(host, port or _DEFAULT_PORT, _CONNECT_S)
                except OSError as error:
                    problem = error
                else:
                    return Durability.REPLICATED if mode in ("leader", "follower", "observer") else None
        except ValueError as error:
            problem = error
        raise ResourceError(
            f"the ZooKeeper server at {without_secret(url)} cannot be used: {problem}; check {cls.option}"
        )

    @property
    def url(self) -> str:
        return f"{self.resource}://{self._host}:{self._port}"

    @property
    def mode(self) -> str:
        """`standalone`, `leader` or `follower`; empty where it serves nobody."""
        try:
            return _mode(self._host, self._port, _ASK_S)
        except OSError:
            return ""

    def await_synced(self) -> None:
        """As if the kernel had written all back by now: the first snapshot is never synced. Nobody writes meanwhile."""
        assert self.watch is not None
        self.watch.settle()

    def log_tail(self) -> list[str]:
        """What it says of an error stands above where in Java it came from."""
        path = self._directory / "log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else ["(there is none)"]
        return [line for line in lines if not line.startswith("\t")][-_LOG_LINES:]

    def _command(self, port: int) -> Sequence[str]:
        settings: dict[str, Any] = {
            **_SETTINGS,
            "dataDir": self._data,
            "clientPort": port,
            "clientPortAddress": self._host,
            **{f"server.{number}": peer for number, peer in enumerate(self.peers, start=1)},
            **self._settings,
        }
        configuration = self._directory / "zoo.cfg"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if self.peers:
            (self._data / "myid").write_text(f"{self.place + 1}\n")
        return [
            str(self._program),
            *_JVM,
            f"-Djava.io.tmpdir={self._directory}",
            f"-XX:ErrorFile={self._directory}/java-crash",
            f"-Dzookeeper.forceSync={_FORCE_SYNC[self.durability]}",
            *("-cp", ":".join(map(str, java.jars(self.resource)))),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(configuration),
        ]

    def _is_ready(self, port: int) -> bool:
        """One of an ensemble is not waited for: it serves nobody before the others are there."""
        return bool(self.peers or _mode(self._host, port, _ASK_S))


class ZookeeperServer(_Node):
    """As many as `nodes`. What befalls an ensemble befalls its leader, and the others go on; the power fails for all.

    All listen on loopback; the nodes speak to each other there too where callers are let in by another address.
    """

    def __init__(self, durability: Durability, **options: Any) -> None:
        super().__init__(durability, **options)
        self._options = options
        self._members: Sequence[_Node] = ()
        self._started = ExitStack()
        self._paused: list[_Node] = []

    @property
    def directory(self) -> Path:
        return self._struck.directory

    @property
    def command(self) -> Sequence[str]:
        return self._struck.command

    @property
    def runs(self) -> bool:
        """Whether all do."""
        return bool(self._members) and all(member.runs for member in self._members)

    @property
    def pid(self) -> int:
        """Of the leader, or the only one."""
        return self._struck.pid

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self._members]

    @property
    def url(self) -> str:
        return at_addresses(
            f"{self.resource}://", [address for member in self._members for address in addresses_of(member.url)]
        )

    def start(self) -> None:
        if self._members:
            self._start_members()
            return
        for tried in range(1, _TRIES + 1):
            try:
                self._make_members()
                return
            except ServerFailed:
                self._started.close()
                self._members = ()
                if self.nodes == 1 or tried == _TRIES:
                    raise
            # A port that was free for the nodes to meet at may be another's by now.

    def log_tail(self) -> list[str]:
        return [line for member in self._members for line in member.log_tail()]

    def kill(self) -> None:
        self._struck.kill()

    def pause(self) -> None:
        self._paused = [self._struck]
        for member in self._paused:
            member.pause()

    def resume(self) -> None:
        for member in self._paused:
            member.resume()
        self._paused = []

    def lose_power(self) -> Lost:
        """All of them at once."""
        for member in self._members:
            member.kill()
        lost = [member.lose_power() for member in self._members]
        return Lost(sum(each.files for each in lost), sum(each.appended_bytes for each in lost))

    def await_synced(self) -> None:
        for member in self._members:
            member.await_synced()

    def stop(self) -> None:
        self._started.close()
        super().stop()

    @property
    def _struck(self) -> _Node:
        """The leader; while there is none, the first that runs, or the first."""
        if len(self._members) > 1:
            leading = [member for member in self._members if member.mode == "leader"]
            return [*leading, *(member for member in self._members if member.runs), *self._members][0]
        return self._members[0]

    def _make_members(self) -> None:
        self._members = [_Node(self.durability, **self._options) for _ in range(self.nodes)]
        for member in self._members:
            self._started.callback(member.stop)
        if self.nodes > 1:
            peers = [f"127.0.0.1:{free_port()}:{free_port()}:participant" for _ in self._members]
            for place, member in enumerate(self._members):
                member.peers, member.place = peers, place
        self._start_members()

    def _start_members(self) -> None:
        for member in self._members:
            if not member.runs:
                member.start()
        deadline = time.monotonic() + _ELECTION_S
        while not all(member.mode for member in self._members):
            if time.monotonic() > deadline or not self.runs:
                raise ServerFailed(
                    f"the {self.product} ensemble has no leader; logs end: {' | '.join(self.log_tail())}"
                )
            time.sleep(_POLL_S)


def _mode(host: str, port: int, timeout_s: float) -> str:
    """What the server there is by its own word; empty where it serves nobody yet. Raises OSError: nobody answers."""
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(b"srvr")
        said = b""
        while len(said) < _MOST_BYTES and (chunk := connection.recv(_MOST_BYTES)):  # it hangs up when it has said all
            said += chunk
    found = re.search(rb"Mode: (\w+)", said)
    return found[1].decode() if found else ""
