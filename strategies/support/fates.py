"""What became of a message or of an account that it was for: what transports and shards say to handles here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Self

from strategies.interface.errors import AccountError


class NotSent(Exception):
    """Nothing reached the other side: no effect."""


class NotAnswered(Exception):
    """It was sent, or partly, and no answer came back: the effect is unknown."""


class InDoubt(AccountError):
    """An account has credits that nobody has posted or voided in time; nothing was done. Handles settle them.

    Its text is what travels: attempts and their sources, as JSON.
    """

    @classmethod
    def of(cls, pending: Iterable[tuple[str, str]]) -> Self:
        """Of these attempts, with their sources."""
        return cls(json.dumps(list(pending)))

    @property
    def pending(self) -> list[tuple[str, str]]:
        """Attempts, with their sources."""
        return [(attempt, source) for attempt, source in json.loads(str(self))]
