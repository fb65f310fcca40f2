"""Measures a plan's trials into a run's folder, with progress, and says at the end what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from benchmarks.harness import measure, options, report
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.environment import Environment
from benchmarks.harness.measure import trial_seed
from benchmarks.harness.options import console
from benchmarks.harness.plan import Plan
from benchmarks.harness.progress import Progress, expected_total_text
from benchmarks.harness.records import HISTORIES, Run, RunError, Trial, read_all


@contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """Ctrl-C ends the command, in order, with the advice."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"Interrupted. {advice}".rstrip(), soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(options.INTERRUPTED) from None


def measure_all(plan: Plan, recorded: Run, environment: Environment) -> list[Trial]:
    """Measure what the run lacks of the plan; returns all of its trials."""
    trials = read_all(recorded.folder).trials
    done = {trial.key for trial in trials}
    todo = plan.trials()
    expected_s = [
        0.0 if _blank_key(cell, repeat) in done else measure.expected_s(cell, environment, plan.settings)
        for cell, repeat in todo
    ]
    console.print(expected_total_text(expected_s), highlight=False)
    with Progress(console, expected_s) as progress:
        for index, (cell, repeat) in enumerate(todo):
            if _blank_key(cell, repeat) in done or _never_measured(trials, _blank_key(cell, 0)):
                progress.skip(index)
                continue
            progress.begin(index, f"{cell.row} {cell.fault or cell.workload} {cell.caller}")
            trials.append(measured(cell, environment, plan, repeat, recorded))
            progress.end(index)
    return trials


def resumed(folder: Path) -> tuple[Run, Plan]:
    """An interrupted run, and what it was to measure.

    Raises:
        RunError: it cannot be continued.
    """
    recorded = Run.resume(folder)
    warn(recorded.damage)
    if recorded.about.get("series"):
        raise RunError(f"{folder} is of a {recorded.about['series']}, which cannot be continued; start it again")
    if not isinstance(recorded.about.get("plan"), dict):
        raise RunError(f"{folder / 'run.json'} holds no plan, so the run cannot be continued")
    return recorded, Plan.of_record(recorded.about["plan"])


def measure_run(
    name: str, plan: Plan, raised: Environment, recorded: Run | None, out: Path, command: str, as_json: bool
) -> None:
    """Measure the plan into a new run's folder, or what the given run lacks of it, and finish."""
    with interruptible(), raised as environment:
        if recorded is None:
            recorded = Run.start(out, {"command": command, "plan": plan.recorded()})
        with interruptible(f"Continue with: python -m benchmarks {name} --resume {recorded.folder}"):
            trials = measure_all(plan, recorded, environment)
    finish(recorded, trials, as_json)


def measured(cell: Cell, environment: Environment, plan: Plan, repeat: int, recorded: Run) -> Trial:
    """Measure one trial and record it."""
    seed = trial_seed(plan.seed, cell, repeat)
    trial = measure.measure(cell, environment, plan.settings, repeat, seed, recorded.folder / HISTORIES)
    recorded.add(trial)
    return trial


def _blank_key(cell: Cell, repeat: int) -> tuple[Any, ...]:
    return measure.unmeasured(cell, repeat).key


def _never_measured(trials: Sequence[Trial], key: tuple[Any, ...]) -> bool:
    """Whether this cell's first repeat was not applicable or lacked a resource: repeating it says no more."""
    unmeasured = (Status.NOT_APPLICABLE, Status.RESOURCE_MISSING)
    return any(trial.key == key and trial.status in unmeasured for trial in trials)


def finish(recorded: Run, trials: Sequence[Trial], as_json: bool) -> None:
    """Close the run, write its report, print it, and exit: with 1 if a trial failed or a claim was not kept."""
    recorded.finish()
    page = report.write(recorded.folder)
    if as_json:
        print(run_json(recorded.folder, recorded.about, trials))
    else:
        print((recorded.folder / "table.md").read_text())
        print(f"Run:    {recorded.folder}\nReport: {page}")
    failed = [trial for trial in trials if trial.status == Status.FAILED]
    wrong = mismatches(trials)
    for trial in failed:
        console.print(f"failed: {_label(trial)}: {trial.reason}", style="red", markup=False, soft_wrap=True)
    for trial in wrong:
        console.print(f"{trial.verdict}: {_label(trial)}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(options.FAILED if failed or wrong else options.DONE)


def mismatches(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that do not fit the claims.

    One that lost more than was claimed is one; that more was kept counts where it was in every trial of the cell:
    a fault may strike when there is nothing to lose.
    """
    by_cell: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        if trial.verdict is not None:
            by_cell.setdefault(trial.key[:-1], []).append(trial)
    found = []
    for of_cell in by_cell.values():
        lucky = not all(trial.verdict == "better_than_claimed" for trial in of_cell)
        found += [
            trial
            for trial in of_cell
            if trial.verdict == "worse_than_claimed" or (trial.verdict == "better_than_claimed" and not lucky)
        ]
    return found


def run_json(folder: Path, about: dict[str, Any], trials: Sequence[Trial]) -> str:
    """The run as JSON: what it ran on, and every trial."""
    return json.dumps({"run": str(folder), **about, "trials": [asdict(trial) for trial in trials]}, allow_nan=False)


def warn(damage: Sequence[str]) -> None:
    """Tell the user what was left out."""
    for each in damage:
        console.print(f"warning: {each}", style="yellow", markup=False, soft_wrap=True)


def _label(trial: Trial) -> str:
    return " ".join(filter(None, (trial.row, trial.fault or trial.workload, trial.caller, trial.retry)))
