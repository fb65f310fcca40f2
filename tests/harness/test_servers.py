"""What holds of every server of the harness's own, whatever it is: its life, where it listens, what it leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from benchmarks.harness import launch
from benchmarks.harness.environment import Environment
from benchmarks.harness.servers import ResourceError, Server, ServerFailed, kind_for, kinds
from strategies.interface import Capabilities, Durability, Resource, load, names
from tests.harness.commands import is_alive

ROOT = Path(__file__).resolve().parents[2]
_GONE_S = 10.0

CLAIMS = [load(name).claims(variant) for name in names() for variant in load(name).capabilities.variants]
NEEDED = sorted({(kind.resource, it.durability, it.nodes) for it in CLAIMS if (kind := kind_for(it))})
"""Every server that some strategy needs."""
SOME = sorted({resource: (resource, *more) for resource, *more in NEEDED}.values())
"""One of each kind."""

Needed = tuple[Resource, Durability, int]


def made(needed: Needed) -> Server:
    resource, durability, nodes = needed
    kind = kinds()[resource]
    missing = kind.missing()
    if missing:
        pytest.skip(missing)
    return kind(durability, nodes=nodes)


def processes(server: Server) -> list[psutil.Process]:
    """All that it started and that is there yet."""
    found: list[psutil.Process] = []
    for pid in server.pids:
        with suppress(psutil.NoSuchProcess):
            found += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return list(dict.fromkeys(found))


def listening(server: Server) -> set[str]:
    """Addresses of this machine at which it can be reached."""
    found: set[str] = set()
    for process in processes(server):
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections(kind="inet")
            found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


@contextmanager
def all_end(running: list[psutil.Process]) -> Iterator[None]:
    """What is in here ends them, soon."""
    yield
    deadline = time.monotonic() + _GONE_S
    while any(map(is_alive, running)):
        assert time.monotonic() < deadline, [each for each in running if is_alive(each)]
        time.sleep(0.02)


def test_every_kind_is_needed() -> None:
    assert {kind for kind, *_ in NEEDED} == set(kinds())


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: "-".join(map(str, needed)))
def test_a_life(needed: Needed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It listens to this machine alone, comes back where it was, and leaves nothing, though it is stopped paused."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with made(needed) as server:
        assert server.runs
        address, directory = server.url, server.directory.parent
        assert directory.is_dir()
        assert listening(server)
        assert listening(server) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        server.kill()
        server.start()
        assert server.runs
        assert server.url == address
        running = processes(server)
        with all_end(running):
            server.pause()
            server.stop()
    assert not directory.exists()
    assert list(tmp_path.iterdir()) == []
    server.stop()


@pytest.mark.parametrize("needed", SOME, ids=lambda needed: str(needed[0]))
def test_two_of_one_kind_at_a_time(needed: Needed) -> None:
    with made(needed) as one, made(needed) as other:
        assert one.url != other.url
        assert not {process.pid for process in processes(one)} & {process.pid for process in processes(other)}
        with all_end(processes(one)):
            one.stop()
        assert other.runs


@pytest.mark.parametrize("needed", SOME, ids=lambda needed: str(needed[0]))
def test_it_dies_with_its_parent(needed: Needed) -> None:
    """Also where the parent is given no chance to stop it."""
    made(needed).stop()
    script = (
        "import sys, time\n"
        "from benchmarks.harness import servers\n"
        "from strategies.interface import Durability, Resource\n"
        "kind = servers.kinds()[Resource(sys.argv[1])]\n"
        "server = kind(Durability(sys.argv[2]), nodes=int(sys.argv[3]))\n"
        "server.start()\n"
        "print(server.directory.parent, *server.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, *map(str, needed)]
    running: list[psutil.Process] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            directory, *pids = parent.stdout.readline().split()
            running = [psutil.Process(int(pid)) for pid in pids]
            running += [child for each in running for child in each.children(recursive=True)]
            with all_end(running):
                parent.kill()
                parent.wait()
        finally:
            parent.kill()
            for each in running:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
    shutil.rmtree(directory, ignore_errors=True)  # another harness may have swept it up by now


@pytest.mark.parametrize("needed", SOME, ids=lambda needed: str(needed[0]))
def test_one_that_ends_at_once_says_why_and_leaves_nothing(needed: Needed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are in the error."""
    dying = [sys.executable, "-c", "import sys; sys.exit('no room for so much as a page')"]
    made(needed).stop()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # a server may run as somebody else
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setattr(launch, "command", lambda **_: dying)
        with pytest.raises(ServerFailed, match=r"no room for so much as a page"), made(needed):
            pass
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("resource", sorted(kinds()))
def test_a_url_where_nobody_listens_is_a_clear_error(resource: Resource) -> None:
    kind = kinds()[resource]
    missing = kind.client_missing()
    if missing:
        pytest.skip(missing)
    url = f"{resource}://user:hush@127.0.0.1:1/x"
    with pytest.raises(ResourceError, match=kind.option) as raised, Environment(urls={resource: url}):
        pass
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value).strip()


def test_no_claims_need_two_servers() -> None:
    """Then `kind_for` would have to choose."""
    assert all(len(it.needs & set(kinds())) <= 1 for it in CLAIMS)
    assert kind_for(Capabilities()) is None
