"""Accounts hashed over a few coarse Dask actors: the book's `HashActorPool`, done right.

A consistent-hash ring over a stable digest decides which shard owns an account, the same in every
process; shards live on different workers as far as there are enough. Each account is linearizable,
accounts of one shard together too; a transfer spans one shard at most. A worker that dies takes
its shards' accounts along; the others stay. All are lost with the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actors import CALLERS, NEEDS, SURVIVES, VARIANTS, ActorAccounts, ActorBank, ActorRef
from strategies.support.sharding import HashRing

SHARDS = 4


class ActorPool(ActorAccounts):
    """A handle on the pool's shards."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.SAME_SHARD,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        sharded=True,
        variants=VARIANTS,
    )

    def __init__(self, bank: ActorBank, shards: Sequence[ActorRef]) -> None:
        super().__init__(bank)
        self._shards = shards
        self._ring = HashRing(len(shards))

    def __reduce__(self) -> tuple[type[Self], tuple[ActorBank, Sequence[ActorRef]]]:
        return type(self), (self._bank, self._shards)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = ActorBank.of(context, cls.name)
        return cls(bank, bank.open_shards(context.shards or SHARDS))

    def _owner(self, account: str, deadline: float, *, make: bool = False) -> ActorRef:
        return self._shards[self._ring.shard_of(account)]

    def _owners(self, deadline: float) -> Sequence[ActorRef]:
        return self._shards
