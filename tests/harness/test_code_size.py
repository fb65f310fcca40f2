"""Lines and ways of code are counted as said, and the least program that uses a strategy is one that works."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.harness import code_size
from benchmarks.harness.book_columns import IN_DASK
from benchmarks.harness.code_size import Code
from strategies.interface import Context, Resource, load, names

_NOT_COUNTED = '''"""A module's docstring,
of two lines."""

import os


def branching(values):
    """What it does, in words."""
    # A comment.
    if values and os.name:
        return [value for value in values if value]
    return values
'''


def test_comments_docstrings_and_blank_lines_are_no_code() -> None:
    assert code_size.of_text(_NOT_COUNTED).lines == 5


def test_a_branch_is_a_way_more() -> None:
    straight = "def straight(values):\n    return values\n"
    one = "def one(values):\n    if values:\n        return values\n    return None\n"
    assert code_size.of_text(straight).complexity == 1
    assert code_size.of_text(one).complexity == 2
    assert code_size.of_text(straight + one) == Code(6, 3)


def test_what_is_shared_is_followed_and_counted_once() -> None:
    support = Path(code_size.strategies.support.__file__).parent
    for name in names():
        path = Path(load(name).__module__.replace(".", "/")).with_suffix(".py")
        found = code_size.shared_by(path)
        assert len(set(found)) == len(found)
        assert {each.parent for each in found} <= {support}
        for each in found:  # whatever these import is there too
            assert set(code_size.shared_by(each)) <= set(found)


@pytest.mark.parametrize("name", names())
def test_the_least_program_fills_the_context_with_what_is_needed(name: str) -> None:
    kind = load(name)
    for variant in kind.capabilities.variants:
        program = ast.parse(code_size.program(kind, variant))
        (call,) = (
            node
            for node in ast.walk(program)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Context"
        )
        given = {keyword.arg for keyword in call.keywords}
        needs = kind.claims(variant).needs
        assert given <= {field.name for field in fields(Context)}
        assert ("client" in given) is bool(needs & IN_DASK)
        assert len(given - {"variant"}) == len(needs)


def test_the_least_program_works(tmp_path: Path) -> None:
    """Of the strategies that need no more than files."""
    ran = 0
    for name in names():
        kind = load(name)
        for variant in kind.capabilities.variants:
            if kind.claims(variant).needs <= {Resource.DIRECTORY}:
                directory = tmp_path / f"{name}-{variant}"
                directory.mkdir()
                program = code_size.program(kind, variant).replace(
                    "Context(", f"Context(bank={f'least-{name}-{variant}'!r}, "
                )
                found: dict[str, object] = {"directory": directory, "variant": variant, "session": "s"}
                exec(program + '    receipt = accounts.balance("alice")\n', found)
                assert found["receipt"][:2] == (2, 120)  # type: ignore[index]
                ran += 1
    assert ran >= 3
