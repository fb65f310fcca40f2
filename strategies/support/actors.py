"""Dask actors that own ledgers: placing them, finding them again, calling them with exact fates.

An actor's key is new each time one is made, and is published on the scheduler as a dataset named
after what it holds. So the state outlives the handle and the client that made it, other processes
find it, and a handle on an actor that was lost can never reach its replacement by mistake.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self, TypeVar

from strategies.interface.account import Answer, Context, Receipt
from strategies.interface.capabilities import CALLER_FAULTS, MESSAGE_FAULTS, Caller, Fault, Resource
from strategies.interface.errors import AccountError, Indeterminate, StateLost, Unavailable
from strategies.support.actor_ways import ActorGone, ByPool, ByScheduler, Reply, ToWorker, Way
from strategies.support.cluster import Cluster, NoCluster
from strategies.support.coalescing import Coalescer, Send
from strategies.support.dask_link import Links
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ledger_actor import DoorActor, LedgerActor
from strategies.support.sharding import stable_digest
from strategies.support.wire import BALANCE, Batch, WireError, decode_answers, decode_snapshot, encode
from strategies.support.wire_ledger import SNAPSHOT

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

DIRECT = "direct"
PROXIED = "proxied"
VARIANTS = (PROXIED, DIRECT)
"""`proxied` is the default of a Dask client: the scheduler passes each call on to the worker.
`direct` opens connections to the workers. Workers, so tasks too, always call each other directly."""

SURVIVES = (
    CALLER_FAULTS
    | MESSAGE_FAULTS
    | {
        Fault.WORKER_PAUSE,
        Fault.WORKER_PAUSE_BRIEF,
        Fault.DRIVER_KILL,
        Fault.RETIRE_WORKERS,
        Fault.CLIENT_RETRY,
        Fault.POISON_ARGUMENT,
        Fault.POISON_RESULT,
        Fault.METHOD_HANG,
    }
)
"""Whatever leaves the worker's process alone. Dask refuses to retire a worker with actors; a retry of an actor's future
leaves the actor where it was, and may make a blank one elsewhere that no handle on the old one knows of."""

NEEDS = frozenset({Resource.DASK})
CALLERS = frozenset({Caller.DRIVER, Caller.TASK})

_NAMESPACE = "dask-state-bench"
_OPEN_LOCK = f"{_NAMESPACE}/open"
_MAX_CONNECTING = 16
_LOST = frozenset({"error", "lost", "cancelled"})
_FIRST_CONNECT_S = 0.3
"""How long to try to connect before asking the scheduler whether the actor still exists.
`distributed` itself would try for 30 s, also when nothing listens there any more."""


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

    def __init__(
        self,
        name: str,
        timeout_s: float,
        *,
        direct: bool,
        queue_limit: int,
        submit_blocks: bool,
        client: Client | None = None,
    ) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._submit_blocks = submit_blocks
        self._direct = direct
        self._client = client
        self._cluster: Cluster | None = None if client is None else Cluster.of_client(client)
        self._way: Way | None = None
        self._links: Links | None = None
        self._closed = False

    @classmethod
    def of(cls, context: Context, strategy: str, way: str | None = None) -> Self:
        """The bank that the context names, called by this way where the strategy's variants mean something else.

        Raises:
            ValueError: there is no client, or an asynchronous one, or no such variant.
            Unavailable: the client is closed.
        """
        if context.client is None:
            raise ValueError(f"{strategy} keeps its state in Dask actors; put a Dask client into the context")
        variant = way or context.variant or PROXIED
        if variant not in VARIANTS:
            raise ValueError(f"{strategy} has the variants {', '.join(VARIANTS)}, not {variant!r}")
        name = f"{_NAMESPACE}/{strategy}/{context.bank}"
        try:
            return cls(
                name,
                context.timeout_s,
                direct=variant == DIRECT,
                queue_limit=context.queue_limit,
                submit_blocks=context.submit_blocks,
                client=context.client,
            )
        except NoCluster as error:
            raise Unavailable(str(error)) from error

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        limits = (self._timeout_s, self._direct, self._queue_limit, self._submit_blocks)
        return _unpickled, (type(self), self._name, *limits)  # type: ignore[return-value]

    def queue(self, send: Send) -> Coalescer:
        """A queue of operations that `send` sends, within the limits of the context."""
        return Coalescer(send, timeout_s=self._timeout_s, queue_limit=self._queue_limit, blocks=self._submit_blocks)

    def deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def close(self) -> None:
        self._closed = True
        if self._links is not None:
            self._links.leave(self)

    def check_open(self) -> None:
        """Raise `Unavailable` once the handle is closed."""
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    # -- calling ---------------------------------------------------------------------------------

    def apply(self, requests: Iterable[tuple[ActorRef, Batch]], deadline: float, what: str) -> list[list[Answer]]:
        """Have each batch applied by its actor, all at the same time; the answers of each.

        Each is sent as soon as `requests` yields it, so its actor works while the next one is made.
        `what` names the operations in errors.
        """
        made: list[tuple[ActorRef, Batch]] = []

        def encoded() -> Iterator[tuple[ActorRef, bytes]]:
            for actor, batch in requests:
                made.append((actor, batch))
                yield actor, encode(batch)

        found = self._exchange(encoded(), deadline - self._reserve_s)
        return [self._answers(*made[place], reply, what, deadline) for place, reply in enumerate(found)]

    def _answers(
        self, actor: ActorRef, batch: Batch, reply: bytes | memoryview | Exception, what: str, deadline: float
    ) -> list[Answer]:
        if not isinstance(reply, Exception):
            try:
                return decode_answers(reply, len(batch.functions))
            except WireError as error:
                reply = error
        change, read = self._fates(actor, reply, what, deadline)
        return [read if function == BALANCE else change for function in batch.functions]

    def ask(self, actor: ActorRef, payload: bytes, deadline: float) -> bytes | memoryview:
        """One request to one actor, and its reply.

        Raises:
            NotSent, NoCluster: it had no effect.
            ActorGone: it had no effect, and the actor is not to be asked again.
            Exception: anything else came of it, and nobody knows whether it had any.
        """
        (reply,) = self._exchange([(actor, payload)], deadline)
        if isinstance(reply, Exception):
            actor.gone = actor.gone or isinstance(reply, ActorGone)
            raise reply
        return reply

    def snapshots(self, actors: Sequence[ActorRef], deadline: float) -> dict[str, Receipt]:
        """Every account of these actors."""
        receipts: dict[str, Receipt] = {}
        replies = list(self._exchange([(it, SNAPSHOT) for it in actors], deadline - self._reserve_s))
        for actor, reply in zip(actors, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._fates(actor, reply, "snapshot", deadline)[1]
            receipts.update(decode_snapshot(reply))
        return receipts

    def _exchange(
        self, requests: Iterable[tuple[ActorRef, bytes]], deadline: float
    ) -> Iterator[bytes | memoryview | Exception]:
        """Send every request, then wait for one reply after the other."""
        self.check_open()
        begun: list[Reply | Exception | None] = []
        late: list[tuple[int, ActorRef, bytes]] = []
        for place, (actor, payload) in enumerate(requests):
            if self._is_open(actor):
                begun.append(self._begin(actor, payload, deadline))
            else:
                begun.append(None)
                late.append((place, actor, payload))
        if len(late) == 1:
            ((place, actor, payload),) = late
            begun[place] = self._begin(actor, payload, deadline)
        elif late:  # whom to connect to may not answer: that must not keep the others waiting
            with ThreadPoolExecutor(min(len(late), _MAX_CONNECTING)) as threads:
                places, actors, payloads = zip(*late, strict=True)
                for place, reply in zip(
                    places, threads.map(self._begin, actors, payloads, repeat(deadline)), strict=True
                ):
                    begun[place] = reply
        for sent in begun:
            assert sent is not None
            yield _ended(sent)

    def _is_open(self, actor: ActorRef) -> bool:
        return self._way is not None and self._way.is_open(actor.address)

    def _begin(self, actor: ActorRef, payload: bytes, deadline: float) -> Reply | Exception:
        try:
            way = self._need_way()
            if self._is_lost(actor, deadline):
                raise ActorGone
            connect_s = _FIRST_CONNECT_S
            while True:  # ends with the deadline: both questions raise NotSent once it has passed
                tried_until = time.monotonic() + connect_s
                try:
                    return way.send(actor.address, actor.key, payload, deadline, connect_s)
                except NotSent:
                    if self._address_of(actor.key, deadline) != actor.address:
                        raise ActorGone from None
                time.sleep(max(0.0, min(tried_until, deadline) - time.monotonic()))
                connect_s *= 2
        except Exception as error:
            return error

    def _fates(
        self, actor: ActorRef, error: Exception, what: str, deadline: float
    ) -> tuple[AccountError, AccountError]:
        """What the error means for changes, and for reads."""
        change: AccountError
        read: AccountError
        if isinstance(error, (NotSent, NoCluster)):
            change = read = Unavailable(f"{what} was not sent: {error}; send it again")
        elif isinstance(error, ActorGone):
            actor.gone = True
            change = read = _state_lost(actor)
        else:
            problem = str(error) if isinstance(error, NotAnswered) else repr(error)
            change = Indeterminate(f"{what} was sent and not answered: {problem}; send it again with its op id")
            read = Unavailable(f"{what} was not answered: {problem}; send it again")
            self._note_if_gone(actor, deadline)
            if actor.gone:
                read = _state_lost(actor)
        return change, read

    def _need_way(self) -> Way:
        if self._way is None:
            cluster = self._need_cluster()
            direct, links = self._direct or cluster.in_worker, cluster.links
            if links is None:
                self._way = ByPool(cluster, proxied=not direct)
            else:
                links.enter(self)
                self._links = links
                self._way = ToWorker(links) if direct else ByScheduler(links, cluster.scheduler)
        return self._way

    def _need_cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster.here()
        return self._cluster

    def _is_lost(self, actor: ActorRef, deadline: float) -> bool:
        if actor.future is not None and actor.future.status in _LOST:
            # So are all of a client's futures when its connection to the scheduler breaks: the scheduler knows.
            actor.future = None
            actor.gone = self._address_of(actor.key, deadline) != actor.address
        return actor.gone

    @property
    def _reserve_s(self) -> float:
        """Kept of each call's time to ask, without an answer, whether the actor is gone.

        The scheduler tries for 30 s to pass a call on to a dead worker, and only tells who asks.
        """
        return min(_FIRST_CONNECT_S, self._timeout_s / 5)

    def _note_if_gone(self, actor: ActorRef, deadline: float) -> None:
        with suppress(NotSent, NoCluster):  # nobody to ask, or no time left: not known to be gone
            actor.gone = (
                self._address_of(actor.key, min(deadline, time.monotonic() + _FIRST_CONNECT_S)) != actor.address
            )

    def _address_of(self, key: str, deadline: float) -> str | None:
        holders = self._need_cluster().ask_scheduler(deadline, op="who_has", keys=[key])[key]
        return holders[0] if holders else None

    # -- making and finding ----------------------------------------------------------------------

    def open_shards(
        self,
        shards: int,
        make: Callable[[], DoorActor] = LedgerActor,
        *,
        lost: Container[str] = (),
        timeout_s: float | None = None,
    ) -> list[ActorRef]:
        """The bank's shards: those that exist, and blank ones in place of those that were lost.

        A bank that exists keeps its number of shards, whatever `shards` says. `lost` are keys of actors that are known
        to be, whatever the scheduler says. `timeout_s` is that of a call unless told.

        Each is placed on another worker as far as there are enough, starting from one that the
        bank's name decides, so that several banks do not crowd the same workers.
        """
        client = self._need_client()

        async def attach_or_create() -> list[ActorRef]:
            from distributed import Lock

            async with Lock(_OPEN_LOCK, scheduler_rpc=client.scheduler, loop=client.loop):
                known: Sequence[Future] = await client.get_dataset(self._name, default=())
                holders = await client.who_has(known) if known else {}
                alive = {
                    shard: future
                    for shard, future in enumerate(known)
                    if holders.get(future.key) and future.key not in lost
                }
                size = len(known) or shards
                if len(alive) < size:
                    workers = sorted(await client.nthreads())
                    if not workers:
                        raise NotSent("the cluster has no worker")
                    first = stable_digest(self._name)
                    for shard in set(range(size)) - set(alive):
                        alive[shard] = _submit(client, workers[(first + shard) % len(workers)], make)
                    await asyncio.gather(*alive.values())
                    await client.publish_dataset(
                        [alive[shard] for shard in range(size)], name=self._name, override=True
                    )
                return await _refs(client, [alive[shard] for shard in range(size)])

        return self._on_loop(client, attach_or_create, timeout_s)

    def create(self, name: str) -> ActorRef:
        """A blank actor of this name, or the one that somebody else made first."""
        client = self._need_client()
        make_room()

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
            cluster = self._need_cluster()
            keys = keys_by_name(cluster.ask_scheduler(deadline, op="get_metadata", keys=path, default=()))
            holders = cluster.ask_scheduler(deadline, op="who_has", keys=list(keys.values()))
        except (NotSent, NoCluster) as error:
            raise Unavailable(f"the account could not be looked up: {error}; try again") from error
        return {
            name: ActorRef(key, holders[key][0]) if holders[key] else ActorRef(key, "nowhere", gone=True)
            for name, key in keys.items()
        }

    def _need_client(self) -> Client:
        self.check_open()
        if self._client is None:
            from distributed import Worker, get_client

            try:
                self._client = get_client()
            except ValueError as error:
                # As in `Cluster.here`: a thread that a task started has the worker's client all the same.
                worker = next(iter(Worker._instances), None)
                if worker is None:
                    raise Unavailable(
                        "there is no Dask worker or client in this process; connect a Client first"
                    ) from error
                self._client = worker._get_client()
        return self._client

    def _on_loop(self, client: Client, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run `work`, which awaits the client's own methods, within the deadline: they have none."""
        from distributed.utils import sync

        try:
            made: T = sync(client.loop, work, callback_timeout=timeout_s or self._timeout_s)
            return made
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"the Dask workers cannot make the actors: {error}; install this package there too"
            ) from error
        except (Exception, asyncio.CancelledError) as error:  # whatever it was, no account has changed
            problem = (
                f"no answer within {timeout_s or self._timeout_s} s" if isinstance(error, TimeoutError) else str(error)
            )
            raise Unavailable(f"the Dask cluster did not make the actors: {problem}; try again") from error


def _ended(begun: Reply | Exception) -> bytes | memoryview | Exception:
    if isinstance(begun, Exception):
        return begun
    try:
        return begun()
    except Exception as error:
        return error


def _unpickled(
    kind: type[ActorBank], name: str, timeout_s: float, direct: bool, queue_limit: int, submit_blocks: bool
) -> ActorBank:
    return kind(name, timeout_s, direct=direct, queue_limit=queue_limit, submit_blocks=submit_blocks)


def make_room() -> None:
    """Let the worker start one more task if this is one: an actor starts as a task, and this one waits for it.

    Where such tasks held every thread of every worker, none of their actors could start.
    """
    from distributed import get_worker, secede

    # Neither a task, nor for the second time.
    with suppress(ValueError, KeyError):
        get_worker()
        secede()


def _submit(client: Client, worker: str | None = None, make: Callable[[], DoorActor] = LedgerActor) -> Future:
    return client.submit(
        make,
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
