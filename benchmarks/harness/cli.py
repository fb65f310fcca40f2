"""The command line: `python -m benchmarks COMMAND`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness import (
    advice,
    advice_text,
    baselines,
    compare,
    complexity,
    complexity_table,
    evidence,
    export,
    judging,
    measure,
    options,
    pictures,
    reference,
    report,
    selftests,
    sweeps,
    workloads,
)
from benchmarks.harness.cells import Cell, Status
from benchmarks.harness.environment import Environment
from benchmarks.harness.generator import Retry
from benchmarks.harness.load import Arrivals
from benchmarks.harness.options import RUNS, console, plain_errors
from benchmarks.harness.plan import (
    FAILURE_REPEATS,
    QUICK_FAULTS,
    QUICK_REPEATS,
    REPEATS,
    SHORT_FAULTS,
    SHORT_RETRIES,
    Plan,
    UsageError,
    checked,
    fault_named,
    rows_of,
    spelled_workloads,
)
from benchmarks.harness.progress import Progress, expected_total_text
from benchmarks.harness.records import Run, Trial, git_commit, machine, read_all, versions
from benchmarks.harness.runs import finish, interruptible, measure_run, measured, resumed, run_json, warn
from benchmarks.harness.scoreboard import COLUMNS
from benchmarks.harness.table_text import NO_FIGURE, markdown
from benchmarks.harness.workloads import UNIT_DEPOSITS
from strategies.interface import Caller, Fault, load, names

app = typer.Typer(
    help="Measures where a Dask program can keep state that changes: how fast, and what is lost when something dies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_WIDE = 120
"""Columns of a terminal on which advice can be read as a table."""


@app.command()
@options.with_urls
def run(
    quick: Annotated[bool, typer.Option(help="Short trials: the usual cells within three minutes.")] = False,
    strategy: options.Strategies = None,
    workload: options.Workloads = None,
    accounts: options.Accounts = None,
    zipf: options.Zipf = None,
    fault: options.Faults = None,
    retry: options.Retries = None,
    caller: options.FromWhere = None,
    clients: options.Clients = 4,
    drivers: options.Drivers = 1,
    shards: options.Shards = None,
    batch: options.Batch = None,
    window: options.Window = None,
    arrivals: options.ArrivalsOf = Arrivals.CLOSED,
    rate: Annotated[float | None, typer.Option(help="Operations due each second, with an open loop.")] = None,
    seconds: options.Seconds = None,
    repeats: Annotated[int | None, typer.Option(help="Trials per cell.")] = None,
    seed: options.Seed = 1,
    scheduler: options.Scheduler = None,
    urls: options.Urls = options.NO_URLS,
    out: options.Out = RUNS,
    resume: Annotated[Path | None, typer.Option(help="Measure what an interrupted run still lacks.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure, write the run's folder, print the table and say where the report is."""
    recorded: Run | None = None
    with plain_errors():
        if resume is not None:
            recorded, plan = resumed(resume)
        else:
            usual = workloads.QUICK if quick else workloads.names()
            plan = Plan(
                quick=quick,
                strategies=checked(strategy or names(), rows_of),
                workloads=spelled_workloads(workload or ([] if fault else usual), accounts, zipf),
                callers=(caller,) if caller else tuple(Caller),
                faults=checked(fault or ([] if workload else QUICK_FAULTS if quick else list(Fault)), fault_named),
                retries=tuple(retry or [Retry.NONE]),
                fault_callers=(caller,) if caller else (),
                clients=clients,
                repeats=(QUICK_REPEATS if quick else REPEATS) if repeats is None else repeats,
                seconds=seconds,
                seed=seed,
                drivers=drivers,
                shards=shards,
                batch=batch,
                window=window,
                arrivals=arrivals,
                rate_per_s=rate,
            )
        raised = Environment(scheduler=scheduler, urls=urls)
        measure_run("run", plan, raised, recorded, out, plan.command("run", scheduler, urls), as_json)


