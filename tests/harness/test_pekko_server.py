"""The Pekko service of the harness's own: one node or two, on loopback, in a directory that goes with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.harness import java
from benchmarks.harness.pekko_server import PekkoServer
from benchmarks.harness.servers import ResourceError, ServerFailed, ServerMissing
from strategies.interface import Durability
from strategies.support.pekko_link import addresses
from tests.harness.commands import is_alive

ROOT = Path(__file__).resolve().parents[2]

missing = PekkoServer.missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(scope="module")
def two() -> Iterator[PekkoServer]:
    with PekkoServer(Durability.PROCESS_CRASH, nodes=2) as started:
        yield started


def test_all_ports_are_on_loopback(two: PekkoServer) -> None:
    for pid in two.pids:
        listening = [
            each.laddr for each in psutil.Process(pid).net_connections(kind="inet") if each.status == psutil.CONN_LISTEN
        ]
        assert len(listening) == 2
        assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert len(addresses(two.url)) == len(two.pids) == 2


def test_a_fault_strikes_the_oldest_node_and_a_start_brings_it_back_where_it_was(two: PekkoServer) -> None:
    url, (oldest, other) = two.url, two.pids
    assert two.pid == oldest
    two.kill()
    assert not two.runs
    assert two.pids == [other]
    assert PekkoServer.durability_of(url) is None, "the other one answers"
    two.start()
    assert two.url == url
    assert two.runs
    assert two.pid == other, "it is the oldest now"


def test_a_paused_node_is_there_but_silent(two: PekkoServer) -> None:
    two.pause()
    assert two.runs
    with pytest.raises(OSError, match="timed out"):
        two._is_ready(two._ports[two.oldest])
    two.resume()
    assert two._all_answer()


def test_stopping_leaves_neither_process_nor_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with PekkoServer(Durability.PROCESS_CRASH) as server:
        process = psutil.Process(server.pid)
        assert list(tmp_path.iterdir())
    assert not process.is_running()
    assert list(tmp_path.iterdir()) == []
    server.stop()


def test_it_dies_with_its_parent() -> None:
    """Also where the parent is given no chance to stop it."""
    script = (
        "import time\n"
        "from benchmarks.harness.pekko_server import PekkoServer\n"
        "from strategies.interface import Durability\n"
        "server = PekkoServer(Durability.PROCESS_CRASH)\n"
        "server.start()\n"
        "print(server.pid, server._directory, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid, directory = parent.stdout.readline().split()
            server = psutil.Process(int(pid))
            parent.kill()
            parent.wait()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and is_alive(server):
                time.sleep(0.02)
            assert not is_alive(server)
        finally:
            parent.kill()
            with suppress(NameError, psutil.NoSuchProcess):
                server.kill()
    shutil.rmtree(directory)


@pytest.mark.parametrize("of_nodes", [False, True], ids=["for clients", "for the other node"])
def test_a_port_that_is_taken_is_named(of_nodes: bool) -> None:
    with PekkoServer(Durability.PROCESS_CRASH) as server:
        server.kill()
        (port,) = server._ports_of_nodes if of_nodes else server._ports
        with socket.create_server(("127.0.0.1", port)), pytest.raises(ServerFailed, match="did not start") as raised:
            server.start()
        assert str(port) in str(raised.value)


def test_a_program_that_is_no_java_is_an_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    program = tmp_path / "no-java"
    program.write_text("#!/bin/sh\necho this is no Java >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(PekkoServer, "find_program", classmethod(lambda _: program))
    with pytest.raises(ServerFailed, match="this is no Java"), PekkoServer(Durability.PROCESS_CRASH):
        pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_missing_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(java, "JARS", tmp_path)
    assert "make java" in str(PekkoServer.missing())
    with pytest.raises(ServerMissing, match="make java"):
        PekkoServer(Durability.PROCESS_CRASH)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "pekko://127.0.0.1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ResourceError, match="--pekko-url"):
        PekkoServer.durability_of(url)


def test_a_service_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ResourceError, match=f"127.0.0.1:{port} cannot be used.*check --pekko-url"):
        PekkoServer.durability_of(f"pekko://127.0.0.1:{port}")
