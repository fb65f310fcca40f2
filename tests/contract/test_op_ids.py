"""Operations sent again: one effect, the first answer, within a bounded window. Where safe retries are claimed."""

from __future__ import annotations

import pickle

import pytest

from strategies.interface import (
    DEDUP_WINDOW,
    AccountExists,
    Accounts,
    Caller,
    Capabilities,
    InsufficientFunds,
    InvalidAmount,
    OperationExpired,
    OperationMismatch,
    OpId,
    OutOfScope,
    Receipt,
    Rejected,
    Retries,
    Transfers,
    UnknownAccount,
)
from tests.contract.callers import call, kinds, outcomes
from tests.contract.conftest import Opener
from tests.contract.rows import Row


@pytest.fixture(autouse=True)
def _only_where_claimed(row: Row) -> None:
    if row.claims.retries is not Retries.SAFE_WITH_OP_ID:
        pytest.skip("claims no safe retries")


def a_pair_in_scope(accounts: Accounts, claims: Capabilities) -> tuple[str, str]:
    """Two open accounts with 100 each, between which the strategy can transfer."""
    if claims.transfers is Transfers.NONE:
        pytest.skip("claims no transfers")
    names = [f"account-{number}" for number in range(9)]
    outcomes(accounts, *(call("open_account", name, 100) for name in names))
    for target in names[1:]:
        # More than there is: refused, but as out of scope only where it is.
        (answer,) = outcomes(accounts, call("transfer", names[0], target, 101))
        if isinstance(answer, InsufficientFunds):
            return names[0], target
    raise AssertionError("no pair of nine accounts is in the claimed scope")


def test_sent_again_it_has_one_effect_and_its_first_receipt(accounts: Accounts) -> None:
    opened = accounts.open_account("a", 100, op_id=("s", 1))
    assert accounts.open_account("a", 100, op_id=("s", 1)) == opened == Receipt(1, 100, opened.epoch)
    deposited = accounts.deposit("a", 10, op_id=("s", 2))
    withdrawn = accounts.withdraw("a", 1, op_id=("s", 3))
    again = outcomes(
        accounts,
        call("deposit", "a", 10, op_id=("s", 2)),
        call("withdraw", "a", 1, op_id=("s", 3)),
        call("deposit", "a", 10, op_id=("s", 2)),
        call("open_account", "a", 100, op_id=("s", 1)),
    )
    assert again == [deposited, withdrawn, deposited, opened]
    assert accounts.balance("a") == withdrawn == Receipt(3, 109, opened.epoch)


def test_a_transfer_sent_again_has_one_effect_and_its_first_receipts(accounts: Accounts, claims: Capabilities) -> None:
    source, target = a_pair_in_scope(accounts, claims)
    receipts = accounts.transfer(source, target, 30, op_id=("s", 1))
    accounts.deposit(source, 1)
    assert accounts.transfer(source, target, 30, op_id=("s", 1)) == receipts
    assert [receipt[:2] for receipt in receipts] == [(2, 70), (2, 130)]
    assert (accounts.balance(source).balance, accounts.balance(target).balance) == (71, 130)


def test_the_answer_is_the_first_one_whatever_happened_since(accounts: Accounts) -> None:
    accounts.open_account("a", 100)
    first = accounts.withdraw("a", 100, op_id=("s", 1))
    accounts.deposit("a", 5)
    assert accounts.withdraw("a", 100, op_id=("s", 1)) == first
    assert accounts.balance("a").balance == 5


def test_calls_without_an_op_id_are_never_taken_for_one_another(accounts: Accounts) -> None:
    accounts.open_account("a")
    assert [receipt.balance for receipt in outcomes(accounts, *[call("deposit", "a", 1)] * 4)] == [1, 2, 3, 4]


def test_an_op_id_can_be_a_named_tuple(accounts: Accounts) -> None:
    accounts.open_account("a")
    assert accounts.deposit("a", 1, op_id=OpId("s", 1)) == accounts.deposit("a", 1, op_id=("s", 1))
    assert accounts.balance("a").balance == 1


