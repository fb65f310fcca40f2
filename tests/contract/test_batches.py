"""Many operations in one call, where that is claimed: each has the fate that a call of its own would have."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from strategies.interface import (
    DEDUP_WINDOW,
    MAX_BATCH,
    MAX_MONEY,
    AccountError,
    AccountExists,
    Accounts,
    Batched,
    Capabilities,
    Function,
    InsufficientFunds,
    InvalidAccount,
    InvalidAmount,
    Operation,
    OperationExpired,
    OperationMismatch,
    OpId,
    OutOfScope,
    Receipt,
    Retries,
    Transfers,
    Unavailable,
    UnknownAccount,
)
from tests.contract.callers import InTasks, Outcome, call, kinds, outcomes
from tests.contract.conftest import Opener
from tests.contract.rows import Row

OPEN, DEPOSIT, WITHDRAW = Function.OPEN_ACCOUNT, Function.DEPOSIT, Function.WITHDRAW
TRANSFER, BALANCE = Function.TRANSFER, Function.BALANCE
NAMES = [f"account-{number}" for number in range(9)]


@pytest.fixture(autouse=True)
def _only_where_claimed(row: Row) -> None:
    if not issubclass(row.place.kind, Batched):
        pytest.skip("claims no batches")


@pytest.fixture
def _retries(claims: Capabilities) -> None:
    if claims.retries is not Retries.SAFE_WITH_OP_ID:
        pytest.skip("claims no safe retries")


def apply(accounts: Accounts, *operations: Operation) -> Any:
    """The batch's answers, or the error that it raised."""
    return outcomes(accounts, call("apply", list(operations)))[0]


def applied(accounts: Accounts, *operations: Operation) -> list[Any]:
    answers = apply(accounts, *operations)
    assert isinstance(answers, list), answers
    assert len(answers) == len(operations)
    return answers


def one_by_one(accounts: Accounts, operations: Sequence[Operation]) -> list[Outcome]:
    """The same operations as calls."""
    calls = []
    for function, account, amount, target, op_id in operations:
        if function is BALANCE:
            calls.append(call("balance", account))
        elif function is TRANSFER:
            calls.append(call("transfer", account, target, amount, op_id=op_id))
        else:
            calls.append(call(function.value, account, amount, op_id=op_id))
    return outcomes(accounts, *calls)


def plain(answer: Any) -> Any:
    """An answer without its epochs."""
    if isinstance(answer, AccountError):
        return type(answer)
    return answer[:2] if isinstance(answer, Receipt) else tuple(leg[:2] for leg in answer)


def opened(accounts: Accounts) -> list[Receipt]:
    return applied(accounts, *(Operation(OPEN, name, 100) for name in NAMES))


def test_each_operation_has_its_receipt_in_its_place(accounts: Accounts) -> None:
    assert [receipt[:2] for receipt in opened(accounts)] == [(1, 100)] * len(NAMES)
    answers = applied(
        accounts,
        *(Operation(DEPOSIT, name, number + 1) for number, name in enumerate(NAMES)),
        *(Operation(WITHDRAW, name, number) for number, name in enumerate(NAMES[1:], start=1)),
        *(Operation(BALANCE, name) for name in NAMES),
    )
    assert {type(answer) for answer in answers} == {Receipt}
    assert [receipt.balance for receipt in answers] == [101 + n for n in range(9)] + [101] * 8 + [101] * 9
    assert dict(zip(NAMES, answers[-9:], strict=True)) == accounts.snapshot()


def test_operations_on_one_account_keep_their_order(accounts: Accounts) -> None:
    opened(accounts)
    operations = [Operation(DEPOSIT, NAMES[n % 3], 1) for n in range(300)]
    answers = applied(accounts, *operations)
    for name in NAMES[:3]:
        own = [answer.seq for each, answer in zip(operations, answers, strict=True) if each.account == name]
        assert own == list(range(2, 102))


def test_a_batch_sees_what_came_before_in_it(accounts: Accounts) -> None:
    answers = applied(
        accounts,
        Operation(DEPOSIT, "a", 1),
        Operation(OPEN, "a", 5),
        Operation(OPEN, "a", 5),
        Operation(WITHDRAW, "a", 6),
        Operation(DEPOSIT, "a", 1),
        Operation(WITHDRAW, "a", 6),
        Operation(BALANCE, "a"),
    )
    assert list(map(plain, answers)) == [
        UnknownAccount, (1, 5), AccountExists, InsufficientFunds, (2, 6), (3, 0), (3, 0),
    ]  # fmt: skip


