"""One Dask actor per account: the book's `BankAccount`, one fine-grained actor each.

The scheduler's directory says which actor owns an account; a handle remembers what it looked up.
Each account is linearizable; no transfer spans two. Opening an account makes an actor, which takes
the scheduler about as long as a task. A worker that dies takes its accounts along; all are lost
with the scheduler.
"""

from __future__ import annotations

from typing import Self

from strategies.interface import Capabilities, Consistency, Context, Retries, Transfers, UnknownAccount
from strategies.support.actor_accounts import ActorAccounts
from strategies.support.actors import CALLERS, NEEDS, SURVIVES, VARIANTS, ActorBank, ActorRef


class ActorPerAccount(ActorAccounts):
    """A handle on the bank's directory of actors."""

    capabilities = Capabilities(
        survives=SURVIVES,
        consistency=Consistency.PER_ACCOUNT,
        transfers=Transfers.NONE,
        retries=Retries.SAFE_WITH_OP_ID,
        callers=CALLERS,
        needs=NEEDS,
        variants=VARIANTS,
    )

    _bank: ActorBank

    def __init__(self, bank: ActorBank, known: dict[str, ActorRef]) -> None:
        super().__init__(bank)
        self._known = known

    def __reduce__(self) -> tuple[type[Self], tuple[ActorBank, dict[str, ActorRef]]]:
        return type(self), (self._bank, self._known)

    @classmethod
    def open(cls, context: Context) -> Self:
        bank = ActorBank.of(context, cls.name)
        bank.forget_lost()
        return cls(bank, {})

    def _owner(self, account: str, deadline: float, *, make: bool = False) -> ActorRef:
        actor = self._known.get(account)
        if actor is None:
            actor = self._bank.find(account, deadline)
            if actor is None:
                if not make:
                    raise UnknownAccount(f"no account {account!r} was opened here; call open_account first")
                actor = self._bank.create(account)
            actor = self._known.setdefault(account, actor)
        return actor

    def _owners(self, deadline: float) -> list[ActorRef]:
        found = self._bank.find_all(deadline)
        return [self._known.setdefault(account, actor) for account, actor in found.items()]
