"""The checker finds what is planted in a history, and accuses nobody of what did not happen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from benchmarks.harness.checker import Verdict, check
from benchmarks.harness.history import BALANCE, DEPOSIT, OK, REJECTED, UNAVAILABLE, UNKNOWN, WITHDRAW, History
from strategies.interface import Receipt
from tests.harness.histories import EPOCH, OPENING, Op, deposit, judged, names, read, unanswered, withdraw

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

    def call(self, account: int, function: int, amount: int, sent: int, instant: int, done: int, lost: str) -> None:
        seq, balance = self.state[account]
        if function == BALANCE:
            self.ops.append(read(seq, balance, at=(sent, done), account=account))
            return
        refused = function == WITHDRAW and balance < amount
        if lost == "request" or refused:
            fate = REJECTED if refused else UNKNOWN
            self.ops.append(unanswered(fate, amount, at=(sent, done), function=function, account=account))
            return
        after = (seq + 1, balance + (amount if function == DEPOSIT else -amount))
        self.state[account] = after
        if lost == "answer":
            self.applied_unknowns += 1
            self.ops.append(unanswered(UNKNOWN, amount, at=(sent, done), function=function, account=account))
        else:
            made = deposit if function == DEPOSIT else withdraw
            self.ops.append(made(amount, *after, at=(sent, done), account=account))


@st.composite
def models(draw: st.DrawFn, *, lost: tuple[str, ...] = ("", "", "", "", "request", "answer")) -> Model:
    """Up to 40 operations at rising instants, each with a window around its instant; some messages are lost."""
    model = Model(accounts=draw(st.integers(1, 3)))
    instant = 0
    for _ in range(draw(st.integers(1, 40))):
        instant += draw(st.integers(1, 5))
        model.call(
            account=draw(st.integers(0, model.accounts - 1)),
            function=draw(st.sampled_from([BALANCE, DEPOSIT, DEPOSIT, WITHDRAW])),
            amount=draw(st.sampled_from([1, 1, 1, 7, 150])),
            sent=instant - draw(st.integers(0, 12)),
            instant=instant,
            done=instant + draw(st.integers(0, 12)),
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


# -- speed -----------------------------------------------------------------------------------------


def long_history(length: int, accounts: int = 100) -> tuple[History, dict[str, Receipt]]:
    """`length` unit deposits in turn on `accounts` accounts, a fifth of their answers lost."""
    index = np.arange(length)
    account = index % accounts
    seq = index // accounts + 2
    answered = index % 5 != 0
    columns: dict[str, Any] = {
        "client": index % 8,
        "number": index,
        "function": np.full(length, DEPOSIT, dtype=np.int8),
        "account": account,
        "amount": np.ones(length, dtype=np.int64),
        "due_ns": index * 100,
        "sent_ns": index * 100,
        "done_ns": index * 100 + 5000,
        "fate": np.where(answered, OK, UNKNOWN).astype(np.int8),
        "seq": np.where(answered, seq, 0),
        "balance": np.where(answered, OPENING + seq - 1, 0),
        "epoch": np.where(answered, EPOCH, 0),
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
