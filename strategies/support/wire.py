"""The wire form of a batch of operations and of their answers: columns in MessagePack, a version first.

A request is the array

    [1, functions, accounts, amounts, targets, sessions, session_of, numbers, attempts]

- functions: binary, one byte per operation: 0 open_account, 1 deposit, 2 withdraw, 3 transfer, 4 balance; above that
  a step of a transfer between shards (`two_phase`): 5 pend, 6 debit, 7 post, 8 void, 9 settle, 10 forget
- accounts: array of text, one item per operation
- amounts: integers, one per operation
- targets: array of text, one item per transfer, pend or debit: the other account
- sessions: array of text, the different sessions of the batch's op ids
- session_of: integers, for each operation the place of its session; empty if there are fewer than two
- numbers: integers, the op ids' numbers, -1 where there is none; empty if no operation has one
- attempts: array of text, one item per step: which attempt of a transfer it belongs to

An answer is the array

    [1, epoch, kinds, seqs, balances, texts]

- epoch: integer, that of the owner
- kinds: binary, one byte per operation: 0 a receipt, 1 a transfer's two receipts, above that an error in
  the order of `ERRORS`; empty if all are 0
- seqs, balances: integers, one per receipt: first those of kind 0, then the transfers' sources, then their
  targets
- texts: array of text, the errors' messages

"Integers" are binary, little-endian: 4 bytes each without a sign, or 8 with one. Which of the two
follows from its length.

A snapshot is the array [1, epoch, accounts, seqs, balances, in_doubt]: the last is text, empty unless accounts
have credits in doubt.

Nothing is pickled, so a message cannot run code where it arrives, and any language can speak it. Why
this form: docs/adr/0005-wire-form.md.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, compress, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from strategies.interface.account import MAX_MONEY, Answer, Function, Operation, OpId, Receipt
from strategies.interface.errors import (
    AccountError,
    AccountExists,
    Indeterminate,
    InsufficientFunds,
    InvalidAccount,
    InvalidAmount,
    OperationExpired,
    OperationMismatch,
    OutOfScope,
    StateLost,
    Unavailable,
    UnknownAccount,
)
from strategies.support.fates import InDoubt
from strategies.support.op_window import Outcome, State
from strategies.support.validation import MAX_NUMBER, check_op_id, whole_amount

VERSION = 1

FUNCTIONS = tuple(function.value for function in Function)
"""Names by their code."""
OPEN_ACCOUNT, DEPOSIT, WITHDRAW, TRANSFER, BALANCE = range(len(FUNCTIONS))
PEND, DEBIT, POST, VOID, SETTLE, FORGET = range(len(FUNCTIONS), len(FUNCTIONS) + 6)
"""Steps of a transfer between shards."""

ERRORS: tuple[type[AccountError], ...] = (
    UnknownAccount,
    AccountExists,
    InsufficientFunds,
    InvalidAmount,
    InvalidAccount,
    OutOfScope,
    OperationMismatch,
    OperationExpired,
    Unavailable,
    StateLost,
    Indeterminate,
    InDoubt,
)
"""By their code, less 2."""

NO_NUMBER = -1

_RECEIPT, _RECEIPTS, _FIRST_ERROR = 0, 1, 2

_CODE_OF_FUNCTION: dict[str, int] = {function: code for code, function in enumerate(Function)}
_CODE_OF_ERROR: dict[type, int] = {kind: code for code, kind in enumerate(ERRORS, start=_FIRST_ERROR)}
HAS_TARGET = bytes(code in (TRANSFER, PEND, DEBIT) for code in range(256))
"""Of each code, whether it names another account."""
_IS_STEP = bytes(code >= PEND for code in range(256))
_IS_RECEIPT = bytes(code == _RECEIPT for code in range(256))
_IS_RECEIPTS = bytes(code == _RECEIPTS for code in range(256))
_IS_ERROR = bytes(code >= _FIRST_ERROR for code in range(256))

_COLUMNS = len(Operation._fields)
_INTEGERS = frozenset({int})
_TEXT = frozenset({str})
_TUPLES = frozenset({tuple})
_OP_IDS = frozenset({OpId, tuple})

_new_tuple = tuple.__new__  # a third of the time of `Receipt(...)`


class WireError(ValueError):
    """The bytes are no message of a version that is known here; nothing in them was applied."""


class Batch(NamedTuple):
    """Operations by column, checked but for the accounts' names."""

    functions: bytes
    accounts: Sequence[str]
    amounts: Sequence[int]
    targets: Sequence[str]
    """Of those functions alone that name another account."""
    sessions: Sequence[str] = ()
    session_of: Sequence[int] = ()
    """For each operation the place of its session; empty if there are fewer than two."""
    numbers: Sequence[int] = ()
    """`NO_NUMBER` where there is none; empty if no operation has one."""
    attempts: Sequence[str] = ()
    """Of steps alone."""

    @classmethod
    def of(cls, operations: Collection[Operation]) -> Batch:
        """The operations' columns.

        Raises:
            TypeError: an argument of one of them is of the wrong type.
            ValueError: an op id is out of range, or a function is none.
        """
        if not operations:
            return cls(b"", (), (), ())
        # Not zip(*operations): its thousands of iterators would each time call for the garbage collector.
        cells: list[Any] = list(chain.from_iterable(operations))
        names, accounts, amounts, targets, op_ids = (cells[column::_COLUMNS] for column in range(_COLUMNS))
        try:
            functions = bytes(map(_CODE_OF_FUNCTION.__getitem__, names))
        except KeyError as error:
            raise ValueError(f"{error} is no function; use one of {', '.join(FUNCTIONS)}") from None
        if set(map(type, amounts)) != _INTEGERS or max(amounts) > MAX_MONEY or min(amounts) < -MAX_MONEY:
            amounts = list(map(whole_amount, amounts))
        targets = list(compress(targets, functions.translate(HAS_TARGET))) if TRANSFER in functions else []
        return cls(functions, accounts, amounts, targets, *_op_id_columns(op_ids))

    def pick(self, places: Sequence[int]) -> Batch:
        """The operations at these places, of which there is at least one; none of them is a step."""
        picked = itemgetter(*places) if len(places) > 1 else lambda column: (column[places[0]],)
        targets: Sequence[str] = ()
        if self.targets:
            has_target = self.functions.translate(HAS_TARGET)
            target_at = dict(zip(compress(range(len(has_target)), has_target), self.targets, strict=True))
            targets = tuple(target_at[place] for place in places if place in target_at)
        return Batch(
            bytes(picked(self.functions)),
            picked(self.accounts),
            picked(self.amounts),
            targets,
            self.sessions,
            picked(self.session_of) if self.session_of else (),
            picked(self.numbers) if self.numbers else (),
        )


