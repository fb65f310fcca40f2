"""What the checker says of operations sent again, of rejections and of order: the kind, the rows and the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.generator import Retry
from benchmarks.harness.history import (
    DEPOSIT,
    LOST,
    NEVER_NS,
    OK,
    REASONS,
    REJECTED,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
    History,
)
from benchmarks.harness.violations import Kind, Violation
from strategies.interface import DEDUP_WINDOW, MAX_MONEY, Receipt
from tests.failure.simulation import Setting, run
from tests.harness.histories import OPENING, Op, deposit, history, judged, names, read, transfer, unanswered, withdraw


def sent_again(*attempts: Op, keyed: bool = True, number: int = 90) -> list[Op]:
    """Attempts of one operation, in their order."""
    return [replace(each, number=number, attempt=place, keyed=keyed) for place, each in enumerate(attempts)]


def rejected(
    amount: int, reason: str, at: tuple[int, int], *, function: int = WITHDRAW, account: int = 0, target: int = -1
) -> Op:
    refused = unanswered(REJECTED, amount, at, function=function, account=account, target=target)
    return replace(refused, reason=reason)


def found(verdict: Verdict) -> list[tuple[Kind, tuple[int, ...]]]:
    return [(each.kind, each.rows) for each in verdict.violations]


def only(verdict: Verdict) -> Violation:
    (violation,) = verdict.violations
    assert verdict.violations_total == 1
    return violation


# -- the smallest proof, in words ------------------------------------------------------------------


def test_a_lost_acknowledgement_is_told_with_its_figures() -> None:
    ops = [deposit(24, 8, 124, at=(0, 1)), replace(deposit(7, 9, 131, at=(2, 3)), client=2, number=15)]
    ops = [deposit(0, seq, 100, at=(-20 + seq, -20 + seq)) for seq in range(2, 8)] + ops
    violation = only(judged(ops, (8, 124)))
    assert (violation.kind, violation.account, violation.rows) == (Kind.ACKNOWLEDGED_LOST, "account-0", (7,))
    assert violation.words == (
        "account-0: the deposit of 7 (client 2, operation 15) was acknowledged with seq 9 and balance 131, and the "
        "final state is seq 8, balance 124."
    )


FIRST = deposit(5, 2, 105, at=(0, 10))
"""Row 0 of most histories here."""


@pytest.mark.parametrize(
    ("ops", "final", "kind", "rows"),
    [
        ([FIRST, deposit(7, 2, 107, at=(5, 15))], (2, 107), Kind.LOST_UPDATE, (0, 1)),
        ([FIRST, deposit(7, 3, 107, at=(5, 15))], (3, 107), Kind.LOST_UPDATE, (0, 1)),
        ([FIRST, deposit(7, 2, 112, at=(5, 15))], (2, 112), Kind.SEQ_REUSED, (0, 1)),
        ([FIRST, deposit(7, 2, 105, at=(5, 15))], (2, 105), Kind.FOREIGN_REPLY, (0, 1)),
        ([FIRST, deposit(7, 4, 112, at=(20, 25))], (4, 112), Kind.SEQ_GAP, (0, 1)),
        ([FIRST, deposit(7, 4, 125, at=(20, 25))], (4, 125), Kind.PHANTOM, (0, 1)),
        ([FIRST], (3, 110), Kind.DUPLICATED, (0,)),
        ([FIRST, unanswered(REJECTED, 9, at=(11, 20))], (3, 114), Kind.REJECTED_APPLIED, (0, 1)),
        ([FIRST, unanswered(UNAVAILABLE, 9, at=(11, 20))], (3, 114), Kind.REJECTED_APPLIED, (0, 1)),
        ([FIRST, unanswered(LOST, 9, at=(11, 20))], (3, 114), Kind.REJECTED_APPLIED, (0, 1)),
        ([FIRST, read(2, 104, at=(11, 20))], (2, 105), Kind.WRONG_BALANCE, (0, 1)),
        ([deposit(5, 2, 106, at=(0, 10))], (2, 106), Kind.WRONG_BALANCE, (0,)),
        ([FIRST], (2, 104), Kind.NOT_CONSERVED, (0,)),
        ([], (1, 99), Kind.NOT_CONSERVED, ()),
        ([FIRST, read(1, 100, at=(11, 20))], (2, 105), Kind.STALE_READ, (0, 1)),
        ([replace(FIRST, seq=3, balance=112), deposit(7, 2, 107, at=(11, 20))], (3, 112), Kind.REORDERED, (0, 1)),
        ([withdraw(120, 2, -20, at=(0, 10))], (2, -20), Kind.OVERDRAFT, (0,)),
        ([FIRST, withdraw(120, 3, 0, at=(11, 20))], (3, 0), Kind.OVERDRAFT, (0, 1)),
        ([read(3, 110, at=(0, 10))], (1, 100), Kind.ACKNOWLEDGED_LOST, (0,)),
    ],
)
def test_a_small_history_is_called_by_its_name(
    ops: list[Op], final: tuple[int, int], kind: Kind, rows: tuple[int, ...]
) -> None:
    assert (kind, rows) in found(judged(ops, final))


def test_a_receipt_of_another_account() -> None:
    there = deposit(900, 2, 1000, at=(0, 10), account=1)
    verdict = judged([there, deposit(5, 2, 1000, at=(5, 15))], (2, 105), (2, 1000))
    assert (Kind.FOREIGN_REPLY, (0, 1)) in found(verdict)


def test_a_torn_transfer_names_both_legs() -> None:
    violation = only(judged([transfer(10, (2, 90), (2, 110), at=(0, 10))], (2, 90), (1, 100)))
    assert (violation.kind, violation.account, violation.rows) == (Kind.TORN_TRANSFER, "account-1", (0,))
    assert "the leg on account-0 with seq 2 is in the final state, and the leg on account-1" in violation.words


def test_an_owner_that_was_replaced_and_answers_on() -> None:
    ops = [deposit(5, 2, 105, at=(0, 10), epoch=8), read(2, 105, at=(11, 20), epoch=7)]
    violation = only(judged(ops, (2, 105, 8)))
    assert (violation.kind, violation.rows) == (Kind.ZOMBIE_OWNER, (0, 1))
    ops[1] = replace(ops[1], epoch=8)
    assert judged(ops, (2, 105, 8)).violations == ()


def test_reads_of_one_state_under_two_owners_may_overlap() -> None:
    """The later owner answers the call that began first."""
    ops = [read(1, 100, at=(0, 50), epoch=8), read(1, 100, at=(5, 10), epoch=7), read(1, 100, at=(20, 60), epoch=8)]
    assert judged(ops, (1, 100, 8)).linearizable == "yes"


def test_what_a_later_owner_went_on_from_is_not_lost_whatever_its_epoch() -> None:
    ops = [
        deposit(5, 2, 105, at=(0, 10), epoch=8),
        deposit(5, 3, 110, at=(5, 20), epoch=7),
        deposit(5, 4, 115, at=(6, 30), epoch=8),
    ]
    verdict = judged(ops, (4, 115, 8))
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.linearizable) == (0, 0, "no")
    assert only(verdict).kind == Kind.ZOMBIE_OWNER


def test_few_violations_are_shown_and_all_are_counted() -> None:
    ops = [deposit(1, 2, 101, at=(0, 10), account=account) for account in range(500)]
    ops += [replace(read(1, 100, at=(11, 20)), account=0), withdraw(500, 2, -400, at=(0, 10), account=500)]
    verdict = judged(ops, *[None] * 500, (2, -400))
    assert len(verdict.violations) <= 20
    assert verdict.violations_total >= 502
    assert {each.kind for each in verdict.violations} == {Kind.ACKNOWLEDGED_LOST, Kind.STALE_READ, Kind.OVERDRAFT}
    assert (verdict.acknowledged_lost, verdict.acknowledged_lost_amount) == (500, 500)


# -- gaps are explained by what was sent, when it was sent -----------------------------------------


@pytest.mark.parametrize(
    ("amount", "at", "explains"),
    [(5, (11, 20), True), (6, (11, 20), False), (5, (39, 50), True), (5, (41, 50), False)],
    ids=["in time", "another amount", "just in time", "sent when it was over"],
)
def test_only_what_was_sent_in_time_with_that_amount_explains_a_gap(
    amount: int, at: tuple[int, int], explains: bool
) -> None:
    ops = [FIRST, unanswered(UNKNOWN, amount, at), read(3, 110, at=(30, 40))]
    assert judged(ops, (3, 110)).linearizable == ("yes" if explains else "no")


def test_one_unknown_operation_explains_one_gap() -> None:
    ops = [FIRST, deposit(1, 4, 111, at=(30, 40)), deposit(1, 6, 117, at=(50, 60))]
    unknown = [unanswered(UNKNOWN, 5, at=(11, 20)), unanswered(UNKNOWN, 5, at=(45, 46))]
    assert judged([*ops, *unknown], (6, 117)).linearizable == "yes"
    assert judged([*ops, unknown[0], unanswered(UNKNOWN, 4, at=(45, 46))], (6, 117)).linearizable == "no"
    early = [unknown[0], unanswered(UNKNOWN, 5, at=(61, 70))]
    assert judged([*ops, *early], (6, 117)).linearizable == "no"


def test_a_gap_of_several_changes_must_add_up() -> None:
    unknown = [unanswered(UNKNOWN, amount, at=(0, 10)) for amount in (5, 5, 20)]
    assert judged([*unknown, read(3, 110, at=(20, 30))], (3, 110)).linearizable == "yes"
    assert judged([*unknown, read(3, 126, at=(20, 30))], (3, 126)).linearizable == "no"
    assert judged([*unknown, read(3, 112, at=(20, 30))], (3, 112)).linearizable == "no"


# -- sent again with an op id ----------------------------------------------------------------------


def test_attempts_with_an_op_id_are_one_operation() -> None:
    ops = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), unanswered(UNAVAILABLE, 5, at=(11, 12)), FIRST, FIRST)
    verdict = judged([*ops[:2], replace(ops[2], at=(20, 30)), replace(ops[3], at=(40, 50))], (2, 105))
    assert verdict == replace(judged([FIRST], (2, 105)), violations=())
    assert (verdict.acknowledged, verdict.indeterminate, verdict.linearizable) == (1, 0, "yes")


def test_an_operation_can_have_happened_from_its_first_attempt_on() -> None:
    ops = [read(2, 105, at=(11, 15)), *sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), replace(FIRST, at=(20, 30)))]
    assert judged(ops, (2, 105)).linearizable == "yes"
    ops[1] = replace(ops[1], fate=UNAVAILABLE)
    violation = only(judged(ops, (2, 105)))
    assert (violation.kind, violation.rows) == (Kind.REJECTED_APPLIED, (1, 0, 2))


def test_an_operation_that_was_never_answered_is_one_however_often_it_was_sent() -> None:
    ops = sent_again(*[unanswered(UNKNOWN, 5, at=(at, at + 5)) for at in (0, 10, 20)])
    verdict = judged(ops, (2, 105))
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.duplicated) == (1, 1, 0)
    verdict = judged(ops, (3, 110))
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.duplicated) == (1, 1, 1)
    assert only(verdict).kind == Kind.DUPLICATED


def test_an_effect_behind_each_attempt() -> None:
    ops = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), deposit(5, 3, 110, at=(20, 30)))
    verdict = judged(ops, (3, 110))
    assert (verdict.acknowledged, verdict.indeterminate, verdict.duplicated) == (1, 0, 1)
    assert (only(verdict).kind, only(verdict).rows) == (Kind.DUPLICATED, (0, 1))


def test_another_receipt_with_an_effect_and_without() -> None:
    twice = sent_again(FIRST, deposit(5, 3, 110, at=(20, 30)))
    verdict = judged(twice, (3, 110))
    assert (verdict.acknowledged, verdict.duplicated, verdict.linearizable) == (1, 1, "no")
    assert found(verdict) == [(Kind.DUPLICATED, (0, 1))]
    fresh = [*sent_again(FIRST, deposit(5, 3, 112, at=(20, 30))), deposit(7, 3, 112, at=(11, 15))]
    verdict = judged(fresh, (3, 112))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (2, 0, 0)
    assert found(verdict) == [(Kind.CHANGED_ANSWER, (0, 1))]
    assert verdict.linearizable == "no"


def test_a_lost_operation_that_was_done_again_is_there() -> None:
    """Its first receipt went with the state behind it."""
    ops = sent_again(deposit(5, 2, 105, at=(0, 10), epoch=7), deposit(5, 3, 106, at=(40, 50), epoch=8))
    verdict = judged([*ops, deposit(1, 2, 101, at=(20, 30), epoch=8)], (3, 106, 8))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (2, 0, 0)
    assert verdict.linearizable == "no"


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_granted_and_rejected_under_one_op_id(first: int, second: int) -> None:
    answers = [FIRST, rejected(5, "InvalidAmount", at=(0, 10), function=DEPOSIT)]
    ops = sent_again(answers[first], replace(answers[second], at=(20, 30)))
    verdict = judged(ops, (2, 105))
    assert (Kind.REJECTION_REVERSED, (0, 1)) in found(verdict)
    assert (verdict.acknowledged, verdict.duplicated, verdict.linearizable) == (1, 0, "no")


def test_a_rejection_for_another_reason() -> None:
    ops = sent_again(
        rejected(500, "InsufficientFunds", at=(0, 10)),
        rejected(500, "InsufficientFunds", at=(11, 20)),
        rejected(500, "OutOfScope", at=(21, 30)),
    )
    assert judged(ops[:2], (1, 100)).violations == ()
    assert (Kind.CHANGED_ANSWER, (0, 2)) in found(judged(ops, (1, 100)))


def test_what_was_rejected_in_the_end_never_happened() -> None:
    ops = sent_again(
        unanswered(UNKNOWN, 500, at=(0, 10), function=WITHDRAW), rejected(500, "InsufficientFunds", at=(20, 30))
    )
    verdict = judged(ops, (1, 100))
    assert (verdict.indeterminate, verdict.violations, verdict.conserved) == (0, (), True)
    ops = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), rejected(5, "InvalidAmount", at=(20, 30), function=DEPOSIT))
    verdict = judged(ops, (2, 105))
    assert verdict.duplicated == 1
    assert Kind.REJECTED_APPLIED in {each.kind for each in verdict.violations}


def test_an_op_id_that_expired_says_nothing_of_what_came_before() -> None:
    ops = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), rejected(5, "OperationExpired", at=(20, 30), function=DEPOSIT))
    ops.append(unanswered(UNAVAILABLE, 5, at=(15, 16)))
    ops[-1] = replace(ops[-1], number=90 + DEDUP_WINDOW)
    for final, applied in (((1, 100), 0), ((2, 105), 1)):
        verdict = judged(ops, final)
        assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.violations) == (1, applied, ())
    ops[-1] = replace(ops[-1], number=89 + DEDUP_WINDOW)
    assert only(judged(ops, (1, 100))).kind == Kind.WRONG_REJECTION


def test_a_caller_that_died_never_saw_its_answer() -> None:
    died = replace(unanswered(UNKNOWN, 5, at=(0, NEVER_NS)), process=0)
    ops = sent_again(died, replace(deposit(5, 2, 105, at=(40, 50)), process=1))
    verdict = judged([*ops, read(2, 105, at=(20, 30))], (2, 105))
    assert (verdict.acknowledged, verdict.indeterminate, verdict.linearizable) == (1, 0, "yes")
    verdict = judged([replace(died, keyed=True), read(2, 105, at=(20, 30))], (2, 105))
    assert (verdict.indeterminate, verdict.indeterminate_applied, verdict.linearizable) == (1, 1, "yes")


def test_reads_that_are_sent_again_may_differ() -> None:
    ops = [FIRST, *sent_again(read(1, 100, at=(0, 9)), read(2, 105, at=(20, 30)))]
    assert judged(ops, (2, 105)).violations == ()


def test_one_number_in_two_loads_is_two_operations() -> None:
    """A trial may hold several loads, each with its own sessions and the same numbers."""
    ops = [replace(each, number=3, keyed=True) for each in (FIRST, deposit(5, 3, 110, at=(20, 30)))]
    verdict = judged(ops, (3, 110))
    assert (verdict.acknowledged, verdict.duplicated, verdict.violations) == (2, 0, ())


# -- sent again without an op id -------------------------------------------------------------------


def test_each_attempt_without_an_op_id_may_have_its_effect() -> None:
    ops = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), deposit(5, 3, 110, at=(20, 30)), keyed=False)
    verdict = judged(ops, (3, 110))
    assert (verdict.acknowledged, verdict.indeterminate, verdict.duplicated) == (1, 0, 1)
    assert (verdict.linearizable, found(verdict)) == ("yes", [(Kind.DUPLICATED, (0, 1))])
    verdict = judged([ops[0], replace(ops[1], seq=2, balance=105)], (2, 105))
    assert (verdict.acknowledged, verdict.duplicated, verdict.violations) == (1, 0, ())


def test_two_answers_without_an_op_id_are_two_effects() -> None:
    ops = sent_again(FIRST, deposit(5, 3, 110, at=(20, 30)), keyed=False)
    verdict = judged(ops, (3, 110))
    assert (verdict.acknowledged, verdict.acknowledged_lost, verdict.duplicated) == (1, 0, 1)
    assert (verdict.linearizable, found(verdict)) == ("yes", [(Kind.DUPLICATED, (0, 1))])
    assert judged(ops, (2, 105)).acknowledged_lost == 0  # what it asked for is there
    assert judged(ops, (1, 100)).acknowledged_lost_amount == 5


def test_unknown_attempts_without_an_op_id() -> None:
    ops = sent_again(*[unanswered(UNKNOWN, 5, at=(at, at + 5)) for at in (0, 10, 20)], keyed=False)
    for applied in range(4):
        verdict = judged(ops, (1 + applied, 100 + 5 * applied))
        assert (verdict.indeterminate, verdict.indeterminate_applied) == (1, min(1, applied))
        assert verdict.duplicated == max(0, applied - 1)


def test_balances_tell_a_doubled_operation_from_one_of_unknown_fate() -> None:
    answered = sent_again(unanswered(UNKNOWN, 5, at=(0, 10)), deposit(5, 2, 105, at=(20, 30)), keyed=False)
    other = unanswered(UNKNOWN, 7, at=(31, 40))
    verdict = judged([*answered, other], (3, 112))
    assert (verdict.duplicated, verdict.indeterminate_applied, verdict.violations) == (0, 1, ())
    verdict = judged([*answered, other], (3, 110))
    assert (verdict.duplicated, verdict.indeterminate_applied) == (1, 0)
    verdict = judged([*answered, replace(other, amount=5)], (3, 110))
    assert (verdict.duplicated, verdict.indeterminate_applied, verdict.violations) == (0, 1, ())  # may be either


def test_no_more_is_called_doubled_than_must_be() -> None:
    for seed in range(10):
        made = run(
            Setting(retry=Retry.NAIVE, reply_lost=0.2, clients=8, operations=40, accounts=2, amounts=(1, 3)), seed
        )
        assert made.verdict().duplicated <= made.truth.duplicated


# -- rejections ------------------------------------------------------------------------------------


def test_too_small_funds_that_sufficed_all_the_time() -> None:
    ops = [FIRST, rejected(105, "InsufficientFunds", at=(20, 30)), read(2, 105, at=(40, 50))]
    verdict = judged(ops, (2, 105))
    assert (only(verdict).kind, only(verdict).rows) == (Kind.WRONG_REJECTION, (0, 1, 2))
    assert verdict.linearizable == "no"
    assert "the balance was at least 105" in only(verdict).words


@pytest.mark.parametrize(
    "ops",
    [
        [FIRST, rejected(106, "InsufficientFunds", at=(20, 30))],
        [FIRST, rejected(105, "InsufficientFunds", at=(9, 30))],
        [withdraw(50, 2, 50, at=(0, 30)), deposit(50, 3, 100, at=(0, 40)), rejected(100, "InsufficientFunds", (5, 8))],
        [unanswered(UNKNOWN, 50, (0, 9), function=WITHDRAW), rejected(100, "InsufficientFunds", at=(20, 30))],
    ],
    ids=["too small", "too small when it began", "too small for a moment", "perhaps too small"],
)
def test_funds_that_may_have_been_too_small_for_a_moment(ops: list[Op]) -> None:
    final = {2: (2, 105), 3: (3, 100)}.get(max(op.seq for op in ops), (2, 50))
    verdict = judged(ops, final)
    assert (verdict.violations, verdict.linearizable != "no") == ((), True)


def test_an_operation_sent_again_may_have_been_rejected_at_first() -> None:
    early = unanswered(UNKNOWN, 105, at=(0, 9), function=WITHDRAW)
    ops = [replace(FIRST, at=(10, 15)), *sent_again(early, rejected(105, "InsufficientFunds", at=(20, 30)))]
    assert judged(ops, (2, 105)).violations == ()
    ops[1] = replace(ops[1], fate=UNAVAILABLE)
    assert only(judged(ops, (2, 105))).kind == Kind.WRONG_REJECTION


@pytest.mark.parametrize("reason", REASONS[1:])
def test_reasons_that_cannot_hold(reason: str) -> None:
    """A deposit of 5 to an account that is there, under an op id of its own."""
    verdict = judged([replace(rejected(5, reason, at=(0, 10), function=DEPOSIT), keyed=True)], (1, 100))
    if reason == "Rejected":  # for a reason of the strategy's own
        assert verdict.violations == ()
    else:
        assert (only(verdict).kind, only(verdict).rows) == (Kind.WRONG_REJECTION, (0,))


def test_reasons_that_hold() -> None:
    full = Receipt(1, MAX_MONEY, 7)
    ops = [
        rejected(5, "InvalidAmount", at=(0, 10), function=DEPOSIT),
        rejected(0, "InvalidAmount", at=(0, 10)),
        rejected(5, "InvalidAmount", at=(0, 10), account=1, target=0),
        rejected(5, "OutOfScope", at=(0, 10), account=1, target=0),
        rejected(5, "UnknownAccount", at=(0, 10), account=2),
        rejected(5, "UnknownAccount", at=(0, 10), account=0, target=2),
    ]
    verdict = check(history(ops), names(3), MAX_MONEY, {"account-0": full, "account-1": full})
    assert {each.kind for each in verdict.violations} == {Kind.ACKNOWLEDGED_LOST}  # the third account


def test_an_op_id_used_for_two_operations_may_be_a_mismatch() -> None:
    mismatch = rejected(7, "OperationMismatch", at=(20, 30), function=DEPOSIT)
    ops = [replace(each, number=3, keyed=True, attempt=place) for place, each in enumerate([FIRST, mismatch])]
    assert judged(ops, (2, 105)).violations == ()
    ops[1] = replace(ops[1], amount=5)
    assert only(judged(ops, (2, 105))).kind == Kind.WRONG_REJECTION


# -- order across accounts -------------------------------------------------------------------------


def across(ops: Sequence[Op], *final: tuple[int, int]) -> Verdict:
    state = {name: Receipt(*each, 7) for name, each in zip(names(len(final)), final, strict=True)}
    return check(history(ops), names(len(final)), OPENING, state, across_accounts=True)


HALF_SEEN = [
    transfer(10, (2, 90), (2, 110), at=(0, 100)),
    read(2, 90, at=(10, 20)),
    read(1, 100, at=(30, 40), account=1),
]
"""The transfer's source after it, and then its target before it."""


