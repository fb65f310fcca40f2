"""A ledger that is asked in the wire form, for owners that live in other processes."""

from __future__ import annotations

from strategies.support.fates import InDoubt
from strategies.support.two_phase import TwoPhaseLedger
from strategies.support.wire import decode, encode_answers, encode_snapshot

SNAPSHOT = b""
"""Instead of a batch: asks for every account."""


class WireLedger(TwoPhaseLedger):
    """Bytes in, bytes out."""

    def answer(self, payload: bytes) -> bytes:
        """Apply an encoded batch."""
        return encode_answers(self.apply_steps(decode(payload)), self._epoch)

    def doubts(self) -> list[tuple[str, str]]:
        """Of all accounts, what `in_doubt` says of each."""
        return [each for of_account in self.in_doubt().values() for each in of_account]

    def packed_snapshot(self, doubts: list[tuple[str, str]]) -> bytes:
        """Every account, encoded; or these doubts, if there are any."""
        if doubts:
            return encode_snapshot({}, self._epoch, str(InDoubt.of(doubts)))
        return encode_snapshot(self._cut(), self._epoch)
