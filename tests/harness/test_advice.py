"""Advice ranks or rules out everybody; stricter needs add nobody, and a claim is no measurement."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.harness import advice_text, evidence, failure_tables, reference
from benchmarks.harness.advice import Advice, Candidate, Judged, Needs, NeedsError, Point, Setting, State, advise, judge
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.records import RunError
from benchmarks.harness.workloads import UnknownWorkload
from strategies.interface import Caller, Capabilities, Durability, Fault, Retries, Transfers
from tests.harness.commands import ROOT
from tests.harness.runs import fault_trial, run_folder, survivor, trial, unmeasured
from tests.harness.test_cli import invoke

KILL, CUT = Fault.WORKER_KILL, Fault.POWER_LOSS
CLAIMS = Capabilities(
    survives=frozenset({KILL}),
    transfers=Transfers.ANY,
    retries=Retries.SAFE_WITH_OP_ID,
    callers=frozenset({Caller.DRIVER}),
)
CLAIMS_BOTH = replace(CLAIMS, callers=frozenset(Caller))
FROM_DRIVER = Setting(Caller.DRIVER, "4 callers", accounts=100, ops_per_s=(900.0, 1000.0, 1100.0), p99_us=(5e3,) * 3)


def candidate(**changes: Any) -> Candidate:
    known = {
        "strategy": "vault",
        "variant": "a",
        "durability": "volatile",
        "claims": CLAIMS,
        "settings": (FROM_DRIVER,),
    }
    return Candidate(**(known | changes))


def cell(**changes: Any) -> FaultFigures:
    known = {"strategy": "vault", "variant": "a", "durability": "volatile", "fault": str(KILL), "caller": "driver"}
    counts = {"retry": "op_id", "status": "ok", "trials": 20, "trials_judged": 20, "trials_survived": 20}
    return FaultFigures(**(known | counts | changes))


def states(judged: Judged) -> dict[str, str]:
    return {answer.need: str(answer.state) for answer in judged.answers}


# -- invariants --------------------------------------------------------------------------------------

RATES = st.sampled_from([50.0, 100.0, 500.0, 1000.0, 5000.0])
P99_US = st.sampled_from([500.0, 2e3, 8e3, 4e4])
POINTS = st.builds(
    Point,
    RATES,
    st.booleans(),
    st.lists(P99_US, max_size=3).map(tuple),
)
SETTINGS = st.builds(
    Setting,
    caller=st.sampled_from(Caller),
    form=st.sampled_from(["4 callers", "8 callers"]),
    plain=st.booleans(),
    accounts=st.sampled_from([0, 100, 10_000]),
    ops_per_s=st.lists(RATES, max_size=3).map(tuple),
    p99_us=st.lists(P99_US, max_size=3).map(tuple),
    points=st.lists(POINTS, max_size=4, unique_by=lambda point: point.offered_per_s).map(tuple),
)
CELLS = st.builds(
    lambda fault, caller, retry, trials, hurt, doubled: cell(
        fault=str(fault),
        caller=str(caller),
        retry=retry,
        status="ok" if trials else "resource_missing",
        trials=trials,
        trials_judged=trials,
        trials_survived=max(0, trials - hurt),
        trials_lost=min(hurt, trials),
        trials_doubled=0 if retry == "none" else min(doubled, trials, hurt),
        duplicated_max=doubled,
        figures={},
    ),
    st.sampled_from([KILL, CUT]),
    st.sampled_from(Caller),
    st.sampled_from(["none", "op_id"]),
    st.integers(0, 3),
    st.integers(0, 1),
    st.just(0),
)
CLAIMED = st.builds(
    Capabilities,
    survives=st.frozensets(st.sampled_from([KILL, CUT])),
    transfers=st.sampled_from(Transfers),
    retries=st.sampled_from(Retries),
    callers=st.frozensets(st.sampled_from(Caller)),
)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        strategy=st.sampled_from(["a", "b", "c", "d", "e"]),
        variant=st.just("v"),
        durability=st.sampled_from(Durability).map(str),
        claims=st.none() | CLAIMED,
        settings=st.lists(SETTINGS, max_size=4).map(tuple),
        cells=st.lists(CELLS, max_size=4).map(tuple),
        transfers_kept=st.integers(0, 2),
        unsound=st.sampled_from([0, 0, 0, 1]),
    ),
    max_size=5,
    unique_by=lambda each: each.row,
)
NEEDS = st.builds(
    Needs,
    accounts=st.none() | st.sampled_from([1, 100, 1000, 100_000]),
    rate_per_s=st.none() | st.sampled_from([10.0, 100.0, 700.0, 3000.0]),
    p99_ms=st.none() | st.sampled_from([1.0, 5.0, 20.0]),
    survive=st.frozensets(st.sampled_from([KILL, CUT])),
    retries=st.sampled_from(Retries),
    transfers=st.sampled_from(Transfers),
    callers=st.frozensets(st.sampled_from(Caller)),
)


def stricter(one: Needs, other: Needs) -> Needs:
    """Both together: at least as strict as either."""

    def most(name: str, choose: Any) -> Any:
        values = [value for needs in (one, other) if (value := getattr(needs, name)) is not None]
        return choose(values) if values else None

    return Needs(
        accounts=most("accounts", max),
        rate_per_s=most("rate_per_s", max),
        p99_ms=most("p99_ms", min),
        survive=one.survive | other.survive,
        retries=max(one.retries, other.retries, key=list(Retries).index),
        transfers=max(one.transfers, other.transfers, key=list(Transfers).index),
        callers=one.callers | other.callers,
    )


def rows(advice: Advice) -> set[str]:
    return {each.candidate.row for each in advice.ranked}


@given(NEEDS, NEEDS, CANDIDATES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_stricter_need_adds_nobody(one: Needs, other: Needs, candidates: list[Candidate]) -> None:
    both = advise(stricter(one, other), candidates)
    for needs in (one, other):
        loose = advise(needs, candidates)
        assert rows(both) <= rows(loose)
        measured = [
            {each.candidate.row for each in advice.ranked if not each.in_state(State.UNMEASURED)}
            for advice in (both, loose)
        ]
        assert measured[0] <= measured[1]


@given(NEEDS, CANDIDATES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everybody_is_ranked_or_ruled_out_whatever_their_order(
    needs: Needs, candidates: list[Candidate], random: Any
) -> None:
    found = advise(needs, candidates)
    assert len(found.ranked) + len(found.ruled_out) == len(candidates)
    assert {each.candidate.row for each in (*found.ranked, *found.ruled_out)} == {each.row for each in candidates}
    assert all(each.in_state(State.UNMET) for each in found.ruled_out)
    shuffled = [replace(each, settings=tuple(random.sample(each.settings, len(each.settings)))) for each in candidates]
    random.shuffle(shuffled)
    again = advise(needs, shuffled)
    assert [each.answers for each in again.ranked] == [each.answers for each in found.ranked]
    assert [each.candidate.row for each in again.ruled_out] == [each.candidate.row for each in found.ruled_out]
    json.dumps(found.as_json(), allow_nan=False)
    for table in (advice_text.ranked(found), advice_text.nearest(found), advice_text.ruled_out(found)):
        assert len({len(line) for line in table}) == 1
    assert advice_text.conclusion(found)


@given(NEEDS, CANDIDATES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fewer_unmeasured_needs_come_first(needs: Needs, candidates: list[Candidate]) -> None:
    counts = [len(each.in_state(State.UNMEASURED)) for each in advise(needs, candidates).ranked]
    assert counts == sorted(counts)


# -- rate and p99 ------------------------------------------------------------------------------------


def test_a_closed_loop_decides_where_there_is_no_other_and_says_so() -> None:
    (rate, p99) = judge(Needs(rate_per_s=950, p99_ms=6), candidate()).answers
    assert (rate.state, p99.state) == (State.MET, State.MET)
    assert "closed loop, 4 callers" in rate.words
    assert "service time" in p99.words
    assert rate.figure is not None
    assert (rate.figure.value, rate.figure.low, rate.figure.high) == (1000.0, 900.0, 1100.0)
    assert states(judge(Needs(rate_per_s=1001), candidate())) == {"rate from a driver": "unmet"}
    assert states(judge(Needs(p99_ms=4.9), candidate())) == {"p99 from a driver": "unmet"}


def test_an_open_loop_at_that_rate_wins() -> None:
    slow = Point(800.0, sustained=True, p99_us=(9e3,))
    quick = Point(400.0, sustained=True, p99_us=(4e3,))
    opened = candidate(settings=(replace(FROM_DRIVER, points=(quick, slow)),))
    kept = judge(Needs(rate_per_s=400, p99_ms=6), opened)
    assert set(states(kept).values()) == {"met"}
    assert "response time" in kept.answers[1].words
    assert kept.kind == "response"
    # The closed loop's service time is below 6 ms at any rate up to 1,000/s; at 800/s callers wait longer.
    lost = judge(Needs(rate_per_s=900, p99_ms=6), opened)
    assert states(lost) == {"rate from a driver": "met", "p99 from a driver": "unmet"}
    between = judge(Needs(rate_per_s=600, p99_ms=6), opened)
    assert all("closed loop" in answer.words for answer in between.answers)


def test_a_rate_that_was_not_sustained_is_not_met() -> None:
    opened = candidate(settings=(replace(FROM_DRIVER, points=(Point(500.0, sustained=False, p99_us=()),)),))
    assert states(judge(Needs(rate_per_s=600), opened)) == {"rate from a driver": "unmet"}
    assert states(judge(Needs(rate_per_s=400), opened)) == {"rate from a driver": "met"}


def test_each_caller_that_is_asked_for_has_to_meet_it() -> None:
    both = candidate(settings=(FROM_DRIVER, replace(FROM_DRIVER, caller=Caller.TASK, ops_per_s=(100.0,))))
    needs = Needs(rate_per_s=500, callers=frozenset(Caller))
    assert states(judge(needs, both))["rate from a task"] == "unmet"
    assert judge(needs, both).ops_per_s == (100.0,)
    assert judge(Needs(rate_per_s=500), both).meets


def test_more_accounts_than_were_measured_is_unmeasured_not_met() -> None:
    assert states(judge(Needs(accounts=101, rate_per_s=500), candidate())) == {
        "rate from a driver": "met",
        "accounts from a driver": "unmeasured",
    }


# -- faults and claims -------------------------------------------------------------------------------


def test_a_claim_alone_is_no_measurement() -> None:
    needs = Needs(
        survive=frozenset({KILL}),
        retries=Retries.SAFE_WITH_OP_ID,
        transfers=Transfers.SAME_SHARD,
        callers=frozenset({Caller.TASK}),
    )
    alone = judge(needs, candidate(settings=(), claims=CLAIMS_BOTH))
    assert set(states(alone).values()) == {"unmeasured"}
    assert all(answer.words == "claimed, not measured" for answer in alone.answers)
    measured = candidate(
        claims=CLAIMS_BOTH, settings=(replace(FROM_DRIVER, caller=Caller.TASK),), cells=(cell(),), transfers_kept=3
    )
    assert set(states(judge(needs, measured)).values()) == {"met"}
    nothing = judge(needs, candidate(settings=(), claims=Capabilities()))
    assert set(states(nothing).values()) == {"unmet"}
    unknown = judge(needs, candidate(settings=(), claims=None))
    assert set(states(unknown).values()) == {"unmeasured"}


def test_one_trial_that_lost_something_rules_out() -> None:
    hurt = cell(trials_survived=19, trials_lost=1, acknowledged_total=1000, acknowledged_lost_total=10)
    (answer,) = judge(Needs(survive=frozenset({KILL})), candidate(cells=(cell(caller="task"), hurt))).answers
    assert answer.state is State.UNMET
    assert "loses 1.0 % in 1 of 20" in answer.words
    assert "called from a driver" in answer.words


def test_what_its_callers_double_themselves_is_not_the_strategys() -> None:
    naive = cell(retry="naive", trials_survived=0, trials_doubled=20, duplicated_max=3)
    assert judge(Needs(survive=frozenset({KILL})), candidate(cells=(cell(), naive))).meets


def test_surviving_without_a_claim_is_luck_until_it_is_claimed() -> None:
    (answer,) = judge(Needs(survive=frozenset({CUT})), candidate(cells=(cell(fault=str(CUT)),))).answers
    assert answer.state is State.UNMEASURED
    assert "not claimed" in answer.words


def test_a_power_cut_that_cannot_be_applied_still_ends_what_is_in_memory() -> None:
    reachless = {CUT: "its state is in memory only", Fault.SERVER_KILL: "no server holds its state"}
    found = judge(Needs(survive=frozenset(reachless)), candidate(out_of_reach=reachless))
    assert states(found) == {"survive server_kill": "unmeasured", "survive power_loss": "unmet"}
    (server, _) = found.answers
    assert server.words == "n/a: no server holds its state"


def test_doubling_with_op_ids_is_not_safe_whatever_is_claimed() -> None:
    doubled = cell(trials_doubled=1)
    needs = Needs(retries=Retries.SAFE_WITH_OP_ID)
    assert states(judge(needs, candidate(cells=(doubled,)))) == {"safe to send again": "unmet"}


def test_losing_something_without_a_fault_rules_out_whatever_is_asked() -> None:
    assert not judge(Needs(), candidate(unsound=1)).meets


# -- evidence ----------------------------------------------------------------------------------------


def of(folder: Path, row: str, workload: str | None = None) -> Candidate:
    found = evidence.gather(folder, workload)
    (candidate,) = (each for each in found.candidates if each.row == row)
    return candidate


def test_evidence_keeps_failed_missing_and_distrusted_apart(tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path,
        trial(strategy="good"),
        trial(strategy="doubtful", trusted=False, distrust="the clock jumped"),
        unmeasured(Status.FAILED, "oh", strategy="broken"),
        unmeasured(Status.RESOURCE_MISSING, "pip install it", strategy="lacking"),
        trial(strategy="lossy", acknowledged_lost=1),
    )
    assert of(folder, "good:default").settings[0].ops_per_s == (12345.0,)
    assert of(folder, "doubtful:default").settings[0].ops_per_s == ()
    assert of(folder, "broken:default").unmeasured == "failed: oh"
    assert of(folder, "lacking:default").unmeasured == "missing: pip install it"
    assert of(folder, "lossy:default").unsound == 1
    needs = Needs(rate_per_s=1)
    assert states(judge(needs, of(folder, "doubtful:default"))) == {"rate from a driver": "unmeasured"}
    assert judge(needs, of(folder, "lacking:default")).answers[0].words == "missing: pip install it"


def test_a_rate_at_which_trials_distrust_themselves_is_believed_not_to_be_kept(tmp_path: Path) -> None:
    at = {"arrivals": "poisson", "latency_kind": "response"}
    beyond = at | {"offered_per_s": 900.0, "achieved_ratio": 0.7, "trusted": False, "distrust": "more than is served"}
    folder = run_folder(
        tmp_path,
        trial(arrivals="closed", ops_per_s=1000.0),
        trial(**at, offered_per_s=500.0, achieved_ratio=1.0),
        trial(**at, offered_per_s=700.0, achieved_ratio=1.0, trusted=False, distrust="late"),
        trial(**beyond),
    )
    points = of(folder, "vault:default").settings[0].points
    assert [(point.offered_per_s, point.sustained) for point in points] == [(500.0, True), (900.0, False)]


def test_a_runs_own_faults_and_transfers_are_evidence(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(workload="transfer"), survivor(), survivor(repeat=1), fault_trial(variant="b"))
    found = of(folder, "vault:default", "transfer")
    assert found.transfers_kept == 1
    assert [cell.trials_survived for cell in found.cells] == [2]
    assert not judge(Needs(survive=frozenset({KILL})), of(folder, "vault:b", "transfer")).meets


def test_trials_that_the_published_table_holds_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path, trial(), survivor())
    about = {"runs": [{"run": folder.name}]}
    table = failure_tables.FailureTable(about, {}, [cell(variant="default", trials=1, trials_survived=1)])
    monkeypatch.setattr(failure_tables, "published", lambda: [table])
    assert sum(each.trials for each in of(folder, "vault:default").cells) == 1


def test_every_row_of_the_code_is_there_also_in_a_run_of_nothing(tmp_path: Path) -> None:
    found = evidence.gather(run_folder(tmp_path))
    advice = advise(Needs(rate_per_s=1), found.candidates)
    assert len(advice.ranked) == len(found.candidates) > 10
    assert all(each.in_state(State.UNMEASURED) for each in advice.ranked)


def test_a_workload_that_was_not_measured(tmp_path: Path) -> None:
    with pytest.raises(UnknownWorkload, match="it has hot, ycsb_a"):
        evidence.gather(run_folder(tmp_path, trial(), trial(workload="hot:accounts=4")), "ycsb_b")


# -- the command -------------------------------------------------------------------------------------


def test_advice_on_the_reference_run() -> None:
    result = invoke("advise", "--survive", "worker_kill,server_kill", "--retries", "safe", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["run"] == reference.reference_run().name
    assert found["needs"]["survive"] == ["server_kill", "worker_kill"]
    first = found["ranked"][0]
    assert first["unmeasured"] == 0
    assert {answer["need"]: answer["state"] for answer in first["answers"]} == {
        "survive worker_kill": "met",
        "survive server_kill": "met",
        "safe to send again": "met",
    }
    assert all(any(answer["state"] == "unmet" for answer in each["answers"]) for each in found["ruled_out"])


def test_needs_that_nobody_meets_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = evidence.Evidence("a-run", {}, "ycsb_a", [candidate(), candidate(strategy="lossy", unsound=2)], [])
    monkeypatch.setattr(evidence, "gather", lambda folder, workload: found)
    result = invoke("advise", "--rate", "5000")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    assert "None of 2 meets all of it. The nearest miss 1 need each: vault:a." in shown
    assert "The nearest misses" in shown
    assert "What meets it" not in shown
    assert json.loads(invoke("advise", "--rate", "5000", "--json").stdout)["nearest"] == ["vault:a"]


def test_the_nearest_misses_say_what_they_lack() -> None:
    fast = candidate(strategy="fast", settings=(replace(FROM_DRIVER, ops_per_s=(4000.0,)),))
    slow = candidate(strategy="slow")
    found = advise(Needs(rate_per_s=5000), [slow, candidate(strategy="lossy", unsound=2), fast])
    assert [each.candidate.strategy for each in found.ruled_out] == ["fast", "slow", "lossy"]
    assert [each.candidate.strategy for each in found.nearest] == ["fast", "slow"]
    assert advice_text.conclusion(found) == ("None of 3 meets all of it. The nearest miss 1 need each: fast:a, slow:a.")
    (_, first, _) = advice_text.nearest(found)
    assert "rate from a driver: 4,000 ops/s" in first[1]
    (_, only) = advice_text.ruled_out(found)
    assert only[0].startswith("lossy")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--survive", "workerkill"], "worker_kill"),
        (["--survive", "worker_kill,,"], "--survive"),
        (["--retries", "maybe"], "safe"),
        (["--transfers", "some"], "same_shard"),
        (["--callers", "nobody"], "driver, task"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--p99-ms", "-1"], "--p99-ms"),
        (["--accounts", "0"], "--accounts"),
        (["--workload", "nothing"], "ycsb_a"),
        (["/no/such/folder"], "run.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_asked_is_one_line(arguments: list[str], hint: str) -> None:
    result = invoke("advise", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert hint in line
    assert result.stdout == ""


def test_a_name_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    result = invoke("advise", run_folder(tmp_path, trial(strategy="[red]x[/red]")))
    assert "[red]x[/red]" in result.stdout


def test_it_answers_within_two_seconds_of_a_full_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    trials = [
        trial(strategy=f"s{row}", caller=caller, workload=workload, repeat=repeat, ops_per_s=1000.0 + row + repeat)
        for row in range(32)
        for caller in ("driver", "task")
        for workload in ("ycsb_a", "ycsb_b", "hot", "transfer")
        for repeat in range(6)
    ]
    trials += [
        fault_trial(strategy=f"s{row}", fault=str(fault), repeat=repeat, duplicated=repeat, unavailable_s=1.0 + repeat)
        for row in range(32)
        for fault in Fault
        for repeat in range(3)
    ]
    (folder / "trials.jsonl").write_text("\n".join(json.dumps(vars(each)) for each in trials))
    begin = time.process_time()
    advice = advise(Needs(rate_per_s=500, p99_ms=5), evidence.gather(folder).candidates)
    json.dumps(advice.as_json())
    assert time.process_time() - begin < 1.5


# -- which run ---------------------------------------------------------------------------------------


def test_the_reference_run_is_the_readmes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(reference.VARIABLE, raising=False)
    assert f"<!-- from {reference.reference_run().relative_to(ROOT)} -->" in (ROOT / "README.md").read_text()
    assert reference.chosen_run() == reference.reference_run()
    monkeypatch.setenv(reference.VARIABLE, str(tmp_path))
    assert reference.chosen_run() == tmp_path
    assert reference.chosen_failures() == tmp_path
    assert reference.chosen_run("results/elsewhere") == ROOT / "results" / "elsewhere"


@pytest.mark.parametrize("text", ["<!-- from results/runs/nowhere -->", "nothing", None])
def test_a_readme_without_a_run_is_one_sentence(
    text: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    if text is not None:
        page.write_text(text)
    monkeypatch.setattr("benchmarks.harness.readme.README", page)
    with pytest.raises(RunError):
        reference.reference_run()


def test_needs_that_nobody_can_have() -> None:
    with pytest.raises(NeedsError, match="--p99-ms"):
        Needs(p99_ms=0)
