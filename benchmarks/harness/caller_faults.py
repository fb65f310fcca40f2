"""Faults of those who call: their task fails, their worker dies, their driver dies. The state lives elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.harness.driver_processes import DriverProcess
from benchmarks.harness.environment import Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.process_faults import kill
from strategies.interface import Accounts, Caller, Capabilities, Context, Fault

_NO_TASK = "no task calls it"
_USERS_CLUSTER = "the cluster is not the harness's to break; leave --scheduler out"


class CallingTaskKill(FaultAction):
    """SIGKILL of a worker that runs a calling task and holds no state."""

    fault = Fault.CALLING_TASK_KILL
    target = "a worker that runs a calling task and holds no state: one more is started for it"
    emulates = "a worker lost to preemption or memory while its task was changing state that lives elsewhere"
    healed_by = "Dask, which begins the dead worker's tasks again on others; its nanny starts a blank worker"
    cannot_show = "a task that Dask gives up because its workers died too often (allowed-failures)"

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if caller is Caller.TASK else _NO_TASK

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return None if environment.owns_cluster else _USERS_CLUSTER

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with ExitStack() as self._stack:
            yield context

    def armed(self) -> None:
        self._spare = self._stack.enter_context(self.environment.spare_worker())

    def inject(self, accounts: Accounts) -> str:
        pid = self.environment.worker_pids().get(self._spare)
        if pid is None:
            raise NotInjected("the worker that was to be killed is gone already")
        kill(pid)
        return "a worker without state"

    def confirm(self, begun_again: int) -> None:
        _need_second_lives(begun_again)


class TaskRetry(FaultAction):
    """A calling task raises after a call, and Dask, which was told `retries=1`, runs it again from its beginning."""

    fault = Fault.TASK_RETRY
    target = "one of the calling tasks"
    emulates = "a task that fails for a reason of its own after it has changed state, submitted with `retries=`"
    healed_by = "Dask, which runs the task again"
    cannot_show = "a second attempt that takes another way than the first; here it repeats the same calls"
    fails_a_task = True

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if caller is Caller.TASK else _NO_TASK

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return None

    def inject(self, accounts: Accounts) -> str:
        return "a calling task, which raises by itself"

    def confirm(self, begun_again: int) -> None:
        _need_second_lives(begun_again)


class DriverKill(FaultAction):
    """SIGKILL of the process that opened the bank and calls it. Another attaches to it and does the work again."""

    fault = Fault.DRIVER_KILL
    target = "the process that opened the bank, with its Dask client"
    emulates = "a crashed notebook kernel or script that is started again, while the cluster and the store live on"
    healed_by = "a second process that attaches to the same bank and begins the same work again"
    cannot_show = (
        "the loss of a scheduler that lives in the driver's process, as a LocalCluster's does (scheduler_kill)"
    )

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if caller is Caller.DRIVER else "the driver does not call; its tasks end with it"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return None

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with ExitStack() as self._stack:
            self.child = self._stack.enter_context(DriverProcess())
            yield context

    def inject(self, accounts: Accounts) -> str:
        assert self.child is not None
        if not self.child.runs:
            raise NotInjected("the driver process was gone already")
        self.child.kill()
        return "the driver process"

    def heal(self) -> None:
        self.child = self._stack.enter_context(DriverProcess())


def _need_second_lives(begun_again: int) -> None:
    if not begun_again:
        raise NotInjected("no calling task was there when the fault was due, or none was begun again")
