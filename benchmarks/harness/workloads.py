"""What clients do: named mixes of transactions, as data. A plan of one client follows from name and seed alone."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from benchmarks.harness.history import BALANCE, DEPOSIT, TRANSFER, WITHDRAW, Bools, Int8s, Int32s, Int64s
from strategies.interface import Transfers

PLAN_LENGTH = 1 << 14
"""Operations after which a plan starts again: long beside any skew, short beside a trial's memory."""

OPENING = 1_000_000
"""Minor units that every account is opened with."""

ACCOUNTS_MIN, ACCOUNTS_MAX = 1, 1_000_000
THETA_MAX = 1.5


@dataclass(frozen=True)
class Slot:
    """One account of a transaction: the holder (0 the first, 1 another) and which of the holder's accounts."""

    holder: int = 0
    kind: int = 0


_FIRST, _SECOND = Slot(0), Slot(1)
_SAVINGS, _CHECKING, _OTHERS_CHECKING = Slot(0, 0), Slot(0, 1), Slot(1, 1)


@dataclass(frozen=True)
class Step:
    """One call on one account; a transfer's target is a second slot."""

    function: int
    account: Slot = _FIRST
    target: Slot | None = None


@dataclass(frozen=True)
class Transaction:
    """Calls that one client makes in a row. Nothing joins them: each is an operation of its own."""

    percent: float
    steps: tuple[Step, ...]


_READ, _DEPOSIT, _WITHDRAW = Step(BALANCE), Step(DEPOSIT), Step(WITHDRAW)


@dataclass(frozen=True)
class Workload:
    """A mix of transactions over accounts whose holders are chosen uniformly or by Zipf's law."""

    name: str
    source: str
    """Where the mix comes from."""
    mix: tuple[Transaction, ...]
    """Percents add up to 100."""
    accounts: int = 100
    kinds: int = 1
    """Accounts that each holder has."""
    zipf_theta: float | None = None
    """Exponent of the holders' popularity; None for uniform."""
    amount_max: int = 100
    """Amounts are uniform from 1 to this."""
    round_robin: bool = False
    """Each client has its own accounts and takes them in turn, so that a gap in one account's answers shows."""

    @property
    def transfers(self) -> Transfers:
        """What a strategy must claim: pairs of accounts are drawn from all."""
        return Transfers.ANY if any(step.target for part in self.mix for step in part.steps) else Transfers.NONE

    @cached_property
    def account_names(self) -> list[str]:
        """Ids of the accounts, the most popular holder's first."""
        return [account_name(index) for index in range(self.accounts)]

    @property
    def holders(self) -> int:
        """Whom accounts belong to."""
        return self.accounts // self.kinds

    def plan(self, seed: int, client: int, clients: int) -> Plan:
        """The operations of one client."""
        random = np.random.default_rng([seed, client])
        steps = [step for part in self.mix for step in part.steps]
        counts = np.array([len(part.steps) for part in self.mix])
        shares = np.array([part.percent for part in self.mix]) / 100
        chosen = random.choice(len(self.mix), size=PLAN_LENGTH, p=shares)
        lengths = counts[chosen]
        firsts = (np.cumsum(counts) - counts)[chosen]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        step = (np.repeat(firsts, lengths) + within)[:PLAN_LENGTH]

        if self.round_robin:
            first = np.resize(np.arange(client % self.holders, self.holders, clients), PLAN_LENGTH)
        else:
            first = self._holders(random)
        second = (first + 1 + _below(random, self.holders - 1)) % self.holders
        if self.zipf_theta is not None:
            popular = self._holders(random)
            second = np.where(popular == first, second, popular)
        per_step = [np.repeat(each, lengths)[:PLAN_LENGTH] for each in (first, second)]
        drawn = np.repeat(random.integers(1, self.amount_max, size=PLAN_LENGTH, endpoint=True), lengths)[:PLAN_LENGTH]

        def of_steps(value: list[int]) -> Int64s:
            found: Int64s = np.array(value, dtype=np.int64)[step]
            return found

        def accounts_of(slots: list[Slot]) -> Int64s:
            holder = np.where(of_steps([slot.holder for slot in slots]) == 0, *per_step)
            found: Int64s = holder * self.kinds + of_steps([slot.kind for slot in slots])
            return found

        function = of_steps([each.function for each in steps])
        target = accounts_of([each.target or _FIRST for each in steps])
        return Plan(
            function=function.astype(np.int8),
            account=accounts_of([each.account for each in steps]).astype(np.int32),
            target=np.where(function == TRANSFER, target, -1).astype(np.int32),
            amount=np.where(function == BALANCE, 0, drawn),
        )

    def _holders(self, random: np.random.Generator) -> Int64s:
        if self.zipf_theta is None:
            return _below(random, self.holders)
        places = np.searchsorted(_zipf(self.holders, self.zipf_theta), random.random(PLAN_LENGTH))
        found: Int64s = np.minimum(places, self.holders - 1)  # the sum may end just below 1
        return found


