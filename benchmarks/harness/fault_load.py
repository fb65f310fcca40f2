"""Offers load while something breaks: every call is in a journal, so that what is killed leaves its history behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cloudpickle
import numpy as np

from benchmarks.harness import journal, load
from benchmarks.harness.driver_processes import DriverProcess, call_bank
from benchmarks.harness.generator import Client, Retry, Share, generate, generate_by_copy
from benchmarks.harness.history import DEPOSIT, Floats, History
from benchmarks.harness.probes import Probes
from benchmarks.harness.workloads import OPENING, Workload
from strategies.interface import Accounts

if TYPE_CHECKING:
    import distributed

_LEAD_S = 0.25
"""How long all callers wait for each other: what Dask takes to start a task on each worker, and some more."""
_PATIENCE_S = 30.0
"""More than a load takes beyond its time, also when a killed task is begun again."""
_POLL_S = 0.01
_TIMES_MAX = 30
"""Times that no operation is applied, however often its caller sends it: doubled pauses leave room for a dozen."""


@dataclass(frozen=True)
class FaultLoad:
    """One load. Each client has operations due at equal distances, whatever became of those before."""

    workload: Workload
    clients: int
    seconds: float
    """The longest that it can last; it is ended before."""
    probed_s: float
    """From its start, for how long probes are sent."""
    interval_s: float
    """Between one client's operations."""
    retry: Retry
    session: str
    seed: int
    directory: str
    """Of the journals."""
    goes_on: bool = False
    """Whether callers that are begun again go on where they were cut off."""

    @property
    def probes(self) -> Probes:
        """What one more client sends, to accounts of its own."""
        return Probes(len(self._probes_due_s), _TIMES_MAX, OPENING)

    @property
    def account_names(self) -> list[str]:
        """Of all accounts: the workload's, then the probes'."""
        return [*self.workload.account_names, *self.probes.accounts]

    def begin(self, processes: int) -> list[Share]:
        """A share for each process that calls. They begin soon: all at `start_ns`."""
        offered = load.Load(
            self.clients,
            self.seconds,
            load.Arrivals.CONSTANT,
            self.clients / self.interval_s,
            own_schedules=True,
        )
        shares = load.shares(self.workload, offered, self.session, self.seed, processes, lead_s=_LEAD_S)
        shares = [replace(share, journal=self.directory, retry=self.retry, goes_on=self.goes_on) for share in shares]
        probing = shares[-1]
        shares[-1] = replace(
            probing,
            clients=(*probing.clients, self._prober()),
            due_s=(*probing.due_s, self._probes_due_s),
            account_names=dict(enumerate(self.account_names)),
        )
        return shares

    @property
    def _probes_due_s(self) -> Floats:
        return np.arange(self.interval_s / 2, self.probed_s, self.interval_s)

    def _prober(self) -> Client:
        probes = self.probes
        places = {account: self.workload.accounts + place for place, account in enumerate(probes.accounts)}
        count = len(probes.deposits)
        return Client(
            index=self.clients,
            function=np.full(count, DEPOSIT, dtype=np.int8),
            account=np.array([places[deposit.account] for deposit in probes.deposits], dtype=np.int32),
            target=np.full(count, -1, dtype=np.int32),
            amount=np.array([deposit.amount for deposit in probes.deposits], dtype=np.int64),
        )

    def await_callers(self, patience_s: float) -> None:
        """Until all clients have begun, or never will: tasks may be slow to start on a busy machine."""
        deadline = time.monotonic() + patience_s
        while journal.begun(self.directory) <= self.clients and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def end(self) -> None:
        """Nothing more is sent, but by calls that are under way."""
        journal.end(self.directory)

    def history(self) -> History:
        """All attempts of all clients, of dead ones too."""
        return journal.read(self.directory)

    @property
    def ends_within_s(self) -> float:
        """After their start, callers have ended or will not end any more."""
        return self.seconds + load.DRAIN_S + _PATIENCE_S


def in_driver(accounts: Accounts, share: Share) -> None:
    """From threads of this process."""
    generate(accounts, share)


def warm_up(accounts: Accounts, client: distributed.Client) -> None:
    """Have each worker unpickle what tasks will be sent, and import what that needs: a new one takes half a second."""
    payload = cloudpickle.dumps((accounts, generate_by_copy))
    # A lambda goes by value: workers may not be able to import this module.
    client.run(lambda: cloudpickle.loads(payload) and None)


def in_tasks(
    accounts: Accounts, shares: Sequence[Share], client: distributed.Client, ends_within_s: float, *, retries: int
) -> None:
    """From one task on each worker; Dask begins it again elsewhere when its worker dies, and `retries` times else.

    Raises:
        Exception: what a task raised for the last time. That the cluster lost a task is none: its callers are dead.
    """
    from distributed import wait
    from distributed.scheduler import KilledWorker

    handle = cloudpickle.dumps(accounts)
    task = load.shipped_by_value(generate_by_copy)
    workers = sorted(client.nthreads())
    futures = [
        client.submit(
            task,
            handle,
            cloudpickle.dumps(share),
            pure=False,
            retries=retries,
            workers=[worker],
            allow_other_workers=True,
        )
        for worker, share in zip(workers, shares, strict=False)
    ]
    deadline = time.monotonic() + ends_within_s
    try:
        for future in futures:
            try:
                wait([future], timeout=max(0.1, deadline - time.monotonic()))
                future.result(timeout=1.0)
            except (CancelledError, KilledWorker, TimeoutError, OSError):
                continue
    finally:
        client.cancel(futures)


def in_child(child: DriverProcess, share: Share, ends_within_s: float) -> None:
    """From threads of a driver process that has opened the bank itself.

    Raises:
        DriverFailed: it was killed, or its load failed.
    """
    child.send(call_bank, generate, share)
    child.answer(ends_within_s)
