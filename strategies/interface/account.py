"""The interface that every strategy implements: accounts of integer money, receipts, op ids, deadlines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from strategies.interface.capabilities import Capabilities
from strategies.interface.errors import AccountError

if TYPE_CHECKING:
    from distributed import Client

MAX_ACCOUNT_BYTES = 256
"""The longest account id, in bytes of UTF-8."""

MAX_MONEY = 2**53 - 1
"""The largest amount and balance, in minor units: the largest integer up to which every backend
counts exactly (Redis runs its scripts on Lua 5.1, whose numbers are IEEE doubles)."""

MAX_SHARDS = 1024
"""The most owners that one bank's accounts are spread over."""

DEDUP_WINDOW = 10_000
"""How many op-id numbers, counted back from the highest seen, are remembered per session."""

MAX_BATCH = 10_000
"""The most operations in one `Batched.apply`: a session's batch that is sent again is still remembered."""


class Receipt(NamedTuple):
    """A certificate of one account's state after one change.

    A checker can replay a history from receipts alone, in linear time.
    """

    seq: int
    """Changes applied to the account since it was opened: gap-free, 1 for the opening."""
    balance: int
    """Minor units, after that change."""
    epoch: int
    """Microseconds since 1970 at which the account's owner came to be: it rises when the owner is replaced."""


class OpId(NamedTuple):
    """Names an operation across resends: a client's own session, and a number rising within it."""

    session: str
    number: int


class Function(StrEnum):
    """The operations that change an account, and the one that only reads."""

    OPEN_ACCOUNT = "open_account"
    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    TRANSFER = "transfer"
    BALANCE = "balance"


class Operation(NamedTuple):
    """One call as a value, for `Batched.apply` and `Pipelined.submit`."""

    function: Function
    account: str
    amount: int = 0
    target: str | None = None
    op_id: OpId | None = None