def test_a_transfer_that_is_half_seen() -> None:
    assert judged(HALF_SEEN, (2, 90), (2, 110)).violations == ()
    verdict = across(HALF_SEEN, (2, 90), (2, 110))
    assert (only(verdict).kind, only(verdict).rows) == (Kind.TRANSFERS_OUT_OF_ORDER, (0, 1, 2))
    assert verdict.linearizable == "no"
    overlapping = [*HALF_SEEN[:2], replace(HALF_SEEN[2], at=(15, 40))]
    assert across(overlapping, (2, 90), (2, 110)).violations == ()


def test_two_transfers_in_two_orders() -> None:
    ops = [
        transfer(10, (2, 90), (3, 120), at=(0, 100)),
        transfer(10, (3, 80), (2, 110), at=(0, 100)),
        transfer(1, (4, 79), (2, 101), at=(110, 120), between=(0, 2)),
    ]
    verdict = across(ops, (4, 79), (3, 120), (2, 101))
    assert (only(verdict).kind, only(verdict).rows) == (Kind.TRANSFERS_OUT_OF_ORDER, (0, 1))


def test_without_transfers_nothing_can_be_out_of_order_across_accounts() -> None:
    ops = [FIRST, deposit(1, 2, 101, at=(5, 15), account=1), read(1, 100, at=(0, 20), account=1)]
    assert across(ops, (2, 105), (2, 101)).violations == ()