@app.command()
@options.with_urls
def failures(
    short: Annotated[bool, typer.Option(help="Six faults, once each, within five minutes.")] = False,
    strategy: options.Strategies = None,
    fault: options.Faults = None,
    retry: options.Retries = None,
    caller: options.FromWhere = None,
    repeats: Annotated[int | None, typer.Option(help="Trials per cell.")] = None,
    seed: options.Seed = 1,
    scheduler: options.Scheduler = None,
    urls: options.Urls = options.NO_URLS,
    out: options.Out = RUNS,
    resume: Annotated[Path | None, typer.Option(help="Measure what an interrupted run still lacks.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Break every strategy in every way that reaches it, and say what was lost, doubled, and for how long."""
    recorded: Run | None = None
    with plain_errors():
        if resume is not None:
            recorded, plan = resumed(resume)
        else:
            plan = Plan(
                quick=True,
                strategies=checked(strategy or names(), rows_of),
                workloads=(),
                callers=(caller,) if caller else tuple(Caller),
                faults=checked(fault or (SHORT_FAULTS if short else list(Fault)), fault_named),
                clients=UNIT_DEPOSITS.accounts,
                repeats=(1 if short else FAILURE_REPEATS) if repeats is None else repeats,
                seconds=None,
                seed=seed,
                retries=tuple(retry or (SHORT_RETRIES if short else Retry)),
                fault_callers=(caller,) if caller else () if short else tuple(Caller),
            )
        raised = Environment(scheduler=scheduler, urls=urls)
        measure_run("failures", plan, raised, recorded, out, plan.command("failures", scheduler, urls), as_json)


@app.command()
def replay(
    folder: options.RunFolder,
    line: Annotated[int, typer.Argument(metavar="LINE", help="Of the run's trials.jsonl, counted from 1.")],
    as_json: options.AsJson = False,
) -> None:
    """Measure one recorded fault trial again, on the same schedule, and show both."""
    with plain_errors():
        contents = read_all(folder)
        if not 1 <= line <= len(contents.trials):
            raise UsageError(f"{folder} has trials 1 to {len(contents.trials)}, not {line}")
        recorded = contents.trials[line - 1]
        plan = Plan.of_record(contents.about.get("plan", {}))
        cell = plan.cell_of(recorded.key)
        with interruptible(), Environment() as environment:
            again = measure.measure(cell, environment, plan.settings, recorded.repeat, recorded.seed)
    if as_json:
        print(json.dumps({"recorded": asdict(recorded), "replayed": asdict(again)}, allow_nan=False))
    else:
        table = Table("", "recorded", "replayed", title=f"{cell.row} {cell.fault} {cell.caller} {cell.retry}")
        for name in report.REPLAYED:
            table.add_row(name, str(getattr(recorded, name)), str(getattr(again, name)))
        Console().print(table)
    raise typer.Exit(options.FAILED if again.status == Status.FAILED else options.DONE)


@app.command()
def check(
    history: Annotated[Path, typer.Argument(metavar="HISTORY", help="A file of a run's histories/.")],
    picture: Annotated[Path | None, typer.Option(help="Where to draw the first violation: an .svg file.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Judge a recorded history: what was lost, doubled, made up or out of order, and the calls that prove it."""
    with plain_errors():
        found = judging.judge(history)
        if picture is not None and found.verdict.violations:
            drawn = pictures.picture(found.verdict.violations[0], found.file.history, found.file.names)
            picture.write_text(drawn)
    print(json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else found.in_words())
    raise typer.Exit(options.DONE if found.sound else options.FAILED)


@app.command()
@options.with_urls
def search(
    strategy: options.Strategies = None,
    workload: options.Workloads = None,
    target_p99_ms: Annotated[float, typer.Option(help="What the p99 of response times must keep.")] = 10.0,
    probes: Annotated[int, typer.Option(min=3, max=50, help="Trials of each search at most.")] = sweeps.PROBES,
    accounts: options.Accounts = None,
    zipf: options.Zipf = None,
    caller: options.FromWhere = None,
    clients: options.Clients = 16,
    drivers: options.Drivers = 1,
    shards: options.Shards = None,
    arrivals: options.ArrivalsOf = Arrivals.POISSON,
    seconds: options.Seconds = None,
    seed: options.Seed = 1,
    scheduler: options.Scheduler = None,
    urls: options.Urls = options.NO_URLS,
    out: options.Out = RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Find the highest rate that keeps a latency target, for each cell."""
    with plain_errors():
        if arrivals is Arrivals.CLOSED:
            raise UsageError("a closed loop has no rate to search for; choose --arrivals poisson or constant")
        if not 0 < target_p99_ms <= 60_000:
            raise UsageError(f"--target-p99-ms must be above 0 and at most 60000, not {target_p99_ms}")
        plan = _series_plan(strategy, workload, accounts, zipf, caller, clients, drivers, shards, seconds, seed)
        command = plan.command(
            "search",
            scheduler,
            urls,
            extra=[f"--target-p99-ms {target_p99_ms:g}", f"--probes {probes}", f"--arrivals {arrivals}"],
        )

        def each(cell: Cell, one: sweeps.Measure) -> dict[str, Any]:
            return asdict(sweeps.search(cell, one, target_p99_ms, probes, arrivals))

        _series("search", plan, command, out, each, probes, Environment(scheduler=scheduler, urls=urls), as_json)


@app.command()
@options.with_urls
def sweep(
    over: Annotated[str, typer.Option(help="rate, clients or shards.")] = "rate",
    values: Annotated[str | None, typer.Option(help="Numbers to go through, with commas between them.")] = None,
    strategy: options.Strategies = None,
    workload: options.Workloads = None,
    accounts: options.Accounts = None,
    zipf: options.Zipf = None,
    caller: options.FromWhere = None,
    clients: options.Clients = 16,
    drivers: options.Drivers = 1,
    shards: options.Shards = None,
    arrivals: options.ArrivalsOf = Arrivals.POISSON,
    seconds: options.Seconds = None,
    repeats: Annotated[int, typer.Option(help="Trials per cell.")] = 3,
    seed: options.Seed = 1,
    scheduler: options.Scheduler = None,
    urls: options.Urls = options.NO_URLS,
    out: options.Out = RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Measure latency over rates, or throughput over clients or shards with a fit of how it scales."""
    with plain_errors():
        numbers = _numbers(over, values)
        plan = _series_plan(
            strategy, workload, accounts, zipf, caller, clients, drivers, shards, seconds, seed, repeats
        )
        extra = [f"--over {over}", f"--arrivals {arrivals}"] + ([] if values is None else [f"--values {values}"])
        command = plan.command("sweep", scheduler, urls, extra=extra)

        def each(cell: Cell, one: sweeps.Measure) -> None:
            if over == "rate":
                sweeps.curve(cell, one, numbers, arrivals, repeats)
            else:
                sweeps.over(cell, over, [int(number) for number in numbers or ()], one, repeats)

        trials_each = len(numbers) * repeats if numbers else len(sweeps.CURVE) * repeats + 1
        _series(
            "sweep",
            plan,
            command,
            out,
            each,
            trials_each,
            Environment(scheduler=scheduler, urls=urls),
            as_json,
            scaling_over=None if over == "rate" else over,
        )


@app.command(name="list")
@options.with_urls
def list_strategies(urls: options.Urls = options.NO_URLS, as_json: options.AsJson = False) -> None:
    """Show strategies, variants and claims, and what is missing on this machine to run each."""
    found = []
    with plain_errors(), Environment(urls=urls) as environment:
        for strategy in names():
            for _, variant in rows_of(strategy):
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
    print(json.dumps({"strategies": found}, indent=2) if as_json else report.claims_table(found))


@app.command(name="report")
def write_report(folder: options.RunFolder, as_json: options.AsJson = False) -> None:
    """Write the run's table.md and report.html anew."""
    with plain_errors():
        contents = read_all(folder)
        warn(contents.damage)
        page = report.write(folder)
    if as_json:
        print(run_json(folder, contents.about, contents.trials))
    else:
        print((folder / "table.md").read_text())
        print(f"Report: {page}")


@app.command(name="compare")
def compare_runs(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The run that is compared with.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run that is faster or slower.")],
    as_json: options.AsJson = False,
) -> None:
    """Say for each cell whether the second run was faster or slower than the first, and how sure that is."""
    with plain_errors():
        for folder in (run_a, run_b):
            warn(read_all(folder).damage)
        found = compare.compare(run_a, run_b)
    print(json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else found.markdown())


@app.command()
def advise(
    folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder; else the README's.")] = None,
    accounts: Annotated[int | None, typer.Option(help="At least so many accounts.")] = None,
    rate: Annotated[float | None, typer.Option(help="Operations each second, all callers together.")] = None,
    p99_ms: Annotated[float | None, typer.Option(help="Of 100 operations, 99 take at most this.")] = None,
    survive: Annotated[list[str] | None, typer.Option(help="Faults, with commas between them.")] = None,
    retries: Annotated[str, typer.Option(help="safe: sent again with its op id, an operation has one effect.")] = (
        "unsafe"
    ),
    transfers: Annotated[str, typer.Option(help="none, same_shard or any: between which accounts.")] = "none",
    callers: Annotated[list[str] | None, typer.Option(help="driver, task, or both with a comma.")] = None,
    workload: Annotated[str | None, typer.Option(help="Whose speed counts; ycsb_a unless told.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say which strategies meet your needs, ranked by measured figures, and why the others do not."""
    with plain_errors():
        wanted = advice_text.needs(accounts, rate, p99_ms, survive or (), retries, transfers, callers or ())
        found = evidence.gather(folder or reference.reference_run(), workload)
        warn(found.damage)
        advised = advice.advise(wanted, found.candidates)
    if as_json:
        print(json.dumps({"run": found.run, "workload": found.workload, **advised.as_json()}, allow_nan=False))
        return
    shown = Console()
    shown.print(f"Asked for: {advice_text.asked(wanted)}.", markup=False, highlight=False)
    shown.print(advice_text.conclusion(advised), markup=False, highlight=False, style="bold")
    for title, entries in (
        ("What meets it", advice_text.ranked(advised)),
        ("The nearest misses", advice_text.nearest(advised)),
        ("Ruled out", advice_text.ruled_out(advised)),
    ):
        if entries[1:]:
            shown.print(title, style="italic")
            shown.print(_as_table(entries) if shown.width >= _WIDE else _as_blocks(entries))
    for said in (advised.rule, found.sources):
        shown.print(said, markup=False, highlight=False)


def _as_table(entries: Sequence[Sequence[str]]) -> Table:
    drawn = Table(show_lines=True)
    for heading in entries[0]:
        drawn.add_column(heading, no_wrap=heading == advice_text.STRATEGY)
    for line in entries[1:]:
        drawn.add_row(*map(escape, line))
    return drawn


def _as_blocks(entries: Sequence[Sequence[str]]) -> Table:
    """Each line a heading and what is under it: five columns of sentences do not fit on a narrow terminal."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column()
    headings, name_at = entries[0], entries[0].index(advice_text.STRATEGY)
    for line in entries[1:]:
        place, name = "".join(line[:name_at]), line[name_at].replace("\n", ", ")
        drawn.add_row()
        drawn.add_row(f"[bold]{place}[/bold]", f"[bold]{escape(name)}[/bold]")
        for heading, entry in list(zip(headings, line, strict=True))[name_at + 1 :]:
            if entry != NO_FIGURE:
                drawn.add_row(heading, escape(entry))
    return drawn


@app.command(name="export")
def export_trials(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs' folders.")],
    to: Annotated[Path, typer.Option(help="The file: .csv or .parquet.")],
    as_json: options.AsJson = False,
) -> None:
    """Write trials as one table, a line each."""
    with plain_errors():
        warn(export.write(folders, to))
    print(json.dumps({"file": str(to)}) if as_json else f"Written: {to}")


@app.command()
def scoreboard(seed: options.Seed = 1, as_json: options.AsJson = False) -> None:
    """Measure strategies beside the same calls written by hand, in one run."""
    with plain_errors(), Environment() as environment:
        rows = baselines.scoreboard(environment, seed)
    if as_json:
        about = {**_surroundings(seed), "command": f"python -m benchmarks scoreboard --seed {seed}"}
        print(json.dumps({**about, "scoreboard": [asdict(row) for row in rows]}, indent=2, allow_nan=False))
        return
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells)
    Console().print(table)


@app.command()
def selftest(
    short: Annotated[bool, typer.Option(help="Fewer comparisons and shorter loads, to the same bounds.")] = False,
    seed: options.Seed = 1,
    as_json: options.AsJson = False,
) -> None:
    """Measure the ruler: whether it sees what is not there, misses what is, or is in its own way."""
    rows = []
    table = Table("row", "figure", "bound", "holds", "how", title="The ruler, measured")
    with plain_errors(), Environment() as environment:
        for row in selftests.selftest(environment, seed, selftests.SHORT if short else selftests.FULL):
            console.print(f"{row.row}: {row.figure:g} {row.unit} ({row.relation} {row.bound:g})", markup=False)
            rows.append(row)
            table.add_row(
                row.row,
                f"{row.figure:g} {row.unit}",
                f"{row.relation} {row.bound:g}",
                "yes" if row.holds else "no",
                row.detail,
            )
    if as_json:
        command = f"python -m benchmarks selftest{' --short' if short else ''} --seed {seed}"
        about = {**_surroundings(seed), "short": short, "command": command}
        print(json.dumps({**about, "selftest": [asdict(row) for row in rows]}, indent=2, allow_nan=False))
    else:
        Console().print(table)
    raise typer.Exit(options.DONE if all(row.holds for row in rows) else options.FAILED)


@app.command(name="complexity")
def measure_complexity(
    strategy: options.Strategies = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Trials of each deployment.")] = complexity.REPEATS,
    as_json: options.AsJson = False,
) -> None:
    """Measure what each strategy costs before it is fast or slow: code, what must be deployed, memory."""
    with plain_errors():
        rows = [row for name in checked(strategy or names(), rows_of) for row in rows_of(name)]
        found = complexity.measured(rows, repeats, lambda words: console.print(words, markup=False, highlight=False))
    if as_json:
        about = _surroundings(None) | {"command": _complexity_command(strategy, repeats)}
        print(json.dumps(about | {"complexity": [asdict(row) for row in found]}, indent=1, allow_nan=False))
    else:
        print("\n".join(markdown(complexity_table.table(found))))
    raise typer.Exit(options.FAILED if any(row.status == Status.FAILED for row in found) else options.DONE)


def _complexity_command(strategy: list[str] | None, repeats: int) -> str:
    chosen = [f"--strategy {shlex.quote(each)}" for each in strategy or ()]
    return " ".join(["python -m benchmarks complexity", *chosen, f"--repeats {repeats}"])


# -- what commands share -----------------------------------------------------------------------------


def _series_plan(
    strategy: list[str] | None,
    workload: list[str] | None,
    accounts: int | None,
    zipf: float | None,
    caller: Caller | None,
    clients: int,
    drivers: int,
    shards: int | None,
    seconds: float | None,
    seed: int,
    repeats: int = 1,
) -> Plan:
    return Plan(
        quick=False,
        strategies=checked(strategy or names(), rows_of),
        workloads=spelled_workloads(workload or [report.SUMMARY_WORKLOAD], accounts, zipf),
        callers=(caller or Caller.DRIVER,),
        faults=(),
        clients=clients,
        repeats=repeats,
        seconds=seconds,
        seed=seed,
        drivers=drivers,
        shards=shards,
    )


def _series(
    name: str,
    plan: Plan,
    command: str,
    out: Path,
    each: Callable[[Cell, sweeps.Measure], dict[str, Any] | None],
    trials_each: int,
    raised: Environment,
    as_json: bool,
    scaling_over: str | None = None,
) -> None:
    """Run a series of trials for every cell that can be measured, and record what it found."""
    trials: list[Trial] = []
    found: list[dict[str, Any]] = []
    with raised as environment:
        recorded = Run.start(out, {"command": command, "plan": plan.recorded(), "series": name})
        cells = plan.speed_cells()
        each_s = [measure.expected_s(cell, environment, plan.settings) for cell in cells]
        expected_s = [seconds for seconds in each_s for _ in range(trials_each)]
        console.print(expected_total_text(expected_s), highlight=False)
        with Progress(console, expected_s) as progress, interruptible(f"What was measured is in {recorded.folder}"):
            for place, cell in enumerate(cells):
                places = iter(range(place * trials_each, (place + 1) * trials_each))

                def one(changed: Cell, repeat: int, places: Iterator[int] = places) -> Trial:
                    index = next(places)
                    progress.begin(index, f"{changed.row} {changed.workload} {changed.caller}")
                    trials.append(measured(changed, environment, plan, repeat, recorded))
                    progress.end(index)
                    return trials[-1]

                result = each(cell, one)
                if result is not None:
                    found.append(result)
                for index in places:
                    progress.skip(index)
    if scaling_over is not None:
        found = sweeps.scaling(trials, scaling_over)
    recorded.about[name] = found
    finish(recorded, trials, as_json)


def _numbers(over: str, values: str | None) -> list[float] | None:
    if over not in ("rate", "clients", "shards"):
        raise UsageError(f"--over takes rate, clients or shards, not {over!r}")
    if values is None:
        return None if over == "rate" else [1.0, 2.0, 4.0, 8.0, 16.0]
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        raise UsageError(f"--values takes numbers with commas between them, not {values!r}") from None
    if any(not 0 < number <= 1e7 or (over != "rate" and number != int(number)) for number in numbers):
        raise UsageError(f"--values must be positive{'' if over == 'rate' else ' whole'} numbers, not {values!r}")
    return list(dict.fromkeys(numbers))


def _surroundings(seed: int | None) -> dict[str, Any]:
    return {"commit": git_commit(), "seed": seed, "machine": machine(), "versions": versions()}
