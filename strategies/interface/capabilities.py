"""What a strategy can claim. Empty by default: a strategy claims, it never disclaims."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can be broken. A claim to survive one is checked by breaking it."""

    WORKER_KILL = "worker_kill"
    """SIGKILL of a Dask worker: the one that holds state, where one does."""
    WORKER_PAUSE = "worker_pause"
    """SIGSTOP of that worker for longer than a call's deadline, then SIGCONT."""
    WORKER_PAUSE_BRIEF = "worker_pause_brief"
    """The same for less than a call's deadline."""
    WORKER_OOM = "worker_oom"
    """That worker outgrows its memory limit, and its nanny ends it."""
    CALLING_TASK_KILL = "calling_task_kill"
    """SIGKILL of a worker that runs calling tasks and holds no state; Dask runs its tasks again elsewhere."""
    TASK_RETRY = "task_retry"
    """A calling task raises after a call, and Dask runs it again from its beginning."""
    SCHEDULER_KILL = "scheduler_kill"
    """SIGKILL of the Dask scheduler, then a blank one at the same address."""
    DRIVER_KILL = "driver_kill"
    """SIGKILL of the process that opened the bank and calls it; another one attaches to the bank."""
    SERVER_KILL = "server_kill"
    """SIGKILL of the external store, then a restart on the same data directory."""
    SERVER_PAUSE = "server_pause"
    """SIGSTOP of the external store for longer than a call's deadline, then SIGCONT."""
    REBALANCE = "rebalance"
    """`Client.rebalance` moves data between workers."""
    RETIRE_WORKERS = "retire_workers"
    """`Client.retire_workers` of a worker that holds state."""
    CLIENT_RETRY = "client_retry"
    """`Client.retry` of the futures that hold state."""
    CLIENT_RESTART = "client_restart"
    """`Client.restart` of the cluster."""
    ADAPT_DOWN = "adapt_down"
    """An adaptive cluster scales down to one worker."""
    DELAY = "delay"
    """Messages between caller and owner take longer, in both directions, yet less than a deadline."""
    DROP_REPLY = "drop_reply_after_effect"
    """A request arrives and its answer does not: the connection breaks in between."""
    HALF_OPEN = "half_open"
    """Requests arrive, answers do not, and nobody is told."""
    PARTITION = "partition"
    """Nothing passes between caller and owner for longer than a deadline, and nobody is told."""
    LINK_DOWN = "link_down"
    """The network link of the store's own namespace goes down for longer than a deadline. As root."""
    NETEM_DELAY = "netem_delay"
    """The kernel delays and loses packets to and from the store's own namespace. As root."""
    POWER_LOSS = "power_loss"
    """The store's machine loses power: what was never flushed to disk is gone at the restart."""
    DISK_FULL = "disk_full"
    """The store's file system takes no more bytes for a while."""
    POISON_ARGUMENT = "poison_argument"
    """A call with an argument that cannot be serialised."""
    POISON_RESULT = "poison_result"
    """The owner's method has its effect and returns what cannot be serialised."""
    METHOD_EXIT = "method_exit"
    """The owner's method raises SystemExit."""
    METHOD_HANG = "method_hang"
    """The owner's method does not return for longer than a deadline."""


CALLER_FAULTS = frozenset({Fault.CALLING_TASK_KILL, Fault.TASK_RETRY})
"""A task that calls dies or fails; the state lives elsewhere."""

CLUSTER_FAULTS = frozenset(
    {
        Fault.WORKER_KILL,
        Fault.WORKER_PAUSE,
        Fault.WORKER_PAUSE_BRIEF,
        Fault.WORKER_OOM,
        Fault.SCHEDULER_KILL,
        Fault.RETIRE_WORKERS,
        Fault.CLIENT_RESTART,
        Fault.ADAPT_DOWN,
    }
)
"""What happens to the Dask cluster, and to state only if it lives there."""

MESSAGE_FAULTS = frozenset({Fault.DELAY, Fault.DROP_REPLY, Fault.HALF_OPEN, Fault.PARTITION})
"""What happens to messages between callers and owners, whoever these are."""


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
    SCHEDULER = "scheduler"
    """A Dask client in the context, whose scheduler holds the state."""
    REDIS = "redis"
    """A Redis or Valkey server (6.2 or newer) whose URL is in the context."""
    DIRECTORY = "directory"
    """A directory in the context that all callers see, on a file system of their own host."""
    POSTGRES = "postgres"
    """A PostgreSQL server (14 or newer) whose URL is in the context."""
    ZOOKEEPER = "zookeeper"
    """A ZooKeeper server, or an ensemble, whose URL is in the context."""
    RAY = "ray"
    """A Ray cluster whose address is in the context, with a node of it on every caller's host."""
    PEKKO = "pekko"
    """This project's Pekko service, of one node or several, whose URL is in the context."""


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
    nodes: int = 1
    """Servers that hold the state together; the harness raises as many."""
    sharded: bool = False
    """Accounts are spread over as many owners as `Context.shards` says."""
    variants: tuple[str, ...] = ("default",)
    """Names of settings that change the result; each is a row of its own. The first is the default."""
