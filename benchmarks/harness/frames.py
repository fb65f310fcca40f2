"""Recorded results as pandas frames with one set of columns, whichever front door measured them: one call each.

A row is a trial. Its columns are the keys of trial lines (results/README.md), units at the end of their names, behind
`SOURCE_COLUMNS` and before `ASV_COLUMNS`; they are the same for no rows at all. What does not apply is `<NA>`.
`status` tells `ok`, `not_applicable`, `resource_missing` and `failed` apart, and `trusted` is false where a trial
distrusts itself: nothing is dropped, so select before you plot. Whole numbers, figures, truth values and words are
`Int64`, `Float64`, `boolean` and `string`, all of which can lack a value; a column that takes one of a few known words
is categorical, in their order (`durability` from the least that is survived to the most).
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import failure_outcomes, failure_tables
from benchmarks.harness.cells import Status
from benchmarks.harness.failure_figures import FIGURES, FaultFigures, aggregate
from benchmarks.harness.generator import Retry
from benchmarks.harness.load import Arrivals
from benchmarks.harness.records import RunError, Trial, read_all, trial_of
from strategies.interface import Caller, Durability, Fault

if TYPE_CHECKING:
    import pandas as pd

RUN, ASV, PYTEST_BENCHMARK = "run", "asv", "pytest_benchmark"

SOURCE_COLUMNS = {"source": "str", "run": "str", "commit": "str", "row": "str"}
"""`source`: which front door measured it; `run`: the name of the run's folder, or of the file; `row`: strategy:variant,
as tables show it."""

ASV_COLUMNS = {
    "seconds_per_call": "float",
    "open_s": "float",
    "bytes_per_account": "float",
    "trials_never_recovered": "int",
}
"""Figures that asv keeps and a trial line has not."""

_OTHERWISE = {"never_recovered": "trials_never_recovered"}
"""asv's name of a figure, and its column."""

TRIAL_COLUMNS = {each.name: str(each.type).removesuffix(" | None") for each in fields(Trial)}
COLUMNS = SOURCE_COLUMNS | TRIAL_COLUMNS | ASV_COLUMNS
"""Every column, with its type as Python has it."""

_DTYPES = {"str": "string", "int": "Int64", "float": "Float64", "bool": "boolean"}

_KNOWN: Mapping[str, Sequence[str]] = {
    "source": (RUN, ASV, PYTEST_BENCHMARK),
    "status": list(Status),
    "caller": list(Caller),
    "arrivals": list(Arrivals),
    "durability": list(Durability),
    "latency_kind": ("service", "response"),
    "fault": list(Fault),
    "retry": list(Retry),
    "linearizable": ("yes", "no", "unknown"),
    "verdict": ("as_claimed", "better_than_claimed", "worse_than_claimed", "unknown"),
}
"""Words of categorical columns. Others that a later program wrote come behind these."""

_ASV_SKIPPED = "skipped: asv does not keep whether it was not applicable or lacked a resource"

_NO_TRIALS = "no trials: pytest-benchmark does not keep whether a test was skipped or failed"


def load_runs(*folders: Path | str) -> pd.DataFrame:
    """The trials of these runs. Warns of what had to be left out: a damaged line costs its own trial.

    Raises:
        RunError: one of them is no run's folder, or from a newer format.
    """
    rows: list[Mapping[str, Any]] = []
    for folder in map(Path, folders):
        contents = read_all(folder)
        for each in contents.damage:
            warnings.warn(each, stacklevel=2)
        about = {"source": RUN, "run": folder.resolve().name, "commit": contents.about.get("commit")}
        rows += [_of_trial(trial, about) for trial in contents.trials]
    return _frame(rows)