def _op_id_columns(op_ids: Sequence[Any]) -> tuple[Sequence[str], Sequence[int], Sequence[int]]:
    """Sessions, session_of, numbers."""
    kinds = set(map(type, op_ids))
    if kinds == {type(None)}:
        return (), (), ()
    sessions: Sequence[Any] = ()
    numbers: Sequence[Any] = ()
    if kinds <= _OP_IDS and set(map(len, op_ids)) == {2}:
        cells = list(chain.from_iterable(op_ids))
        sessions, numbers = cells[::2], cells[1::2]
    if set(map(type, numbers)) != _INTEGERS or min(numbers) < 0 or max(numbers) > MAX_NUMBER:
        for op_id in op_ids:  # some have none, or one is bad: this says what is wrong with it
            check_op_id(op_id)
        some_session = next(op_id[0] for op_id in op_ids if op_id is not None)
        sessions, numbers = zip(*((some_session, NO_NUMBER) if it is None else it for it in op_ids), strict=True)
    place_of = {session: place for place, session in enumerate(dict.fromkeys(sessions))}
    for session in place_of:
        check_op_id((session, 0))
    return tuple(place_of), tuple(map(place_of.__getitem__, sessions)) if len(place_of) > 1 else (), numbers


def encode(batch: Batch) -> bytes:
    """The request's bytes."""
    functions, accounts, amounts, targets, sessions, session_of, numbers, attempts = batch
    columns = (
        functions,
        accounts,
        _packed(amounts),
        targets,
        sessions,
        _packed(session_of),
        _packed(numbers),
        attempts,
    )
    payload: bytes = msgpack.packb((VERSION, *columns))
    return payload


def decode(payload: bytes | memoryview) -> Batch:
    """The operations in a request, checked as `Batch.of` would.

    Raises:
        WireError: it is none.
    """
    functions, accounts, amounts, targets, sessions, session_of, numbers, attempts = _message(payload, 9)
    try:
        size = len(functions)
        batch = Batch(
            functions,
            accounts,
            _unpacked(amounts, size),
            targets,
            sessions,
            _unpacked(session_of, size) if session_of else (),
            _unpacked(numbers, size) if numbers else (),
            attempts,
        )
        _check(batch)
    except (TypeError, ValueError, AttributeError, struct.error) as error:
        raise WireError(f"these bytes hold no operations: {error}") from error
    return batch


def _check(batch: Batch) -> None:
    """Raise unless every column is what it should be: half a batch must not be applied before one is found bad."""
    functions, accounts, amounts, targets, sessions, session_of, numbers, attempts = batch
    size = len(functions)
    if not size:
        return
    if max(functions) > FORGET:
        raise ValueError("there is no such function")
    transfers = functions.count(TRANSFER)
    if max(functions) > BALANCE:
        transfers, steps = sum(functions.translate(HAS_TARGET)), sum(functions.translate(_IS_STEP))
    else:
        steps = 0
    if len(accounts) != size or len(targets) != transfers or len(attempts) != steps:
        raise ValueError("columns differ in length")
    if set(map(type, accounts)) != _TEXT or not set(map(type, [*targets, *attempts])) <= _TEXT:
        raise TypeError("an account or attempt is no text")
    if max(amounts) > MAX_MONEY + 1 or min(amounts) < -MAX_MONEY - 1:
        raise ValueError("an amount is out of range")
    if numbers:
        if max(numbers) > MAX_NUMBER or min(numbers) < NO_NUMBER:
            raise ValueError("an op id's number is out of range")
        for session in sessions:
            check_op_id((session, 0))
        if not 0 <= max(session_of, default=0) < len(sessions) or min(session_of, default=0) < 0:
            raise ValueError("an op id has no session")


