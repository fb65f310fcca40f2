"""Options that several commands share, and what all of them do about errors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks.harness import servers
from benchmarks.harness.advice import NeedsError
from benchmarks.harness.generator import Retry
from benchmarks.harness.history_files import HistoryFileError
from benchmarks.harness.load import Arrivals
from benchmarks.harness.plan import UsageError
from benchmarks.harness.records import RunError
from benchmarks.harness.servers import ResourceError, Server
from benchmarks.harness.workloads import UnknownWorkload
from strategies.interface import Caller, Resource, UnknownStrategy

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

RUNS = Path("results/runs")

console = Console(stderr=True)

Strategies = Annotated[list[str] | None, typer.Option("--strategy", help="NAME[:VARIANT], or path/to/file.py:Class.")]
Workloads = Annotated[
    list[str] | None, typer.Option("--workload", help="NAME, or NAME:accounts=N,zipf=THETA for another size or skew.")
]
Accounts = Annotated[int | None, typer.Option(help="Accounts of every workload, instead of each one's own number.")]
Zipf = Annotated[float | None, typer.Option(help="Skew of every workload: 0 is uniform, YCSB's is 0.99.")]
FromWhere = Annotated[Caller | None, typer.Option("--caller", help="Where it is called from; both unless told.")]
Faults = Annotated[list[str] | None, typer.Option("--fault", help="Measure this fault only.")]
Retries = Annotated[
    list[Retry] | None, typer.Option("--retry", help="What callers do that were not answered, around a fault.")
]
Clients = Annotated[int, typer.Option(help="Concurrent callers in speed trials, over all processes.")]
Drivers = Annotated[int, typer.Option(help="Driver processes that call; with --caller driver.")]
Shards = Annotated[int | None, typer.Option(help="Owners of the accounts, where a strategy can have several.")]
Batch = Annotated[int | None, typer.Option(help="Operations in each call, where a strategy takes several.")]
Window = Annotated[int | None, typer.Option(help="Operations each caller has in flight, where a strategy can.")]
ArrivalsOf = Annotated[Arrivals, typer.Option("--arrivals", help="Closed loop, or an open loop's arrivals.")]
Seconds = Annotated[float | None, typer.Option(help="Measured time of a speed trial.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of operations and of the order of trials.")]
Scheduler = Annotated[str | None, typer.Option(help="A Dask cluster of your own, instead of a local one.")]
Out = Annotated[Path, typer.Option(help="Where the run's folder is made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]

Urls = Mapping[Resource, str]
"""Of servers of the user's own: see `with_urls`."""
NO_URLS: Urls = {}


def with_urls(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command an option for the URL of each kind of server, in place of its parameter of them all."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    shown: list[inspect.Parameter] = []
    of_servers = [_url_option(kind) for kind in servers.kinds().values()]
    for parameter in own:
        shown += of_servers if parameter.annotation is Urls else [parameter]

    @wraps(command)
    def wrapped(**given: Any) -> None:
        urls = {resource: given.pop(kind.url_field) for resource, kind in servers.kinds().items()}
        command(**given, urls={resource: url for resource, url in urls.items() if url is not None})

    wrapped.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return wrapped


def _url_option(kind: type[Server]) -> inspect.Parameter:
    variable = f"DASK_STATE_BENCH_{kind.url_field.upper()}"
    described = typer.Option(kind.option, envvar=variable, help=f"A {kind.product} of your own, instead of ours.")
    return inspect.Parameter(
        kind.url_field,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[str | None, described],
    )


_MENDED_BY_THE_USER = (
    *(UsageError, NeedsError, UnknownStrategy, UnknownWorkload),
    *(ResourceError, RunError, HistoryFileError),
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """One sentence in place of a traceback for what the user can mend; logs of what is broken on purpose are off."""
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (
        UsageError,
        NeedsError,
        UnknownStrategy,
        UnknownWorkload,
        ResourceError,
        RunError,
        HistoryFileError,
    ) as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(USAGE) from None