def load_pytest_benchmark(file: Path | str) -> pd.DataFrame:
    """The trials that `make pytest-benchmark` keeps beside its own timings, which are of whole trials, warm-up and all.

    A benchmark without trials was skipped or failed: a row without `status`.

    Raises:
        RunError: it is no file of pytest-benchmark's, or of other tests than tests/performance.
    """
    file = Path(file)
    found = _json(file)
    rows: list[Mapping[str, Any]] = []
    try:
        about = {"source": PYTEST_BENCHMARK, "run": file.stem, "commit": found["commit_info"].get("id")}
        for each in found["benchmarks"]:
            for kept in each["extra_info"].get("trials", ()):
                trial = trial_of(kept)
                if isinstance(trial, str):
                    warnings.warn(f"{file}: a trial of {each['name']} was left out ({trial})", stacklevel=2)
                else:
                    rows.append(_of_trial(trial, about))
            if "trials" not in each["extra_info"]:
                row, what, caller = each["param"].rsplit("-", 2)
                cell = {"strategy": row, "fault" if what in list(Fault) else "workload": what, "caller": caller}
                rows.append({**about, **_named(cell), "reason": _NO_TRIALS})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} is not of `make pytest-benchmark`: {type(error).__name__}: {error}") from error
    return _frame(rows)


def load_asv(folder: Path | str) -> pd.DataFrame:
    """What asv measured, on all machines and commits below `folder`: a row for each sample of a cell.

    asv keeps samples figure by figure, without those of trials that have no such figure: where one has fewer than
    another, a row's figures may be of different trials, and the rows without it are not those that lacked it. Of cells
    around a fault it keeps medians: one row, without `repeat`. What it skipped has no `status`, because asv does not
    keep why; what failed is `failed`. It knows no durability, clients or seed.

    Raises:
        RunError: it is not asv's folder of results.
    """
    folder = Path(folder)
    benchmarks = {name: each for name, each in _json(folder / "benchmarks.json").items() if isinstance(each, dict)}
    rows: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "machine.json":
            continue
        try:
            rows += _of_asv(path, benchmarks)
        except RunError as error:
            warnings.warn(f"{error}; it was left out", stacklevel=2)
    return _frame(rows)


def load_failures(source: Path | str) -> pd.DataFrame:
    """Cells around a fault over all their trials: of the published table (results/failures.json), or of a run.

    A row is a cell: the keys of the table's lines, `outcome` in words as the published tables have it, and each figure
    as its median with the ends of its 95 % interval (`recovery_s`, `recovery_s_low`, `recovery_s_high`).

    Raises:
        RunError: it is neither.
    """
    import pandas as pd

    source = Path(source)
    if source.is_dir():
        contents = read_all(source)
        for damage in contents.damage:
            warnings.warn(damage, stacklevel=2)
        cells: Sequence[FaultFigures] = aggregate(contents.trials)
    else:
        table = failure_tables.read(source)
        if table is None:
            raise RunError(f"{source} is neither a run's folder nor a published failure table")
        cells = table.cells
    columns: dict[str, Any] = {"row": pd.array([cell.row for cell in cells], dtype="string")}
    for each in fields(FaultFigures):
        kind = str(each.type).removesuffix(" | None")
        if kind in _DTYPES:
            columns[each.name] = _column(each.name, kind, [getattr(cell, each.name) for cell in cells])
    columns["outcome"] = pd.array([failure_outcomes.outcome(cell) for cell in cells], dtype="string")
    for name in FIGURES:
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            values = [getattr(cell.figures[name], end) if name in cell.figures else None for cell in cells]
            columns[name + suffix] = pd.array(values, dtype="Float64")
    return pd.DataFrame(columns)


def plain(name: str, values: Sequence[Any]) -> Any:
    """A column of trial lines as a pandas array that can lack a value, without categories."""
    import pandas as pd

    return pd.array(  # type: ignore[call-overload]
        [_encodable(value) for value in values], dtype=_DTYPES[COLUMNS[name]]
    )


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: _column(name, kind, [row.get(name) for row in rows]) for name, kind in COLUMNS.items()})


