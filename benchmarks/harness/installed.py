"""What must be installed for a strategy beyond what every Dask program of this project has, in megabytes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.harness import java, servers
from benchmarks.harness.servers import Server
from strategies.interface import Capabilities

_PROJECT = "dask-state-bench"
_MB = 1e6
_PREFIXES = frozenset({Path("/"), Path("/usr"), Path("/usr/local"), Path("/opt")})
"""Where many programs share a `bin`."""


def megabytes(claims: Capabilities) -> float:
    """Of the packages, programs and jars that a strategy with these claims needs and the base has not.

    What a store keeps its data in counts where the harness brings it; what the system's own packages need besides
    (a C library) does not.
    """
    kind = servers.kind_for(claims)
    return 0.0 if kind is None else round(_of_kind(kind) / _MB, 2)


@cache
def _of_kind(kind: type[Server]) -> int:
    """Bytes; each file once."""
    base = _with_dependencies(_requirements(None))
    packages = _with_dependencies(_requirements(kind.extra)) - base if kind.extra else set()
    files = {path for package in packages for path in _files(package)}
    program = kind.find_program().resolve()
    owner = _owner(program)
    files |= set(_files(owner)) if owner and owner not in base else _program_files(program)
    files |= set(_below(java.JARS / kind.resource))
    return sum(path.stat().st_size for path in files if path.is_file())


def _requirements(extra: str | None) -> list[Requirement]:
    """What the project asks for with this extra alone, or without any."""
    found = []
    for line in metadata.requires(_PROJECT) or ():
        requirement = Requirement(line)
        plain = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        wanted = requirement.marker is not None and requirement.marker.evaluate({"extra": extra or ""})
        if (wanted and not plain) if extra else plain:
            found.append(requirement)
    return found


def _with_dependencies(requirements: Iterable[Requirement]) -> set[str]:
    """Names of all packages that are installed for these."""
    found: set[str] = set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in found and not requirement.extras:
            continue
        try:
            further = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue  # not for this platform
        found.add(name)
        for each in map(Requirement, further):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(each)
    return found


@cache
def _files(package: str) -> tuple[Path, ...]:
    return tuple(Path(str(path.locate())).resolve() for path in metadata.files(package) or ())


def _owner(program: Path) -> str | None:
    """The installed package that brought this program."""
    for distribution in metadata.distributions():
        for path in distribution.files or ():
            if path.name == program.name and Path(str(path.locate())).resolve() == program:
                return canonicalize_name(distribution.metadata["Name"])
    return None


def _program_files(program: Path) -> set[Path]:
    """With the folder that it came in, where it has one of its own, as a Java runtime has."""
    home = program.parent.parent
    return {program} if program.parent.name != "bin" or home in _PREFIXES else set(_below(home))


def _below(folder: Path) -> Iterable[Path]:
    """Its files, links not followed: each counts where it is."""
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
