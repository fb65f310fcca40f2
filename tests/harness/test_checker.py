"""The checker finds what is planted in a history, and accuses nobody of what did not happen."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    LOST,
    OK,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
)
from benchmarks.harness.violations import Kind
from strategies.interface import Receipt
from tests.harness.histories import EPOCH, OPENING, Op, deposit, judged, names, read, transfer, unanswered, withdraw

GOOD = [
    deposit(5, 2, 105, at=(0, 10)),
    read(2, 105, at=(12, 14)),
    withdraw(20, 3, 85, at=(15, 20)),
    read(3, 85, at=(22, 30)),
]
"""One account: 100, then 105, then 85."""


# -- histories without a bug -----------------------------------------------------------------------


def test_a_correct_history_is_cleared() -> None:
    assert judged(GOOD, (3, 85)) == Verdict(
        acknowledged=2,
        acknowledged_lost=0,
        torn=0,
        duplicated=0,
        indeterminate=0,
        indeterminate_applied=0,
        conserved=True,
        linearizable="yes",
    )


def test_overlapping_operations_may_take_effect_in_any_order() -> None:
    ops = [deposit(5, 3, 112, at=(0, 10)), deposit(7, 2, 107, at=(5, 20)), read(2, 107, at=(1, 30))]
    assert judged(ops, (3, 112)).linearizable == "yes"


def test_a_history_without_an_answer_says_nothing_about_order() -> None:
    verdict = judged([unanswered(UNAVAILABLE, 5, at=(0, 1))], (1, OPENING))
    assert (verdict.acknowledged, verdict.linearizable, verdict.conserved) == (0, "unknown", True)


def test_accounts_are_judged_apart() -> None:
    """One account's answers say nothing about another's, whatever their seqs and times are."""
    ops = [
        deposit(5, 2, 105, at=(0, 10), account=0),
        deposit(9, 2, 109, at=(90, 99), account=1),
        deposit(5, 3, 110, at=(11, 12), account=0),
        read(1, 100, at=(0, 1), account=1),
    ]
    verdict = judged(ops, (3, 110), (2, 109))
    assert (verdict.acknowledged_lost, verdict.conserved, verdict.linearizable) == (0, True, "yes")


# -- planted bugs: the money -----------------------------------------------------------------------


def test_lost_update() -> None:
    """Two deposits read the same balance; the second overwrote the first."""
    verdict = judged([deposit(5, 2, 105, at=(0, 10)), deposit(7, 2, 107, at=(5, 15))], (2, 107))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (2, 1, 0)
    assert verdict.conserved is False
    assert verdict.linearizable == "no"


def test_lost_updates_are_counted_each() -> None:
    same = [deposit(1, 2, 101, at=(index, index + 10)) for index in range(4)]
    assert judged(same, (2, 101)).acknowledged_lost == 3


def test_acknowledged_changes_of_a_lost_account_are_lost() -> None:
    ops = [deposit(5, 2, 105, at=(0, 10)), deposit(5, 3, 110, at=(11, 12)), deposit(5, 2, 105, at=(0, 9), account=1)]
    verdict = judged(ops, None, (2, 105))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.conserved) == (3, 2, False)


def test_acknowledged_changes_behind_the_final_state_are_lost() -> None:
    """The store came back from an older state: what had been acknowledged since is gone."""
    ops = [deposit(1, seq, OPENING + seq - 1, at=(10 * seq, 10 * seq + 5)) for seq in range(2, 7)]
    verdict = judged(ops, (4, 103))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (2, 0, False)


def test_double_apply() -> None:
    """One deposit had its effect twice."""
    verdict = judged([deposit(5, 2, 105, at=(0, 10)), deposit(5, 4, 115, at=(11, 20))], (4, 115))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 1, False)
    assert verdict.linearizable == "no"  # nothing explains the change with seq 3


def test_double_apply_of_the_last_change() -> None:
    """Nobody's receipt shows it: only the final state does."""
    verdict = judged([deposit(5, 2, 105, at=(0, 10))], (3, 110))
    assert (verdict.duplicated, verdict.conserved) == (1, False)


@pytest.mark.parametrize("fate", [REJECTED, UNAVAILABLE])
def test_applied_although_refused(fate: int) -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10)), unanswered(fate, 9, at=(11, 20))], (3, 114))
    assert (verdict.duplicated, verdict.indeterminate, verdict.conserved) == (1, 0, False)


@pytest.mark.parametrize("final", [(2, 104), (2, 106), (2, 100)])
def test_a_final_balance_that_the_changes_do_not_add_up_to(final: tuple[int, int]) -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10))], final)
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 0, False)


def test_money_that_moved_between_accounts_is_not_conserved() -> None:
    """The sum over all accounts is right, and each account is wrong."""
    ops = [deposit(5, 2, 105, at=(0, 10), account=0), deposit(5, 2, 105, at=(0, 10), account=1)]
    assert judged(ops, (2, 106), (2, 104)).conserved is False


def test_a_store_that_counts_seqs_from_another_number_explains_nothing_away() -> None:
    verdict = judged([deposit(5, 1, 105, at=(0, 10))], (1, 105))
    assert (verdict.duplicated, verdict.indeterminate_applied, verdict.linearizable) == (0, 0, "no")


# -- fates that the caller was not told ------------------------------------------------------------


