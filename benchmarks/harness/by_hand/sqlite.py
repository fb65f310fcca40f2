"""A deposit by hand with sqlite3: one transaction of one UPDATE, on one connection."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In a file of its own, with the log synced as the strategy's first variant has it."""
    assert context.directory is not None
    path = context.directory / f"by-hand-{uuid.uuid4().hex}.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE accounts (account TEXT PRIMARY KEY, seq INT, balance INT) WITHOUT ROWID")
        connection.execute("INSERT INTO accounts VALUES ('a', 1, 0)")

        def deposit() -> Sequence[int]:
            connection.execute("BEGIN IMMEDIATE")
            row: tuple[int, int] = connection.execute(
                "UPDATE accounts SET seq = seq + 1, balance = balance + 1 WHERE account = 'a' RETURNING seq, balance"
            ).fetchone()
            connection.execute("COMMIT")
            return row

        yield deposit
