"""State in PostgreSQL: a row per account, op ids in the same transaction; the relational database outside.

A deposit or a withdrawal without an op id is one statement and one round trip. Everything else, a batch too, is one
transaction of two: the first locks the rows that it concerns, accounts before sessions and each in the order of their
names, and reads them; the second writes them and commits. Whoever else needs one of these rows waits for that, so
transactions that share accounts or sessions happen one after the other. Two that make the same row meet at its index:
the later one begins again.

All banks share four tables in the schema `dask_state_bench` of the URL's database. What is lost when depends on
`synchronous_commit`, which is the variant and is set for the strategy's own sessions:

- `commit_on`: the log is on disk before the answer; neither a crash nor a power cut loses what was answered, if the
  server has `fsync` on.
- `commit_off`: the log is written up to three times `wal_writer_delay` (200 ms unless set) later; a crash of the server
  alone loses what was answered since, and nothing older
  (https://www.postgresql.org/docs/current/wal-async-commit.html).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self, cast

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
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
    integer,
)
from strategies.support.transaction import Transaction
from strategies.support.transactional import TransactionalAccounts
from strategies.support.validation import check_account
from strategies.support.wire import DEPOSIT, WITHDRAW, Batch

_SYNCHRONOUS_COMMIT = {"commit_on": "on", "commit_off": "off"}

_SCHEMA = "dask_state_bench"
_MAKE_ROOM = tuple(
    Statement(b"make_%d" % number, text.format(schema=_SCHEMA).encode())
    for number, text in enumerate(
        (
            "SELECT pg_advisory_xact_lock(7238471003)",  # of two that make a table at a time, one would fail
            "CREATE SCHEMA IF NOT EXISTS {schema}",
            "CREATE TABLE IF NOT EXISTS {schema}.banks "
            "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name bytea UNIQUE, epoch bigint NOT NULL)",
            "CREATE TABLE IF NOT EXISTS {schema}.accounts "
            "(bank bigint, account bytea, seq bigint NOT NULL, balance bigint NOT NULL, PRIMARY KEY (bank, account))",
            "CREATE TABLE IF NOT EXISTS {schema}.sessions "
            "(bank bigint, session bytea, highest bigint NOT NULL, PRIMARY KEY (bank, session))",
            "CREATE TABLE IF NOT EXISTS {schema}.slots (bank bigint, session bytea, slot bigint, "
            "record bytea NOT NULL, PRIMARY KEY (bank, session, slot))",
        )
    )
)
"""Names are `bytea`: text has no NUL, and its order depends on where the server is."""


def _statement(name: str, text: str) -> Statement:
    return Statement(name.encode(), text.format(schema=_SCHEMA, most=MAX_MONEY).encode())


_FIND_BANK = _statement("find_bank", "SELECT id, epoch FROM {schema}.banks WHERE name = $1")
_MAKE_BANK = _statement("make_bank", "INSERT INTO {schema}.banks (name, epoch) VALUES ($1, $2) ON CONFLICT DO NOTHING")
_KEEP_BANK = _statement("keep_bank", "SET LOCAL synchronous_commit = on")
_CHECK_BANK = _statement("check_bank", "SELECT 1 FROM {schema}.banks WHERE id = $1 AND epoch = $2")

_DEPOSIT = _statement(
    "deposit",
    "UPDATE {schema}.accounts SET seq = seq + 1, balance = balance + $3 "
    "WHERE bank = $1 AND account = $2 AND $3::bigint BETWEEN 1 AND {most} AND balance <= {most} - $3 "
    "RETURNING seq, balance",
)
_WITHDRAW = _statement(
    "withdraw",
    "UPDATE {schema}.accounts SET seq = seq + 1, balance = balance - $3 "
    "WHERE bank = $1 AND account = $2 AND $3::bigint BETWEEN 1 AND {most} AND balance >= $3 RETURNING seq, balance",
)
_ONE_STATEMENT = {bytes([DEPOSIT]): _DEPOSIT, bytes([WITHDRAW]): _WITHDRAW}
_BALANCE = _statement("balance", "SELECT seq, balance FROM {schema}.accounts WHERE bank = $1 AND account = $2")
_SNAPSHOT = _statement("snapshot", "SELECT account, seq, balance FROM {schema}.accounts WHERE bank = $1")

_BEGIN = _statement("begin", "BEGIN")
_COMMIT = _statement("commit", "COMMIT")
_LOCK_ACCOUNTS = _statement(
    "lock_accounts",
    "SELECT account, seq, balance FROM {schema}.accounts WHERE bank = $1 AND account = ANY($2) "
    "ORDER BY account FOR UPDATE",
)
_LOCK_SESSIONS = _statement(
    "lock_sessions",
    "SELECT session, highest FROM {schema}.sessions WHERE bank = $1 AND session = ANY($2) ORDER BY session FOR UPDATE",
)
_FIND_SLOTS = _statement(
    "find_slots",
    "SELECT session, slot, record FROM {schema}.slots "
    "JOIN unnest($2::bytea[], $3::bigint[]) AS wanted (session, slot) USING (session, slot) WHERE bank = $1",
)
_ADD_ACCOUNTS = _statement(
    "add_accounts",
    "INSERT INTO {schema}.accounts SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[])",
)
_PUT_ACCOUNTS = _statement(
    "put_accounts",
    "UPDATE {schema}.accounts AS old SET seq = new.seq, balance = new.balance "
    "FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS new (account, seq, balance) "
    "WHERE old.bank = $1 AND old.account = new.account",
)
_ADD_SESSIONS = _statement(
    "add_sessions", "INSERT INTO {schema}.sessions SELECT $1, * FROM unnest($2::bytea[], $3::bigint[])"
)
_PUT_SESSIONS = _statement(
    "put_sessions",
    "UPDATE {schema}.sessions AS old SET highest = new.highest FROM unnest($2::bytea[], $3::bigint[]) "
    "AS new (session, highest) WHERE old.bank = $1 AND old.session = new.session",
)
_PUT_SLOTS = _statement(
    "put_slots",
    "INSERT INTO {schema}.slots SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bytea[]) "
    "ON CONFLICT (bank, session, slot) DO UPDATE SET record = EXCLUDED.record",
)

_UNDEFINED = frozenset({"42P01", "3F000"})
"""A table, or its schema, is not there."""
_AGAIN = frozenset({"23505", "40001", "40P01"})
"""Another transaction was in the way, and this one had no effect: it made a row first, or the two waited for each
other."""


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
            survives = cls.capabilities.survives - {Fault.SERVER_KILL, Fault.POWER_LOSS}
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
        seq, balance = map(integer, rows[0])
        return Receipt(seq, balance, self._epoch)

    def snapshot(self) -> dict[str, Receipt]:
        self._check_open()
        return {
            account.decode(): Receipt(integer(seq), integer(balance), self._epoch)
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
        one = _ONE_STATEMENT.get(batch.functions) if not batch.numbers else None
        while True:  # ends with the deadline: then there is no connection
            try:
                with self._link.connection(deadline) as connection:
                    if one is not None:
                        account, amount = batch.accounts[0].encode(), batch.amounts[0]
                        (rows,) = connection.run(deadline, (one, (self._id, account, amount)))
                        if rows:
                            seq, balance = map(integer, rows[0])
                            return [Receipt(seq, balance, self._epoch)]
                        one = None  # it was rejected, and a transaction says why
                    return self._transacted(connection, batch, deadline)
            except Refused as error:
                if error.state not in _AGAIN:
                    raise NotSent(str(error)) from error

    def _transacted(self, connection: PostgresConnection, batch: Batch, deadline: float) -> list[Answer]:
        bank = self._id
        work = Transaction(batch, self._epoch)
        reads: list[Step] = [(_BEGIN, ()), (_LOCK_ACCOUNTS, (bank, _encoded(work.accounts)))]
        if work.slots:
            sessions, slots = zip(*work.slots, strict=True)
            reads += [
                (_LOCK_SESSIONS, (bank, _encoded(work.sessions))),
                (_FIND_SLOTS, (bank, _encoded(sessions), slots)),
            ]
        try:
            _, of_accounts, *of_op_ids = connection.run(deadline, *reads)
        except NotAnswered as error:
            raise NotSent(str(error)) from error  # a transaction that nobody commits
        accounts = [(account.decode(), integer(seq), integer(balance)) for account, seq, balance in of_accounts]
        work.know_accounts(accounts)
        known_sessions: list[tuple[str, int]] = []
        if of_op_ids:
            of_sessions, of_slots = of_op_ids
            known_sessions = [(session.decode(), integer(highest)) for session, highest in of_sessions]
            work.know_sessions(known_sessions)
            work.know_slots((session.decode(), integer(slot), record) for session, slot, record in of_slots)
        answers = work.apply()
        writes = [
            *_written(bank, work.changed_accounts(), accounts, _ADD_ACCOUNTS, _PUT_ACCOUNTS),
            *_written(bank, work.changed_sessions(), known_sessions, _ADD_SESSIONS, _PUT_SESSIONS),
            *_written(bank, work.changed_slots(), (), _PUT_SLOTS, _PUT_SLOTS),
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
    return integer(number), integer(epoch)


def _written(
    bank: int, rows: Sequence[tuple[Any, ...]], known: Iterable[tuple[Any, ...]], add: Statement, put: Statement
) -> list[Step]:
    """Steps that write the rows, of which some are known to be there."""
    there = {name for name, *_ in known}
    steps: list[Step] = []
    for statement, own in (
        (add, [row for row in rows if row[0] not in there]),
        (put, [row for row in rows if row[0] in there]),
    ):
        if own:
            # In one order for all transactions, as those that make rows wait for each other too.
            names, *columns = cast("Iterable[Any]", zip(*sorted(own), strict=True))
            steps.append((statement, (bank, _encoded(names), *columns)))
    return steps


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [name.encode() for name in names]