def test_too_small_funds_stay_the_answer_when_money_arrived(accounts: Accounts) -> None:
    accounts.open_account("a", 5)
    answers = outcomes(
        accounts,
        call("withdraw", "a", 10, op_id=("s", 1)),
        call("deposit", "a", 100),
        call("withdraw", "a", 10, op_id=("s", 1)),
    )
    assert kinds(answers) == [InsufficientFunds, Receipt, InsufficientFunds]
    with pytest.raises(InsufficientFunds):
        accounts.withdraw("a", 10, op_id=("s", 1))
    assert accounts.balance("a")[:2] == (2, 105)
    assert accounts.withdraw("a", 10, op_id=("s", 2)).balance == 95


def test_an_account_that_exists_stays_the_answer(accounts: Accounts) -> None:
    accounts.open_account("a", 5)
    for _ in range(2):
        with pytest.raises(AccountExists):
            accounts.open_account("a", 5, op_id=("s", 1))
        accounts.deposit("a", 1)


def test_an_unknown_account_stays_the_answer_within_a_handle(accounts: Accounts) -> None:
    calls = [
        call("deposit", "a", 10, op_id=("s", 1)),
        call("open_account", "a", 1),
        call("deposit", "a", 10, op_id=("s", 1)),
    ]
    answers = outcomes(accounts, *calls)
    assert kinds(answers) == [UnknownAccount, Receipt, UnknownAccount]
    assert accounts.balance("a")[:2] == (1, 1)


def test_an_unknown_account_stays_the_answer_through_another_handle(open_handle: Opener) -> None:
    one, other = open_handle(), open_handle()
    with pytest.raises(UnknownAccount):
        one.deposit("a", 10, op_id=("s", 1))
    one.open_account("a", 1)
    with pytest.raises(UnknownAccount):
        other.deposit("a", 10, op_id=("s", 1))
    assert one.balance("a")[:2] == (1, 1)


def test_a_refused_amount_stays_the_answer(accounts: Accounts) -> None:
    accounts.open_account("a", 2**53 - 1)
    answers = outcomes(
        accounts,
        call("deposit", "a", 1, op_id=("s", 1)),
        call("withdraw", "a", 10),
        call("deposit", "a", 1, op_id=("s", 1)),
    )
    assert kinds(answers) == [InvalidAmount, Receipt, InvalidAmount]


def test_another_payload_under_the_same_op_id_is_a_mismatch(accounts: Accounts) -> None:
    accounts.open_account("a", 100, op_id=("s", 1))
    first = accounts.deposit("a", 10, op_id=("s", 2))
    with pytest.raises(InsufficientFunds):
        accounts.withdraw("a", 1_000, op_id=("s", 3))
    answers = outcomes(
        accounts,
        call("deposit", "a", 11, op_id=("s", 2)),
        call("withdraw", "a", 10, op_id=("s", 2)),
        call("open_account", "a", 10, op_id=("s", 2)),
        call("open_account", "a", 101, op_id=("s", 1)),
        call("deposit", "a", 100, op_id=("s", 1)),
        call("withdraw", "a", 999, op_id=("s", 3)),
        call("deposit", "a", 1_000, op_id=("s", 3)),
    )
    assert kinds(answers) == [OperationMismatch] * 7
    assert accounts.balance("a") == first
    assert accounts.deposit("a", 10, op_id=("s", 2)) == first, "a mismatch is not what is remembered"


def test_another_account_under_the_same_op_id_is_a_mismatch_within_a_handle(accounts: Accounts) -> None:
    names = [f"account-{number}" for number in range(6)]
    outcomes(accounts, *(call("open_account", name, 50) for name in names))
    answers = outcomes(accounts, *(call("deposit", name, 5, op_id=("s", 1)) for name in names))
    assert kinds(answers) == [Receipt] + [OperationMismatch] * 5
    assert [accounts.balance(name).balance for name in names] == [55] + [50] * 5


