"""Offers load: clients that call one after another, in the driver's threads or inside Dask tasks.

A client's call ends within the strategy's deadline, so a load ends within its time and one deadline.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

from benchmarks.harness.history import BALANCE, DEPOSIT, LOST, OK, REJECTED, UNAVAILABLE, UNKNOWN, History
from strategies.interface import (
    Accounts,
    Caller,
    Indeterminate,
    Receipt,
    Rejected,
    StateLost,
    Unavailable,
)

if TYPE_CHECKING:
    from distributed import Client

    from benchmarks.harness.workloads import Plan

T = TypeVar("T")

CAPACITY = 1_000_000
"""Operations that one client records at most; it stops there."""

START_S = 0.1
"""How long clients wait for each other before the first operation."""
_TASKS_LATE_S = 30.0
_LONGEST_WAIT_S = 5.0
"""Bound on that wait where clocks differ."""


@dataclass(frozen=True)
class Load:
    """How much is offered. Without an interval, each client calls again as soon as it has its answer (closed loop)."""

    clients: int
    seconds: float
    interval_s: float | None = None
    """Time between the due times of one client's operations; late ones follow at once."""


def offer(
    accounts: Accounts, names: list[str], plans: list[Plan], load: Load, caller: Caller, session: str, client: Client
) -> History:
    """Run one client per plan, all at the same time, and return what happened."""
    if caller is Caller.TASK:
        parts = _in_tasks(accounts, names, plans, load, session, client)
    else:
        parts = _in_threads(accounts, names, plans, load, session)
    return History.merged([History(**part) for part in parts])


def _in_threads(
    accounts: Accounts, names: list[str], plans: list[Plan], load: Load, session: str
) -> list[dict[str, Any]]:
    start_ns = time.time_ns() + int(START_S * 1e9)

    given_up: list[bool] = []

    def run(index: int, plan: Plan) -> dict[str, Any]:
        return drive(accounts, names, *_plain(plan, load), index, session, start_ns, given_up)

    with ThreadPoolExecutor(len(plans)) as threads:
        try:
            return list(threads.map(run, range(len(plans)), plans))
        except BaseException:
            given_up.append(True)  # else Ctrl-C would wait for the load to end
            raise


def _in_tasks(
    accounts: Accounts, names: list[str], plans: list[Plan], load: Load, session: str, client: Client
) -> list[dict[str, Any]]:
    from distributed import wait

    workers = sorted(client.nthreads())
    # Dask pickles by reference what this process can import; a file of the user's own, workers cannot.
    handle = cloudpickle.dumps(accounts)
    task = _shipped_by_value(drive)
    start_ns = time.time_ns() + int(3 * START_S * 1e9)
    futures = [
        client.submit(
            task,
            handle,
            names,
            *_plain(plan, load),
            index,
            session,
            start_ns,
            pure=False,
            retries=0,
            workers=[workers[index % len(workers)]],
        )
        for index, plan in enumerate(plans)
    ]
    try:
        wait(futures, timeout=3 * START_S + load.seconds + _TASKS_LATE_S)
        parts: list[dict[str, Any]] = client.gather(futures)
        return parts
    finally:
        client.cancel(futures)


def _shipped_by_value(function: Callable[..., T]) -> Callable[..., T]:
    """The function, for workers that cannot import this module: asv's cannot, and die of trying.

    Dask asks cloudpickle's register of modules only about the outermost object, which is a graph; a function
    within a function is never taken by reference.
    """
    payload = cloudpickle.dumps(function)

    def call(*arguments: Any) -> T:
        shipped: Callable[..., T] = cloudpickle.loads(payload)
        return shipped(*arguments)

    return call


def _plain(plan: Plan, load: Load) -> tuple[Any, Any, Any, float, float | None]:
    return plan.function, plan.account, plan.amount, load.seconds, load.interval_s


def drive(
    accounts: Accounts | bytes,
    names: list[str],
    functions: Any,
    targets: Any,
    amounts: Any,
    seconds: float,
    interval_s: float | None,
    index: int,
    session: str,
    start_ns: int,
    given_up: list[bool] | None = None,
) -> dict[str, Any]:
    """Be one client: call, wait for the answer, call again. Returns the columns of `History`.

    `start_ns` is a reading of `time_ns`, which clients on other machines share more or less.
    """
    import numpy as np

    handle: Accounts = cloudpickle.loads(accounts) if isinstance(accounts, bytes) else accounts
    length = len(functions)
    function_of, target_of, amount_of = functions.tolist(), targets.tolist(), amounts.tolist()
    deposit, withdraw, balance = handle.deposit, handle.withdraw, handle.balance
    session = f"{session}-{index}"
    clock = time.perf_counter_ns
    due_ns, sent_ns, done_ns, fates = array("q"), array("q"), array("q"), array("b")
    receipts: list[Receipt | None] = []
    interval_ns = 0 if interval_s is None else int(interval_s * 1e9)

    time.sleep(max(0.0, min((start_ns - time.time_ns()) / 1e9, _LONGEST_WAIT_S)))
    begin_ns = clock()
    end_ns = begin_ns + int(seconds * 1e9)
    number = 0
    while number < CAPACITY and not given_up:
        sent = due = clock()
        if interval_ns:
            due = begin_ns + number * interval_ns
            if due > sent:
                time.sleep((due - sent) / 1e9)
                sent = clock()
        if sent >= end_ns or due >= end_ns:
            break
        at = number % length
        name = names[target_of[at]]
        receipt, fate = None, OK
        try:
            if function_of[at] == BALANCE:
                receipt = balance(name)
            elif function_of[at] == DEPOSIT:
                receipt = deposit(name, amount_of[at], op_id=(session, number))
            else:
                receipt = withdraw(name, amount_of[at], op_id=(session, number))
        except Rejected:
            fate = REJECTED
        except Unavailable:
            fate = UNAVAILABLE
        except StateLost:
            fate = LOST
        except Indeterminate:
            fate = UNKNOWN
        done = clock()
        due_ns.append(due)
        sent_ns.append(sent)
        done_ns.append(done)
        fates.append(fate)
        receipts.append(receipt)
        number += 1

    positions = np.arange(number) % length
    certificates = np.array([receipt or (0, 0, 0) for receipt in receipts], dtype=np.int64).reshape(number, 3)
    return {
        "client": np.full(number, index),
        "number": np.arange(number),
        "function": functions[positions],
        "account": targets[positions],
        "amount": amounts[positions],
        "due_ns": np.array(due_ns, dtype=np.int64),
        "sent_ns": np.array(sent_ns, dtype=np.int64),
        "done_ns": np.array(done_ns, dtype=np.int64),
        "fate": np.array(fates, dtype=np.int8),
        "seq": certificates[:, 0],
        "balance": certificates[:, 1],
        "epoch": certificates[:, 2],
    }


# `drive` goes to workers that cannot import `benchmarks` (asv loads it by an importer of its own).
cloudpickle.register_pickle_by_value(sys.modules[__name__])
