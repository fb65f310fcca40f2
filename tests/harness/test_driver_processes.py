"""Driver processes: what they are sent they call, and they outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.driver_processes import DriverFailed, DriverProcess, connect
from benchmarks.harness.environment import Environment
from tests.harness.commands import GONE_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def driver() -> Iterator[DriverProcess]:
    with DriverProcess() as started:
        yield started


def assert_gone(pid: int) -> None:
    """Ended, though perhaps nobody has asked how: an orphan's new parent may take its time."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        deadline = time.monotonic() + GONE_S
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.02)


def test_it_calls_what_it_is_sent(driver: DriverProcess) -> None:
    driver.send(os.getpid)
    assert driver.answer() == driver.pid != os.getpid()
    driver.send(lambda *numbers: sum(numbers), 1, 2, 3)
    assert driver.answer() == 6
    driver.send(bytes, 3_000_000)
    assert driver.answer() == bytes(3_000_000)
    driver.send(len, bytes(3_000_000))
    assert driver.answer() == 3_000_000


def test_what_is_printed_there_does_not_get_into_the_answers(driver: DriverProcess) -> None:
    def speaks() -> str:
        os.write(1, b"beneath Python")
        print("hello", flush=True)
        return "answer"

    driver.send(speaks)
    assert driver.answer() == "answer"


def test_an_error_is_one_sentence_and_not_the_end(driver: DriverProcess) -> None:
    driver.send(int, "no number")
    with pytest.raises(DriverFailed, match=r"^ValueError: invalid literal for int\(\) with base 10: 'no number'$"):
        driver.answer()
    driver.send(sys.exit, 3)
    with pytest.raises(DriverFailed, match=r"^SystemExit: 3$"):
        driver.answer()
    driver.send(len, "four")
    assert driver.answer() == 4


def test_an_answer_that_cannot_travel_is_an_error(driver: DriverProcess) -> None:
    driver.send(threading.Lock)
    with pytest.raises(DriverFailed, match="cannot pickle"):
        driver.answer()
    driver.send(len, "four")
    assert driver.answer() == 4


def test_one_that_was_killed_is_gone(driver: DriverProcess) -> None:
    driver.send(time.sleep, 600)
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(DriverFailed, match=f"^driver process {driver.pid} is gone$"):
        driver.answer()
    with pytest.raises(DriverFailed, match=f"^driver process {driver.pid} is gone$"):
        driver.send(len, bytes(1_000_000))


def test_one_that_was_killed_in_the_middle_of_an_answer_is_gone(driver: DriverProcess) -> None:
    """More than a pipe holds, so that it cannot have written all of it."""
    driver.send(lambda: bytes(10_000_000))
    assert driver._process.stdout is not None
    driver._process.stdout.peek(1)  # type: ignore[attr-defined]
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(DriverFailed, match="is gone"):
        driver.answer()


def test_one_that_does_not_answer_is_killed(driver: DriverProcess) -> None:
    driver.send(time.sleep, 600)
    with pytest.raises(DriverFailed, match=r"did not answer within 0\.2 s"):
        driver.answer(patience_s=0.2)
    assert_gone(driver.pid)


def test_closing_ends_it_in_the_middle_of_a_call_too() -> None:
    for busy in (False, True):
        with DriverProcess() as driver:
            if busy:
                driver.send(time.sleep, 600)
        assert_gone(driver.pid)


def test_closing_one_that_is_gone() -> None:
    with DriverProcess() as driver:
        os.kill(driver.pid, signal.SIGKILL)
    driver.close()
    assert_gone(driver.pid)


def test_ctrl_c_waits_for_no_call() -> None:
    driver = DriverProcess()
    with suppress(KeyboardInterrupt), driver:
        driver.send(time.sleep, 600)
        raise KeyboardInterrupt
    assert_gone(driver.pid)


PARENT = """
import sys, time
from benchmarks.harness.driver_processes import DriverProcess
drivers = [DriverProcess() for _ in range(3)]
drivers[1].send(time.sleep, 600)
drivers[2].send(exec, "while True: pass")
drivers[0].send(len, "ready")
drivers[0].answer()
print(*(driver.pid for driver in drivers), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_they_die_with_their_parent_whatever_they_do(how: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    parent.send_signal(how)
    parent.wait()
    parent.stdout.close()
    for pid in pids:
        assert_gone(pid)


def test_it_is_a_dask_client_of_its_own(environment: Environment, driver: DriverProcess) -> None:
    driver.send(connect, environment.client.scheduler_info()["address"])
    driver.answer()

    def workers_seen() -> int:
        import gc

        from distributed import default_client

        gc.collect()  # nobody holds the client but Dask
        return len(default_client().nthreads())

    driver.send(workers_seen)
    assert driver.answer() == len(environment.client.nthreads())


def test_a_scheduler_that_is_not_there(driver: DriverProcess) -> None:
    def connect_soon(address: str) -> None:
        import dask

        from benchmarks.harness.driver_processes import connect

        with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
            connect(address)

    driver.send(connect_soon, "tcp://127.0.0.1:1")
    with pytest.raises(DriverFailed, match="OSError"):
        driver.answer()
