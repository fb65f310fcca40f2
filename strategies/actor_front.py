"""A round-robin pool of Dask actors without state in front of one shared database: the book's actors that share one.

Each call, or batch, goes to the next of four actors on different workers, which has the database do it and passes the
answer on. What that buys: callers need no way to the database, nor its client library, nor a connection each; only
workers do. What it costs is one more message there and back.

The database is the variant: another strategy, in its own first variant. What is kept, and what is lost when, is as
that one's docstring says. The fronts hold nothing, so of the cluster's faults none loses anything. A dead front's
callers go on with the next one, and have another made in its place; when all are gone, and with them the scheduler, a
call waits for new ones as long as it may.

What was sent to a front and not answered may have happened. Where every change in it has an op id, which the database
remembers, it is sent again to the next front after a third of the call's time; so are reads. Else it is told to the
caller (`Indeterminate`), who knows no more.

Callers connect to the workers directly. Which database it is, with its URL, goes along with each request, and through
the cluster: whoever can listen there can read it, so a cluster with secrets has TLS. `submit` keeps one batch in flight
at a time, for two could overtake each other by different fronts.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Self

from strategies.interface import (
    CALLER_FAULTS,
    CLUSTER_FAULTS,
    MESSAGE_FAULTS,
    AccountError,
    Accounts,
    Answer,
    Caller,
    Capabilities,
    Context,
    Fault,
    Receipt,
    Resource,
    Retries,
    load,
)
from strategies.support.actors import DIRECT, ActorBank, ActorRef
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.front_actor import REFUSED, FrontActor
from strategies.support.fronts import Fronts
from strategies.support.transactional import TransactionalAccounts, fate
from strategies.support.wire import BALANCE, NO_NUMBER, Batch, WireError, decode_answers, decode_snapshot, encode

DATABASES = ("sqlite", "postgres", "redis_lua")
"""Strategies whose `apply` is native, and whose accounts have one owner."""

FRONTS = 4

_READS = bytes([BALANCE])
_CHANGES = bytes(code != BALANCE for code in range(256))

_FRONTS_SURVIVE = (
    CLUSTER_FAULTS
    | CALLER_FAULTS
    | MESSAGE_FAULTS
    | {
        Fault.REBALANCE,
        Fault.CLIENT_RETRY,
        Fault.POISON_ARGUMENT,
        Fault.POISON_RESULT,
        Fault.METHOD_EXIT,
        Fault.METHOD_HANG,
    }
)


def _claims(database: str) -> Capabilities:
    kind = load(database)
    behind = kind.claims(kind.capabilities.variants[0])
    return replace(
        behind,
        survives=behind.survives | _FRONTS_SURVIVE,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=behind.needs | {Resource.DASK},
        variants=DATABASES,
    )


def _opened(context: Context) -> tuple[str, Accounts]:
    """The variant, and a handle on its database."""
    problem: ValueError | None = None
    for name in DATABASES if context.variant is None else (context.variant,):
        kind = load(name)
        try:
            return name, kind.open(replace(context, client=None, variant=kind.capabilities.variants[0]))
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


class ActorFront(TransactionalAccounts):
    """A handle on the fronts, with the handle on the database that they are to use."""

    capabilities = _claims(DATABASES[0])

    def __init__(self, context: Context, database: bytes, bank: ActorBank, fronts: Sequence[ActorRef]) -> None:
        """`database` is the handle, pickled; without that, the context names no database."""
        super().__init__(context, 0)  # receipts have the database's epoch
        self._database = database
        self._bank = bank
        self._fronts = Fronts(bank, fronts)
        self._remembers = self.claims(context.variant or DATABASES[0]).retries is Retries.SAFE_WITH_OP_ID

    def __reduce__(self) -> tuple[type[Self], tuple[Context, bytes, ActorBank, Sequence[ActorRef]]]:  # type: ignore[override]
        return type(self), (self._context, self._database, self._bank, self._fronts.known)

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        return _claims(variant)

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank in the database, or make it there; and to its fronts, or make those.

        Without a variant, the database is the first whose resources are in the context.

        Raises:
            ValueError: there is no client in the context, or none of the database's resources, or no such variant.
            Unavailable: the cluster or the database does not answer, or refuses.
        """
        if context.variant not in (None, *DATABASES):
            raise ValueError(f"{cls.name} has the variants {', '.join(DATABASES)}, not {context.variant!r}")
        bank = ActorBank.of(context, cls.name, DIRECT)
        variant, database = _opened(context)
        with database:
            pickled = pickle.dumps(database)
        own = Context(
            timeout_s=context.timeout_s,
            bank=context.bank,
            variant=variant,
            queue_limit=context.queue_limit,
            submit_blocks=context.submit_blocks,
        )
        return cls(own, pickled, bank, bank.open_shards(FRONTS, FrontActor))

    def snapshot(self) -> dict[str, Receipt]:
        self._check_open()
        try:
            reply = self._ask(b"", self._bank.deadline(), again=True)
            if reply[:1] != REFUSED:
                return decode_snapshot(reply[1:])
            (answer,) = decode_answers(reply[1:], 1)
        except (NotSent, NotAnswered, WireError) as error:
            raise fate("snapshot", error, changes=False) from error
        assert isinstance(answer, AccountError)
        raise answer

    def close(self) -> None:
        super().close()
        self._bank.close()

    def _transact(self, batch: Batch, deadline: float) -> list[Answer]:
        reply = self._ask(encode(batch), deadline, again=self._may_be_sent_again(batch))
        try:
            return decode_answers(reply[1:], len(batch.functions))
        except WireError as error:
            raise NotAnswered(str(error)) from error

    def _may_be_sent_again(self, batch: Batch) -> bool:
        """Whether that has no second effect."""
        if not batch.numbers:
            return not batch.functions.translate(None, _READS)
        if not self._remembers:
            return False
        return NO_NUMBER not in compress(batch.numbers, batch.functions.translate(_CHANGES))

    def _ask(self, batch: bytes, deadline: float, *, again: bool) -> bytes | memoryview:
        return self._fronts.ask(self._database, batch, deadline, again=again)
