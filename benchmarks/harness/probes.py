"""A second opinion beside the receipts: deposits of 1, B, B², … count themselves in the digits of a final balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.harness.history import DEPOSIT, OK, UNKNOWN, History
from strategies.interface import MAX_MONEY

_SHOWN = 20
"""Sentences of a verdict; what is beyond is counted."""


class Deposit(NamedTuple):
    """One probe."""

    account: str
    amount: int


def encode(operation: int, base: int) -> int:
    """The amount of the operation's deposit."""
    return int(base**operation)


def decode(balance: int, opening: int, operations: int, base: int) -> list[int] | None:
    """How often each of an account's operations was applied, if none was `base` times or more.

    None if no such counts give this balance.
    """
    rest = balance - opening
    if not 0 <= rest < encode(operations, base):
        return None
    counts = []
    for _ in range(operations):
        rest, count = divmod(rest, base)
        counts.append(count)
    return counts


@dataclass(frozen=True)
class ProbeVerdict:
    """What the balances say of the deposits, whatever the receipts said. Counts are of operations unless told else."""

    acknowledged: int
    acknowledged_lost: int
    """Of those, in no balance."""
    duplicated: int
    """Effects beyond each operation's first, also where its caller sent it again himself."""
    phantom: int
    """Applied though refused, or never sent."""
    indeterminate: int
    """With no acknowledgement, and an attempt of unknown fate."""
    indeterminate_applied: int
    """Of those, in a balance."""
    untold: int
    """Of which nothing can be said: their account's balance has a digit that should be impossible. They are in
    `acknowledged` and `indeterminate`, and in no other count."""
    words: tuple[str, ...]
    """A sentence for each finding but the unknowns."""

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled or made up. What is untold is not clean."""
        return not (self.acknowledged_lost or self.duplicated or self.phantom or self.untold)


class Probes:
    """Probe accounts, and the deposits to send to them.

    The base is above `times_max + 1`: one digit is left over that no operation may have, so that one application too
    many is seen as such and does not count for the next operation. What is applied `base` times and more looks like
    its neighbours, so `times_max` must be the most times that anything could be applied: well above the attempts.
    """

    def __init__(self, operations: int, times_max: int = 8, opening: int = 0, prefix: str = "probe") -> None:
        if operations < 1 or times_max < 1 or not 0 <= opening < MAX_MONEY:
            raise ValueError(
                f"probes need 1 operation and 1 time or more and an opening of 0 to {MAX_MONEY - 1}, "
                f"not {operations}, {times_max} and {opening}"
            )
        self.times_max = times_max
        self.base = times_max + 2
        self.opening = opening
        self.digits = _digits(self.base, opening)
        """Operations that one account can count."""
        if self.digits == 0:
            raise ValueError(f"no account can count to {times_max} from {opening}: it would pass {MAX_MONEY}")
        accounts = -(-operations // self.digits)
        self.accounts = tuple(f"{prefix}-{number:04d}" for number in range(accounts))
        """To be opened with `opening` each."""
        # In turn, so that any time of the load has probes at every account.
        self.deposits = tuple(
            Deposit(self.accounts[operation % accounts], encode(operation // accounts, self.base))
            for operation in range(operations)
        )
        """To be sent in this order, each of them one operation."""

    def fates(self, history: History, names: Sequence[str]) -> list[list[int]]:
        """The fates of each deposit's attempts in a history whose accounts have these names."""
        place = {deposit: number for number, deposit in enumerate(self.deposits)}
        found: list[list[int]] = [[] for _ in self.deposits]
        mine = np.isin(history.account, [index for index, name in enumerate(names) if name in set(self.accounts)])
        for row in np.flatnonzero(mine & (history.function == DEPOSIT)).tolist():
            number = place.get(Deposit(names[history.account[row]], int(history.amount[row])))
            if number is not None:
                found[number].append(int(history.fate[row]))
        return found

    def judge(self, fates: Sequence[Sequence[int]], final: Mapping[str, int]) -> ProbeVerdict:
        """Hold the deposits' fates, an attempt each, against the final balances. A missing account was lost."""
        if len(fates) != len(self.deposits):
            raise ValueError(f"there are {len(self.deposits)} deposits and the fates of {len(fates)}")
        counts: Counter[str] = Counter()
        words: list[str] = []
        applied = self._applied(final, words)
        for number, (deposit, attempts, times) in enumerate(zip(self.deposits, fates, applied, strict=True)):
            acknowledged = OK in attempts
            unknown = not acknowledged and UNKNOWN in attempts
            counts["acknowledged"] += acknowledged
            counts["indeterminate"] += unknown
            if times is None:
                counts["untold"] += 1
                continue
            what = f"deposit {number} of {deposit.amount} to {deposit.account}"
            counts["indeterminate_applied"] += unknown and times > 0
            if acknowledged and times == 0:
                counts["acknowledged_lost"] += 1
                words.append(f"{what} was acknowledged and is not in the balance")
            if times > 0 and not (acknowledged or unknown):
                counts["phantom"] += 1
                words.append(f"{what} was {'refused' if attempts else 'never sent'} and is in the balance")
            if times > 1:
                counts["duplicated"] += times - 1
                words.append(f"{what} was sent {len(attempts)} times and is {times} times in the balance")
        if len(words) > _SHOWN:
            words[_SHOWN:] = [f"and {len(words) - _SHOWN} more"]
        return ProbeVerdict(
            acknowledged=counts["acknowledged"],
            acknowledged_lost=counts["acknowledged_lost"],
            duplicated=counts["duplicated"],
            phantom=counts["phantom"],
            indeterminate=counts["indeterminate"],
            indeterminate_applied=counts["indeterminate_applied"],
            untold=counts["untold"],
            words=tuple(words),
        )

    def _applied(self, final: Mapping[str, int], words: list[str]) -> list[int | None]:
        """How often each deposit was applied; None where that is not told."""
        applied: list[int | None] = [None] * len(self.deposits)
        for place, account in enumerate(self.accounts):
            mine = range(place, len(self.deposits), len(self.accounts))
            balance = final.get(account, self.opening)
            counts = decode(balance, self.opening, len(mine), self.base)
            if counts is None or max(counts) > self.times_max:
                words.append(
                    f"{account} has {balance}, which its deposits cannot add up to if each was applied at most "
                    f"{self.times_max} times: nothing is said of them"
                )
                continue
            for number, count in zip(mine, counts, strict=True):
                applied[number] = count
        return applied


def _digits(base: int, opening: int) -> int:
    """The most digits of which each may take its highest value without passing `MAX_MONEY`."""
    digits = 0
    while opening + encode(digits + 1, base) - 1 <= MAX_MONEY:
        digits += 1
    return digits
