"""The harness's own Ray head: where it listens, what of it dies when, and what it leaves behind."""

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

from benchmarks.harness.ray_server import RayServer
from benchmarks.harness.servers import ResourceError
from strategies.interface import Context, Durability, Indeterminate, StateLost, Unavailable
from strategies.ray_actor import RayActor
from tests.harness.commands import is_alive

pytestmark = pytest.mark.skipif(RayServer.missing() is not None, reason=str(RayServer.missing()))

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[RayServer]:
    with RayServer(Durability.VOLATILE) as started:
        yield started


def opened(server: RayServer, bank: str, variant: str = "plain", timeout_s: float = TIMEOUT_S) -> RayActor:
    return RayActor.open(Context(ray_url=server.url, bank=bank, variant=variant, timeout_s=timeout_s))


def test_it_listens_on_loopback_only(server: RayServer) -> None:
    """With an actor, and this process, which is connected to it."""
    with opened(server, "listens"):
        processes = [*map(psutil.Process, server.pids), psutil.Process()]
        listening = {
            each.laddr.ip
            for process in processes
            for each in process.net_connections(kind="inet")
            if each.status == psutil.CONN_LISTEN
        }
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_killed_it_has_lost_its_state_and_serves_again(server: RayServer) -> None:
    """What dies are the processes that hold state."""
    for variant in RayActor.capabilities.variants:
        with opened(server, "killed", variant) as accounts:
            receipt = accounts.open_account(variant, 7)
            before = set(server.pids)
            server.kill()
            assert server.runs
            assert before - set(server.pids)
            with pytest.raises(StateLost):
                until_known(accounts, variant)
            with opened(server, "killed", variant) as blank:
                assert blank.snapshot() == {}
                assert blank.open_account(variant, 1).epoch > receipt.epoch
                with pytest.raises(StateLost):
                    accounts.balance(variant)


def until_known(accounts: RayActor, account: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(Unavailable):  # Ray is about to start it again
            accounts.balance(account)
        time.sleep(0.05)


def test_paused_it_answers_later(server: RayServer) -> None:
    with opened(server, "paused", timeout_s=TIMEOUT_S) as patient:
        opening = patient.open_account("a", 7)
    with opened(server, "paused", timeout_s=1.0) as accounts:
        assert accounts.balance("a") == opening
        server.pause()
        try:
            assert server.runs
            deadline = time.monotonic() + TIMEOUT_S
            while {psutil.Process(pid).status() for pid in server.pids} != {psutil.STATUS_STOPPED}:
                assert time.monotonic() < deadline, "some of it goes on"
                time.sleep(0.01)
            with pytest.raises(Indeterminate):
                accounts.deposit("a", 1, op_id=("s", 1))
        finally:
            server.resume()
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(Unavailable, Indeterminate):
                assert accounts.deposit("a", 1, op_id=("s", 1))[:2] == (2, 8)
                break
        assert accounts.balance("a")[:2] == (2, 8)


def test_all_of_it_dies_with_its_parent() -> None:
    """Also where the parent is given no chance to stop it, and with an actor. What is left is its directory."""
    default, before = Path("/tmp/ray"), shared_memory()
    there = default.exists()
    script = (
        "import time\n"
        "from benchmarks.harness.ray_server import RayServer\n"
        "from strategies.interface import Context, Durability\n"
        "from strategies.ray_actor import RayActor\n"
        "server = RayServer(Durability.VOLATILE)\n"
        "server.start()\n"
        f"RayActor.open(Context(ray_url=server.url, timeout_s={TIMEOUT_S}))\n"
        "print(server._directory, *server.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        processes: list[psutil.Process] = []
        try:
            assert parent.stdout is not None
            directory, *pids = parent.stdout.readline().split()
            processes = [psutil.Process(int(pid)) for pid in pids]
            parent.kill()
            parent.wait()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and any(map(is_alive, processes)):
                time.sleep(0.05)
            assert not [process for process in processes if is_alive(process)]
            assert shared_memory() <= before
            assert default.exists() == there
        finally:
            parent.kill()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
    shutil.rmtree(directory, ignore_errors=True)  # the next harness may have been faster


def shared_memory() -> set[str]:
    """What Ray keeps objects in."""
    return {path.name for path in Path("/dev/shm").glob("plasma*")}


def test_a_users_cluster_is_asked_whether_it_is_there(server: RayServer) -> None:
    assert RayServer.durability_of(server.url) is Durability.VOLATILE
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in (f"ray://127.0.0.1:{port}", "ray://127.0.0.1:1", "ray://127.0.0.1", "http://127.0.0.1:6379"):
            began = time.monotonic()
            with pytest.raises(ResourceError, match="--ray-url"):
                RayServer.durability_of(url)
            assert time.monotonic() - began < 10
