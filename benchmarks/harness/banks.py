"""Opens strategies on blank banks, with a workload's accounts."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from benchmarks.harness.cells import Cell
from benchmarks.harness.environment import Environment
from benchmarks.harness.workloads import OPENING, Workload
from strategies.interface import (
    AccountExists,
    Accounts,
    Batched,
    Context,
    Function,
    Indeterminate,
    Operation,
    Rejected,
    Unavailable,
)

OPENING_THREADS = 16
_OPENING_ATTEMPTS = 5
_DEADLINE_S_PER_ACCOUNT = 50e-6
"""The final snapshot is one call, of a million accounts too."""
_APPLY_SIZE = 1000


@contextmanager
def opened(cell: Cell, environment: Environment, workload: Workload, timeout_s: float) -> Iterator[Accounts]:
    """The strategy on a blank bank, with the workload's accounts opened."""
    deadline_s = max(timeout_s, workload.accounts * _DEADLINE_S_PER_ACCOUNT)
    bank = f"bench-{uuid.uuid4().hex}"
    context = environment.context(cell.claims, cell.variant, bank, deadline_s, cell.shards)
    with cell.accounts.open(context) as accounts:
        open_accounts(accounts, workload.account_names)
        collect_garbage()
        yield accounts
    environment.drop_actors()


def open_patiently(kind: type[Accounts], context: Context) -> Accounts:
    """Open the bank, again if its deadline, which is short for a fault's sake, passed on a busy machine."""
    for _ in range(_OPENING_ATTEMPTS - 1):
        with suppress(Unavailable):
            return kind.open(context)
    return kind.open(context)


def collect_garbage() -> None:
    """Now, and not within the measured time: a full collection took 0.1 to 0.2 s, wherever it was thought due.

    What is alive now is not looked through again. What of it dies in cycles stays: some kilobytes a trial.
    """
    gc.collect()
    gc.freeze()


def open_accounts(accounts: Accounts, names: Sequence[str]) -> None:
    """Open these accounts with `OPENING` each."""
    if isinstance(accounts, Batched):
        for first in range(0, len(names), _APPLY_SIZE):
            batch = names[first : first + _APPLY_SIZE]
            for answer in accounts.apply([Operation(Function.OPEN_ACCOUNT, name, OPENING) for name in batch]):
                if isinstance(answer, Rejected):
                    raise answer
        return
    with ThreadPoolExecutor(OPENING_THREADS) as threads:
        for _ in threads.map(lambda name: _open_account(accounts, name), names):
            pass


def _open_account(accounts: Accounts, name: str) -> None:
    """With patience: a deadline that is short for the fault's sake can pass on a busy machine."""
    for attempt in range(_OPENING_ATTEMPTS):
        try:
            accounts.open_account(name, OPENING)
        except AccountExists:
            if not attempt:
                raise
            return
        except (Unavailable, Indeterminate):
            if attempt == _OPENING_ATTEMPTS - 1:
                raise
        else:
            return
