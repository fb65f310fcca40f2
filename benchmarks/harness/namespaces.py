"""A network namespace joined to this machine's own by one link, which can be taken down or slowed. As root, on Linux.

It has no name, only a process that holds it, and no route but that of its link: when the harness ends, however that
happens, it is gone, and nothing leaves it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness.helper_process import HelperFailed, HelperProcess

_CLONE_NEWNET = 0x40000000
_COMMAND_S = 10.0
_TRIES = 20


class NamespaceError(RuntimeError):
    """A command of iproute2 failed; the message is its own."""


@cache
def missing() -> str | None:
    """Why there can be no such namespace here, with what helps; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's; run on Linux"
    if os.geteuid():
        return "network namespaces need root; run as root (sudo)"
    if not shutil.which("ip"):
        return "the program ip is missing; install iproute2"
    try:
        with Namespace():
            return None
    except (HelperFailed, NamespaceError) as error:
        return f"no network namespace can be made: {error}; run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN"


@cache
def netem_missing() -> str | None:
    """Why packets cannot be slowed here, with what helps; None if they can."""
    lacking = missing()
    if lacking:
        return lacking
    if not shutil.which("tc"):
        return "the program tc is missing; install iproute2"
    with Namespace() as namespace:
        try:
            namespace.slow(1.0, 0.0, 0.0)
        except NamespaceError as error:
            return f"the kernel has no netem ({error}); run: modprobe sch_netem, or take a kernel that has it"
    return None


class Namespace:
    """Made with its link up. Use as a context manager."""

    def __init__(self) -> None:
        token = secrets.token_hex(3)
        self._outside, self._inside = f"dsb-{token}h", f"dsb-{token}n"
        network = _free_network()
        gateway, host = network.hosts()
        self.host = str(host)
        """Its address, for servers in it to listen at."""
        self._holder = HelperProcess(__name__)
        try:
            self._holder.ask("ready")
            _run("ip", "link", "add", self._outside, "type", "veth", "peer", self._inside, "netns", self._pid)
            _run("ip", "address", "add", f"{gateway}/{network.prefixlen}", "dev", self._outside)
            self._run_inside("ip", "address", "add", f"{host}/{network.prefixlen}", "dev", self._inside)
            _run("ip", "link", "set", self._outside, "up")
            self._run_inside("ip", "link", "set", "lo", "up")
            self.up()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """For processes that are to enter it."""
        return Path(f"/proc/{self._pid}/ns/net")

    @property
    def link(self) -> str:
        """The link's name on this side."""
        return self._outside

    def down(self) -> None:
        """Take its end of the link down. Not the other: without a route, packets would try the default one."""
        self._run_inside("ip", "link", "set", self._inside, "down")

    def up(self) -> None:
        """And up again."""
        self._run_inside("ip", "link", "set", self._inside, "up")

    def slow(self, delay_ms: float, jitter_ms: float, loss_percent: float) -> None:
        """Delay and lose packets in both directions, by netem."""
        how = ("netem", "delay", f"{delay_ms:g}ms", f"{jitter_ms:g}ms", "loss", f"{loss_percent:g}%")
        _run("tc", "qdisc", "replace", "dev", self._outside, "root", *how)
        self._run_inside("tc", "qdisc", "replace", "dev", self._inside, "root", *how)

    def unslow(self) -> None:
        """Neither delay nor lose any more."""
        _run("tc", "qdisc", "delete", "dev", self._outside, "root")
        self._run_inside("tc", "qdisc", "delete", "dev", self._inside, "root")

    def close(self) -> None:
        """Remove the link, and the namespace when the last process in it ends. Idempotent."""
        with suppress(NamespaceError):  # it was not made, or is gone already
            _run("ip", "link", "delete", self._outside)
        self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _pid(self) -> str:
        return str(self._holder.pid)

    def _run_inside(self, *command: str) -> None:
        problem = self._holder.ask("run", command=command)
        if problem:
            raise NamespaceError(problem)


def main(control: socket.socket) -> None:
    """In the helper: hold a namespace, and run commands in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    with control.makefile("rb") as questions:
        for question in questions:  # ends with the harness
            answer = _problem(json.loads(question).get("command", ()))
            control.sendall(json.dumps({"answer": answer}).encode() + b"\n")


def _problem(command: tuple[str, ...]) -> str | None:
    if not command:
        return None
    try:
        _run(*command)
    except NamespaceError as error:
        return str(error)
    return None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NamespaceError(f"{' '.join(command)} did not end within {_COMMAND_S:.0f} s") from error
    if done.returncode:
        raise NamespaceError(f"{' '.join(command)}: {' '.join(done.stderr.split())}")
    return done.stdout


def _free_network() -> ipaddress.IPv4Network:
    """Of two hosts, at random in 10.0.0.0/8, and in no network that this machine has a route to."""
    routes = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all"))
        if route["dst"] != "default"
    ]
    for _ in range(_TRIES):
        network = ipaddress.IPv4Network((0x0A000000 | secrets.randbelow(1 << 22) << 2, 30))
        if not any(network.overlaps(route) for route in routes):
            return network
    raise NamespaceError("no free network was found in 10.0.0.0/8; remove a route to all of it")
