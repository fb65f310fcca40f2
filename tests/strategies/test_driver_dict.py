"""What is special about state in the driver: tasks have to call back."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import cloudpickle
import pytest
from distributed import Client, LocalCluster, Security

from benchmarks.harness.environment import Environment
from strategies.driver_dict import DriverDict
from strategies.interface import AccountError, Accounts, Context, Indeterminate, Receipt, Unavailable

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TIMEOUT_S = 1.0


def fate(handle: Accounts, method: str, *args: Any, **options: Any) -> Any:
    """What it returned, or the type of the error that it raised."""
    try:
        return getattr(handle, method)(*args, **options)
    except AccountError as error:
        return type(error)


def own_cluster(**options: Any) -> LocalCluster:
    defaults = {
        "n_workers": 1,
        "threads_per_worker": 2,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
    return LocalCluster(**(defaults | options))


@pytest.fixture
def client(environment: Environment) -> Iterator[Client]:
    """One of this test's own, so that it can count who listens."""
    with Client(environment.client.scheduler.address, set_as_default=False) as opened:
        yield opened


def in_task(client: Client, handle: Accounts, method: str, *args: Any, **options: Any) -> Any:
    return client.submit(fate, handle, method, *args, **options, pure=False).result()


def door(handle: DriverDict) -> tuple[str, int]:
    """Where copies in tasks call."""
    where = urlsplit(handle._arrival[1] or "")
    assert where.hostname
    assert where.port
    return str(where.hostname), where.port


def listens(handle: DriverDict) -> bool:
    """Whether anybody accepts there."""
    try:
        socket.create_connection(door(handle), timeout=2).close()
    except OSError:
        return False
    return True


def eventually(condition: Any) -> bool:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_over_tls(bank: str) -> None:
    security = Security.temporary()
    with (
        own_cluster(protocol="tls", security=security, host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert cluster.scheduler_address.startswith("tls://")
        with DriverDict.open(Context(client=client, bank=bank, timeout_s=5)) as accounts:
            assert str(accounts._arrival[1]).startswith("tls://")
            accounts.open_account("a", 1)
            assert in_task(client, accounts, "deposit", "a", 1)[:2] == (2, 2)
            assert accounts.balance("a")[:2] == (2, 2)
            # Without a certificate of the cluster's, nobody gets in.
            with socket.create_connection(door(accounts), timeout=5) as stranger:
                stranger.settimeout(5)
                stranger.sendall(b"\0" * 64)
                try:
                    while stranger.recv(1024):
                        pass
                except ConnectionResetError:
                    pass


def test_on_a_cluster_in_this_process(bank: str) -> None:
    with own_cluster(processes=False, protocol="inproc") as cluster, Client(cluster, set_as_default=False) as client:
        with DriverDict.open(Context(client=client, bank=bank, timeout_s=5)) as accounts:
            accounts.open_account("a", 1)
            assert in_task(client, accounts, "deposit", "a", 1)[:2] == (2, 2)
            assert accounts.balance("a")[:2] == (2, 2)


def test_it_listens_on_no_other_interface_than_the_schedulers(client: Client, bank: str) -> None:
    with DriverDict.open(Context(client=client, bank=bank)) as accounts:
        assert door(accounts)[0] == "127.0.0.1"


def test_the_door_closes_with_the_last_handle(client: Client, bank: str) -> None:
    one, other = (
        DriverDict.open(Context(client=client, bank=f"{bank}-{number}", timeout_s=TIMEOUT_S)) for number in range(2)
    )
    one.open_account("a")
    other.open_account("a")
    assert listens(one)
    one.close()
    one.close()
    assert in_task(client, other, "deposit", "a", 1)[:2] == (2, 1)
    other.close()
    assert eventually(lambda: not listens(other))
    assert in_task(client, other, "deposit", "a", 1) is Unavailable
    with DriverDict.open(Context(client=client, bank=f"{bank}-1", timeout_s=TIMEOUT_S)) as again:
        assert in_task(client, again, "deposit", "a", 1)[:2] == (3, 2)


def test_the_door_closes_with_the_client(environment: Environment, bank: str) -> None:
    client = Client(environment.client.scheduler.address, set_as_default=False)
    accounts = DriverDict.open(Context(client=client, bank=bank))
    assert listens(accounts)
    client.close()
    accounts.close()
    assert eventually(lambda: not listens(accounts))


def test_a_copy_in_the_driver_needs_no_message(client: Client, bank: str) -> None:
    with DriverDict.open(Context(client=client, bank=bank)) as accounts:
        accounts.open_account("a", 1)
        assert type(pickle.loads(pickle.dumps(accounts))) is DriverDict


def test_another_process_has_accounts_of_its_own(client: Client, bank: str) -> None:
    """Also where it does not live in the cluster: there, a pickled handle finds no way back."""
    with DriverDict.open(Context(client=client, bank=bank, timeout_s=TIMEOUT_S)) as accounts:
        accounts.open_account("a", 1)
        code = (
            "import pickle, sys\n"
            "from strategies.interface import Unavailable\n"
            "handle = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "try:\n    handle.balance('a')\nexcept Unavailable:\n    print('unavailable')\n"
        )
        command = [sys.executable, "-c", code, pickle.dumps(accounts).hex()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.returncode) == ("unavailable\n", 0), done.stderr


def deposit_at(handle: Accounts, when: float) -> tuple[Any, float, Any]:
    """Once before, so that the connection is there; once at a time at which the driver hangs; then until it answers."""
    handle.deposit("a", 1, op_id=("s", 1))
    time.sleep(max(0.0, when - time.time()))
    began = time.monotonic()
    first = fate(handle, "deposit", "a", 1, op_id=("s", 2))
    seconds = time.monotonic() - began
    read = fate(handle, "balance", "a")
    again = first
    while isinstance(again, type):
        again = fate(handle, "deposit", "a", 1, op_id=("s", 2))
    return first, seconds, read, again  # type: ignore[return-value]


def test_a_driver_that_hangs(client: Client, bank: str) -> None:
    """Its event loop, that is: the one place that can keep a task waiting."""
    with DriverDict.open(Context(client=client, bank=bank, timeout_s=TIMEOUT_S)) as accounts:
        opened = accounts.open_account("a")
        hang_at = time.time() + 1.0
        future = client.submit(deposit_at, accounts, hang_at + 0.3, pure=False)
        time.sleep(hang_at - time.time())
        client.loop.add_callback(time.sleep, 3.5)
        first, seconds, read, again = future.result()
        assert first is Indeterminate
        assert seconds < TIMEOUT_S + 2
        assert read is Unavailable
        assert again == Receipt(3, 2, opened.epoch)
        assert accounts.balance("a") == again


def test_state_survives_every_worker(bank: str) -> None:
    with Environment(workers=1) as environment:
        client = environment.client
        with DriverDict.open(Context(client=client, bank=bank, timeout_s=5)) as accounts:
            opened = accounts.open_account("a", 1)
            assert in_task(client, accounts, "deposit", "a", 1, op_id=("s", 1))[:2] == (2, 2)
            client.restart()
            assert in_task(client, accounts, "deposit", "a", 1, op_id=("s", 1)) == Receipt(2, 2, opened.epoch)
            assert accounts.balance("a") == Receipt(2, 2, opened.epoch)
