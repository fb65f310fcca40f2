"""Transfers between shards are whole or not at all, whatever is lost on the way and whoever dies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

import pytest

from strategies.interface import (
    AccountError,
    Function,
    Indeterminate,
    InsufficientFunds,
    InvalidAmount,
    Operation,
    OperationMismatch,
    OpId,
    Receipt,
    Rejected,
    StateLost,
    Unavailable,
    UnknownAccount,
)
from strategies.interface.account import MAX_MONEY
from strategies.support.across_shards import AcrossShards
from strategies.support.fates import InDoubt
from strategies.support.two_phase import IN_DOUBT_S, NOTHING, TwoPhaseLedger
from strategies.support.wire import (
    DEBIT,
    FORGET,
    PEND,
    POST,
    SETTLE,
    VOID,
    Batch,
    decode,
    decode_answers,
    encode,
    encode_answers,
)

SHARDS = 3
OPENING = 100
FAR = 1e12
"""A deadline that nothing here reaches."""


class Died(BaseException):
    """The caller did, between two messages."""


class Shard(TwoPhaseLedger):
    """Writes down each leg that it makes."""

    def __init__(self, world: World) -> None:
        super().__init__(clock=lambda: world.now_s)
        self.debited: Counter[str] = Counter()
        self.credited: Counter[str] = Counter()
        self.is_lost = False

    def _debit(self, attempt: str, *arguments: Any) -> Any:
        before = len(self._debits)
        outcome = super()._debit(attempt, *arguments)
        self.debited[attempt] += len(self._debits) > before
        return outcome

    def _post(self, attempt: str) -> Any:
        before = len(self._posted)
        outcome = super()._post(attempt)
        self.credited[attempt] += len(self._posted) > before
        return outcome


class World:
    """Shards, and a network between them and their callers. Stands in for `Owners`."""

    def __init__(self, seed: int = 0, **shares: float) -> None:
        self.chance = random.Random(seed)
        self.shares = shares
        self.now_s = 0.0
        self.shards = [Shard(self) for _ in range(SHARDS)]
        self.meanwhile: list[Any] = []
        """What other callers do between two messages."""

    def happens(self, what: str) -> bool:
        return self.chance.random() < self.shares.get(what, 0.0)

    def shard_of(self, account: str) -> Any:
        return self.shards[int(account[1:]) % SHARDS]

    def open(self, accounts: Iterable[str], opening: int = OPENING) -> list[str]:
        opened = list(accounts)
        for account in opened:
            self.shard_of(account).open_account(account, opening)
        return opened

    def caller(self) -> AcrossShards:
        return AcrossShards(cast(Any, self), self.shard_of)

    def apply(self, requests: Iterable[tuple[Shard, Batch]], deadline: float, what: str) -> list[list[Any]]:
        return [self.message(shard, batch) for shard, batch in requests]

    def message(self, shard: Shard, batch: Batch) -> list[Any]:
        size = len(batch.functions)
        if self.meanwhile and self.happens("interrupted"):
            self.meanwhile.pop()()
        if self.happens("slow"):
            self.now_s += 2 * IN_DOUBT_S
        if self.happens("died"):
            raise Died
        if shard.is_lost:
            return [StateLost("gone")] * size
        if self.happens("unsent"):
            return [Unavailable("not sent")] * size
        # Through the wire, as bytes, there and back.
        answers = decode_answers(encode_answers(shard.apply_steps(decode(encode(batch))), 7), size)
        if self.happens("unanswered"):
            return [Indeterminate("no answer")] * size
        if self.happens("died"):
            raise Died
        return answers

    def settle_all(self) -> None:
        """What whoever calls each account next would do, when nothing is lost any more."""
        self.shares = {}
        self.now_s += 2 * IN_DOUBT_S
        for shard in self.shards:
            for doubts in shard.in_doubt().values():
                self.caller().settle(cast(Any, shard), doubts, FAR)

    def total(self) -> int:
        return sum(
            receipt.balance for shard in self.shards if not shard.is_lost for receipt in shard.snapshot().values()
        )


def transfer(source: str, target: str, amount: int, op_id: tuple[str, int] | None = None) -> Operation:
    return Operation(Function.TRANSFER, source, amount, target, None if op_id is None else OpId(*op_id))


def called(world: World, caller: AcrossShards, *operations: Operation) -> list[Any]:
    batch = Batch.of(operations)
    shards = [world.shard_of(each.account) for each in operations]
    others = [world.shard_of(str(each.target)) for each in operations if each.function is Function.TRANSFER]
    answers = caller.apply(batch, shards, others, FAR)
    return [answers[place] for place in range(len(operations))]


def one(world: World, operation: Operation) -> Any:
    (answer,) = called(world, world.caller(), operation)
    return answer


@pytest.fixture
def world() -> World:
    made = World()
    made.open(["a0", "a1", "a2", "a3"])
    return made


# -- one transfer ----------------------------------------------------------------------------------


def test_both_legs_have_receipts(world: World) -> None:
    assert one(world, transfer("a0", "a1", 30)) == (Receipt(2, 70, 7), Receipt(2, 130, 7))
    assert world.total() == 4 * OPENING
    assert not any(shard._pending for shard in world.shards)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (transfer("a0", "a1", OPENING + 1), InsufficientFunds),
        (transfer("a0", "a4", 1), UnknownAccount),
        (transfer("a6", "a1", 1), UnknownAccount),
        (transfer("a0", "a1", 0), InvalidAmount),
    ],
)
def test_a_rejection_leaves_nothing_behind_and_stays(world: World, operation: Operation, error: type[Rejected]) -> None:
    operation = operation._replace(op_id=OpId("s", 0))
    first, again = one(world, operation), one(world, operation)
    assert type(first) is type(again) is error
    assert world.total() == 4 * OPENING
    assert not any(shard._pending for shard in world.shards)
    other = one(world, transfer("a0", "a1", 2, ("s", 0)))
    assert isinstance(other, OperationMismatch)


def test_room_is_kept_for_a_credit(world: World) -> None:
    world.open(["a7"], MAX_MONEY - 50)
    shard = world.shard_of("a7")
    (held,) = world.message(shard, Batch(bytes([PEND]), ("a7",), (30,), ("a0",), attempts=("one",)))
    assert held[:2] == NOTHING
    answers = shard.apply_steps(Batch(b"\1\1", ("a7", "a7"), (21, 20), ()))
    assert isinstance(answers[0], InvalidAmount)
    assert answers[1] == (2, MAX_MONEY - 30)
    (posted,) = world.message(shard, Batch(bytes([POST]), ("a7",), (0,), (), attempts=("one",)))
    assert posted[:2] == (3, MAX_MONEY)


def test_an_op_id_has_one_effect_and_its_first_receipts(world: World) -> None:
    first = one(world, transfer("a0", "a1", 30, ("s", 0)))
    assert one(world, transfer("a0", "a1", 30, ("s", 0))) == first
    assert world.shard_of("a0").snapshot()["a0"].balance == 70
    assert isinstance(one(world, transfer("a0", "a1", 31, ("s", 0))), OperationMismatch)


def test_an_unknown_source_goes_before_a_target_without_room(world: World) -> None:
    world.open(["a7"], MAX_MONEY - 50)
    unknown = transfer("a6", "a7", 60, ("s", 0))
    assert isinstance(one(world, unknown), UnknownAccount)
    assert isinstance(one(world, unknown), UnknownAccount)
    full = transfer("a0", "a7", 60, ("s", 1))
    assert isinstance(one(world, full), InvalidAmount)
    one(world, Operation(Function.WITHDRAW, "a7", 1000))
    assert isinstance(one(world, full), InvalidAmount), "rejections stay"
    assert isinstance(one(world, transfer("a0", "a7", 60, ("s", 2))), tuple)


# -- callers that die, or are slow -----------------------------------------------------------------


def pended(world: World, attempt: str = "one") -> None:
    world.message(world.shard_of("a1"), Batch(bytes([PEND]), ("a1",), (30,), ("a0",), attempts=(attempt,)))


def debited(world: World, attempt: str = "one") -> Any:
    (answer,) = world.message(world.shard_of("a0"), Batch(bytes([DEBIT]), ("a0",), (30,), ("a1",), attempts=(attempt,)))
    return answer


def balance(world: World, account: str) -> Any:
    return one(world, Operation(Function.BALANCE, account, 0))


def test_whoever_comes_next_makes_the_credit_of_a_caller_that_died_after_the_debit(world: World) -> None:
    pended(world)
    debited(world)
    assert balance(world, "a1").balance == OPENING, "it may still be on its way"
    world.now_s += 2 * IN_DOUBT_S
    assert balance(world, "a1").balance == OPENING + 30
    assert balance(world, "a0").balance == OPENING - 30


def test_a_credit_without_a_debit_is_voided_and_its_debit_refused_for_good(world: World) -> None:
    pended(world)
    world.now_s += 2 * IN_DOUBT_S
    assert balance(world, "a1").balance == OPENING
    assert isinstance(debited(world), Unavailable), "the caller was only slow"
    assert balance(world, "a0").balance == OPENING


def test_a_credit_is_posted_once_by_whoever_is_first(world: World) -> None:
    pended(world)
    debited(world)
    world.now_s += 2 * IN_DOUBT_S
    assert balance(world, "a1").balance == OPENING + 30
    (late,) = world.message(world.shard_of("a1"), Batch(bytes([POST]), ("a1",), (0,), (), attempts=("one",)))
    assert late == Receipt(2, OPENING + 30, 7)
    assert balance(world, "a1").balance == OPENING + 30


def test_an_operation_of_a_dead_caller_can_be_sent_again(world: World) -> None:
    world.shares = {"died": 0.4}
    answers = []
    for _ in range(50):
        try:
            answers.append(one(world, transfer("a0", "a1", 30, ("s", 0))))
        except Died:
            continue
    assert {each for each in answers if not isinstance(each, AccountError)} <= {(Receipt(2, 70, 7), Receipt(2, 130, 7))}
    world.settle_all()
    assert one(world, transfer("a0", "a1", 30, ("s", 0))) == (Receipt(2, 70, 7), Receipt(2, 130, 7))
    assert world.total() == 4 * OPENING


def test_a_credit_whose_source_is_lost_is_voided(world: World) -> None:
    pended(world)
    debited(world)
    world.shard_of("a0").is_lost = True
    world.now_s += 2 * IN_DOUBT_S
    assert balance(world, "a1").balance == OPENING


def test_while_the_source_does_not_answer_the_account_waits(world: World) -> None:
    pended(world)
    world.now_s += 2 * IN_DOUBT_S
    source, message = world.shard_of("a0"), world.message
    world.message = lambda shard, batch: (  # type: ignore[method-assign]
        [Indeterminate("no answer")] if shard is source else message(shard, batch)
    )
    assert isinstance(balance(world, "a1"), Unavailable)
    assert balance(world, "a2").balance == OPENING
    world.message = message  # type: ignore[method-assign]
    assert balance(world, "a1").balance == OPENING


def test_what_is_over_is_forgotten(world: World) -> None:
    caller = world.caller()
    for _ in range(20):
        called(world, caller, transfer("a0", "a1", 1))
    assert len(world.shard_of("a0")._debits) <= 1
    pended(world, "other")
    debited(world, "other")
    (answer,) = world.message(world.shard_of("a0"), Batch(bytes([FORGET]), ("",), (0,), (), attempts=("other",)))
    assert answer[:2] == NOTHING
    (answer,) = world.message(world.shard_of("a0"), Batch(bytes([SETTLE]), ("",), (0,), (), attempts=("other",)))
    assert answer[:2] == NOTHING
    world.message(world.shard_of("a1"), Batch(bytes([VOID]), ("a1",), (0,), (), attempts=("other",)))
    assert not world.shard_of("a1")._pending


# -- batches ---------------------------------------------------------------------------------------


def test_a_transfer_may_end_while_another_of_the_same_handle_is_on_its_way() -> None:
    """What it leaves to be forgotten comes after the other's message was made, and before its answer."""
    world = World(interrupted=0.5)
    world.open(["a0", "a1"])
    handle = world.caller()
    done: list[Any] = []

    def another() -> None:
        done.extend(called(world, handle, transfer("a0", "a1", 1)))

    for _ in range(40):
        world.meanwhile = [another]
        done += called(world, handle, transfer("a0", "a1", 1), transfer("a1", "a0", 1))
    assert len(done) > 2 * 40
    assert not any(isinstance(answer, AccountError) for answer in done)
    assert world.total() == 2 * OPENING


