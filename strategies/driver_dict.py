"""State in the driver's process: the book's local state, with the remote call that tasks need.

In the driver, a ledger under a lock. A handle that was pickled into a Dask task calls the driver
back over Dask's own comm layer ("RPC to driver" in the book's table), so that the cluster's
protocol and TLS settings apply; the driver must be reachable from the workers. Everything is lost
with the driver's process, and nothing with a worker. Another process that opens the same bank has
accounts of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Consistency,
    Context,
    Fault,
    Indeterminate,
    Receipt,
    Retries,
    Transfers,
    Unavailable,
)
from strategies.support.cluster import Cluster, NoCluster
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger import Ledger, LedgerState
from strategies.support.validation import check_account, check_op_id, whole_amount

if TYPE_CHECKING:
    from distributed import Client
    from distributed.comm import Comm, Listener

_PROCESS = uuid.uuid4().hex
"""Tells a handle that comes back to this process from one that arrives in another."""

_GUARD_S = 0.1
_CLOSED = "this handle is closed; open another"


_banks: dict[str, LedgerState] = {}
_doors: dict[str, _Door] = {}
_registry_lock = threading.Lock()


class DriverDict(Ledger, Accounts):
    """A handle in the driver: the ledger itself, shared with all other handles on the bank here.

    Copies in tasks reach the driver for as long as a handle that was opened on that Dask client
    stays open.
    """

    capabilities = Capabilities(
        survives=CLUSTER_FAULTS | CALLER_FAULTS | {Fault.POISON_ARGUMENT},
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
    )

    def __init__(self, bank: str, timeout_s: float, *, door: _Door | None, address: str | None) -> None:
        with _registry_lock:
            super().__init__(_banks.setdefault(bank, LedgerState()))
        self._door = door
        self._arrival = (_PROCESS, address, bank, timeout_s)

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank in this process. Without a Dask client in the context, tasks cannot call the handle."""
        if context.variant not in (None, *cls.capabilities.variants):
            raise ValueError(f"{cls.name} has no variants, so not {context.variant!r} either")
        # Not left to the first pickling: that may happen on the event loop, which then cannot wait for itself.
        door = None if context.client is None else _Door.enter(context.client, context.timeout_s)
        return cls(context.bank, context.timeout_s, door=door, address=None if door is None else door.address)

    def close(self) -> None:
        self._lock = _ClosedLock()
        if self._door is not None:
            door, self._door = self._door, None
            door.leave()

    def __reduce__(self) -> tuple[Callable[..., Accounts], tuple[str, str | None, str, float]]:
        return _arrive, self._arrival


class _ClosedLock:
    """Takes a closed handle's lock's place, so that an open one need not ask whether it is closed."""

    def acquire(self) -> bool:
        raise Unavailable(_CLOSED)

    def release(self) -> None:
        """Never held."""


class _FromTask(Accounts):
    """A handle in another process than the driver: each call is a message to the driver and back."""

    capabilities = DriverDict.capabilities

    def __init__(self, process: str, address: str | None, bank: str, timeout_s: float) -> None:
        self._arrival = (process, address, bank, timeout_s)
        self._cluster: Cluster | None = None
        self._closed = False

    @classmethod
    def open(cls, context: Context) -> Self:
        raise TypeError("open DriverDict in the driver and pass the handle to the task")

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change("open_account", (account,), opening, op_id)
        return receipt

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change("deposit", (account,), amount, op_id)
        return receipt

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change("withdraw", (account,), amount, op_id)
        return receipt

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        receipts: tuple[Receipt, Receipt] = self._change("transfer", (source, target), amount, op_id)
        return receipts

    def balance(self, account: str) -> Receipt:
        check_account(account)
        receipt: Receipt = self._call("balance", account, changes=False)
        return receipt

    def snapshot(self) -> dict[str, Receipt]:
        receipts: dict[str, Receipt] = self._call("snapshot", changes=False)
        return receipts

    def close(self) -> None:
        self._closed = True

    def __reduce__(self) -> tuple[Callable[..., Accounts], tuple[str, str | None, str, float]]:
        return _arrive, self._arrival

    def _change(self, function: str, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None) -> Any:
        for account in accounts:
            check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        return self._call(function, *accounts, amount, changes=True, op_id=op_id)

    def _call(self, function: str, *args: Any, changes: bool, **options: Any) -> Any:
        if self._closed:
            raise Unavailable(_CLOSED)
        _, address, bank, timeout_s = self._arrival
        if address is None:
            raise Unavailable("the handle was opened without a Dask client; open it with one, then pass it to the task")
        try:
            if self._cluster is None:
                self._cluster = Cluster.here()
            deadline = time.monotonic() + timeout_s
            answer = self._cluster.ask(address, deadline, op=function, bank=bank, args=args, options=options)
        except (NotSent, NoCluster) as error:
            raise Unavailable(f"{function} did not reach the driver: {error}; send it again") from error
        except NotAnswered as error:
            if changes:
                raise Indeterminate(
                    f"the driver did not answer {function}: {error}; send it again with its op id"
                ) from error
            raise Unavailable(f"the driver did not answer {function}: {error}; send it again") from error
        outcome = answer["outcome"]
        if isinstance(outcome, AccountError):
            raise outcome
        return outcome


