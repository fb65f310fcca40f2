"""Backends whose behaviour is known: what the ruler is measured against. None of them is a strategy."""

from __future__ import annotations

import threading
import time
from typing import ClassVar, Self

import numpy as np

from benchmarks.harness.history import DEPOSIT, OK, Floats, History
from strategies.interface import Accounts, Caller, Capabilities, Context, Receipt


class NoOp(Accounts):
    """Answers at once, and always the same: what a load generator reaches on it is the generator's own limit."""

    capabilities = Capabilities(callers=frozenset({Caller.DRIVER, Caller.TASK}))
    _receipt: ClassVar[Receipt] = Receipt(1, 0, 1)

    @classmethod
    def open(cls, context: Context) -> Self:
        return cls()

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._receipt

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        return self._receipt, self._receipt

    def balance(self, account: str) -> Receipt:
        return self._receipt

    def snapshot(self) -> dict[str, Receipt]:
        return {}

    def close(self) -> None:
        pass


class OneServer(NoOp):
    """Serves one call after another, each in the same time, but for one stall."""

    def __init__(self, service_s: float, stall_after_s: float = float("inf"), stall_s: float = 0.0) -> None:
        self._service_s = service_s
        self._stall_after_s, self._stall_s = stall_after_s, stall_s
        self._turn = threading.Lock()
        self._first_s: float | None = None
        self._free_s = 0.0

    def balance(self, account: str) -> Receipt:
        return self._serve()

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        return self._serve()

    def _serve(self) -> Receipt:
        with self._turn:
            now = time.perf_counter()
            self._first_s = now if self._first_s is None else self._first_s
            if now - self._first_s >= self._stall_after_s:
                self._stall_after_s = float("inf")
                time.sleep(self._stall_s)
                now = time.perf_counter()
            # A sleep that lasts too long is made up for by the next one: the mean is exact.
            self._free_s = max(now, self._free_s) + self._service_s
            time.sleep(max(0.0, self._free_s - time.perf_counter()))
        return self._receipt


def stalled_p99_s(rate_per_s: float, seconds: float, service_s: float, stall_s: float) -> float:
    """The p99 of response times of constant arrivals at one server that stalls once, worked out.

    What arrives x after the stall began waits for its rest and for those before it: stall - x (1 - rate *
    service). So the longest 1 % of waits began within the first 1 % of `seconds`.
    """
    load = rate_per_s * service_s
    return stall_s - 0.01 * seconds * (1 - load) + service_s


def queue(due_s: Floats, service_s: Floats) -> History:
    """What callers of one server see, by Lindley's recursion, without waiting for it: one operation a client."""
    finish_s = np.empty(len(due_s))
    free_s = 0.0
    for place, (due, service) in enumerate(zip(due_s.tolist(), service_s.tolist(), strict=True)):
        free_s = max(due, free_s) + service
        finish_s[place] = free_s
    size = len(due_s)
    zeros = np.zeros(size, dtype=np.int64)
    return History(
        process=np.zeros(size, dtype=np.int16),
        client=np.arange(size).astype(np.int16),
        number=np.zeros(size, dtype=np.int32),
        attempt=np.zeros(size, dtype=np.int16),
        keyed=np.zeros(size, dtype=np.bool_),
        function=np.full(size, DEPOSIT, dtype=np.int8),
        account=np.zeros(size, dtype=np.int32),
        target=np.full(size, -1, dtype=np.int32),
        amount=zeros,
        due_ns=(due_s * 1e9).astype(np.int64),
        sent_ns=(due_s * 1e9).astype(np.int64),
        done_ns=(finish_s * 1e9).astype(np.int64),
        fate=np.full(size, OK, dtype=np.int8),
        reason=np.zeros(size, dtype=np.int8),
        seq=zeros.astype(np.int32),
        balance=zeros,
        epoch=zeros,
        target_seq=zeros.astype(np.int32),
        target_balance=zeros,
        target_epoch=zeros,
    )


def slowed(base: type[Accounts], share: float) -> type[Accounts]:
    """The strategy with its deposits lengthened by this share of their own time.

    With 0 they are timed alike, so that the two differ in nothing but the slowdown. Each handle has one session of
    op ids for all loads: what a strategy remembers of sessions would grow with every short load otherwise, and with
    it the time of its calls.
    """

    class Slowed(base):  # type: ignore[misc, valid-type]
        _owed_ns = 0.0

        def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
            begin_ns = time.perf_counter_ns()
            self._number = number = getattr(self, "_number", 0) + 1
            receipt: Receipt = super().deposit(account, amount, op_id=(_SESSION, number))
            end_ns = now_ns = time.perf_counter_ns()
            self._owed_ns += (end_ns - begin_ns) * share
            if self._owed_ns > _SPIN_NS:
                while now_ns - end_ns < self._owed_ns:
                    now_ns = time.perf_counter_ns()
                self._owed_ns -= now_ns - end_ns
            return receipt

    Slowed.name = f"{base.name}_slower_by_{share:g}"
    return Slowed


_SESSION = "slowed"
_SPIN_NS = 2_000.0
"""A shorter debt is carried over: spinning it off would cost more than it."""
