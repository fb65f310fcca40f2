"""Finding strategies: by walking, by file, lazily."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import strategies
from strategies.interface import Accounts, UnknownStrategy, load, names

_SOURCE = '''
from strategies.interface import Capabilities, Caller
from strategies.support.ledger import Ledger
from strategies.interface import Accounts


class Mine(Ledger, Accounts):
    """One that a user wrote."""

    capabilities = Capabilities(callers=frozenset({Caller.DRIVER}))

    @classmethod
    def open(cls, context):
        return cls()

    def close(self):
        pass


class NotAStrategy:
    pass
'''


@pytest.fixture
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("users_"):
            del sys.modules[name]


def test_names_are_those_of_the_modules_in_the_package() -> None:
    (folder,) = strategies.__path__
    files = sorted(path.stem for path in Path(folder).glob("*.py") if path.stem != "__init__")
    assert names() == files
    assert files


@pytest.mark.parametrize("name", names())
def test_every_name_loads_one_strategy_of_that_name(name: str) -> None:
    found = load(name)
    assert issubclass(found, Accounts)
    assert found.name == name
    assert found.__doc__
    assert not getattr(found, "__abstractmethods__", None)
    assert load(name) is found


def test_an_unknown_name_suggests_the_nearest() -> None:
    known = names()[0]
    with pytest.raises(UnknownStrategy, match=known):
        load(known[:-1] + "_")
    with pytest.raises(UnknownStrategy) as caught:
        load("zzzzzzzzzzzz")
    assert all(name in str(caught.value) for name in names())
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize(
    "name", ["", "interface", "support", "strategies", "__init__", ".", "interface.account", "../x"]
)
def test_what_is_no_strategy_is_unknown(name: str) -> None:
    with pytest.raises(UnknownStrategy):
        load(name)


def test_a_class_in_a_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_modules: None) -> None:
    (tmp_path / "users_own.py").write_text(_SOURCE)
    monkeypatch.chdir(tmp_path)
    found = load("users_own.py:Mine")
    assert found.name == "users_own"
    assert load(f"{tmp_path}/users_own.py:Mine") is found
    assert found().open_account("a", 1)[:2] == (1, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_missing.py:Mine", "no file"),
        ("users_other.py:Nothing", "Nothing"),
        ("users_other.py:NotAStrategy", "NotAStrategy"),
        ("users_other.py:", "Accounts"),
        ("users_other.py", "users_other"),
    ],
)
def test_what_is_not_in_a_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_modules: None, name: str, message: str
) -> None:
    (tmp_path / "users_other.py").write_text(_SOURCE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownStrategy, match=message):
        load(name)


def test_a_users_file_with_the_name_of_another_module(tmp_path: Path, forget_modules: None) -> None:
    (tmp_path / "json.py").write_text(_SOURCE)
    import json

    with pytest.raises(UnknownStrategy, match="rename"):
        load(f"{tmp_path}/json.py:Mine")
    assert sys.modules["json"] is json


def test_a_users_file_that_cannot_be_loaded_can_be_repaired(tmp_path: Path, forget_modules: None) -> None:
    path = tmp_path / "users_broken.py"
    path.write_text("raise RuntimeError('half written')")
    with pytest.raises(UnknownStrategy, match="half written"):
        load(f"{path}:Mine")
    path.write_text(_SOURCE + "\n# repaired\n")
    assert load(f"{path}:Mine").name == "users_broken"


def test_looking_at_strategies_imports_no_backend() -> None:
    """`list` must be quick, and must work where a backend's package is not installed."""
    code = """
import sys
import strategies, strategies.interface
from strategies.interface import load, names
known = names()
imported = [module for module in sys.modules if module.startswith("strategies.") and module.split(".")[1] in known]
assert not imported, f"names() imported {imported}"
for name in known:
    for variant in load(name).capabilities.variants:
        load(name).claims(variant)
backends = {"redis", "distributed", "dask", "tornado", "numpy", "cloudpickle", "benchmarks"}
print(*sorted({module.partition(".")[0] for module in sys.modules} & backends))
"""
    root = Path(strategies.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
