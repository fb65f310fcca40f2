"""A deposit by hand with psycopg: one UPDATE, committed by itself, on one connection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In a table of its own, synchronous as the strategy's first variant is."""
    import psycopg  # an extra

    assert context.postgres_url is not None
    table = f"by_hand_{uuid.uuid4().hex}"
    with psycopg.connect(context.postgres_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")
        connection.execute(f"CREATE TABLE {table} (account text PRIMARY KEY, seq bigint, balance bigint)")
        connection.execute(f"INSERT INTO {table} VALUES ('a', 1, 0)")
        update = f"UPDATE {table} SET seq = seq + 1, balance = balance + %s WHERE account = %s RETURNING seq, balance"

        def deposit() -> Sequence[int]:
            row: tuple[int, int] | None = connection.execute(update, (1, "a"), prepare=True).fetchone()
            assert row is not None
            return row

        yield deposit
