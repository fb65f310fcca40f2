"""Messages between callers and owners are late, lost or unanswered where a fault says so, and nowhere afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import redis

from benchmarks.harness import faults, message_faults, namespaces
from benchmarks.harness.environment import WORKERS_OF_A_TRIAL, Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.message_faults import Delay, DropReply, HalfOpen, LinkDown, NetemDelay, Partition
from benchmarks.harness.namespaces import Namespace
from benchmarks.harness.redis_server import RedisServer
from strategies.interface import (
    Accounts,
    Caller,
    Capabilities,
    Context,
    Durability,
    Fault,
    Indeterminate,
    Resource,
    Unavailable,
    load,
)

BY_PROXY = (Delay, DropReply, HalfOpen, Partition)
DEADLINE_S = 0.5
IN_REDIS = Capabilities(needs=frozenset({Resource.REDIS}))


@pytest.fixture
def namespaced() -> None:
    """Asked when a test needs it, not when this module is imported: an answer takes a namespace."""
    if (lacking := namespaces.missing()) is not None:
        pytest.skip(lacking)


@contextmanager
def prepared(
    environment: Environment, fault: Fault, claims: Capabilities, context: Context
) -> Iterator[tuple[Any, Context]]:
    action = faults.load(fault)(environment, claims, Caller.DRIVER, DEADLINE_S, random.Random(1))
    with action.prepared(context) as changed:
        action.armed()
        yield action, changed


class Counter:
    """One number in Redis: added to through a proxy, read past it."""

    def __init__(self, through: str, past: str) -> None:
        self._key = uuid.uuid4().hex
        options: dict[str, Any] = {
            "retry": None,
            "socket_timeout": DEADLINE_S,
            "socket_connect_timeout": DEADLINE_S,
            **{"protocol": 2, "driver_info": None},  # no handshake: the first answer is that of the first command
        }
        self.through = redis.Redis.from_url(through, **options)
        self._past = redis.Redis.from_url(past, **options)

    def add(self) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        self.through.incr(self._key)
        return time.monotonic() - began

    @property
    def value(self) -> int:
        return int(self._past.get(self._key) or 0)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.through.close()
        self._past.close()


@contextmanager
def counter(environment: Environment, fault: Fault) -> Iterator[tuple[Any, Counter]]:
    past = environment.server(IN_REDIS).url
    with (
        prepared(environment, fault, IN_REDIS, Context(redis_url=past)) as (action, context),
        Counter(str(context.redis_url), past) as made,
    ):
        assert context.redis_url != past
        made.add()
        yield action, made


NOBODY: Any = None
"""Faults of messages call no handle."""


def test_delayed_messages_take_longer_and_less_than_a_deadline(environment: Environment) -> None:
    with counter(environment, Fault.DELAY) as (action, number):
        action.inject(NOBODY)
        assert 0.2 * DEADLINE_S <= number.add() < DEADLINE_S
        assert number.value == 2
        action.heal()
        assert min(number.add() for _ in range(5)) < 0.2 * DEADLINE_S
        assert action.felt.requests_delayed == action.felt.replies_delayed == 1
        action.confirm(0)


def test_dropped_replies_leave_their_effects(environment: Environment) -> None:
    with counter(environment, Fault.DROP_REPLY) as (action, number):
        action.inject(NOBODY)
        answered = 0
        for _ in range(40):
            try:
                number.add()
                answered += 1
            except redis.ConnectionError:
                continue
        action.heal()
        assert number.value == 1 + 40
        assert 0 < answered < 40
        assert action.felt.replies_dropped == 40 - answered
        number.add()


def test_half_open_connections_leave_effects_and_no_answers(environment: Environment) -> None:
    with counter(environment, Fault.HALF_OPEN) as (action, number):
        action.inject(NOBODY)
        for _ in range(2):
            with pytest.raises(redis.TimeoutError):
                number.add()
        assert number.value == 3
        action.heal()
        number.add()


def test_a_partition_leaves_no_effects(environment: Environment) -> None:
    with counter(environment, Fault.PARTITION) as (action, number):
        action.inject(NOBODY)
        with pytest.raises(redis.TimeoutError, match="reading"):
            number.add()
        with pytest.raises(redis.TimeoutError, match="connecting"):
            number.add()
        action.heal()
        number.add()
        assert number.value == 2
        assert action.felt.requests_swallowed_bytes


@pytest.mark.parametrize("kind", BY_PROXY)
def test_a_fault_that_no_message_met_was_none(environment: Environment, kind: type[FaultAction]) -> None:
    with counter(environment, kind.fault) as (action, _):
        action.inject(NOBODY)
        action.heal()
        with pytest.raises(NotInjected):
            action.confirm(0)


def test_all_but_the_address_of_a_url_stays(environment: Environment) -> None:
    context = Context(redis_url="redis://user:p%40ss@127.0.0.1:6379/3?health_check_interval=0")
    with prepared(environment, Fault.PARTITION, IN_REDIS, context) as (action, changed):
        host, port = action.proxy.addresses[0]
        assert changed.redis_url == f"redis://user:p%40ss@{host}:{port}/3?health_check_interval=0"


def test_nothing_of_it_is_left_after_an_error(environment: Environment) -> None:
    environment.server(IN_REDIS)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    try:
        with counter(environment, Fault.PARTITION) as (action, _):
            action.inject(NOBODY)
            assert {process.pid for process in psutil.Process().children(recursive=True)} > before
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


# -- actors ----------------------------------------------------------------------------------------


def test_actors_are_reached_through_the_proxy_only(environment: Environment) -> None:
    """By the scheduler, the driver and tasks: whichever way a variant takes."""
    kind = load("actor_single")
    claims = kind.claims("direct")

    def deposit(accounts: Accounts) -> str:  # goes to workers by value: to import this module takes them a while
        try:
            accounts.deposit("account", 1)
        except Exception as error:
            return type(error).__name__
        return "ok"

    with prepared(environment, Fault.HALF_OPEN, claims, Context(client=environment.client)) as (action, context):
        client = context.client
        assert client is not None
        assert client is not environment.client
        assert len(client.nthreads()) == WORKERS_OF_A_TRIAL
        for variant in kind.capabilities.variants:
            changed = Context(client=client, timeout_s=3 * DEADLINE_S, variant=variant, bank=variant)
            with kind.open(changed) as accounts:
                accounts.open_account("account")
                before = action.proxy.counts()
                accounts.deposit("account", 1)
                assert action.proxy.counts().requests_bytes > before.requests_bytes
                action.inject(accounts)
                began = time.monotonic()
                with pytest.raises(Indeterminate):
                    accounts.deposit("account", 1)
                assert time.monotonic() - began < 8 * DEADLINE_S
                action.heal()
                assert accounts.balance("account").balance == 2
        # The messages that start tasks take another way.
        with kind.open(changed) as accounts:
            first = min(client.nthreads())
            assert client.submit(deposit, accounts, pure=False, workers=[first]).result(timeout=30) == "ok"
            action.inject(accounts)
            task = client.submit(deposit, accounts, pure=False, workers=[first])
            time.sleep(5 * DEADLINE_S)  # its result takes the way that is broken
            action.heal()
            assert task.result(timeout=30) == "Indeterminate"
            assert accounts.balance("account").balance == 4
        action.confirm(0)


def test_a_scheduler_that_holds_state_is_reached_through_the_proxy(environment: Environment) -> None:
    claims = Capabilities(needs=frozenset({Resource.SCHEDULER}))
    with prepared(environment, Fault.HALF_OPEN, claims, Context(client=environment.client)) as (action, context):
        client = context.client
        assert client is not None
        assert client.scheduler.address != environment.client.scheduler.address
        before = action.proxy.counts()
        client.set_metadata("key", 1)
        assert action.proxy.counts().requests_bytes > before.requests_bytes
        assert environment.client.get_metadata("key") == 1
        assert faults.load(Fault.HALF_OPEN).out_of_reach(claims, Caller.DRIVER) is None
        assert faults.load(Fault.HALF_OPEN).out_of_reach(claims, Caller.TASK)


# -- a link of the store's own ---------------------------------------------------------------------


def links() -> set[str]:
    return {link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-json", "link"]))}


def namespaces_of_processes() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(path.readlink()))
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("namespaced")
def test_links_have_names_that_tell_whose_they_are() -> None:
    with Namespace() as namespace:
        assert namespace.link.startswith("dsb-")
        assert namespace.link in links()


@pytest.mark.usefixtures("namespaced")
def test_a_link_that_is_down_passes_nothing(environment: Environment) -> None:
    with (
        prepared(environment, Fault.LINK_DOWN, IN_REDIS, Context()) as (action, context),
        redis.Redis.from_url(
            str(context.redis_url), retry=None, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S
        ) as client,
    ):

        def carrier() -> str:
            return Path(f"/sys/class/net/{action.namespace.link}/carrier").read_text().strip()

        def sent() -> int:
            return int(Path(f"/sys/class/net/{action.namespace.link}/statistics/rx_packets").read_text())

        assert client.incr("key") == 1
        assert carrier() == "1"
        action.inject(NOBODY)
        assert carrier() == "0"
        before = sent()
        for problem in ("reading", "connecting"):
            with pytest.raises(redis.TimeoutError, match=problem):
                client.incr("key")
        assert sent() == before
        action.heal()
        assert carrier() == "1"
        # TCP sends the first request again by itself, and its connection may be closed by then.
        deadline = time.monotonic() + 10
        while True:
            try:
                assert client.incr("key") in (2, 3)
                break
            except redis.TimeoutError:
                assert time.monotonic() < deadline


@pytest.mark.usefixtures("namespaced")
def test_nothing_leaves_a_namespace_but_by_its_link() -> None:
    with Namespace() as namespace:
        inside = ["nsenter", f"--net={namespace.path}", "ip", "-json", "route"]
        routes = json.loads(subprocess.check_output(inside))
        assert [route["dst"] for route in routes] == [routes[0]["dst"]]
        assert routes[0]["dst"].endswith("/30")
        namespace.down()
        outside = json.loads(subprocess.check_output(["ip", "-json", "route", "get", namespace.host]))
        assert outside[0]["dev"] == namespace.link


@pytest.mark.usefixtures("namespaced")
@pytest.mark.parametrize("breaks", [False, True])
def test_namespaces_and_links_are_removed(environment: Environment, breaks: bool) -> None:
    before = links(), namespaces_of_processes()
    try:
        with prepared(environment, Fault.LINK_DOWN, IN_REDIS, Context()) as (action, _):
            assert len(links() - before[0]) == 1
            assert len(namespaces_of_processes() - before[1]) == 1
            action.inject(NOBODY)
            if breaks:
                raise ZeroDivisionError
            action.heal()
    except ZeroDivisionError:
        assert breaks
    assert (links() <= before[0], namespaces_of_processes() <= before[1]) == (True, True)


@pytest.mark.usefixtures("namespaced")
def test_a_killed_harness_leaves_none(tmp_path: Path) -> None:
    before = links()
    script = (
        "import time\n"
        "from benchmarks.harness.namespaces import Namespace\n"
        "from benchmarks.harness.redis_server import RedisServer\n"
        "from strategies.interface import Durability\n"
        "with Namespace() as joined:\n"
        "    with RedisServer(Durability.VOLATILE, host=joined.host, namespace=joined.path) as server:\n"
        "        print(joined.link, server.pid, flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as harness:
        try:
            assert harness.stdout is not None
            link, _ = harness.stdout.readline().split()
            assert link in links()
        finally:
            harness.kill()
    deadline = time.monotonic() + 10
    while link in links():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert links() <= before


@pytest.mark.usefixtures("namespaced")
def test_a_namespace_that_cannot_be_finished_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = links(), namespaces_of_processes()

    def fail(namespace: Namespace) -> None:
        raise namespaces.NamespaceError("no")

    monkeypatch.setattr(Namespace, "up", fail)
    with pytest.raises(namespaces.NamespaceError):
        Namespace()
    assert (links() <= before[0], namespaces_of_processes() <= before[1]) == (True, True)


def test_netem_delays(environment: Environment) -> None:
    if (lacking := namespaces.netem_missing()) is not None:
        pytest.skip(lacking)
    with (
        prepared(environment, Fault.NETEM_DELAY, IN_REDIS, Context()) as (action, context),
        redis.Redis.from_url(str(context.redis_url), retry=None, socket_timeout=30) as client,
    ):
        client.ping()
        action.inject(NOBODY)
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began >= 0.1 * DEADLINE_S
        action.heal()
        client.ping()


# -- whom they reach -------------------------------------------------------------------------------


def test_whom_they_reach() -> None:
    here = Capabilities(callers=frozenset({Caller.DRIVER, Caller.TASK}))
    in_actors = Capabilities(needs=frozenset({Resource.DASK}))
    for kind in BY_PROXY:
        assert "no message" in str(kind.out_of_reach(here, Caller.DRIVER))
        assert "advertises" in str(kind.out_of_reach(here, Caller.TASK))
        for claims in (IN_REDIS, in_actors):
            assert [kind.out_of_reach(claims, caller) for caller in Caller] == [None, None]
    for by_kernel in (LinkDown, NetemDelay):
        assert by_kernel.out_of_reach(IN_REDIS, Caller.TASK) is None
        assert "no server" in str(by_kernel.out_of_reach(in_actors, Caller.TASK))


def test_what_is_a_users_is_left_alone() -> None:
    server: Any = SimpleNamespace(users_server=lambda _: "leave --redis-url out", owns_cluster=True)
    cluster: Any = SimpleNamespace(users_server=lambda _: None, owns_cluster=False)
    own: Any = SimpleNamespace(users_server=lambda _: None, owns_cluster=True)
    for kind in BY_PROXY:
        assert "--redis-url" in str(kind.missing(server, IN_REDIS))
        assert "--scheduler" in str(kind.missing(cluster, IN_REDIS))
        assert kind.missing(own, IN_REDIS) is None
    for by_kernel in (LinkDown, NetemDelay):
        assert "--redis-url" in str(by_kernel.missing(server, IN_REDIS))


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    own: Any = SimpleNamespace(users_server=lambda _: None)
    for cached in (namespaces.missing, namespaces.netem_missing):
        monkeypatch.setattr(namespaces, cached.__name__, cached.__wrapped__)
    assert [("run as root" in str(kind.missing(own, IN_REDIS))) for kind in (LinkDown, NetemDelay)] == [True, True]


@pytest.mark.usefixtures("namespaced")
def test_a_kernel_without_netem_is_told_with_what_helps() -> None:
    lacking = namespaces.netem_missing()
    if lacking is not None:
        assert "modprobe sch_netem" in lacking or "iproute2" in lacking
    own: Any = SimpleNamespace(users_server=lambda _: None)
    assert message_faults.NetemDelay.missing(own, IN_REDIS) == lacking


@pytest.mark.usefixtures("namespaced")
def test_a_server_in_a_namespace_is_in_no_other() -> None:
    with (
        Namespace() as namespace,
        RedisServer(Durability.VOLATILE, host=namespace.host, namespace=namespace.path) as server,
    ):
        assert Path(f"/proc/{server.pid}/ns/net").readlink() == namespace.path.readlink()
        assert namespace.path.readlink() != Path("/proc/self/ns/net").readlink()


def test_unanswered_calls_are_told_apart(environment: Environment) -> None:
    """A strategy behind the proxy: no answer is unknown, no connection is no effect."""
    kind = load("redis_lua")
    url = environment.server(IN_REDIS).url
    context = Context(redis_url=url, timeout_s=DEADLINE_S, bank=uuid.uuid4().hex)
    with (
        prepared(environment, Fault.PARTITION, kind.claims("volatile"), context) as (action, changed),
        kind.open(changed) as accounts,
    ):
        accounts.open_account("account")
        action.inject(accounts)
        with pytest.raises(Indeterminate):
            accounts.deposit("account", 1)
        with pytest.raises(Unavailable):
            accounts.deposit("account", 1)
        action.heal()
        assert accounts.deposit("account", 1).balance == 1
