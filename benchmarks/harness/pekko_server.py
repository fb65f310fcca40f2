"""This project's Pekko service, of the harness's own: one node, or two that share a directory."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.harness import java
from benchmarks.harness.proxied_cluster import free_addresses
from benchmarks.harness.servers import ResourceError, Server, ServerFailed, without_secret
from strategies.interface import Durability, Resource
from strategies.support.pekko_link import BATCH, Address, addresses

_JAVA = 17
_JARS = "pekko"
_STARTS = 5
_POLL_S = 0.01
_ASK_S = 2.0
"""Of a node that is there, the first time it starts a ledger."""

_GONE, _REFUSED = 1, 2
"""Statuses of answers: there is no such ledger, which its place and its log were asked for; it cannot be any."""
_NOBODYS = b"ready"
"""Name of a ledger that nobody opens."""


class PekkoServer(Server):
    """The nodes, each a JVM with a port for clients and one for the other node.

    Faults strike the oldest node: it leads the cluster and tells where ledgers are, so its loss is felt the longest.
    """

    resource = Resource.PEKKO
    product = "Pekko"
    url_field = "pekko_url"
    client_module = "msgpack"
    option = "--pekko-url"
    remedy = "start its nodes with another state-bench.fsync"
    ready_s = 30.0
    not_watched = "a node's JVM syncs nothing of the events that it acknowledges: a power cut loses all of a trial's"
    # A node that leaves in order hands its ledgers over first, which takes seconds; here its data is deleted anyway.
    _stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ports: list[int] = []
        self._ports_of_nodes: list[int] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        """By the node's port for clients, the oldest first."""

    @classmethod
    def find_program(cls) -> Path:
        """Java; the jars are looked for too."""
        java.jars(_JARS)
        return java.runtime(_JAVA)

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        return java.versions(_JARS, "pekko-actor-typed_2.13")

    @classmethod
    def durability_of(cls, url: str) -> Durability | None:
        try:
            nodes = addresses(url)
        except ValueError as error:
            raise ResourceError(f"--pekko-url: {error}") from None
        for node in nodes:
            try:
                if _status(node, b"") == _REFUSED:
                    return None
                problem = "what answers there is another service"
            except OSError as error:
                problem = str(error)
        raise ResourceError(f"the Pekko service at {without_secret(url)} cannot be used: {problem}; check --pekko-url")

    @property
    def url(self) -> str:
        return f"pekko://{','.join(f'{self._host}:{port}' for port in self._ports)}"

    @property
    def runs(self) -> bool:
        """Whether all nodes do."""
        return len(self._running) == self.nodes and all(each.poll() is None for each in self._running.values())

    @property
    def pid(self) -> int:
        """Of the oldest node."""
        return self.pids[0]

    @property
    def pids(self) -> list[int]:
        return [each.pid for each in self._running.values()]

    @property
    def oldest(self) -> int:
        """The place of the oldest node in the URL."""
        return self._ports.index(next(iter(self._running)))

    def start(self) -> None:
        for _ in range(_STARTS):
            is_first = not self._ports
            if is_first:
                ports = [port for _, port in free_addresses(2 * self.nodes)]
                self._ports, self._ports_of_nodes = ports[: self.nodes], ports[self.nodes :]
            self._running = {port: each for port, each in self._running.items() if each.poll() is None}
            for port in self._ports:
                if port not in self._running:
                    self._running[port] = self._spawn(port)
            if self._all_answer():
                return
            self._reap()
            if not is_first:
                break  # it must come back where its clients look for it
            self._ports = []
        raise ServerFailed(f"the Pekko server did not start; its log ends: {' | '.join(self.log_tail())}")

    def kill(self) -> None:
        """SIGKILL of the oldest node."""
        self._kill(self._ports[self.oldest])

    def pause(self) -> None:
        """SIGSTOP of the oldest node."""
        self._running[self._ports[self.oldest]].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)

    def _kill(self, port: int) -> None:
        process = self._running.pop(port)
        process.kill()
        process.wait()

    def _reap(self) -> None:
        for port in list(self._running):
            self._kill(port)

    def _all_answer(self) -> bool:
        deadline = time.monotonic() + self.ready_s
        left = list(self._ports)
        while left and time.monotonic() < deadline and self.runs:
            try:
                if self._is_ready(left[0]):
                    left.pop(0)
                    continue
            except OSError:
                pass
            time.sleep(_POLL_S)
        return not left and self.runs

    def _is_ready(self, port: int) -> bool:
        return _status((self._host, port), _NOBODYS) == _GONE

    def _command(self, port: int) -> Sequence[str]:
        jar = java.JARS / _JARS / "state-bench-pekko.jar"
        own = self._ports_of_nodes[self._ports.index(port)]
        properties: dict[str, Any] = {
            "java.io.tmpdir": self._directory,
            "state-bench.host": self._host,
            "state-bench.port": port,
            "state-bench.directory": self._data,
            "state-bench.fsync": "on" if self.durability is Durability.POWER_LOSS else "off",
            "pekko.remote.artery.canonical.port": own,
        }
        if self.nodes > 1:
            for place, each in enumerate(self._ports_of_nodes):
                properties[f"pekko.cluster.seed-nodes.{place}"] = f"pekko://state-bench@127.0.0.1:{each}"
        properties |= self._settings
        return [
            str(self._program),
            "-XX:+UseSerialGC",
            # The first compiler only: a node is ready, and at its speed, in half of the time.
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",  # a file in the common temporary directory
            "-Xmx512m",
            # Where it does not fit this JVM, it is not used.
            f"-XX:SharedArchiveFile={jar.with_name('classes.jsa')}",
            "-Xlog:disable",
            *(f"-D{name}={value}" for name, value in properties.items()),
            "-jar",
            str(jar),
        ]

    def _process_options(self) -> dict[str, Any]:
        return {"cwd": self._directory}  # where a JVM that crashes says why


def _status(node: Address, ledger: bytes) -> int | None:
    """What the node says to a batch for this ledger; None where that is no answer."""
    with socket.create_connection(node, _ASK_S) as connection:
        request = struct.pack(">IBQB", 0, BATCH, 0, len(ledger)) + ledger
        connection.sendall(struct.pack(">I", len(request)) + request)
        head = connection.recv(9)
        return head[8] if len(head) == 9 else None
