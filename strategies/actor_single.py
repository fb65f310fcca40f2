"""All accounts in one Dask actor: the book's `SketchyBank`, done right.

One actor on one worker owns the ledger of every account. Its calls never interleave, so all
operations are linearizable and any two accounts can be part of one transfer. Every account is
lost with that worker, and with the scheduler, which alone knows where the actor is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.actors import CALLERS, NEEDS, SURVIVES, VARIANTS, ActorBank, ActorRef


class ActorSingle(ShardedAccounts):
    """A handle on the one actor."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        variants=VARIANTS,
    )
    one_owner_sees_all = True

    def __init__(self, bank: ActorBank, shards: Sequence[ActorRef]) -> None:
        super().__init__(bank, shards, lambda account: 0)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = ActorBank.of(context, cls.name)
        return cls(bank, bank.open_shards(1))
