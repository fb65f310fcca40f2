"""State in a `distributed.Variable` under a `distributed.Lock`: Dask's own mutable objects, kept by its scheduler.

One Variable holds a whole bank. Whoever changes it takes the Lock, gets the value, and sets another: a set is one step
on the scheduler, so any two accounts can be part of one transfer, and a batch is one lock, one get and one set. The
price is in the size: all accounts travel there and back with each change. Reads take no lock.

The objects are Dask's own, reached by the messages that its `Variable` and `Lock` send. Those wait for each answer in
turn, four times a change, and send some of them again by themselves; here what belongs together goes out together, by
one connection, which the scheduler works off in order: lock and get, then set and release. So a set whose answer is
late cannot come after its own release, and who gives up waiting for the lock gives it back as soon as he gets it.

Op ids are part of the value, so that they are remembered in the same step; but not all of them, since a session's
window holds 10,000. The latest are; when these are many, who changes the bank next moves them to Variables of their
own, pages of a session's window, before its set takes them out of the value. Who dies in between leaves both.

What is lost when:

- All of it with the scheduler, which keeps it in memory and nowhere else
  (https://distributed.dask.org/en/stable/api.html#distributed.Variable: "All data will be kept and sent through the
  scheduler").
- Time, with a caller that dies while it holds the lock, or waits for it, or whose release is lost on the way: the
  scheduler takes its lease back after `distributed.scheduler.locks.lease-timeout` (30 s), which it looks for every
  10 s. Until then nobody changes anything. A release is never sent again by another connection than its set's, which
  it might overtake.
- What others changed, with a caller that stands still for longer than the lease, between its get and its set, and goes
  on: nothing tells the scheduler that its set is too late. Dask says so itself, of "lease overbooking"
  (https://distributed.dask.org/en/stable/api.html#distributed.Lock). A call here is over long before, unless its
  process is stopped.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple, Self

import msgpack

from strategies.interface import (
    CLUSTER_FAULTS,
    DEDUP_WINDOW,
    MESSAGE_FAULTS,
    Answer,
    Caller,
    Capabilities,
    Consistency,
    Context,
    Fault,
    Receipt,
    Resource,
    Retries,
    StateLost,
    Transfers,
    Unavailable,
    UnknownAccount,
)
from strategies.support.cluster import Cluster, NoCluster
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger import epoch_now
from strategies.support.op_window import State
from strategies.support.transaction import Slot, Transaction
from strategies.support.transactional import TransactionalAccounts, fate
from strategies.support.validation import check_account
from strategies.support.wire import Batch

_SLOTS_IN_PAGE = 160
"""So that a session has at most 63 pages, and an integer of 64 bits says which there are."""

_MOST_RECENT = 200
"""Op ids in the value, beyond which they are moved: about as many bytes as 500 accounts have."""

_RESERVE_S = 0.3
"""Kept of each call's time, if it is not too much, to set the value and release the lock once the lock is there."""

_ASKINGS = 5
"""For one lease, where connections break."""

_GONE = "the scheduler that held this bank is gone; open the bank again, blank"

_AT_ONCE = -1.0
"""Timeout of a get: with 0, a scheduler that has no such Variable answers with an error of its own making; with
None, never."""