def encode_answers(outcomes: Sequence[Outcome], epoch: int) -> bytes:
    """The answer's bytes, from an owner of this epoch."""
    kinds = b""
    receipts: Sequence[Any] = outcomes
    texts: list[str] = []
    if not (set(map(type, outcomes)) <= _TUPLES and set(map(len, receipts)) <= {2}):
        kinds = bytes(map(_code_of, outcomes))
        pairs: list[Any] = list(compress(outcomes, kinds.translate(_IS_RECEIPTS)))
        receipts = [
            *compress(outcomes, kinds.translate(_IS_RECEIPT)),
            *map(itemgetter(0, 1), pairs),
            *map(itemgetter(2, 3), pairs),
        ]
        texts = list(map(str, compress(outcomes, kinds.translate(_IS_ERROR))))
    seqs, balances = _packed([state[0] for state in receipts]), _packed([state[1] for state in receipts])
    payload: bytes = msgpack.packb((VERSION, epoch, kinds, seqs, balances, texts))
    return payload


def _code_of(outcome: Outcome) -> int:
    if type(outcome) is tuple:
        return _RECEIPT if len(outcome) == 2 else _RECEIPTS
    return _CODE_OF_ERROR[type(outcome)]


def decode_answers(payload: bytes | memoryview, size: int) -> list[Answer]:
    """The answers to a request of so many operations.

    Raises:
        WireError: it is none.
    """
    epoch, kinds, seqs, balances, texts = _message(payload, 6)
    try:
        pairs = kinds.count(_RECEIPTS)
        plain = kinds.count(_RECEIPT) if kinds else size
        answers: list[Any] = _receipts(seqs, balances, epoch, plain + 2 * pairs)
        if kinds:
            of_kind: list[Any] = [
                iter(answers[:plain]),
                zip(answers[plain : plain + pairs], answers[plain + pairs :], strict=True),
                *map(map, ERRORS, repeat(iter(texts))),
            ]
            answers = list(map(next, map(of_kind.__getitem__, kinds)))
    except (TypeError, ValueError, AttributeError, LookupError, struct.error) as error:
        raise WireError(f"these bytes hold no answers: {error}") from error
    if len(answers) != size:
        raise WireError(f"{size} operations got {len(answers)} answers")
    return answers


def encode_snapshot(states: Mapping[str, State], epoch: int, in_doubt: str = "") -> bytes:
    """The bytes of every account's state, from an owner of this epoch; or why it cannot be told yet."""
    seqs, balances = ([state[item] for state in states.values()] for item in (0, 1))
    payload: bytes = msgpack.packb((VERSION, epoch, list(states), _packed(seqs), _packed(balances), in_doubt))
    return payload


def decode_snapshot(payload: bytes | memoryview) -> dict[str, Receipt]:
    """The receipt of each account in a snapshot.

    Raises:
        InDoubt: some accounts have credits in doubt.
        WireError: it is none.
    """
    epoch, accounts, seqs, balances, in_doubt = _message(payload, 6)
    if in_doubt:
        raise InDoubt(in_doubt)
    try:
        return dict(zip(accounts, _receipts(seqs, balances, epoch, len(accounts)), strict=True))
    except (TypeError, ValueError, struct.error) as error:
        raise WireError(f"these bytes hold no snapshot: {error}") from error


def _receipts(seqs: bytes, balances: bytes, epoch: int, count: int) -> list[Receipt]:
    if type(epoch) is not int:
        raise TypeError("the epoch is no integer")
    columns = zip(_unpacked(seqs, count), _unpacked(balances, count), repeat(epoch, count), strict=True)
    return list(map(_new_tuple, repeat(Receipt), columns))


def _packed(column: Sequence[int]) -> bytes:
    if not column:
        return b""
    try:
        return struct.pack(f"<{len(column)}I", *column)
    except struct.error:
        return struct.pack(f"<{len(column)}q", *column)


def _unpacked(column: bytes, size: int) -> tuple[int, ...]:
    width = "I" if len(column) == 4 * size else "q"
    return struct.unpack(f"<{size}{width}", column)


def _message(payload: bytes | memoryview, items: int) -> Sequence[Any]:
    """What follows the version."""
    try:
        found = msgpack.unpackb(payload, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"these bytes are cut off, or no message at all: {error}") from error
    if not (isinstance(found, tuple) and found):
        raise WireError("these bytes are no message")
    if found[0] != VERSION:
        raise WireError(f"a message of version {found[0]!a}, where {VERSION} is known; install one release everywhere")
    if len(found) != items:
        raise WireError(f"a message of {len(found)} items, where version {VERSION} has {items}")
    return found[1:]
