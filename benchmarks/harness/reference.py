"""Which recorded results stand for the project: those that README.md is made from."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.harness import failure_tables, readme
from benchmarks.harness.records import RunError

VARIABLE = "DASK_STATE_BENCH_RUN"
"""Environment variable that names a run of the reader's own, for notebooks."""

FAILURES = failure_tables.RESULTS / failure_tables.JSON
ASV = failure_tables.RESULTS / "asv"
PYTEST_BENCHMARK = failure_tables.RESULTS / "pytest-benchmark" / "latest.json"


def reference_run() -> Path:
    """The run that README.md names between its generated lines.

    Raises:
        RunError: there is no README, or it names none, or the run is not there.
    """
    return _named_by(readme.README)


def reference_sweep() -> Path:
    """The sweep over rates that docs/method.md names.

    Raises:
        RunError: as `reference_run`.
    """
    return _named_by(readme.METHOD)


def chosen_run(own: Path | str | None = None) -> Path:
    """A run of the reader's own, else the one that the environment names, else the reference run.

    Raises:
        RunError: as `reference_run`.
    """
    return _own(own) or reference_run()


def chosen_failures(own: Path | str | None = None) -> Path:
    """A run of the reader's own, else the one that the environment names, else the published failure table."""
    return _own(own) or FAILURES


def _own(own: Path | str | None) -> Path | None:
    """Notebooks are executed in their own folder: a path may be from the repository's root."""
    named = own or os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named)
    return path if path.exists() else readme.ROOT / path


def _named_by(page: Path) -> Path:
    try:
        run = readme.source_of(page.read_text())
    except OSError as error:
        raise RunError(f"{page} cannot be read, which names the reference run: {error.strerror}") from error
    if not run.is_dir():
        raise RunError(f"{page.name} names {run}, which is not there; name a run of your own")
    return run
