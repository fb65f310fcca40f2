"""A deposit by hand through a plain Dask actor, which does it with sqlite3: one transaction of one UPDATE."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.harness.by_hand import Deposit
from benchmarks.harness.load import shipped_by_value
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In a file of its own, with the log synced as the strategy's first variant has it."""
    client = context.client
    assert client is not None
    assert context.directory is not None
    path = str(context.directory / f"by-hand-{uuid.uuid4().hex}.sqlite")
    front = client.submit(shipped_by_value(_making()), path, actor=True, pure=False).result()

    def deposit() -> Sequence[int]:
        row: Sequence[int] = front.deposit().result()
        return row

    yield deposit


def _making() -> Callable[[str], object]:
    """What makes the actor. What is nested travels by value: workers cannot import this module."""

    def make(path: str) -> object:
        import sqlite3

        class Front:
            def __init__(self) -> None:
                self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                run = self._connection.execute
                run("PRAGMA journal_mode = WAL")
                run("PRAGMA synchronous = NORMAL")
                run("CREATE TABLE accounts (account TEXT PRIMARY KEY, seq INT, balance INT) WITHOUT ROWID")
                run("INSERT INTO accounts VALUES ('a', 1, 0)")

            def deposit(self) -> tuple[int, int]:
                run = self._connection.execute
                run("BEGIN IMMEDIATE")
                row: tuple[int, int] = run(
                    "UPDATE accounts SET seq = seq + 1, balance = balance + 1 WHERE account = 'a' "
                    "RETURNING seq, balance"
                ).fetchone()
                run("COMMIT")
                return row

        return Front()

    return make
