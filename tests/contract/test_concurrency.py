"""Many callers at once: no update lost, no receipt given twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness.environment import Environment
from strategies.interface import (
    AccountExists,
    Accounts,
    Capabilities,
    Consistency,
    InsufficientFunds,
    OutOfScope,
    Receipt,
    Retries,
    Transfers,
)
from tests.contract.callers import Call, InTasks, Outcome, call, outcomes

CALLERS = 8
CALLS_EACH = 40
NAMES = ("a", "b", "c")
OPENING = 1_000


def _all_at_once(accounts: Accounts, work: Iterable[list[Call]]) -> list[list[Outcome]]:
    """Each list of calls by a caller of its own: a thread, or a task."""
    if isinstance(accounts, InTasks):
        return [future.result() for future in [accounts.submit(calls) for calls in work]]
    with ThreadPoolExecutor(CALLERS) as threads:
        return list(threads.map(lambda calls: outcomes(accounts, *calls), work))


def test_concurrent_changes_are_all_applied_once_each(accounts: Accounts, claims: Capabilities) -> None:
    assert claims.consistency is not Consistency.NONE, "what such a strategy promises its callers is for it to test"
    outcomes(accounts, *(call("open_account", name, OPENING) for name in NAMES))
    work = [
        [
            call("withdraw" if number % 3 == 0 else "deposit", NAMES[(caller + number) % len(NAMES)], 1 + number % 5)
            for number in range(CALLS_EACH)
        ]
        for caller in range(CALLERS)
    ]
    answers = _all_at_once(accounts, work)
    made = [pair for calls, found in zip(work, answers, strict=True) for pair in zip(calls, found, strict=True)]
    assert {type(answer) for _, answer in made} == {Receipt}
    snapshot = accounts.snapshot()
    for name in NAMES:
        own = [(each, receipt) for each, receipt in made if each.args[0] == name]
        signed = {receipt.seq: each.args[1] * (-1 if each.method == "withdraw" else 1) for each, receipt in own}
        assert sorted(receipt.seq for _, receipt in own) == list(range(2, len(own) + 2)), "gap-free, and each once"
        balance = OPENING
        for _, receipt in sorted(own, key=lambda pair: pair[1].seq):
            balance += signed[receipt.seq]
            assert receipt.balance == balance, "each receipt shows the balance after its change"
        assert snapshot[name][:2] == (len(own) + 1, balance)
        assert len({receipt.epoch for _, receipt in own}) == 1


def test_one_caller_sees_its_own_changes_in_order(accounts: Accounts) -> None:
    accounts.open_account("a")
    answers = _all_at_once(accounts, [[call("deposit", "a", 1), call("balance", "a")] * 10] * CALLERS)
    for found in answers:
        seqs = [receipt.seq for receipt in found]
        assert seqs == sorted(seqs)


def test_the_last_coin_is_given_out_once(accounts: Accounts) -> None:
    accounts.open_account("a", 5)
    answers = _all_at_once(accounts, [[call("withdraw", "a", 1)] * 3] * CALLERS)
    assert Counter(type(answer) for found in answers for answer in found) == {
        Receipt: 5,
        InsufficientFunds: 3 * CALLERS - 5,
    }
    assert accounts.balance("a")[:2] == (6, 0)


def test_of_many_who_open_an_account_one_succeeds(accounts: Accounts) -> None:
    names = [f"account-{number}" for number in range(3)]
    answers = _all_at_once(
        accounts, [[call("open_account", name, caller) for name in names] for caller in range(CALLERS)]
    )
    for found in zip(*answers, strict=True):
        assert Counter(map(type, found)) == {Receipt: 1, AccountExists: CALLERS - 1}
    snapshot = accounts.snapshot()
    for position, name in enumerate(names):
        (receipt,) = [found[position] for found in answers if isinstance(found[position], Receipt)]
        assert snapshot[name] == receipt


def test_one_op_id_sent_by_many_at_once_has_one_effect(accounts: Accounts, claims: Capabilities) -> None:
    if claims.retries is not Retries.SAFE_WITH_OP_ID:
        return
    accounts.open_account("a")
    answers = _all_at_once(accounts, [[call("deposit", "a", 1, op_id=("s", number)) for number in range(5)]] * CALLERS)
    for found in zip(*answers, strict=True):
        assert len(set(found)) == 1
    assert accounts.balance("a")[:2] == (6, 5)


def test_concurrent_transfers_keep_the_total(
    accounts: Accounts, claims: Capabilities, environment: Environment
) -> None:
    names = [f"account-{number}" for number in range(6)]
    outcomes(accounts, *(call("open_account", name, 20) for name in names))
    work = [
        [
            call("transfer", names[(caller + number) % 6], names[(caller * 2 + number * 3 + 1) % 6], 7)
            for number in range(15)
        ]
        for caller in range(CALLERS)
    ]
    answers = _all_at_once(accounts, work)
    found = {type(answer) for each in answers for answer in each}
    assert found <= {tuple, InsufficientFunds, OutOfScope}
    snapshot = accounts.snapshot()
    assert sum(receipt.balance for receipt in snapshot.values()) == 20 * len(names)
    assert all(receipt.balance >= 0 for receipt in snapshot.values())
    if claims.transfers is Transfers.ANY:
        receipts = Counter(leg for each in answers for answer in each if isinstance(answer, tuple) for leg in answer)
        assert receipts
        legs = sum(snapshot[name].seq - 1 for name in names)
        assert sum(receipts.values()) == legs
