"""State in PostgreSQL: a row per account, op ids in the same transaction; the relational database outside.

A deposit or a withdrawal is one round trip, with an op id too: a function in the server changes the row and remembers
the op id. What that function leaves undone (a rejection, an operation sent again), and all else, a batch too, is one
transaction of two: the first locks the rows that it concerns, sessions before accounts and each in the order of their
names, and reads them; the second writes them and commits. Whoever else needs one of these rows waits for that, so
transactions that share accounts or sessions happen one after the other, and none waits in a circle. A row that is not
there cannot be locked: sessions are made by that, and who opens accounts locks the bank.

All banks share four tables in the schema `dask_state_bench` of the URL's database. What is lost when depends on
`synchronous_commit`, which is the variant and is set for the strategy's own sessions:

- `commit_on`: the log is on disk before the answer; neither a crash nor a power cut loses what was answered, if the
  server has `fsync` on.
- `commit_off`: the log is written up to three times `wal_writer_delay` (200 ms unless set) later; a crash of the server
  alone loses what was answered since, and nothing older
  (https://www.postgresql.org/docs/current/wal-async-commit.html).

Where the disk of the log is full, the server ends itself: a crash
(https://www.postgresql.org/docs/current/disk-full.html).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    DEDUP_WINDOW,
    MAX_MONEY,
    MESSAGE_FAULTS,
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
from strategies.support.postgres_link import (
    PostgresConnection,
    PostgresLink,
    Refused,
    Row,
    Statement,
    Step,
    Value,
)
from strategies.support.transaction import Transaction, record_of
from strategies.support.transactional import TransactionalAccounts
from strategies.support.validation import check_account
from strategies.support.wire import DEPOSIT, FUNCTIONS, NO_NUMBER, OPEN_ACCOUNT, WITHDRAW, Batch

_SYNCHRONOUS_COMMIT = {"commit_on": "on", "commit_off": "off"}

_SCHEMA = "dask_state_bench"
_CHANGE_FUNCTION = """
    CREATE OR REPLACE FUNCTION {schema}.change(
        its_bank bigint, its_account bytea, amount bigint, its_session bytea, its_number bigint, its_slot bigint,
        record_head bytea
    ) RETURNS bytea LANGUAGE plpgsql AS $$
    DECLARE
        state bytea;
    BEGIN
        IF its_number >= 0 THEN
            UPDATE {schema}.sessions SET highest = its_number
                WHERE bank = its_bank AND session = its_session AND highest < its_number;
            IF NOT FOUND THEN
                RETURN '';
            END IF;
        END IF;
        UPDATE {schema}.accounts SET seq = seq + 1, balance = balance + amount
            WHERE bank = its_bank AND account = its_account AND balance + amount BETWEEN 0 AND {most}
            RETURNING '\\xd3'::bytea || int8send(seq) || '\\xd3'::bytea || int8send(balance) INTO state;
        IF NOT FOUND THEN
            RETURN '';
        END IF;
        IF its_number >= 0 THEN
            INSERT INTO {schema}.slots VALUES (its_bank, its_session, its_slot, record_head || state)
                ON CONFLICT (bank, session, slot) DO UPDATE SET record = excluded.record;
        END IF;
        RETURN state;
    END $$
"""
"""Its answer is the account's seq and balance, each as MessagePack has integers of 8 bytes: what the record of an op id
ends with. Nothing where the ledger must say why. Then the session's highest number may have risen, which nobody sees:
there is no record of it."""
_MAKE_ROOM = tuple(
    Statement(b"make_%d" % number, text.format(schema=_SCHEMA, most=MAX_MONEY).encode())
    for number, text in enumerate(
        (
            "SELECT pg_advisory_xact_lock(7238471003)",  # of two that make a table at a time, one would fail
            "CREATE SCHEMA IF NOT EXISTS {schema}",
            "CREATE TABLE IF NOT EXISTS {schema}.banks "
            "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name bytea UNIQUE, epoch bigint NOT NULL)",
            "CREATE TABLE IF NOT EXISTS {schema}.accounts "
            "(bank bigint, account bytea, seq bigint NOT NULL, balance bigint NOT NULL, PRIMARY KEY (bank, account)) "
            "WITH (fillfactor = 50)",
            "CREATE TABLE IF NOT EXISTS {schema}.sessions "
            "(bank bigint, session bytea, highest bigint NOT NULL, PRIMARY KEY (bank, session)) WITH (fillfactor = 50)",
            "CREATE TABLE IF NOT EXISTS {schema}.slots (bank bigint, session bytea, slot bigint, "
            "record bytea NOT NULL, PRIMARY KEY (bank, session, slot)) WITH (fillfactor = 50)",
            _CHANGE_FUNCTION,
        )
    )
)
"""Names are `bytea`: text has no NUL, and its order depends on where the server is. Pages have room for each row's next
version: one that is put beside the last needs no index entry, and takes the place of dead ones
(https://www.postgresql.org/docs/current/storage-hot.html)."""


def _statement(name: str, text: str) -> Statement:
    return Statement(name.encode(), text.format(schema=_SCHEMA, most=MAX_MONEY).encode())


_FIND_BANK = _statement("find_bank", "SELECT id, epoch FROM {schema}.banks WHERE name = $1")
_MAKE_BANK = _statement("make_bank", "INSERT INTO {schema}.banks (name, epoch) VALUES ($1, $2) ON CONFLICT DO NOTHING")
_KEEP_BANK = _statement("keep_bank", "SET LOCAL synchronous_commit = on")
_CHECK_BANK = _statement("check_bank", "SELECT 1 FROM {schema}.banks WHERE id = $1 AND epoch = $2")

_CHANGE = _statement("change", "SELECT {schema}.change($1, $2, $3, $4, $5, $6, $7)")
_BALANCE = _statement("balance", "SELECT seq, balance FROM {schema}.accounts WHERE bank = $1 AND account = $2")
_SNAPSHOT = _statement("snapshot", "SELECT account, seq, balance FROM {schema}.accounts WHERE bank = $1")

_BEGIN = _statement("begin", "BEGIN")
_COMMIT = _statement("commit", "COMMIT")
_LOCK_BANK = _statement("lock_bank", "SELECT 1 FROM {schema}.banks WHERE id = $1 FOR UPDATE")
_LOCK_SESSIONS = _statement(
    "lock_sessions",
    "INSERT INTO {schema}.sessions SELECT $1, session, -1 FROM unnest($2::bytea[]) AS session ORDER BY session "
    "ON CONFLICT (bank, session) DO UPDATE SET highest = sessions.highest RETURNING session, highest",
)
_LOCK_ACCOUNTS = _statement(
    "lock_accounts",
    "SELECT account, seq, balance FROM {schema}.accounts WHERE bank = $1 AND account = ANY($2) "
    "ORDER BY account FOR UPDATE",
)
_FIND_SLOTS = _statement(
    "find_slots",
    "SELECT session, slot, record FROM {schema}.slots "
    "JOIN unnest($2::bytea[], $3::bigint[]) AS wanted (session, slot) USING (session, slot) WHERE bank = $1",
)
_PUT_ACCOUNTS = _statement(
    "put_accounts",
    "INSERT INTO {schema}.accounts SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) "
    "ON CONFLICT (bank, account) DO UPDATE SET seq = excluded.seq, balance = excluded.balance",
)
_PUT_SESSIONS = _statement(
    "put_sessions",
    "UPDATE {schema}.sessions AS old SET highest = new.highest FROM unnest($2::bytea[], $3::bigint[]) "
    "AS new (session, highest) WHERE old.bank = $1 AND old.session = new.session",
)
_PUT_SLOTS = _statement(
    "put_slots",
    "INSERT INTO {schema}.slots SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bytea[]) "
    "ON CONFLICT (bank, session, slot) DO UPDATE SET record = excluded.record",
)

_UNDEFINED = frozenset({"42P01", "3F000"})
"""A table, or its schema, is not there."""
_IN_ONE_TRIP = frozenset({bytes([DEPOSIT]), bytes([WITHDRAW])})
_STATE = struct.Struct("!xqxq")
_NO_OP_ID = b"", NO_NUMBER, 0, b""
_STATE_OF_ZEROS = 2
"""Bytes of a seq and a balance of 0, with which a record ends."""


class Postgres(TransactionalAccounts):
    """A handle with connections of its own to the server; one per concurrent caller."""

    capabilities = Capabilities(
        survives=CLUSTER_FAULTS
        | CALLER_FAULTS
        | MESSAGE_FAULTS
        | {
            Fault.DRIVER_KILL,
            Fault.SERVER_KILL,
            Fault.SERVER_PAUSE,
            Fault.LINK_DOWN,
            Fault.NETEM_DELAY,
            Fault.POWER_LOSS,
            Fault.POISON_ARGUMENT,
            Fault.DISK_FULL,
        },
        durability=Durability.POWER_LOSS,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.POSTGRES}),
        variants=tuple(_SYNCHRONOUS_COMMIT),
    )

    def __init__(self, context: Context, epoch: int, bank: int) -> None:
        super().__init__(context, epoch)
        self._id = bank
        self._link = _link(context, self._check)

    def __reduce__(self) -> tuple[type[Self], tuple[Context, int, int]]:  # type: ignore[override]
        return type(self), (self._context, self._epoch, self._id)

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        if variant == "commit_off":
            survives = cls.capabilities.survives - {Fault.SERVER_KILL, Fault.POWER_LOSS, Fault.DISK_FULL}
            return replace(cls.capabilities, durability=Durability.VOLATILE, survives=survives)
        return cls.capabilities

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank at `context.postgres_url`, or make it; its role may create a schema there.

        Raises:
            ValueError: there is no URL in the context, or it cannot be read, or there is no such variant.
            Unavailable: the server does not answer in time, or refuses.
        """
        if context.postgres_url is None:
            raise ValueError(f"{cls.name} keeps its state in PostgreSQL; put postgres_url into the context")
        if context.variant not in (None, *_SYNCHRONOUS_COMMIT):
            raise ValueError(f"{cls.name} has the variants {', '.join(_SYNCHRONOUS_COMMIT)}, not {context.variant!r}")
        link = _link(context, lambda connection, deadline: None)
        deadline = time.monotonic() + context.timeout_s
        try:
            with link.connection(deadline) as connection:
                bank, epoch = _bank(connection, context.bank.encode(errors="surrogatepass"), deadline)
        except (NotSent, NotAnswered, Refused) as error:
            raise Unavailable(f"the PostgreSQL server cannot be used: {error}; check that it runs") from error
        finally:
            link.close()
        return cls(context, epoch, bank)

    def balance(self, account: str) -> Receipt:
        check_account(account)
        self._check_open()
        rows = self._read("balance", _BALANCE, account.encode())
        if not rows:
            raise UnknownAccount(f"no account {account!r} was opened here; call open_account first")
        seq, balance = rows[0]
        return Receipt(seq, balance, self._epoch)

    def snapshot(self) -> dict[str, Receipt]:
        self._check_open()
        return {
            account.decode(): Receipt(seq, balance, self._epoch)
            for account, seq, balance in self._read("snapshot", _SNAPSHOT)  # one statement, so one moment
        }

    def close(self) -> None:
        super().close()
        self._link.close()

    def _read(self, what: str, statement: Statement, *values: Value) -> list[Row]:
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._link.connection(deadline) as connection:
                (rows,) = connection.run(deadline, (statement, (self._id, *values)))
                return rows
        except (NotSent, NotAnswered, Refused) as error:
            raise Unavailable(f"{what} could not be read: {error}; send it again") from error

    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        try:
            with self._link.connection(deadline) as connection:
                if batch.functions in _IN_ONE_TRIP and 0 < batch.amounts[0] <= MAX_MONEY:
                    receipt = self._changed(connection, batch, deadline)
                    if receipt is not None:
                        return [receipt]
                return self._transacted(connection, batch, deadline)
        except Refused as error:
            raise NotSent(str(error)) from error

    def _changed(self, connection: PostgresConnection, batch: Batch, deadline: float) -> Receipt | None:
        """The one change's receipt; None where a transaction must say what becomes of it."""
        (code,), (account,), (amount,) = batch.functions, batch.accounts, batch.amounts
        op_id: Sequence[Value] = _NO_OP_ID
        if batch.numbers and batch.numbers[0] != NO_NUMBER:
            (session,), (number,) = batch.sessions, batch.numbers
            record = record_of((number, (FUNCTIONS[code], account, amount), (0, 0)))
            op_id = session.encode(), number, number % DEDUP_WINDOW, record[:-_STATE_OF_ZEROS]
        by = amount if code == DEPOSIT else -amount
        (((state,),),) = connection.run(deadline, (_CHANGE, (self._id, account.encode(), by, *op_id)))
        if not state:
            return None
        seq, balance = _STATE.unpack(state)
        return Receipt(seq, balance, self._epoch)

    def _transacted(self, connection: PostgresConnection, batch: Batch, deadline: float) -> list[Answer]:
        bank, work = self._id, Transaction(batch, self._epoch)
        begin: list[Step] = [(_BEGIN, ())]
        if OPEN_ACCOUNT in batch.functions:
            begin.append((_LOCK_BANK, (bank,)))
        reads: list[tuple[Step, Callable[[Iterable[tuple[Any, ...]]], None]]] = []
        if work.slots:
            reads.append(((_LOCK_SESSIONS, (bank, _encoded(work.sessions))), work.know_sessions))
        reads.append(((_LOCK_ACCOUNTS, (bank, _encoded(work.accounts))), work.know_accounts))
        if work.slots:
            sessions, slots = zip(*work.slots, strict=True)
            reads.append(((_FIND_SLOTS, (bank, _encoded(sessions), slots)), work.know_slots))
        try:
            found = connection.run(deadline, *begin, *(step for step, _ in reads))
        except NotAnswered as error:
            raise NotSent(str(error)) from error  # a transaction that nobody commits
        for (_, know), rows in zip(reads, found[len(begin) :], strict=True):
            know((name.decode(), *values) for name, *values in rows)
        answers = work.apply()
        writes: list[Step] = [
            (statement, (bank, _encoded(names), *columns))
            for statement, rows in (
                (_PUT_ACCOUNTS, work.changed_accounts()),
                (_PUT_SESSIONS, work.changed_sessions()),
                (_PUT_SLOTS, work.changed_slots()),
            )
            if rows
            for names, *columns in [zip(*rows, strict=True)]
        ]
        connection.run(deadline, *writes, (_COMMIT, ()))
        return answers

    def _check(self, connection: PostgresConnection, deadline: float) -> None:
        (rows,) = connection.run(deadline, (_CHECK_BANK, (self._id, self._epoch)))
        if not rows:
            raise StateLost("the bank is no longer in this database; open it again, blank")


