"""Whether concurrent operations fit one order that respects real time: a bounded search over any sequential model.

The search is Wing and Gong's (Testing and verifying concurrent objects, 1993) with the memory that Lowe added to it
(Testing for linearizability, 2017). Three reductions, none of which changes an answer: what only reads is put into the
order as soon as it fits; of equal operations that never returned, the first invoked comes first; and one that never
returned and would change nothing is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from benchmarks.harness.history import (
    BALANCE,
    DEPOSIT,
    NEVER_NS,
    OK,
    REASONS,
    REJECTED,
    TRANSFER,
    UNKNOWN,
    History,
)

NEVER = NEVER_NS
"""`returned` of an operation that may or may not have happened: at any time after it was invoked, or not at all."""

LIMIT = 200_000
"""Configurations that are visited before the search gives up: up to 15 s and 100 MB."""

Verdict = Literal["yes", "no", "unknown"]
State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Operation:
    """One call. Of two that touch in one instant, either may come first."""

    process: int
    invoked: int
    returned: int
    """`NEVER` where it may not have happened."""
    input: Hashable
    output: Any
    """None if it is not known."""
    rows: tuple[int, ...] = ()
    """Of a history, where it comes from one."""


class Model(ABC, Generic[State]):
    """What the operations would do one after another."""

    @abstractmethod
    def initial(self) -> State:
        """The state before any operation."""

    @abstractmethod
    def step(self, state: State, operation: Operation) -> State | None:
        """The state after the operation; None if it could not have had this output then."""

    def only_reads(self, operation: Operation) -> bool:
        """Whether it can change no state whatsoever. False costs time, never correctness."""
        return False

    def too_late(self, state: State, operation: Operation) -> bool:
        """Whether it could have had this output neither now nor ever after. False costs time, never correctness."""
        return False

    def partition(self, operations: Sequence[Operation]) -> list[list[Operation]]:
        """Parts that can be searched apart, as no operation of one can change the output of another's."""
        return [list(operations)]


@dataclass(frozen=True)
class Answer:
    """What a search found."""

    verdict: Verdict
    visited: int
    """Configurations: sets of operations in some order, with the state that they lead to."""
    order: tuple[Operation, ...]
    """`yes`: an order, one part of the partition after another. `no`: the one that came as far as `offending`.
    `unknown`: the longest that was found, of a part that was not finished."""
    offending: Operation | None = None
    """`no`: an operation that no order explains together with all that returned before it. Without it there is an
    order of those, unless the model has a `too_late`."""
    prefix: tuple[Operation, ...] = ()
    """`no`: what was invoked until `offending` returned, in the order of invocation. It proves the verdict by itself,
    also if what returned later had never returned; its outputs count where it is put into the order."""


def linearizable(model: Model[Any], operations: Sequence[Operation], limit: int = LIMIT) -> Answer:
    """Search for an order of all operations that returned, and of any of the others.

    `limit` bounds the configurations visited in all parts together; the smaller parts come first.
    """
    orders: list[Operation] = []
    visited = 0
    unfinished: Answer | None = None
    for part in sorted(model.partition(operations), key=len):
        answer = _Search(model, part).run(limit - visited)
        visited += answer.visited
        if answer.verdict == "no":
            return Answer("no", visited, answer.order, answer.offending, answer.prefix)
        if answer.verdict == "unknown":
            unfinished = unfinished or answer
        orders += answer.order
    if unfinished:
        return Answer("unknown", visited, unfinished.order)
    return Answer("yes", visited, tuple(orders))


_HEAD = 0


class _Entry(NamedTuple):
    """What was put into the order, and the configuration before it."""

    place: int
    """Its call; of one that never returned, the return that it came before."""
    tried: int
    """Its number among those that never returned."""
    state: Any
    done: int
    window: int
    others: int
    in_a_row: int


