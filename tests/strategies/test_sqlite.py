"""SQLite's own promises: a change alone is one statement, and what becomes of it is known or said not to be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from strategies.interface import Context, Indeterminate, Receipt, Unavailable, load

SQLITE = load("sqlite")


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Any]:
    with SQLITE.open(Context(directory=tmp_path, timeout_s=0.3)) as opened:
        opened.open_account("a", 100)
        yield opened


@contextmanager
def other_process(folder: Path) -> Iterator[sqlite3.Connection]:
    """As far as locks go: a connection that this handle knows nothing of."""
    (path,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def test_a_deposit_alone_is_there_for_others_when_it_is_answered(accounts: Any, tmp_path: Path) -> None:
    assert accounts.deposit("a", 5)[:2] == (2, 105)
    with other_process(tmp_path) as other:
        assert other.execute("SELECT seq, balance FROM accounts").fetchall() == [(2, 105)]
        other.execute("BEGIN IMMEDIATE")  # nobody is in a transaction any more
        other.execute("ROLLBACK")


def test_with_and_without_an_op_id_it_comes_to_the_same(accounts: Any) -> None:
    assert accounts.withdraw("a", 30)[:2] == (2, 70)
    assert accounts.withdraw("a", 30, op_id=("s", 1))[:2] == (3, 40)
    assert accounts.deposit("a", 1)[:2] == (4, 41)


@pytest.mark.parametrize("op_id", [None, ("s", 1)])
def test_while_another_process_writes_it_waits_and_then_gives_up(
    accounts: Any, tmp_path: Path, op_id: tuple[str, int] | None
) -> None:
    with other_process(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            accounts.deposit("a", 5, op_id=op_id)
        other.execute("ROLLBACK")
    assert accounts.deposit("a", 5, op_id=op_id)[:2] == (2, 105)


class FailsToCommit:
    """A connection on which the statement works, and the step behind its last row does not."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, *arguments: Any) -> FailsToCommit:
        self._connection.execute(*arguments)
        return self

    def fetchone(self) -> Receipt:
        raise sqlite3.OperationalError("disk I/O error")

    def close(self) -> None:
        self._connection.close()


def test_a_commit_that_fails_may_have_happened(accounts: Any) -> None:
    database = accounts._database
    database._idle.append(FailsToCommit(database._idle.pop()))
    with pytest.raises(Indeterminate, match="op id"):
        accounts.deposit("a", 5)
    assert accounts.balance("a").seq in (1, 2)


def test_a_read_that_fails_may_be_sent_again(accounts: Any) -> None:
    database = accounts._database
    database._idle.append(FailsToCommit(database._idle.pop()))
    with pytest.raises(Unavailable):
        accounts.balance("a")
    assert accounts.balance("a")[:2] == (1, 100)
