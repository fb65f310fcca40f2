"""What a strategy can claim. Empty by default: a strategy claims, it never disclaims."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can be broken. A claim to survive one is checked by breaking it."""

    WORKER_KILL = "worker_kill"
    """SIGKILL of a Dask worker: the one that holds state, where one does."""
    SERVER_KILL = "server_kill"
    """SIGKILL of the external store, then a restart on the same data directory."""


class Durability(StrEnum):
    """What acknowledged changes outlive. Results are compared only within one class."""

    VOLATILE = "volatile"
    """Nothing: they live in the memory of one process."""
    PROCESS_CRASH = "process_crash"
    """The owner's process; not the machine's power."""
    POWER_LOSS = "power_loss"
    """The machine's power: on stable storage before they are acknowledged."""
    REPLICATED = "replicated"
    """The machine: on several before they are acknowledged."""


class Consistency(StrEnum):
    """Which order concurrent callers can rely on."""

    NONE = "none"
    PER_ACCOUNT = "per_account"
    """Each account is linearizable; several together are not."""
    LINEARIZABLE = "linearizable"
    """All operations on all accounts fit one order that respects real time."""


class Transfers(StrEnum):
    """Which pairs of accounts one atomic transfer can span."""

    NONE = "none"
    SAME_SHARD = "same_shard"
    ANY = "any"


class Retries(StrEnum):
    """What sending an operation again can do."""

    UNSAFE = "unsafe"
    SAFE_WITH_OP_ID = "safe_with_op_id"
    """An operation sent again with its op id has its effect once and gets its first answer."""


class Caller(StrEnum):
    """Where calls may come from."""

    DRIVER = "driver"
    """The process that holds the Dask client."""
    TASK = "task"
    """Inside a task on a Dask worker, through a pickled handle."""


class Resource(StrEnum):
    """What must be there before the strategy can be opened."""

    DASK = "dask"
    """A Dask client in the context."""
    REDIS = "redis"
    """A Redis or Valkey server (6.2 or newer) whose URL is in the context."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The claims of one strategy, or of one variant of it."""

    survives: frozenset[Fault] = frozenset()
    """Faults after which nothing acknowledged is lost or doubled, and service resumes unaided."""
    durability: Durability = Durability.VOLATILE
    consistency: Consistency = Consistency.NONE
    transfers: Transfers = Transfers.NONE
    retries: Retries = Retries.UNSAFE
    callers: frozenset[Caller] = frozenset()
    needs: frozenset[Resource] = frozenset()
    sharded: bool = False
    """Accounts are spread over as many owners as `Context.shards` says."""
    variants: tuple[str, ...] = ("default",)
    """Names of settings that change the result; each is a row of its own. The first is the default."""