@pytest.mark.parametrize(("final", "applied"), [((2, 105), 0), ((3, 112), 1)])
def test_an_unknown_fate_may_be_either(final: tuple[int, int], applied: int) -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10)), unanswered(UNKNOWN, 7, at=(11, 20))], final)
    assert (verdict.indeterminate, verdict.indeterminate_applied) == (1, applied)
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 0, True)
    assert verdict.linearizable == "yes"


def test_an_unknown_fate_explains_one_change_and_not_two() -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10)), unanswered(UNKNOWN, 5, at=(11, 20))], (4, 115))
    assert (verdict.indeterminate_applied, verdict.duplicated, verdict.conserved) == (1, 1, False)


def test_an_unknown_fate_explains_its_own_account_only() -> None:
    ops = [unanswered(UNKNOWN, 5, at=(0, 10), account=0), deposit(5, 2, 105, at=(0, 10), account=1)]
    verdict = judged(ops, (1, 100), (3, 110))
    assert (verdict.indeterminate_applied, verdict.duplicated, verdict.conserved) == (0, 1, False)


def test_unknown_fates_of_different_amounts_leave_conservation_open() -> None:
    ops = [unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNKNOWN, 7, at=(0, 10))]
    assert judged(ops, (2, 107)).conserved is None


def test_unknown_fates_of_one_amount_do_not() -> None:
    ops = [unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNKNOWN, 5, at=(0, 10))]
    assert judged(ops, (3, 110)).conserved is True
    assert judged(ops, (3, 111)).conserved is False


def test_an_unknown_withdrawal_counts_the_other_way() -> None:
    ops = [unanswered(UNKNOWN, 30, at=(0, 10), function=WITHDRAW)]
    assert judged(ops, (2, 70)).conserved is True
    assert judged(ops, (2, 130)).conserved is False


# -- planted bugs: the order -----------------------------------------------------------------------


def test_a_receipt_with_a_wrong_balance() -> None:
    ops = [GOOD[0], replace(GOOD[2], balance=86)]
    assert judged(ops, (3, 85)).linearizable == "no"


@pytest.mark.parametrize("wrong", [deposit(5, 2, 106, at=(0, 10)), read(1, 99, at=(0, 10)), read(0, 100, at=(0, 10))])
def test_a_first_receipt_that_does_not_follow_from_the_opening(wrong: Op) -> None:
    final = (2, 105) if wrong.function == DEPOSIT else (1, 100)
    assert judged([wrong], final).linearizable == "no"


def test_a_read_with_a_wrong_balance() -> None:
    assert judged([GOOD[0], read(2, 104, at=(12, 14))], (2, 105)).linearizable == "no"


def test_a_stale_read() -> None:
    """It began after the second change was acknowledged, and shows the state before it."""
    ops = [GOOD[0], withdraw(20, 3, 85, at=(15, 20)), read(2, 105, at=(21, 30))]
    assert judged(ops, (3, 85)).linearizable == "no"
    ops[-1] = read(2, 105, at=(19, 30))  # begun before: it may
    assert judged(ops, (3, 85)).linearizable == "yes"


def test_reads_that_go_back_in_time() -> None:
    """Both overlap the change, but the second began when the first had already seen it."""
    ops = [deposit(5, 2, 105, at=(0, 100)), read(2, 105, at=(10, 20)), read(1, 100, at=(30, 40))]
    assert judged(ops, (2, 105)).linearizable == "no"
    ops[-1] = read(1, 100, at=(15, 40))
    assert judged(ops, (2, 105)).linearizable == "yes"


def test_changes_out_of_real_time_order() -> None:
    ops = [deposit(5, 3, 112, at=(0, 10)), deposit(7, 2, 107, at=(11, 20))]
    verdict = judged(ops, (3, 112))
    assert (verdict.conserved, verdict.linearizable) == (True, "no")


def test_a_violation_in_a_later_account_is_found() -> None:
    """Also where an earlier account's operations come later in time."""
    ops = [
        deposit(5, 2, 105, at=(1000, 2000), account=0),
        deposit(5, 3, 112, at=(0, 10), account=1),
        deposit(7, 2, 107, at=(11, 20), account=1),
    ]
    assert judged(ops, (2, 105), (3, 112)).linearizable == "no"


@pytest.mark.parametrize("after", [deposit(5, 4, 115, at=(30, 40)), read(3, 110, at=(30, 40))])
def test_a_gap_in_seq_needs_an_operation_of_unknown_fate(after: Op) -> None:
    final = (max(after.seq, 3), 115 if after.seq == 4 else 110)
    unknown = unanswered(UNKNOWN, 5, at=(11, 20))
    assert judged([GOOD[0], after], final).linearizable == "no"
    assert judged([GOOD[0], unknown, after], final).linearizable == "yes"
    assert judged([GOOD[0], replace(unknown, account=1), after], final, (1, 100)).linearizable == "no"


def test_a_gap_before_the_first_answer_needs_one_too() -> None:
    assert judged([deposit(5, 3, 110, at=(0, 10))], (3, 110)).linearizable == "no"


# -- the owner is replaced -------------------------------------------------------------------------