class _Search:
    """Of one part. What returned is a doubly linked list of calls and returns, from which the order's are taken out.

    What never returned lies beside it, and is only tried where nothing else fits. A configuration is small whatever
    the history's length: how many of the operations that returned are in the order without a gap, which of the later
    ones are, which of those that never returned are, and the state.
    """

    def __init__(self, model: Model[Any], operations: Sequence[Operation]) -> None:
        self._model = model
        self._operations = sorted(operations, key=lambda each: each.invoked)
        self._ended = [each for each in self._operations if each.returned != NEVER]
        self._open = [each for each in self._operations if each.returned == NEVER]

        events = [(each.invoked, False, index) for index, each in enumerate(self._ended)]
        events += [(each.returned, True, index) for index, each in enumerate(self._ended)]
        events.sort()
        size = len(events) + 1
        self._next = [*range(1, size), _HEAD]
        self._previous = [size - 1, *range(size - 1)]
        self._index_at = [-1, *(index for _, _, index in events)]
        self._is_call = [False, *(not is_return for _, is_return, _ in events)]
        self._return_of = [0] * len(self._ended)
        for place, (_, is_return, index) in enumerate(events, start=1):
            if is_return:
                self._return_of[index] = place

        self._elder: list[int] = []
        """Bit of the equal operation before it that never returned either; 0 for none."""
        latest: dict[Hashable, int] = {}
        for index, each in enumerate(self._open):
            self._elder.append(latest.get(each.input, 0) if each.output is None else 0)
            if each.output is None:
                latest[each.input] = 1 << index

    def run(self, limit: int) -> Answer:
        """Search with few of those that never returned in a row first: their subsets are what a search drowns in."""
        visited, in_a_row = 0, 1
        while True:
            answer, complete = self._run(limit - visited, in_a_row)
            visited += answer.visited
            if answer.verdict != "no" or complete:
                return replace(answer, visited=visited)
            in_a_row *= 2

    def _run(self, limit: int, in_a_row_max: int) -> tuple[Answer, bool]:
        """What was found, and whether that bound kept nothing from being tried."""
        step, ended = self._model.step, self._ended
        following, is_call, index_at = self._next, self._is_call, self._index_at
        reads = [self._model.only_reads(each) for each in ended]
        state = self._model.initial()
        done, window, others = 0, 0, 0
        left = len(ended)
        seen: set[tuple[int, int, int, Any]] = set()
        stack: list[_Entry] = []
        in_a_row, complete = 0, True
        blocked, best = 0, list[Operation]()
        place, tried = following[_HEAD], 0  # the latter among those that never returned
        while left:
            if is_call[place]:
                index = index_at[place]
                after = step(state, ended[index])
                if after is None:
                    late = self._model.too_late(state, ended[index])
                    if late and self._return_of[index] > blocked:
                        blocked, best = self._return_of[index], self._order(stack)
                    place = _HEAD if late else following[place]
                    continue
                new_done, new_window = done, window | 1 << (index - done)
                while new_window & 1:
                    new_done, new_window = new_done + 1, new_window >> 1
                entered = (new_done, new_window, others, after)
                if entered in seen:
                    place = _HEAD if reads[index] else following[place]
                    continue
            else:
                if place > blocked:
                    blocked, best = place, self._order(stack)
                found = self._next_open(place, tried, others, state)
                if found is not None and in_a_row >= in_a_row_max:
                    found, complete = None, False
                if found is None:
                    if not stack:
                        return self._no(len(seen), best, ended[index_at[blocked]]), complete
                    place, tried, state, done, window, others, in_a_row = stack.pop()
                    if not is_call[place]:
                        continue
                    self._put_back(place)
                    left += 1
                    # What only reads and fits now need not wait for anything.
                    place = _HEAD if reads[index_at[place]] else following[place]
                    continue
                tried, after = found
                entered = (done, window, others | 1 << tried - 1, after)
                if entered in seen:
                    continue
            if len(seen) >= limit:
                order = self._order(stack)
                return Answer("unknown", len(seen), tuple(order if len(order) > len(best) else best)), False
            seen.add(entered)
            stack.append(_Entry(place, tried, state, done, window, others, in_a_row))
            in_a_row += 1
            if is_call[place]:
                self._take_out(place)
                left -= 1
                in_a_row = 0
            done, window, others, state = entered
            place, tried = following[_HEAD], 0
        return Answer("yes", len(seen), tuple(self._order(stack))), True

    def _next_open(self, bound: int, tried: int, others: int, state: Any) -> tuple[int, Any] | None:
        """The next operation that never returned and fits, counted from 1, with the state after it.

        It was invoked before the return that is at `bound`; at the head none is tried.
        """
        if bound == _HEAD:
            return None
        until = self._ended[self._index_at[bound]].returned
        for index in range(tried, len(self._open)):
            operation = self._open[index]
            if operation.invoked > until:
                return None
            if others >> index & 1 or self._elder[index] & ~others:
                continue
            after = self._model.step(state, operation)
            if after is not None and after != state:
                return index + 1, after
        return None

    def _order(self, stack: Sequence[_Entry]) -> list[Operation]:
        return [
            self._ended[self._index_at[each.place]] if self._is_call[each.place] else self._open[each.tried - 1]
            for each in stack
        ]

    def _no(self, visited: int, best: Sequence[Operation], offending: Operation) -> Answer:
        prefix = tuple(each for each in self._operations if each.invoked <= offending.returned)
        return Answer("no", visited, tuple(best), offending, prefix)

    def _take_out(self, call: int) -> None:
        for place in (call, self._return_of[self._index_at[call]]):
            before, behind = self._previous[place], self._next[place]
            self._next[before], self._previous[behind] = behind, before

    def _put_back(self, call: int) -> None:
        for place in (self._return_of[self._index_at[call]], call):
            self._next[self._previous[place]] = self._previous[self._next[place]] = place


