"""The command line: `python -m benchmarks COMMAND`."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.harness import baselines, cells, measure, report, workloads
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.environment import Environment, ResourceError, without_secret
from benchmarks.harness.measure import QUICK, Settings, trial_seed
from benchmarks.harness.records import Run, RunError, Trial, git_commit, machine, read, versions
from strategies.interface import Caller, Fault, UnknownStrategy, load, names

RUNS = Path("results/runs")

_DONE, _CELL_FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130
_QUICK_REPEATS, _REPEATS = 3, 5

app = typer.Typer(
    help="Measures where a Dask program can keep state that changes: how fast, and what is lost when something dies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(stderr=True)


class UsageError(ValueError):
    """The command line asks for something that cannot be."""


@dataclass(frozen=True)
class Plan:
    """What a run measures. Recorded with it, so that it can be resumed."""

    quick: bool
    strategies: tuple[str, ...]
    workloads: tuple[str, ...]
    callers: tuple[str, ...]
    faults: tuple[str, ...]
    clients: int
    repeats: int
    seconds: float | None
    seed: int

    @property
    def settings(self) -> Settings:
        """How long its trials take."""
        settings = QUICK if self.quick else Settings()
        return settings if self.seconds is None else replace(settings, seconds=self.seconds)

    def trials(self) -> list[tuple[Cell, int]]:
        """Every cell and repeat in the order of measuring: each repeat is a block, shuffled by the seed.

        Speed comes before faults, which cost the cluster a worker each.
        """
        rows = [row for strategy in self.strategies for row in _rows(strategy)]
        speeds = cells.speed_cells(rows, self.workloads, [Caller(caller) for caller in self.callers], self.clients)
        broken = cells.fault_cells(rows, [Fault(fault) for fault in self.faults])
        chance = random.Random(self.seed)
        ordered = []
        for of_kind, repeats in ((speeds, self.repeats), (broken, 1 if self.quick else self.repeats)):
            for repeat in range(repeats):
                block = list(of_kind)
                chance.shuffle(block)
                ordered += [(cell, repeat) for cell in block]
        return ordered


@app.command()
def run(
    quick: Annotated[bool, typer.Option(help="Short trials: the whole matrix within three minutes.")] = False,
    strategy: Annotated[list[str] | None, typer.Option(help="NAME[:VARIANT], or path/to/file.py:ClassName.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Measure speed on this workload only.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Measure this fault only.")] = None,
    caller: Annotated[Caller | None, typer.Option(help="Where speed is called from; both unless told.")] = None,
    clients: Annotated[int, typer.Option(min=1, max=256, help="Concurrent callers in speed trials.")] = 4,
    seconds: Annotated[float | None, typer.Option(help="Measured time of a speed trial.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Trials per cell.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of operations and of the order of trials.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="A Dask cluster of your own, instead of a local one.")] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(envvar="DASK_STATE_BENCH_REDIS_URL", help="A server of your own, instead of embedded ones."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the run's folder is made.")] = RUNS,
    resume: Annotated[Path | None, typer.Option(help="Measure what an interrupted run still lacks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> None:
    """Measure, write the run's folder, print the table and say where the report is."""
    _quiet_dask()
    recorded: Run | None = None
    try:
        if resume is not None:
            recorded = Run.resume(resume)
            if not isinstance(recorded.about.get("plan"), dict):
                raise RunError(f"{resume / 'run.json'} holds no plan, so the run cannot be continued")
            plan = _plan_of(recorded.about["plan"])
        else:
            if seconds is not None and not 0 < seconds <= 3600:
                raise UsageError(f"--seconds must be above 0 and at most 3600, not {seconds}")
            plan = Plan(
                quick=quick,
                strategies=tuple(_checked(strategy or names(), _rows)),
                workloads=tuple(_checked(workload or ([] if fault else workloads.names()), workloads.load)),
                callers=(caller,) if caller else tuple(Caller),
                faults=tuple(_checked(fault or ([] if workload else list(Fault)), _fault)),
                clients=clients,
                repeats=repeats or (_QUICK_REPEATS if quick else _REPEATS),
                seconds=seconds,
                seed=seed,
            )
        with Environment(scheduler=scheduler, redis_url=redis_url) as environment:
            if recorded is None:
                about = {"command": _command(plan, scheduler, redis_url), "plan": asdict(plan)}
                recorded = Run.start(out, about)
            trials = _measure_all(plan, recorded, environment)
        recorded.finish()
        page = report.write(recorded.folder)
    except (UsageError, UnknownStrategy, workloads.UnknownWorkload, ResourceError, RunError) as error:
        _fail(error)
    except KeyboardInterrupt:
        if recorded is not None:
            _console.print(
                f"Interrupted. Continue with: python -m benchmarks run --resume {recorded.folder}", soft_wrap=True
            )
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print(
            json.dumps({"run": str(recorded.folder), **recorded.about, "trials": [asdict(trial) for trial in trials]})
        )
    else:
        print((recorded.folder / "table.md").read_text())
        print(f"Run:    {recorded.folder}\nReport: {page}")
    failed = [trial for trial in trials if trial.status == Status.FAILED]
    wrong = [trial for trial in trials if trial.verdict in ("worse_than_claimed", "better_than_claimed")]
    for trial in failed:
        _console.print(f"failed: {_label(trial)}: {trial.reason}", style="red", markup=False, soft_wrap=True)
    for trial in wrong:
        _console.print(f"{trial.verdict}: {_label(trial)}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(_CELL_FAILED if failed or wrong else _DONE)


@app.command(name="list")
def list_strategies(
    redis_url: Annotated[str | None, typer.Option(envvar="DASK_STATE_BENCH_REDIS_URL")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show strategies, variants and claims, and what is missing on this machine to run each."""
    _quiet_dask()
    found = []
    try:
        with Environment(redis_url=redis_url) as environment:
            for strategy in names():
                for _, variant in _rows(strategy):
                    claims = load(strategy).claims(variant)
                    found.append(
                        {
                            "strategy": strategy,
                            "variant": variant,
                            "durability": claims.durability,
                            "consistency": claims.consistency,
                            "transfers": claims.transfers,
                            "retries": claims.retries,
                            "callers": sorted(claims.callers),
                            "survives": sorted(claims.survives),
                            "needs": sorted(claims.needs),
                            "missing": environment.missing(claims),
                        }
                    )
    except ResourceError as error:
        _fail(error)
    if as_json:
        print(json.dumps({"strategies": found}, indent=2))
        return
    print(report.claims_table(found))


@app.command(name="report")
def write_report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Write the run's table.md and report.html anew."""
    try:
        page = report.write(folder)
    except RunError as error:
        _fail(error)
    print((folder / "table.md").read_text())
    print(f"Report: {page}")


@app.command()
def scoreboard(
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure strategies beside the same calls written by hand, in one run."""
    _quiet_dask()
    try:
        with Environment() as environment:
            rows = baselines.scoreboard(environment, seed)
    except ResourceError as error:
        _fail(error)
    if as_json:
        about = {"commit": git_commit(), "seed": seed, "machine": machine(), "versions": versions()}
        print(json.dumps({**about, "scoreboard": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table("row", "ratio", "95 % interval", "target", "verdict")
    for row in rows:
        table.add_row(row.row, f"{row.ratio:.3f}", f"{row.low:.3f}–{row.high:.3f}", f"≥ {row.target}", row.verdict)
    Console().print(table)


def _measure_all(plan: Plan, recorded: Run, environment: Environment) -> list[Trial]:
    trials = read(recorded.folder)[1]
    done = {trial.key for trial in trials}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    todo = plan.trials()
    with Progress(*columns, console=_console, transient=True) as progress:
        task = progress.add_task("measuring", total=len(todo))
        for cell, repeat in todo:
            progress.update(task, description=f"{cell.row} {cell.fault or cell.workload} {cell.caller}")
            key = (cell.name, cell.variant, cell.workload, cell.caller, cell.clients, cell.fault, repeat)
            undecided = (*key[:-1], 0)
            if key not in done and not _never_measured(trials, undecided):
                trial = measure.measure(cell, environment, plan.settings, repeat, trial_seed(plan.seed, cell, repeat))
                recorded.add(trial)
                trials.append(trial)
                done.add(key)
            progress.advance(task)
    return trials


def _never_measured(trials: Sequence[Trial], key: tuple[Any, ...]) -> bool:
    """Whether this cell's first repeat was not applicable or lacked a resource: repeating it says no more."""
    unmeasured = (Status.NOT_APPLICABLE, Status.RESOURCE_MISSING)
    return any(trial.key == key and trial.status in unmeasured for trial in trials)


def _rows(strategy: str) -> list[tuple[str, str]]:
    """The (strategy, variant) pairs that NAME[:VARIANT] or FILE.py:CLASS[:VARIANT] stands for."""
    name, variant = strategy, None
    parts = strategy.rsplit(":", 1)
    if len(parts) == 2 and not parts[0].endswith(".py"):
        name, variant = parts
    variants = load(name).capabilities.variants
    if variant is None:
        return [(name, each) for each in variants]
    if variant not in variants:
        raise UsageError(f"{name} has no variant {variant!r}; it has {', '.join(variants)}")
    return [(name, variant)]


def _fault(name: str) -> Fault:
    try:
        return Fault(name)
    except ValueError:
        raise UsageError(f"no fault is called {name!r}; there are {', '.join(Fault)}") from None


def _checked(wanted: Sequence[str], check: Callable[[str], object]) -> Sequence[str]:
    for name in wanted:
        check(name)
    return wanted


def _plan_of(recorded: dict[str, Any]) -> Plan:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
    }
    return Plan(**fields)


def _command(plan: Plan, scheduler: str | None, redis_url: str | None) -> str:
    """The command that measures the same again, without secrets."""
    words = ["python -m benchmarks run"]
    words += ["--quick"] if plan.quick else []
    words += [f"--strategy {strategy}" for strategy in plan.strategies if list(plan.strategies) != names()]
    if not (plan.workloads and plan.faults):
        words += [f"--workload {workload}" for workload in plan.workloads]
        words += [f"--fault {fault}" for fault in plan.faults]
    words += [f"--caller {plan.callers[0]}"] if len(plan.callers) == 1 else []
    words += [f"--clients {plan.clients}", f"--repeats {plan.repeats}", f"--seed {plan.seed}"]
    words += [] if plan.seconds is None else [f"--seconds {plan.seconds}"]
    words += [] if scheduler is None else [f"--scheduler {scheduler}"]
    words += [] if redis_url is None else [f"--redis-url {without_secret(redis_url)}"]
    return " ".join(words)


def _label(trial: Trial) -> str:
    return f"{trial.row} {trial.fault or trial.workload} {trial.caller}"


def _quiet_dask() -> None:
    """What dies in a fault trial is reported by the trial, not by Dask's and asyncio's logs."""
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _fail(error: Exception) -> NoReturn:
    _console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
    raise typer.Exit(_USAGE) from None