def test_rejections_in_the_middle_change_nothing_for_their_neighbours(accounts: Accounts) -> None:
    opened(accounts)
    bad = {
        Operation(DEPOSIT, "unknown", 1): UnknownAccount,
        Operation(BALANCE, "unknown"): UnknownAccount,
        Operation(WITHDRAW, NAMES[0], 1_000): InsufficientFunds,
        Operation(DEPOSIT, NAMES[1], 0): InvalidAmount,
        Operation(DEPOSIT, NAMES[2], MAX_MONEY): InvalidAmount,
        Operation(DEPOSIT, NAMES[2], 2**70): InvalidAmount,
        Operation(OPEN, NAMES[3], 1): AccountExists,
        Operation(OPEN, "new", -1): InvalidAmount,
        Operation(DEPOSIT, "", 1): InvalidAccount,
        Operation(OPEN, "x" * 257, 1): InvalidAccount,
        Operation(BALANCE, "\ud800"): InvalidAccount,
    }
    good = [Operation(DEPOSIT, name, 1) for name in NAMES]
    operations = [each for pair in zip(bad, good * 2, strict=False) for each in pair]
    answers = applied(accounts, *operations)
    assert kinds(answers[::2]) == list(bad.values())
    assert all("\n" not in str(answer) and str(answer) for answer in answers[::2])
    assert {type(answer) for answer in answers[1::2]} == {Receipt}
    assert sum(receipt.balance for receipt in accounts.snapshot().values()) == 100 * len(NAMES) + len(bad)


def test_a_batch_is_what_its_operations_are_one_by_one(open_handle: Opener, claims: Capabilities) -> None:
    """Of two banks' worth of accounts in one bank: one is changed by batches, the other by calls."""
    randomly = random.Random(20)
    accounts = open_handle()
    transfers = [] if claims.transfers is Transfers.NONE else [TRANSFER]
    for batch in range(3):
        operations = [
            Operation(
                randomly.choice([OPEN, DEPOSIT, WITHDRAW, BALANCE, *transfers]),
                name := randomly.choice(NAMES),
                randomly.choice([0, 1, 5, 50, 500]),
                name,
                randomly.choice(
                    [None, OpId(f"s{batch}", randomly.randrange(20)), OpId(f"t{batch}", randomly.randrange(20))]
                )
                if claims.retries is Retries.SAFE_WITH_OP_ID
                else None,
            )
            for _ in range(60)
        ]
        together = applied(accounts, *operations)
        others = [
            each._replace(
                account=f"{each.account}'",
                target=f"{each.target}'",
                op_id=each.op_id and OpId(f"{each.op_id.session}'", each.op_id.number),
            )
            for each in operations
        ]
        assert list(map(plain, together)) == list(map(plain, one_by_one(accounts, others)))
    found = {name: receipt[:2] for name, receipt in accounts.snapshot().items()}
    assert found
    for name in NAMES:
        assert found.get(name) == found.get(f"{name}'")


def test_transfers_within_a_batch(accounts: Accounts, claims: Capabilities) -> None:
    opened(accounts)
    operations = [Operation(TRANSFER, NAMES[0], 5, target, OpId("s", n)) for n, target in enumerate(NAMES)]
    answers = applied(accounts, *operations, Operation(DEPOSIT, NAMES[0], 1))
    assert isinstance(answers.pop(), Receipt)
    moved = [answer for answer in answers if not isinstance(answer, OutOfScope)]
    assert {type(answer) for answer in moved} <= {tuple}
    assert [type(leg) for answer in moved for leg in answer] == [Receipt] * (2 * len(moved))
    assert sum(receipt.balance for receipt in accounts.snapshot().values()) == 100 * len(NAMES) + 1
    if claims.transfers is Transfers.ANY:
        assert len(moved) == len(NAMES)
    elif claims.transfers is Transfers.NONE:
        assert not moved
    else:
        assert 0 < len(moved) < len(NAMES)
    if claims.retries is Retries.SAFE_WITH_OP_ID:
        assert list(map(plain, applied(accounts, *operations))) == list(map(plain, answers))
        assert list(map(plain, one_by_one(accounts, operations))) == list(map(plain, answers))


