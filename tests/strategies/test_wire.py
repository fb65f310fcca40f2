"""The wire form: what goes in comes out, and what is no message is called none."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.interface import (
    MAX_MONEY,
    AccountError,
    Answer,
    Function,
    InsufficientFunds,
    Operation,
    OpId,
    Receipt,
)
from strategies.support import wire
from strategies.support.fates import InDoubt
from strategies.support.validation import MAX_NUMBER
from strategies.support.wire import Batch, WireError

_FEW = settings(max_examples=200, deadline=None, derandomize=True, database=None)
_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_money = st.one_of(st.integers(1, 100), st.integers(-MAX_MONEY - 1, MAX_MONEY + 1))
_op_ids = st.one_of(
    st.none(), st.builds(OpId, st.sampled_from(["s", "t", "Zoë"]), st.one_of(st.integers(0, 9), st.just(MAX_NUMBER)))
)
_operations = st.lists(
    st.builds(Operation, st.sampled_from(Function), _names, _money, _names, op_id=_op_ids), max_size=30
)
_epochs = st.sampled_from([1, 2**33, 2**50])
_states = st.tuples(st.integers(1, 2**40), st.integers(0, MAX_MONEY))
_pairs = st.builds(lambda source, target: (*source, *target), _states, _states)
_errors = st.builds(lambda kind, text: kind(text), st.sampled_from(wire.ERRORS), _names)
_outcomes = st.lists(st.one_of(_states, _pairs, _errors), max_size=30)


def _rows(batch: Batch) -> list[tuple[Any, ...]]:
    """The batch by operation: function, account, amount, target, session, number."""
    targets = iter(batch.targets)
    return [
        (
            Function(wire.FUNCTIONS[code]),
            batch.accounts[place],
            batch.amounts[place],
            next(targets) if code == wire.TRANSFER else None,
            *((batch.sessions[batch.session_of[place] if batch.session_of else 0], batch.numbers[place])
              if batch.numbers and batch.numbers[place] != wire.NO_NUMBER else (None, None)),
        )
        for place, code in enumerate(batch.functions)
    ]  # fmt: skip


def _expected(operation: Operation) -> tuple[Any, ...]:
    function, account, amount, target, op_id = operation
    return (function, account, amount, target if function is Function.TRANSFER else None, *(op_id or (None, None)))


def _plain(answers: list[Answer]) -> list[Any]:
    return [(type(answer), str(answer)) if isinstance(answer, AccountError) else answer for answer in answers]


@_FEW
@given(_operations)
def test_operations_arrive_as_they_were(operations: list[Operation]) -> None:
    arrived = wire.decode(wire.encode(Batch.of(operations)))
    assert _rows(arrived) == [_expected(operation) for operation in operations]


@_FEW
@given(_operations, st.data())
def test_some_of_a_batch_are_the_same_operations(operations: list[Operation], data: st.DataObject) -> None:
    if not operations:
        return
    places = data.draw(st.lists(st.integers(0, len(operations) - 1), unique=True, min_size=1).map(sorted))
    picked = wire.decode(wire.encode(Batch.of(operations).pick(places)))
    assert _rows(picked) == [_expected(operations[place]) for place in places]


def _answer(outcome: Any, epoch: int) -> Any:
    if isinstance(outcome, AccountError):
        return type(outcome), str(outcome)
    legs = [Receipt(*outcome[at : at + 2], epoch) for at in range(0, len(outcome), 2)]
    return legs[0] if len(legs) == 1 else tuple(legs)


@_FEW
@given(_outcomes, _epochs)
def test_answers_arrive_as_they_were(outcomes: list[Any], epoch: int) -> None:
    arrived = wire.decode_answers(wire.encode_answers(outcomes, epoch), len(outcomes))
    expected = [_answer(outcome, epoch) for outcome in outcomes]
    assert _plain(arrived) == expected
    assert [type(answer) for answer in _plain(arrived)] == [type(answer) for answer in expected]


@_FEW
@given(st.dictionaries(_names, _states, max_size=20), _epochs)
def test_snapshots_arrive_as_they_were(states: dict[str, tuple[int, int]], epoch: int) -> None:
    arrived = wire.decode_snapshot(wire.encode_snapshot(states, epoch))
    assert arrived == {account: Receipt(*state, epoch) for account, state in states.items()}


def test_a_rising_session_costs_a_few_bytes_per_operation() -> None:
    operations = [
        Operation(Function.DEPOSIT, f"account-{n}", n + 1, op_id=OpId("0" * 32, 10**6 + n)) for n in range(1_000)
    ]
    accounts = sum(len(operation.account) + 1 for operation in operations)
    assert len(wire.encode(Batch.of(operations))) < accounts + 10 * len(operations)


# -- what is no message ----------------------------------------------------------------------------

_BATCH = Batch.of(
    [
        Operation(Function.TRANSFER, "a", 1, "b", OpId("s", 1)),
        Operation(Function.DEPOSIT, "a", 2, op_id=OpId("t", 2)),
    ]
)
_REQUEST = wire.encode(_BATCH)
_ANSWERS = wire.encode_answers([(1, 2), (1, 2, 4, 5), InsufficientFunds("no")], 3)


@pytest.mark.parametrize("cut", range(len(_REQUEST)))
def test_a_request_that_is_cut_off(cut: int) -> None:
    with pytest.raises(WireError):
        wire.decode(_REQUEST[:cut])


@pytest.mark.parametrize("cut", range(len(_ANSWERS)))
def test_an_answer_that_is_cut_off(cut: int) -> None:
    with pytest.raises(WireError):
        wire.decode_answers(_ANSWERS[:cut], 3)


@_FEW
@given(st.one_of(st.binary(max_size=60), st.recursive(st.one_of(st.integers(-5, 5), st.binary(max_size=9), st.text()),
                 lambda each: st.lists(each, max_size=8)).map(msgpack.packb)))  # fmt: skip
def test_anything_else(payload: bytes) -> None:
    for read in (wire.decode, lambda it: wire.decode_answers(it, 1), wire.decode_snapshot):
        with pytest.raises(WireError):
            read(payload)


def test_another_version_says_so() -> None:
    for read in (wire.decode, lambda it: wire.decode_answers(it, 0), wire.decode_snapshot):
        with pytest.raises(WireError, match="version 2"):
            read(msgpack.packb((2, b"", "whatever comes with it")))


@pytest.mark.parametrize("change", [
    {"functions": b"\x03\x05"},
    {"functions": b"\x01\x01"},
    {"functions": b"\x01"},
    {"functions": 7},
    {"accounts": ("a",)},
    {"accounts": ("a", b"b")},
    {"accounts": ("a", None)},
    {"amounts": struct.pack("<2q", 1, 2**62)},
    {"amounts": struct.pack("<2q", 1, -(2**62))},
    {"amounts": b"12345"},
    {"amounts": (1, 2)},
    {"targets": ()},
    {"targets": (1,)},
    {"sessions": ("s",)},
    {"sessions": ()},
    {"sessions": ("s", "")},
    {"sessions": ("s", "x" * 257)},
    {"session_of": struct.pack("<2q", 0, -1)},
    {"session_of": struct.pack("<2I", 0, 2)},
    {"session_of": struct.pack("<I", 0)},
    {"numbers": struct.pack("<2q", 1, -2)},
    {"numbers": struct.pack("<2q", 1, 2**53)},
    {"numbers": struct.pack("<3I", 1, 2, 3)},
], ids=str)  # fmt: skip
def test_a_request_with_one_bad_column(change: dict[str, Any]) -> None:
    """Half of it must not be applied before it is found out."""
    columns = msgpack.unpackb(_REQUEST, use_list=False)
    good = dict(zip(Batch._fields, columns[1:], strict=True))
    assert wire.decode(msgpack.packb((1, *good.values()))) == wire.decode(_REQUEST)
    with pytest.raises(WireError):
        wire.decode(msgpack.packb((1, *(good | change).values())))


def test_answers_for_other_operations() -> None:
    for size in (2, 4):
        with pytest.raises(WireError):
            wire.decode_answers(_ANSWERS, size)


def test_every_error_that_has_a_fate_of_its_own_has_a_code() -> None:
    def leaves(kind: type[AccountError]) -> set[type[AccountError]]:
        below = set().union(*map(leaves, kind.__subclasses__())) if kind.__subclasses__() else {kind}
        return {each for each in below if each.__module__.startswith("strategies.interface")}

    assert set(wire.ERRORS) == leaves(AccountError) | {InDoubt}


def test_it_reads_what_does_not_own_its_bytes() -> None:
    assert wire.decode(memoryview(_REQUEST)) == wire.decode(_REQUEST)


def test_errors_keep_their_words() -> None:
    (answer,) = wire.decode_answers(wire.encode_answers([InsufficientFunds("Zoë's account is empty")], 1), 1)
    assert type(answer) is InsufficientFunds
    assert str(answer) == "Zoë's account is empty"


# -- what a caller may not ask for -----------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "error"), [
    ({"amount": 1.0}, TypeError), ({"amount": True}, TypeError), ({"amount": None}, TypeError),
    ({"op_id": ["s", 1]}, TypeError), ({"op_id": "s1"}, TypeError), ({"op_id": 5}, TypeError),
    ({"op_id": ("s",)}, TypeError), ({"op_id": ("s", 1, 2)}, TypeError), ({"op_id": ("s", True)}, TypeError),
    ({"op_id": (1, 1)}, TypeError), ({"op_id": ("s", 1.0)}, TypeError),
    ({"op_id": ("s", -1)}, ValueError), ({"op_id": ("s", 2**53)}, ValueError), ({"op_id": ("", 1)}, ValueError),
    ({"op_id": ("a\nb", 1)}, ValueError),
    ({"function": "steal"}, ValueError), ({"function": None}, ValueError),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("neighbour", [None, OpId("t", 1)])
def test_one_bad_argument(wrong: dict[str, Any], error: type[Exception], neighbour: OpId | None) -> None:
    good = Operation(Function.DEPOSIT, "a", 1, op_id=neighbour)
    with pytest.raises(error):
        Batch.of([good, good._replace(**wrong), good])


def test_amounts_beyond_the_largest_are_cut_as_in_a_call() -> None:
    batch = Batch.of([Operation(Function.DEPOSIT, "a", amount) for amount in (2**80, -(2**80), 2**53 + 5)])
    assert list(batch.amounts) == [MAX_MONEY + 1, -MAX_MONEY - 1, MAX_MONEY + 1]