Answer = Receipt | tuple[Receipt, Receipt] | AccountError
"""What became of one operation: the receipt, a transfer's two, or the error that a call of its own would raise."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The resources that a strategy is opened on. Whoever makes the context owns them."""

    client: Client | None = None
    redis_url: str | None = field(default=None, repr=False)  # may hold a password
    directory: Path | None = None
    postgres_url: str | None = field(default=None, repr=False)  # may hold a password
    zookeeper_url: str | None = None
    """`zookeeper://HOST:PORT,HOST:PORT/PATH`: the servers of an ensemble, and the znode below which banks are."""
    ray_url: str | None = None
    """`ray://HOST:PORT`, of the cluster's head (its GCS, not the port for Ray Client)."""
    pekko_url: str | None = None
    """`pekko://HOST:PORT,HOST:PORT`: a port of each node."""
    timeout_s: float = 5.0
    """The deadline of every call, `open` included."""
    bank: str = "bank"
    """Which set of accounts: two opens of one bank on the same resources see the same accounts."""
    variant: str | None = None
    """One of `Capabilities.variants`; None for the strategy's default."""
    shards: int | None = None
    """Owners that a new bank's accounts are spread over, where `Capabilities.sharded` is claimed; None for the
    strategy's own number. A bank that exists keeps its number."""
    queue_limit: int = 10_000
    """Operations that may wait for their turn behind `Pipelined.submit`, in each of a handle's queues."""
    submit_blocks: bool = True
    """Where that queue is full, `submit` waits for room, up to the deadline; else it raises `Unavailable` at once."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s must be a positive number of seconds, not {self.timeout_s}")
        if not self.bank:
            raise ValueError("bank must be a non-empty name")
        if self.shards is not None and not 1 <= self.shards <= MAX_SHARDS:
            raise ValueError(f"shards must be 1 to {MAX_SHARDS}, not {self.shards}")
        if self.queue_limit < 1:
            raise ValueError(f"queue_limit must be 1 or more, not {self.queue_limit}")


class Accounts(ABC):
    """One handle on one bank.

    Handles may be shared by threads. A handle can be pickled and used inside a Dask task where
    `Caller.TASK` is claimed. Every call ends within `Context.timeout_s`, by a receipt or by one of
    the errors drawn in `strategies.interface.errors`.

    `op_id` is `(session, number)`. Where `Retries.SAFE_WITH_OP_ID` is claimed, an operation sent
    again with its op id has its effect once and gets its first receipt; a rejection is as sticky;
    another payload under the same id is `OperationMismatch`; an id more than `DEDUP_WINDOW`
    numbers behind its session's highest is `OperationExpired`. Without an op id, a call sent
    again is another operation. What is remembered of a session lives as long as the state it
    protects: use one session per client, not one per call.

    Across handles, the same payload has one effect and gets its first answer. Where state is sharded, a
    mismatch on another owner's account, and expiry by numbers that other owners saw, are told only within
    one handle (docs/adr/0002-op-ids-in-sharded-strategies.md).

    A transfer from an account to itself, where transfers are claimed, is a withdrawal and a deposit. Of
    several reasons to reject an operation, any may be given.
    """

    name: ClassVar[str]
    """The strategy's name: that of its module."""

    capabilities: ClassVar[Capabilities]
    """What is claimed, by every variant unless `claims` says otherwise."""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    @classmethod
    def claims(cls, variant: str) -> Capabilities:
        """What this variant claims."""
        return cls.capabilities

    @classmethod
    @abstractmethod
    def open(cls, context: Context) -> Self:
        """Attach to the resources in the context, and create what the strategy owns.

        Starts no server and no cluster. State that was lost starts again, blank.

        Raises:
            ValueError: the context lacks a resource, or names no variant of this strategy.
            Unavailable: a resource does not answer, or refuses.
        """

    @abstractmethod
    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        """Open an account with a balance of `opening` (0 or more); its receipt has `seq` 1.

        Raises:
            AccountExists: it was opened before.
            InvalidAmount: `opening` is negative or above `MAX_MONEY`.
        """

    @abstractmethod
    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        """Add `amount` (1 or more).

        Raises:
            UnknownAccount: it was never opened.
            InvalidAmount: `amount` is below 1, or the balance would pass `MAX_MONEY`.
        """

    @abstractmethod
    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        """Take `amount` (1 or more); the balance never goes below zero.

        Raises:
            UnknownAccount: it was never opened.
            InvalidAmount: `amount` is below 1 or above `MAX_MONEY`.
            InsufficientFunds: the balance is smaller than `amount`.
        """

    @abstractmethod
    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        """Move `amount` (1 or more): both legs or neither. The receipts are the source's and the target's.

        Raises:
            OutOfScope: the pair is wider than `Capabilities.transfers` claims.
            UnknownAccount, InvalidAmount, InsufficientFunds: as for the legs.
        """

    @abstractmethod
    def balance(self, account: str) -> Receipt:
        """Read the receipt of the latest change. Changes nothing, so it never raises `Indeterminate`.

        Raises:
            UnknownAccount: it was never opened.
        """

    @abstractmethod
    def snapshot(self) -> dict[str, Receipt]:
        """Read every account: the audit after a run.

        One consistent cut only where nothing changes meanwhile. Raises `StateLost` if any part is lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Release this handle; destroy no state. Idempotent. Later calls raise `Unavailable`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Batched(ABC):
    """Claimed, by inheritance, where one message carries many operations natively; never a loop in disguise."""

    @abstractmethod
    def apply(self, operations: Sequence[Operation]) -> list[Answer]:
        """Apply in order per account; answer by position, when applied and not when queued.

        Each operation has a fate of its own: a rejection changes nothing for its neighbours, and where an owner
        dies or does not answer, its operations are `Indeterminate`, `Unavailable` or `StateLost` while others have
        receipts. An op id means the same in a batch as in a call. `balance` has none; one that is given is ignored.

        Raises, before anything is applied:
            TypeError, ValueError: an argument is of the wrong type, or an op id out of range.
            ValueError: there are more than `MAX_BATCH` operations.
            Unavailable: the handle is closed.
        """


class Pipelined(ABC):
    """Claimed, by inheritance, where many operations of one caller can be in flight natively."""

    @abstractmethod
    def submit(self, operation: Operation) -> Future[Any]:
        """Accept the operation and return at once, unless the queue is full (`Context.submit_blocks`).

        One caller's operations on one account are applied in the order in which they were submitted. The future
        ends within `Context.timeout_s`: with the receipt, a transfer's two, or the error that a call would have
        raised. It cannot be cancelled, may be awaited, and runs its callbacks in another thread, which they hold
        up. `close` ends what is left: what was never sent is `Unavailable`.

        Raises:
            TypeError, ValueError: an argument is of the wrong type, or an op id out of range.
            Unavailable: the queue is full, or the handle is closed.
        """