# -- op ids ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_retries")
def test_a_batch_sent_again_has_one_effect_and_its_first_answers(accounts: Accounts) -> None:
    operations = [
        Operation(function, name, 5, op_id=OpId("s", number))
        for number, (function, name) in enumerate([(f, n) for f in (OPEN, DEPOSIT, WITHDRAW) for n in NAMES])
    ]
    operations.append(Operation(WITHDRAW, NAMES[0], 50, op_id=OpId("s", 1_000)))
    first = applied(accounts, *operations)
    before = accounts.snapshot()
    again = applied(accounts, *operations)
    assert again[:-1] == first[:-1]
    assert [(type(each), str(each)) for each in again[-1:]] == [(type(each), str(each)) for each in first[-1:]]
    assert accounts.snapshot() == before


@pytest.mark.usefixtures("_retries")
def test_a_call_and_a_batch_are_the_same_operation(open_handle: Opener) -> None:
    one, other = open_handle(), open_handle()
    opened(one)
    operations = [Operation(DEPOSIT, name, 5, op_id=OpId("s", number)) for number, name in enumerate(NAMES)]
    rejected = Operation(WITHDRAW, NAMES[0], 5_000, op_id=OpId("s", 100))
    batched = applied(one, *operations[:5], rejected)
    called = one_by_one(one, operations[5:])
    applied(one, Operation(DEPOSIT, NAMES[0], 10_000))
    for handle in (one, other):
        assert one_by_one(handle, operations) == batched[:5] + called
        assert applied(handle, *reversed(operations)) == list(reversed(batched[:5] + called))
        assert kinds(one_by_one(handle, [rejected])) == kinds(applied(handle, rejected)) == [InsufficientFunds]


@pytest.mark.usefixtures("_retries")
def test_an_op_id_twice_in_one_batch(accounts: Accounts) -> None:
    opened(accounts)
    deposit = Operation(DEPOSIT, NAMES[0], 5, op_id=OpId("s", 7))
    first, second, changed, other = applied(
        accounts, deposit, deposit, deposit._replace(amount=6), deposit._replace(account=NAMES[1])
    )
    assert first == second
    assert first[:2] == (2, 105)
    assert kinds([changed, other]) == [OperationMismatch] * 2


@pytest.mark.usefixtures("_retries")
def test_another_payload_is_a_mismatch_across_calls_and_batches(accounts: Accounts) -> None:
    opened(accounts)
    calls = [Operation(DEPOSIT, name, 5, op_id=OpId("s", number)) for number, name in enumerate(NAMES)]
    assert kinds(outcomes(accounts, *(call("deposit", each.account, 5, op_id=each.op_id) for each in calls))) == [
        Receipt
    ] * len(calls)
    wrong = [each._replace(account=NAMES[number - 1]) for number, each in enumerate(calls)]
    wrong += [each._replace(amount=6) for each in calls] + [each._replace(function=WITHDRAW) for each in calls]
    if isinstance(accounts, InTasks):
        wrong = wrong[len(calls) :]  # each task has a handle of its own, and only one handle sees all owners
    before = accounts.snapshot()
    assert kinds(applied(accounts, *wrong)) == [OperationMismatch] * len(wrong)
    assert accounts.snapshot() == before
    batched = Operation(DEPOSIT, NAMES[0], 5, op_id=OpId("t", 1))
    applied(accounts, batched)
    assert kinds(one_by_one(accounts, [batched._replace(amount=6)])) == [OperationMismatch]


@pytest.mark.usefixtures("_retries")
def test_numbers_leave_the_window(accounts: Accounts) -> None:
    opened(accounts)
    last = DEDUP_WINDOW + 5
    answers = applied(
        accounts,
        *(Operation(DEPOSIT, NAMES[0], 1, op_id=OpId("s", number)) for number in (5, 6, last, 5, 6, 4, last - 1)),
    )
    assert list(map(plain, answers)) == [(2, 101), (3, 102), (4, 103), OperationExpired, (3, 102), OperationExpired,
                                         (5, 104)]  # fmt: skip


@pytest.mark.usefixtures("_retries")
def test_the_largest_batch_can_be_sent_again(accounts: Accounts) -> None:
    opened(accounts)
    operations = [Operation(DEPOSIT, NAMES[n % 9], 1, op_id=OpId("s", n)) for n in range(MAX_BATCH)]
    first = applied(accounts, *operations)
    assert {type(answer) for answer in first} == {Receipt}
    assert applied(accounts, *operations) == first


