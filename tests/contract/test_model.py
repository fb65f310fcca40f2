"""Any sequence of operations, resends among them, does what the model says. Hypothesis looks for one that does not."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from benchmarks.harness.environment import Environment
from strategies.interface import (
    MAX_MONEY,
    Accounts,
    Caller,
    OperationMismatch,
    OutOfScope,
    Receipt,
    Rejected,
    Retries,
    Transfers,
    UnknownAccount,
)
from tests.contract.callers import Call, InTasks, Outcome, call, kinds, outcomes
from tests.contract.conftest import skip_if_missing
from tests.contract.model import Model
from tests.contract.rows import Row

NAMES = ("a", "b", "c", "Zoë d")
SESSIONS = ("s", "t")
STEPS = 20
EXAMPLES = {Caller.DRIVER: 12, Caller.TASK: 3}
"""A call in a task takes ten times as long as one from the driver, so that to shrink a failure there takes minutes."""

names = st.sampled_from(NAMES)
amounts = st.one_of(st.integers(1, 20), st.integers(1, 200), st.sampled_from([0, -1, MAX_MONEY, MAX_MONEY + 1]))
openings = st.one_of(st.integers(0, 200), st.sampled_from([-1, MAX_MONEY - 3, MAX_MONEY + 1]))
sessions = st.one_of(st.none(), st.sampled_from(SESSIONS))
_banks = itertools.count()


class Sent(NamedTuple):
    wanted: Call
    answer: Outcome


class Machine(RuleBasedStateMachine):
    """Operations on one bank, beside the model."""

    row: Row
    environment: Environment
    prefix: str

    @initialize()
    def open_bank(self) -> None:
        self.bank = f"{self.prefix}-{next(_banks)}"
        self.handle = self.row.place.kind.open(self.row.place.context(self.environment, self.bank))
        in_tasks = self.row.caller is Caller.TASK
        self.accounts: Accounts = InTasks(self.handle, self.environment.client) if in_tasks else self.handle
        self.transfers = self.row.claims.transfers
        self.model = Model(self.transfers)
        self.sent: list[Sent] = []
        self.numbers = dict.fromkeys(SESSIONS, 0)
        self.epochs: dict[str, int] = {}
        self.out_of_scope: set[frozenset[str]] = set()
        self.in_scope: set[frozenset[str]] = set()

    def teardown(self) -> None:
        if not hasattr(self, "handle"):
            return
        try:
            found = self.accounts.snapshot()
            assert {name: receipt[:2] for name, receipt in found.items()} == self.model.accounts
            assert {name: receipt.epoch for name, receipt in found.items()} == self.epochs
        finally:
            self.handle.close()
            self.environment.drop_actors()

    @rule(account=names, opening=openings, session=sessions)
    def open_account(self, account: str, opening: int, session: str | None) -> None:
        self._send("open_account", (account,), opening, session)

    @rule(account=names, amount=amounts, session=sessions)
    def deposit(self, account: str, amount: int, session: str | None) -> None:
        self._send("deposit", (account,), amount, session)

    @rule(account=names, amount=amounts, session=sessions)
    def withdraw(self, account: str, amount: int, session: str | None) -> None:
        self._send("withdraw", (account,), amount, session)

    @rule(source=names, destination=names, amount=amounts, session=sessions)
    def transfer(self, source: str, destination: str, amount: int, session: str | None) -> None:
        self._send("transfer", (source, destination), amount, session)

    @rule(account=names)
    def balance(self, account: str) -> None:
        (answer,) = outcomes(self.accounts, call("balance", account))
        if account in self.model.accounts:
            assert answer == Receipt(*self.model.accounts[account], self.epochs[account])
        else:
            assert type(answer) is UnknownAccount

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        wanted, first = data.draw(st.sampled_from(self.sent), label="sent again")
        (again,) = outcomes(self.accounts, wanted)
        if isinstance(first, Rejected):
            assert (type(again), str(again)) == (type(first), str(first))
        else:
            assert again == first

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), more=st.integers(1, 3))
    def send_another_amount(self, data: st.DataObject, more: int) -> None:
        (method, args, options), first = data.draw(st.sampled_from(self.sent), label="changed")
        if abs(args[-1]) > MAX_MONEY - 3 or isinstance(first, OutOfScope):
            return  # amounts beyond the largest need not be told apart; what is out of scope stays so
        (answer,) = outcomes(self.accounts, Call(method, (*args[:-1], args[-1] + more), options))
        assert type(answer) is OperationMismatch

    def _send(self, method: str, accounts: tuple[str, ...], amount: int, session: str | None) -> None:
        op_id = None
        if session is not None and self.row.claims.retries is Retries.SAFE_WITH_OP_ID:
            self.numbers[session] += 1
            op_id = (session, self.numbers[session])
        wanted = call(method, *accounts, amount, op_id=op_id)
        (answer,) = outcomes(self.accounts, wanted)
        self._judge(method, accounts, amount, answer)
        if op_id is not None:
            self.sent.append(Sent(wanted, answer))

    def _judge(self, method: str, accounts: tuple[str, ...], amount: int, answer: Any) -> None:
        if method == "transfer" and self._allowed_out_of_scope(frozenset(accounts), answer):
            return
        reasons = self.model.reasons(method, accounts, amount)
        if reasons:
            assert type(answer) in reasons
            return
        assert not isinstance(answer, Exception), f"{method}{accounts} of {amount} ended in {answer!r}"
        receipts = list(answer) if method == "transfer" else [answer]
        assert kinds(receipts) == [Receipt] * len(accounts)
        assert [receipt[:2] for receipt in receipts] == self.model.change(method, accounts, amount)
        for name, receipt in zip(accounts, receipts, strict=True):
            assert self.epochs.setdefault(name, receipt.epoch) == receipt.epoch

    def _allowed_out_of_scope(self, pair: frozenset[str], answer: Any) -> bool:
        """Which pairs share a shard is for the strategy to say, but always the same."""
        if isinstance(answer, OutOfScope):
            assert self.transfers is Transfers.NONE or (self.transfers is Transfers.SAME_SHARD and len(pair) == 2)
            assert pair not in self.in_scope
            self.out_of_scope.add(pair)
            return True
        if not isinstance(answer, Rejected):
            assert pair not in self.out_of_scope
            self.in_scope.add(pair)
        return False


def test_the_strategy_does_what_the_model_does(row: Row, environment: Environment, bank: str) -> None:
    skip_if_missing(row.claims, environment)
    machine = type("Machine", (Machine,), {"row": row, "environment": environment, "prefix": bank})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[row.caller],
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            phases=[Phase.generate, *([Phase.shrink] if row.caller is Caller.DRIVER else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )
