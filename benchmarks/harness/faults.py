"""Ways to break what the harness started: each a small class with a reach, a blow and a remedy."""

from __future__ import annotations

import os
import random
import signal
import time
from abc import ABC, abstractmethod

from benchmarks.harness.environment import Environment
from strategies.interface import Capabilities, Fault, Resource


class NotInjected(RuntimeError):
    """The fault could not be applied, so the trial says nothing."""


class FaultAction(ABC):
    """One kind of fault."""

    fault: Fault
    emulates: str
    """What in the world this stands for."""

    @abstractmethod
    def out_of_reach(self, claims: Capabilities) -> str | None:
        """Why it cannot physically reach a strategy that needs these resources; None if it can."""

    @abstractmethod
    def missing(self, environment: Environment) -> str | None:
        """Why it cannot be applied here; None if it can. Only what the harness started is ever broken."""

    @abstractmethod
    def inject(self, environment: Environment, claims: Capabilities, random: random.Random) -> None:
        """Break it.

        Raises:
            NotInjected: there was nothing to break.
        """

    def heal(self, environment: Environment, claims: Capabilities) -> None:  # noqa: B027 - nothing is a remedy too
        """Bring back what an operator would bring back. What heals by itself is left alone."""


class WorkerKill(FaultAction):
    """SIGKILL of the worker that holds state; of any worker where none does. Its nanny starts a blank one."""

    fault = Fault.WORKER_KILL
    emulates = "a worker that the kernel's or the cluster's memory limit kills, a preempted node"

    def out_of_reach(self, claims: Capabilities) -> str | None:
        return None if claims.callers else "nothing of it runs near a Dask worker"

    def missing(self, environment: Environment) -> str | None:
        return None if environment.owns_cluster else "the cluster is not the harness's to break; leave --scheduler out"

    def inject(self, environment: Environment, claims: Capabilities, random: random.Random) -> None:
        pids = environment.worker_pids()
        holders = [address for address in environment.workers_with_actors() if address in pids]
        targets = holders or sorted(pids)
        if not targets:
            raise NotInjected("there was no worker to kill")
        _kill(pids[random.choice(targets)])


class ServerKill(FaultAction):
    """SIGKILL of the Redis server, then a restart on the same data directory and port."""

    fault = Fault.SERVER_KILL
    emulates = "a crash of the store's process under a supervisor that restarts it; the machine stays up"
    downtime_s = 0.25

    def out_of_reach(self, claims: Capabilities) -> str | None:
        return None if Resource.REDIS in claims.needs else "no server holds its state"

    def missing(self, environment: Environment) -> str | None:
        return None if environment.owns_redis else "the server is not the harness's to break; leave --redis-url out"

    def inject(self, environment: Environment, claims: Capabilities, random: random.Random) -> None:
        environment.redis_server(claims.durability).kill()

    def heal(self, environment: Environment, claims: Capabilities) -> None:
        time.sleep(self.downtime_s)
        environment.redis_server(claims.durability).start()


_ACTIONS = {kind.fault: kind() for kind in (WorkerKill, ServerKill)}


def load(fault: Fault) -> FaultAction:
    """What applies this fault."""
    return _ACTIONS[fault]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError as error:
        raise NotInjected(f"process {pid} was gone already") from error
