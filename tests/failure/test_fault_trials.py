"""What a fault trial makes of its history: verdicts, first answers, and how long nobody was served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.harness.cells import Cell
from benchmarks.harness.fault_load import FaultLoad
from benchmarks.harness.fault_trials import Observed, answers, ask_the_unserved, judged
from benchmarks.harness.generator import Retry
from benchmarks.harness.history import DEPOSIT, LOST, NEVER_NS, OK, REJECTED, UNAVAILABLE, UNKNOWN, History
from benchmarks.harness.journal import Journal
from benchmarks.harness.probes import Probes
from benchmarks.harness.runs import mismatches
from benchmarks.harness.statistics import outage
from benchmarks.harness.workloads import OPENING, UNIT_DEPOSITS
from strategies.interface import Accounts, Caller, Fault, OpId, Receipt, Unavailable
from tests.harness.histories import EPOCH, Op, deposit, history, unanswered
from tests.harness.own import fault_cell
from tests.harness.runs import trial

MS = 1_000_000


def attempts(*rows: tuple[int, int, int]) -> History:
    """(number, attempt, fate) each, of one client, sent one after the other."""
    ops = [
        unanswered(fate, 1, (at, at + 1)) if fate != OK else deposit(1, 2, 101, (at, at + 1))
        for at, (_, _, fate) in enumerate(rows)
    ]
    return replace(
        history(ops),
        number=np.array([number for number, _, _ in rows], dtype=np.int32),
        attempt=np.array([attempt for _, attempt, _ in rows], dtype=np.int16),
    )


def test_an_operations_answer_is_its_first_receipt_or_its_last_attempt() -> None:
    found = answers(attempts((0, 0, UNKNOWN), (0, 1, OK), (0, 2, OK), (1, 0, UNKNOWN), (1, 1, REJECTED), (2, 0, OK)))
    assert list(zip(found.number.tolist(), found.attempt.tolist(), strict=True)) == [(0, 1), (1, 1), (2, 0)]
    assert not len(answers(attempts()))


# -- the outage ------------------------------------------------------------------------------------


def of_accounts(*ops: Op) -> History:
    return history(ops)


def test_accounts_that_nobody_asked_are_not_waited_for() -> None:
    """The caller of account 1 died with the fault, and is not begun again."""
    died = replace(unanswered(UNKNOWN, 1, (40, 45), account=1))
    made = of_accounts(
        deposit(1, 2, 101, (10, 11)), deposit(1, 2, 101, (12, 13), account=1), died, deposit(1, 3, 102, (70, 80))
    )
    made.done_ns[2] = NEVER_NS
    felt = outage(made, 50)
    assert felt.served_again
    assert felt.recovery_s == pytest.approx(30e-9)
    assert felt.detection_s is None
    assert felt.unavailable_s == pytest.approx(30e-9)


def test_an_account_that_was_asked_in_vain_was_not_served_again() -> None:
    felt = outage(of_accounts(deposit(1, 2, 101, (10, 11)), unanswered(UNKNOWN, 1, (40, 60))), 50)
    assert not felt.served_again
    assert felt.recovery_s is None
    assert felt.detection_s == pytest.approx(10e-9)


def test_where_all_callers_died_nobody_waits() -> None:
    made = of_accounts(unanswered(UNKNOWN, 1, (40, 60)))
    made.done_ns[0] = NEVER_NS
    felt = outage(made, 50)
    assert (felt.served_again, felt.recovery_s, felt.unavailable_s) == (True, None, 0.0)


# -- who was not served by the load's end ----------------------------------------------------------


class ServesTheThird:
    """Turns two calls away, and knows which were made."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, OpId | None]] = []

    def deposit(self, account: str, amount: int, *, op_id: OpId | None = None) -> Receipt:
        assert amount == 1
        self.calls.append((account, op_id))
        if len(self.calls) < 3:
            raise Unavailable("not yet")
        return Receipt(2, OPENING + 1, EPOCH)


@pytest.mark.parametrize("retry", Retry)
def test_only_who_was_not_answered_is_asked_longer(retry: Retry, tmp_path: Path) -> None:
    load = FaultLoad(
        UNIT_DEPOSITS,
        4,
        seconds=1.0,
        probed_s=1.0,
        interval_s=0.5,
        retry=retry,
        session="s",
        seed=1,
        directory=str(tmp_path),
    )
    for client, fates in enumerate(([OK, UNKNOWN], [UNKNOWN, OK], [OK, LOST], [OK, REJECTED])):
        written = Journal(str(tmp_path), client, 2)
        for number, fate in enumerate(fates):
            row = written.begin(number, 0, retry is not Retry.NAIVE, (DEPOSIT, client, -1, 1), 0, number)
            written.failed(row, fate, 0, number + 1)
    accounts = ServesTheThird()
    ask_the_unserved(cast(Accounts, accounts), load)
    expected = [None if retry is Retry.NAIVE else OpId("s-0", number) for number in (2, 3, 4)]
    assert accounts.calls == [(UNIT_DEPOSITS.account_names[0], op_id) for op_id in expected]
    asked = load.history()
    assert asked.fate[asked.client == 0].tolist() == [OK, UNKNOWN, UNAVAILABLE, UNAVAILABLE, OK]
    assert len(asked) == 11