def _column(name: str, kind: str, values: Sequence[Any]) -> Any:
    """Its type depends on its name alone, and not on what is in it."""
    import pandas as pd

    if name in _KNOWN:
        known = [str(word) for word in _KNOWN[name]]
        words = [None if value is None else _encodable(str(value)) for value in values]
        others = sorted({word for word in words if word is not None} - set(known))
        return pd.Categorical(words, categories=[*known, *others], ordered=name == "durability" and not others)
    return pd.array([_encodable(value) for value in values], dtype=_DTYPES[kind])  # type: ignore[call-overload]


def _encodable(value: Any) -> Any:
    """JSON can hold half a surrogate pair, as Python has it for a byte of a file's name; no table can."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _of_trial(trial: Trial, about: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**vars(trial), **about, "row": trial.row}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds no object")
    return found


# -- asv -------------------------------------------------------------------------------------------


def _of_asv(path: Path, benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of one file: one machine, commit and environment."""
    found = _json(path)
    about = {"source": ASV, "run": f"{path.parent.name}/{path.stem}"}
    cells: dict[tuple[tuple[str, str], ...], dict[str, Sequence[float] | float | None]] = {}
    try:
        about["commit"] = found["commit_hash"]
        for benchmark, values in found["results"].items():
            kept = dict(zip(found["result_columns"], values, strict=False))  # nulls at the end are left out
            figure = benchmark.rpartition(".")[2].removeprefix("track_")
            figure = _OTHERWISE.get(figure, figure)
            about_it = benchmarks.get(benchmark)
            if about_it is None or figure not in COLUMNS or about_it["version"] != kept.get("version"):
                continue  # of another ruler, as `asv publish` sees it, or a figure that no column is for
            combinations = list(itertools.product(*(kept["params"] or ())))
            for place, chosen in enumerate(combinations):
                key = tuple(zip(about_it["param_names"], map(_literal, chosen), strict=True))
                cells.setdefault(key, {})[figure] = _asv_figure(kept, place)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(f"{path} is not of asv: {type(error).__name__}: {error}") from error
    rows: list[Mapping[str, Any]] = []
    for key, figures in cells.items():
        rows += [about | _named(dict(key)) | row for row in _asv_rows(figures)]
    return rows


def _literal(written: str) -> str:
    """Parameters are kept as Python writes them."""
    return str(ast.literal_eval(written))


def _asv_figure(kept: Mapping[str, Any], place: int) -> Sequence[float] | float | None:
    """Samples, or one figure for the cell; None if it failed, NaN if it was skipped or no trial can tell."""
    value = None if kept["result"] is None else kept["result"][place]
    samples = (kept.get("samples") or {}) and kept["samples"][place]
    if value is None or not samples:
        return None if value is None else float(value)
    return [float(sample) for sample in samples]


def _asv_rows(figures: Mapping[str, Sequence[float] | float | None]) -> Iterable[dict[str, Any]]:
    known: dict[str, list[float]] = {}
    for name, value in figures.items():
        values = [] if value is None else list(value) if isinstance(value, Sequence) else [value]
        known[name] = [each for each in values if math.isfinite(each)]
    trials = max(map(len, known.values()))
    if not trials:
        failed = None in figures.values()
        return [{"status": Status.FAILED if failed else None, "reason": None if failed else _ASV_SKIPPED}]
    sampled = any(isinstance(value, Sequence) for value in figures.values())
    return [
        {"status": Status.OK, "repeat": repeat if sampled else None}
        | {name: _whole(name, values[repeat]) for name, values in known.items() if repeat < len(values)}
        for repeat in range(trials)
    ]


def _whole(name: str, value: float) -> float | int:
    return int(value) if COLUMNS[name] == "int" and value == int(value) else value


def _named(parameters: Mapping[str, str]) -> dict[str, str]:
    strategy, _, variant = parameters["strategy"].partition(":")
    return {**parameters, "row": parameters["strategy"], "strategy": strategy, "variant": variant}
