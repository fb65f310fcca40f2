"""What the interface says about one bank, in as few words as possible. Shares no code with any strategy."""

from __future__ import annotations

from strategies.interface import (
    MAX_MONEY,
    AccountExists,
    InsufficientFunds,
    InvalidAmount,
    OutOfScope,
    Rejected,
    Transfers,
    UnknownAccount,
)

State = tuple[int, int]
"""seq, balance"""


class Model:
    """Says what a change may be rejected for, and what it does if it is not."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self.accounts: dict[str, State] = {}

    def reasons(self, method: str, names: tuple[str, ...], amount: int) -> set[type[Rejected]]:
        """Every rejection that is right; where there are several, a strategy may choose. None: it must succeed."""
        found: set[type[Rejected]] = set()
        if method == "open_account":
            if not 0 <= amount <= MAX_MONEY:
                found.add(InvalidAmount)
            if names[0] in self.accounts:
                found.add(AccountExists)
            return found
        if not 1 <= amount <= MAX_MONEY:
            found.add(InvalidAmount)
        if any(name not in self.accounts for name in names):
            found.add(UnknownAccount)
        if method == "transfer" and self._transfers is Transfers.NONE:
            found.add(OutOfScope)
        if found - {OutOfScope}:
            return found
        if method in ("withdraw", "transfer") and self.accounts[names[0]][1] < amount:
            found.add(InsufficientFunds)
        if (method == "deposit" or len(set(names)) == 2) and self.accounts[names[-1]][1] + amount > MAX_MONEY:
            found.add(InvalidAmount)
        return found

    def change(self, method: str, names: tuple[str, ...], amount: int) -> list[State]:
        """Apply it; the state of each account in turn, after its leg."""
        if method == "open_account":
            self.accounts[names[0]] = (1, amount)
            return [(1, amount)]
        signs = {"deposit": [1], "withdraw": [-1], "transfer": [-1, 1]}[method]
        legs = []
        for name, sign in zip(names, signs, strict=True):
            seq, balance = self.accounts[name]
            self.accounts[name] = (seq + 1, balance + sign * amount)
            legs.append(self.accounts[name])
        return legs
