"""Accounts hashed over a few coarse Dask actors: the book's `HashActorPool`, done right.

A consistent-hash ring over a stable digest decides which shard owns an account, the same in every
process; shards live on different workers as far as there are enough. Each account is linearizable,
accounts of one shard together too. A transfer between shards takes three messages instead of one
(docs/adr/0007): it is whole in the end whatever becomes of its caller, but for a moment the amount is
in neither account. A worker that dies takes its shards' accounts along, with amounts that were on their
way to them; the others stay. All are lost with the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.actors import CALLERS, NEEDS, SURVIVES, VARIANTS, ActorBank, ActorRef
from strategies.support.sharding import HashRing

SHARDS = 4


class ActorPool(ShardedAccounts):
    """A handle on the pool's shards."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        sharded=True,
        variants=VARIANTS,
    )

    def __init__(self, bank: ActorBank, shards: Sequence[ActorRef]) -> None:
        super().__init__(bank, shards, HashRing(len(shards)).shard_of)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = ActorBank.of(context, cls.name)
        return cls(bank, bank.open_shards(context.shards or SHARDS))
