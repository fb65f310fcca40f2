"""All accounts in one Dask actor: the book's `SketchyBank`, done right.

One actor on one worker owns the ledger of every account. Its calls never interleave, so all
operations are linearizable and any two accounts can be part of one transfer. Every account is
lost with that worker, and with the scheduler, which alone knows where the actor is.
"""

from __future__ import annotations

from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers
from strategies.support.actors import CALLERS, NEEDS, SURVIVES, VARIANTS, ActorAccounts, ActorBank, ActorRef


class ActorSingle(ActorAccounts):
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

    def __init__(self, bank: ActorBank, actor: ActorRef) -> None:
        super().__init__(bank)
        self._actor = actor

    def __reduce__(self) -> tuple[type[Self], tuple[ActorBank, ActorRef]]:
        return type(self), (self._bank, self._actor)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = ActorBank.of(context, cls.name)
        return cls(bank, bank.open_shards(1)[0])

    def _owner(self, account: str, deadline: float, *, make: bool = False) -> ActorRef:
        return self._actor

    def _owners(self, deadline: float) -> list[ActorRef]:
        return [self._actor]
