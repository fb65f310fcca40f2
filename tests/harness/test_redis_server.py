"""A Redis server of the harness's own: its settings, its data, its syncs. What every server does: test_servers."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from benchmarks.harness import sync_watch
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.servers import ServerMissing
from strategies.interface import Durability

OWN = [Durability.VOLATILE, Durability.PROCESS_CRASH, Durability.POWER_LOSS]


@pytest.fixture(autouse=True)
def need_program() -> None:
    try:
        RedisServer.find_program()
    except ServerMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(getattr(request, "param", Durability.VOLATILE)) as started:
        yield started


def connected(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, retry=None, socket_timeout=5)


@pytest.mark.parametrize("server", OWN, indirect=True)
def test_a_killed_server_comes_back_on_its_data_and_port(server: RedisServer) -> None:
    url, pid = server.url, server.pid
    with connected(server) as client:
        client.set("key", "value")
        settings = client.config_get("append*")
    server.kill()
    with connected(server) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()
    assert server.url == url
    assert server.pid != pid
    with connected(server) as client:
        kept = None if server.durability is Durability.VOLATILE else b"value"
        assert client.get("key") == kept
        assert client.config_get("append*") == settings


def test_the_settings_keep_the_promise() -> None:
    wanted = {
        Durability.VOLATILE: ("no", None),
        Durability.PROCESS_CRASH: ("yes", "everysec"),
        Durability.POWER_LOSS: ("yes", "always"),
    }
    for durability, (appendonly, appendfsync) in wanted.items():
        with RedisServer(durability) as server, connected(server) as client:
            found = client.config_get("*")
            assert found["appendonly"] == appendonly
            assert appendfsync in (None, found["appendfsync"])
            assert found["save"] == ""


def test_a_server_that_cannot_start_says_why(server: RedisServer) -> None:
    """On restart its port is fixed; here it is somebody else's by then."""
    server.kill()
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(RuntimeError, match="did not start") as raised:
        server.start()
    assert str(port) in str(raised.value)
    assert "in use" in str(raised.value)


def test_a_paused_server_keeps_its_connections_and_answers_later(server: RedisServer) -> None:
    client = redis.Redis.from_url(server.url, retry=None, socket_timeout=0.1)
    with client, client.client() as connection:
        connection.ping()
        server.pause()
        assert server.runs
        with pytest.raises(redis.TimeoutError):
            connection.ping()
        server.resume()
        assert connected(server).ping()


def test_settings_can_be_replaced() -> None:
    with RedisServer(Durability.POWER_LOSS, settings={"appendfsync": "no"}) as server, connected(server) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("appendfsync") == {"appendfsync": "no"}


@pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
def test_only_a_watched_server_pays_for_it() -> None:
    for watched in (False, True):
        with RedisServer(Durability.POWER_LOSS, watched=watched) as server, connected(server) as client:
            status = Path(f"/proc/{server.pid}/status").read_text()
            assert f"Seccomp:\t{2 if watched else 0}" in status
            client.set("key", "value")
            assert (server.watch is not None) == watched
            if server.watch is not None:
                assert server.watch.syncs()[0] >= 1


@pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
def test_what_is_synced_outlives_a_power_cut() -> None:
    with RedisServer(Durability.PROCESS_CRASH, watched=True) as server:
        with connected(server) as client:
            client.set("key", "value")
        server.await_synced()
        server.lose_power()
        server.start()
        with connected(server) as client:
            assert client.get("key") == b"value"


@pytest.mark.skipif(sync_watch.missing() is not None, reason=str(sync_watch.missing()))
def test_a_watched_server_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with RedisServer(Durability.PROCESS_CRASH, watched=True) as server:
        server.lose_power()
        assert not server.runs
        server.start()
        started = {process.pid for process in psutil.Process().children(recursive=True)} - before
        assert len(started) == 2
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    assert list(tmp_path.iterdir()) == []


def test_it_is_not_reached_by_ctrl_c(server: RedisServer) -> None:
    """A terminal sends it to the whole group; the harness ends its servers itself, after the audit."""
    assert os.getpgid(server.pid) != os.getpgrp()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
