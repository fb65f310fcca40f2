"""Which recorded results stand for the project: those that README.md is made from.

`python -m benchmarks.harness.reference` measures them anew, which takes two hours of an idle machine, and makes README,
docs and plots from them. Give it a clean, committed tree, so that the commit in the records is what ran.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from benchmarks.harness import failure_tables, readme, workloads
from benchmarks.harness.plan import QUICK_FAULTS
from benchmarks.harness.records import RunError
from strategies.interface import Fault

VARIABLE = "DASK_STATE_BENCH_RUN"
"""Environment variable that names a run of the reader's own, for notebooks."""

RUNS = failure_tables.RESULTS / "runs"
FAILURES = failure_tables.RESULTS / failure_tables.JSON
FAILURES_ONCE = failure_tables.RESULTS / failure_tables.ONCE_JSON
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


def chosen_failures_once(own: Path | str | None = None) -> Path:
    """The same, else the published table of every strategy and fault, once."""
    return _own(own) or FAILURES_ONCE


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


_BESIDE = ("scoreboard", "selftest", "complexity")
"""Commands whose answers lie under results/ under their own names."""
_CALLERS = (
    "sweep --over clients --values 1,2,4,8 --workload ycsb_a --caller task --repeats 3 --seconds 0.4 --seed 1 "
    "--strategy driver_dict --strategy actor_single:direct --strategy actor_pool:direct --strategy redis_lua "
    "--strategy sqlite --strategy postgres --strategy actor_front --strategy ray_actor:plain --strategy ray_pool:plain "
    "--strategy zookeeper --strategy pekko --strategy dask_variable"
)
_RATES = (
    "sweep --over rate --arrivals poisson --workload ycsb_a --caller task --clients 8 --repeats 3 --seconds 1 --seed 1 "
    "--strategy actor_pool:direct --strategy redis_lua:everysec --strategy sqlite:normal --strategy postgres:commit_on "
    "--strategy pekko:one_node --strategy zookeeper:synced --strategy ray_pool:plain"
)
_MATRIX = "run --quick --clients 4 --seed 1 --repeats 3 --seconds 0.6 --retry op_id"
_FAULTS = "run --quick --seed 1 --repeats 1 --retry op_id"


def record() -> list[Path]:
    """Measure all of it; returns the folders that the pages are to be made from: README.md's, and docs/method.md's.

    Raises:
        subprocess.CalledProcessError: a command failed; what it said is above.
        RunError: the failure table cannot be made.
    """
    for name in _BESIDE:
        path = failure_tables.RESULTS / f"{name}.json"
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            _run(name, "--json", stdout=file)
        fresh.rename(path)
    matrix = [*_MATRIX.split(), *(word for name in workloads.names() for word in ("--workload", name))]
    matrix += [word for fault in QUICK_FAULTS for word in ("--fault", fault)]
    faults = [*_FAULTS.split(), *(word for fault in Fault for word in ("--fault", fault))]
    made = [_recorded(*words) for words in (_CALLERS.split(), _RATES.split(), matrix, faults)]
    failure_tables.write([made[3]], failure_tables.RESULTS, once=True)
    shutil.rmtree(made[3])  # the table has all of it
    return [made[2], made[1]]


def _recorded(*arguments: str) -> Path:
    """The folder of the run that these words measure."""
    before = set(RUNS.iterdir())
    _run(*arguments)
    (made,) = set(RUNS.iterdir()) - before
    return made


def _run(*arguments: str, stdout: BinaryIO | None = None) -> None:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    subprocess.run(command, cwd=readme.ROOT, stdout=stdout, check=True)


if __name__ == "__main__":
    sys.exit(readme.main([str(folder) for folder in record()]))