class DaskVariable(TransactionalAccounts):
    """A handle on one bank's Variable and Lock."""

    capabilities = Capabilities(
        survives=(CLUSTER_FAULTS | MESSAGE_FAULTS | {Fault.TASK_RETRY, Fault.POISON_ARGUMENT})
        - {Fault.SCHEDULER_KILL, Fault.PARTITION},
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.SCHEDULER}),
    )

    def __init__(self, context: Context, epoch: int) -> None:
        super().__init__(context, epoch)
        self._objects = _Objects(f"dask-state-bench/{self.name}/{context.bank}", context)

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank's Variable, or make it.

        Raises:
            ValueError: there is no client in the context, or an asynchronous one, or no such variant.
            Unavailable: the scheduler does not answer, or the lock is not to be had.
        """
        if context.client is None:
            raise ValueError(f"{cls.name} keeps its state on Dask's scheduler; put a Dask client into the context")
        if context.variant not in (None, *cls.capabilities.variants):
            raise ValueError(f"{cls.name} has no variant {context.variant!r}")
        accounts = cls(context, epoch_now())
        try:
            accounts._epoch = accounts._objects.made(accounts._epoch, time.monotonic() + context.timeout_s)
        except (NotSent, NotAnswered, StateLost) as error:
            raise Unavailable(f"the bank's Variable could not be opened: {error}; try again") from error
        return accounts

    def balance(self, account: str) -> Receipt:
        check_account(account)
        state = self._read("balance").accounts.get(account)
        if state is None:
            raise UnknownAccount(f"no account {account!r} was opened here; call open_account first")
        return Receipt(*state, self._epoch)

    def snapshot(self) -> dict[str, Receipt]:
        return {name: Receipt(*state, self._epoch) for name, state in self._read("snapshot").accounts.items()}

    def _read(self, what: str) -> _Bank:
        self._check_open()
        try:
            return self._own(self._objects.read(time.monotonic() + self._timeout_s))
        except (NotSent, NotAnswered) as error:
            raise fate(what, error, changes=False) from error

    def _own(self, bank: _Bank | None) -> _Bank:
        if bank is None or bank.epoch != self._epoch:
            raise StateLost(_GONE)
        return bank

    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        work = Transaction(batch, self._epoch)
        with self._objects.locked(deadline) as held:
            bank = self._own(held.bank)
            moving = bank.recent if len(bank.recent) > _MOST_RECENT else {}
            sought = _sent_before(batch, bank.sessions)
            pages = held.pages({_page_of(slot) for slot in (*moving, *(sought - bank.recent.keys()))}, bank.sessions)
            work.know_accounts((name, *bank.accounts[name]) for name in work.accounts if name in bank.accounts)
            work.know_sessions((name, bank.sessions[name][0]) for name in work.sessions if name in bank.sessions)
            for slot in sought:
                record = bank.recent.get(slot) or pages.get(_page_of(slot), {}).get(slot[1])
                if record is not None:
                    work.know_slots([(*slot, record)])
            answers = work.apply()
            accounts, sessions, slots = work.changed_accounts(), work.changed_sessions(), work.changed_slots()
            if accounts or sessions or slots:
                bank.accounts.update((name, (seq, balance)) for name, seq, balance in accounts)
                bank.sessions.update(
                    (name, (highest, bank.sessions.get(name, (0, 0))[1])) for name, highest in sessions
                )
                moved: dict[_Page, _Records] = {}
                for slot, record in moving.items():
                    session, page = _page_of(slot)
                    highest, written = bank.sessions[session]
                    bank.sessions[session] = highest, written | 1 << page
                    moved.setdefault((session, page), pages.get((session, page), {}))[slot[1]] = record
                recent = {} if moving else bank.recent
                recent.update(((session, slot), record) for session, slot, record in slots)
                held.set(bank._replace(recent=recent), moved)
        return answers


_Page = tuple[str, int]
"""A session, and a slot's number divided by `_SLOTS_IN_PAGE`."""
_Records = dict[int, bytes]
"""Of one page, by slot."""


class _Bank(NamedTuple):
    """What the Variable holds, in MessagePack; the recent op ids as an array of sessions, slots and records."""

    epoch: int
    accounts: dict[str, State]
    sessions: dict[str, tuple[int, int]]
    """Of each, the highest number, and the bits of those pages that have been written."""
    recent: dict[Slot, bytes]
    """Records of op ids that are in no page yet."""

    @classmethod
    def unpacked(cls, value: bytes) -> _Bank:
        epoch, accounts, sessions, recent = msgpack.unpackb(value, use_list=False)
        return cls(epoch, accounts, sessions, {(session, slot): record for session, slot, record in recent})

    def packed(self) -> bytes:
        recent = [(*slot, record) for slot, record in self.recent.items()]
        value: bytes = msgpack.packb((self.epoch, self.accounts, self.sessions, recent))
        return value


def _page_of(slot: Slot) -> _Page:
    return slot[0], slot[1] // _SLOTS_IN_PAGE


def _sent_before(batch: Batch, sessions: Mapping[str, tuple[int, int]]) -> set[Slot]:
    """Slots of numbers that are not new. What is in a new number's slot has left the window."""
    if not batch.numbers:
        return set()
    names = map(batch.sessions.__getitem__, batch.session_of or repeat(0))
    return {
        (name, number % DEDUP_WINDOW)
        for name, number in zip(names, batch.numbers, strict=False)
        if name in sessions and 0 <= number <= sessions[name][0]
    }


