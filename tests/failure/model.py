"""The accounts as they are meant, as simple as they can be: mutants are this, with a bug each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strategies.interface.account import MAX_MONEY, Receipt
from strategies.interface.errors import AccountExists, InsufficientFunds, InvalidAmount, Rejected, UnknownAccount
from strategies.support.op_window import OpWindow

OpKey = tuple[str, int]


class Model:
    """Accounts and the memory of op ids. Not for several threads."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._receipts: dict[str, Receipt] = {}
        self._windows: dict[str, OpWindow] = {}

    def open_account(self, account: str, opening: int = 0, *, op_id: OpKey | None = None) -> Receipt:
        receipt: Receipt = self._once(op_id, ("open_account", account, opening), self._open_account)
        return receipt

    def deposit(self, account: str, amount: int, *, op_id: OpKey | None = None) -> Receipt:
        receipt: Receipt = self._once(op_id, ("deposit", account, amount), self._deposit)
        return receipt

    def withdraw(self, account: str, amount: int, *, op_id: OpKey | None = None) -> Receipt:
        receipt: Receipt = self._once(op_id, ("withdraw", account, amount), self._withdraw)
        return receipt

    def transfer(self, source: str, target: str, amount: int, *, op_id: OpKey | None = None) -> tuple[Receipt, Receipt]:
        receipts: tuple[Receipt, Receipt] = self._once(op_id, ("transfer", source, target, amount), self._transfer)
        return receipts

    def balance(self, account: str) -> Receipt:
        return self._balance(account)

    def snapshot(self) -> dict[str, Receipt]:
        return dict(self._receipts)

    def _once(self, op_id: OpKey | None, payload: tuple[Any, ...], change: Callable[..., Any]) -> Any:
        """Answer from memory, or apply `change` to the payload's arguments and remember its outcome."""
        if op_id is None:
            return change(*payload[1:])
        session, number = op_id
        window: Any = self._windows.setdefault(session, OpWindow())
        known = window.recall(number, payload)
        if known is None:
            try:
                outcome = change(*payload[1:])
            except Rejected as rejection:
                window.remember(number, payload, rejection)
                raise
            window.remember(number, payload, outcome)
            return outcome
        if isinstance(known, Rejected):
            raise type(known)(*known.args)
        return known

    def _balance(self, account: str) -> Receipt:
        receipt = self._receipts.get(account)
        if receipt is None:
            raise _unknown(account)
        return receipt

    def _open_account(self, account: str, opening: int) -> Receipt:
        if not 0 <= opening <= MAX_MONEY:
            raise InvalidAmount(f"an opening balance is from 0 to {MAX_MONEY}, not {opening}")
        if account in self._receipts:
            raise AccountExists(f"account {account!r} was opened before; deposit into it")
        receipt = self._receipts[account] = Receipt(1, opening, self._epoch)
        return receipt

    def _deposit(self, account: str, amount: int) -> Receipt:
        return self._add(account, amount, amount)

    def _withdraw(self, account: str, amount: int) -> Receipt:
        return self._add(account, amount, -amount)

    def _add(self, account: str, amount: int, change: int) -> Receipt:
        _check_amount(amount)
        receipt = self._receipts.get(account)  # as it is: mutants may read something else
        if receipt is None:
            raise _unknown(account)
        seq, balance, epoch = receipt
        balance += change
        if balance < 0:
            raise _overdraft(account, amount)
        if balance > MAX_MONEY:
            raise _over_the_top(account, amount)
        receipt = self._receipts[account] = Receipt(seq + 1, balance, epoch)
        return receipt

    def _transfer(self, source: str, target: str, amount: int) -> tuple[Receipt, Receipt]:
        """Check both legs before changing either, so that nothing has to be undone."""
        _check_amount(amount)
        source_receipt = self._balance(source)
        target_receipt = self._balance(target)
        if source_receipt.balance < amount:
            raise _overdraft(source, amount)
        if source != target and target_receipt.balance + amount > MAX_MONEY:
            raise _over_the_top(target, amount)
        return self._withdraw(source, amount), self._deposit(target, amount)


def _unknown(account: str) -> UnknownAccount:
    return UnknownAccount(f"no account {account!r} was opened here; call open_account first")


def _check_amount(amount: int) -> None:
    if not 0 < amount <= MAX_MONEY:
        raise InvalidAmount(f"an amount is from 1 to {MAX_MONEY}, not {amount}")


def _over_the_top(account: str, amount: int) -> InvalidAmount:
    return InvalidAmount(f"{amount} would take the balance of {account!r} above {MAX_MONEY}")


def _overdraft(account: str, amount: int) -> InsufficientFunds:
    return InsufficientFunds(f"account {account!r} holds less than {amount}; withdraw at most its balance")
