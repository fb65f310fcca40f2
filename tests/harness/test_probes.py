"""Digits count what was applied: exactly, within their bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.history import BALANCE, LOST, OK, REJECTED, UNAVAILABLE, UNKNOWN
from benchmarks.harness.probes import Probes, decode, encode
from strategies.interface import MAX_MONEY
from tests.harness.rows import history, row


def balances(probes: Probes, applied: list[int]) -> dict[str, int]:
    found = dict.fromkeys(probes.accounts, probes.opening)
    for deposit, times in zip(probes.deposits, applied, strict=True):
        found[deposit.account] += times * deposit.amount
    return found


@given(st.integers(2, 12).flatmap(lambda base: st.tuples(st.just(base), st.lists(st.integers(0, base - 1)))))
def test_any_counts_below_the_base_are_decoded(drawn: tuple[int, list[int]]) -> None:
    base, counts = drawn
    balance = 100 + sum(count * encode(place, base) for place, count in enumerate(counts))
    assert decode(balance, 100, len(counts), base) == counts
    assert decode(99, 100, len(counts), base) is None
    assert decode(100 + encode(len(counts), base), 100, len(counts), base) is None


@st.composite
def trials(draw: st.DrawFn) -> tuple[Probes, list[list[int]], list[int]]:
    probes = Probes(draw(st.integers(1, 60)), draw(st.integers(1, 9)), draw(st.integers(0, MAX_MONEY // 2)))
    size = len(probes.deposits)
    fates = st.lists(st.sampled_from([OK, REJECTED, UNAVAILABLE, LOST, UNKNOWN]), max_size=3)
    applied = st.integers(0, probes.times_max)
    return (
        probes,
        draw(st.lists(fates, min_size=size, max_size=size)),
        draw(st.lists(applied, min_size=size, max_size=size)),
    )


@given(trials())
def test_any_pattern_of_effects_is_told(trial: tuple[Probes, list[list[int]], list[int]]) -> None:
    probes, fates, applied = trial
    final = balances(probes, applied)
    assert max(final.values()) <= MAX_MONEY
    verdict = probes.judge(fates, final)
    both = list(zip(fates, applied, strict=True))
    unknown = [times for attempts, times in both if UNKNOWN in attempts and OK not in attempts]
    assert verdict.untold == 0
    assert verdict.acknowledged == sum(OK in attempts for attempts in fates)
    assert verdict.acknowledged_lost == sum(OK in attempts and times == 0 for attempts, times in both)
    assert verdict.duplicated == sum(max(0, times - 1) for times in applied)
    assert verdict.phantom == sum(times > 0 and not {OK, UNKNOWN} & set(attempts) for attempts, times in both)
    assert verdict.indeterminate == len(unknown)
    assert verdict.indeterminate_applied == sum(times > 0 for times in unknown)
    assert verdict.clean == (not verdict.words)


def test_the_highest_digits_fit_and_one_more_would_not() -> None:
    probes = Probes(100, times_max=8, opening=1_000_000)
    assert probes.base == 10
    assert probes.digits == 15
    assert len(probes.accounts) == 7
    assert max(balances(probes, [9] * 100).values()) <= MAX_MONEY
    assert 1_000_000 + encode(16, 10) - 1 > MAX_MONEY
    assert len(set(probes.deposits)) == 100
    assert {deposit.account for deposit in probes.deposits[:7]} == set(probes.accounts)


def test_one_time_too_many_is_no_neighbour() -> None:
    """Applied once more than was thought possible: said to be untold, and only at that account."""
    probes = Probes(4, times_max=2)
    two = Probes(probes.digits + 1, times_max=2)
    applied = [1] * len(two.deposits)
    applied[2] = 3
    verdict = two.judge([[OK]] * len(two.deposits), balances(two, applied))
    of_account = sum(deposit.account == two.deposits[2].account for deposit in two.deposits)
    assert verdict.untold == of_account
    assert not verdict.clean
    assert (verdict.acknowledged_lost, verdict.duplicated, verdict.phantom) == (0, 0, 0)
    assert two.deposits[2].account in verdict.words[0]
    assert probes.judge([[OK]] * 4, {probes.accounts[0]: -1}).untold == 4


def test_fates_are_read_from_a_history_among_other_operations() -> None:
    probes = Probes(3)
    rows = history(
        row(sent_ns=0, done_ns=1, account=1, amount=10, number=5, fate=UNKNOWN),
        row(sent_ns=2, done_ns=3, account=1, amount=10, number=5, attempt=1),
        row(sent_ns=4, done_ns=5, account=1, amount=1, fate=REJECTED),
        row(sent_ns=6, done_ns=7, account=0, amount=100),  # another account's
        row(sent_ns=8, done_ns=9, account=1, amount=0, function=BALANCE),
        row(sent_ns=10, done_ns=11, account=1, amount=3),  # no probe's amount
    )
    assert probes.fates(rows, ["somebody", probes.accounts[0]]) == [[REJECTED], [UNKNOWN, OK], []]


def test_words_name_the_deposit() -> None:
    probes = Probes(4)
    verdict = probes.judge([[OK], [UNKNOWN, OK], [REJECTED], []], balances(probes, [0, 2, 1, 1]))
    assert verdict.words == (
        "deposit 0 of 1 to probe-0000 was acknowledged and is not in the balance",
        "deposit 1 of 10 to probe-0000 was sent 2 times and is 2 times in the balance",
        "deposit 2 of 100 to probe-0000 was refused and is in the balance",
        "deposit 3 of 1000 to probe-0000 was never sent and is in the balance",
    )
    many = Probes(100)
    words = many.judge([[OK]] * 100, {}).words  # every account is lost
    assert len(words) == 21
    assert words[-1] == "and 80 more"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "1 operation"),
        ((1, 0), "1 time"),
        ((1, 8, -1), "opening"),
        ((1, 8, MAX_MONEY - 5), f"pass {MAX_MONEY}"),
    ],
)
def test_probes_that_cannot_be(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Probes(*arguments)


def test_fates_of_other_deposits_are_refused() -> None:
    with pytest.raises(ValueError, match="3 deposits and the fates of 2"):
        Probes(3).judge([[OK], [OK]], {})
