"""The code's own layout: what may import what, where strategies live, and what nobody keeps by hand."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from strategies.interface import Accounts, Resource, load, names

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = sorted((ROOT / "strategies").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
NAMING = {ROOT / "benchmarks" / "harness" / "baselines.py"}
"""Modules of the ruler that may name strategies: each baseline is the bare form of one."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """Absolute names of modules that are imported anywhere in it, functions' bodies included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def test_there_is_something_to_check() -> None:
    assert len(STRATEGIES) > 10
    assert len(BENCHMARKS) > 10


# -- the measured and the ruler --------------------------------------------------------------------


@pytest.mark.parametrize("path", STRATEGIES, ids=relative)
def test_strategies_do_not_import_the_ruler(path: Path) -> None:
    """asv installs an old commit's strategies and measures them with today's ruler."""
    roots = {module.partition(".")[0] for module in imported(parsed(path))}
    assert not roots & {"benchmarks", "tests"}


@pytest.mark.parametrize("path", BENCHMARKS, ids=relative)
def test_the_ruler_names_no_strategy(path: Path) -> None:
    """Claims decide. A name in the ruler is a special case that the next strategy does not get."""
    if path in NAMING:
        pytest.skip("baselines are the bare forms of strategies, by name")
    tree = parsed(path)
    products = {path.stem.removesuffix("_server")} if path.stem.endswith("_server") else set()
    strangers = set(names()) - products  # a strategy may be called as the product is that it keeps its state in
    named = {
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition(":")[0] in strangers
    }
    assert not named
    assert not {module for module in imported(tree) if module.removeprefix("strategies.").partition(".")[0] in names()}


@pytest.mark.parametrize("path", [path for path in BENCHMARKS if path.parent.name == "harness"], ids=relative)
def test_the_harness_knows_nothing_of_its_front_doors(path: Path) -> None:
    """asv, pytest and the command line come in through it, not the other way round."""
    outside = {module for module in imported(parsed(path)) if module.partition(".")[0] in ("benchmarks", "tests")}
    assert all(module.startswith("benchmarks.harness") for module in outside), outside


# -- strategies ------------------------------------------------------------------------------------


def test_every_module_directly_in_strategies_is_a_strategy() -> None:
    found = sorted(path.stem for path in (ROOT / "strategies").glob("*.py") if path.name != "__init__.py")
    assert found == names()


@pytest.mark.parametrize("name", names())
def test_every_strategy_loads(name: str) -> None:
    kind = load(name)
    assert issubclass(kind, Accounts)
    assert kind.name == name
    assert not getattr(kind, "__abstractmethods__", None)
    variants = kind.capabilities.variants
    assert variants
    assert len(set(variants)) == len(variants)
    assert all(
        re.fullmatch(r"[a-z0-9_]+", variant) for variant in variants
    )  # they are parts of names on a command line
    for variant in variants:
        assert kind.claims(variant).callers, "nobody may call it"


def test_no_list_of_strategies_is_kept_by_hand() -> None:
    """The registry walks the package: nothing else has to be edited for a new file."""
    for path in (ROOT / "strategies").rglob("*.py"):
        if path.parent == ROOT / "strategies" and path.stem in names():
            continue
        constants = {node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant)}
        assert not constants & (set(names()) - set(Resource)), relative(path)  # some are called as what they need


# -- every module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STRATEGIES + BENCHMARKS, ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path))
    assert docstring, "the first statement is a docstring"
    first = docstring.splitlines()[0]
    assert first.strip()
    assert first[-1] in ".?!:", first


def test_importing_the_ruler_does_nothing(tmp_path: Path) -> None:
    """asv imports every module below benchmarks/ in many processes: no output, file, thread, process or socket."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in BENCHMARKS]
    script = (
        "import importlib, json, sys, threading\n"
        "for module in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(module)\n"
        "import psutil\n"
        "process = psutil.Process()\n"
        "print(json.dumps([threading.active_count(), len(process.children()), len(process.net_connections())]))\n"
    )
    environment = dict(
        os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(tmp_path), HOME=str(tmp_path)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, json.dumps(modules)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [1, 0, 0]  # and nothing else was printed
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "dask" not in path.parts[-2]]


# -- packaging -------------------------------------------------------------------------------------


def test_only_strategies_are_installed() -> None:
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("there is no pyproject.toml yet")
    settings = tomllib.loads(path.read_text())
    project = settings["project"]
    assert project["name"] == "dask-state-bench"
    needed = [
        *project.get("dependencies", []),
        *(each for extra in project.get("optional-dependencies", {}).values() for each in extra),
    ]
    assert needed
    assert not [each for each in needed if "://" in each or " @ " in each]
    packages = settings.get("tool", {}).get("setuptools", {}).get("packages", {})
    listed = packages if isinstance(packages, list) else packages.get("find", {}).get("include", [])
    if listed:
        assert all(each.split(".")[0].rstrip("*") == "strategies" for each in listed), listed


def test_constraints_are_pins_and_nothing_else() -> None:
    paths = [*ROOT.glob("constraints*.txt"), *ROOT.glob("requirements*.txt")]
    if not paths:
        pytest.skip("there are no constraints yet")
    for path in paths:
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
        pins = [line for line in lines if line]
        assert pins, relative(path)
        for line in pins:
            assert "://" not in line, f"{relative(path)}: {line}"
            assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[\w.!+]+\s*(;.*)?$", line), (
                f"{relative(path)}: {line}"
            )