def test_another_target_under_the_same_op_id_is_a_mismatch(accounts: Accounts, claims: Capabilities) -> None:
    source, target = a_pair_in_scope(accounts, claims)
    receipts = accounts.transfer(source, target, 30, op_id=("s", 1))
    answers = outcomes(
        accounts,
        call("transfer", source, target, 31, op_id=("s", 1)),
        call("transfer", target, source, 30, op_id=("s", 1)),
        call("transfer", source, source, 30, op_id=("s", 1)),
        call("withdraw", source, 30, op_id=("s", 1)),
        call("deposit", target, 30, op_id=("s", 1)),
    )
    assert kinds(answers) == [OperationMismatch] * 5
    assert [accounts.balance(source), accounts.balance(target)] == list(receipts)


def test_names_that_run_together_are_different_payloads(accounts: Accounts, claims: Capabilities) -> None:
    """transfer(ab, c) and transfer(a, bc) must not look the same to whoever glues names together."""
    if claims.transfers is not Transfers.ANY:
        pytest.skip("claims no transfers between any accounts")
    outcomes(accounts, *(call("open_account", name, 10) for name in ("ab", "c", "a", "bc", "a b", "a\0b")))
    for number, (one, other) in enumerate(
        [(("ab", "c"), ("a", "bc")), (("a b", "c"), ("a", "bc")), (("a\0b", "c"), ("a", "bc"))]
    ):
        answers = outcomes(
            accounts, call("transfer", *one, 1, op_id=("s", number)), call("transfer", *other, 1, op_id=("s", number))
        )
        assert kinds(answers) == [tuple, OperationMismatch]


def test_out_of_scope_stays_the_answer(accounts: Accounts, claims: Capabilities) -> None:
    if claims.transfers is Transfers.ANY:
        pytest.skip("no pair is out of scope")
    names = [f"account-{number}" for number in range(9)]
    outcomes(accounts, *(call("open_account", name, 100) for name in names))
    calls = [call("transfer", names[0], target, 1, op_id=("s", number)) for number, target in enumerate(names[1:])]
    first = outcomes(accounts, *calls)
    assert OutOfScope in kinds(first)
    again = outcomes(accounts, *calls)
    assert kinds(again) == kinds(first)


def test_a_number_that_left_the_window_is_expired_and_not_applied(accounts: Accounts) -> None:
    accounts.open_account("a", 100)
    outcomes(accounts, call("deposit", "a", 1, op_id=("s", 5)), call("withdraw", "a", 1_000, op_id=("s", 6)))
    last = accounts.deposit("a", 1, op_id=("s", 6 + DEDUP_WINDOW))
    answers = outcomes(
        accounts,
        call("deposit", "a", 1, op_id=("s", 5)),  # applied long ago
        call("withdraw", "a", 1_000, op_id=("s", 6)),  # rejected long ago
        call("deposit", "a", 1, op_id=("s", 4)),  # never sent
        call("deposit", "a", 1, op_id=("s", 0)),
    )
    assert kinds(answers) == [OperationExpired] * 4
    assert accounts.balance("a") == last == Receipt(3, 102, last.epoch)


def test_the_windows_edge_is_still_remembered(accounts: Accounts) -> None:
    accounts.open_account("a", 100)
    first = accounts.deposit("a", 1, op_id=("s", 7))
    with pytest.raises(InsufficientFunds):
        accounts.withdraw("a", 1_000, op_id=("s", 8))
    accounts.deposit("a", 1, op_id=("s", 6 + DEDUP_WINDOW))
    answers = outcomes(
        accounts,
        call("deposit", "a", 1, op_id=("s", 7)),
        call("withdraw", "a", 1_000, op_id=("s", 8)),
        call("deposit", "a", 2, op_id=("s", 7)),
    )
    assert answers[0] == first
    assert kinds(answers[1:]) == [InsufficientFunds, OperationMismatch]
    assert accounts.balance("a").balance == 102


