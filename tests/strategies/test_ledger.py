"""The ledger in memory: invariants that hold whatever is asked of it."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.interface import (
    MAX_MONEY,
    AccountExists,
    Function,
    InsufficientFunds,
    InvalidAmount,
    Operation,
    OpId,
    Receipt,
    Rejected,
    UnknownAccount,
)
from strategies.support.ledger import Ledger, LedgerState
from strategies.support.wire import Batch, decode_answers, encode_answers

_NAMES = st.sampled_from(["a", "b", "c"])
_AMOUNTS = st.one_of(st.integers(-1, 50), st.sampled_from([MAX_MONEY - 1, MAX_MONEY, MAX_MONEY + 1]))
_CALLS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["open_account", "deposit", "withdraw"]), _NAMES, _AMOUNTS),
        st.tuples(st.just("transfer"), _NAMES, _NAMES, _AMOUNTS),
    ),
    max_size=60,
)


def _apply(ledger: Ledger, each: tuple[Any, ...], op_id: tuple[str, int] | None = None) -> Any:
    try:
        options = {} if each[0] == "balance" else {"op_id": op_id}
        return getattr(ledger, each[0])(*each[1:], **options)
    except Rejected as error:
        return type(error)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_CALLS)
def test_money_is_neither_made_nor_lost(calls: list[tuple[Any, ...]]) -> None:
    ledger = Ledger()
    entered = 0
    for each in calls:
        before = ledger.snapshot()
        answer = _apply(ledger, each)
        after = ledger.snapshot()
        if isinstance(answer, type):
            assert after == before, "a rejection changes nothing"
            continue
        if each[0] in ("open_account", "deposit"):
            entered += each[-1]
        elif each[0] == "withdraw":
            entered -= each[-1]
        legs = answer if each[0] == "transfer" else (answer,)
        assert after[each[-2]] == legs[-1]
        steps = {name: receipt.seq - before[name].seq for name, receipt in after.items() if name in before}
        assert sum(steps.values()) == (0 if each[0] == "open_account" else len(legs))
        assert sum(receipt.balance for receipt in after.values()) == entered
        assert all(0 <= receipt.balance <= MAX_MONEY for receipt in after.values())


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(_CALLS)
def test_everything_sent_twice_is_everything_sent_once(calls: list[tuple[Any, ...]]) -> None:
    once, twice = Ledger(), Ledger()
    once._epoch = twice._epoch = 7
    for number, each in enumerate(calls):
        answer = _apply(once, each)
        assert _apply(twice, each, ("s", number)) == answer
        assert _apply(twice, each, ("s", number)) == answer
    for number, each in enumerate(calls):
        _apply(twice, each, ("s", number))
    assert once.snapshot() == twice.snapshot()


_BATCHED = st.lists(
    st.builds(
        lambda function, name, target, amount, op_id: Operation(
            function, name, amount, target if function is Function.TRANSFER else None, op_id
        ),
        st.sampled_from(Function),
        _NAMES,
        _NAMES,
        _AMOUNTS,
        st.one_of(st.none(), st.builds(OpId, st.sampled_from("st"), st.sampled_from([0, 1, 2, 9_999, 10_001, 20_002]))),
    ),
    max_size=60,
)


def _answers(ledger: Ledger, operations: list[Operation]) -> list[Any]:
    """As they arrive at who sent the batch."""
    return decode_answers(encode_answers(ledger.apply(Batch.of(operations)), ledger._epoch), len(operations))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_BATCHED)
def test_a_batch_is_what_its_operations_are_one_by_one(operations: list[Operation]) -> None:
    together, one_by_one = Ledger(), Ledger()
    together._epoch = one_by_one._epoch = 7
    answers = _answers(together, operations)
    expected = []
    for function, account, amount, target, op_id in operations:
        if function is Function.BALANCE:
            expected.append(_apply(one_by_one, ("balance", account)))
        else:
            names = (account,) if target is None else (account, target)
            expected.append(_apply(one_by_one, (function.value, *names, amount), op_id))
    assert [type(answer) if isinstance(answer, Rejected) else answer for answer in answers] == expected
    assert together.snapshot() == one_by_one.snapshot()
    for operation in operations:  # what they remember is the same, too
        (again,) = together.apply(Batch.of([operation._replace(function=Function.DEPOSIT)]))
        (as_well,) = one_by_one.apply(Batch.of([operation._replace(function=Function.DEPOSIT)]))
        assert (type(again), str(again)) == (type(as_well), str(as_well))


def test_a_remembered_rejection_keeps_no_batch_alive() -> None:
    ledger = Ledger()
    batch = Batch.of([Operation(Function.DEPOSIT, "a", 1, op_id=OpId("s", 1)), Operation(Function.BALANCE, "a")])
    for answer in ledger.apply(batch) + ledger.apply(batch):
        assert isinstance(answer, UnknownAccount)
        assert answer.__traceback__ is None


def test_the_garbage_collector_has_nothing_to_do_with_what_a_ledger_keeps() -> None:
    """Visiting all of it, again and again, would take longer than the changes."""
    ledger = Ledger()
    ledger.open_account("a", 5)
    ledger.deposit("a", 1, op_id=("s", 1))
    ledger.apply(Batch.of([Operation(Function.WITHDRAW, "a", 1, op_id=OpId("s", 2))]))
    for _ in range(2):  # it lets go of a tuple when it has let go of what that holds
        gc.collect()
    kept = [*ledger._states.values(), *ledger._windows["s"].slots.values()]
    assert len(kept) == 3
    assert not [each for each in kept if gc.is_tracked(each)]


def test_ledgers_on_one_state_are_one_ledger() -> None:
    state = LedgerState()
    one, other = Ledger(state), Ledger(state)
    receipt = one.open_account("a", 5, op_id=("s", 1))
    assert other.balance("a") == receipt
    assert other.open_account("a", 5, op_id=("s", 1)) == receipt
    assert Ledger().snapshot() == {}


def test_threads_lose_no_update() -> None:
    ledger = Ledger()
    ledger.open_account("a")
    with ThreadPoolExecutor(8) as threads:
        receipts = list(threads.map(lambda _: ledger.deposit("a", 1), range(4_000)))
    assert sorted(receipt.seq for receipt in receipts) == list(range(2, 4_002))
    assert ledger.balance("a").balance == 4_000


def test_a_remembered_rejection_is_raised_afresh() -> None:
    """Raising the remembered one would grow its traceback with every resend."""
    ledger = Ledger()
    ledger.open_account("a")
    seen = []
    for _ in range(2):
        with pytest.raises(InsufficientFunds) as caught:
            ledger.withdraw("a", 1, op_id=("s", 1))
        seen.append(caught.value)
    assert seen[0] is not seen[1]
    assert str(seen[0]) == str(seen[1])


def test_the_lock_is_free_after_every_error() -> None:
    ledger = Ledger()
    for wanted in (("deposit", "a", 1), ("open_account", "a", -1), ("balance", "a"), ("deposit", None, 1)):
        with pytest.raises((UnknownAccount, InvalidAmount, TypeError)):
            getattr(ledger, wanted[0])(*wanted[1:])
        assert not ledger._lock.locked()  # type: ignore[attr-defined]
    ledger.open_account("a")
    with pytest.raises(AccountExists):
        ledger.open_account("a", op_id=("s", 1))
    assert ledger.deposit("a", 1)[:2] == Receipt(2, 1, 0)[:2]
