"""What is refused, with which error, and that nothing changed then."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest

from strategies.interface import (
    MAX_MONEY,
    AccountError,
    AccountExists,
    Accounts,
    Capabilities,
    InsufficientFunds,
    InvalidAccount,
    InvalidAmount,
    OutOfScope,
    Receipt,
    Rejected,
    Transfers,
    UnknownAccount,
)
from tests.contract.callers import Call, call, outcomes

NOT_AMOUNTS = (
    1.0,
    0.5,
    float("nan"),
    "1",
    b"1",
    None,
    True,
    False,
    Decimal(1),
    Fraction(1),
    1j,
    [1],
    numpy.float64(1),
    numpy.bool_(True),
)
NOT_NAMES = (None, 1, 1.5, True, b"a", ("a",), ["a"])
BAD_NAMES = ("", "x" * 257, "é" * 129, "x" + "💰" * 64, "\ud800", "half \udc9f a pair")
NOT_OP_IDS: tuple[Any, ...] = (
    "s",
    1,
    ("s",),
    ("s", 1, 2),
    ["s", 1],
    (1, "s"),
    ("s", 1.0),
    ("s", "1"),
    ("s", None),
    ("s", True),
    (None, 1),
    (b"s", 1),
    {},
)
BAD_OP_IDS = (("", 1), ("s", -1), ("s", 2**53), ("x" * 257, 1), ("a\nb", 1), ("\ud800", 1))


def refused(accounts: Accounts, error: type[Exception], calls: Sequence[Call]) -> None:
    """Assert that each call raises `error`, and that the bank is as it was before them."""
    before = accounts.snapshot()
    assert before, "there must be something that could change"
    answers = outcomes(accounts, *calls)
    wrong = {str(made): answer for made, answer in zip(calls, answers, strict=True) if type(answer) is not error}
    assert not wrong
    assert accounts.snapshot() == before
    for answer in answers:
        assert str(answer), "a message says what to do"


def changes_with(account: Any = "a", amount: Any = 1, op_id: Any = None) -> list[Call]:
    """Every method that changes, once."""
    return [
        call("open_account", account if account != "a" else "new", amount, op_id=op_id),
        call("deposit", account, amount, op_id=op_id),
        call("withdraw", account, amount, op_id=op_id),
        call("transfer", account, account, amount, op_id=op_id),
    ]


def in_scope(claims: Capabilities, calls: Sequence[Call]) -> list[Call]:
    """Without transfers where none are claimed: they are `OutOfScope` or worse."""
    return [each for each in calls if each.method != "transfer" or claims.transfers is not Transfers.NONE]


@pytest.fixture
def funded(accounts: Accounts) -> Accounts:
    """A bank with 100 in account "a"."""
    accounts.open_account("a", 100)
    return accounts


def test_an_unknown_account(funded: Accounts, claims: Capabilities) -> None:
    calls = [call("deposit", "b", 1), call("withdraw", "b", 1), call("transfer", "b", "b", 1), call("balance", "b")]
    refused(funded, UnknownAccount, in_scope(claims, calls))
    refused(funded, UnknownAccount, in_scope(claims, [each._replace(options={"op_id": ("s", number)})
                                                      for number, each in enumerate(calls[:3])]))  # fmt: skip


def test_a_transfer_with_one_unknown_account_has_no_leg(funded: Accounts, claims: Capabilities) -> None:
    """Which of the two is known makes no difference. Where the pair is out of scope, that is as good an answer."""
    before = funded.snapshot()
    names = [f"unknown-{number}" for number in range(8)]
    pairs = [("a", name) for name in names] + [(name, "a") for name in names]
    answers = outcomes(funded, *(call("transfer", *pair, 1) for pair in pairs))
    allowed = {UnknownAccount} if claims.transfers is Transfers.ANY else {UnknownAccount, OutOfScope}
    assert {type(answer) for answer in answers} <= allowed
    assert funded.snapshot() == before


def test_an_account_that_exists(funded: Accounts) -> None:
    refused(
        funded,
        AccountExists,
        [call("open_account", "a"), call("open_account", "a", 100), call("open_account", "a", 5, op_id=("s", 1))],
    )


def test_insufficient_funds(funded: Accounts, claims: Capabilities) -> None:
    calls = [
        call("withdraw", "a", 101),
        call("withdraw", "a", MAX_MONEY),
        call("withdraw", "a", 101, op_id=("s", 1)),
        call("transfer", "a", "a", 101),
        call("transfer", "a", "a", 101, op_id=("s", 2)),
    ]
    refused(funded, InsufficientFunds, in_scope(claims, calls))
    assert funded.withdraw("a", 100).balance == 0
    refused(funded, InsufficientFunds, [call("withdraw", "a", 1)])


def test_amounts_out_of_range(funded: Accounts, claims: Capabilities) -> None:
    amounts = (-1, -100, -(2**53), -(2**70), MAX_MONEY + 1, 2**63, 2**64, 10**30)
    calls = [each for amount in amounts for each in changes_with(amount=amount)]
    calls += changes_with(amount=0)[1:]  # an opening of 0 is a good one
    refused(funded, InvalidAmount, in_scope(claims, calls))
    refused(funded, InvalidAmount, in_scope(claims, changes_with(amount=-1, op_id=("s", 1))[3:]))
    refused(
        funded, InvalidAmount, [call("deposit", "a", 0, op_id=("s", 2)), call("deposit", "a", 2**80, op_id=("s", 3))]
    )


def test_an_account_whose_opening_was_refused_is_not_open(funded: Accounts) -> None:
    refused(funded, InvalidAmount, [call("open_account", "b", -1), call("open_account", "b", MAX_MONEY + 1)])
    refused(funded, UnknownAccount, [call("balance", "b"), call("deposit", "b", 1)])
    assert funded.open_account("b", 3)[:2] == (1, 3)


def test_a_balance_cannot_pass_the_largest(accounts: Accounts, claims: Capabilities) -> None:
    accounts.open_account("a", MAX_MONEY)
    refused(
        accounts,
        InvalidAmount,
        [call("deposit", "a", 1), call("deposit", "a", MAX_MONEY), call("deposit", "a", 1, op_id=("s", 1))],
    )
    accounts.withdraw("a", 1)
    refused(accounts, InvalidAmount, [call("deposit", "a", 2)])
    assert accounts.deposit("a", 1).balance == MAX_MONEY


def test_a_transfer_cannot_take_its_target_past_the_largest(accounts: Accounts, claims: Capabilities) -> None:
    if claims.transfers is Transfers.NONE:
        pytest.skip("claims no transfers")
    names = [f"full-{number}" for number in range(8)]
    accounts.open_account("a", 5)
    outcomes(accounts, *(call("open_account", name, MAX_MONEY) for name in names))
    before = accounts.snapshot()
    answers = outcomes(accounts, *(call("transfer", "a", name, 1) for name in names))
    assert InvalidAmount in map(type, answers)
    assert {type(answer) for answer in answers} <= {
        InvalidAmount,
        *([OutOfScope] if claims.transfers is not Transfers.ANY else []),
    }
    assert accounts.snapshot() == before


@pytest.mark.alike
def test_amounts_of_the_wrong_type(funded: Accounts) -> None:
    refused(funded, TypeError, [each for amount in NOT_AMOUNTS for each in changes_with(amount=amount)])
    refused(funded, TypeError, [each for amount in (1.0, True) for each in changes_with(amount=amount, op_id=("s", 1))])


@pytest.mark.alike
def test_accounts_of_the_wrong_type(funded: Accounts) -> None:
    refused(funded, TypeError, [each for name in NOT_NAMES for each in changes_with(account=name)])
    refused(funded, TypeError, [call("balance", name) for name in NOT_NAMES])
    refused(funded, TypeError, [call("transfer", "a", name, 1) for name in NOT_NAMES])


@pytest.mark.alike
def test_ids_that_cannot_name_an_account(funded: Accounts) -> None:
    refused(funded, InvalidAccount, [each for name in BAD_NAMES for each in changes_with(account=name)])
    refused(funded, InvalidAccount, [call("balance", name) for name in BAD_NAMES])
    refused(funded, InvalidAccount, [call("deposit", name, 1, op_id=("s", n)) for n, name in enumerate(BAD_NAMES)])
    refused(funded, InvalidAccount, [call("transfer", "a", name, 1) for name in BAD_NAMES])


@pytest.mark.alike
def test_op_ids_of_the_wrong_type_or_out_of_range(funded: Accounts) -> None:
    refused(funded, TypeError, [each for op_id in NOT_OP_IDS for each in changes_with(op_id=op_id)])
    refused(funded, ValueError, [each for op_id in BAD_OP_IDS for each in changes_with(op_id=op_id)])


def test_rejections_are_account_errors_with_one_sentence(funded: Accounts) -> None:
    answers = outcomes(
        funded, call("withdraw", "a", 101), call("deposit", "a", 0), call("balance", "b"), call("open_account", "a")
    )
    for answer in answers:
        assert isinstance(answer, Rejected)
        assert isinstance(answer, AccountError)
        assert "\n" not in str(answer)
    assert isinstance(funded.balance("a"), Receipt)
