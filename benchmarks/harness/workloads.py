"""What clients do: named mixes of operations, as data. A plan of one client follows from name and seed alone."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.harness.history import BALANCE, DEPOSIT, Int8s, Int64s

PLAN_LENGTH = 1 << 14
"""Operations after which a plan starts again: long beside any skew, short beside a trial's memory."""

OPENING = 1_000_000
"""Minor units that every account is opened with."""


@dataclass(frozen=True)
class Workload:
    """A mix of reads and deposits over accounts chosen uniformly or by Zipf's law."""

    name: str
    source: str
    """Where the mix comes from."""
    accounts: int
    reads: float
    """Share of operations that only read; the others deposit."""
    zipfian_theta: float | None = None
    """Exponent of the accounts' popularity; None for uniform."""
    amount_max: int = 100
    """Deposits are uniform from 1 to this."""
    round_robin: bool = False
    """Each client has its own accounts and takes them in turn, so that a gap in one account's answers shows."""

    @cached_property
    def account_names(self) -> list[str]:
        """Ids of the accounts, the most popular first."""
        return [f"account-{index}" for index in range(self.accounts)]

    def plan(self, seed: int, client: int, clients: int) -> Plan:
        """The operations of one client."""
        random = np.random.default_rng([seed, client])
        if self.round_robin:
            own = np.arange(client % self.accounts, self.accounts, clients)
            account = np.resize(own, PLAN_LENGTH)
        elif self.zipfian_theta is None:
            account = random.integers(self.accounts, size=PLAN_LENGTH)
        else:
            weights = np.arange(1, self.accounts + 1) ** -self.zipfian_theta
            account = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(PLAN_LENGTH))
            account = np.minimum(account, self.accounts - 1)  # the sum may end just below 1
        function = np.where(random.random(PLAN_LENGTH) < self.reads, BALANCE, DEPOSIT).astype(np.int8)
        amount = random.integers(1, self.amount_max, size=PLAN_LENGTH, endpoint=True)
        amount[function == BALANCE] = 0
        return Plan(function, account.astype(np.int64), amount.astype(np.int64))


@dataclass(frozen=True)
class Plan:
    """One client's operations, by position; it starts again at its end."""

    function: Int8s
    account: Int64s
    amount: Int64s


_ALL = (
    Workload(
        name="ycsb_a",
        source="YCSB core workload A, update heavy: half reads, half updates, Zipf 0.99 "
        "(Cooper et al., 2010, Benchmarking Cloud Serving Systems with YCSB)",
        accounts=100,
        reads=0.5,
        zipfian_theta=0.99,
    ),
    Workload(
        name="hot",
        source="one account that everybody deposits into: the worst contention there is",
        accounts=1,
        reads=0.0,
    ),
)

UNIT_DEPOSITS = Workload(
    name="unit_deposits",
    source="deposits of 1, so that balances count operations; what failure cells run",
    accounts=16,
    reads=0.0,
    amount_max=1,
    round_robin=True,
)


class UnknownWorkload(LookupError):
    """No workload has this name."""


def names() -> list[str]:
    """The workloads that throughput and latency are measured on."""
    return [workload.name for workload in _ALL]


def load(name: str) -> Workload:
    """The workload of this name.

    Raises:
        UnknownWorkload: with the nearest names that exist.
    """
    for workload in (*_ALL, UNIT_DEPOSITS):
        if workload.name == name:
            return workload
    near = difflib.get_close_matches(name, names(), n=2, cutoff=0.3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
    raise UnknownWorkload(f"no workload is called {name!r}; {hint}")
