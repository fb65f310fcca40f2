"""Strategies as a user would bring them, in a file of their own: correct ones, and ones that are broken on purpose.

Tests name them `own_accounts.py:ClassName`; nothing imports this module.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, Self

from strategies.actor_single import ActorSingle
from strategies.driver_dict import DriverDict
from strategies.interface import (
    Accounts,
    Batched,
    Caller,
    Capabilities,
    Context,
    Durability,
    Fault,
    Function,
    Indeterminate,
    InsufficientFunds,
    InvalidAmount,
    Operation,
    Pipelined,
    Receipt,
    Rejected,
    Resource,
    StateLost,
    Unavailable,
    UnknownAccount,
)


class Plain(Accounts):
    """A dict and a lock: correct, for as long as the process lives."""

    capabilities = Capabilities(callers=frozenset({Caller.DRIVER}))

    def __init__(self, context: Context) -> None:
        self.context = context
        self.lock = threading.Lock()
        self.receipts: dict[str, Receipt] = {}
        self.deposits = 0

    @classmethod
    def open(cls, context: Context) -> Self:
        return cls(context)

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        with self.lock:
            self.receipts[account] = Receipt(1, opening, 1)
            return self.receipts[account]

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        with self.lock:
            self.deposits += 1
            return self.change(account, amount)

    def change(self, account: str, amount: int) -> Receipt:
        receipt = self.receipts[account]
        self.receipts[account] = Receipt(receipt.seq + 1, receipt.balance + amount, 1)
        return self.receipts[account]

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        raise NotImplementedError

    def transfer(self, source: str, target: str, amount: int, *, op_id: Any = None) -> tuple[Receipt, Receipt]:
        raise NotImplementedError

    def balance(self, account: str) -> Receipt:
        with self.lock:
            try:
                return self.receipts[account]
            except KeyError:
                raise UnknownAccount(account) from None

    def snapshot(self) -> dict[str, Receipt]:
        with self.lock:
            return dict(self.receipts)

    def close(self) -> None:
        pass


# -- broken on purpose -----------------------------------------------------------------------------


class LosesEveryTenth(Plain):
    """Gives a receipt for every tenth deposit, and forgets it."""

    def change(self, account: str, amount: int) -> Receipt:
        before = self.receipts[account]
        receipt = super().change(account, amount)
        if self.deposits % 10 == 0:
            self.receipts[account] = before
        return receipt


class DoublesEveryTenth(Plain):
    """Applies every tenth deposit twice."""

    def change(self, account: str, amount: int) -> Receipt:
        receipt = super().change(account, amount)
        if self.deposits % 10 == 0:
            super().change(account, amount)
        return receipt


class AppliesWhatItRefuses(Plain):
    """Says no to every tenth deposit, and applies it."""

    def change(self, account: str, amount: int) -> Receipt:
        receipt = super().change(account, amount)
        if self.deposits % 10 == 0:
            raise Rejected("no")
        return receipt


class ReadsStale(Plain):
    """Reads from a replica that is 50 changes behind."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.replica: dict[str, Receipt] = {}

    def change(self, account: str, amount: int) -> Receipt:
        if self.deposits % 50 == 1:
            self.replica = dict(self.receipts)
        return super().change(account, amount)

    def balance(self, account: str) -> Receipt:
        with self.lock:
            return self.replica.get(account, self.receipts[account])


class UnsureOfEveryTenth(Plain):
    """Correct: applies every deposit, and honestly does not know whether it did every tenth."""

    def change(self, account: str, amount: int) -> Receipt:
        receipt = super().change(account, amount)
        if self.deposits % 10 == 0:
            raise Indeterminate("who knows")
        return receipt


class RaisesUnexpectedly(Plain):
    """Raises what the interface does not know."""

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        raise ZeroDivisionError("a bug of the strategy")


class CannotOpen(Plain):
    @classmethod
    def open(cls, context: Context) -> Self:
        raise Unavailable("the vault is locked")


class TellsItsUrl(Plain):
    """Raises an error with the URL in it, as many a client library does."""

    capabilities = Capabilities(callers=frozenset({Caller.DRIVER}), needs=frozenset({Resource.REDIS}))

    @classmethod
    def open(cls, context: Context) -> Self:
        raise RuntimeError(f"could not do it with {context.redis_url}")


class ClaimsTooMuch(ActorSingle):
    """State in a Dask actor that nobody recovers, and a claim to survive its worker's death."""

    capabilities = replace(ActorSingle.capabilities, survives=frozenset({Fault.WORKER_KILL}), variants=("proxied",))


class ClaimsTooLittle(DriverDict):
    """Nothing of it is near a worker, and it claims to survive none."""

    capabilities = replace(DriverDict.capabilities, survives=frozenset())