def test_a_batch_with_transfers_between_shards_keeps_the_order_of_every_account() -> None:
    for seed in range(40):
        chance = random.Random(seed)
        world, names = World(), [f"a{index}" for index in range(7)]
        world.open(names[:6])
        operations = []
        for number in range(60):
            function = chance.choice(list(Function))
            account, target = chance.choice(names), chance.choice(names)
            amount = chance.choice([0, 1, 5, 60, 200])
            op_id = OpId("s", number) if chance.random() < 0.7 else None
            operations.append(
                Operation(function, account, amount, target if function is Function.TRANSFER else None, op_id)
            )
        answers = called(world, world.caller(), *operations)
        alone = TwoPhaseLedger()
        for name in names[:6]:
            alone.open_account(name, OPENING)
        expected = alone.apply(Batch.of(operations))
        for answer, other in zip(answers, expected, strict=True):
            if isinstance(other, AccountError):
                assert type(answer) is type(other)
            elif len(other) == 4:
                assert [each[:2] for each in answer] == [other[:2], other[2:]]
            else:
                assert answer[:2] == other


# -- everything at once ----------------------------------------------------------------------------

TROUBLES = {
    "nothing": {},
    "lost requests": {"unsent": 0.15},
    "lost answers": {"unanswered": 0.15},
    "callers die": {"died": 0.1},
    "slow callers": {"slow": 0.3},
    "all of it": {"unsent": 0.05, "unanswered": 0.05, "died": 0.05, "slow": 0.2},
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("keyed", [True, False])
def test_no_transfer_is_ever_torn(trouble: str, keyed: bool) -> None:
    for seed in range(60):
        world = World(seed, interrupted=0.5, **TROUBLES[trouble])
        names = world.open(f"a{index}" for index in range(5))
        answers: dict[int, list[Any]] = {}
        crossing: set[int] = set()

        def send(
            number: int,
            world: World = world,
            names: list[str] = names,
            answers: dict[int, list[Any]] = answers,
            crossing: set[int] = crossing,
        ) -> None:
            chance = random.Random(number)
            operations = []
            for each in range(chance.choice([1, 1, 3])):
                source, target = chance.sample(names, 2)
                op_id = ("s", 10 * number + each) if keyed else None
                operations.append(transfer(source, target, chance.randint(1, 40), op_id))
                if world.shard_of(source) is not world.shard_of(target):
                    crossing.add(10 * number + each)
            for _ in range(1 + 2 * keyed):
                try:
                    found = called(world, world.caller(), *operations)
                except Died:
                    continue
                for each, answer in enumerate(found):
                    answers.setdefault(10 * number + each, []).append(answer)
                if not any(isinstance(answer, (Unavailable, Indeterminate)) for answer in found):
                    break

        world.meanwhile = [lambda number=number: send(number) for number in range(15)]
        while world.meanwhile:
            world.meanwhile.pop()()
        world.settle_all()
        debits = sum((shard.debited for shard in world.shards), Counter())
        credits = sum((shard.credited for shard in world.shards), Counter())
        assert debits == credits
        assert set(debits.values()) <= {1}
        assert world.total() == 5 * OPENING
        assert not any(shard._pending for shard in world.shards)
        granted = [number for number, found in answers.items() if any(isinstance(each, tuple) for each in found)]
        if keyed:
            for number in granted:
                assert len({each for each in answers[number] if isinstance(each, tuple)}) == 1
                assert not any(isinstance(each, Rejected) for each in answers[number])
            assert sum(debits.values()) >= len(crossing.intersection(granted)) > 0
        assert not any(isinstance(each, InDoubt) for found in answers.values() for each in found)


def test_the_richest_account_loses_nothing_to_itself() -> None:
    """Room that is kept for a credit elsewhere in its ledger is no reason to refuse the second half of a transfer."""
    ledger = TwoPhaseLedger()
    ledger.open_account("rich", MAX_MONEY)
    ledger.open_account("poor")
    pend = Batch(bytes([PEND]), ("poor",), (5,), ("elsewhere",), attempts=("an attempt",))
    assert ledger.apply_steps(pend) == [NOTHING]
    debit, credit = ledger.transfer("rich", "rich", 3)
    assert (debit.balance, credit.balance) == (MAX_MONEY - 3, MAX_MONEY)
    assert ledger.balance("rich") == credit