# -- verdicts --------------------------------------------------------------------------------------


def observed(ops: list[Op], final: dict[str, Receipt] | None, **columns: Any) -> Observed:
    """The blow came at 25. The last account is a probe's, which nobody used."""
    made = replace(history(ops), **columns)
    probes = Probes(1, opening=OPENING)
    names = [*UNIT_DEPOSITS.account_names, *probes.accounts]
    if final is not None:
        final = final | {probes.accounts[0]: Receipt(1, OPENING, EPOCH)}
    return Observed(made, names, probes, final, np.array([0.0]), 0, 25, 26, 900, 1000, 1100, "something")


def accounts(seq: int, balance: int) -> dict[str, Receipt]:
    """The first account's receipt; the others as they were opened."""
    opened = {f"account-{index}": Receipt(1, OPENING, EPOCH) for index in range(16)}
    return opened | {"account-0": Receipt(seq, balance, EPOCH)}


def twice_without_op_id() -> Observed:
    """The first attempt was applied and not answered; the second was both."""
    ops = [unanswered(UNKNOWN, 1, (10, 20)), deposit(1, 3, OPENING + 2, (30, 40))]
    return observed(
        ops,
        accounts(3, OPENING + 2),
        number=np.zeros(2, np.int32),
        attempt=np.array([0, 1], np.int16),
        keyed=np.array([False, False]),
    )


TWO = [deposit(1, 2, OPENING + 1, (10, 20)), deposit(1, 3, OPENING + 2, (30, 40))]


def kept() -> Observed:
    return observed(TWO, accounts(3, OPENING + 2))


def lost() -> Observed:
    return observed(TWO, accounts(2, OPENING + 1))


def never_served_again() -> Observed:
    return observed([deposit(1, 2, OPENING + 1, (10, 20)), unanswered(UNKNOWN, 1, (24, 40))], accounts(2, OPENING + 1))


def unreadable() -> Observed:
    return observed([deposit(1, 2, OPENING + 1, (10, 20))], None)


CLAIMS = fault_cell("ClaimsTooMuch", Fault.WORKER_KILL, variant="proxied")
CLAIMS_NOT = fault_cell("ClaimsTooLittle", Fault.WORKER_KILL)


@pytest.mark.parametrize(
    ("cell", "seen", "verdict"),
    [
        (CLAIMS, kept(), "as_claimed"),
        (CLAIMS, lost(), "worse_than_claimed"),
        (CLAIMS, never_served_again(), "worse_than_claimed"),
        (CLAIMS, unreadable(), "unknown"),
        (CLAIMS_NOT, kept(), "better_than_claimed"),
        (CLAIMS_NOT, lost(), "as_claimed"),
        (CLAIMS_NOT, never_served_again(), "as_claimed"),
        (CLAIMS_NOT, unreadable(), "unknown"),
    ],
)
def test_what_was_seen_is_held_against_the_claim(cell: Cell, seen: Observed, verdict: str) -> None:
    found = judged(cell, seen)
    assert found.against_claims == verdict
    assert bool(found.distrust) == (verdict == "unknown")


@pytest.mark.parametrize(
    ("retry", "verdict"),
    [(Retry.NAIVE, "as_claimed"), (Retry.NONE, "worse_than_claimed")],
)
def test_doubling_is_the_callers_own_doing_only_if_he_sent_again(retry: Retry, verdict: str) -> None:
    found = judged(replace(CLAIMS, retry=retry), twice_without_op_id())
    assert found.verdict is not None
    assert found.verdict.duplicated == 1
    assert found.against_claims == verdict


# -- what breaks a run -------------------------------------------------------------------------------


def test_a_claim_that_one_trial_refutes_is_a_mismatch() -> None:
    seen = [_with_verdict(repeat, verdict) for repeat, verdict in enumerate(("as_claimed", "worse_than_claimed"))]
    assert mismatches(seen) == seen[1:]


def test_luck_is_no_mismatch_and_always_is() -> None:
    lucky = [_with_verdict(repeat, verdict) for repeat, verdict in enumerate(("better_than_claimed", "as_claimed"))]
    assert mismatches(lucky) == []
    always = [_with_verdict(repeat, "better_than_claimed") for repeat in range(2)]
    assert mismatches(always) == always
    assert mismatches([_with_verdict(0, None), _with_verdict(1, "unknown")]) == []


def _with_verdict(repeat: int, verdict: str | None) -> Any:
    return replace(trial(), fault="worker_kill", retry="none", caller=Caller.DRIVER, repeat=repeat, verdict=verdict)
