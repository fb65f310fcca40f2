"""Dask actors that own ledgers: placing them, finding them again, calling them with exact fates.

An actor's key is new each time one is made, and is published on the scheduler as a dataset named
after what it holds. So the state outlives the handle and the client that made it, other processes
find it, and a handle on an actor that was lost can never reach its replacement by mistake.
"""

from __future__ import annotations

import asyncio
import pickle
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from strategies.interface.account import Accounts, Context, Receipt
from strategies.interface.capabilities import Caller, Capabilities, Resource, Transfers
from strategies.interface.errors import AccountError, Indeterminate, OutOfScope, Rejected, StateLost, Unavailable
from strategies.support.cluster import Cluster, NoCluster
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger import Ledger
from strategies.support.op_window import OpWindow, Payload
from strategies.support.sharding import stable_digest
from strategies.support.validation import check_account, check_op_id, whole_amount

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

DIRECT = "direct"
PROXIED = "proxied"
VARIANTS = (PROXIED, DIRECT)
"""`proxied` is the default of a Dask client: the scheduler passes each call on to the worker.
`direct` opens connections to the workers. Workers, so tasks too, always call each other directly."""

NEEDS = frozenset({Resource.DASK})
CALLERS = frozenset({Caller.DRIVER, Caller.TASK})

_NAMESPACE = "dask-state-bench"
_OPEN_LOCK = f"{_NAMESPACE}/open"
_SNAPSHOT_THREADS = 16
_LOST = frozenset({"error", "lost", "cancelled"})
_FIRST_CONNECT_S = 0.3
"""How long to try to connect before asking the scheduler whether the actor still exists.
`distributed` itself would try for 30 s, also when nothing listens there any more."""


class LedgerActor(Ledger):
    """A ledger as a Dask actor.

    Its methods are plain functions on purpose. A worker runs those of all its actors on one
    thread, so they never interleave; `async` methods would, and could lose updates.
    """

    def packed_snapshot(self) -> bytes:
        """The snapshot as one value: Dask walks through containers, which took over 5 s for 100,000 accounts."""
        receipts = self.snapshot()
        return pickle.dumps((list(receipts), list(zip(*receipts.values(), strict=True))), protocol=5)


@dataclass(eq=False)
class ActorRef:
    """One actor, as a handle knows it. A pickled copy knows no future."""

    key: str
    address: str
    future: Future | None = None
    """Tells at once, without a message, that the scheduler may have given the actor up."""
    gone: bool = False

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.key, self.address)