class _Objects:
    """The Variables and the Lock of one bank, from one process; its threads take turns here, not on the scheduler."""

    def __init__(self, name: str, context: Context) -> None:
        """Raises `Unavailable` where the context's client is closed."""
        from dask.config import get
        from dask.utils import parse_timedelta

        self._name = name
        self._reserve_s = min(_RESERVE_S, context.timeout_s / 5)
        lease = get("distributed.scheduler.locks.lease-timeout")
        self._lease_s = float("inf") if lease == "inf" else float(parse_timedelta(lease, "s"))
        self._cluster: Cluster | None = None
        self._turn = threading.Lock()
        if context.client is not None:
            try:
                self._cluster = Cluster.of_client(context.client)
            except NoCluster as error:
                raise Unavailable(str(error)) from error

    def read(self, deadline: float) -> _Bank | None:
        """The bank as it is; None if there is none. Nobody is kept from changing it."""
        (value,) = self.ask(deadline, [_get(self._name)])
        return _bank_in(value)

    def made(self, epoch: int, deadline: float) -> int:
        """The epoch of the bank, which begins with this one if there is none."""
        register = {
            "op": "semaphore_register",
            "name": self._name,
            "max_leases": 1,
            "lease_timeout": None if self._lease_s == float("inf") else self._lease_s,
        }
        _, value = self.ask(deadline, [register, _get(self._name)])
        found = _bank_in(value)
        if found is None:
            with self.locked(deadline) as held:
                found = held.bank
                if found is None:
                    found = _Bank(epoch, {}, {}, {})
                    held.set(found, {})
        return found.epoch

    @contextmanager
    def locked(self, deadline: float) -> Iterator[_Held]:
        """The bank, for one change.

        Raises:
            NotSent: the lock was not to be had in time.
        """
        wait_until = deadline - self._reserve_s
        if not self._turn.acquire(timeout=max(0.0, wait_until - time.monotonic())):
            raise NotSent("other threads changed the bank for too long")
        try:
            of_lock = {"name": self._name, "lease_id": uuid.uuid4().hex}
            release = {"op": "semaphore_release", **of_lock}
            asked_at = time.monotonic()
            has_lock, value = self._acquired(of_lock, release, wait_until, deadline)
            bank = _bank_in(value)
            if has_lock is not True:
                if bank is None and has_lock is not False:
                    raise StateLost(_GONE)
                raise NotSent("others changed the bank for too long, or one of them died while it did")
            held = _Held(self, self._name, bank, release, deadline, asked_at + self._lease_s)
            try:
                yield held
            finally:
                if not held.is_over:
                    self.tell(release)
        finally:
            self._turn.release()

    def _acquired(
        self, of_lock: dict[str, Any], release: dict[str, Any], wait_until: float, deadline: float
    ) -> Sequence[Any]:
        """Whether the lock is this lease's, and the Variable's value. Asks again where a connection breaks.

        The scheduler takes the same lease, asked for again, for the same.
        """
        problem: Exception | None = None
        for _ in range(_ASKINGS):
            acquire = {"op": "semaphore_acquire", **of_lock, "timeout": wait_until - time.monotonic()}
            try:
                return self.ask(deadline, [acquire, _get(self._name)], undo=release)
            except (NotSent, NotAnswered) as error:
                if problem is None and isinstance(error, NotSent):
                    raise
                problem = error
                if time.monotonic() > wait_until:
                    break
        self.tell(release)
        raise NotSent(f"the lock was asked for in vain: {problem}")

    def ask(
        self, deadline: float, messages: Sequence[dict[str, Any]], undo: dict[str, Any] | None = None
    ) -> Sequence[Any]:
        """As `Cluster.ask_in_order`, of the scheduler."""
        cluster = self._here()
        return cluster.ask_in_order(cluster.scheduler, deadline, messages, undo)

    def tell(self, message: dict[str, Any]) -> None:
        """Send it to the scheduler, and wait for nothing."""
        cluster = self._here()
        cluster.tell(cluster.scheduler, message)

    def _here(self) -> Cluster:
        if self._cluster is None:
            try:
                self._cluster = Cluster.here()
            except NoCluster as error:
                raise NotSent(str(error)) from error
        return self._cluster


class _Held:
    """The bank, while nobody else may change it."""

    def __init__(
        self,
        objects: _Objects,
        name: str,
        bank: _Bank | None,
        release: dict[str, Any],
        deadline: float,
        lease_ends_at: float,
    ) -> None:
        self._objects = objects
        self._name = name
        self.bank = bank
        self._release = release
        self._deadline = deadline
        self._lease_ends_at = lease_ends_at
        self.is_over = False
        """Whether the lock's release has been sent."""

    def pages(self, wanted: Collection[_Page], sessions: Mapping[str, tuple[int, int]]) -> dict[_Page, _Records]:
        """Those of these pages that have been written."""
        written = [(session, page) for session, page in wanted if sessions[session][1] >> page & 1]
        if not written:
            return {}
        try:
            values = self._objects.ask(self._deadline, [_get(self._name_of(page)) for page in written])
        except NotAnswered as error:
            raise NotSent(str(error)) from error
        return {
            page: msgpack.unpackb(_content(value), strict_map_key=False)
            for page, value in zip(written, values, strict=True)
        }

    def set(self, bank: _Bank, pages: Mapping[_Page, _Records]) -> None:
        """Set these pages, then the bank, then release the lock.

        Raises:
            NotSent: it had no effect.
            NotAnswered: nobody knows whether it had any.
        """
        if time.monotonic() > self._lease_ends_at:
            raise NotSent("the lock's lease may have ended")
        values = {self._name_of(page): msgpack.packb(records) for page, records in pages.items()}
        values[self._name] = bank.packed()  # last: from then on the pages are needed
        # Only the last is answered: a scheduler that fails to send an answer reads no further.
        messages = [
            {"op": "variable_set", "name": name, "data": value, "reply": False} for name, value in values.items()
        ]
        self.is_over = True
        try:
            self._objects.ask(self._deadline, [*messages, self._release])
        except NotSent:
            self.is_over = False
            raise

    def _name_of(self, page: _Page) -> str:
        return f"{self._name}/{page[1]}/{page[0]}"


def _get(name: str) -> dict[str, Any]:
    return {"op": "variable_get", "name": name, "timeout": _AT_ONCE}


def _bank_in(value: Any) -> _Bank | None:
    return None if isinstance(value, TimeoutError) else _Bank.unpacked(_content(value))


def _content(value: Any) -> bytes:
    if isinstance(value, Exception):
        raise NotSent(f"the scheduler failed: {value!r}")
    content: bytes = value["value"]
    return content