def test_an_owner_that_recovered_everything_lost_nothing() -> None:
    """A replacement with the journal of its predecessor: seqs go on, under a higher epoch."""
    ops = [
        deposit(5, 2, 105, at=(0, 10), epoch=7),
        deposit(5, 3, 110, at=(11, 20), epoch=7),
        deposit(5, 4, 115, at=(31, 40), epoch=8),
        read(4, 115, at=(41, 50), epoch=8),
    ]
    verdict = judged(ops, (4, 115, 8))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 0, True)
    assert verdict.linearizable == "yes"


def test_an_owner_that_recovered_and_was_not_called_again_lost_nothing() -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10), epoch=7)], (2, 105, 8))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 0, True)


def test_an_owner_that_came_back_blank_lost_everything_before() -> None:
    """The account was opened again, and its seqs started again: only the new ones are in the final state."""
    ops = [deposit(5, seq, 90 + 5 * seq + 5, at=(10 * seq, 10 * seq + 5), epoch=7) for seq in range(2, 6)]
    ops += [deposit(5, seq, 90 + 5 * seq + 5, at=(10 * seq + 100, 10 * seq + 105), epoch=8) for seq in range(2, 4)]
    verdict = judged(ops, (3, 110, 8))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (6, 4, 0)
    assert verdict.conserved is False
    assert verdict.linearizable == "no"  # answers went back from seq 5 to seq 2


def test_an_owner_that_came_back_from_an_older_state_lost_what_came_after() -> None:
    ops = [
        deposit(5, 2, 105, at=(0, 10), epoch=7),
        deposit(5, 3, 110, at=(11, 20), epoch=7),
        deposit(9, 3, 114, at=(31, 40), epoch=8),
    ]
    verdict = judged(ops, (3, 114, 8))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (1, 0, False)
    assert verdict.linearizable == "no"


def test_an_owner_that_came_back_blank_and_was_not_called_again_lost_everything() -> None:
    verdict = judged([deposit(5, 2, 105, at=(0, 10), epoch=7), deposit(5, 3, 110, at=(11, 20), epoch=7)], (1, 100, 8))
    assert (verdict.acknowledged_lost, verdict.conserved) == (2, False)


def test_a_store_that_went_back_and_gave_out_the_same_receipts_again() -> None:
    """Nothing tells the balances apart: who was answered before it went back is who was lost."""
    ops = [
        replace(deposit(1, seq, 99 + seq, at), number=number, attempt=attempt, keyed=True)
        for number, attempt, seq, at in (
            (0, 0, 2, (0, 1)),
            (1, 0, 3, (2, 3)),
            # The store went back.
            (2, 0, 2, (10, 11)),
            (3, 0, 3, (12, 13)),
            (0, 1, 4, (14, 15)),
        )
    ]
    verdict = judged(ops, (4, 103), opening=100)
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (4, 1, 0)
    found = {each.kind for each in verdict.violations}
    assert Kind.ACKNOWLEDGED_LOST in found
    assert not found & {Kind.DUPLICATED, Kind.CHANGED_ANSWER}


def test_what_a_later_owner_did_aside_of_the_final_state_takes_nothing_from_an_earlier_one() -> None:
    """Two owners at once: the audit reads the earlier one, which never lost its own changes."""
    ops = [
        deposit(5, 2, 105, at=(0, 10), epoch=7),
        deposit(5, 3, 110, at=(11, 20), epoch=7),
        deposit(9, 2, 109, at=(31, 40), epoch=8),
    ]
    verdict = judged(ops, (3, 110, 7))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (1, 0, False)


# -- transfers -------------------------------------------------------------------------------------

MOVED = transfer(10, (2, 90), (2, 110), at=(0, 10))
"""From account 0 to account 1."""


def test_a_transfer_is_one_operation_and_two_changes() -> None:
    ops = [MOVED, read(2, 90, at=(11, 12)), deposit(5, 3, 115, at=(11, 20), account=1)]
    assert judged(ops, (2, 90), (3, 115)) == Verdict(
        acknowledged=2,
        acknowledged_lost=0,
        torn=0,
        duplicated=0,
        indeterminate=0,
        indeterminate_applied=0,
        conserved=True,
        linearizable="yes",
    )


@pytest.mark.parametrize("final", [((2, 90), (1, 100)), ((1, 100), (2, 110)), ((2, 90), None), (None, (2, 110))])
def test_a_transfer_that_lost_a_leg_is_torn(final: Any) -> None:
    verdict = judged([MOVED], *final)
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.torn) == (1, 1, 1)
    assert (verdict.duplicated, verdict.conserved) == (0, False)


def test_a_transfer_that_lost_both_legs_is_lost_once_and_not_torn() -> None:
    verdict = judged([MOVED], (1, 100), (1, 100))
    assert (verdict.acknowledged_lost, verdict.torn, verdict.conserved) == (1, 0, False)


def test_a_transfer_whose_target_went_back_to_an_older_state_is_torn() -> None:
    ops = [
        transfer(10, (2, 90, 9), (2, 110, 3), at=(0, 10)),
        transfer(10, (3, 80, 9), (3, 120, 3), at=(11, 20)),
        deposit(10, 3, 120, at=(30, 40), account=1, epoch=8),
    ]
    verdict = judged(ops, (3, 80, 9), (3, 120, 8))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.torn) == (3, 1, 1)