class ActorBank:
    """The actors of one bank, from one process. Pickled, it finds its way from where it arrives."""

    def __init__(self, name: str, timeout_s: float, *, direct: bool, client: Client | None = None) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._direct = direct
        self._client = client
        self._cluster: Cluster | None = None if client is None else Cluster.of_client(client)
        self._closed = False

    @classmethod
    def of(cls, context: Context, strategy: str) -> Self:
        """The bank that the context names.

        Raises:
            ValueError: there is no client, or an asynchronous one, or no such variant.
            Unavailable: the client is closed.
        """
        if context.client is None:
            raise ValueError(f"{strategy} keeps its state in Dask actors; put a Dask client into the context")
        variant = PROXIED if context.variant is None else context.variant
        if variant not in VARIANTS:
            raise ValueError(f"{strategy} has the variants {', '.join(VARIANTS)}, not {variant!r}")
        name = f"{_NAMESPACE}/{strategy}/{context.bank}"
        try:
            return cls(name, context.timeout_s, direct=variant == DIRECT, client=context.client)
        except NoCluster as error:
            raise Unavailable(str(error)) from error

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        return _unpickled, (type(self), self._name, self._timeout_s, self._direct)  # type: ignore[return-value]

    def deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def close(self) -> None:
        self._closed = True

    def check_open(self) -> None:
        """Raise `Unavailable` once the handle is closed."""
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    # -- calling ---------------------------------------------------------------------------------

    def call(self, actor: ActorRef, function: str, *args: Any, changes: bool, deadline: float, **options: Any) -> Any:
        """Run one method of the actor. `changes` says whether it may have an effect."""
        self.check_open()
        try:
            if self._is_lost(actor, deadline):
                raise _state_lost(actor)
            answer = self._exchange(actor, function, args, options, deadline)
        except (NotSent, NoCluster) as error:
            raise Unavailable(f"{function} was not sent: {error}; send it again") from error
        except NotAnswered as error:
            self._note_if_gone(actor)
            if changes:
                raise Indeterminate(
                    f"{function} was sent and not answered: {error}; send it again with its op id"
                ) from error
            if actor.gone:
                raise _state_lost(actor) from error
            raise Unavailable(f"{function} was not answered: {error}; send it again") from error
        except KeyError as error:
            if error.args != (actor.key,):
                raise _unmapped(function, error, changes=changes) from error
            # The worker looks its actor up before anything else.
            actor.gone = True
            raise _state_lost(actor) from error
        except AccountError:
            raise
        except Exception as error:
            raise _unmapped(function, error, changes=changes) from error
        if answer["status"] == "OK":
            return answer["result"]
        raised = answer["exception"]
        if isinstance(raised, AccountError):
            raise raised
        raise _unmapped(function, raised, changes=changes) from raised

    def _exchange(
        self, actor: ActorRef, function: str, args: Sequence[Any], options: dict[str, Any], deadline: float
    ) -> Any:
        cluster = self._cluster
        if cluster is None:
            cluster = self._cluster = Cluster.here()
        message = {"op": "actor_execute", "actor": actor.key, "function": function, "args": args, "kwargs": options}
        if not (self._direct or cluster.in_worker):
            return cluster.ask(cluster.scheduler, deadline, op="proxy", worker=actor.address, msg=message)
        connect_s = _FIRST_CONNECT_S
        while True:  # ends with the deadline: both questions raise NotSent once it has passed
            try:
                return cluster.ask(actor.address, deadline, connect_s=connect_s, **message)
            except NotSent:
                if self._address_of(actor.key, deadline) != actor.address:
                    actor.gone = True
                    raise _state_lost(actor) from None
                connect_s *= 2

    def _is_lost(self, actor: ActorRef, deadline: float) -> bool:
        if actor.future is not None and actor.future.status in _LOST:
            # So are all of a client's futures when its connection to the scheduler breaks: the scheduler knows.
            actor.future = None
            actor.gone = self._address_of(actor.key, deadline) != actor.address
        return actor.gone

    def _note_if_gone(self, actor: ActorRef) -> None:
        with suppress(NotSent):  # nobody to ask: not known to be gone
            actor.gone = self._address_of(actor.key, time.monotonic() + _FIRST_CONNECT_S) != actor.address

    def _address_of(self, key: str, deadline: float) -> str | None:
        assert self._cluster is not None
        holders = self._cluster.ask_scheduler(deadline, op="who_has", keys=[key])[key]
        return holders[0] if holders else None

    # -- making and finding ----------------------------------------------------------------------

    def open_shards(self, shards: int) -> list[ActorRef]:
        """The bank's shards: those that exist, and blank ones in place of those that were lost.

        A bank that exists keeps its number of shards, whatever `shards` says.

        Each is placed on another worker as far as there are enough, starting from one that the
        bank's name decides, so that several banks do not crowd the same workers.
        """
        client = self._need_client()

        async def attach_or_create() -> list[ActorRef]:
            from distributed import Lock

            async with Lock(_OPEN_LOCK, scheduler_rpc=client.scheduler, loop=client.loop):
                known: Sequence[Future] = await client.get_dataset(self._name, default=())
                holders = await client.who_has(known) if known else {}
                alive = {shard: future for shard, future in enumerate(known) if holders.get(future.key)}
                size = len(known) or shards
                if len(alive) < size:
                    workers = sorted(await client.nthreads())
                    if not workers:
                        raise NotSent("the cluster has no worker")
                    first = stable_digest(self._name)
                    for shard in set(range(size)) - set(alive):
                        alive[shard] = _submit(client, workers[(first + shard) % len(workers)])
                    await asyncio.gather(*alive.values())
                    await client.publish_dataset(
                        [alive[shard] for shard in range(size)], name=self._name, override=True
                    )
                return await _refs(client, [alive[shard] for shard in range(size)])

        return self._on_loop(client, attach_or_create)

    def create(self, name: str) -> ActorRef:
        """A blank actor of this name, or the one that somebody else made first."""
        client = self._need_client()
        _make_room()

        async def create() -> ActorRef:
            future = _submit(client)
            await future
            try:
                await client.publish_dataset(future, name=(self._name, name))
            except KeyError:
                future = await client.get_dataset((self._name, name))
            # What a task can read without becoming a client of its own.
            await client.set_metadata([self._name, name], future.key)
            return (await _refs(client, [future]))[0]

        return self._on_loop(client, create)

    def forget_lost(self) -> None:
        """Drop the names of actors that were lost, so that they can be made again, blank."""
        client = self._need_client()

        async def forget() -> None:
            keys: dict[str, str] = await client.get_metadata([self._name], default={})
            if not keys:
                return
            from distributed import Lock

            async with Lock(_OPEN_LOCK, scheduler_rpc=client.scheduler, loop=client.loop):
                holders = await client.scheduler.who_has(keys=list(keys.values()))
                for name, key in keys.items():
                    if not holders[key]:
                        await client.unpublish_dataset((self._name, name))
                await client.set_metadata([self._name], {name: key for name, key in keys.items() if holders[key]})

        self._on_loop(client, forget)

    def find(self, name: str, deadline: float) -> ActorRef | None:
        """The actor of this name, lost or not; None if none was ever made."""
        return self._find_all([self._name, name], lambda key: {name: key} if key else {}, deadline).get(name)

    def find_all(self, deadline: float) -> dict[str, ActorRef]:
        """Every named actor of the bank."""
        return self._find_all([self._name], dict, deadline)

    def _find_all(
        self, path: list[str], keys_by_name: Callable[[Any], dict[str, str]], deadline: float
    ) -> dict[str, ActorRef]:
        self.check_open()
        try:
            if self._cluster is None:
                self._cluster = Cluster.here()
            keys = keys_by_name(self._cluster.ask_scheduler(deadline, op="get_metadata", keys=path, default=()))
            holders = self._cluster.ask_scheduler(deadline, op="who_has", keys=list(keys.values()))
        except (NotSent, NoCluster) as error:
            raise Unavailable(f"the account could not be looked up: {error}; try again") from error
        return {
            name: ActorRef(key, holders[key][0]) if holders[key] else ActorRef(key, "nowhere", gone=True)
            for name, key in keys.items()
        }

    def _need_client(self) -> Client:
        self.check_open()
        if self._client is None:
            from distributed import get_client

            try:
                self._client = get_client()
            except ValueError as error:
                raise Unavailable(
                    "there is no Dask worker or client in this process; connect a Client first"
                ) from error
        return self._client

    def _on_loop(self, client: Client, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work`, which awaits the client's own methods, within the deadline: they have none."""
        from distributed.utils import sync

        try:
            made: T = sync(client.loop, work, callback_timeout=self._timeout_s)
            return made
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"the Dask workers cannot make the actors: {error}; install this package there too"
            ) from error
        except (Exception, asyncio.CancelledError) as error:  # whatever it was, no account has changed
            problem = f"no answer within {self._timeout_s} s" if isinstance(error, TimeoutError) else str(error)
            raise Unavailable(f"the Dask cluster did not make the actors: {problem}; try again") from error


class ActorAccounts(Accounts):
    """What strategies on actors have in common: everything but which actor owns which account."""

    capabilities: ClassVar[Capabilities]

    def __init__(self, bank: ActorBank) -> None:
        self._bank = bank
        self._sent: dict[str, OpWindow] = {}

    @abstractmethod
    def _owner(self, account: str, deadline: float, *, make: bool = False) -> ActorRef:
        """The actor that owns the account; `make` allows to make one.

        Raises:
            UnknownAccount: there is none.
        """

    @abstractmethod
    def _owners(self, deadline: float) -> Collection[ActorRef]:
        """Every actor of the bank."""

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change("open_account", (account,), opening, op_id, make=True)
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

    def _change(
        self,
        function: str,
        accounts: tuple[str, ...],
        amount: int,
        op_id: tuple[str, int] | None,
        *,
        make: bool = False,
    ) -> Any:
        self._bank.check_open()
        for account in accounts:
            check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        deadline = self._bank.deadline()
        if op_id is None:
            owner = self._common_owner(accounts, deadline, make=make)
        else:
            owner = self._owner_by_op_id(op_id, (function, *accounts, amount), accounts, deadline, make=make)
        return self._bank.call(owner, function, *accounts, amount, changes=True, deadline=deadline, op_id=op_id)

    def _owner_by_op_id(
        self, op_id: tuple[str, int], payload: Payload, accounts: tuple[str, ...], deadline: float, *, make: bool
    ) -> ActorRef:
        """The owner, unless this handle can tell already what the answer is.

        Each actor remembers the op ids that it saw. What no actor sees is for the handle to
        remember: an id used again for another actor's account, and rejections made here.
        """
        session, number = op_id
        window = self._sent.get(session)
        if window is None:
            window = self._sent.setdefault(session, OpWindow())
        known = window.recall(number, payload)
        if isinstance(known, Rejected):
            raise type(known)(*known.args)
        try:
            # One account's actor remembers its rejections too, so for that it is made where there is none.
            owner = self._common_owner(accounts, deadline, make=make or len(accounts) == 1)
        except Rejected as rejection:
            window.remember(number, payload, rejection)
            raise
        window.remember(number, payload, None)
        return owner

    def _common_owner(self, accounts: tuple[str, ...], deadline: float, *, make: bool) -> ActorRef:
        if len(accounts) > 1 and self.capabilities.transfers is Transfers.NONE:
            raise self._out_of_scope(accounts)
        owner, *others = [self._owner(account, deadline, make=make) for account in accounts]
        if any(other is not owner for other in others):
            raise self._out_of_scope(accounts)
        return owner

    def _out_of_scope(self, accounts: tuple[str, ...]) -> OutOfScope:
        return OutOfScope(
            f"{self.name} cannot change {' and '.join(map(repr, accounts))} together; "
            f"use a strategy that claims transfers between any accounts"
        )

    def balance(self, account: str) -> Receipt:
        check_account(account)
        deadline = self._bank.deadline()
        owner = self._owner(account, deadline)
        receipt: Receipt = self._bank.call(owner, "balance", account, changes=False, deadline=deadline)
        return receipt

    def snapshot(self) -> dict[str, Receipt]:
        deadline = self._bank.deadline()
        owners = self._owners(deadline)
        with ThreadPoolExecutor(_SNAPSHOT_THREADS) as threads:
            parts = threads.map(
                lambda owner: self._bank.call(owner, "packed_snapshot", changes=False, deadline=deadline), owners
            )
            return {account: receipt for part in parts for account, receipt in _unpacked(part)}

    def close(self) -> None:
        self._bank.close()


def _unpacked(snapshot: bytes) -> Iterator[tuple[str, Receipt]]:
    accounts, columns = pickle.loads(snapshot)
    return zip(accounts, map(Receipt, *columns), strict=True) if accounts else iter(())


def _unpickled(kind: type[ActorBank], name: str, timeout_s: float, direct: bool) -> ActorBank:
    return kind(name, timeout_s, direct=direct)


def _make_room() -> None:
    """Let the worker start one more task if this is one: an actor starts as a task, and this one waits for it.

    Where such tasks held every thread of every worker, none of their actors could start.
    """
    from distributed import get_worker, secede

    # Neither a task, nor for the second time.
    with suppress(ValueError, KeyError):
        get_worker()
        secede()


def _submit(client: Client, worker: str | None = None) -> Future:
    return client.submit(
        LedgerActor,
        actor=True,
        key=f"{_NAMESPACE}-{uuid.uuid4().hex}",
        workers=None if worker is None else [worker],
        allow_other_workers=worker is not None,
    )


async def _refs(client: Client, futures: Sequence[Future]) -> list[ActorRef]:
    holders = await client.who_has(futures)
    return [ActorRef(future.key, holders[future.key][0], future) for future in futures]


def _state_lost(actor: ActorRef) -> StateLost:
    return StateLost(f"the worker at {actor.address} died with the actor's accounts; open the bank again, blank")


def _unmapped(function: str, error: BaseException, *, changes: bool) -> AccountError:
    if changes:
        return Indeterminate(f"{function} ended in {error!r}; send it again with its op id")
    return Unavailable(f"{function} ended in {error!r}; send it again")