def test_numbers_may_come_out_of_order_within_the_window(accounts: Accounts) -> None:
    accounts.open_account("a")
    numbers = [9_000, 2, 8_999, 0, 5, 4_000, 1]
    first = outcomes(accounts, *(call("deposit", "a", 1, op_id=("s", number)) for number in numbers))
    assert [receipt.seq for receipt in first] == list(range(2, len(numbers) + 2))
    again = outcomes(accounts, *(call("deposit", "a", 1, op_id=("s", number)) for number in sorted(numbers)))
    assert {receipt.seq: number for number, receipt in zip(sorted(numbers), again, strict=True)} == {
        receipt.seq: number for number, receipt in zip(numbers, first, strict=True)
    }
    assert accounts.balance("a").balance == len(numbers)


def test_a_slots_earlier_number_is_not_taken_for_the_new_one(accounts: Accounts) -> None:
    """Numbers that are one window apart, with the same payload."""
    accounts.open_account("a")
    numbers = [3, 3 + DEDUP_WINDOW, 3 + 2 * DEDUP_WINDOW]
    answers = outcomes(accounts, *(call("deposit", "a", 1, op_id=("s", number)) for number in numbers))
    assert [receipt[:2] for receipt in answers] == [(2, 1), (3, 2), (4, 3)]


def test_large_numbers_are_told_apart(accounts: Accounts) -> None:
    accounts.open_account("a")
    numbers = [2**53 - 3, 2**53 - 2, 2**53 - 1]
    first = outcomes(accounts, *(call("deposit", "a", 1, op_id=("s", number)) for number in numbers))
    assert [receipt.balance for receipt in first] == [1, 2, 3]
    assert outcomes(accounts, *(call("deposit", "a", 1, op_id=("s", number)) for number in numbers)) == first


def test_sessions_do_not_share_numbers(accounts: Accounts) -> None:
    accounts.open_account("a")
    sessions = ["s", "t", "S", "s ", "x" * 256, "Zoë", "{s}", "s:1", "highest"]
    first = outcomes(accounts, *(call("deposit", "a", 1, op_id=(session, 1)) for session in sessions))
    assert [receipt.balance for receipt in first] == list(range(1, len(sessions) + 1))
    accounts.deposit("a", 1, op_id=("s", 1 + DEDUP_WINDOW))
    again = outcomes(accounts, *(call("deposit", "a", 1, op_id=(session, 1)) for session in sessions))
    assert kinds(again[:1]) == [OperationExpired]
    assert again[1:] == first[1:]


def test_another_handle_gets_the_first_receipt_too(open_handle: Opener, row: Row) -> None:
    one, other = open_handle(), open_handle()
    one.open_account("a", 100)
    receipt = one.withdraw("a", 10, op_id=("s", 1))
    with pytest.raises(InsufficientFunds):
        one.withdraw("a", 1_000, op_id=("s", 2))
    one.deposit("a", 5_000)
    copies = [other, pickle.loads(pickle.dumps(one))] if row.caller is Caller.DRIVER else [other]
    for copy in copies:
        answers = outcomes(
            copy,
            call("withdraw", "a", 10, op_id=("s", 1)),
            call("withdraw", "a", 1_000, op_id=("s", 2)),
            call("withdraw", "a", 11, op_id=("s", 1)),
        )
        assert answers[0] == receipt
        assert kinds(answers[1:]) == [InsufficientFunds, OperationMismatch]
        copy.close()
    assert open_handle().balance("a")[:2] == (3, 5_090)


def test_every_remembered_rejection_reads_like_the_first(accounts: Accounts) -> None:
    accounts.open_account("a", 5)
    calls = [
        call("withdraw", "a", 10, op_id=("s", 1)),
        call("deposit", "a", 0, op_id=("s", 2)),
        call("open_account", "a", op_id=("s", 3)),
    ]
    first, again = outcomes(accounts, *calls), outcomes(accounts, *calls)
    assert all(isinstance(answer, Rejected) for answer in first)
    assert [(type(answer), str(answer)) for answer in again] == [(type(answer), str(answer)) for answer in first]