def test_a_leg_applied_twice_is_a_duplicate() -> None:
    verdict = judged([MOVED], (2, 90), (3, 120))
    assert (verdict.acknowledged_lost, verdict.torn, verdict.duplicated, verdict.conserved) == (0, 0, 1, False)


def test_a_transfer_applied_twice_is_two_duplicates() -> None:
    """The money adds up over all accounts, and in none."""
    verdict = judged([MOVED], (3, 80), (3, 120))
    assert (verdict.acknowledged_lost, verdict.torn, verdict.duplicated, verdict.conserved) == (0, 0, 2, False)


@pytest.mark.parametrize("fate", [REJECTED, UNAVAILABLE, LOST])
def test_a_refused_transfer_has_no_effect(fate: int) -> None:
    ops = [MOVED, unanswered(fate, 30, at=(11, 20), target=1)]
    verdict = judged(ops, (2, 90), (2, 110))
    assert (verdict.acknowledged, verdict.indeterminate, verdict.conserved, verdict.linearizable) == (1, 0, True, "yes")
    assert judged(ops, (3, 60), (3, 140)).duplicated == 2
    assert judged(ops, (3, 60), (2, 110)).duplicated == 1


def test_an_overwritten_leg_is_told_by_the_balances() -> None:
    """A deposit read the target's balance before the transfer wrote it, or the other way round."""
    rival = deposit(5, 2, 105, at=(0, 10), account=1)
    verdict = judged([MOVED, rival], (2, 90), (2, 105))
    assert (verdict.acknowledged_lost, verdict.torn) == (1, 1)
    verdict = judged([MOVED, rival], (2, 90), (2, 110))
    assert (verdict.acknowledged_lost, verdict.torn) == (1, 0)
    later = deposit(1, 3, 106, at=(11, 20), account=1)
    verdict = judged([MOVED, rival, later], (2, 90), (3, 106))
    assert (verdict.acknowledged_lost, verdict.torn) == (1, 1)


def test_an_overwritten_leg_that_nothing_tells_is_not_called_torn() -> None:
    rival = deposit(10, 2, 110, at=(-5, 5), account=1)
    verdict = judged([rival, MOVED], (2, 90), (2, 110))
    assert (verdict.acknowledged_lost, verdict.torn, verdict.conserved) == (1, 0, False)


def test_a_transfer_that_was_overwritten_at_one_end_and_overwrote_at_the_other_is_torn() -> None:
    rivals = [deposit(5, 2, 105, at=(0, 10), account=0), deposit(5, 2, 105, at=(0, 10), account=1)]
    verdict = judged([MOVED, *rivals], (2, 90), (2, 105))
    assert (verdict.acknowledged_lost, verdict.torn) == (2, 1)


def test_transfers_that_overwrote_each_other_in_a_ring_may_all_be_whole_or_lost() -> None:
    ring = [
        transfer(10, (2, 90), (2, 110), at=(each, 10), between=pair)
        for each, pair in enumerate([(0, 1), (1, 2), (2, 3), (3, 0)])
    ]
    verdict = judged(ring, *[(2, OPENING)] * 4)
    assert (verdict.torn, verdict.conserved) == (0, False)
    assert verdict.acknowledged_lost >= 2


def test_of_two_transfers_under_the_same_seqs_one_is_lost_whole() -> None:
    verdict = judged([MOVED, replace(MOVED, at=(1, 11))], (2, 90), (2, 110))
    assert (verdict.acknowledged_lost, verdict.torn) == (1, 0)


def test_of_two_transfers_that_meet_at_one_end_one_is_torn() -> None:
    other = transfer(10, (2, 90), (2, 110), at=(1, 11), between=(2, 1))
    verdict = judged([MOVED, other], (2, 90), (2, 110), (2, 90))
    assert (verdict.acknowledged_lost, verdict.torn) == (1, 1)


# -- transfers from an account to itself -----------------------------------------------------------

TO_ITSELF = transfer(10, (2, 90), (3, 100), at=(0, 10), between=(0, 0))


def test_a_transfer_to_the_same_account_is_a_withdrawal_and_a_deposit() -> None:
    verdict = judged([TO_ITSELF, deposit(5, 4, 105, at=(11, 20))], (4, 105))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.torn, verdict.duplicated) == (2, 0, 0, 0)
    assert (verdict.conserved, verdict.linearizable) == (True, "yes")


def test_a_transfer_to_the_same_account_can_be_torn() -> None:
    verdict = judged([TO_ITSELF], (2, 90))
    assert (verdict.acknowledged_lost, verdict.torn, verdict.conserved) == (1, 1, False)


@pytest.mark.parametrize(
    "ops",
    [
        [read(2, 90, at=(0, 10)), TO_ITSELF],
        [transfer(10, (2, 90), (4, 105), at=(0, 10), between=(0, 0)), deposit(5, 3, 95, at=(0, 10))],
        [transfer(10, (3, 100), (2, 110), at=(0, 10), between=(0, 0))],
    ],
    ids=["seen between", "changed between", "deposited first"],
)
def test_nothing_comes_between_the_legs_of_a_transfer_to_the_same_account(ops: list[Op]) -> None:
    last = max(max(op.seq, op.target_seq) for op in ops)
    verdict = judged(ops, (last, 100 if last == 3 else 105))
    assert (verdict.conserved, verdict.linearizable) == (True, "no")


