"""Calls as values, made here or inside Dask tasks; the tests cannot tell the two apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import cloudpickle

from strategies.interface import Accounts, Context, Receipt

if TYPE_CHECKING:
    from distributed import Client, Future

# The workers need not be able to import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Outcome = Any
"""What a call returned, or the exception that it raised."""


class Call(NamedTuple):
    """One call of one method, still to be made."""

    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        values = [ascii(value) for value in self.args] + [f"{name}={value!a}" for name, value in self.options.items()]
        return f"{self.method}({', '.join(values)})"


def call(method: str, *args: Any, **options: Any) -> Call:
    """A call to make later."""
    return Call(method, args, options)


class InTasks(Accounts):
    """Makes each call inside a Dask task, with a copy of the handle that was pickled on the way there."""

    def __init__(self, handle: Accounts, client: Client, workers: Sequence[str] | None = None) -> None:
        self._handle = handle
        self._client = client
        self._workers = workers

    @classmethod
    def open(cls, context: Context) -> Self:
        raise TypeError("wrap a handle that is open")

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._one(call("open_account", account, opening, op_id=op_id))

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._one(call("deposit", account, amount, op_id=op_id))

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._one(call("withdraw", account, amount, op_id=op_id))

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        return self._one(call("transfer", source, target, amount, op_id=op_id))  # type: ignore[return-value]

    def balance(self, account: str) -> Receipt:
        return self._one(call("balance", account))

    def snapshot(self) -> dict[str, Receipt]:
        return self._one(call("snapshot"))  # type: ignore[return-value]

    def close(self) -> None:
        self._handle.close()

    def submit(self, calls: Sequence[Call]) -> Future:
        """Make the calls in one task, one after another. The future's result is a list of outcomes."""
        return self._client.submit(_outcomes, self._handle, list(calls), workers=self._workers, pure=False)

    def submit_timed(self, wanted: Call) -> Future:
        """Make one call in a task of its own. The future's result is its outcome and the seconds that it took."""
        return self._client.submit(timed_outcome, self._handle, wanted, workers=self._workers, pure=False)

    def _one(self, wanted: Call) -> Receipt:
        outcome = self.submit([wanted]).result()[0]
        if isinstance(outcome, BaseException):
            raise outcome
        receipt: Receipt = outcome
        return receipt


def outcomes(accounts: Accounts, *calls: Call) -> list[Outcome]:
    """Make the calls one after another, with one handle: in one task where the handle is one for tasks."""
    if isinstance(accounts, InTasks):
        found: list[Outcome] = accounts.submit(calls).result()
        return found
    return _outcomes(accounts, calls)


def kinds(answers: Sequence[Outcome]) -> list[type]:
    """Of each outcome, its type: what most assertions are about."""
    return [type(answer) for answer in answers]


def _outcomes(handle: Accounts, calls: Sequence[Call]) -> list[Outcome]:
    found: list[Outcome] = []
    for wanted in calls:
        try:
            found.append(getattr(handle, wanted.method)(*wanted.args, **wanted.options))
        except Exception as error:
            # What it was made from refers to the handle, which would then live as long as the outcome.
            error.__cause__ = error.__context__ = None
            found.append(error.with_traceback(None))
    return found


def timed_outcome(handle: Accounts, wanted: Call) -> tuple[Outcome, float]:
    """Make one call here; its outcome, and the seconds that it took."""
    began = time.monotonic()
    (outcome,) = _outcomes(handle, [wanted])
    return outcome, time.monotonic() - began
