"""What each method does when nothing is wrong."""

from __future__ import annotations

import itertools

import numpy
import pytest

from strategies.interface import MAX_MONEY, Accounts, Capabilities, OutOfScope, Receipt, Transfers
from tests.contract.callers import call, outcomes
from tests.contract.conftest import Opener

ODD_IDS = (
    "Zoë", "口座", "💰", "e\u0301", "x" * 256, "é" * 128, " ", "two words", " padded ", "a:b", "line\nbreak", "\r\n",
    "\t", "NUL\0inside", "\0", "{braces}", "}{", "{", "a/b", "a%b", "*", "[a-c]", "'", '"', "\\", "None", "0", "-1",
    "-UnknownAccount",
)  # fmt: skip


def test_each_method_answers_with_the_receipt_of_its_change(accounts: Accounts) -> None:
    opened, deposited, withdrawn, read, snapshot = outcomes(
        accounts,
        call("open_account", "a", 100),
        call("deposit", "a", 25),
        call("withdraw", "a", 5),
        call("balance", "a"),
        call("snapshot"),
    )
    assert type(opened) is Receipt
    assert opened[:2] == (1, 100)
    assert deposited[:2] == (2, 125)
    assert withdrawn[:2] == (3, 120)
    assert read == withdrawn
    assert snapshot == {"a": withdrawn}


def test_numbers_in_receipts_are_ints_and_the_epoch_stays(accounts: Accounts) -> None:
    receipts = outcomes(accounts, call("open_account", "a", 1), call("deposit", "a", 1), call("balance", "a"))
    assert all(
        type(receipt) is Receipt and [type(field) for field in receipt] == [int, int, int] for receipt in receipts
    )
    assert receipts[0].epoch > 0
    assert len({receipt.epoch for receipt in receipts}) == 1


def test_an_account_opens_with_nothing_unless_told(accounts: Accounts) -> None:
    assert accounts.open_account("a")[:2] == (1, 0)
    assert accounts.balance("a")[:2] == (1, 0)


def test_a_bank_is_blank_at_first(accounts: Accounts) -> None:
    assert accounts.snapshot() == {}


def test_seq_counts_each_accounts_changes_without_gaps(accounts: Accounts) -> None:
    changes = [
        call(*each) for each in (("deposit", "a", 3), ("withdraw", "b", 1), ("withdraw", "a", 2), ("deposit", "b", 9))
    ]
    rejected = [call("withdraw", "a", 1_000), call("deposit", "a", 0), call("open_account", "b")]
    reads = [call("balance", "a"), call("snapshot")]
    calls = [call("open_account", "a", 10), call("open_account", "b", 10)]
    for change in changes * 3:
        calls += [change, *rejected, *reads]
    answers = outcomes(accounts, *calls)
    for account in ("a", "b"):
        own = [answer for answer, made in zip(answers, calls, strict=True) if made.args[:1] == (account,)]
        changed = [receipt for receipt in own if isinstance(receipt, Receipt)]
        assert list(dict.fromkeys(receipt.seq for receipt in changed)) == list(range(1, 8))
    assert {account: receipt[:2] for account, receipt in accounts.snapshot().items()} == {"a": (7, 13), "b": (7, 34)}


def test_all_of_a_balance_can_be_withdrawn(accounts: Accounts) -> None:
    accounts.open_account("a", 7)
    assert accounts.withdraw("a", 7)[:2] == (2, 0)


def test_the_largest_balance_is_kept_exactly(accounts: Accounts) -> None:
    answers = outcomes(
        accounts,
        call("open_account", "a", MAX_MONEY),
        call("withdraw", "a", 1),
        call("deposit", "a", 1),
        call("withdraw", "a", MAX_MONEY),
        call("deposit", "a", MAX_MONEY),
        call("balance", "a"),
    )
    assert [receipt.balance for receipt in answers] == [MAX_MONEY, MAX_MONEY - 1, MAX_MONEY, 0, MAX_MONEY, MAX_MONEY]


def test_numpy_integers_are_amounts(accounts: Accounts) -> None:
    answers = outcomes(
        accounts,
        call("open_account", "a", numpy.int64(10)),
        call("deposit", "a", numpy.uint8(5)),
        call("withdraw", "a", numpy.int32(3), op_id=("s", 1)),
        call("withdraw", "a", 3, op_id=("s", 1)),
        call("balance", "a"),
    )
    assert [receipt[:2] for receipt in answers] == [(1, 10), (2, 15), (3, 12), (3, 12), (3, 12)]
    assert type(answers[-1].balance) is int


