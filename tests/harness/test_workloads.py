"""Workloads are the mixes that they are named for, and their names can be told again."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.harness import workloads
from benchmarks.harness.history import BALANCE, DEPOSIT, TRANSFER, WITHDRAW
from benchmarks.harness.workloads import ACCOUNTS_MAX, PLAN_LENGTH, THETA_MAX, UnknownWorkload, load, names, spelled
from strategies.interface import Transfers

CLIENTS = 8
ALL = [*names(), "unit_deposits"]


def joined(name: str, seed: int = 1) -> dict[str, Any]:
    """The plans of several clients, one after another."""
    plans = [load(name).plan(seed, client, CLIENTS) for client in range(CLIENTS)]
    return {
        column: np.concatenate([getattr(plan, column) for plan in plans])
        for column in ("function", "account", "target", "amount")
    }


# -- shares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("ycsb_a", {BALANCE: 0.5, DEPOSIT: 0.5}),
        ("ycsb_b", {BALANCE: 0.95, DEPOSIT: 0.05}),
        ("ycsb_c", {BALANCE: 1.0}),
        ("ycsb_f", {BALANCE: 0.5, DEPOSIT: 0.25, WITHDRAW: 0.25}),
        ("hot", {DEPOSIT: 1.0}),
        ("transfer", {TRANSFER: 1.0}),
        ("unit_deposits", {DEPOSIT: 1.0}),
    ],
)
def test_the_shares_of_a_mix(name: str, shares: dict[int, float]) -> None:
    counts = Counter(joined(name)["function"].tolist())
    assert set(counts) == set(shares)
    for function, wanted in shares.items():
        assert counts[function] / (CLIENTS * PLAN_LENGTH) == pytest.approx(wanted, abs=0.006)


def test_smallbanks_six_transactions() -> None:
    """Told apart by what only one of them does. Savings have even numbers, checking accounts odd ones."""
    plans = joined("smallbank")
    function, savings = plans["function"], plans["account"] % 2 == 0
    found = {
        "amalgamate": int(((function == TRANSFER) & savings).sum()),
        "deposit_checking": int(((function == DEPOSIT) & ~savings).sum()),
        "transact_savings": int((((function == DEPOSIT) | (function == WITHDRAW)) & savings).sum()),
        "write_check": int(((function == WITHDRAW) & ~savings).sum()),
    }
    found["send_payment"] = int(((function == TRANSFER) & ~savings).sum()) - found["amalgamate"]
    found["balance"] = int((function == BALANCE).sum()) // 2 - found["amalgamate"] - found["write_check"]
    shares = {name: count / sum(found.values()) for name, count in found.items()}
    assert shares == pytest.approx(
        {
            "amalgamate": 0.15,
            "balance": 0.15,
            "deposit_checking": 0.15,
            "send_payment": 0.25,
            "transact_savings": 0.15,
            "write_check": 0.15,
        },
        abs=0.008,
    )


def test_smallbanks_calls_of_one_transaction_are_on_one_holders_accounts() -> None:
    plan = load("smallbank").plan(1, 0, 1)
    function, account, target, amount = (
        column.tolist() for column in (plan.function, plan.account, plan.target, plan.amount)
    )
    amalgamates = [row for row in range(2, PLAN_LENGTH - 1) if function[row] == TRANSFER and account[row] % 2 == 0]
    assert amalgamates
    for row in amalgamates:
        savings = account[row]
        assert function[row - 2 : row + 2] == [BALANCE, BALANCE, TRANSFER, TRANSFER]
        assert account[row - 2 : row + 2] == [savings, savings + 1, savings, savings + 1]
        assert target[row] == target[row + 1]
        assert amount[row] == amount[row + 1]
        assert target[row] % 2 == 1
        assert target[row] // 2 != savings // 2
    checks = [row for row in range(2, PLAN_LENGTH) if function[row] == WITHDRAW and account[row] % 2 == 1]
    assert checks
    for row in checks:
        assert function[row - 2 : row] == [BALANCE, BALANCE]
        assert account[row - 2 : row + 1] == [account[row] - 1, account[row], account[row]]


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("hot", "unit_deposits")])
def test_money_does_not_run_out(name: str) -> None:
    """What a plan takes from an account in one go round is little beside what it was opened with."""
    plans = joined(name)
    change = np.zeros(load(name).accounts)
    for function, account, target, amount in zip(*plans.values(), strict=True):
        change[account] += {BALANCE: 0, DEPOSIT: 1, WITHDRAW: -1, TRANSFER: -1}[function] * amount
        if target >= 0:
            change[target] += amount
    assert change.min() > -workloads.OPENING / 10


# -- whose accounts --------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.5, 0.9, 0.99, 1.2, 1.5])
def test_zipfs_law(theta: float) -> None:
    name = f"ycsb_c:zipf={theta}"
    counts = np.bincount(joined(name)["account"], minlength=100)
    weights = np.arange(1, 101) ** -theta
    assert stats.chisquare(counts, counts.sum() * weights / weights.sum()).pvalue > 0.001


@pytest.mark.parametrize("name", ["transfer", "ycsb_a:zipf=0", "hot:accounts=37"])
def test_uniform_choice(name: str) -> None:
    counts = np.bincount(joined(name)["account"], minlength=load(name).accounts)
    assert len(counts) == load(name).accounts
    assert stats.chisquare(counts).pvalue > 0.001


def test_targets_of_uniform_transfers_are_uniform_too() -> None:
    plans = joined("transfer")
    assert not (plans["account"] == plans["target"]).any()
    assert stats.chisquare(np.bincount(plans["target"], minlength=100)).pvalue > 0.001
    assert stats.chisquare(np.bincount((plans["target"] - plans["account"]) % 100)[1:]).pvalue > 0.001


def test_skewed_transfers_are_skewed_on_both_sides_and_never_to_oneself() -> None:
    plans = joined("transfer:zipf=0.99")
    assert not (plans["account"] == plans["target"]).any()
    for side in ("account", "target"):
        counts = np.bincount(plans[side], minlength=100)
        assert counts[0] > 5 * counts[50]


@pytest.mark.parametrize("accounts", [2, 3])
def test_transfers_between_few(accounts: int) -> None:
    for theta in ("0", "1.5"):
        plans = joined(f"transfer:accounts={accounts},zipf={theta}")
        assert set(plans["target"].tolist()) == set(plans["account"].tolist()) == set(range(accounts))
        assert not (plans["account"] == plans["target"]).any()


def test_amounts_are_uniform() -> None:
    amounts = joined("transfer")["amount"]
    assert (amounts.min(), amounts.max()) == (1, 100)
    assert stats.chisquare(np.bincount(amounts)[1:]).pvalue > 0.001


@pytest.mark.parametrize("clients", [1, 3, 16])
def test_in_turn_each_client_has_accounts_of_its_own(clients: int) -> None:
    workload = load("unit_deposits")
    owners: dict[int, int] = {}
    for client in range(clients):
        accounts = workload.plan(1, client, clients).account.tolist()
        own = list(dict.fromkeys(accounts))
        assert accounts[: 3 * len(own)] == own * 3
        for account in own:
            assert owners.setdefault(account, client) == client
    assert sorted(owners) == list(range(workload.accounts))


def test_clients_draw_independently() -> None:
    accounts = [load("ycsb_a").plan(1, client, CLIENTS).account for client in range(4)]
    for left, right in itertools.pairwise(accounts):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.05


@pytest.mark.parametrize("name", names())
def test_a_mix_says_where_it_comes_from_and_adds_up(name: str) -> None:
    workload = load(name)
    assert len(workload.source) > 40
    assert sum(part.percent for part in workload.mix) == pytest.approx(100)
    assert (workload.transfers is Transfers.ANY) == (name in ("transfer", "smallbank"))


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ycsb_a", "transfer:zipf=0.99", "smallbank", "hot"])
def test_a_million_accounts_are_planned_about_as_fast_as_a_hundred(name: str) -> None:
    """Once what all clients share is worked out."""

    def fastest_s(workload: workloads.Workload) -> float:
        times_s = []
        for client in range(5):
            begin_s = time.perf_counter()
            workload.plan(1, client, 8)
            times_s.append(time.perf_counter() - begin_s)
        return min(times_s)

    large = load(spelled(name, accounts=ACCOUNTS_MAX))
    assert fastest_s(large) < 20 * fastest_s(load(name))
    account = large.plan(1, 0, 8).account
    assert 0 <= account.min() <= account.max() < ACCOUNTS_MAX
    assert len(np.unique(account)) > PLAN_LENGTH / 10


def test_names_of_accounts() -> None:
    assert load("hot").account_names == ["account-0"]
    assert load("ycsb_a:accounts=5").account_names == [f"account-{index}" for index in range(5)]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_plain_name_is_its_own(name: str) -> None:
    assert load(name).name == spelled(name) == name


@given(
    name=st.sampled_from(ALL),
    pairs=st.none() | st.integers(2, ACCOUNTS_MAX // 2),
    theta=st.none() | st.integers(0, int(THETA_MAX * 1_000_000)).map(lambda millionths: millionths / 1_000_000),
)
@settings(max_examples=200)
def test_names_can_be_told_again(name: str, pairs: int | None, theta: float | None) -> None:
    accounts = None if pairs is None else 2 * pairs
    told = spelled(name, accounts, theta)
    workload = load(told)
    assert workload.name == told == spelled(told)
    assert load(workload.name) == workload
    if accounts is not None:
        assert workload.accounts == accounts
    if theta is not None:
        assert (workload.zipf_theta or 0.0) == theta


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("ycsb_a:zipf=0.99", "ycsb_a"),
        ("ycsb_a:zipf=0.990", "ycsb_a"),
        ("ycsb_a:accounts=100", "ycsb_a"),
        ("ycsb_a:zipf=1.20,accounts=0500", "ycsb_a:accounts=500,zipf=1.2"),
        ("transfer:zipf=0", "transfer"),
        ("ycsb_a:zipf=0.0", "ycsb_a:zipf=0"),
        ("hot:zipf=0.00001", "hot:zipf=0.00001"),
        ("hot:zipf=1.234567", "hot:zipf=1.234567"),
    ],
)
def test_one_spelling(told: str, name: str) -> None:
    assert load(told).name == spelled(told) == name


def test_options_change_what_a_name_says() -> None:
    assert spelled("ycsb_a:accounts=500,zipf=1.2", accounts=700) == "ycsb_a:accounts=700,zipf=1.2"
    assert spelled("ycsb_a:accounts=500,zipf=1.2", zipf=0.99) == "ycsb_a:accounts=500"
    assert spelled("ycsb_a:accounts=500", accounts=100) == "ycsb_a"


def test_a_changed_workload_is_otherwise_the_same() -> None:
    changed = load("smallbank:accounts=200,zipf=0.99")
    assert (changed.mix, changed.kinds, changed.source) == (load("smallbank").mix, 2, load("smallbank").source)
    assert (changed.accounts, changed.holders, changed.zipf_theta) == (200, 100, 0.99)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ycsb_q", "did you mean ycsb_"),
        ("", "there are ycsb_a, "),
        ("qqq", "there are ycsb_a, "),
        ("ycsb_a:zipf", "'zipf' is no setting of a workload; write NAME:accounts=N,zipf=THETA"),
        ("ycsb_a:accounts=", "is no setting"),
        ("ycsb_a:accounts=1e3", "is no setting"),
        ("ycsb_a:accounts=-5", "is no setting"),
        ("ycsb_a:zipf=nan", "is no setting"),
        ("ycsb_a:zipf=-1", "is no setting"),
        ("ycsb_a:seed=1", "is no setting"),
        ("ycsb_a:accounts=5,", "'' is no setting"),
        ("ycsb_a:zipf=1.51", "zipf must be 0 \\(uniform\\) to 1.5, not 1.51"),
        ("ycsb_a:zipf=999", "zipf must be"),
        ("ycsb_a:accounts=0", "ycsb_a takes 1 to 1,000,000 accounts, not 0"),
        ("ycsb_a:accounts=1000001", "not 1000001"),
        ("transfer:accounts=1", "transfer takes 2 to"),
        ("smallbank:accounts=2", "smallbank takes 4 to"),
        ("smallbank:accounts=7", "a multiple of its holders' accounts, not 7"),
    ],
)
def test_what_is_no_workload(name: str, says: str) -> None:
    with pytest.raises(UnknownWorkload, match=says):
        load(name)
    with pytest.raises(UnknownWorkload, match=says):
        spelled(name)


@pytest.mark.parametrize(
    "changes", [{"accounts": 0}, {"accounts": -1}, {"zipf": -0.5}, {"zipf": 2.0}, {"zipf": float("nan")}]
)
def test_options_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(UnknownWorkload):
        spelled("ycsb_a", **changes)