# -- models ----------------------------------------------------------------------------------------


class Read(NamedTuple):
    """Of a register; the output is its value."""


class Write(NamedTuple):
    """To a register; any output but None says that it happened."""

    value: Hashable


class Cas(NamedTuple):
    """Write `new` if the register holds `old`; the output is whether it did."""

    old: Hashable
    new: Hashable


class Register(Model[Hashable]):
    """One value that is read, written, and compared and set. It holds anything but None."""

    def __init__(self, value: Hashable) -> None:
        self._value = value

    def initial(self) -> Hashable:
        return self._value

    def step(self, state: Hashable, operation: Operation) -> Hashable | None:
        match operation.input:
            case Read():
                return state if operation.output in (None, state) else None
            case Write(value):
                return value
            case Cas(old, new):
                sets = state == old
                if operation.output not in (None, sets):
                    return None
                return new if sets else state
        raise TypeError(f"a register has no {operation.input!r}")

    def only_reads(self, operation: Operation) -> bool:
        return isinstance(operation.input, Read) or operation.output is False


class Call(NamedTuple):
    """Of an account: `change` is above 0 for a deposit, below 0 for a withdrawal, 0 for a balance.

    With a `target`, a transfer of `-change` to it.
    """

    account: int
    change: int
    target: int | None = None


SHORT = "InsufficientFunds"
"""Output of a call that was rejected because the funds did not suffice."""

Balances = tuple[tuple[int, int], ...]


class Account(Model[Balances]):
    """Accounts, numbered from 0, that were opened with `opening` each. The state is each one's (seq, balance).

    An output is `SHORT`, or a tuple of receipts (seq, balance), a transfer's source first. A seq of 0 was not told,
    and a receipt that is missing was not told either.
    """

    def __init__(self, opening: int, accounts: int = 1) -> None:
        self._initial: Balances = ((1, opening),) * accounts

    def initial(self) -> Balances:
        return self._initial

    def step(self, state: Balances, operation: Operation) -> Balances | None:
        call, output = operation.input, operation.output
        assert isinstance(call, Call)
        seq, balance = state[call.account]
        if balance + call.change < 0:
            return state if output in (None, SHORT) else None
        if output == SHORT:
            return None
        receipts = [(seq + (call.change != 0), balance + call.change)]
        after = _with(state, call.account, receipts[0])
        if call.target is not None:
            seq, balance = after[call.target]
            receipts.append((seq + 1, balance - call.change))
            after = _with(after, call.target, receipts[1])
        for told, receipt in zip(output or (), receipts, strict=False):
            if told[1] != receipt[1] or told[0] not in (0, receipt[0]):
                return None
        return after

    def only_reads(self, operation: Operation) -> bool:
        assert isinstance(operation.input, Call)
        return operation.input.change == 0 or operation.output == SHORT

    def too_late(self, state: Balances, operation: Operation) -> bool:
        call, output = operation.input, operation.output
        assert isinstance(call, Call)
        told: int = output[0][0] if output and output != SHORT else 0
        return 0 < told < state[call.account][0] + (call.change != 0)

    def partition(self, operations: Sequence[Operation]) -> list[list[Operation]]:
        """Accounts between which money was moved stay together."""
        leader = list(range(len(self._initial)))

        def of(account: int) -> int:
            while leader[account] != account:
                leader[account] = account = leader[leader[account]]
            return account

        calls = [each.input for each in operations]
        for call in calls:
            assert isinstance(call, Call)
            if call.target is not None:
                leader[of(call.target)] = of(call.account)
        parts: dict[int, list[Operation]] = {}
        for operation, call in zip(operations, calls, strict=True):
            assert isinstance(call, Call)
            parts.setdefault(of(call.account), []).append(operation)
        return list(parts.values())


