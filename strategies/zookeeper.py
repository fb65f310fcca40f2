"""State in ZooKeeper: a znode per account, changed by compare-and-set on versions; a batch is one `multi`.

A call reads what it concerns in one pipeline, works out the change, and writes it in one `multi` on condition that
nothing of it has changed: two round trips, and again from the beginning where somebody was faster. Below the URL's
path (or `/dask-state-bench`) a bank is

    /BANK                             its epoch
    /BANK/EPOCH/accounts/ACCOUNT      seq and balance, in decimal
    /BANK/EPOCH/sessions/SESSION      an op-id session's highest number
    /BANK/EPOCH/sessions/SESSION/N    records of the numbers 50 N to 50 N + 49, modulo the window

with names percent-encoded. Why records come in fifties: docs/adr/0009-znodes-of-a-bank.md. A request has at most a
megabyte (`jute.maxbuffer`), so a batch whose `multi` is longer is halved, and a batch of those is not atomic.

Who may reach the server may change the accounts: the znodes have an open ACL.

The variants are how the servers are set. `open` sees whether there are several, by `/zookeeper/config`
(https://zookeeper.apache.org/doc/current/zookeeperReconfig.html), and not whether they sync:

- `synced`: one server, `forceSync=yes`, its default, which "requires updates to be synced to media of the transaction
  log before finishing processing the update" (https://zookeeper.apache.org/doc/current/zookeeperAdmin.html).
- `unsynced`: one server, `forceSync=no`, which the same page lists as unsafe: the log is handed to the kernel before
  the answer, so that a dead process loses nothing, and a power cut what the kernel had not written.
- `ensemble`: three servers that sync. A change is acknowledged when a majority has it in its log, so that it outlives
  any one of them. Another leader is elected when one dies.

A server that cannot write its log ends itself, and goes on from its log when somebody starts it again
(https://zookeeper.apache.org/doc/current/zookeeperAdmin.html#sc_supervision).

Changes are linearizable. Reads of an ensemble are not: "a server will respond immediately", from its own copy, and
`sync` before them "does not strictly guarantee up-to-date data because sync is not currently a quorum operation";
"an actual quorum operation" before them does
(https://zookeeper.apache.org/doc/current/zookeeperInternals.html#sc_consistency). So where an answer of an ensemble
rests on a read alone (a balance, a rejection, a snapshot), a `multi` goes before the read in the same pipeline, which
checks that the bank is there and changes nothing. Such a read costs nearly what a change costs: three servers on two
cores took 0.9 ms for it, 0.35 ms for `sync` and a read, and 0.25 ms for a read that may be stale.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, unquote

import msgpack

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    MESSAGE_FAULTS,
    AccountError,
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
from strategies.support.transactional import TransactionalAccounts
from strategies.support.validation import check_account
from strategies.support.wire import BALANCE, Batch

if TYPE_CHECKING:
    from strategies.support.zookeeper_link import Connection, ZookeeperLink

_NODES = 3
_CONFIGURATION = "/zookeeper/config"
_DEFAULT_PATH = "/dask-state-bench"
_SLOTS_IN_BLOCK = 50
_ANY_VERSION = -1
_OPEN_ATTEMPTS = 5
_ATTEMPTS = 1_000
"""Of one call, where others change the same accounts; the deadline ends it before."""
_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.02
"""Before another attempt, at most."""


Found = Mapping[str, tuple[bytes, int]]
"""Data and versions, by path."""


class Zookeeper(TransactionalAccounts):
    """A handle with connections of its own to one of the servers; one per concurrent caller."""

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
            Fault.DISK_FULL,
            Fault.POISON_ARGUMENT,
        },
        durability=Durability.POWER_LOSS,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.ZOOKEEPER}),
        variants=("synced", "unsynced", "ensemble"),
    )

    def __init__(self, context: Context, epoch: int, link: ZookeeperLink | None = None) -> None:
        from strategies.support.zookeeper_link import ZookeeperLink, read_url

        super().__init__(context, epoch)
        addresses, path = read_url(context.zookeeper_url or "")
        self._link = link or ZookeeperLink(addresses)
        self._bank = f"{_bank_path(context, path)}/{epoch}"
        self._is_ensemble = self.claims(context.variant or self.capabilities.variants[0]).nodes > 1

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        if variant == "unsynced":
            survives = cls.capabilities.survives - {Fault.POWER_LOSS}
            return replace(cls.capabilities, durability=Durability.PROCESS_CRASH, survives=survives)
        if variant == "ensemble":
            return replace(cls.capabilities, durability=Durability.REPLICATED, nodes=_NODES)
        return cls.capabilities

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank's znodes, or make them.

        Raises:
            ValueError: there is no URL of a ZooKeeper server in the context, or none that can be read, or no such
                variant.
            Unavailable: no server answers, or one refuses, or there are several and the variant is for one, or one and
                it is for several. Without a variant, there may be as many as there are.
        """
        if context.variant not in (None, *cls.capabilities.variants):
            raise ValueError(
                f"{cls.name} has the variants {', '.join(cls.capabilities.variants)}, not {context.variant!r}"
            )
        if context.zookeeper_url is None:
            raise ValueError(f"{cls.name} keeps its state in a server; put its URL into the context")
        from strategies.support.zookeeper_link import ZookeeperLink, read_url

        addresses, path = read_url(context.zookeeper_url)
        link = ZookeeperLink(addresses)
        try:
            with link.connection(time.monotonic() + context.timeout_s) as connection:
                servers = _servers(connection)
                epoch = _made(connection, _bank_path(context, path))
        except (NotSent, NotAnswered) as error:
            link.close()
            raise Unavailable(f"the ZooKeeper server cannot be used: {error}; check its URL, or try again") from error
        several = [variant for variant in cls.capabilities.variants if cls.claims(variant).nodes > 1]
        if context.variant is None and servers > 1:
            context = replace(context, variant=several[0])
        if servers and (servers > 1) != (context.variant in several):
            link.close()
            raise Unavailable(
                f"{cls.name}:{context.variant} is not for {servers} servers together; use another variant"
            )
        return cls(context, epoch, link)

    def balance(self, account: str) -> Receipt:
        check_account(account)
        self._check_open()
        path = _account_path(self._bank, account)
        with self._reading("balance") as connection:
            found = self._read(connection, [path], now=True)
        if path not in found:
            raise UnknownAccount(f"no account {account!r} was opened here; call open_account first")
        return Receipt(*_state(found[path][0]), self._epoch)

    def snapshot(self) -> dict[str, Receipt]:
        from kazoo.protocol.serialization import GetChildren

        self._check_open()
        accounts = f"{self._bank}/accounts"
        with self._reading("snapshot") as connection:
            there, names = connection.ask([self._is_there(), GetChildren(accounts, None)])
            self._check_there(there)
            found = self._read(connection, [f"{accounts}/{name}" for name in _good(names)], now=False)
        return {
            unquote(path.rpartition("/")[2]): Receipt(*_state(data), self._epoch) for path, (data, _) in found.items()
        }

    def close(self) -> None:
        super().close()
        self._link.close()

    @contextmanager
    def _reading(self, what: str) -> Iterator[Connection]:
        try:
            with self._link.connection(time.monotonic() + self._timeout_s) as connection:
                yield connection
        except (NotSent, NotAnswered) as error:
            raise Unavailable(f"{what} could not be read: {error}; send it again") from error

    def _apply_checked(self, batch: Batch, deadline: float) -> list[Answer]:
        from strategies.support.zookeeper_link import TooLarge

        try:
            return super()._apply_checked(batch, deadline)
        except TooLarge:
            places = range(len(batch.functions))
            halves = places[: len(places) // 2], places[len(places) // 2 :]
            return [answer for half in halves for answer in self._apply_checked(batch.pick(half), deadline)]

    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

        # What one server has is how it is. What is read of an ensemble may be old: a change shows that it was not.
        now = not self._is_ensemble or BALANCE in batch.functions
        pause_s = _FIRST_PAUSE_S
        with self._link.connection(deadline) as connection:
            for _ in range(_ATTEMPTS):
                work = Transaction(batch, self._epoch)
                znodes = _Znodes.of(self._bank, work)
                try:
                    found = self._read(connection, znodes.paths, now=now)
                except NotAnswered as error:
                    raise NotSent(f"the accounts could not be read: {error}") from error
                znodes.tell(work, found)
                answers = work.apply()
                if not now and any(isinstance(answer, AccountError) for answer in answers):
                    now = True
                    continue
                changes = znodes.changes(work, found)
                refused = connection.change(changes) if changes else None
                if refused is None:
                    return answers
                if not isinstance(refused, (BadVersionError, NodeExistsError, NoNodeError)):
                    raise NotSent(f"the server refused: {type(refused).__name__}")
                # What is read on this connection from now on is as new as the refusal.
                now = now or isinstance(refused, NoNodeError)
                time.sleep(min(random.uniform(0, pause_s), max(0.0, deadline - time.monotonic())))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise NotSent(f"others changed the same accounts {_ATTEMPTS:,} times meanwhile")

    def _read(self, connection: Connection, paths: Sequence[str], *, now: bool) -> Found:
        """Those znodes that are there. With `now`, as of this call, and not of some time before.

        Raises:
            StateLost: with `now`, the bank is not there.
        """
        from kazoo.exceptions import NoNodeError
        from kazoo.protocol.serialization import GetData

        replies = connection.ask([*([self._is_there()] if now else []), *(GetData(path, None) for path in paths)])
        if now:
            self._check_there(replies.pop(0))
        found = {}
        for path, reply in zip(paths, replies, strict=True):
            if not isinstance(reply, NoNodeError):
                data, status = _good(reply)
                found[path] = data, status.version
        return found

    def _is_there(self) -> Any:
        """A request after which reads on the same connection are not older; its reply is for `_check_there`."""
        from kazoo.protocol import serialization

        if self._is_ensemble:
            return serialization.Transaction([serialization.CheckVersion(self._bank, _ANY_VERSION)])
        return serialization.Exists(self._bank, None)

    def _check_there(self, reply: Any) -> None:
        from kazoo.exceptions import NoNodeError

        from strategies.support.zookeeper_link import refusal

        refused = refusal(reply)
        if isinstance(refused, NoNodeError):
            raise StateLost(f"the bank {self._context.bank!r} is gone from the server; open it again to start blank")
        if refused is not None:
            raise NotSent(f"the server refused: {type(refused).__name__}")


class _Znodes(NamedTuple):
    """What a transaction concerns, by paths."""

    accounts: Mapping[str, str]
    sessions: Mapping[str, str]
    blocks: Mapping[tuple[str, int], str]
    """By their sessions and numbers."""

    @classmethod
    def of(cls, bank: str, work: Transaction) -> Self:
        sessions = {session: f"{bank}/sessions/{_name(session)}" for session in work.sessions}
        return cls(
            {account: _account_path(bank, account) for account in work.accounts},
            sessions,
            {
                (session, block): f"{sessions[session]}/{block}"
                for session, block in dict.fromkeys((session, slot // _SLOTS_IN_BLOCK) for session, slot in work.slots)
            },
        )

    @property
    def paths(self) -> list[str]:
        return [*self.accounts.values(), *self.sessions.values(), *self.blocks.values()]

    def tell(self, work: Transaction, found: Found) -> None:
        """What was found."""
        work.know_accounts(
            (account, *_state(found[path][0])) for account, path in self.accounts.items() if path in found
        )
        work.know_sessions((session, int(found[path][0])) for session, path in self.sessions.items() if path in found)
        for (session, _), path in self.blocks.items():
            # Where a session came to be between two reads, its change will be refused.
            if path in found and self.sessions[session] in found:
                records = _unpacked(found[path][0])
                work.know_slots(
                    (session, slot, record) for slot, record in records.items() if (session, slot) in work.slots
                )

    def changes(self, work: Transaction, found: Found) -> list[Any]:
        """The operations that write what changed, if nothing else has changed it; parents first."""
        from kazoo.protocol.serialization import CheckVersion, Create, SetData
        from kazoo.security import OPEN_ACL_UNSAFE

        records: dict[str, dict[int, bytes]] = {}
        for session, slot, record in work.changed_slots():
            records.setdefault(self.blocks[session, slot // _SLOTS_IN_BLOCK], {})[slot] = record
        data = {
            **{
                self.accounts[account]: f"{seq} {balance}".encode() for account, seq, balance in work.changed_accounts()
            },
            **{self.sessions[session]: str(highest).encode() for session, highest in work.changed_sessions()},
            **{
                path: msgpack.packb({**(_unpacked(found[path][0]) if path in found else {}), **changed})
                for path, changed in records.items()
            },
        }
        # A session whose highest number rises meanwhile may have forgotten what is new by what was read.
        checked = [path for path in self.sessions.values() if data and path in found and path not in data]
        return [
            *(CheckVersion(path, found[path][1]) for path in checked),
            *(
                SetData(path, value, found[path][1]) if path in found else Create(path, value, OPEN_ACL_UNSAFE, 0)
                for path, value in data.items()
            ),
        ]


def _account_path(bank: str, account: str) -> str:
    """Where an account of the bank at this path is."""
    return f"{bank}/accounts/{_name(account)}"


def _bank_path(context: Context, path: str) -> str:
    return f"{path or _DEFAULT_PATH}/{_name(context.bank)}"


def _name(text: str) -> str:
    """A znode can have almost any name but `.` and `..`, with no slash in it."""
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E")


def _servers(connection: Connection) -> int:
    """How many there are; 0 if that is not to be known."""
    from kazoo.exceptions import KazooException
    from kazoo.protocol.serialization import GetData

    (reply,) = connection.ask([GetData(_CONFIGURATION, None)])
    if isinstance(reply, KazooException):
        return 0
    lines: list[bytes] = reply[0].splitlines()
    return max(1, sum(line.startswith(b"server.") for line in lines))


def _made(connection: Connection, path: str) -> int:
    """The epoch of the bank at this path, which is made if there is none."""
    from kazoo.exceptions import NodeExistsError, NoNodeError
    from kazoo.protocol.serialization import Create, GetData
    from kazoo.security import OPEN_ACL_UNSAFE

    def made(*paths: str, data: bytes = b"") -> Exception | None:
        first, *others = paths
        creates = [Create(first, data, OPEN_ACL_UNSAFE, 0), *(Create(each, b"", OPEN_ACL_UNSAFE, 0) for each in others)]
        return connection.change(creates)

    refused: Exception | None = None
    for _ in range(_OPEN_ATTEMPTS):
        (reply,) = connection.ask([GetData(path, None)])
        if not isinstance(reply, NoNodeError):
            data, _ = _good(reply)
            if not data.isdigit():
                raise NotSent(f"the znode {path} is no bank")
            return int(data)
        epoch = epoch_now()
        bank = f"{path}/{epoch}"
        refused = made(path, bank, f"{bank}/accounts", f"{bank}/sessions", data=str(epoch).encode())
        if refused is None:
            return epoch
        if isinstance(refused, NoNodeError):
            parts = path.split("/")
            for end in range(2, len(parts)):
                refused = made("/".join(parts[:end]))
                if not isinstance(refused, NodeExistsError | None):
                    break
        if not isinstance(refused, NodeExistsError | None):
            break
    raise NotSent(f"the server refused to make {path}: {type(refused).__name__}")


def _state(data: bytes) -> tuple[int, int]:
    seq, balance = map(int, data.split())
    return seq, balance


def _unpacked(data: bytes) -> dict[int, bytes]:
    records: dict[int, bytes] = msgpack.unpackb(data, strict_map_key=False)
    return records


def _good(reply: Any) -> Any:
    from kazoo.exceptions import KazooException

    if isinstance(reply, KazooException):
        raise NotSent(f"the server refused: {type(reply).__name__}")
    return reply
