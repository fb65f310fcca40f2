"""CONTRIBUTING.md's example is what it says: one file, short, and the contract suite runs on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 59
FEWEST_PASSED = 150


def example() -> tuple[str, str]:
    """Its file's name, and its text."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    name = re.search(r"all of\n?\s*`strategies/(\w+\.py)`", text)
    code = re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert name is not None
    assert code is not None
    return name[1], code[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This repository with one file more."""
    for folder in ("strategies", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, code = example()
    (tmp_path / "strategies" / name).write_text(code)
    return tmp_path


def run(checkout: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_short() -> None:
    assert len(example()[1].splitlines()) <= LINES_MAX


def test_it_is_formatted_and_typed_as_the_rest_is(checkout: Path) -> None:
    path = str(checkout / "strategies" / example()[0])
    run(checkout, "ruff", "format", "--check", path)
    run(checkout, "mypy", path)


@pytest.mark.timeout(300)
def test_the_contract_suite_runs_on_it(checkout: Path) -> None:
    name = example()[0].removesuffix(".py")
    said = run(checkout, "pytest", "-q", "--benchmark-disable", "-p", "no:cacheprovider", "tests/contract", "-k", name)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) >= FEWEST_PASSED