def _with(state: Balances, account: int, receipt: tuple[int, int]) -> Balances:
    return (receipt,) if len(state) == 1 else (*state[:account], receipt, *state[account + 1 :])


# -- histories -------------------------------------------------------------------------------------

_SHORT_REASON = REASONS.index(SHORT)


def of_history(history: History, *accounts: int) -> list[Operation]:
    """A history's operations on these accounts, numbered here by their place among the arguments.

    Of a transfer to or from any other account, the leg on these. All attempts with one op id are one operation: it
    returned with the first answer. Left out is what constrains nothing: reads without an answer, what surely had no
    effect, rejections for another reason than short funds.
    """
    place = {account: number for number, account in enumerate(accounts)}
    mine = np.isin(history.account, accounts) | ((history.function == TRANSFER) & np.isin(history.target, accounts))
    refused = (history.fate == REJECTED) & (history.reason == _SHORT_REASON) & np.isin(history.account, accounts)
    unknown = (history.fate == UNKNOWN) & (history.function != BALANCE)
    rows = np.flatnonzero(mine & ((history.fate == OK) | refused | unknown))
    order = np.lexsort((history.sent_ns[rows], history.number[rows], history.client[rows], history.keyed[rows]))
    found = []
    for attempts in _attempts(history, rows[order].tolist()):
        answers = [row for row in attempts if history.fate[row] != UNKNOWN]
        answered = min(answers, key=history.done_ns.item, default=None)
        returned = NEVER if answered is None else int(history.done_ns[answered])
        first = attempts[0]
        call, source, target = _call(history, first, place)
        output: Any = None
        if answered is not None and history.fate[answered] == OK:
            told = ((source, history.seq, history.balance), (target, history.target_seq, history.target_balance))
            output = tuple((int(seq[answered]), int(balance[answered])) for leg, seq, balance in told if leg)
        elif answered is not None:
            output = SHORT
        sent = tuple(row for row in attempts if history.sent_ns[row] <= returned)
        found.append(Operation(int(history.client[first]), int(history.sent_ns[first]), returned, call, output, sent))
    return sorted(found, key=lambda each: each.invoked)


def _attempts(history: History, rows: list[int]) -> Iterator[list[int]]:
    """Rows that may have one effect together. Without an op id, each may have its own."""

    def operation(row: int) -> tuple[int, ...]:
        return (int(history.client[row]), int(history.number[row])) if history.keyed[row] else (row,)

    for _, attempts in groupby(rows, operation):
        yield list(attempts)


def _call(history: History, row: int, place: dict[int, int]) -> tuple[Call, bool, bool]:
    """What was asked of these accounts, and whether the source and the target are among them."""
    account, target = int(history.account[row]), int(history.target[row])
    function, amount = int(history.function[row]), int(history.amount[row])
    if function == BALANCE:
        return Call(place[account], 0), True, False
    if function != TRANSFER:
        return Call(place[account], amount if function == DEPOSIT else -amount), True, False
    if account in place and target in place:
        return Call(place[account], -amount, place[target]), True, True
    if account in place:
        return Call(place[account], -amount), True, False
    return Call(place[target], amount), False, True
