"""State in an SQLite database: one file in a directory that all callers share, one transaction for a change or a batch.

The embedded durable choice: no server, no message. Callers take turns at the file's one lock for writers, by
threads of one process in the order of their coming, by processes in no order; readers wait for nobody (write-ahead
log). A batch, and what is submitted while the last batch is written, is one transaction: one sync pays for all of it.

It works where all callers see one file system and its locks work: on one host, not over NFS
(https://sqlite.org/wal.html). What is lost depends on `PRAGMA synchronous`, which is the variant:

- `normal`: the log is synced when it is copied into the database, not at each commit. A dead process loses nothing,
  a power cut what was committed since (https://sqlite.org/pragma.html#pragma_synchronous).
- `full`: the log is synced at each commit, before the answer.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    MAX_MONEY,
    Answer,
    Caller,
    Capabilities,
    Consistency,
    Context,
    Durability,
    Fault,
    Receipt,
    Resource,
    Retries,
    StateLost,
    Transfers,
    Unavailable,
    UnknownAccount,
)
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger import epoch_now
from strategies.support.transaction import Transaction
from strategies.support.transactional import TransactionalAccounts, fate
from strategies.support.validation import check_account, whole_amount
from strategies.support.wire import DEPOSIT, FUNCTIONS, WITHDRAW, Batch

_SYNCHRONOUS = {"normal": "NORMAL", "full": "FULL"}

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS bank (name TEXT NOT NULL, epoch INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS accounts "
    "(account TEXT PRIMARY KEY, seq INTEGER NOT NULL, balance INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS sessions (session TEXT PRIMARY KEY, highest INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS slots "
    "(session TEXT, slot INTEGER, record BLOB NOT NULL, PRIMARY KEY (session, slot)) WITHOUT ROWID",
)

_ADD = (
    "UPDATE accounts SET seq = seq + 1, balance = balance + ?2 "
    f"WHERE account = ?1 AND balance + ?2 BETWEEN 0 AND {MAX_MONEY} RETURNING seq, balance"
)
_FIND_ACCOUNT = "SELECT account, seq, balance FROM accounts WHERE account = ?"
_FIND_SESSION = "SELECT session, highest FROM sessions WHERE session = ?"
_FIND_SLOT = "SELECT session, slot, record FROM slots WHERE session = ? AND slot = ?"
_PUT_ACCOUNT = "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)"
_PUT_SESSION = "INSERT OR REPLACE INTO sessions VALUES (?, ?)"
_PUT_SLOT = "INSERT OR REPLACE INTO slots VALUES (?, ?, ?)"

_MAX_IDLE = 64
_CACHED_STATEMENTS = 32
_FIRST_WAIT_S = 0.00005
_LONGEST_WAIT_S = 0.002
"""Between two attempts to be the process that writes. SQLite's own handler sleeps up to 100 ms at a time: of four
processes, one waited for 0.7 s."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Sqlite(TransactionalAccounts):
    """A handle with connections of its own to the database; one per concurrent caller."""

    capabilities = Capabilities(
        survives=CLUSTER_FAULTS | CALLER_FAULTS | {Fault.DRIVER_KILL, Fault.POISON_ARGUMENT, Fault.DISK_FULL},
        durability=Durability.PROCESS_CRASH,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.DIRECTORY}),
        variants=tuple(_SYNCHRONOUS),
    )

    def __init__(self, context: Context, epoch: int) -> None:
        super().__init__(context, epoch)
        assert context.directory is not None
        self._database = _Database(
            _path_of(context.directory, context.bank),
            _SYNCHRONOUS[context.variant or self.capabilities.variants[0]],
            epoch,
        )

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        if variant == "full":
            survives = cls.capabilities.survives | {Fault.POWER_LOSS}
            return replace(cls.capabilities, durability=Durability.POWER_LOSS, survives=survives)
        return cls.capabilities

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank's file in `context.directory`, or make it.

        Raises:
            ValueError: there is no directory in the context, or no such variant.
            Unavailable: the directory or file cannot be used, or is busy for too long.
        """
        if context.directory is None:
            raise ValueError(f"{cls.name} keeps its state in a file; put a directory into the context")
        if context.variant not in (None, *_SYNCHRONOUS):
            raise ValueError(f"{cls.name} has the variants {', '.join(_SYNCHRONOUS)}, not {context.variant!r}")
        path = _path_of(context.directory, context.bank)
        deadline = time.monotonic() + context.timeout_s
        try:
            epoch = _made(path, context.bank, deadline)
        except (NotSent, OSError, sqlite3.Error) as error:
            raise Unavailable(f"the database {path} cannot be used: {error}; check the directory") from error
        return cls(context, epoch)

    def balance(self, account: str) -> Receipt:
        check_account(account)
        self._check_open()
        try:
            found = self._database.read(_FIND_ACCOUNT, (account,))
        except (NotSent, sqlite3.Error) as error:
            raise fate("balance", error, changes=False) from error
        if found is None:
            raise UnknownAccount(f"no account {account!r} was opened here; call open_account first")
        _, seq, balance = found
        return Receipt(seq, balance, self._epoch)

    def snapshot(self) -> dict[str, Receipt]:
        self._check_open()
        try:
            with self._database.connection() as connection:  # one statement, so one moment
                rows = connection.execute("SELECT account, seq, balance FROM accounts")
                return {account: Receipt(seq, balance, self._epoch) for account, seq, balance in rows}
        except (NotSent, sqlite3.Error) as error:
            raise fate("snapshot", error, changes=False) from error

    def close(self) -> None:
        super().close()
        self._database.close()

    def _change(self, code: int, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None) -> Any:
        """With nothing to remember, a deposit is one statement; what it refuses, the ledger says why."""
        if op_id is None and code in (DEPOSIT, WITHDRAW):
            check_account(accounts[0])
            amount = whole_amount(amount)
            self._check_open()
            if 1 <= amount <= MAX_MONEY:
                added = amount if code == DEPOSIT else -amount
                try:
                    found = self._database.change(_ADD, (accounts[0], added), time.monotonic() + self._timeout_s)
                except (NotSent, NotAnswered) as error:
                    raise fate(FUNCTIONS[code], error, changes=True) from error
                if found is not None:
                    seq, balance = found
                    return Receipt(seq, balance, self._epoch)
        return super()._change(code, accounts, amount, op_id)

    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        work = Transaction(batch, self._epoch)
        with self._database.writing(deadline) as connection:
            run = connection.execute
            for account in work.accounts:
                work.know_accounts(run(_FIND_ACCOUNT, (account,)))
            for session in work.sessions:
                work.know_sessions(run(_FIND_SESSION, (session,)))
            for slot in work.slots:
                work.know_slots(run(_FIND_SLOT, slot))
            answers = work.apply()
            for statement, rows in (
                (_PUT_ACCOUNT, work.changed_accounts()),
                (_PUT_SESSION, work.changed_sessions()),
                (_PUT_SLOT, work.changed_slots()),
            ):
                connection.executemany(statement, rows)
        return answers


class _Database:
    """One file from one process; shared by its threads."""

    def __init__(self, path: Path, synchronous: str, epoch: int) -> None:
        self._path = path
        self._synchronous = synchronous
        self._epoch = epoch
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: deque[sqlite3.Connection] = deque()
        self._turn = threading.Lock()

    def read(self, statement: str, values: tuple[object, ...]) -> Any:
        """The first row that a statement finds, or None."""
        connection = self._taken()
        try:
            found = connection.execute(statement, values).fetchone()
        except BaseException:
            connection.close()
            raise
        self._returned(connection)
        return found

    def change(self, statement: str, values: tuple[object, ...], deadline: float) -> Any:
        """The row of a statement that is a transaction by itself, or None; it changes one row or none.

        Raises:
            NotSent: it had no effect.
            NotAnswered: the commit failed, and what is in the log will tell.
        """
        connection = self._taken()
        try:
            self._take_turn(deadline)
            try:
                found = _execute_in_time(connection, statement, deadline, values)
                try:
                    row = found.fetchone()  # it steps on behind the last row, and there SQLite commits
                except sqlite3.Error as error:
                    raise NotAnswered(f"the commit failed: {error}") from error
            finally:
                self._turn.release()
        except BaseException:
            connection.close()
            raise
        self._returned(connection)
        return row

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call."""
        connection = self._taken()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._returned(connection)

    @contextmanager
    def writing(self, deadline: float) -> Iterator[sqlite3.Connection]:
        """A transaction that changes something; committed at the end.

        Raises:
            NotSent: it had no effect.
            NotAnswered: the commit failed, and what is in the log will tell.
        """
        with self.connection() as connection:
            self._take_turn(deadline)
            try:
                _execute_in_time(connection, "BEGIN IMMEDIATE", deadline)
                try:
                    yield connection
                except sqlite3.Error as error:
                    raise NotSent(str(error)) from error
                try:
                    connection.execute("COMMIT")
                except sqlite3.Error as error:
                    raise NotAnswered(f"the commit failed: {error}") from error
            finally:
                self._turn.release()

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        while self._idle:
            self._idle.pop().close()

    def _taken(self) -> sqlite3.Connection:
        if self._process != os.getpid():  # SQLite's connections and locks must not cross a fork
            self._begin()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connected()

    def _returned(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _take_turn(self, deadline: float) -> None:
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise NotSent("other threads wrote for too long")

    def _connected(self) -> sqlite3.Connection:
        connection = _connection(self._path, "rw")
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            ((epoch,),) = connection.execute("SELECT epoch FROM bank")
        except (sqlite3.Error, ValueError) as error:
            connection.close()
            raise NotSent(f"{self._path} cannot be read: {error}") from error
        if epoch != self._epoch:
            connection.close()
            raise StateLost(f"{self._path} is another bank than this handle was opened on; open it again")
        return connection


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
    except sqlite3.Error as error:
        raise NotSent(f"{path} cannot be opened: {error}") from error


def _execute_in_time(
    connection: sqlite3.Connection, statement: str, deadline: float, values: tuple[object, ...] = ()
) -> sqlite3.Cursor:
    """Try again while another process writes."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return connection.execute(statement, values)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BUSY or time.monotonic() + wait_s > deadline:
                raise NotSent(str(error)) from error
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _made(path: Path, bank: str, deadline: float) -> int:
    """The epoch of the bank in this file, which is made if there is none."""
    with closing(_connection(path, "rwc")) as connection:
        _execute_in_time(connection, "PRAGMA journal_mode = WAL", deadline)
        connection.execute("PRAGMA synchronous = FULL")  # whatever comes later, the bank itself stays
        _execute_in_time(connection, "BEGIN IMMEDIATE", deadline)
        for statement in _SCHEMA:
            connection.execute(statement)
        found = connection.execute("SELECT epoch FROM bank").fetchone()
        if found is None:
            found = (epoch_now(),)
            connection.execute("INSERT INTO bank VALUES (?, ?)", (bank, *found))
        connection.execute("COMMIT")
    epoch: int = found[0]
    return epoch


def _path_of(directory: Path, bank: str) -> Path:
    """A bank can have any name, a file cannot."""
    return directory / f"{blake2b(bank.encode(errors='surrogatepass'), digest_size=16).hexdigest()}.sqlite"