@dataclass(frozen=True)
class Plan:
    """One client's operations, by position; it starts again at its end."""

    function: Int8s
    account: Int32s
    target: Int32s
    """Of transfers; -1 elsewhere."""
    amount: Int64s

    @property
    def is_transfer(self) -> Bools:
        """Rows of transfers."""
        transfers: Bools = self.function == TRANSFER
        return transfers


def account_name(index: int) -> str:
    """The id of one account."""
    return f"account-{index}"


@lru_cache(maxsize=4)
def _zipf(size: int, theta: float) -> npt.NDArray[np.float64]:
    weights = np.arange(1, size + 1) ** -theta
    cumulated: npt.NDArray[np.float64] = np.cumsum(weights / weights.sum())
    return cumulated


def _below(random: np.random.Generator, bound: int) -> Int64s:
    return random.integers(max(1, bound), size=PLAN_LENGTH)


_YCSB = "(Cooper et al., 2010, Benchmarking Cloud Serving Systems with YCSB)"
_SMALLBANK = (
    "(Alomari et al., 2008, The Cost of Serializability on Platforms That Use Snapshot Isolation; shares as in "
    "BenchBase's sample). Transactions are the calls they consist of, joined by nothing; a holder's two "
    "accounts are savings and checking. Differs where the original would not be stationary: amalgamate moves an "
    "amount and not all, transact savings withdraws as often as it deposits"
)

_ALL = (
    Workload(
        name="ycsb_a",
        source=f"YCSB core workload A, update heavy: half reads, half updates (deposits), Zipf 0.99 {_YCSB}",
        mix=(Transaction(50, (_READ,)), Transaction(50, (_DEPOSIT,))),
        zipf_theta=0.99,
    ),
    Workload(
        name="ycsb_b",
        source=f"YCSB core workload B, read mostly: 95 % reads, 5 % updates (deposits), Zipf 0.99 {_YCSB}",
        mix=(Transaction(95, (_READ,)), Transaction(5, (_DEPOSIT,))),
        zipf_theta=0.99,
    ),
    Workload(
        name="ycsb_c",
        source=f"YCSB core workload C, read only, Zipf 0.99 {_YCSB}",
        mix=(Transaction(100, (_READ,)),),
        zipf_theta=0.99,
    ),
    Workload(
        name="ycsb_f",
        source="YCSB core workload F, read-modify-write: half reads, half changes that depend on the balance, "
        f"deposits and withdrawals alike, Zipf 0.99 {_YCSB}",
        mix=(Transaction(50, (_READ,)), Transaction(25, (_DEPOSIT,)), Transaction(25, (_WITHDRAW,))),
        zipf_theta=0.99,
    ),
    Workload(
        name="hot",
        source="one account that everybody deposits into: the worst contention there is",
        mix=(Transaction(100, (_DEPOSIT,)),),
        accounts=1,
    ),
    Workload(
        name="transfer",
        source="transfers between two different accounts, uniform: the bank test of Jepsen without its reads; "
        "transfer:zipf=0.99 for the skewed one",
        mix=(Transaction(100, (Step(TRANSFER, _FIRST, _SECOND),)),),
    ),
    Workload(
        name="smallbank",
        source=f"SmallBank's six transactions at 15/15/15/25/15/15, uniform {_SMALLBANK}",
        mix=(
            # amalgamate
            Transaction(
                15,
                (
                    Step(BALANCE, _SAVINGS),
                    Step(BALANCE, _CHECKING),
                    Step(TRANSFER, _SAVINGS, _OTHERS_CHECKING),
                    Step(TRANSFER, _CHECKING, _OTHERS_CHECKING),
                ),
            ),
            # balance
            Transaction(15, (Step(BALANCE, _SAVINGS), Step(BALANCE, _CHECKING))),
            # deposit checking
            Transaction(15, (Step(DEPOSIT, _CHECKING),)),
            # send payment
            Transaction(25, (Step(TRANSFER, _CHECKING, _OTHERS_CHECKING),)),
            # transact savings
            Transaction(7.5, (Step(DEPOSIT, _SAVINGS),)),
            Transaction(7.5, (Step(WITHDRAW, _SAVINGS),)),
            # write check
            Transaction(15, (Step(BALANCE, _SAVINGS), Step(BALANCE, _CHECKING), Step(WITHDRAW, _CHECKING))),
        ),
        kinds=2,
    ),
)

