"""Many operations in flight, where that is claimed: each future ends as a call of its own would."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from itertools import pairwise
from typing import Any

import cloudpickle
import pytest

from strategies.interface import (
    AccountError,
    Accounts,
    Caller,
    Capabilities,
    Function,
    InsufficientFunds,
    InvalidAccount,
    InvalidAmount,
    Operation,
    OperationMismatch,
    OpId,
    Pipelined,
    Receipt,
    Retries,
    Transfers,
    Unavailable,
    UnknownAccount,
)
from tests.contract.callers import InTasks, kinds
from tests.contract.conftest import Opener
from tests.contract.rows import Row

# The workers need not be able to import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

OPEN, DEPOSIT, WITHDRAW, BALANCE = Function.OPEN_ACCOUNT, Function.DEPOSIT, Function.WITHDRAW, Function.BALANCE
NAMES = [f"account-{number}" for number in range(9)]
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _only_where_claimed(row: Row) -> None:
    if not issubclass(row.place.kind, Pipelined):
        pytest.skip("claims no pipelining")


def ended(handle: Accounts, operations: list[Operation]) -> list[Any]:
    """Submit them all, then wait for all."""
    assert isinstance(handle, Pipelined)
    futures = []
    for operation in operations:
        try:
            futures.append(handle.submit(operation))
        except (AccountError, TypeError, ValueError) as error:
            futures.append(Future())
            futures[-1].set_exception(error)
    return [future.exception(PATIENCE_S) or future.result() for future in futures]


def submitted(accounts: Accounts, *operations: Operation) -> list[Any]:
    """How each ends; in one task where the handle is one for tasks."""
    if isinstance(accounts, InTasks):
        found: list[Any] = accounts._client.submit(ended, accounts._handle, list(operations), pure=False).result()
        return found
    return ended(accounts, list(operations))


@pytest.fixture
def opened(accounts: Accounts) -> Accounts:
    answers = submitted(accounts, *(Operation(OPEN, name, 100) for name in NAMES))
    assert [answer[:2] for answer in answers] == [(1, 100)] * len(NAMES)
    return accounts


def test_each_ends_with_its_receipt_in_the_order_of_its_account(opened: Accounts) -> None:
    operations = [Operation(DEPOSIT, NAMES[n % 9], 1, op_id=OpId("s", n)) for n in range(900)]
    answers = submitted(opened, *operations)
    assert {type(answer) for answer in answers} == {Receipt}
    for name in NAMES:
        own = [answer for each, answer in zip(operations, answers, strict=True) if each.account == name]
        assert [receipt[:2] for receipt in own] == [(2 + n, 101 + n) for n in range(100)]
    assert {receipt[:2] for receipt in opened.snapshot().values()} == {(101, 200)}


def test_transfers_keep_the_order_of_both_accounts(opened: Accounts, claims: Capabilities) -> None:
    """Each step needs what the one before left: the first account's money goes through all others, and back."""
    if claims.transfers is not Transfers.ANY:
        pytest.skip("claims no transfers between any two accounts")
    operations, path = [], [*NAMES, *NAMES]
    for number, (source, target) in enumerate(pairwise(path)):
        carried = 100 * (1 + number) if number < len(NAMES) - 1 else 100 * len(NAMES)
        operations.append(Operation(Function.TRANSFER, source, carried, target, OpId("s", 3 * number)))
        operations.append(Operation(DEPOSIT, target, 1, op_id=OpId("s", 3 * number + 1)))
        operations.append(Operation(WITHDRAW, target, 1, op_id=OpId("s", 3 * number + 2)))
    answers = submitted(opened, *operations)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    held = {name: receipt.balance for name, receipt in opened.snapshot().items()}
    assert held == dict.fromkeys(NAMES, 0) | {NAMES[-1]: 100 * len(NAMES)}