# -- answers without receipts ----------------------------------------------------------------------


def without_receipt(op: Op) -> Op:
    return replace(op, seq=0, balance=0, epoch=0)


def test_where_receipts_are_missing_an_order_is_searched_for() -> None:
    ops = [without_receipt(FIRST), replace(read(0, 105, at=(11, 20)), epoch=0)]
    assert judged(ops, (2, 105)).linearizable == "yes"
    assert judged(ops, (2, 105)).violations == ()
    ops[1] = replace(ops[1], balance=100)
    verdict = judged(ops, (2, 105))
    assert (verdict.linearizable, verdict.violations[0].kind) == ("no", Kind.NOT_LINEARIZABLE)
    assert verdict.violations[0].rows == (0, 1)


def test_a_final_state_that_no_order_ends_in() -> None:
    verdict = judged([without_receipt(FIRST), without_receipt(FIRST)], (2, 105))
    assert (verdict.linearizable, verdict.conserved) == ("no", False)
    assert Kind.NOT_LINEARIZABLE in {each.kind for each in verdict.violations}


def test_accounts_with_receipts_are_judged_by_them() -> None:
    ops = [without_receipt(FIRST), deposit(5, 2, 106, at=(0, 10), account=1)]
    verdict = judged(ops, (2, 105), (2, 106))
    assert Kind.WRONG_BALANCE in {each.kind for each in verdict.violations}


