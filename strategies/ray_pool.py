"""Accounts hashed over a few Ray actors.

The ring of `actor_pool` over actors like that of `ray_actor`, whose docstring says what Ray's settings mean, what is
lost when, and that one process hosts many banks. Each account is linearizable, accounts of one shard together too; a
transfer between shards takes two phases (docs/adr/0007). An actor that dies takes its shards' accounts along, with
amounts that were on their way to them; the others stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.ray_bank import CALLERS, NEEDS, PLAIN, RETRIES, SURVIVES, HostRef, RayBank
from strategies.support.sharding import HashRing

SHARDS = 4

_VARIANTS = {"plain": PLAIN, "retries": RETRIES}


class RayPool(ShardedAccounts):
    """A handle on the pool's shards."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        sharded=True,
        variants=tuple(_VARIANTS),
    )

    def __init__(self, bank: RayBank, shards: Sequence[HostRef]) -> None:
        super().__init__(bank, shards, HashRing(len(shards)).shard_of)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = RayBank.of(context, cls.name, _VARIANTS)
        return cls(bank, bank.open_shards(context.shards or SHARDS))
