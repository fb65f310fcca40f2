"""Load that is offered: what a client that runs elsewhere needs to have with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from distributed.protocol import pickle

from benchmarks.harness.generator import generate
from benchmarks.harness.load import shipped_by_value

WITHOUT_THE_RULER = """
import importlib.util, pickle, sys
assert importlib.util.find_spec("benchmarks") is None, "this interpreter can import the ruler, so it proves nothing"
(task,) = pickle.loads(sys.stdin.buffer.read())
try:
    task()
except TypeError as error:
    assert "missing" in str(error) and "generate" in str(error), error
else:
    raise AssertionError("generate() without arguments did not complain of them")
"""


def test_a_load_task_needs_no_import_of_the_ruler(tmp_path: Path) -> None:
    """asv loads the ruler by an importer of its own: workers cannot, and died of a task that named it."""
    payload = pickle.dumps([shipped_by_value(generate)])
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_RULER], input=payload, cwd=tmp_path, capture_output=True, check=False
    )
    assert loaded.returncode == 0, loaded.stderr.decode()


def test_by_reference_it_would_not_load(tmp_path: Path) -> None:
    """The check above can fail: this is what Dask makes of the function as it stands."""
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_RULER],
        input=pickle.dumps([generate]),  # within a graph, as it travels
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert b"No module named 'benchmarks'" in loaded.stderr
