"""The search against other people's histories, against every permutation, and against its own bounds."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.history import (
    BALANCE,
    LOST,
    NEVER_NS,
    REASONS,
    REJECTED,
    TRANSFER,
    UNAVAILABLE,
    UNKNOWN,
    WITHDRAW,
)
from benchmarks.harness.linearizability import (
    NEVER,
    SHORT,
    Account,
    Answer,
    Call,
    Cas,
    Model,
    Operation,
    Read,
    Register,
    Write,
    linearizable,
    of_history,
)
from tests.harness.rows import history, row

NIL = "nil"


def op(invoked: int, returned: int, given_: Hashable, output: Any = None, process: int = 0) -> Operation:
    return Operation(process, invoked, returned, given_, output)


# -- other people's histories ----------------------------------------------------------------------


def register_events(text: str) -> list[Operation]:
    """A register's history, one event a word: `3?w4`, `3!w4` (process 3 begins to write 4, and has), `1?r`, `1!r3`,
    `2?c3,0` (sets 0 if it holds 3), `2!c` (it did), `2-c` (it did not). What has no end may never have happened."""
    open_: dict[str, tuple[int, Hashable]] = {}
    found = []
    for at, word in enumerate(text.split()):
        mark = next(mark for mark in "?!-" if mark in word)
        process, _, what = word.partition(mark)
        if mark == "?":
            values = [int(value) for value in what[1:].split(",") if value]
            kind: Any = {"r": Read, "w": Write, "c": Cas}[what[0]]
            open_[process] = at, kind(*values)
            continue
        invoked, given_ = open_.pop(process)
        output: Any = mark == "!"
        if what[0] == "r":
            output = NIL if what[1:] == NIL else int(what[1:])
        found.append(op(invoked, at, given_, output, int(process)))
    found += [op(invoked, NEVER, given_, process=int(process)) for process, (invoked, given_) in open_.items()]
    return found


JEPSEN_ETCD_000 = """
0?r 3?r 2?w4 1?w2 4?w3 3!rnil 0!rnil 4!w 1!w 2!w 3?w3 0?r 0!r3 3!w 4?r 4!r3 1?r 1!r3 2?c3,0 2!c 0?w2 3?r 0!w 3!r0 4?r
4!r2 1?c0,3 2?c0,0 1-c 2-c 0?c2,1 3?r 3!r2 0!c 4?r 4!r1 1?r 1!r1 2?r 2!r1 3?w0 0?c1,3 3!w 4?w2 0-c 4!w 1?r 1!r2 2?c1,1
2-c 3?c0,0 0?r 0!r2 4?w1 3-c 1?c2,1 2?w2 2!w 0?c1,4 3?w3 0-c 3!w 2?w2 9?w3 0?r 0!r3 2!w 3?c3,4 3-c 6?c1,1 0?w1 0!w
2?c0,0 2-c 3?c2,2 3-c 14?w4 0?c4,3 0-c 2?w0 11?r 11!r2 2!w 3?w2 3!w 0?w1 11?c2,1 2?c0,3 3?r 3!r2 19?r 19!r2 3?r 3!r2
19?c1,3 19!c 5?w0 16?c4,3 7?c1,2 5!w 7-c 16-c 3?c4,2 3-c 19?c0,1 19!c 5?c4,0 7?c1,4 16?r 16!r1 3?c1,3 3-c 5!c 7!c
19?c2,0 19-c 16?r 16!r0 3?r 3!r0 5?r 7?c4,2 5!r0 7-c 19?c2,3 19-c 16?c4,1 3?w4 5?w4 7?c0,2 19?r 19!r0 19?w3 19!w
21?c2,0 21-c 8?w4 10?w2 10!w 12?c4,4 19?w4 21?r 21!r4 19!w 10?c0,1 10-c 21?c3,3 21-c 19?r 19!r4 13?c2,2 17?c4,4 10?r
10!r1
"""
"""Porcupine's test_data/jepsen/etcd_000.log (Jepsen's test of etcd), which its tests hold not to be linearizable."""

JEPSEN_ETCD_002 = """
4?r 4!rnil 1?w1 2?c2,4 3?c1,2 0?c1,4 1!w 0-c 2!c 3!c 4?w0 4!w 1?w2 1!w 0?r 0!r2 2?c0,2 3?c2,3 2-c 3!c 4?r 4!r3 1?w3
1!w 0?w2 2?w0 0!w 2!w 3?c0,4 3!c 4?c3,4 4-c 1?w1 0?w3 0!w 1!w 2?r 2!r3 3?r 3!r3 4?r 4!r3 0?c4,3 0-c 1?c2,2 2?w3 1-c
3?w2 4?w2 4!w 0?c1,4 0-c 1?w3 1!w 4?c3,0 4!c 0?r 0!r0 7?c3,1 1?w1 8?r 8!r3 4?c4,0 1!w 0?w2 0!w 4-c 8?c4,0 1?w0 1!w 0?w4
0!w 12?w4 4?r 4!r4 1?r 1!r4 0?w2 0!w 4?c3,0 4-c 13?w3 1?w0 17?r 0?c2,1 17!r3 4?w1 17?c0,1 18?r 18!r3 6?w3 5?w2 9?c2,2
18?w4 22?w1 11?w3 10?c1,1 14?w0 11!w 23?c4,4 14!w 10-c 23-c 27?w1 11?w2 11!w 14?c1,2 10?r 10!r2 14-c 23?r 23!r0 11?w1
11!w 10?r 10!r1 14?w2 23?c2,3 32?c2,1 14!w 11?w4 11!w 10?c1,1 10-c 14?w4 14!w 11?c2,4 11-c 10?r 10!r4 28?r 28!r0 37?w3
14?r 14!r4
"""
"""The same, of etcd_002.log, which they hold to be linearizable."""

REGISTERS = {
    # Porcupine's porcupine_test.go, TestRegisterModel and TestZeroDuration (the first from a quiz of MIT 6.824, 2017).
    "porcupine register": (
        0,
        [op(0, 100, Write(100), True, 0), op(25, 75, Read(), 100, 1), op(30, 60, Read(), 0, 2)],
        "yes",
    ),
    "porcupine stale register": (
        0,
        [op(0, 100, Write(200), True, 0), op(10, 30, Read(), 200, 1), op(40, 90, Read(), 0, 2)],
        "no",
    ),
    "porcupine zero duration": (
        0,
        [op(0, 100, Write(100), True), op(25, 75, Read(), 100), op(30, 30, Read(), 0), op(30, 30, Read(), 0)],
        "yes",
    ),
    "porcupine stale zero duration": (
        0,
        [op(0, 100, Write(200), True), op(10, 10, Read(), 200), op(10, 10, Read(), 200), op(40, 90, Read(), 0)],
        "no",
    ),
    "jepsen etcd 000": (NIL, register_events(JEPSEN_ETCD_000), "no"),
    "jepsen etcd 002": (NIL, register_events(JEPSEN_ETCD_002), "yes"),
    # Knossos, data/cas-register and test/knossos/wgl_test.clj.
    "knossos rethink-fail-minimal": (NIL, register_events("0?w0 0!w 1?r 2?w4 1!r3 2!w 3?r 3!r4"), "no"),
    "knossos immediate-failure": (NIL, register_events("1?r 1!r3"), "no"),  # the write of 3 failed for certain
    "knossos cas-register-bug": (
        0,
        register_events("4?w2 4!w 6?r 1?w4 1!w 14?r 14!r4 9?w0 9!w 19?r 19!r0"),
        "yes",
    ),
    "knossos bad-analysis": (
        0,
        register_events("4?w2 4!w 6?r 1?w4 1!w 14?r 14!r4 9?w0 9!w 19?r 20?w1 19!r0 22?r 21?r 21!r2 22!r3"),
        "no",
    ),
    "knossos crash": (0, register_events("0?w1"), "yes"),
    "knossos sequential": (0, register_events("0?r 0!r0"), "yes"),
    "knossos preserves-indices": (0, register_events("0?w1 0!w 0?r 0!r2"), "no"),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers_of_others(name: str) -> None:
    value, operations, expected = REGISTERS[name]
    answer = linearizable(Register(value), operations)
    assert answer.verdict == expected
    assert answer.visited < 20_000
    if expected == "yes":
        assert_legal(Register(value), operations, answer.order)


def test_the_culprit_is_the_one_that_knossos_names() -> None:
    """test/knossos/wgl_test.clj: the read out of nowhere, not what came later."""
    minimal = linearizable(Register(NIL), REGISTERS["knossos rethink-fail-minimal"][1]).offending
    assert minimal is not None
    assert (minimal.process, minimal.output) == (1, 3)
    analysis = linearizable(Register(0), REGISTERS["knossos bad-analysis"][1])
    assert analysis.offending is not None
    assert (analysis.offending.process, analysis.offending.output) == (21, 2)
    assert 20 not in {each.process for each in analysis.order}  # its write never came
    assert analysis.order[-1].process == 19


class Queue(Model[tuple[str, ...]]):
    """First in, first out. An input of None takes one out."""

    def initial(self) -> tuple[str, ...]:
        return ()

    def step(self, state: tuple[str, ...], operation: Operation) -> tuple[str, ...] | None:
        if operation.input is not None:
            return (*state, str(operation.input))
        return state[1:] if state and operation.output in (None, state[0]) else None


def queue_events(text: str) -> list[Operation]:
    """`A+x`: A begins to put x in; `A-`: to take one out; `A.`: it is back, `A.x` with x."""
    open_: dict[str, tuple[int, Hashable]] = {}
    found = []
    for at, word in enumerate(text.split()):
        process, mark, value = ord(word[0]), word[1], word[2:]
        if mark == ".":
            invoked, given_ = open_.pop(word[0])
            found.append(op(invoked, at, given_, value or True, process))
        else:
            open_[word[0]] = at, value if mark == "+" else None
    return found + [op(invoked, NEVER, given_, process=ord(name)) for name, (invoked, given_) in open_.items()]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("A+x B+y B. A. B- B.x A- A.y A+z", "yes"),
        ("A+x A. B+y A- B. A.y", "no"),  # x was in before y came
        ("A+x B- B.x", "yes"),  # the put that is still on its way had its effect
        ("A+x B+y A. B. A- C- A.y C.y", "no"),  # y was put in once and taken out twice
    ],
    ids=["H1", "H2", "H3", "H4"],
)
def test_queues_of_herlihy_and_wing(events: str, expected: str) -> None:
    """Linearizability: a correctness condition for concurrent objects (1990), section 2: H1 to H4."""
    assert linearizable(Queue(), queue_events(events)).verdict == expected


# -- every permutation -----------------------------------------------------------------------------


def legal(model: Model[Any], order: Sequence[Operation]) -> bool:
    state, latest_invoked = model.initial(), 0
    for each in order:
        state = model.step(state, each)
        latest_invoked = max(latest_invoked, each.invoked)
        if state is None or each.returned < latest_invoked:
            return False
    return True


def assert_legal(model: Model[Any], operations: Sequence[Operation], order: Sequence[Operation]) -> None:
    """An order of each part; parts follow each other."""
    assert len({id(each) for each in order}) == len(order)
    assert {id(each) for each in operations if each.returned != NEVER} <= {id(each) for each in order}
    for part in model.partition(order):
        assert legal(model, part)


def by_force(model: Model[Any], operations: Sequence[Operation]) -> bool:
    """Every permutation of what returned and any of the others, up to where it first goes wrong."""

    def goes_on(state: Any, left: Sequence[Operation]) -> bool:
        if all(each.returned == NEVER for each in left):
            return True
        for each in left:
            if any(other.returned < each.invoked for other in left):
                continue
            after = model.step(state, each)
            if after is not None and goes_on(after, [other for other in left if other is not each]):
                return True
        return False

    return goes_on(model.initial(), operations)


@st.composite
def histories(draw: st.DrawFn, inputs: st.SearchStrategy[tuple[Hashable, Any]]) -> list[Operation]:
    """Up to six operations with distinct times."""
    size = draw(st.integers(1, 6))
    times = draw(st.permutations(range(2 * size)))
    found = []
    for index in range(size):
        begun, ended = sorted(times[2 * index : 2 * index + 2])
        given_, output = draw(inputs)
        never = draw(st.integers(0, 3)) == 0
        output = None if never or draw(st.integers(0, 9)) == 0 else output
        found.append(op(begun, NEVER if never else ended, given_, output, index))
    return found


VALUES = st.integers(0, 2)
REGISTER_INPUTS = st.one_of(
    st.tuples(st.just(Read()), VALUES),
    st.tuples(st.builds(Write, VALUES), st.just(True)),
    st.tuples(st.builds(Cas, VALUES, VALUES), st.booleans()),
)


@st.composite
def account_inputs(draw: st.DrawFn) -> tuple[Hashable, Any]:
    account, amount = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    target = draw(st.integers(0, 1)) if draw(st.booleans()) else None
    change = -amount if target is not None else draw(st.sampled_from([0, amount, -amount]))
    receipts = st.tuples(st.sampled_from([0, 0, 1, 2, 3]), st.integers(0, 4))
    output = draw(st.one_of(st.just(SHORT), st.just(()), st.lists(receipts, min_size=1, max_size=2).map(tuple)))
    return Call(account, change, target), output


def checked(model: Model[Any], operations: Sequence[Operation]) -> Answer:
    answer = linearizable(model, operations)
    assert answer.verdict == ("yes" if by_force(model, operations) else "no")
    return answer


def assert_proven(model: Model[Any], answer: Answer) -> list[Operation]:
    """The prefix proves it; returned without what came back after its last return."""
    assert answer.offending is not None
    cut = answer.offending.returned
    proof = [each if each.returned <= cut else replace(each, returned=NEVER) for each in answer.prefix]
    assert not by_force(model, proof)
    assert legal(model, answer.order)
    return proof


@settings(max_examples=250, deadline=None)
@given(histories(REGISTER_INPUTS))
def test_registers_against_every_permutation(operations: list[Operation]) -> None:
    answer = checked(Register(0), operations)
    if answer.verdict == "yes":
        assert_legal(Register(0), operations, answer.order)
    else:
        proof = assert_proven(Register(0), answer)
        last = max(each.returned for each in proof if each.returned != NEVER)
        smaller = [replace(each, returned=NEVER) if each.returned == last else each for each in proof]
        assert by_force(Register(0), smaller)


@settings(max_examples=250, deadline=None)
@given(histories(account_inputs()))
def test_accounts_against_every_permutation(operations: list[Operation]) -> None:
    model = Account(1, accounts=2)
    answer = checked(model, operations)
    if answer.verdict == "yes":
        assert_legal(model, operations, answer.order)
    else:
        assert_proven(model, answer)


def test_accounts_that_no_transfer_joins_are_searched_apart() -> None:
    operations = [op(0, 1, Call(0, 5)), op(2, 3, Call(1, -1, 2)), op(4, 5, Call(3, 1)), op(6, 7, Call(2, 0))]
    parts = Account(10, accounts=4).partition(operations)
    assert sorted(sorted(each.invoked for each in part) for part in parts) == [[0], [2, 6], [4]]


# -- bounds ----------------------------------------------------------------------------------------


def random_account_history(size: int, clients: int, unknown: float, seed: int) -> list[Operation]:
    """What a correct account answers, by balances alone; some answers are lost, with the effect or without."""
    chance = random.Random(seed)
    free = [chance.random() for _ in range(clients)]
    calls = []
    for _ in range(size):
        client = min(range(clients), key=free.__getitem__)
        begun = free[client]
        ended = begun + 0.01 + chance.expovariate(1)
        calls.append((chance.uniform(begun, ended), begun, ended, client))
        free[client] = ended
    balance, found = 1000, []
    for _, begun, ended, client in sorted(calls):
        change = chance.choice([0, 1, 1, -1]) * chance.randint(1, 100)
        lost = change != 0 and chance.random() < unknown
        output: Any = SHORT if balance + change < 0 else ((0, balance + change),)
        if output != SHORT and not (lost and chance.random() < 0.5):
            balance += change
        returned = NEVER if lost else int(ended * 1e6)
        found.append(op(int(begun * 1e6), returned, Call(0, change), None if lost else output, client))
    return found


def test_two_thousand_operations_of_sixteen_clients() -> None:
    operations = random_account_history(2_000, clients=16, unknown=0.005, seed=1)
    answer = linearizable(Account(1000), operations)
    assert answer.verdict == "yes"
    assert answer.visited < 50_000
    assert_legal(Account(1000), operations, answer.order)

    wrong = next(each for each in operations[1_500:] if each.output not in (None, SHORT))
    wronged = [replace(each, output=((0, each.output[0][1] + 1),)) if each is wrong else each for each in operations]
    answer = linearizable(Account(1000), wronged)
    # A lost operation may by chance make up for the wrong balance for a while, but nothing does for good.
    assert answer.verdict == "no"
    assert answer.offending is not None
    assert answer.offending.returned >= operations[1_400].invoked


def test_when_it_runs_out_it_says_so() -> None:
    operations = random_account_history(200, clients=8, unknown=0.0, seed=2)
    answer = linearizable(Account(1000), operations, limit=100)
    assert answer.verdict == "unknown"
    assert answer.visited == 100
    assert 0 < len(answer.order) <= 100
    assert linearizable(Account(1000), operations, limit=0).verdict == "unknown"
    assert linearizable(Account(1000), []).verdict == "yes"


def test_a_part_that_fits_no_order_outweighs_one_that_is_not_finished() -> None:
    long = random_account_history(200, clients=8, unknown=0.0, seed=3)
    short = [op(0, 1, Call(1, 0), ((0, 7),))]
    answer = linearizable(Account(1000, accounts=2), [*long, *short], limit=100)
    assert answer.verdict == "no"
    assert answer.offending == short[0]


def test_equal_operations_without_an_answer_are_no_puzzle() -> None:
    """Sixty deposits of one amount of which nobody knows, and a balance that none of them explains."""
    lost = [op(at, NEVER, Call(0, 2), process=at) for at in range(60)]
    answer = linearizable(Account(0), [*lost, op(100, 101, Call(0, 0), ((0, 7),))], limit=1_000)
    assert answer.verdict == "no"


# -- of histories ----------------------------------------------------------------------------------


def test_attempts_with_one_op_id_are_one_operation() -> None:
    rows = history(
        row(number=7, keyed=1, attempt=0, sent_ns=10, done_ns=20, fate=UNKNOWN, amount=5),
        row(number=7, keyed=1, attempt=1, sent_ns=30, done_ns=40, seq=2, balance=105, amount=5),
        row(number=7, keyed=1, attempt=2, sent_ns=90, done_ns=95, seq=2, balance=105, amount=5),
        row(number=8, keyed=0, attempt=0, sent_ns=50, done_ns=60, fate=UNKNOWN, amount=5),
        row(number=8, keyed=0, attempt=1, sent_ns=70, done_ns=80, seq=4, balance=115, amount=5),
    )
    once, first, second = of_history(rows, 0)
    assert once == Operation(0, 10, 40, Call(0, 5), ((2, 105),), rows=(0, 1))
    assert first == Operation(0, 50, NEVER, Call(0, 5), None, rows=(3,))
    assert second == Operation(0, 70, 80, Call(0, 5), ((4, 115),), rows=(4,))
    assert linearizable(Account(100), [once, first, second]).verdict == "yes"
    assert linearizable(Account(100), [once, second]).verdict == "no"


def test_what_constrains_nothing_is_left_out() -> None:
    short, other = REASONS.index(SHORT), REASONS.index("OperationExpired")
    rows = history(
        row(sent_ns=0, done_ns=1, fate=UNAVAILABLE),
        row(sent_ns=2, done_ns=3, fate=LOST),
        row(sent_ns=4, done_ns=NEVER_NS, fate=UNKNOWN, function=BALANCE, amount=0),
        row(sent_ns=6, done_ns=7, fate=REJECTED, reason=other),
        row(sent_ns=8, done_ns=9, fate=REJECTED, reason=short, function=WITHDRAW, amount=9),
        row(sent_ns=10, done_ns=11, account=1, seq=2, balance=101),
        row(sent_ns=12, done_ns=NEVER_NS, fate=UNKNOWN),
    )
    assert [(each.rows, each.returned, each.output) for each in of_history(rows, 0)] == [
        ((4,), 9, SHORT),
        ((6,), NEVER, None),
    ]
    assert linearizable(Account(8), of_history(rows, 0)).verdict == "yes"
    assert linearizable(Account(9), of_history(rows, 0)).verdict == "no"  # the funds were not short


def test_a_transfer_is_whole_among_its_accounts_and_a_leg_elsewhere() -> None:
    rows = history(
        row(
            sent_ns=0,
            done_ns=5,
            function=TRANSFER,
            amount=30,
            account=0,
            target=1,
            seq=2,
            balance=70,
            target_seq=2,
            target_balance=130,
        ),
        row(sent_ns=1, done_ns=2, function=BALANCE, amount=0, account=1, seq=2, balance=130),
        row(sent_ns=3, done_ns=4, function=BALANCE, amount=0, account=0, seq=1, balance=100),
    )
    assert of_history(rows, 1)[0] == Operation(0, 0, 5, Call(0, 30), ((2, 130),), rows=(0,))
    assert of_history(rows, 0)[0] == Operation(0, 0, 5, Call(0, -30), ((2, 70),), rows=(0,))
    assert linearizable(Account(100), of_history(rows, 0)).verdict == "yes"
    assert linearizable(Account(100), of_history(rows, 1)).verdict == "yes"
    both = of_history(rows, 1, 0)
    assert both[0].input == Call(1, -30, 0)
    # The target had the money before the source had given it.
    assert linearizable(Account(100, accounts=2), both).verdict == "no"


def test_a_transfer_to_itself_is_a_withdrawal_and_a_deposit() -> None:
    rows = history(
        row(
            sent_ns=0,
            done_ns=1,
            function=TRANSFER,
            amount=30,
            target=0,
            seq=2,
            balance=70,
            target_seq=3,
            target_balance=100,
        ),
        row(sent_ns=2, done_ns=3, function=BALANCE, amount=0, seq=3, balance=100),
    )
    assert linearizable(Account(100), of_history(rows, 0)).verdict == "yes"
    assert linearizable(Account(20), of_history(rows, 0)).verdict == "no"