def test_any_text_of_up_to_256_bytes_names_an_account(accounts: Accounts) -> None:
    opened = outcomes(accounts, *(call("open_account", account, number) for number, account in enumerate(ODD_IDS)))
    deposited = outcomes(accounts, *(call("deposit", account, 1) for account in ODD_IDS))
    read = outcomes(accounts, *(call("balance", account) for account in ODD_IDS))
    assert [receipt[:2] for receipt in opened] == [(1, number) for number in range(len(ODD_IDS))]
    assert [receipt[:2] for receipt in deposited] == [(2, number + 1) for number in range(len(ODD_IDS))]
    assert read == deposited
    assert accounts.snapshot() == dict(zip(ODD_IDS, deposited, strict=True))


def test_ids_that_look_alike_are_different_accounts(accounts: Accounts) -> None:
    """No normalisation, no trimming, no folding of case."""
    alike = ["é", "e\u0301", "E\u0301", "a", "A", "a ", " a", "a\0", "a\n"]
    outcomes(accounts, *(call("open_account", account, number) for number, account in enumerate(alike)))
    assert {account: receipt.balance for account, receipt in accounts.snapshot().items()} == {
        account: number for number, account in enumerate(alike)
    }


def test_transfers_move_money_within_the_claimed_scope(accounts: Accounts, claims: Capabilities) -> None:
    names = [f"account-{number}" for number in range(9)]
    outcomes(accounts, *(call("open_account", name, 100) for name in names))
    before = accounts.snapshot()
    pairs = list(itertools.permutations(names, 2))
    answers = outcomes(accounts, *(call("transfer", *pair, 1) for pair in pairs))
    after = accounts.snapshot()
    moved = [(pair, answer) for pair, answer in zip(pairs, answers, strict=True) if not isinstance(answer, OutOfScope)]
    refused = {pair for pair, answer in zip(pairs, answers, strict=True) if isinstance(answer, OutOfScope)}

    expected = {name: before[name][:2] for name in names}
    for (source, target), receipts in moved:
        assert isinstance(receipts, tuple)
        seq, balance = expected[source]
        expected[source] = (seq + 1, balance - 1)
        seq, balance = expected[target]
        expected[target] = (seq + 1, balance + 1)
        assert [receipt[:2] for receipt in receipts] == [expected[source], expected[target]]
        assert [receipt.epoch for receipt in receipts] == [before[source].epoch, before[target].epoch]
    assert {name: receipt[:2] for name, receipt in after.items()} == expected

    assert refused == {(target, source) for source, target in refused}, "a pair is in scope both ways or not at all"
    if claims.transfers is Transfers.ANY:
        assert not refused
    elif claims.transfers is Transfers.SAME_SHARD:
        assert moved, "some of nine accounts share a shard"
        assert refused, "if all pairs are in scope, claim ANY"
    else:
        assert not moved


def test_a_transfer_to_oneself_is_two_changes_that_cancel_out(accounts: Accounts, claims: Capabilities) -> None:
    if claims.transfers is Transfers.NONE:
        pytest.skip("claims no transfers")
    accounts.open_account("a", 10)
    receipts = accounts.transfer("a", "a", 4)
    assert [receipt[:2] for receipt in receipts] == [(2, 6), (3, 10)]
    assert accounts.balance("a") == receipts[1]


def test_a_snapshot_holds_every_account(accounts: Accounts) -> None:
    names = [f"account-{number}" for number in range(25)]
    opened = outcomes(accounts, *(call("open_account", name, number) for number, name in enumerate(names)))
    snapshot = accounts.snapshot()
    assert type(snapshot) is dict
    assert snapshot == dict(zip(names, opened, strict=True))


def test_reads_change_nothing(accounts: Accounts) -> None:
    accounts.open_account("a", 5)
    answers = outcomes(accounts, *[call("balance", "a"), call("snapshot")] * 3)
    assert answers == [Receipt(1, 5, answers[0].epoch), {"a": answers[0]}] * 3


def test_two_handles_see_each_others_changes(open_handle: Opener) -> None:
    one, other = open_handle(), open_handle()
    one.open_account("a", 1)
    assert other.deposit("a", 2)[:2] == (2, 3)
    assert one.deposit("a", 3)[:2] == (3, 6)
    other.open_account("b", 7)
    assert one.balance("b")[:2] == (1, 7)
    assert one.snapshot() == other.snapshot()


def test_the_state_outlives_the_handle(open_handle: Opener) -> None:
    first = open_handle()
    first.open_account("a", 1)
    receipt = first.deposit("a", 2, op_id=("s", 1))
    first.close()
    second = open_handle()
    assert second.balance("a") == receipt
    assert second.deposit("a", 2, op_id=("s", 1)) == receipt
    assert second.deposit("a", 4)[:2] == (3, 7)


def test_the_context_manager_closes(open_handle: Opener) -> None:
    with open_handle() as accounts:
        accounts.open_account("a", 1)
    assert open_handle().balance("a")[:2] == (1, 1)