@pytest.mark.parametrize(
    ("final", "applied", "conserved"), [((1, 100), 0, True), ((3, 100), 1, True), ((2, 90), 1, False)]
)
def test_an_unknown_transfer_to_the_same_account(final: tuple[int, int], applied: int, conserved: bool) -> None:
    verdict = judged([unanswered(UNKNOWN, 10, at=(0, 10), account=0, target=0)], final)
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.duplicated) == (1, applied, 0)
    assert verdict.conserved is conserved


# -- transfers of unknown fate ---------------------------------------------------------------------

LEFT_OPEN = unanswered(UNKNOWN, 10, at=(0, 10), account=0, target=1)


@pytest.mark.parametrize(
    ("final", "applied", "torn", "conserved"),
    [
        (((1, 100), (1, 100)), 0, 0, True),
        (((2, 90), (2, 110)), 1, 0, True),
        (((2, 90), (1, 100)), 1, 1, False),
        (((1, 100), (2, 110)), 1, 1, False),
        (((2, 90), (2, 109)), 1, 0, False),
        (((2, 110), (2, 90)), 1, 0, False),
    ],
    ids=["not applied", "applied", "source only", "target only", "wrong amount", "backwards"],
)
def test_an_unknown_transfer_is_one_operation(final: Any, applied: int, torn: int, conserved: bool) -> None:
    verdict = judged([LEFT_OPEN], *final)
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (0, 0, 0)
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.torn) == (1, applied, torn)
    assert verdict.conserved is conserved


def test_one_of_two_unknown_transfers() -> None:
    """Which one it was is not told where they left from, but where they went."""
    ops = [LEFT_OPEN, unanswered(UNKNOWN, 20, at=(0, 10), account=0, target=2)]
    verdict = judged(ops, (2, 80), (1, 100), (2, 120))
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.torn) == (2, 1, 0)


def test_an_unknown_transfer_whose_leg_another_account_cannot_hold_is_torn() -> None:
    """Two arrived from elsewhere, and their target holds one."""
    ops = [
        unanswered(UNKNOWN, 10, at=(0, 10), account=1, target=0),
        unanswered(UNKNOWN, 10, at=(0, 10), account=2, target=0),
        unanswered(UNKNOWN, 10, at=(0, 10), account=0),
    ]
    verdict = judged(ops, (2, 110), (2, 90), (2, 90))
    assert (verdict.indeterminate_applied, verdict.torn, verdict.conserved) == (2, 1, False)


def test_an_unknown_transfer_and_an_unknown_deposit_count_as_the_fewer() -> None:
    """Both ends changed once: by the transfer, or by the deposits."""
    ops = [LEFT_OPEN, unanswered(UNKNOWN, 5, at=(0, 10), account=0), unanswered(UNKNOWN, 5, at=(0, 10), account=1)]
    verdict = judged(ops, (2, 105), (2, 105))
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.torn) == (3, 1, 0)


def test_unknown_transfers_leave_the_total_as_it_was() -> None:
    """Each balance could come of some of them; all balances together could not."""
    there, back = LEFT_OPEN, unanswered(UNKNOWN, 30, at=(0, 10), account=1, target=0)
    assert judged([there, back], (2, 90), (2, 110)).conserved is None
    assert judged([there, back], (2, 90), (2, 70)).conserved is False
    came = unanswered(UNKNOWN, 40, at=(0, 10), account=2)  # and would make up for what is missing, were it not told
    assert judged([there, back, came], (2, 90), (2, 70), (2, 140)).conserved is False
    went = replace(came, function=WITHDRAW)
    assert judged([there, back, went], (2, 90), (2, 70), (1, 100)).conserved is False


def test_halves_of_unknown_transfers_that_add_up_are_not_conserved() -> None:
    ops = [LEFT_OPEN, replace(LEFT_OPEN, account=2, target=3)]
    verdict = judged(ops, (2, 90), (1, 100), (1, 100), (2, 110))
    assert (verdict.indeterminate_applied, verdict.torn, verdict.conserved) == (2, 2, False)


@pytest.mark.parametrize("final", [(2, 104), (2, 111), (2, 106)])
def test_a_balance_that_no_choice_of_unknown_changes_explains(final: tuple[int, int]) -> None:
    """Too little, too much, and between them."""
    ops = [unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNKNOWN, 10, at=(0, 10))]
    assert judged(ops, final).conserved is False


def test_unknown_changes_that_were_all_applied_leave_nothing_open() -> None:
    ops = [unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNKNOWN, 7, at=(0, 10))]
    assert judged(ops, (3, 112)).conserved is True
    assert judged(ops, (3, 110)).conserved is False


# -- transfers: the order --------------------------------------------------------------------------


def test_a_wrong_balance_of_the_target() -> None:
    verdict = judged([transfer(10, (2, 90), (2, 111), at=(0, 10))], (2, 90), (2, 110))
    assert (verdict.conserved, verdict.linearizable) == (True, "no")


def test_a_stale_receipt_of_the_target() -> None:
    """It began when the deposit to its target was complete, and claims to have come before."""
    late = transfer(10, (2, 90), (2, 110), at=(31, 40))
    after = deposit(5, 3, 115, at=(20, 30), account=1)
    assert judged([late, after], (2, 90), (3, 115)).linearizable == "no"
    assert judged([replace(late, at=(29, 40)), after], (2, 90), (3, 115)).linearizable == "yes"