UNIT_DEPOSITS = Workload(
    name="unit_deposits",
    source="deposits of 1, so that balances count operations; what failure cells run",
    mix=(Transaction(100, (_DEPOSIT,)),),
    accounts=16,
    amount_max=1,
    round_robin=True,
)

QUICK = ("ycsb_a",)
"""What a quick run measures: the common mix, in every strategy within minutes."""


class UnknownWorkload(LookupError):
    """No workload has this name, or its numbers cannot be."""


def names() -> list[str]:
    """The workloads that throughput and latency are measured on."""
    return [workload.name for workload in _ALL]


def load(name: str) -> Workload:
    """The workload of this name, which may set its size and skew: `ycsb_a:accounts=10000,zipf=1.2`.

    `zipf=0` stands for uniform.

    Raises:
        UnknownWorkload: with the nearest names that exist, or the bounds of the numbers.
    """
    base, _, settings = name.partition(":")
    for workload in (*_ALL, UNIT_DEPOSITS):
        if workload.name == base:
            return _changed(workload, settings) if settings else workload
    near = difflib.get_close_matches(base, names(), n=2, cutoff=0.3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
    raise UnknownWorkload(f"no workload is called {base!r}; {hint}")


def spelled(name: str, accounts: int | None = None, zipf: float | None = None) -> str:
    """The name of the workload with these settings changed, in the one spelling that records use."""
    settings = dict(part.split("=") for part in load(name).name.partition(":")[2].split(",") if part)
    if accounts is not None:
        settings["accounts"] = str(accounts)
    if zipf is not None:
        settings["zipf"] = _plain(zipf)
    base = name.partition(":")[0]
    return load(":".join(filter(None, (base, ",".join(f"{key}={settings[key]}" for key in sorted(settings)))))).name


def _plain(theta: float) -> str:
    """All of its digits and no exponent, so that the name can be loaded again."""
    return f"{theta:.6f}".rstrip("0").rstrip(".")


def _changed(workload: Workload, settings: str) -> Workload:
    accounts, theta = workload.accounts, workload.zipf_theta
    for setting in settings.split(","):
        if found := re.fullmatch(r"accounts=(\d{1,9})", setting):
            accounts = int(found[1])
        elif found := re.fullmatch(r"zipf=(\d{1,3}(?:\.\d{1,6})?)", setting):
            theta = float(found[1]) or None
        else:
            raise UnknownWorkload(
                f"{setting!r} is no setting of a workload; write NAME:accounts=N,zipf=THETA with either or both"
            )
    least = max(ACCOUNTS_MIN, 2 * workload.kinds if workload.transfers is not Transfers.NONE else ACCOUNTS_MIN)
    if not least <= accounts <= ACCOUNTS_MAX or accounts % workload.kinds:
        even = ", a multiple of its holders' accounts" if workload.kinds > 1 else ""
        raise UnknownWorkload(f"{workload.name} takes {least} to {ACCOUNTS_MAX:,} accounts{even}, not {accounts}")
    if theta is not None and theta > THETA_MAX:
        raise UnknownWorkload(f"zipf must be 0 (uniform) to {THETA_MAX}, not {theta:g}")
    changed = {"accounts": str(accounts)} if accounts != workload.accounts else {}
    if theta != workload.zipf_theta:
        changed["zipf"] = _plain(theta or 0.0)
    name = ":".join(filter(None, (workload.name, ",".join(f"{key}={changed[key]}" for key in sorted(changed)))))
    return replace(workload, name=name, accounts=accounts, zipf_theta=theta)