def test_each_ends_with_its_own_error(opened: Accounts) -> None:
    operations = {
        Operation(DEPOSIT, "unknown", 1): UnknownAccount,
        Operation(WITHDRAW, NAMES[0], 101): InsufficientFunds,
        Operation(DEPOSIT, NAMES[1], 0): InvalidAmount,
        Operation(DEPOSIT, "", 1): InvalidAccount,
        Operation(BALANCE, NAMES[2]): Receipt,
        Operation(DEPOSIT, NAMES[3], 1.5): TypeError,  # type: ignore[arg-type]
        Operation(DEPOSIT, NAMES[3], 1, op_id=OpId("s", -1)): ValueError,
        Operation(DEPOSIT, None, 1): TypeError,  # type: ignore[arg-type]
        Operation(DEPOSIT, NAMES[4], 1): Receipt,
    }
    assert kinds(submitted(opened, *operations)) == list(operations.values())
    assert sum(receipt.balance for receipt in opened.snapshot().values()) == 100 * len(NAMES) + 1


def test_op_ids_mean_the_same_however_an_operation_is_sent(opened: Accounts, row: Row) -> None:
    if row.claims.retries is not Retries.SAFE_WITH_OP_ID:
        pytest.skip("claims no safe retries")
    called = opened.deposit(NAMES[0], 5, op_id=("s", 1))
    deposit = Operation(DEPOSIT, NAMES[0], 5, op_id=OpId("s", 1))
    first, second, mismatch = submitted(opened, deposit, deposit, deposit._replace(amount=6))
    assert first == second == called
    assert type(mismatch) is OperationMismatch
    (other,) = submitted(opened, deposit._replace(op_id=OpId("s", 2)))
    assert opened.deposit(NAMES[0], 5, op_id=("s", 2)) == other


def test_futures_are_those_of_the_standard_library(opened: Accounts, row: Row) -> None:
    if row.caller is not Caller.DRIVER:
        pytest.skip("futures stay where they were made")
    assert isinstance(opened, Pipelined)
    submit = opened.submit
    deposits = [Operation(DEPOSIT, NAMES[n % 3], 1) for n in range(30)]
    futures = [submit(each) for each in deposits]
    assert wait(futures, PATIENCE_S, FIRST_COMPLETED).done
    assert {future.result().seq for future in as_completed(futures, PATIENCE_S)} == set(range(2, 12))

    async def awaited() -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, map(submit, deposits))), PATIENCE_S)

    assert {receipt.seq for receipt in asyncio.run(awaited())} == set(range(12, 22))
    seen: list[Any] = []
    future = submit(deposits[0])
    future.add_done_callback(lambda it: seen.append(it.result()))
    assert future.result(PATIENCE_S)[:2] == (22, 121)


def test_closing_ends_what_was_submitted(open_handle: Opener, row: Row) -> None:
    if row.caller is not Caller.DRIVER:
        pytest.skip("futures stay where they were made")
    accounts = open_handle()
    assert isinstance(accounts, Pipelined)
    submitted(accounts, *(Operation(OPEN, name, 100) for name in NAMES))
    futures = [accounts.submit(Operation(DEPOSIT, NAMES[n % 9], 1)) for n in range(2_000)]
    accounts.close()
    answers = [future.exception(PATIENCE_S) or future.result() for future in futures]
    assert set(kinds(answers)) <= {Receipt, Unavailable}
    with pytest.raises(Unavailable):
        accounts.submit(Operation(DEPOSIT, NAMES[0], 1))
    found = open_handle().snapshot()
    applied = sum(isinstance(answer, Receipt) for answer in answers)
    assert sum(receipt.seq - 1 for receipt in found.values()) == applied


def test_a_handle_closed_before_its_first_submission(open_handle: Opener, row: Row) -> None:
    if row.caller is not Caller.DRIVER:
        pytest.skip("futures stay where they were made")
    accounts = open_handle()
    assert isinstance(accounts, Pipelined)
    accounts.close()
    with pytest.raises(Unavailable):
        accounts.submit(Operation(DEPOSIT, "a", 1))
