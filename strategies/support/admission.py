"""Which operations of a batch no backend is to see: their accounts cannot be any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strategies.interface.account import Answer, Operation
from strategies.interface.errors import InvalidAccount
from strategies.support.validation import check_account
from strategies.support.wire import TRANSFER, Batch

_KNOWN_ACCOUNTS = 65_536
"""Names that a handle need not check again."""


class Admission:
    """Remembers names that were good: to check them again takes longer than all else that a batch does with them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def apply(self, operations: Sequence[Operation], apply: Callable[[Batch], list[Answer]]) -> list[Answer]:
        """What `apply` answers to those that may pass, in their places; the others are refused."""
        batch = Batch.of(operations)
        refused = self._refused(batch)
        if not refused:
            return apply(batch)
        places = [place for place in range(len(operations)) if place not in refused]
        answers = iter(apply(batch.pick(places)) if places else [])
        return [refused.get(place) or next(answers) for place in range(len(operations))]

    def _refused(self, batch: Batch) -> dict[int, Answer]:
        try:
            if self._known.issuperset(batch.accounts) and self._known.issuperset(batch.targets):
                return {}
        except TypeError:  # what cannot be hashed is no text either: below it is named
            pass
        refused: dict[int, Answer] = {}
        targets = iter(batch.targets)
        for place, (code, account) in enumerate(zip(batch.functions, batch.accounts, strict=True)):
            try:
                for name in (account, next(targets)) if code == TRANSFER else (account,):
                    check_account(name)
            except InvalidAccount as error:
                refused[place] = error.with_traceback(None)
        if not refused:
            if len(self._known) > _KNOWN_ACCOUNTS:
                self._known.clear()
            self._known.update(batch.accounts, batch.targets)
        return refused