def _link(context: Context, check: Callable[[PostgresConnection, float], None]) -> PostgresLink:
    assert context.postgres_url is not None
    patience_ms = str(max(1, round(context.timeout_s * 1000)))
    settings = {
        "synchronous_commit": _SYNCHRONOUS_COMMIT[context.variant or Postgres.capabilities.variants[0]],
        # What nobody waits for any more must not keep others from its rows.
        "statement_timeout": patience_ms,
        "idle_in_transaction_session_timeout": patience_ms,
        "client_min_messages": "error",
        "default_transaction_isolation": "read\\ committed",
    }
    return PostgresLink(context.postgres_url, settings, check)


def _bank(connection: PostgresConnection, name: bytes, deadline: float) -> tuple[int, int]:
    """Its number and its epoch; it is made if there is none, and its tables with the first."""
    try:
        (found,) = connection.run(deadline, (_FIND_BANK, (name,)))
    except Refused as error:
        if error.state not in _UNDEFINED:
            raise
        connection.run(deadline, *((statement, ()) for statement in _MAKE_ROOM))
        found = []
    if not found:
        # Whatever comes later, the bank itself stays.
        connection.run(deadline, (_BEGIN, ()), (_KEEP_BANK, ()), (_MAKE_BANK, (name, epoch_now())), (_COMMIT, ()))
        (found,) = connection.run(deadline, (_FIND_BANK, (name,)))
    number, epoch = found[0]
    return number, epoch


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [name.encode() for name in names]