def test_a_stale_read_of_the_target() -> None:
    assert judged([MOVED, read(1, 100, at=(11, 20), account=1)], (2, 90), (2, 110)).linearizable == "no"
    assert judged([MOVED, read(1, 100, at=(9, 20), account=1)], (2, 90), (2, 110)).linearizable == "yes"


def test_an_unknown_transfer_explains_a_gap_at_both_ends() -> None:
    ops = [read(2, 90, at=(11, 20)), read(2, 110, at=(11, 20), account=1)]
    assert judged(ops, (2, 90), (2, 110)).linearizable == "no"
    assert judged([LEFT_OPEN, *ops], (2, 90), (2, 110)).linearizable == "yes"


# -- wide numbers in narrow columns ----------------------------------------------------------------


def test_real_clocks_epochs_and_money_do_not_overflow() -> None:
    day, epoch, rich = 86_400 * 10**9, 1_790_000_000_000_000, 2**53 - 1
    last = 40_000
    base = 100 * day
    ops = [
        deposit(1, 2, OPENING + 1, at=(base + day, base + 2 * day), account=index, epoch=epoch)
        for index in range(0, last, 1000)
    ]
    ops += [
        deposit(rich - OPENING, 2, rich, at=(base, base + 10), account=last, epoch=epoch),
        withdraw(rich - 1, 3, 1, at=(base + 11, base + 20), account=last, epoch=epoch),
    ]
    state = [(2, OPENING + 1, epoch) if index % 1000 == 0 else (1, OPENING, epoch) for index in range(last)]
    state.append((3, 1, epoch))
    verdict = judged(ops, *state)
    assert (verdict.acknowledged_lost, verdict.conserved, verdict.linearizable) == (0, True, "yes")
    ops[-1] = replace(ops[-1], at=(base - 20, base - 11))
    assert judged(ops, *state).linearizable == "no"
    state[-1] = (3, 2, epoch)
    assert judged(ops, *state).conserved is False


def test_sums_of_large_amounts_are_exact() -> None:
    """Floating point would round them: the deposits come first, and add up to more than 2**54."""
    amount = 2**53 - 1 - OPENING
    ops = [deposit(amount, seq, 2**53 - 1, at=(10 * seq, 10 * seq + 5)) for seq in (2, 4, 6)]
    ops += [withdraw(amount, seq, OPENING, at=(10 * seq, 10 * seq + 5)) for seq in (3, 5, 7)]
    assert judged(ops, (7, OPENING)).conserved is True
    assert judged(ops, (7, OPENING + 1)).conserved is False


# -- any history -----------------------------------------------------------------------------------


@dataclass
class Model:
    """Accounts that change at one instant per operation, somewhere between its call and its answer."""

    accounts: int
    ops: list[Op] = field(default_factory=list)
    state: list[tuple[int, int]] = field(init=False)
    applied_unknowns: int = 0

    def __post_init__(self) -> None:
        self.state = [(1, OPENING)] * self.accounts

    def call(self, account: int, target: int, function: int, amount: int, at: tuple[int, int], lost: str) -> None:
        seq, balance = self.state[account]
        if function == BALANCE:
            self.ops.append(read(seq, balance, at=at, account=account))
            return
        target = target if function == TRANSFER else -1
        refused = function != DEPOSIT and balance < amount
        if lost == "request" or refused:
            fate = REJECTED if refused else UNKNOWN
            self.ops.append(unanswered(fate, amount, at=at, function=function, account=account, target=target))
            return
        after = self.change(account, amount if function == DEPOSIT else -amount)
        there = self.change(target, amount) if function == TRANSFER else (0, 0)
        if lost == "answer":
            self.applied_unknowns += 1
            self.ops.append(unanswered(UNKNOWN, amount, at=at, function=function, account=account, target=target))
        elif function == TRANSFER:
            self.ops.append(transfer(amount, after, there, at=at, between=(account, target)))
        else:
            made = deposit if function == DEPOSIT else withdraw
            self.ops.append(made(amount, *after, at=at, account=account))

    def change(self, account: int, amount: int) -> tuple[int, int]:
        seq, balance = self.state[account]
        self.state[account] = (seq + 1, balance + amount)
        return self.state[account]


FUNCTIONS = (BALANCE, DEPOSIT, DEPOSIT, WITHDRAW)
WITH_TRANSFERS = (BALANCE, DEPOSIT, WITHDRAW, TRANSFER, TRANSFER)


@st.composite
def models(
    draw: st.DrawFn,
    *,
    lost: tuple[str, ...] = ("", "", "", "", "request", "answer"),
    functions: tuple[int, ...] = FUNCTIONS,
) -> Model:
    """Up to 40 operations at rising instants, each with a window around its instant; some messages are lost."""
    model = Model(accounts=draw(st.integers(1, 3)))
    instant = 0
    for _ in range(draw(st.integers(1, 40))):
        instant += draw(st.integers(1, 5))
        model.call(
            account=draw(st.integers(0, model.accounts - 1)),
            target=draw(st.integers(0, model.accounts - 1)),
            function=draw(st.sampled_from(functions)),
            amount=draw(st.sampled_from([1, 1, 1, 7, 150])),
            at=(instant - draw(st.integers(0, 12)), instant + draw(st.integers(0, 12))),
            lost=draw(st.sampled_from(lost)),
        )
    model.ops = draw(st.permutations(model.ops))  # clients' parts are merged in no order
    return model


