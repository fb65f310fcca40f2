"""The published failure table counts each trial once, hides no state behind another, and says what it rests on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import book_claims, failure_tables
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FaultFigures, aggregate, recovered_s
from benchmarks.harness.failure_outcomes import mismatches, outcome, outcome_of, sections
from benchmarks.harness.failure_tables import FailureTable
from benchmarks.harness.records import RunError, Trial
from benchmarks.harness.runs import mismatches as mismatches_of_a_run
from benchmarks.harness.table_text import MARKS, NO_FIGURE
from strategies.interface import Caller, Fault, load, names
from tests.harness.runs import fault_trial, run_folder, survivor, unmeasured

ELSEWHERE = {"cpu": "another", "cores": 1, "cores_usable": 1, "memory_bytes": 1, "system": "Plan 9"}


def cell_of(*trials: Trial) -> FaultFigures:
    (found,) = aggregate(trials)
    return found


def absent(status: Status, **changes: Any) -> Trial:
    about = {"workload": "unit_deposits", "fault": "worker_kill", "retry": "op_id"}
    return unmeasured(status, "a reason", **(about | changes))


def published(folder: Path) -> FailureTable:
    return failure_tables.table([folder])[0]


# -- one cell --------------------------------------------------------------------------------------


def test_trials_of_a_cell_are_counted_and_their_medians_taken() -> None:
    cell = cell_of(
        survivor(repeat=0), fault_trial(repeat=1, acknowledged_lost=10), fault_trial(repeat=2, acknowledged_lost=40)
    )
    assert (cell.trials, cell.trials_judged, cell.trials_survived, cell.trials_lost) == (3, 3, 1, 2)
    assert (cell.acknowledged_total, cell.acknowledged_lost_total, cell.acknowledged_lost_max) == (1920, 50, 40)
    lost = cell.figures["acknowledged_lost"]
    assert (lost.value, lost.low, lost.high, lost.trials) == (10, 0, 40, 3)
    assert cell.verdicts == {"as_claimed": 3}


def test_a_recovery_that_never_came_is_a_count_and_a_capped_time() -> None:
    never = fault_trial(seconds=1.7, fault_at_s=0.4, recovery_s=None)
    assert recovered_s(never) == pytest.approx(1.3)
    cell = cell_of(never, survivor(repeat=1), fault_trial(repeat=2, recovery_s=None))
    assert cell.trials_never_recovered == 2
    assert cell.figures["recovery_s"].value == pytest.approx(1.3)
    (table,) = sections([cell])[-1:]
    shown = dict(zip(*table.lines, strict=True))
    assert shown["served again after s"] == "> 1.30, never in 2 of 3"
    assert "Infinity" not in json.dumps(cell.as_json())


def test_nobody_asked_is_not_never_served() -> None:
    """A driver that died and was not begun again leaves no caller."""
    cell = cell_of(survivor(recovery_s=None, unavailable_s=0.0, detection_s=None, retry="none"))
    assert (cell.trials_not_asked, cell.trials_never_recovered, cell.trials_survived) == (1, 0, 1)
    assert outcome(cell) == "loses nothing, nobody asked again"
    shown = dict(zip(*sections([cell])[-1].lines, strict=True))
    assert (shown["served again after s"], shown["noticed after s"]) == ("nobody asked", "nobody was told")


def test_figures_that_few_trials_have_say_so() -> None:
    cell = cell_of(
        survivor(detection_s=None), survivor(repeat=1, detection_s=0.25), survivor(repeat=2, detection_s=None)
    )
    shown = dict(zip(*sections([cell])[-1].lines, strict=True))
    assert shown["noticed after s"] == "0.25 in 1 of 3"
    assert FaultFigures.of_json(cell.as_json()).figures["detection_s"].trials == 1


def test_accounts_that_could_not_be_read_are_no_pass() -> None:
    unread = {"acknowledged": None, "acknowledged_lost": None, "duplicated": None, "linearizable": None}
    unread |= {"verdict": "unknown", "trusted": False, "indeterminate": None, "indeterminate_applied": None}
    cell = cell_of(survivor(), survivor(repeat=1, **unread))
    assert (cell.trials_judged, cell.trials_survived) == (1, 1)
    assert outcome(cell) == "not told in 1 of 2: the accounts could not be read*"
    shown = dict(zip(*sections([cell])[-1].lines, strict=True))
    assert shown["trials"] == "2, 1 not judged*"
    assert shown["verdict"] == "as claimed 1, unknown 1"
    only = cell_of(survivor(**unread))
    assert "survives" not in outcome(only)
    assert sections([only])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "survives"),
        ({"acknowledged_lost": 640}, "loses all"),
        ({"acknowledged_lost": 639}, "loses 99.8 %"),
        ({"acknowledged_lost": 1}, "loses 0.2 %"),
        ({"acknowledged": 10_000, "acknowledged_lost": 1}, "loses < 0.1 %"),
        ({"duplicated": 44}, "doubles 44"),
        ({"torn": 2}, "tears transfers"),
        ({"linearizable": "no"}, "answers out of order"),
        ({"linearizable": "unknown"}, "survives, order of answers unknown"),
        ({"recovery_s": None}, "never served again"),
        ({"trusted": False}, "survives*"),
        ({"verdict": "worse_than_claimed"}, "survives, worse than claimed!"),
        ({"verdict": "better_than_claimed"}, "survives, better than claimed!"),
    ],
)
def test_an_outcome_in_words(changes: dict[str, Any], words: str) -> None:
    assert outcome(cell_of(survivor(**changes))) == words


def test_an_outcome_of_some_trials_says_of_how_many() -> None:
    cell = cell_of(survivor(), fault_trial(repeat=1, acknowledged_lost=64, duplicated=5), survivor(repeat=2))
    assert outcome(cell) == "loses 3.3 % in 1 of 3, doubles up to 5 in 1 of 3, never served again in 1 of 3"


def test_failed_trials_are_not_hidden_by_those_that_went_well() -> None:
    cell = cell_of(survivor(), absent(Status.FAILED, repeat=1))
    assert outcome(cell) == "failed in 1 of 2, else survives"
    assert (cell.reason, cell.trials, cell.trials_failed) == ("a reason", 1, 1)
    assert outcome(cell_of(absent(Status.FAILED))) == MARKS[Status.FAILED]


def test_the_four_states_and_no_cell_are_five_words() -> None:
    cells = aggregate(
        [
            survivor(),
            absent(Status.FAILED, strategy="broken"),
            absent(Status.NOT_APPLICABLE, strategy="apart", retry="none"),
            absent(Status.RESOURCE_MISSING, strategy="lacking"),
        ]
    )
    rows = [f"{name}:default" for name in ("vault", "broken", "apart", "lacking", "nobody")]
    shown = [outcome_of(cells, row, "worker_kill", ("driver", "op_id")) for row in rows]
    assert shown == ["survives", "failed", "n/a", "missing", NO_FIGURE]


def test_out_of_reach_from_a_task_is_not_out_of_reach() -> None:
    """One cell stands for all ways of calling only where there is no other."""
    cells = aggregate([survivor(), absent(Status.NOT_APPLICABLE, caller="task")])
    assert outcome_of(cells, "vault:default", "worker_kill", ("driver", "op_id")) == "survives"
    assert outcome_of(cells, "vault:default", "worker_kill", ("task", "op_id")) == "n/a"
    assert outcome_of(cells, "vault:default", "worker_kill", ("driver", "naive")) == NO_FIGURE


@pytest.mark.parametrize(
    "verdicts",
    [
        ("as_claimed", "as_claimed"),
        ("as_claimed", "worse_than_claimed"),
        ("better_than_claimed", "better_than_claimed"),
        ("better_than_claimed", "as_claimed"),
        ("better_than_claimed", "unknown"),
        ("better_than_claimed", "worse_than_claimed"),
    ],
)
def test_what_breaks_claims_is_what_breaks_a_run(verdicts: tuple[str, str]) -> None:
    trials = [survivor(repeat=repeat, verdict=verdict) for repeat, verdict in enumerate(verdicts)]
    wrong = mismatches_of_a_run(trials)
    assert bool(mismatches(aggregate(trials))) is bool(wrong)
    assert cell_of(*trials).mismatch in {None, *(trial.verdict for trial in wrong)}
    assert (cell_of(*trials).mismatch is None) is (not wrong)


# -- of runs ---------------------------------------------------------------------------------------


def test_two_runs_are_one_table(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path, survivor(seed=1), absent(Status.NOT_APPLICABLE, strategy="apart")),
        run_folder(tmp_path, fault_trial(seed=2), absent(Status.NOT_APPLICABLE, strategy="apart")),
    ]
    made, damage = failure_tables.table(runs)
    assert damage == []
    assert {cell.row: cell.trials for cell in made.cells} == {"vault:default": 2, "apart:default": 0}
    assert [run["run"] for run in made.about["runs"]] == [folder.name for folder in runs]


def test_the_file_says_all_that_is_needed_to_make_it_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, survivor())
    found = json.loads(published(folder).as_json(), parse_constant=pytest.fail)
    assert {"format", "method", "machine", "versions", "runs", "claims", "cells"} <= set(found)
    (run,) = found["runs"]
    assert run["run"] == folder.name
    assert {"commit", "seed", "command", "started", "finished"} <= set(run)
    assert FailureTable.of_json(published(folder).as_json()).markdown() == published(folder).markdown()


def test_a_thousand_cells_are_a_small_file(tmp_path: Path) -> None:
    trials = [
        survivor(
            strategy=f"strategy_{place}",
            repeat=repeat,
            unavailable_s=0.2 + math.sin(place) / 9 + repeat / 7,
            seed=repeat,
        )
        for place in range(100)
        for repeat in range(3)
    ]
    made = published(run_folder(tmp_path, *trials))
    assert len(made.cells) == 100
    assert len(made.as_json()) < 60_000


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    here = run_folder(tmp_path, survivor())
    for changed, words in (
        ({"machine": ELSEWHERE}, "different machines"),
        ({"versions": {"python": "2.7"}}, "different versions"),
        ({"method": 1}, "different methods"),
        ({"plan": {"seed": 1, "quick": True}}, "different schedules"),
        ({"resumed": [{"at": "noon", "machine": ELSEWHERE}]}, "different machines"),
    ):
        other = run_folder(tmp_path, survivor(seed=2), about=changed)
        with pytest.raises(RunError, match=words):
            failure_tables.table([here, other])


def test_a_trial_does_not_count_twice(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, survivor(seed=5)) for _ in range(2)]
    with pytest.raises(RunError, match="--seed"):
        failure_tables.table(folders)


def test_what_is_no_failure_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no trial with a fault"):
        failure_tables.table([run_folder(tmp_path)])
    with pytest.raises(RunError, match="not a run's folder"):
        failure_tables.table([tmp_path])
    with pytest.raises(RunError, match="name the runs"):
        failure_tables.table([])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(failure_tables, "RESULTS", tmp_path)
    folder = run_folder(tmp_path, survivor(), finished=False)
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"strategy": "cut')
    failure_tables.write([folder], tmp_path)
    assert failure_tables.main(["nowhere"]) == 2
    assert "error: nowhere is not a run's folder" in capsys.readouterr().err
    made = failure_tables.read(tmp_path / failure_tables.JSON)
    assert made is not None
    assert "interrupted" in (tmp_path / failure_tables.MARKDOWN).read_text()
    assert failure_tables.write([folder], tmp_path)[0].endswith("(Unterminated string starting at at character 14)")


def test_no_table_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / failure_tables.JSON
    assert failure_tables.read(path) is None
    for text in ("", "[]", "{}", '{"format": 1, "cells": [{"strategy": 1}], "claims": {}}'):
        path.write_text(text)
        with pytest.raises(RunError, match="no failure table"):
            failure_tables.read(path)
    path.write_text('{"format": 99}')
    with pytest.raises(RunError, match="update"):
        failure_tables.read(path)


def test_claims_that_nothing_backs_are_listed(tmp_path: Path) -> None:
    name = names()[0]
    variant = load(name).capabilities.variants[0]
    survives = sorted(load(name).claims(variant).survives)
    made = published(run_folder(tmp_path, survivor(strategy=name, variant=variant, fault=survives[0])))
    assert made.unbacked() == [f"{name}:{variant}, {fault}: not run" for fault in survives[1:]]
    assert f"Of {len(survives):,} claims to survive a fault, 1 are backed by measured cells." in made.markdown()


def test_a_strategy_of_the_users_own_has_no_claims_here(tmp_path: Path) -> None:
    """Its name in a record is no reason to load a file."""
    (tmp_path / "own.py").write_text("raise SystemExit('loaded')")
    made = published(run_folder(tmp_path, survivor(strategy=f"{tmp_path}/own.py:Own")))
    assert made.claims == {}


# -- the book --------------------------------------------------------------------------------------


def book_row(tmp_path: Path, needs: list[str], words: str, *trials: Trial) -> list[str]:
    made = FailureTable({}, {"vault:default": {"needs": needs, "survives": []}}, aggregate(trials))
    (found,) = [line for line in book_claims.claims(made) if words in line[0]]
    return found


def test_the_book_is_held_against_the_trials(tmp_path: Path) -> None:
    lost = [fault_trial(repeat=repeat) for repeat in range(20)]
    line = book_row(tmp_path, ["dask"], "not resilient", *lost)
    assert line[2] == "acknowledged deposits were lost in 20 of 20 trials; 19 % of them, by strategy"
    assert line[3] == "confirmed"
    half = [*lost[:10], *(survivor(repeat=repeat) for repeat in range(10, 20))]
    assert book_row(tmp_path, ["dask"], "not resilient", *half)[3] == "in part"
    kept = [survivor(repeat=repeat) for repeat in range(20)]
    assert book_row(tmp_path, ["dask"], "not resilient", *kept)[3] == "not confirmed"
    assert book_row(tmp_path, ["redis"], "not resilient", *lost)[2:] == [NO_FIGURE, "not measured"]


def test_repeated_tasks_are_shown_with_and_without_op_ids(tmp_path: Path) -> None:
    about = {"fault": Fault.TASK_RETRY, "caller": Caller.TASK}
    line = book_row(
        tmp_path,
        ["redis"],
        "extra logic",
        survivor(retry="naive", duplicated=44, **about),
        survivor(retry="op_id", **about),
    )
    assert line[2] == ("deposits were doubled in 1 of 1 trials; at most 44 in a trial. With op ids: in 0 of 1")
    assert line[3] == "confirmed"


def test_the_digest_has_a_row_for_each_and_says_what_is_not_there(tmp_path: Path) -> None:
    made = published(
        run_folder(tmp_path, survivor(), absent(Status.NOT_APPLICABLE, fault=Fault.SERVER_KILL, retry="none"))
    )
    header, line = book_claims.digest(made)
    shown = dict(zip(header, line, strict=True))
    assert shown["`worker_kill`"] == "survives"
    assert shown["`server_kill`"] == "n/a"
    assert shown["`power_loss`"] == NO_FIGURE
