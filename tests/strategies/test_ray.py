"""What Ray does by itself, what the strategies on it make of that, and a process's one connection."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from benchmarks.harness.ray_server import RayServer
from strategies.dask_on_ray import DaskOnRay
from strategies.interface import (
    AccountError,
    Accounts,
    Context,
    Durability,
    Function,
    Operation,
    StateLost,
    Unavailable,
)
from strategies.ray_actor import RayActor
from strategies.ray_pool import RayPool
from strategies.support import ray_link
from strategies.support.fates import NotSent
from strategies.support.ray_bank import HostRef, parts
from strategies.support.ray_host import GONE, RayHost, ask
from strategies.support.sharding import HashRing
from strategies.support.wire import Batch, decode_answers, decode_snapshot, encode
from strategies.support.wire_ledger import SNAPSHOT

pytestmark = pytest.mark.skipif(RayServer.missing() is not None, reason=str(RayServer.missing()))

TIMEOUT_S = 30.0
SHORT_S = 1.0
SLACK_S = 2.0

DEPOSIT = encode(Batch(b"\1", ("a",), (5,), ()))
OPEN = encode(Batch(b"\0", ("a",), (7,), ()))


@pytest.fixture(scope="module")
def server() -> Iterator[RayServer]:
    with RayServer(Durability.VOLATILE) as started:
        yield started


def context(server: RayServer, bank: str | None = None, **options: Any) -> Context:
    return Context(ray_url=server.url, bank=bank or uuid.uuid4().hex, **{"timeout_s": TIMEOUT_S, **options})


def in_time(call: Callable[[], object], fate: type[AccountError], limit_s: float = SHORT_S) -> AccountError:
    began = time.monotonic()
    with pytest.raises(fate) as raised:
        call()
    assert time.monotonic() - began < limit_s + SLACK_S
    return raised.value


# -- what Ray does by itself -----------------------------------------------------------------------


def test_ray_has_one_call_done_twice_and_the_state_made_anew(server: RayServer, tmp_path: Path) -> None:
    """`max_task_retries` is at-least-once, as its documentation says: here an actor dies between effect and answer."""
    import ray

    class Counter:
        def __init__(self) -> None:
            self.total = 100

        def add(self, effects: str) -> int:
            import os
            import signal
            from pathlib import Path

            self.total += 1
            first = not Path(effects).exists()
            with Path(effects).open("a") as file:
                file.write("one effect\n")
            if first:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.total

    with RayActor.open(context(server)):  # connects
        for retries, effects in ((0, 1), (-1, 2)):
            path = tmp_path / f"effects-{effects}"
            counter = ray.remote(Counter).options(num_cpus=0, max_restarts=-1, max_task_retries=retries).remote()
            if retries:
                assert ray.get(counter.add.remote(str(path)), timeout=TIMEOUT_S) == 101
            else:
                with pytest.raises(ray.exceptions.RayActorError):
                    ray.get(counter.add.remote(str(path)), timeout=TIMEOUT_S)
            assert path.read_text().count("one effect") == effects
            ray.kill(counter)


def test_what_ray_sends_again_is_not_applied_to_what_init_made(server: RayServer) -> None:
    """The same with our actor: it dies under a call that Ray sends again, to one that knows no bank by then."""
    import ray

    with RayActor.open(context(server, variant="retries")) as accounts:
        accounts.open_account("a", 100)
        shard = accounts._shards[0]
        assert isinstance(shard, HostRef)
        blocked = shard.actor.__ray_call__.options(max_task_retries=0).remote(_kill_soon)
        in_time(lambda: accounts.deposit("a", 1, op_id=("s", 1)), StateLost, TIMEOUT_S)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(blocked, timeout=TIMEOUT_S)
        in_time(lambda: accounts.deposit("a", 1, op_id=("s", 1)), StateLost)
        in_time(lambda: accounts.apply([Operation(Function.BALANCE, "a")]) and accounts.balance("a"), StateLost)
        in_time(accounts.snapshot, StateLost)


def _kill_soon(host: object) -> None:
    import os
    import signal
    import time

    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("numbered", "retries"), [(False, 0), (True, -1)], ids=["without an op id", "with an op id"])
def test_only_what_has_an_op_id_is_left_to_ray_to_send_again(
    server: RayServer, monkeypatch: pytest.MonkeyPatch, numbered: bool, retries: int
) -> None:
    import ray

    asked: list[int] = []
    remote = ray.actor.ActorMethod._remote

    def noted(method: Any, *args: Any, **options: Any) -> Any:
        asked.append(options.get("max_task_retries") or 0)
        return remote(method, *args, **options)

    with RayActor.open(context(server, variant="retries")) as accounts:
        accounts.open_account("a", 100)
        monkeypatch.setattr(ray.actor.ActorMethod, "_remote", noted)
        accounts.deposit("a", 1, op_id=("s", 1) if numbered else None)
        accounts.balance("a")
    assert asked == [retries, -1]


# -- losses ----------------------------------------------------------------------------------------


def test_a_pool_loses_the_dead_actors_accounts_and_keeps_its_number_of_shards(server: RayServer) -> None:
    bank = context(server, shards=2)
    ring = HashRing(2)
    names = [next(str(n) for n in range(99) if ring.shard_of(str(n)) == shard) for shard in range(2)]
    with RayPool.open(bank) as accounts:
        opened = [accounts.open_account(name, 1) for name in names]
        first, second = (_pid(accounts, place) for place in range(2))
        assert first != second
        os.kill(first, signal.SIGKILL)
        in_time(lambda: accounts.deposit(names[0], 1), StateLost, TIMEOUT_S)
        assert accounts.balance(names[1]) == opened[1]
        in_time(accounts.snapshot, StateLost)
        with RayPool.open(context(server, bank.bank)) as again:
            assert len(again._shards) == 2
            assert again.snapshot() == {names[1]: opened[1]}
            assert again.open_account(names[0], 1).epoch > opened[0].epoch
            in_time(lambda: accounts.deposit(names[0], 1), StateLost)


def _pid(accounts: RayPool, place: int) -> int:
    import ray

    shard = accounts._shards[place]
    assert isinstance(shard, HostRef)
    pid: int = ray.get(shard.actor.__ray_call__.remote(lambda host: os.getpid()), timeout=TIMEOUT_S)
    return pid


def test_banks_on_one_host_do_not_know_each_other() -> None:
    host = RayHost()
    assert host.find("x") is None
    (epoch, shards), (other, _) = host.open("x", 2), host.open("y", 3)
    assert host.open("x", 7) == (epoch, 2) == host.find("x")
    assert shards == 2
    (opened,) = decode_answers(host.answer("x", epoch, *parts(OPEN)), 1)
    assert opened == (1, 7, epoch)
    assert decode_snapshot(host.answer("x", epoch, *parts(SNAPSHOT))) == {"a": opened}
    assert decode_snapshot(host.answer("y", other)) == {}
    assert host.answer("x", epoch + 1, DEPOSIT) == host.answer("z", epoch, DEPOSIT) == GONE
    assert decode_snapshot(host.answer("x", epoch)) == {"a": opened}


def test_parts_of_a_payload_are_small_and_make_it_whole() -> None:
    for size in (0, 1, 65_536, 65_537, 1_000_000):
        payload = os.urandom(size)
        assert b"".join(parts(payload)) == payload
        assert all(0 < len(part) < 100 * 1024 for part in parts(payload))


def test_a_task_that_comes_too_late_asks_nobody() -> None:
    assert isinstance(ask(None, time.time() - 1, "bank", 1, [DEPOSIT]), NotSent)


# -- this process's connection ---------------------------------------------------------------------


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379", "ray://127.0.0.1", "ray://:1", "ray://h:x", "ray://h:1/2"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="ray://HOST:PORT"):
        RayActor.open(Context(ray_url=url))


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 1):
            url = f"ray://127.0.0.1:{port}"
            error = in_time(lambda url=url: RayActor.open(Context(ray_url=url, timeout_s=SHORT_S)), Unavailable)  # type: ignore[misc]
            assert f":{port} " in str(error) or f":{port}:" in str(error)


def test_somebody_else_answers() -> None:
    def greet(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.sendall(b"220 mail.example.org ready\r\n")
            connection.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        url = f"ray://127.0.0.1:{listener.getsockname()[1]}"
        error = in_time(lambda: RayActor.open(Context(ray_url=url, timeout_s=SHORT_S)), Unavailable)
        thread.join()
    assert "is no Ray cluster" in str(error)


def test_a_process_has_one_cluster_at_a_time(server: RayServer) -> None:
    import ray

    bank = context(server)
    with RayServer(Durability.VOLATILE) as second:
        with RayActor.open(bank) as accounts:
            opened = accounts.open_account("a", 1)
            assert "another Ray cluster" in str(in_time(lambda: RayActor.open(context(second)), Unavailable))
            assert accounts.balance("a") == opened
        with RayActor.open(context(second)) as elsewhere:
            assert elsewhere.snapshot() == {}
    assert not ray.is_initialized(), "Ray ends a process a minute after the head that it is connected to"
    with RayActor.open(bank) as accounts:
        assert accounts.balance("a") == opened


def test_a_handle_finds_its_actor_over_another_connection(server: RayServer) -> None:
    import ray

    with RayActor.open(context(server)) as accounts:
        opened = accounts.open_account("a", 1)
        ray.shutdown()
        assert accounts.balance("a") == opened


def test_connecting_leaves_the_processes_signals_alone(server: RayServer) -> None:
    import ray

    ray.shutdown()
    before = signal.getsignal(signal.SIGTERM)
    with RayActor.open(context(server)):
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", [RayActor, DaskOnRay])
def test_a_forked_child_is_told_so(server: RayServer, kind: type[Accounts]) -> None:
    with kind.open(context(server)) as accounts:
        opened = accounts.open_account("a", 1)
        receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

        def child() -> None:
            try:
                accounts.deposit("a", 1)
            except AccountError as error:
                sender.send(repr(error))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert receiver.poll(TIMEOUT_S)
        assert receiver.recv().startswith("Unavailable")
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
        assert accounts.balance("a") == opened


def test_addresses_of_one_cluster_are_one() -> None:
    assert ray_link.address_of("ray://127.0.0.1:6379") == ray_link.address_of("ray://localhost:6379")
    assert ray_link.address_of("ray://head.example.org:6379") == "head.example.org:6379"
    assert ray_link.address_of("ray://[::1]:6379") == "[::1]:6379"


# -- Dask on Ray -----------------------------------------------------------------------------------


def test_dask_is_as_it_was(server: RayServer) -> None:
    persist, method = dask.persist, dask.base.DaskMethodsMixin.persist
    with DaskOnRay.open(context(server)) as accounts:
        accounts.open_account("a", 1)
    assert dask.persist is persist
    assert dask.base.DaskMethodsMixin.persist is method


def test_a_graphs_tasks_are_not_run_again(server: RayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, Ray runs a task again when its process dies, though the actor may have done what it asked for."""
    with DaskOnRay.open(context(server)) as accounts:
        accounts.open_account("a", 1)
        from ray.util.dask import scheduler

        asked: list[dict[str, Any]] = []
        options = scheduler.dask_task_wrapper.options

        def noted(**given: Any) -> Any:
            asked.append(given)
            return options(**given)

        monkeypatch.setattr(scheduler.dask_task_wrapper, "options", noted)
        accounts.deposit("a", 1)
    assert [given["max_retries"] for given in asked] == [0]
