"""State in Apache Pekko, the open continuation of Akka: ledgers as sharded actors that are event-sourced.

Accounts lie on a consistent-hash ring over a few ledgers, as in `actor_pool`. A ledger is an actor that Pekko's
cluster sharding starts on one of the nodes when somebody calls it. It writes a batch to its log as one event before
it answers, now and then a snapshot, and is as it was when it is started again; its epoch stays. The service is in
java/pekko, and speaks the wire form over TCP. Each account is linearizable; a transfer between ledgers takes three
messages instead of one (docs/adr/0007).

Events are handed to the kernel before the answer, and not synced: a dead process loses nothing, a power cut what the
kernel had not written back. What a ledger's log promises is the project's own: no journal that Pekko has is both
embedded and shared by nodes (docs/adr/0010). Sharding runs a ledger once as long as the nodes agree who is a member;
where they give each other up, as around a pause, each may start it
(https://pekko.apache.org/docs/pekko/current/typed/cluster-sharding.html,
https://pekko.apache.org/docs/pekko/current/split-brain-resolver.html). So whoever starts a ledger fences its earlier
writer by the log; that one can then neither change it nor tell what it was.

- `one_node`: what its process holds up stands still until it is back.
- `two_nodes`: both serve all ledgers, each of which is on one. A dead node is missed after 2 s and given up after 1 s
  more; then its ledgers start on the other one. They share the directory of the logs: the machine is not doubled.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Self

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
    Indeterminate,
    Receipt,
    Resource,
    Retries,
    StateLost,
    Transfers,
    Unavailable,
)
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.coalescing import Coalescer, Send
from strategies.support.fates import NotSent
from strategies.support.pekko_link import (
    ACCOUNTS,
    BATCH,
    OPEN,
    Address,
    Ledger,
    LedgerGone,
    PekkoLinks,
    Reply,
    Request,
    addresses,
)
from strategies.support.sharding import HashRing
from strategies.support.wire import BALANCE, Batch, WireError, decode_answers, decode_snapshot, encode

_SHARDS = 4
_NODES = {"one_node": 1, "two_nodes": 2}
_OPENED = struct.Struct(">QI")
"""Of a ledger: its epoch, and how many its bank has."""
_PAGE = 10_000
"""Accounts that a snapshot reads with one message."""


class Pekko(ShardedAccounts):
    """A handle with connections of its own to the nodes; one per concurrent caller."""

    capabilities = Capabilities(
        survives=(
            CLUSTER_FAULTS
            | CALLER_FAULTS
            | MESSAGE_FAULTS
            | {
                Fault.DRIVER_KILL,
                Fault.SERVER_KILL,
                Fault.SERVER_PAUSE,
                Fault.LINK_DOWN,
                Fault.NETEM_DELAY,
                Fault.DISK_FULL,
                Fault.POISON_ARGUMENT,
            }
        ),
        durability=Durability.PROCESS_CRASH,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=frozenset({Caller.DRIVER, Caller.TASK}),
        needs=frozenset({Resource.PEKKO}),
        sharded=True,
        variants=tuple(_NODES),
    )

    def __init__(self, bank: PekkoBank, ledgers: Sequence[Ledger]) -> None:
        super().__init__(bank, ledgers, HashRing(len(ledgers)).shard_of)

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        return replace(cls.capabilities, nodes=_NODES[variant])

    @classmethod
    def open(cls, context: Context) -> Self:
        """Attach to the bank's ledgers, or have them come to be.

        Raises:
            ValueError: there is no URL in the context, or it cannot be read, or there is no such variant.
            Unavailable: no node answers.
        """
        if context.pekko_url is None:
            raise ValueError(f"{cls.name} keeps its state in the Pekko service; put its URL into the context")
        if context.variant not in (None, *_NODES):
            raise ValueError(f"{cls.name} has the variants {', '.join(_NODES)}, not {context.variant!r}")
        bank = PekkoBank(addresses(context.pekko_url), context.timeout_s, context.queue_limit, context.submit_blocks)
        try:
            return cls(bank, bank.open_ledgers(context.bank, context.shards or _SHARDS))
        except BaseException:
            bank.close()
            raise


class PekkoBank:
    """The ledgers of one bank, from one process. Pickled, it connects anew where it arrives."""

    def __init__(self, nodes: Sequence[Address], timeout_s: float, queue_limit: int, submit_blocks: bool) -> None:
        self._nodes = nodes
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._submit_blocks = submit_blocks
        self._links = PekkoLinks(nodes)
        self._closed = False

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        return type(self), (self._nodes, self._timeout_s, self._queue_limit, self._submit_blocks)

    def check_open(self) -> None:
        if self._closed:
            raise Unavailable("this handle is closed; open another")

    def deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def queue(self, send: Send) -> Coalescer:
        return Coalescer(send, timeout_s=self._timeout_s, queue_limit=self._queue_limit, blocks=self._submit_blocks)

    def close(self) -> None:
        self._closed = True
        self._links.close()

    def open_ledgers(self, bank: str, shards: int) -> list[Ledger]:
        """The bank's ledgers, which come to be if they are not there. A bank that exists keeps their number.

        Raises:
            Unavailable: not all of them answered.
        """
        # A bank can have any name, a ledger cannot.
        name = blake2b(bank.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        deadline = self.deadline()
        ((first, shards),) = self._opened([Ledger(f"{name}-0")], shards, deadline)
        others = [Ledger(f"{name}-{shard}") for shard in range(1, shards)]
        return [first, *(ledger for ledger, _ in self._opened(others, shards, deadline))]

    def _opened(self, ledgers: Sequence[Ledger], shards: int, deadline: float) -> Iterator[tuple[Ledger, int]]:
        replies = self._links.exchange((Request(each, OPEN, struct.pack(">I", shards)) for each in ledgers), deadline)
        for ledger, reply in zip(ledgers, replies, strict=True):
            if isinstance(reply, Exception):
                raise Unavailable(f"the Pekko service did not open the bank: {reply}; try again") from reply
            epoch, count = _OPENED.unpack(reply)
            yield ledger._replace(epoch=epoch), count

    def apply(self, requests: Iterable[tuple[Ledger, Batch]], deadline: float, what: str) -> list[list[Answer]]:
        """Have each batch applied by its ledger, all at the same time; the answers of each."""
        self.check_open()
        if isinstance(requests, list) and len(requests) == 1:  # a call: the generator would take longer than its work
            ((ledger, batch),) = requests
            return [_answers(batch, self._links.ask(Request(ledger, BATCH, encode(batch)), deadline), what)]
        made: list[Batch] = []

        def encoded() -> Iterator[Request]:
            for ledger, batch in requests:
                made.append(batch)
                yield Request(ledger, BATCH, encode(batch))

        replies = self._links.exchange(encoded(), deadline)
        return [_answers(batch, reply, what) for batch, reply in zip(made, replies, strict=True)]

    def snapshots(self, owners: Sequence[Ledger], deadline: float) -> dict[str, Receipt]:
        """Every account of these ledgers."""
        self.check_open()
        receipts: dict[str, Receipt] = {}
        begin = 0
        while owners:  # ends with the accounts, or with the deadline
            page = struct.pack(">II", begin, _PAGE)
            replies = self._links.exchange((Request(each, ACCOUNTS, page) for each in owners), deadline)
            unfinished = []
            for ledger, reply in zip(owners, replies, strict=True):
                if isinstance(reply, Exception):
                    raise _fates(reply, "snapshot")[1]
                found = decode_snapshot(reply)
                receipts |= found
                if len(found) == _PAGE:
                    unfinished.append(ledger)
            owners = unfinished
            begin += _PAGE
        return receipts


def _answers(batch: Batch, reply: Reply, what: str) -> list[Answer]:
    problem: Exception
    if isinstance(reply, Exception):
        problem = reply
    else:
        try:
            return decode_answers(reply, len(batch.functions))
        except WireError as error:
            problem = error
    change, read = _fates(problem, what)
    return [read if function == BALANCE else change for function in batch.functions]


def _fates(problem: Exception, what: str) -> tuple[AccountError, AccountError]:
    """What it means for changes, and for reads."""
    if isinstance(problem, NotSent):
        unsent = Unavailable(f"{what} was not done: {problem}; send it again")
        return unsent, unsent
    if isinstance(problem, LedgerGone):
        lost = StateLost("the Pekko service lost the bank that this handle was opened on; open it again, blank")
        return lost, lost
    return (
        Indeterminate(f"the Pekko service did not answer {what}: {problem}; send it again with its op id"),
        Unavailable(f"the Pekko service did not answer {what}: {problem}; send it again"),
    )