def verdict_of(ops: list[Op], state: list[tuple[int, int]]) -> Verdict:
    return judged(ops, *state)


quickly = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@quickly
@given(models())
def test_a_correct_model_is_never_accused(model: Model) -> None:
    verdict = verdict_of(model.ops, model.state)
    assert (verdict.acknowledged_lost, verdict.duplicated) == (0, 0)
    assert verdict.conserved in (True, None)
    assert verdict.linearizable == ("yes" if any(op.fate == OK for op in model.ops) else "unknown")
    assert verdict.indeterminate_applied == model.applied_unknowns
    if not model.applied_unknowns:
        assert verdict.conserved is True


@quickly
@given(models(lost=("",)), st.data())
def test_changes_that_are_rolled_back_are_always_counted(model: Model, data: st.DataObject) -> None:
    changed = [account for account, (seq, _) in enumerate(model.state) if seq > 1]
    assume(changed)
    account = data.draw(st.sampled_from(changed))
    seq = model.state[account][0]
    behind = data.draw(st.integers(1, seq - 1))
    balances = {op.seq: op.balance for op in model.ops if op.account == account and op.fate == OK} | {1: OPENING}
    model.state[account] = (seq - behind, balances[seq - behind])
    verdict = verdict_of(model.ops, model.state)
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (behind, 0, False)


@quickly
@given(models(lost=("",)), st.integers(1, 5), st.data())
def test_money_from_nowhere_is_never_conserved(model: Model, gift: int, data: st.DataObject) -> None:
    account = data.draw(st.integers(0, model.accounts - 1))
    seq, balance = model.state[account]
    model.state[account] = (seq, balance + gift)
    assert verdict_of(model.ops, model.state).conserved is False


@quickly
@given(models(functions=WITH_TRANSFERS))
def test_a_correct_model_with_transfers_is_never_accused(model: Model) -> None:
    verdict = verdict_of(model.ops, model.state)
    assert (verdict.acknowledged_lost, verdict.torn, verdict.duplicated) == (0, 0, 0)
    assert verdict.acknowledged == sum(op.fate == OK and op.function != BALANCE for op in model.ops)
    assert verdict.conserved in (True, None)
    assert verdict.linearizable == ("yes" if any(op.fate == OK for op in model.ops) else "unknown")
    assert verdict.indeterminate == sum(op.fate == UNKNOWN for op in model.ops)
    assert verdict.indeterminate_applied <= model.applied_unknowns
    if len({op.function == TRANSFER for op in model.ops if op.fate == UNKNOWN}) == 1:
        assert verdict.indeterminate_applied == model.applied_unknowns
    if not model.applied_unknowns:
        assert verdict.conserved is True


@dataclass(frozen=True)
class Leg:
    """One end of an acknowledged transfer."""

    op: Op
    account: int
    seq: int
    change: int


def some_leg(model: Model, data: st.DataObject) -> Leg:
    moves = [op for op in model.ops if op.function == TRANSFER and op.fate == OK]
    assume(moves)
    op = data.draw(st.sampled_from(moves))
    source, target = Leg(op, op.account, op.seq, -op.amount), Leg(op, op.target, op.target_seq, op.amount)
    return data.draw(st.sampled_from([source, target]))


def applied_otherwise(model: Model, leg: Leg, times: int) -> Verdict:
    """The verdict on the same calls, had the leg been applied so many times more, or -1, under the same receipt."""

    def shifted(account: int, seq: int, balance: int, *, is_later: bool) -> tuple[int, int]:
        if account != leg.account or not is_later:
            return seq, balance
        return seq + times, balance + times * leg.change

    ops = []
    for op in model.ops:
        later = op.seq > leg.seq or (op.function == BALANCE and op.seq == leg.seq)
        seq, balance = shifted(op.account, op.seq, op.balance, is_later=later)
        target_seq, target_balance = shifted(
            op.target, op.target_seq, op.target_balance, is_later=op.target_seq > leg.seq
        )
        ops.append(replace(op, seq=seq, balance=balance, target_seq=target_seq, target_balance=target_balance))
    state = [shifted(account, *receipt, is_later=True) for account, receipt in enumerate(model.state)]
    return verdict_of(ops, state)


@quickly
@given(models(lost=("",), functions=WITH_TRANSFERS), st.data())
def test_a_leg_that_was_not_applied_is_always_found(model: Model, data: st.DataObject) -> None:
    leg = some_leg(model, data)
    verdict = applied_otherwise(model, leg, -1)
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (1, 0, False)
    if leg.seq == model.state[leg.account][0]:
        assert verdict.torn == 1
    else:
        assert verdict.torn in (0, 1)  # not told if what took its place is a change of the same amount
        assert verdict.linearizable == "no"


@quickly
@given(models(lost=("",), functions=WITH_TRANSFERS), st.data())
def test_a_leg_that_was_applied_twice_is_always_found(model: Model, data: st.DataObject) -> None:
    verdict = applied_otherwise(model, some_leg(model, data), 1)
    assert (verdict.acknowledged_lost, verdict.torn, verdict.duplicated, verdict.conserved) == (0, 0, 1, False)


