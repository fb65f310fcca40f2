"""The account interface over a store that has transactions: checks, batches and queues; calls are batches of one."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from strategies.interface.account import (
    MAX_BATCH,
    Accounts,
    Answer,
    Batched,
    Context,
    Operation,
    Pipelined,
    Receipt,
)
from strategies.interface.errors import AccountError, Indeterminate, Unavailable
from strategies.support.admission import Admission
from strategies.support.coalescing import Coalescer
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.futures import Promise
from strategies.support.validation import check_account, check_op_id, whole_amount
from strategies.support.wire import BALANCE, DEPOSIT, FUNCTIONS, OPEN_ACCOUNT, TRANSFER, WITHDRAW, Batch

_CODES = tuple(bytes([code]) for code in range(len(FUNCTIONS)))


class TransactionalAccounts(Accounts, Batched, Pipelined):
    """What such strategies have in common: everything but the transaction.

    A batch is one transaction: all of its operations that are not rejected have their effect, or none has.
    """

    def __init__(self, context: Context, epoch: int) -> None:
        self._context = replace(context, client=None)
        self._epoch = epoch
        self._timeout_s = context.timeout_s
        self._coalescer = Coalescer.of(context, self._apply)
        self._closed = False
        self._admission = Admission()

    def __reduce__(self) -> tuple[type[Self], tuple[Context, int]]:
        return type(self), (self._context, self._epoch)

    @abstractmethod
    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        """Apply the batch in one transaction. It may hold calls of `balance`, which change nothing.

        Raises:
            NotSent: it had no effect.
            NotAnswered: nobody knows whether it had any.
            AccountError: what became of all of it.
        """

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(OPEN_ACCOUNT, (account,), opening, op_id)
        return receipt

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(DEPOSIT, (account,), amount, op_id)
        return receipt

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(WITHDRAW, (account,), amount, op_id)
        return receipt

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        receipts: tuple[Receipt, Receipt] = self._change(TRANSFER, (source, target), amount, op_id)
        return receipts

    def balance(self, account: str) -> Receipt:
        receipt: Receipt = self._change(BALANCE, (account,), 0, None)
        return receipt

    def apply(self, operations: Sequence[Operation]) -> list[Answer]:
        self._check_open()
        if len(operations) > MAX_BATCH:
            raise ValueError(f"a batch has at most {MAX_BATCH} operations, not {len(operations)}; split it")
        return self._apply(operations, time.monotonic() + self._timeout_s)

    def submit(self, operation: Operation) -> Promise:
        return self._coalescer.submit(operation)

    def close(self) -> None:
        self._coalescer.close()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    def _change(self, code: int, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None) -> Any:
        for account in accounts:
            check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        self._check_open()
        batch = Batch(_CODES[code], accounts[:1], (amount,), accounts[1:])
        if op_id is not None:
            batch = batch._replace(sessions=op_id[:1], numbers=op_id[1:])
        what = FUNCTIONS[code]
        try:
            (answer,) = self._transact(batch, time.monotonic() + self._timeout_s)
        except (NotSent, NotAnswered) as error:
            raise fate(what, error, changes=code != BALANCE) from error
        if isinstance(answer, AccountError):
            raise answer
        return answer

    def _apply(self, operations: Sequence[Operation], deadline: float) -> list[Answer]:
        if not operations:
            return []
        return self._admission.apply(operations, lambda batch: self._apply_checked(batch, deadline))

    def _apply_checked(self, batch: Batch, deadline: float) -> list[Answer]:
        try:
            return self._transact(batch, deadline)
        except (NotSent, NotAnswered) as error:
            return [fate("a batch", error, changes=code != BALANCE) for code in batch.functions]
        except AccountError as error:
            return [type(error)(*error.args) for _ in batch.functions]


def fate(what: str, error: Exception, *, changes: bool) -> AccountError:
    """What became of an operation whose transaction ended so."""
    if isinstance(error, NotAnswered) and changes:
        return Indeterminate(f"the store did not answer {what}: {error}; send it again with its op id")
    if isinstance(error, NotAnswered):
        return Unavailable(f"the store did not answer {what}: {error}; send it again")
    return Unavailable(f"{what} was not done: {error}; send it again")
