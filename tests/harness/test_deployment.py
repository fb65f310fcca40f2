"""What must be deployed is seen from outside, in a process of its own, for whatever kind of server there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.harness import deployment, installed, servers
from benchmarks.harness.book_columns import Column, column_of
from benchmarks.harness.complexity import Complexity
from benchmarks.harness.deployment import DeploymentFailed
from strategies.interface import Capabilities, Resource, load, names
from tests.harness.commands import ROOT

LOCAL = [name for name in names() if column_of(load(name).capabilities.needs) is Column.LOCAL]
BY_SERVER = [
    (name, variant)
    for name in names()
    for variant in load(name).capabilities.variants[:1]
    if load(name).claims(variant).needs == {Resource.REDIS}
]


@pytest.mark.parametrize("name", LOCAL)
def test_local_state_takes_nothing_more(name: str) -> None:
    found = deployment.trial(name, load(name).capabilities.variants[0])
    assert (found.processes, found.ports, found.dask_s, found.task_us_p50) == (0, 0, 0.0, None)
    assert 0 <= found.open_s <= found.first_ack_s
    assert found.call_us_p50 > 0


@pytest.mark.parametrize(("name", "variant"), BY_SERVER)
def test_a_server_is_a_process_that_listens_and_is_set(name: str, variant: str) -> None:
    found = deployment.trial(name, variant)
    assert found.processes == 1
    assert found.ports == 1
    assert found.settings > 5
    assert found.first_ack_s > found.open_s > 0


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "refuses_itself.py"
    path.write_text(
        "from strategies.driver_dict import DriverDict\n"
        "class Refuses(DriverDict):\n"
        "    @classmethod\n"
        "    def open(cls, context):\n"
        "        raise RuntimeError('not today')\n"
    )
    with pytest.raises(DeploymentFailed, match="not today"):
        deployment.trial(f"{path}:Refuses", "default")


def test_settings_are_options_and_lines_of_files_that_were_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = tmp_path / "server.cfg"
    made.write_text("# of the server\ntickTime=2000\n\nclientPort=1\n")
    elsewhere = tmp_path.parent / "not-its-own.cfg"
    elsewhere.write_text("a=1\n")
    server = SimpleNamespace(
        directory=tmp_path / "data", command=["program", "-Xmx64m", f"-Dconfig={made}", "--port", "1", str(elsewhere)]
    )
    assert deployment.settings_of(cast("Any", server)) == 3 + 2


def test_nothing_is_installed_for_what_needs_no_server() -> None:
    assert installed.megabytes(Capabilities()) == 0
    assert installed.megabytes(Capabilities(needs=frozenset({Resource.DASK, Resource.DIRECTORY}))) == 0


@pytest.mark.parametrize("resource", sorted(servers.kinds()))
def test_a_server_and_its_client_are_installed(resource: Resource) -> None:
    kind = servers.kinds()[resource]
    if kind.missing():
        pytest.skip(str(kind.missing()))
    assert installed.megabytes(Capabilities(needs=frozenset({resource}))) > 0.5


def test_the_command_says_where_its_figures_come_from() -> None:
    command = [sys.executable, "-m", "benchmarks", "complexity", "--strategy", LOCAL[0], "--repeats", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)
    assert {"commit", "machine", "versions", "command"} <= set(found)
    assert found["command"] == f"python -m benchmarks complexity --strategy {LOCAL[0]} --repeats 1"
    rows = [Complexity.of_record(row) for row in found["complexity"]]
    assert [row.strategy for row in rows] == [LOCAL[0]] * len(load(LOCAL[0]).capabilities.variants)
    assert all(row.figure("first_ack_s") and row.figure("bytes_per_account") for row in rows)
