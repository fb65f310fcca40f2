"""How much code a strategy is: its module, what it shares with others, and the least that a caller must write.

Counted by lizard: lines without blanks, comments and docstrings, and McCabe's cyclomatic complexity, the number of ways
through each function, added up. What a strategy holds in another language, such as a script for its server, is a string
to it: it counts as lines and as no way.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strategies.support
from benchmarks.harness import servers
from benchmarks.harness.book_columns import IN_DASK
from strategies.interface import Accounts, Capabilities, Resource

_SHARED = f"{strategies.support.__name__}."


@dataclass(frozen=True)
class Code:
    """Of one or several files."""

    lines: int
    complexity: int
    """Cyclomatic, of all functions together; at least 1, which is a program without a branch."""


@dataclass(frozen=True)
class CodeOfStrategy:
    """What had to be written."""

    own: Code
    """Its module."""
    shared: Code
    """What of `strategies.support` it imports, directly or not."""
    caller: Code
    """The least program that uses it."""


def of_strategy(kind: type[Accounts], variant: str) -> CodeOfStrategy:
    """Of a strategy's module as it is on disk."""
    source = inspect.getsourcefile(kind)
    assert source is not None
    return CodeOfStrategy(
        own=of_files([Path(source)]),
        shared=of_files(shared_by(Path(source))),
        caller=of_text(program(kind, variant)),
    )


def of_files(paths: Iterable[Path]) -> Code:
    """All of these together."""
    return _sum(of_text(path.read_text()) for path in paths)


def of_text(source: str) -> Code:
    """Of Python source."""
    import lizard  # not where only results are read

    found: Any = lizard.analyze_file.analyze_source_code("source.py", source)
    return Code(found.nloc, max(1, sum(each.cyclomatic_complexity for each in found.function_list)))


def shared_by(path: Path) -> list[Path]:
    """The modules of `strategies.support` that this one needs, and those that they need; sorted."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        for name in _imported(todo.pop()):
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin and (origin := Path(spec.origin)) not in found:
                found.add(origin)
                todo.append(origin)
    return sorted(found)


def context_fields(claims: Capabilities) -> dict[str, str]:
    """The fields of a `Context` that a caller must fill, with what is written there."""
    fields = {}
    if claims.needs & IN_DASK:
        fields["client"] = "Client(scheduler)"
    if Resource.DIRECTORY in claims.needs:
        fields["directory"] = "directory"
    kind = servers.kind_for(claims)
    if kind is not None:
        fields[kind.url_field] = "url"
    if len(claims.variants) > 1:
        fields["variant"] = "variant"
    return fields


def program(kind: type[Accounts], variant: str) -> str:
    """The least program that opens an account and changes it safely. It finds what is its user's in variables."""
    fields = context_fields(kind.claims(variant))
    arguments = ", ".join(f"{name}={value}" for name, value in fields.items())
    lines = ["from distributed import Client"] if "client" in fields else []
    lines += [
        "from strategies.interface import Context, load",
        f"with load({kind.name!r}).open(Context({arguments})) as accounts:",
        '    accounts.open_account("alice", 100, op_id=(session, 1))',
        '    accounts.deposit("alice", 20, op_id=(session, 2))',
    ]
    return "\n".join(lines) + "\n"


def _imported(path: Path) -> list[str]:
    """Modules of `strategies.support` that are imported anywhere in this file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += inner if f"{node.module}." == _SHARED else [node.module]
    return [name for name in found if name.startswith(_SHARED)]


def _sum(codes: Iterable[Code]) -> Code:
    found = list(codes)
    return Code(sum(each.lines for each in found), sum(each.complexity for each in found))
