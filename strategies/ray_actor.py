"""All accounts in one Ray actor.

A detached, named actor owns the ledger. Its calls run one after another, so that everything is linearizable. What
Ray promises of it (https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html) is the variant:

- `plain`, Ray's default: an actor that dies stays dead.
- `restarts` (`max_restarts=-1`): Ray starts it again, "by rerunning its constructor": its state is gone. What was
  called meanwhile fails, and may have run or not.
- `retries` (`max_restarts=-1`, `max_task_retries=-1`): "at-least-once execution". Ray sends again what failed, so a
  method may run twice, and not in the order of the calls. Here it is let only where that is safe: where every change
  has an op id, by which the ledger knows it.

None of them keeps an account when the actor's process dies. A restarted actor is blank and says so: each bank has an
epoch, and a call that was meant for the lost one is `StateLost`, where Ray alone would apply it to what `__init__`
made. A new `open` starts blank.

One process hosts the ledgers of all banks of a cluster that are kept in the same way, as a server does; banks of the
other Ray strategies too. They stay until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actor_accounts import ShardedAccounts
from strategies.support.ray_bank import CALLERS, NEEDS, PLAIN, RESTARTS, RETRIES, SURVIVES, HostRef, RayBank

_VARIANTS = {"plain": PLAIN, "restarts": RESTARTS, "retries": RETRIES}


class RayActor(ShardedAccounts):
    """A handle on the one actor."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.LINEARIZABLE,
        transfers=Transfers.ANY,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        variants=tuple(_VARIANTS),
    )
    one_owner_sees_all = True

    def __init__(self, bank: RayBank, shards: Sequence[HostRef]) -> None:
        super().__init__(bank, shards, lambda account: 0)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = RayBank.of(context, cls.name, _VARIANTS)
        return cls(bank, bank.open_shards(1))