# -- whatever is wrong is shown --------------------------------------------------------------------

_COLUMNS = ("seq", "balance", "epoch", "target_seq", "target_balance", "fate", "reason", "account", "amount")


def spoiled(made: History, data: st.DataObject, accounts: int) -> None:
    """Change some of what was recorded."""
    for _ in range(data.draw(st.integers(1, 4))):
        column: Any = getattr(made, data.draw(st.sampled_from(_COLUMNS)))
        row = data.draw(st.integers(0, len(made) - 1))
        if column is made.fate:
            column[row] = data.draw(st.sampled_from([OK, REJECTED, UNAVAILABLE, LOST, UNKNOWN]))
        elif column is made.reason:
            column[row] = data.draw(st.integers(0, len(REASONS) - 1))
        elif column is made.account:
            column[row] = data.draw(st.integers(0, accounts - 1))
        else:
            column[row] += data.draw(st.sampled_from([-2, -1, 1, 2, 10]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_a_verdict_holds_against_a_history_is_shown(data: st.DataObject) -> None:
    setting = Setting(
        retry=data.draw(st.sampled_from(Retry)),
        clients=3,
        operations=8,
        accounts=2,
        amounts=data.draw(st.sampled_from([(1, 3), (1, 1_000_000)])),
        functions=data.draw(st.sampled_from([(0, 1, 2), (0, 1, 2, 3)])),
        reply_lost=0.1,
        restarts=1,
        deaths=1,
    )
    made = run(setting, data.draw(st.integers(0, 1_000)))
    spoiled(made.history, data, setting.accounts)
    verdict = made.verdict(across_accounts=True)
    broken = verdict.acknowledged_lost or verdict.torn or verdict.duplicated
    if broken or verdict.conserved is False or verdict.linearizable == "no":
        assert verdict.violations
    assert verdict.violations_total >= len(verdict.violations)
    for each in verdict.violations:
        assert each.words.endswith(".") or not each.account
        assert all(0 <= row < len(made.history) for row in each.rows)
        assert len(set(each.rows)) == len(each.rows)
