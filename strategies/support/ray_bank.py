"""A bank's owners in Ray actors: making and finding them, asking them with exact fates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from strategies.interface.account import Answer, Context, Receipt
from strategies.interface.capabilities import CALLER_FAULTS, CLUSTER_FAULTS, Caller, Fault, Resource
from strategies.interface.errors import AccountError, Indeterminate, StateLost, Unavailable
from strategies.support import ray_link
from strategies.support.coalescing import Coalescer, Send
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.ray_host import GONE, RayHost
from strategies.support.wire import BALANCE, NO_NUMBER, Batch, WireError, decode_answers, decode_snapshot, encode
from strategies.support.wire_ledger import SNAPSHOT

SURVIVES = CLUSTER_FAULTS | CALLER_FAULTS | {Fault.DRIVER_KILL, Fault.SERVER_PAUSE, Fault.POISON_ARGUMENT}
"""Whatever leaves the actors' processes alone. They are detached: they outlive the driver that made them
(https://docs.ray.io/en/latest/ray-core/actors/named-actors.html)."""

NEEDS = frozenset({Resource.RAY})
CALLERS = frozenset({Caller.DRIVER, Caller.TASK})

NAMESPACE = "dask-state-bench"
"""Ray's, in which our actors have their names."""

_PART_BYTES = 65_536
"""Ray keeps arguments of up to 100 KiB in the call itself. A larger one goes to the node's object store first, which
would block, without a deadline, while that does not answer."""

_AGAIN_S = 0.05
"""Until an actor is asked again of whose death or start Ray may not know yet."""


class Kept(NamedTuple):
    """How Ray treats actors and calls that fail."""

    max_restarts: int
    max_task_retries: int


PLAIN, RESTARTS, RETRIES = Kept(0, 0), Kept(-1, 0), Kept(-1, -1)
"""Ray's default; and without limit."""


class Gone(Exception):
    """The actor's state is gone; nothing was applied."""


@dataclass(eq=False)
class HostRef:
    """One bank's ledger in one actor, as a handle knows it."""

    name: str
    epoch: int
    actor: Any = None
    connection: ray_link.Connection | None = None
    """That over which the actor can be called."""
    gone: bool = False

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (self.name, self.epoch)


class RayBank:
    """The owners of one bank, from one process. Pickled, it connects from where it arrives.

    Of accounts' owners, `strategies.support.owners` says what is asked.
    """

    def __init__(
        self, address: str, name: str, kept: Kept, timeout_s: float, queue_limit: int, submit_blocks: bool
    ) -> None:
        self._arrival = (address, name, kept, timeout_s, queue_limit, submit_blocks)
        self._address = address
        self._name = name
        self._kept = kept
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._submit_blocks = submit_blocks
        self._closed = False

    @classmethod
    def of(cls, context: Context, strategy: str, variants: Mapping[str, Kept]) -> Self:
        """The bank that the context names, in one of these variants, by default the first. Connects to nobody yet.

        Raises:
            ValueError: there is no such variant, or no address of a Ray cluster.
        """
        if context.ray_url is None:
            raise ValueError(f"{strategy} keeps its state in Ray actors; put the Ray cluster's URL into the context")
        variant = next(iter(variants)) if context.variant is None else context.variant
        if variant not in variants:
            raise ValueError(f"{strategy} has the variants {', '.join(variants)}, not {variant!r}")
        return cls(
            ray_link.address_of(context.ray_url),
            f"{strategy}/{context.bank}",
            variants[variant],
            context.timeout_s,
            context.queue_limit,
            context.submit_blocks,
        )

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._arrival

    def queue(self, send: Send) -> Coalescer:
        return Coalescer(send, timeout_s=self._timeout_s, queue_limit=self._queue_limit, blocks=self._submit_blocks)

    def deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def close(self) -> None:
        self._closed = True
        ray_link.leave(self)

    def check_open(self) -> None:
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    # -- calling ---------------------------------------------------------------------------------

    def apply(self, requests: Iterable[tuple[HostRef, Batch]], deadline: float, what: str) -> list[list[Answer]]:
        made: list[tuple[HostRef, Batch]] = []

        def encoded() -> Iterator[tuple[HostRef, bytes, bool]]:
            for owner, batch in requests:
                made.append((owner, batch))
                yield owner, encode(batch), _may_be_sent_twice(batch)

        replies = self._exchange(encoded(), deadline)
        return [self._answers(*made[place], reply, what) for place, reply in enumerate(replies)]

    def snapshots(self, owners: Sequence[HostRef], deadline: float) -> dict[str, Receipt]:
        receipts: dict[str, Receipt] = {}
        replies = list(self._exchange([(owner, SNAPSHOT, True) for owner in owners], deadline))
        for owner, reply in zip(owners, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._fates(owner, reply, "snapshot")[1]
            receipts.update(decode_snapshot(reply))
        return receipts

    def _exchange(
        self, requests: Iterable[tuple[HostRef, bytes, bool]], deadline: float
    ) -> Iterator[bytes | Exception]:
        """Send every request, then wait for one reply after the other."""
        self.check_open()
        begun = [self._begun(*request, deadline) for request in requests]
        for ref in begun:
            yield ref if isinstance(ref, Exception) else reply_of(ref, deadline)

    def _begun(self, owner: HostRef, payload: bytes, twice: bool, deadline: float) -> Any:
        """The reference to the reply, or why there is none."""
        try:
            method = self._actor(owner, deadline).answer
            if twice and self._kept.max_task_retries:
                method = method.options(max_task_retries=self._kept.max_task_retries)
            return method.remote(self._name, owner.epoch, *parts(payload))
        except (NotSent, Gone) as error:
            return error

    def _actor(self, owner: HostRef, deadline: float) -> Any:
        """What to call the owner by, over the present connection."""
        if owner.gone:
            raise Gone
        connection = ray_link.join(self, self._address, deadline)
        if owner.connection is not connection:
            import ray

            try:
                owner.actor = ray_link.in_time(deadline, lambda: ray.get_actor(owner.name, NAMESPACE))
            except ValueError:  # of a detached actor the name is free again when it is dead for good
                raise Gone from None
            except ray.exceptions.RayError as error:
                raise NotSent(f"the actor could not be looked up: {error}") from error
            owner.connection = connection
        return owner.actor

    def _answers(self, owner: HostRef, batch: Batch, reply: bytes | Exception, what: str) -> list[Answer]:
        if not isinstance(reply, Exception):
            try:
                return decode_answers(reply, len(batch.functions))
            except WireError as error:
                reply = error
        change, read = self._fates(owner, reply, what)
        return [read if function == BALANCE else change for function in batch.functions]

    def _fates(self, owner: HostRef, error: Exception, what: str) -> tuple[AccountError, AccountError]:
        """What the error means for changes, and for reads."""
        if isinstance(error, NotSent):
            unavailable = Unavailable(f"{what} was not sent: {error}; send it again")
            return unavailable, unavailable
        if isinstance(error, Gone):
            owner.gone = True
            lost = StateLost("the Ray actor died with the bank's accounts; open the bank again, blank")
            return lost, lost
        problem = str(error) if isinstance(error, NotAnswered) else repr(error)
        return (
            Indeterminate(f"{what} was sent and not answered: {problem}; send it again with its op id"),
            Unavailable(f"{what} was not answered: {problem}; send it again"),
        )

    # -- making and finding ----------------------------------------------------------------------

    def open_shards(self, shards: int) -> list[HostRef]:
        """The bank's shards: those that exist, and blank ones in place of those that were lost.

        A bank that exists keeps its number of shards, whatever `shards` says.

        Raises:
            Unavailable: the cluster does not answer in time, or does not make the actors.
        """
        deadline = self.deadline()
        try:
            connection = ray_link.join(self, self._address, deadline)
            return ray_link.in_time(deadline, lambda: self._opened(shards, connection, deadline))
        except Exception as error:  # whatever it was, no account has changed
            raise Unavailable(f"the Ray cluster did not open the bank: {error}; try again") from error

    def _opened(self, shards: int, connection: ray_link.Connection, deadline: float) -> list[HostRef]:
        size = self._known_size(deadline) or shards
        (first,) = self._ledgers([0], size, connection, deadline)
        size = first[1]  # whoever opened it at the same time may have been faster
        others = self._ledgers(range(1, size), size, connection, deadline)
        return [found for found, _ in [first, *others]]

    def _known_size(self, deadline: float) -> int | None:
        """Of a bank of which some shard is alive."""
        import ray

        hosts = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if _is_ours(each, self._kept)]
        asked = []
        for name in hosts:
            try:
                asked.append(ray.get_actor(name, NAMESPACE).find.remote(self._name))
            except ValueError:  # it died meanwhile
                continue
        for ref in asked:
            try:
                found = ray.get(ref, timeout=_left(deadline))
            except ray.exceptions.RayActorError:
                continue
            if found is not None:
                return int(found[1])
        return None

    def _ledgers(
        self, places: Iterable[int], size: int, connection: ray_link.Connection, deadline: float
    ) -> list[tuple[HostRef, int]]:
        """Those of these shards, made where there is none; and of how many shards each says that it is one."""
        import ray

        found: dict[int, tuple[HostRef, int]] = {}
        missing = list(places)
        wanted = list(missing)
        while missing:  # ends with the deadline
            hosts = {place: self._host(place) for place in missing}
            begun = {place: host.open.remote(self._name, size) for place, host in hosts.items()}
            for place, ref in begun.items():
                try:
                    epoch, of = ray.get(ref, timeout=_left(deadline))
                except ray.exceptions.RayActorError:
                    if time.monotonic() + _AGAIN_S > deadline:
                        raise
                    continue
                found[place] = HostRef(_host_name(self._kept, place), epoch, hosts[place], connection), of
            missing = [place for place in missing if place not in found]
            if missing:
                time.sleep(_AGAIN_S)
        return [found[place] for place in wanted]

    def _host(self, place: int) -> Any:
        import ray

        made = ray.remote(RayHost).options(
            name=_host_name(self._kept, place),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=self._kept.max_restarts,
        )
        return made.remote()


def parts(payload: bytes) -> list[bytes]:
    """The payload cut into what goes into a call as it is."""
    return [payload[begin : begin + _PART_BYTES] for begin in range(0, len(payload), _PART_BYTES)]


def reply_of(ref: Any, deadline: float) -> bytes | Exception:
    """What became of a call: the answer, or what `RayBank` makes of its absence.

    Of a call that failed, Ray does not say whether the method ran (`ActorUnavailableError`: it "may or may not have").
    Where the actor is dead for good, that makes no difference: its state is gone.
    https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
    """
    import ray

    reply: bytes | Exception
    try:
        reply = ray.get(ref, timeout=_left(deadline))
    except Exception as error:
        reply = error
    if reply == GONE or isinstance(reply, ray.exceptions.ActorDiedError):
        return Gone()
    if isinstance(reply, TimeoutError):  # Ray's is one
        return NotAnswered("no answer in time")
    return reply


def _may_be_sent_twice(batch: Batch) -> bool:
    """Whether all that changes something has an op id, or is a step, which names its attempt."""
    if not batch.numbers:
        return all(code >= BALANCE for code in batch.functions)
    numbered = zip(batch.functions, batch.numbers, strict=True)
    return all(code >= BALANCE or number != NO_NUMBER for code, number in numbered)


def _host_name(kept: Kept, place: int) -> str:
    return f"{_kind_name(kept)}/{place}"


def _kind_name(kept: Kept) -> str:
    return "kept" if kept.max_restarts else "plain"


def _is_ours(found: dict[str, str], kept: Kept) -> bool:
    return found["namespace"] == NAMESPACE and found["name"].startswith(f"{_kind_name(kept)}/")


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
