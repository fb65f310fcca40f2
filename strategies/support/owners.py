"""What accounts that are spread over owners need of a bank of them: Dask actors, or whatever else answers batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

from strategies.interface.account import Answer, Receipt
from strategies.support.coalescing import Coalescer, Send
from strategies.support.wire import Batch

Owner = Hashable
"""One owner, as a handle knows it. A bank of owners takes its own kind only."""


class Owners(Protocol):
    """The owners of one bank, from one process. Pickled, it finds its way from where it arrives."""

    def check_open(self) -> None:
        """Raise `Unavailable` once the handle is closed."""

    def deadline(self) -> float:
        """Of a call that begins now; a reading of `time.monotonic()`."""

    def queue(self, send: Send) -> Coalescer:
        """A queue of operations that `send` sends, within the limits of the context."""

    def apply(self, requests: Iterable[tuple[Any, Batch]], deadline: float, what: str) -> list[list[Answer]]:
        """Have each batch applied by its owner, all at the same time; the answers of each, whatever became of it.

        Each is sent as soon as `requests` yields it, so its owner works while the next one is made.
        `what` names the operations in errors.
        """

    def snapshots(self, owners: Sequence[Any], deadline: float) -> dict[str, Receipt]:
        """Every account of these owners.

        Raises:
            StateLost, Unavailable: an owner's.
            InDoubt: an owner's accounts have credits in doubt.
        """

    def close(self) -> None:
        """Idempotent."""
