"""The account interface over actors, Dask's or others': checks, owners, op ids; calls are batches of one."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from itertools import compress
from typing import Any, ClassVar, Self, cast

from strategies.interface.account import (
    MAX_BATCH,
    Accounts,
    Answer,
    Batched,
    Function,
    Operation,
    OpId,
    Pipelined,
    Receipt,
)
from strategies.interface.capabilities import Capabilities, Transfers
from strategies.interface.errors import AccountError, InvalidAccount, OutOfScope, Rejected, Unavailable
from strategies.support.across_shards import AcrossShards
from strategies.support.coalescing import Coalescer
from strategies.support.fates import InDoubt
from strategies.support.op_window import OwnerWindow
from strategies.support.owners import Owner, Owners
from strategies.support.validation import check_account, check_op_id, whole_amount
from strategies.support.wire import (
    BALANCE,
    DEPOSIT,
    FUNCTIONS,
    NO_NUMBER,
    OPEN_ACCOUNT,
    TRANSFER,
    WITHDRAW,
    Batch,
)

_KNOWN_ACCOUNTS = 65_536
"""Whose owners a handle remembers: to find one takes longer than all else that a batch does with an operation."""

_SETTLING_S = 0.01
"""Between two attempts to read accounts whose credits are in doubt."""

_TRANSFER = Function.TRANSFER.value
_CODES = tuple(bytes([code]) for code in range(len(FUNCTIONS)))
_CHANGES = bytes(code != BALANCE for code in range(256))


class ActorAccounts(Accounts):
    """What strategies on actors have in common: everything but which actor owns which account."""

    capabilities: ClassVar[Capabilities]

    one_owner_sees_all: ClassVar[bool] = False
    """Then a handle has nothing to remember of op ids."""

    def __init__(self, bank: Owners) -> None:
        self._bank = bank
        self._sent: dict[str, OwnerWindow] = {}

    @abstractmethod
    def _owner(self, account: str, deadline: float, *, make: bool = False) -> Owner:
        """The actor that owns the account; `make` allows to make one.

        Raises:
            UnknownAccount: there is none.
        """

    @abstractmethod
    def _owners(self, deadline: float) -> Sequence[Owner]:
        """Every actor of the bank."""

    def open_account(self, account: str, opening: int = 0, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(OPEN_ACCOUNT, (account,), opening, op_id)
        return receipt

    def deposit(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(DEPOSIT, (account,), amount, op_id)
        return receipt

    def withdraw(self, account: str, amount: int, *, op_id: tuple[str, int] | None = None) -> Receipt:
        receipt: Receipt = self._change(WITHDRAW, (account,), amount, op_id)
        return receipt

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        receipts: tuple[Receipt, Receipt] = self._change(TRANSFER, (source, target), amount, op_id)
        return receipts

    def balance(self, account: str) -> Receipt:
        check_account(account)
        deadline = self._bank.deadline()
        self._bank.check_open()
        batch = Batch(_CODES[BALANCE], (account,), (0,), ())
        receipt: Receipt = self._answer(self._owner(account, deadline), batch, deadline)
        return receipt

    def snapshot(self) -> dict[str, Receipt]:
        deadline = self._bank.deadline()
        return self._bank.snapshots(self._owners(deadline), deadline)

    def close(self) -> None:
        self._bank.close()

    def _change(self, code: int, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None) -> Any:
        self._bank.check_open()
        for account in accounts:
            check_account(account)
        amount = whole_amount(amount)
        check_op_id(op_id)
        deadline = self._bank.deadline()
        owner = self._owner_of_call(code, accounts, amount, op_id, deadline)
        batch = Batch(_CODES[code], accounts[:1], (amount,), accounts[1:])
        if op_id is not None:
            batch = batch._replace(sessions=op_id[:1], numbers=op_id[1:])
        return self._answer(owner, batch, deadline)

    def _answer(self, owner: Owner, batch: Batch, deadline: float) -> Any:
        ((answer,),) = self._bank.apply([(owner, batch)], deadline, FUNCTIONS[batch.functions[0]])
        if isinstance(answer, AccountError):
            raise answer
        return answer

    def _owner_of_call(
        self, code: int, accounts: tuple[str, ...], amount: int, op_id: tuple[str, int] | None, deadline: float
    ) -> Owner:
        """The owner, unless this handle can tell already what the answer is.

        Each actor remembers the op ids that it saw. What no actor sees is for the handle to
        remember: an id used again for another actor's account, and rejections made here.
        """
        if op_id is None or self.one_owner_sees_all:
            return self._common_owner(accounts, deadline, make=code == OPEN_ACCOUNT)
        window = self._window(op_id[0])
        try:
            # One account's actor remembers its rejections too, so for that it is made where there is none.
            owner = self._common_owner(accounts, deadline, make=len(accounts) == 1)
        except Rejected:
            window.claim(op_id[1], (code, *accounts, amount))
            raise
        window.claim(op_id[1], owner)
        return owner

    def _window(self, session: str) -> OwnerWindow:
        window = self._sent.get(session)
        if window is None:
            window = self._sent.setdefault(session, OwnerWindow())
        return window

    def _common_owner(self, accounts: tuple[str, ...], deadline: float, *, make: bool) -> Owner:
        if len(accounts) == 1:
            return self._owner(accounts[0], deadline, make=make)
        if self.capabilities.transfers is Transfers.NONE:
            raise self._out_of_scope(*accounts)
        owner, *others = [self._owner(account, deadline, make=make) for account in accounts]
        if any(other is not owner for other in others):
            raise self._out_of_scope(*accounts)
        return owner

    def _out_of_scope(self, source: str, target: str) -> OutOfScope:
        return OutOfScope(
            f"{self.name} cannot change {source!r} and {target!r} together; "
            f"use a strategy that claims transfers between any accounts"
        )


class ShardedAccounts(ActorAccounts, Batched, Pipelined):
    """Accounts over a fixed number of actors: a batch is one message to each of those that it concerns.

    What is submitted waits in a queue for its shard while a batch is there. From the first submitted transfer between
    shards on, a handle has one queue for all of them, in which the order of every account is kept: then one shard that
    does not answer holds up what is submitted for others, up to the deadline.
    """

    def __init__(self, bank: Owners, shards: Sequence[Owner], shard_of: Callable[[str], int]) -> None:
        """`shard_of` is no method of the handle's: the two would keep each other, and the actors, alive."""
        super().__init__(bank)
        self._shards = shards
        self._owner_of = _OwnerOf(lambda account: shards[shard_of(account)])
        self._across = AcrossShards(bank, self._owner_of.__getitem__)
        self._queues: dict[Owner, Coalescer] = {}
        self._joint_queue: Coalescer | None = None
        self._submit_to: dict[str, Callable[[Operation], Future[Any]]] = {}
        """By account, as long as there is no joint queue; of accounts that were asked for lately."""
        self._queueing = threading.Lock()

    def __reduce__(self) -> tuple[type[Self], tuple[Owners, Sequence[Owner]]]:
        return type(self), (self._bank, self._shards)

    def transfer(
        self, source: str, target: str, amount: int, *, op_id: tuple[str, int] | None = None
    ) -> tuple[Receipt, Receipt]:
        self._bank.check_open()
        if self._owner_of[source] is self._owner_of[target]:
            return super().transfer(source, target, amount, op_id=op_id)
        check_op_id(op_id)
        batch = Batch.of([Operation(Function.TRANSFER, source, amount, target, cast("OpId | None", op_id))])
        (answer,) = self._apply(batch, self._bank.deadline())
        if isinstance(answer, AccountError):
            raise answer
        return cast("tuple[Receipt, Receipt]", answer)

    def snapshot(self) -> dict[str, Receipt]:
        deadline = self._bank.deadline()
        while True:  # ends with the deadline, as each snapshot does
            try:
                return self._bank.snapshots(self._shards, deadline)
            except InDoubt as doubt:
                for shard in self._shards:
                    self._across.settle(shard, doubt.pending, deadline)
                time.sleep(_SETTLING_S)

    def _answer(self, owner: Owner, batch: Batch, deadline: float) -> Any:
        try:
            return super()._answer(owner, batch, deadline)
        except InDoubt:
            (answer,) = self._across.apply(batch, [owner], [owner] * len(batch.targets), deadline).values()
        if isinstance(answer, AccountError):
            raise answer
        return answer

    def _owner(self, account: str, deadline: float, *, make: bool = False) -> Owner:
        return self._owner_of[account]

    def _owners(self, deadline: float) -> Sequence[Owner]:
        return self._shards

    def apply(self, operations: Sequence[Operation]) -> list[Answer]:
        self._bank.check_open()
        if len(operations) > MAX_BATCH:
            raise ValueError(f"a batch has at most {MAX_BATCH} operations, not {len(operations)}; split it")
        if not operations:
            return []
        return self._apply(Batch.of(operations), self._bank.deadline())

    def submit(self, operation: Operation) -> Future[Any]:
        function, account, _, _, _ = operation
        try:
            submit = self._submit_to.get(account) if function != _TRANSFER else None
        except TypeError:  # it can be none
            submit = None
        return (submit or self._queue_for(operation).submit)(operation)

    def _queue_for(self, operation: Operation) -> Coalescer:
        """That of the account's shard, until a transfer between shards calls for one in place of all.

        What was submitted before that transfer is sent before it.
        """
        self._bank.check_open()
        function, account, _, target, _ = operation
        with self._queueing:
            if self._joint_queue is not None:
                return self._joint_queue
            try:
                shard = self._owner_of[account]
                if function == _TRANSFER and self._owner_of[str(target)] is not shard:
                    self._joint_queue = self._bank.queue(self._send_after_all)
                    self._submit_to.clear()
                    return self._joint_queue
            except (InvalidAccount, TypeError):
                return self._queue_of(self._shards[0])  # as good as any: the answer will be the same
            queue = self._queue_of(shard)
            if len(self._submit_to) >= _KNOWN_ACCOUNTS:
                self._submit_to.clear()
            self._submit_to[account] = queue.submit
            return queue

    def _queue_of(self, shard: Owner) -> Coalescer:
        queue = self._queues.get(shard)
        if queue is None:
            queue = self._queues[shard] = self._bank.queue(self._send)
        return queue

    def close(self) -> None:
        super().close()
        for queue in [*self._queues.values(), *filter(None, [self._joint_queue])]:
            queue.close()

    def _send_after_all(self, operations: Sequence[Operation], deadline: float) -> list[Answer]:
        if not all(queue.await_idle(deadline) for queue in list(self._queues.values())):
            raise Unavailable("what was submitted before was not answered in time; send it again")
        return self._send(operations, deadline)

    def _send(self, operations: Sequence[Operation], deadline: float) -> list[Answer]:
        return self._apply(Batch.of(operations), deadline)

    def _apply(self, batch: Batch, deadline: float) -> list[Answer]:
        refused: dict[int, Rejected] = {}
        owners: list[Owner | None]
        try:
            owners = list(map(self._owner_of.__getitem__, batch.accounts))
            owners_of_targets: list[Owner | None] = list(map(self._owner_of.__getitem__, batch.targets))
        except InvalidAccount:
            owners = [self._owner_if_valid(account, refused, place) for place, account in enumerate(batch.accounts)]
            owners_of_targets = [
                self._owner_if_valid(target, refused, place)
                for place, target in zip(_places_of(batch, TRANSFER), batch.targets, strict=True)
            ]
        crosses = self._crosses(batch, owners, owners_of_targets)
        if not self.one_owner_sees_all:
            self._refuse(batch, owners, crosses, refused)
        for place in refused:
            owners[place] = None
        if crosses.keys() - refused.keys():
            answered = self._across.apply(batch, owners, owners_of_targets, deadline)
            return [answered[place] if place in answered else refused[place] for place in range(len(owners))]

        places: dict[Owner | None, list[int]] = {shard: [] for shard in set(owners)}
        if len(places) == 1 and not refused:
            (answers,) = self._bank.apply([(owners[0], batch)], deadline, "a batch")
            return self._settled(batch, answers, owners, deadline)
        for place, owner in enumerate(owners):
            places[owner].append(place)
        places.pop(None, None)
        requests = ((shard, batch.pick(own)) for shard, own in places.items())
        found = self._bank.apply(requests, deadline, "a batch")
        in_order: list[Any] = [None] * len(owners)
        for own, answers in zip(places.values(), found, strict=True):
            for place, answer in zip(own, answers, strict=True):
                in_order[place] = answer
        for place, rejection in refused.items():
            in_order[place] = rejection
        return self._settled(batch, in_order, owners, deadline)

    def _settled(
        self, batch: Batch, answers: list[Answer], owners: Sequence[Owner | None], deadline: float
    ) -> list[Answer]:
        """With operations applied that had met credits in doubt."""
        if InDoubt not in set(map(type, answers)):
            return answers
        places = [place for place, answer in enumerate(answers) if isinstance(answer, InDoubt)]
        part = batch.pick(places)
        owners = [owners[place] for place in places]
        of_targets = [owner for code, owner in zip(part.functions, owners, strict=True) if code == TRANSFER]
        for place, answer in self._across.apply(part, owners, of_targets, deadline).items():
            answers[places[place]] = answer
        return answers

    def _crosses(
        self, batch: Batch, owners: Sequence[Owner | None], owners_of_targets: Sequence[Owner | None]
    ) -> dict[int, tuple[Owner | None, Owner | None]]:
        """Places of transfers between shards, and which shards these are."""
        if not batch.targets:
            return {}
        places = _places_of(batch, TRANSFER)
        return {
            place: (owners[place], other)
            for place, other in zip(places, owners_of_targets, strict=True)
            if owners[place] is not other
        }

    def _owner_if_valid(self, account: str, refused: dict[int, Rejected], place: int) -> Owner | None:
        try:
            return self._owner_of[account]
        except InvalidAccount as error:
            refused[place] = error.with_traceback(None)
            return None

    def _refuse(
        self,
        batch: Batch,
        owners: Sequence[Owner | None],
        crosses: Mapping[int, object],
        refused: dict[int, Rejected],
    ) -> None:
        """Add what this handle knows better than any one shard: see `_owner_of_call`."""
        if not batch.numbers:
            return
        if not refused and not crosses and len(batch.sessions) == 1 and NO_NUMBER not in batch.numbers:
            changes = batch.functions.translate(_CHANGES)
            numbers: Sequence[int] = batch.numbers
            owners_of_numbers: Sequence[Owner | None] = owners
            if BALANCE in batch.functions:
                numbers, owners_of_numbers = list(compress(numbers, changes)), list(compress(owners, changes))
            if not numbers or self._window(batch.sessions[0]).claim_all(numbers, owners_of_numbers):
                return
        windows = [self._window(session) for session in batch.sessions]
        for place, (code, number) in enumerate(zip(batch.functions, batch.numbers, strict=True)):
            if code == BALANCE or number == NO_NUMBER or place in refused:
                continue
            window = windows[batch.session_of[place] if batch.session_of else 0]
            try:
                window.claim(number, crosses.get(place, owners[place]))
            except Rejected as rejection:
                refused[place] = rejection.with_traceback(None)


class _OwnerOf(dict[str, Owner]):
    """The owner of each account that was asked for lately; only what can name an account has one."""

    def __init__(self, find: Callable[[str], Owner]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, account: str) -> Owner:
        check_account(account)
        if len(self) >= _KNOWN_ACCOUNTS:
            self.clear()
        owner = self[account] = self._find(account)
        return owner


def _places_of(batch: Batch, code: int) -> Collection[int]:
    if code not in batch.functions:
        return ()
    return [place for place, each in enumerate(batch.functions) if each == code]