# -- which operations a strategy meets -------------------------------------------------------------


class Diary(Plain):
    """Writes down the operations it meets, by client."""

    written: ClassVar[dict[str, list[tuple[Any, ...]]]] = defaultdict(list)

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        assert op_id is not None
        session, number = op_id
        self.written[session].append((number, account, amount))
        return super().deposit(account, amount, op_id=op_id)


class SlowDiary(Diary):
    """Another strategy, with other timing."""

    written: ClassVar[dict[str, list[tuple[Any, ...]]]] = defaultdict(list)

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        time.sleep(0.001)
        return super().deposit(account, amount, op_id=op_id)


# -- claims to decide by ---------------------------------------------------------------------------


class NoCallers(Plain):
    capabilities = Capabilities()


class OnlyTasks(Plain):
    capabilities = Capabilities(callers=frozenset({Caller.TASK}), needs=frozenset({Resource.DASK}))


class NeedsRedis(Plain):
    """One variant per durability class."""

    capabilities = Capabilities(
        callers=frozenset({Caller.DRIVER}),
        needs=frozenset({Resource.REDIS}),
        variants=("forgets", "crash", "power"),
    )

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        durability = {"forgets": Durability.VOLATILE, "crash": Durability.PROCESS_CRASH, "power": Durability.POWER_LOSS}
        return replace(cls.capabilities, durability=durability[variant])


# -- forms of calling ------------------------------------------------------------------------------


class Batches(Plain, Batched):
    """Takes several operations in one call. Writes down how many came at once."""

    sizes: ClassVar[list[int]] = []

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        if operations[0].function is not Function.OPEN_ACCOUNT:
            self.sizes.append(len(operations))
        return [self.one(operation) for operation in operations]

    def one(self, operation: Operation) -> Receipt | Rejected:
        if operation.function is Function.OPEN_ACCOUNT:
            return self.open_account(operation.account, operation.amount)
        if operation.function is Function.BALANCE:
            return self.balance(operation.account)
        return self.deposit(operation.account, operation.amount)


class Superstitious(Batches):
    """Refuses what it has no right to: any amount of 13."""

    def one(self, operation: Operation) -> Receipt | Rejected:
        return InvalidAmount("13 is unlucky here") if operation.amount == 13 else super().one(operation)


class UnsureOfBatches(Batches):
    """Applies every fifth batch, and honestly does not know whether it did."""

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        answers = super().apply(operations)
        if operations[0].function is not Function.OPEN_ACCOUNT and len(self.sizes) % 5 == 4:
            raise Indeterminate("who knows")
        return answers


class AnswersTooLittle(Batches):
    """Forgets the last answer of each batch."""

    def apply(self, operations: Sequence[Operation]) -> list[Receipt | Rejected]:
        answers = super().apply(operations)
        return answers if operations[0].function is Function.OPEN_ACCOUNT else answers[:-1]


class Pipelines(Plain, Pipelined):
    """Applies at once, and answers from another thread."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.threads = ThreadPoolExecutor(2)

    def submit(self, operation: Operation) -> Future[Receipt]:
        return self.threads.submit(self.answer, operation)

    def answer(self, operation: Operation) -> Receipt:
        if operation.function is Function.BALANCE:
            return self.balance(operation.account)
        return self.deposit(operation.account, operation.amount)

    def close(self) -> None:
        self.threads.shutdown()


class NeverAnswers(Plain, Pipelined):
    """Loses what it is sent."""

    def submit(self, operation: Operation) -> Future[Receipt]:
        return Future()


# -- trouble ---------------------------------------------------------------------------------------


class SlowsDown(Plain):
    """Its calls take twice as long every half second."""

    begin_s = 0.0

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        self.begin_s = self.begin_s or time.perf_counter()
        time.sleep(0.001 * 2 ** (2 * (time.perf_counter() - self.begin_s)))
        return super().deposit(account, amount, op_id=op_id)


class Stalls(Plain):
    """Answers nobody for a while, once."""

    STALL_S = 0.3

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        with self.lock:
            self.deposits += 1
            if self.deposits == 200:
                time.sleep(self.STALL_S)
            return self.change(account, amount)


class RaisesEachKind(Plain):
    """Every other deposit fails: each kind of error in turn."""

    kinds = (InsufficientFunds, Unavailable, StateLost, Indeterminate)

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        with self.lock:
            self.deposits += 1
            if self.deposits % 2:
                return self.change(account, amount)
            raise self.kinds[self.deposits // 2 % len(self.kinds)]("told to")


class Hogs(Plain):
    """Burns processor time in the caller's own process."""

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        end_s = time.thread_time() + 0.001
        while time.thread_time() < end_s:
            pass
        return super().deposit(account, amount, op_id=op_id)
