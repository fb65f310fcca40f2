"""A Ray head node of the harness's own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.harness import ray_head
from benchmarks.harness.servers import ResourceError, Server, ServerMissing, without_secret
from strategies.interface import Durability, Resource
from strategies.support import ray_link
from strategies.support.fates import NotSent
from strategies.support.ray_host import RayHost

_CPUS = 2
"""Tasks at a time; actors take none. Ray starts as many idle processes as soon as somebody connects."""
_STORE_BYTES = 80_000_000
"""Of the object store: Ray takes no less than 75 MiB."""
_ASK_S = 5.0
_ACTOR = f"ray::{RayHost.__name__}"
"""How Ray titles the process of one of our actors."""


class RayServer(Server):
    """A head node: its processes are the head's program, GCS, raylet, agents, and a worker for each actor.

    What holds state are actors, so `kill` ends these alone, and whether they come back is Ray's business. The head
    stays: without it, Ray ends every process that is connected.
    """

    resource = Resource.RAY
    product = "Ray"
    url_field = "ray_url"
    option = "--ray-url"
    remedy = "there is no other"
    client_module = "ray"
    extra = "ray"
    ready_s = 30.0
    no_proxy = "callers, raylet and actors connect to each other at ports that they open and advertise themselves"
    not_watched = "its state is in memory only"
    _stop_signal = signal.SIGKILL  # there is nothing to save; Ray's own way to end takes seconds

    @classmethod
    def find_program(cls) -> Path:
        """This interpreter, by which `ray start` runs."""
        if cls.client_missing():
            raise ServerMissing(str(cls.client_missing()))
        return Path(sys.executable)

    @classmethod
    def durability_of(cls, url: str) -> Durability | None:
        """Actors' state is in memory, whatever the cluster."""
        shown = without_secret(url)
        try:
            deadline = time.monotonic() + _ASK_S
            ray_link.knock(ray_link.address_of(url), deadline)
            nodes = ray_link.in_time(deadline, lambda: _nodes(urlsplit(url).netloc))
        except (ValueError, NotSent) as error:
            raise ResourceError(f"the Ray cluster at {shown} cannot be used: {error}; check {cls.option}") from error
        if not nodes:
            raise ResourceError(f"the Ray cluster at {shown} has no node; start one, or leave {cls.option} out")
        return Durability.VOLATILE

    @property
    def url(self) -> str:
        return f"{ray_link.SCHEME}://{self._host}:{self._port}"

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes()]

    def start(self) -> None:
        """Nothing, after `kill`: the head is there."""
        if not self.runs:
            super().start()

    def kill(self) -> None:
        """SIGKILL of the actors' processes."""
        actors = [process for process in self._processes() if _title(process).startswith(_ACTOR)]
        for process in actors:
            process.kill()
        psutil.wait_procs(actors, _ASK_S)

    def pause(self) -> None:
        """SIGSTOP of all of it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """And disconnect this process: Ray would end it a minute after its head."""
        ray = sys.modules.get("ray")
        if ray is not None and self.runs and ray_link.is_connected(ray_link.address_of(self.url)):
            self.resume()
            ray.shutdown()
        super().stop()

    def _command(self, port: int) -> Sequence[str]:
        settings = {
            "node-ip-address": self._host,
            "port": port,
            "num-cpus": _CPUS,
            "num-gpus": 0,
            "object-store-memory": _STORE_BYTES,
            "temp-dir": self._directory,  # as short as can be: Ray's sockets are in it, with long names
            "include-dashboard": "false",
            "include-log-monitor": "false",
            # Any that are free, in place of fixed ones that a second head could not have.
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": 0,
            "log-color": "false",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        start = [str(self._program), "-P", ray_head.__file__, "start"]
        return [*start, "--head", "--block", "--no-monitor", "--disable-usage-stats", *options]

    def _process_options(self) -> dict[str, Any]:
        # Or everything listens on all interfaces, although the node's address is a loopback one.
        return {"env": os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}}

    def _is_ready(self, port: int) -> bool:
        # Who asks GCS before it serves, waits for 5 s. The raylet starts after it.
        if not (self._directory / "session_latest" / "sockets" / "raylet").is_socket():
            return False
        return bool(_nodes(f"{self._host}:{port}"))

    def _reap(self) -> None:
        processes = self._processes()
        super()._reap()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, _ASK_S)

    def _processes(self) -> list[psutil.Process]:
        if not self.runs:
            return []
        head = psutil.Process(self.pid)
        return [head, *head.children(recursive=True)]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _nodes(address: str) -> int:
    """How many nodes of the cluster run."""
    import ray

    # As `ray status` asks; the public ways need a dashboard, or a connected driver.
    return len(ray._raylet.GcsClient(address=address).get_all_node_info())


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
