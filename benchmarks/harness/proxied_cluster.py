"""A Dask cluster whose workers are reached through a proxy, by everybody: scheduler, clients and each other."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.harness import scratch
from benchmarks.harness.environment import interrupts_blocked
from benchmarks.harness.proxy import Address, Proxy

if TYPE_CHECKING:
    from distributed import Client

_READY_S = 60.0
_HOST = "127.0.0.1"


def free_addresses(count: int) -> list[Address]:
    """On loopback, for servers that are about to listen."""
    probes = [socket.create_server((_HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname() for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def cluster(workers: list[Address], proxy: Proxy, threads_per_worker: int) -> Iterator[Client]:
    """Workers that listen at these addresses and tell everybody that they are at the proxy's; yields a client.

    Their own connections to the scheduler do not lead through the proxy.
    """
    from distributed import Client, Nanny, Scheduler, SpecCluster

    own = {"host": _HOST, "dashboard_address": f"{_HOST}:0"}
    with scratch.directory("dask") as directory:
        specification = {
            name: {
                "cls": Nanny,
                "options": own
                | {
                    "worker_port": port,
                    "contact_address": f"tcp://{host}:{contact}",
                    "nthreads": threads_per_worker,
                    "local_directory": str(directory),
                    "silence_logs": logging.CRITICAL,
                },
            }
            for name, ((_, port), (host, contact)) in enumerate(zip(workers, proxy.addresses, strict=False))
        }
        with interrupts_blocked():
            made = SpecCluster(
                workers=specification, scheduler={"cls": Scheduler, "options": own}, silence_logs=logging.CRITICAL
            )
        with made, Client(made, set_as_default=False) as client:
            client.wait_for_workers(len(workers), timeout=_READY_S)
            yield client
