"""What can be wrong with a history, and the rows that prove it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a strategy did that it must not do."""

    ACKNOWLEDGED_LOST = "acknowledged_lost"
    """A change that was answered with a receipt, or that a read showed, is not in the final state."""
    DUPLICATED = "duplicated"
    """An operation had its effect more than once."""
    PHANTOM = "phantom"
    """An account changed, and nobody asked for it."""
    REJECTED_APPLIED = "rejected_applied"
    """An operation that was rejected, or that surely had no effect by its answer, had one."""
    LOST_UPDATE = "lost_update"
    """Two changes were made from one state of an account: one overwrote the other."""
    SEQ_GAP = "seq_gap"
    """Numbers are missing between an account's changes, and nothing sent can have had them."""
    SEQ_REUSED = "seq_reused"
    """One number was given to two changes of an account."""
    WRONG_BALANCE = "wrong_balance"
    """A balance that the changes before it do not add up to."""
    STALE_READ = "stale_read"
    """A read showed a state that, before it began, was known to be past."""
    REORDERED = "reordered"
    """A change was put before one that had been complete before it began."""
    OVERDRAFT = "overdraft"
    """A balance is below zero, or a withdrawal was granted that the balance could not pay."""
    TORN_TRANSFER = "torn_transfer"
    """One leg of a transfer took effect without the other."""
    TRANSFERS_OUT_OF_ORDER = "transfers_out_of_order"
    """No one order of operations fits all accounts: transfers are not one instant at both ends."""
    CHANGED_ANSWER = "changed_answer"
    """An operation sent again with its op id got another receipt than at first, or another rejection."""
    REJECTION_REVERSED = "rejection_reversed"
    """One op id was rejected and granted."""
    FOREIGN_REPLY = "foreign_reply"
    """An operation was answered with the receipt of another."""
    ZOMBIE_OWNER = "zombie_owner"
    """An owner answered or changed an account after a later one had taken it over."""
    NOT_CONSERVED = "not_conserved"
    """A final balance is not what the changes in it add up to."""
    WRONG_REJECTION = "wrong_rejection"
    """An operation was rejected for a reason that did not hold at any time while it ran."""
    NOT_LINEARIZABLE = "not_linearizable"
    """No order of an account's operations explains their answers: found by a search, where receipts are missing."""


@dataclass(frozen=True)
class Violation:
    """One thing that went wrong, once."""

    kind: Kind
    account: str
    words: str
    """One or two sentences, with the figures that prove it."""
    rows: tuple[int, ...]
    """Of the history: as few as prove it together with the final state, in the order of their events."""
