"""The harness's own ZooKeeper servers: what a blow strikes, what comes back, and what they leave behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.harness import java, sync_watch
from benchmarks.harness.servers import ResourceError, ServerFailed, ServerMissing, addresses_of
from benchmarks.harness.zookeeper_server import ZookeeperServer
from strategies.interface import Durability
from tests.harness.commands import GONE_S, ROOT, is_alive

kazoo_client = pytest.importorskip("kazoo.client")

WATCHED = pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
READY_S = 2.0
"""On an idle machine."""


@pytest.fixture(autouse=True)
def need_program() -> None:
    if (lacking := ZookeeperServer.missing()) is not None:
        pytest.skip(lacking)


@contextmanager
def connected(server: ZookeeperServer) -> Iterator[kazoo_client.KazooClient]:
    client = kazoo_client.KazooClient(",".join(f"{host}:{port}" for host, port in addresses_of(server.url)))
    client.start()
    with closing(client):
        try:
            yield client
        finally:
            client.stop()


def command_lines(server: ZookeeperServer) -> list[str]:
    return [" ".join(psutil.Process(pid).cmdline()) for pid in server.pids]


@pytest.mark.parametrize(
    ("durability", "syncs"), [(Durability.PROCESS_CRASH, "no"), (Durability.POWER_LOSS, "yes")], ids=str
)
def test_a_killed_server_comes_back_on_its_data_and_port(durability: Durability, syncs: str) -> None:
    with ZookeeperServer(durability) as server:
        url, pid = server.url, server.pid
        assert all(f"-Dzookeeper.forceSync={syncs}" in line for line in command_lines(server))
        with connected(server) as client:
            client.create("/kept", b"value")
        server.kill()
        assert not server.runs
        server.start()
        assert (server.url, server.runs) == (url, True)
        assert server.pid != pid
        with connected(server) as client:
            assert client.get("/kept")[0] == b"value"


def test_an_ensemble_listens_on_loopback_only_and_goes_on_without_its_leader() -> None:
    with ZookeeperServer(Durability.REPLICATED, nodes=3) as server:
        pids, leader, url = server.pids, server.pid, server.url
        assert len(set(pids)) == len(addresses_of(url)) == 3
        for pid in pids:
            connections = psutil.Process(pid).net_connections(kind="inet")
            listening = {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
            assert listening == {"127.0.0.1"}
        with connected(server) as client:
            client.create("/before", b"")
        server.kill()
        assert not server.runs
        assert [is_alive(psutil.Process(pid)) for pid in pids if pid != leader] == [True, True]
        deadline = time.monotonic() + 20
        while server.pid == leader or not psutil.Process(server.pid).is_running():
            assert time.monotonic() < deadline, "nobody was elected"
            time.sleep(0.02)
        with connected(server) as client:
            client.create("/meanwhile", b"")
        server.start()
        assert server.runs
        assert server.url == url
        assert len(set(server.pids) - set(pids)) == 1
        with connected(server) as client:
            assert {"before", "meanwhile"} <= set(client.get_children("/"))


def test_a_paused_server_can_go_on_and_can_be_stopped() -> None:
    with ZookeeperServer(Durability.PROCESS_CRASH) as server:
        process = psutil.Process(server.pid)
        server.pause()
        assert server.runs
        server.resume()
        with connected(server) as client:
            assert client.exists("/")
        server.pause()
    assert not process.is_running()


@WATCHED
def test_what_was_synced_outlives_a_power_cut_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for durability, kept in ((Durability.POWER_LOSS, True), (Durability.PROCESS_CRASH, False)):
        with ZookeeperServer(durability, watched=True) as server:
            process = psutil.Process(server.pid)
            server.await_synced()
            with connected(server) as client:
                client.create("/late", b"")
            server.lose_power()
            assert not server.runs
            server.start()
            with connected(server) as client:
                assert (client.exists("/late") is not None) == kept
        assert not process.is_running()
        assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_at_a_restart_is_an_error_that_says_so() -> None:
    with ZookeeperServer(Durability.PROCESS_CRASH) as server:
        (address,) = addresses_of(server.url)
        server.kill()
        with socket.create_server(address), pytest.raises(ServerFailed, match="in use"):
            server.start()


def test_a_setting_that_is_none_is_named_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServerFailed, match="soon"):
        ZookeeperServer(Durability.PROCESS_CRASH, settings={"tickTime": "soon"}).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_without_java_or_jars_it_says_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(java, "JARS", tmp_path)
    with pytest.raises(ServerMissing, match="make java"):
        ZookeeperServer.find_program()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ServerMissing, match="JAVA_HOME"):
        ZookeeperServer.find_program()


def test_it_dies_with_its_parent() -> None:
    script = (
        "import time\n"
        "from benchmarks.harness.zookeeper_server import ZookeeperServer\n"
        "from strategies.interface import Durability\n"
        "server = ZookeeperServer(Durability.PROCESS_CRASH)\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + GONE_S
        while is_alive(server):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_which_promise_a_users_server_keeps_as_far_as_it_says() -> None:
    with ZookeeperServer(Durability.POWER_LOSS) as server:
        assert ZookeeperServer.durability_of(server.url) is None
        url = server.url
    with pytest.raises(ResourceError, match="--zookeeper-url"):
        ZookeeperServer.durability_of(url)
