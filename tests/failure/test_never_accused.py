"""A correct owner is accused of nothing, whatever happens to it and however its callers retry; the counts are true."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.harness.generator import Retry
from benchmarks.harness.history import BALANCE, DEPOSIT, OK, TRANSFER, WITHDRAW
from benchmarks.harness.violations import Kind
from tests.failure.simulation import Run, Setting, run

TROUBLES = {
    "nothing": Setting(),
    "lost requests": Setting(request_lost=0.1),
    "lost replies": Setting(reply_lost=0.1),
    "messages delivered twice": Setting(delivered_twice=0.2),
    "restarts": Setting(restarts=3),
    "state lost": Setting(state_lost=True, reply_lost=0.05),
    "pauses": Setting(pauses=3),
    "partitions": Setting(partitions=2),
    "callers die": Setting(deaths=2),
    "everything": Setting(
        request_lost=0.05, reply_lost=0.05, delivered_twice=0.1, restarts=2, pauses=1, partitions=1, deaths=1
    ),
}
MIXES = {
    "one account": {"functions": (BALANCE, DEPOSIT, DEPOSIT, WITHDRAW)},
    "transfers": {"functions": (BALANCE, TRANSFER, TRANSFER), "opening": 1_500_000},
    "small amounts": {"functions": (BALANCE, DEPOSIT, WITHDRAW, TRANSFER), "amounts": (1, 3), "opening": 4},
}
SEEDS = 4


def not_accused(made: Run, setting: Setting, *, exact: bool) -> None:
    verdict, truth = made.verdict(across_accounts=True), made.truth
    allowed = set()
    if setting.state_lost:
        allowed.add(Kind.ACKNOWLEDGED_LOST)
    if setting.retry is Retry.NAIVE:
        allowed.add(Kind.DUPLICATED)
    assert [each for each in verdict.violations if each.kind not in allowed] == []
    assert verdict.linearizable == ("yes" if (made.history.fate == OK).any() else "unknown")
    assert verdict.torn == 0
    found = (verdict.acknowledged, verdict.acknowledged_lost, verdict.acknowledged_lost_amount, verdict.indeterminate)
    assert found == (
        truth.acknowledged,
        truth.acknowledged_lost,
        truth.acknowledged_lost_amount,
        truth.indeterminate,
    )
    assert verdict.duplicated <= truth.duplicated
    assert (verdict.duplicated > 0) <= (Kind.DUPLICATED in {each.kind for each in verdict.violations})
    if not (truth.duplicated or made.owner.is_lost):
        assert verdict.conserved is not False
    if exact:
        assert (verdict.duplicated, verdict.indeterminate_applied) == (truth.duplicated, truth.indeterminate_applied)


@pytest.mark.parametrize("retry", Retry)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_correct_owner_is_never_accused(trouble: str, mix: str, retry: Retry) -> None:
    setting = replace(TROUBLES[trouble], retry=retry, **MIXES[mix])
    if retry is Retry.NAIVE:
        setting = replace(setting, delivered_twice=0.0)  # without op ids, no owner can keep its promises then
    for seed in range(SEEDS):
        not_accused(run(setting, seed), setting, exact=mix != "small amounts")


def test_what_a_transport_delivers_twice_without_op_ids_is_counted() -> None:
    setting = Setting(retry=Retry.NAIVE, delivered_twice=0.2, functions=(BALANCE, DEPOSIT, WITHDRAW))
    for seed in range(20):
        made = run(setting, seed)
        verdict = made.verdict()
        assert verdict.duplicated == made.truth.duplicated
        assert {each.kind for each in verdict.violations} & {Kind.DUPLICATED, Kind.REJECTED_APPLIED}
        assert verdict.linearizable == "no"


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_correct_owner_is_never_accused_whatever_is_combined(data: st.DataObject) -> None:
    share = st.sampled_from([0.0, 0.0, 0.1, 0.4])
    few = st.integers(0, 3)
    retry = data.draw(st.sampled_from(Retry))
    setting = Setting(
        retry=retry,
        clients=data.draw(st.integers(1, 8)),
        operations=data.draw(st.integers(1, 25)),
        accounts=data.draw(st.integers(1, 5)),
        opening=data.draw(st.sampled_from([0, 5, 1_000_000])),
        amounts=data.draw(st.sampled_from([(1, 1), (1, 5), (1, 1_000_000)])),
        functions=data.draw(st.sampled_from([mix["functions"] for mix in MIXES.values()])),
        request_lost=data.draw(share),
        reply_lost=data.draw(share),
        delivered_twice=0.0 if retry is Retry.NAIVE else data.draw(share),
        restarts=data.draw(few),
        state_lost=data.draw(st.booleans()),
        pauses=data.draw(few),
        partitions=data.draw(few),
        deaths=data.draw(few),
    )
    not_accused(run(setting, data.draw(st.integers(0, 1_000_000))), setting, exact=False)
