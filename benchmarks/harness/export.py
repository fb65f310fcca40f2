"""Trial lines as one table in a file: CSV for any program, Parquet with the types kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import frames
from benchmarks.harness.records import RunError, read_all, write_atomically


def write(folders: Sequence[Path], target: Path) -> list[str]:
    """All trials of these runs, a row each: the run's name, then a column per key. Returns what had to be left out.

    An older file of this name is replaced once the new one is whole. A key that does not apply is empty in CSV and
    null in Parquet.

    Raises:
        RunError: a run cannot be read, or the file cannot be written.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise RunError(f"{target} must end in .csv or .parquet, which says what is written")
    frame, damage = _frame(folders)
    if target.suffix == ".csv":
        data = frame.to_csv(index=False, lineterminator="\n").encode()
    else:
        data = frame.to_parquet(engine="pyarrow", index=False)
    try:
        write_atomically(target, data)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}") from error
    return damage


def _frame(folders: Sequence[Path]) -> tuple[Any, list[str]]:
    import pandas as pd

    runs, trials, damage = [], [], []
    for folder in folders:
        contents = read_all(folder)
        runs += [folder.resolve().name] * len(contents.trials)
        trials += contents.trials
        damage += contents.damage
    columns = {"run": frames.plain("run", runs)}
    columns |= {name: frames.plain(name, [getattr(trial, name) for trial in trials]) for name in frames.TRIAL_COLUMNS}
    return pd.DataFrame(columns), damage
