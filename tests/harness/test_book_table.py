"""Verdicts on the book's table follow their rules from figures, and say where there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import book_table, companions, complexity
from benchmarks.harness.book_columns import Column, column_of, column_of_row
from benchmarks.harness.book_table import Entry, Verdict
from benchmarks.harness.cells import Status
from benchmarks.harness.companions import Companions, Scoreboard
from benchmarks.harness.complexity import Complexity, Recorded
from benchmarks.harness.failure_figures import FaultFigures
from benchmarks.harness.records import RunError, Trial
from benchmarks.harness.scoreboard import Row, Sense
from strategies.interface import Fault, Resource, load, names
from tests.harness.runs import run_folder, trial

BY_COLUMN: Mapping[Column, list[tuple[str, str]]] = {
    column: [
        (name, variant)
        for name in names()
        for variant in load(name).capabilities.variants
        if column_of(load(name).claims(variant).needs) is column
    ]
    for column in Column
}
LOCAL, ACTORS, EXTERNAL = (BY_COLUMN[column][0] for column in Column)


def entries(
    criterion: str,
    trials: Sequence[Trial] = (),
    cells: Sequence[FaultFigures] = (),
    beside: Companions | None = None,
) -> Mapping[Column, Entry]:
    (line,) = (line for line in book_table.table(trials, cells, beside or Companions()) if line.criterion == criterion)
    return line.entries


def of(row: tuple[str, str], **figures: Any) -> dict[str, Any]:
    return {"strategy": row[0], "variant": row[1], **figures}


def measured(
    row: tuple[str, str], *, lines: int = 100, status: str = Status.OK, **trials: list[float | None]
) -> Complexity:
    code = {"lines": lines, "complexity": lines // 4}
    usual: dict[str, list[float | None]] = {
        "first_ack_s": [0.1, 0.1, 0.1],
        "dask_s": [0.0, 0.0, 0.0],
        "processes": [0, 0, 0],
        "ports": [0, 0, 0],
        "settings": [0, 0, 0],
        "call_us_p50": [10.0, 10.0, 10.0],
        "task_us_p50": [None, None, None],
    }
    return Complexity(
        strategy=row[0],
        variant=row[1],
        durability="volatile",
        needs=tuple(load(row[0]).claims(row[1]).needs),
        status=status,
        code={"own": code, "shared": code, "caller": {"lines": 4, "complexity": 1}},
        installed_mb=0.0,
        trials=usual | trials,
    )


def beside(*rows: Complexity) -> Companions:
    return Companions(complexity=Recorded({}, rows))


# -- columns ---------------------------------------------------------------------------------------


def test_what_a_strategy_needs_is_its_column() -> None:
    assert column_of([]) is Column.LOCAL
    assert column_of([Resource.DASK]) is Column.ACTORS
    assert column_of([Resource.REDIS]) is Column.EXTERNAL
    assert column_of([Resource.DIRECTORY]) is Column.EXTERNAL
    assert column_of([Resource.DASK, Resource.DIRECTORY]) is Column.EXTERNAL
    assert column_of([Resource.SCHEDULER]) is None
    assert column_of_row("nobody's", "default") is None


def test_every_column_has_a_strategy() -> None:
    assert all(BY_COLUMN.values())


# -- verdicts --------------------------------------------------------------------------------------


def test_without_figures_nothing_is_confirmed() -> None:
    for line in book_table.table([], [], Companions()):
        for column in Column:
            assert line.entries[column].verdict is Verdict.NOT_MEASURED
            assert line.entries[column].says == book_table.SAYS[line.criterion][column]
            assert not line.entries[column].figures


def test_strategies_of_no_column_are_of_none() -> None:
    assert (
        entries("Performance overhead", [trial(caller="task"), trial()])[Column.LOCAL].verdict is Verdict.NOT_MEASURED
    )


@pytest.mark.parametrize(("lost", "verdict"), [(20, Verdict.CONFIRMED), (18, Verdict.REFUTED), (0, Verdict.REFUTED)])
def test_the_loss_of_a_worker_is_catastrophic_or_not(lost: int, verdict: Verdict) -> None:
    about: dict[str, Any] = {"durability": "volatile", "caller": "driver", "retry": "op_id", "status": "ok"}
    cell = FaultFigures(**of(ACTORS, **about, fault=Fault.WORKER_KILL, trials=20, trials_judged=20, trials_lost=lost))
    found = entries("Resilience", cells=[cell])[Column.ACTORS]
    assert found.verdict is verdict
    assert f"{lost} of 20 trials (" in found.figures[0]


def test_it_depends_where_strategies_differ() -> None:
    about: dict[str, Any] = {"durability": "volatile", "caller": "driver", "retry": "op_id", "status": "ok"}
    one, other = BY_COLUMN[Column.EXTERNAL][:2]
    cells = [
        FaultFigures(**of(row, **about, fault=Fault.WORKER_KILL, trials=20, trials_judged=20, trials_survived=survived))
        for row, survived in ((one, 20), (other, 3))
    ]
    found = entries("Resilience", cells=cells)[Column.EXTERNAL]
    assert found.verdict is Verdict.DEPENDS
    assert found.on == f"on the strategy: {':'.join(one)}; not {':'.join(other)}"


def test_an_actors_call_is_held_against_an_empty_task_beside_it() -> None:
    same = measured(ACTORS, call_us_p50=[900.0, 1000.0, 1100.0], task_us_p50=[1000.0, 1000.0, 1000.0])
    assert entries("Performance overhead", beside=beside(same))[Column.ACTORS].verdict is Verdict.CONFIRMED
    less = measured(ACTORS, call_us_p50=[90.0, 100.0, 110.0], task_us_p50=[1000.0, 1000.0, 1000.0])
    found = entries("Performance overhead", beside=beside(less))[Column.ACTORS]
    assert found.verdict is Verdict.REFUTED
    assert found.figures[0].startswith("a call over an empty task: 0.1×")


def test_local_state_costs_tasks_a_call_to_the_driver() -> None:
    calls = [
        trial(**of(LOCAL, caller=caller, repeat=repeat, latency_us_p50=us * (1 + repeat / 50)))
        for caller, us in (("driver", 50.0), ("task", 900.0))
        for repeat in range(6)
    ]
    assert entries("Performance overhead", calls)[Column.LOCAL].verdict is Verdict.CONFIRMED
    alike = [trial(**of(LOCAL, caller=caller, repeat=n)) for caller in ("driver", "task") for n in range(6)]
    assert entries("Performance overhead", alike)[Column.LOCAL].verdict is Verdict.REFUTED


def test_scaling_is_told_by_the_whole_interval() -> None:
    def swept(row: tuple[str, str], gain: float) -> list[Trial]:
        return [
            trial(**of(row, clients=clients, repeat=n, ops_per_s=1000 * (gain if clients == 8 else 1) * (1 + n / 100)))
            for clients in (1, 8)
            for n in range(6)
        ]

    found = entries("Scalability", [*swept(LOCAL, 1.0), *swept(EXTERNAL, 4.0)])
    assert found[Column.LOCAL].verdict is Verdict.CONFIRMED  # the book says that it does not
    assert found[Column.EXTERNAL].verdict is Verdict.CONFIRMED
    assert found[Column.EXTERNAL].figures[0].startswith("8 callers over 1: 4")
    assert entries("Scalability", swept(EXTERNAL, 1.0))[Column.EXTERNAL].verdict is Verdict.REFUTED
    more_calls = entries("Scalability", swept(LOCAL, 2.0))[Column.LOCAL]
    assert (more_calls.verdict, more_calls.on[:13]) == (Verdict.DEPENDS, "on what grows")


def test_the_scoreboard_tells_of_several_owners() -> None:
    row = Row("pool_scaling_4", 1.7, 1.4, 2.1, Sense.REPORT, None, "report", 2.0, 1.0, 15, "")
    found = entries("Scalability", beside=Companions(scoreboard=Scoreboard({}, [row])))[Column.ACTORS]
    assert (found.verdict, found.figures) == (Verdict.CONFIRMED, ("4 owners over 1: 1.7× (1.4×–2.1×)",))


def test_complexity_is_ranked_against_the_other_columns() -> None:
    as_said = beside(measured(LOCAL, lines=100), measured(ACTORS, lines=200), measured(EXTERNAL, lines=300))
    found = entries("Code complexity", beside=as_said)
    assert {found[column].verdict for column in (Column.LOCAL, Column.ACTORS, Column.EXTERNAL)} == {Verdict.CONFIRMED}
    turned = beside(measured(LOCAL, lines=300), measured(ACTORS, lines=200), measured(EXTERNAL, lines=100))
    assert {entry.verdict for entry in entries("Code complexity", beside=turned).values()} == {Verdict.REFUTED}


def test_a_server_to_run_is_a_system_to_maintain() -> None:
    served = {"processes": [2.0] * 3, "ports": [3.0] * 3, "settings": [9.0] * 3}
    rows = [measured(LOCAL), measured(ACTORS), measured(EXTERNAL, **served)]  # type: ignore[arg-type]
    found = entries("Deployment complexity", beside=beside(*rows))
    assert found[Column.LOCAL].verdict is Verdict.CONFIRMED
    assert found[Column.EXTERNAL].verdict is Verdict.CONFIRMED
    assert "processes: 2" in found[Column.EXTERNAL].figures
    embedded = [measured(LOCAL), measured(ACTORS), measured(EXTERNAL)]
    assert entries("Deployment complexity", beside=beside(*embedded))[Column.EXTERNAL].verdict is Verdict.REFUTED


# -- what is recorded ------------------------------------------------------------------------------


def test_complexity_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert complexity.read(tmp_path) is None
    rows = [measured(LOCAL), measured(EXTERNAL, status=Status.RESOURCE_MISSING)]
    about = {"machine": {"cpu": "one"}, "complexity": [asdict(row) for row in rows]}
    (tmp_path / complexity.FILE).write_text(json.dumps(about))
    found = complexity.read(tmp_path)
    assert found is not None
    assert list(found.rows) == [complexity.Complexity.of_record(json.loads(json.dumps(asdict(row)))) for row in rows]
    assert found.about == {"machine": {"cpu": "one"}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"complexity": [{}]}', '{"complexity": [3]}'])
def test_damage_is_said_and_costs_its_own_part(text: str, tmp_path: Path) -> None:
    (tmp_path / complexity.FILE).write_text(text)
    with pytest.raises(RunError, match="make it again"):
        complexity.read(tmp_path)
    found = companions.load(tmp_path)
    assert found.complexity is None
    assert len(found.damage) == 1


def test_sweeps_are_found_beside_other_runs(tmp_path: Path) -> None:
    swept = {"series": "sweep", "sweep": [{"over": "clients", "reason": "too few"}]}
    for about in (swept, None):
        made = run_folder(tmp_path, trial(), about=about)
        (tmp_path / "runs").mkdir(exist_ok=True)
        made.rename(tmp_path / "runs" / f"{made.parent.name}-{made.name}")
    assert len(companions.load(tmp_path).sweeps) == 1