@quickly
@given(models(lost=("",), functions=WITH_TRANSFERS), st.data())
def test_receipts_under_each_others_name_are_always_found(model: Model, data: st.DataObject) -> None:
    op = some_leg(model, data).op
    assume((op.seq, op.balance) != (op.target_seq, op.target_balance))
    swapped = replace(op, seq=op.target_seq, balance=op.target_balance, target_seq=op.seq, target_balance=op.balance)
    ops = [swapped if each is op else each for each in model.ops]
    assert verdict_of(ops, model.state).linearizable == "no"


unknown_ops = st.lists(
    st.builds(
        lambda function, account, target, amount: unanswered(
            UNKNOWN, amount, at=(0, 10), function=function, account=account, target=target
        ),
        st.sampled_from([DEPOSIT, WITHDRAW]),
        st.integers(0, 2),
        st.sampled_from([-1, 0, 1, 2]),
        st.sampled_from([1, 5, 5, 7]),
    ),
    min_size=1,
    max_size=4,
)


@quickly
@given(unknown_ops, st.data())
def test_of_unknown_fates_no_more_is_said_than_every_choice_among_them_bears_out(
    ops: list[Op], data: st.DataObject
) -> None:
    """Held against all the ways in which their legs can have been applied, or not."""
    legs = [(index, op.account, op.amount if op.function == DEPOSIT else -op.amount) for index, op in enumerate(ops)]
    legs += [(index, op.target, op.amount) for index, op in enumerate(ops) if op.function == TRANSFER]

    def outcome(chosen: tuple[bool, ...]) -> tuple[list[tuple[int, int]], int, int]:
        state, applied = [(1, OPENING)] * 3, Counter[int]()
        for (index, account, change), is_in in zip(legs, chosen, strict=True):
            if is_in:
                state[account] = (state[account][0] + 1, state[account][1] + change)
                applied[index] += 1
        torn = sum(ops[index].function == TRANSFER and count == 1 for index, count in applied.items())
        return state, len(applied), torn

    ways = [outcome(chosen) for chosen in itertools.product([False, True], repeat=len(legs))]
    state = list(data.draw(st.sampled_from(ways))[0])
    if data.draw(st.booleans()):
        state[0] = (state[0][0], state[0][1] + data.draw(st.sampled_from([-1, 1, 2, 10])))
    verdict = verdict_of(ops, state)
    as_many = [way for way in ways if [seq for seq, _ in way[0]] == [seq for seq, _ in state]]
    assert verdict.indeterminate_applied <= min(applied for _, applied, _ in as_many)
    assert verdict.torn <= min(torn for *_, torn in as_many)
    fitting = [torn for found, _, torn in as_many if found == state]
    if verdict.conserved is True:
        assert fitting
    if verdict.conserved is False:
        assert 0 not in fitting


# -- speed -----------------------------------------------------------------------------------------


def long_history(length: int, accounts: int = 100) -> tuple[History, dict[str, Receipt]]:
    """`length` unit deposits in turn on `accounts` accounts, a fifth of their answers lost."""
    index = np.arange(length)
    account = index % accounts
    seq = index // accounts + 2
    answered = index % 5 != 0
    columns: dict[str, Any] = {
        "process": np.broadcast_to(np.int16(0), (length,)),
        "client": (index % 8).astype(np.int16),
        "number": index.astype(np.int32),
        "attempt": np.broadcast_to(np.int16(0), (length,)),
        "keyed": np.broadcast_to(np.False_, (length,)),
        "function": np.full(length, DEPOSIT, dtype=np.int8),
        "account": account.astype(np.int32),
        "target": np.full(length, -1, dtype=np.int32),
        "amount": np.ones(length, dtype=np.int64),
        "due_ns": index * 100,
        "sent_ns": index * 100,
        "done_ns": index * 100 + 5000,
        "fate": np.where(answered, OK, UNKNOWN).astype(np.int8),
        "reason": np.broadcast_to(np.int8(0), (length,)),
        "seq": np.where(answered, seq, 0).astype(np.int32),
        "balance": np.where(answered, OPENING + seq - 1, 0),
        "epoch": np.where(answered, EPOCH, 0),
        "target_seq": np.broadcast_to(np.int32(0), (length,)),
        "target_balance": np.broadcast_to(np.int64(0), (length,)),
        "target_epoch": np.broadcast_to(np.int64(0), (length,)),
    }
    final = {
        name: Receipt(1 + each, OPENING + each, EPOCH)
        for name, each in zip(names(accounts), np.bincount(account, minlength=accounts).tolist(), strict=True)
    }
    return History(**columns), final


def test_checking_takes_time_in_proportion_to_the_operations() -> None:
    """Ten times the operations take about ten times as long: a search would never end on 200,000."""

    def seconds(length: int) -> float:
        made, final = long_history(length)
        best = float("inf")
        for _ in range(2):
            begin = time.perf_counter()
            verdict = check(made, names(100), OPENING, final)
            best = min(best, time.perf_counter() - begin)
        assert (verdict.acknowledged_lost, verdict.duplicated, verdict.conserved) == (0, 0, True)
        assert verdict.linearizable == "yes"
        assert verdict.indeterminate_applied == length // 5
        return best

    few, many = seconds(20_000), seconds(200_000)
    assert many < 5  # it takes a fraction of a second
    assert many < 10 * few * 5