def _arrive(process: str, address: str | None, bank: str, timeout_s: float) -> Accounts:
    """What a pickled handle becomes where it arrives; a copy in its own process needs no message.

    The latter is no rarity: the scheduler unpickles what tasks are given, and may live in the driver.
    """
    if process == _PROCESS:
        return DriverDict(bank, timeout_s, door=None, address=address)
    return _FromTask(process, address, bank, timeout_s)


class _Door:
    """Listens in the driver, on the client's own event loop, for calls from tasks."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client = client
        self._users = 0
        self._comms: set[Comm] = set()
        client.sync(self._listen, callback_timeout=timeout_s)
        self.address: str = self._listener.contact_address

    @classmethod
    def enter(cls, client: Client, timeout_s: float) -> _Door:
        """The door of this client, opened by the first handle; each handle must `leave` it.

        Raises:
            Unavailable: the client is closed, or its event loop does not answer.
        """
        try:
            Cluster.of_client(client)
            with _registry_lock:
                door = _doors.get(client.id)
                if door is None:
                    door = _doors[client.id] = cls(client, timeout_s)
                door._users += 1
        except (NoCluster, OSError) as error:
            raise Unavailable(f"tasks could not reach the driver: {error}; open it on another client") from error
        return door

    def leave(self) -> None:
        with _registry_lock:
            self._users -= 1
            if self._users:
                return
            del _doors[self._client.id]
        with suppress(RuntimeError):  # the client's event loop is closed, and the door with it
            self._client.loop.add_callback(self._guard.cancel)

    async def _listen(self) -> None:
        from distributed.comm import get_address_host, listen
        from distributed.utils import get_ip

        scheduler = self._client.scheduler.addr
        protocol = scheduler.partition("://")[0]
        # The address that packets to the scheduler leave from is one that its workers can reach.
        where = "" if protocol == "inproc" else f"{get_ip(get_address_host(scheduler))}:0"
        self._listener: Listener = await listen(
            f"{protocol}://{where}", self._serve, **self._client.security.get_listen_args("client")
        )
        self._guard = asyncio.ensure_future(self._close_in_time())

    async def _close_in_time(self) -> None:
        """Until the last handle leaves, or the client closes: then nobody is behind the door any more."""
        try:
            while self._client.status not in ("closing", "closed"):
                await asyncio.sleep(_GUARD_S)
        finally:
            self._listener.stop()
            for comm in list(self._comms):
                comm.abort()

    async def _serve(self, comm: Comm) -> None:
        from distributed.protocol import to_serialize

        self._comms.add(comm)
        try:
            while True:  # ends when the caller hangs up or the door closes: both are an OSError
                message = await comm.read()
                await comm.write({"outcome": to_serialize(_outcome(**message))})
        except OSError:
            pass
        finally:
            self._comms.discard(comm)
            comm.abort()


def _outcome(op: str, bank: str, args: tuple[Any, ...], options: dict[str, Any], reply: bool) -> Any:
    """Run one call from a task. The ledger's lock is held for microseconds, so the event loop may wait for it."""
    try:
        return getattr(Ledger(_banks[bank]), op)(*args, **options)
    except AccountError as error:
        return error