@pytest.mark.usefixtures("_retries")
def test_sessions_are_told_apart_in_a_batch(accounts: Accounts) -> None:
    opened(accounts)
    operations = [Operation(DEPOSIT, NAMES[0], 1, op_id=OpId(f"s{n % 5}", n // 5)) for n in range(50)]
    operations[10:10] = [Operation(DEPOSIT, NAMES[0], 1)] * 3
    first = applied(accounts, *operations)
    assert [receipt.seq for receipt in first] == list(range(2, 55))
    again = applied(accounts, *operations)
    assert again[:10] + again[13:] == first[:10] + first[13:]
    assert [receipt.seq for receipt in again[10:13]] == [55, 56, 57]


@pytest.mark.usefixtures("_retries")
def test_a_reads_op_id_means_nothing(accounts: Accounts) -> None:
    opened(accounts)
    op_id = OpId("s", 1)
    read, changed, again, later = applied(
        accounts,
        Operation(BALANCE, NAMES[0], op_id=op_id),
        Operation(DEPOSIT, NAMES[1], 1, op_id=op_id),
        Operation(DEPOSIT, NAMES[1], 1, op_id=op_id),
        Operation(BALANCE, NAMES[1], op_id=op_id),
    )
    assert read[:2] == (1, 100)
    assert changed == again == later == Receipt(2, 101, changed.epoch)


# -- what is refused as a whole --------------------------------------------------------------------


def test_an_empty_batch(accounts: Accounts) -> None:
    assert apply(accounts) == []


def test_a_batch_over_the_limit(accounts: Accounts) -> None:
    opened(accounts)
    before = accounts.snapshot()
    error = apply(accounts, *[Operation(DEPOSIT, NAMES[0], 1)] * (MAX_BATCH + 1))
    assert type(error) is ValueError
    assert str(MAX_BATCH) in str(error)
    assert accounts.snapshot() == before


@pytest.mark.alike
@pytest.mark.parametrize(("wrong", "error"), [
    ({"amount": 1.0}, TypeError), ({"amount": True}, TypeError), ({"amount": None}, TypeError),
    ({"account": None}, TypeError), ({"account": b"a"}, TypeError), ({"account": ["a"]}, TypeError),
    ({"op_id": "s1"}, TypeError), ({"op_id": ["s", 1]}, TypeError), ({"op_id": ("s", 1.0)}, TypeError),
    ({"op_id": ("s", -1)}, ValueError), ({"op_id": ("", 1)}, ValueError),
    ({"function": "steal"}, ValueError), ({"function": TRANSFER, "target": None}, TypeError),
], ids=str)  # fmt: skip
def test_a_programmers_error_in_the_middle_applies_nothing(
    accounts: Accounts, wrong: dict[str, Any], error: type[Exception]
) -> None:
    opened(accounts)
    before = accounts.snapshot()
    good = [Operation(DEPOSIT, name, 1) for name in NAMES]
    assert type(apply(accounts, *good, good[0]._replace(**wrong), *good)) is error
    assert accounts.snapshot() == before


def test_a_closed_handle(open_handle: Opener) -> None:
    accounts = open_handle()
    opened(accounts)
    answers = outcomes(accounts, call("close"), call("apply", [Operation(DEPOSIT, NAMES[0], 1)]), call("apply", []))
    assert kinds(answers[1:]) == [Unavailable] * 2


# -- many at once ----------------------------------------------------------------------------------


def test_concurrent_batches_are_all_applied_once_each(accounts: Accounts) -> None:
    opened(accounts)
    batch = [Operation(DEPOSIT, NAMES[n % 3], 1) for n in range(120)]
    if isinstance(accounts, InTasks):
        futures = [accounts.submit([call("apply", batch)] * 3) for _ in range(6)]
        found = [answers for future in futures for answers in future.result()]
    else:
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda _: apply(accounts, *batch), range(18)))
    for place, name in enumerate(NAMES[:3]):
        seqs = [[answer.seq for answer in answers[place::3]] for answers in found]
        assert all(own == sorted(own) for own in seqs)
        assert sorted(seq for own in seqs for seq in own) == list(range(2, 2 + 18 * 40))
        assert accounts.balance(name)[:2] == (1 + 18 * 40, 100 + 18 * 40)
