"""What it takes to have a strategy running, measured from nothing.

`python -m benchmarks.harness.deployment STRATEGY VARIANT` is one trial, in a process of its own, so that nothing is
imported or running when it begins; it prints JSON.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import code_size, servers
from benchmarks.harness.book_columns import IN_DASK
from benchmarks.harness.environment import Environment
from benchmarks.harness.servers import Server
from strategies.interface import load

TRIAL_S = 120.0
"""At most so long for one trial."""
CALLS, WARMUP_CALLS = 300, 50
TASKS, WARMUP_TASKS = 100, 20

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 30.0
"""Of each call. Only a busy machine comes near it."""


class DeploymentFailed(RuntimeError):
    """A trial did not come to its end; the message says why."""


@dataclass(frozen=True)
class Deployed:
    """One trial."""

    first_ack_s: float
    """From nothing but Python running to the first acknowledged operation: clients imported, servers started, and
    where the state lives in Dask, a cluster raised."""
    dask_s: float
    """Of that, until the cluster was there; 0 where none is needed."""
    open_s: float
    """Of that, in `open`."""
    processes: int
    """That hold state beside the caller's process and Dask's cluster, which a Dask program has anyway."""
    ports: int
    """That these processes, or the strategy in the caller's, listen on."""
    settings: int
    """That must be right: fields of the context, and what the harness sets of the server."""
    call_us_p50: float
    """One deposit at a time, from the driver."""
    task_us_p50: float | None
    """Of an empty `dask.delayed` task, one at a time, in the same process; None where there is no cluster."""


def trial(strategy: str, variant: str) -> Deployed:
    """In a new process.

    Raises:
        DeploymentFailed: it failed, or took longer than `TRIAL_S`.
    """
    command = [sys.executable, "-m", __name__, strategy, variant]
    try:
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=TRIAL_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DeploymentFailed(f"{strategy}:{variant} was not running within {TRIAL_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DeploymentFailed(f"{strategy}:{variant} could not be deployed: {last}")
    return Deployed(**json.loads(done.stdout))


def measured(strategy: str, variant: str) -> Deployed:
    """In this process, in which nothing runs yet."""
    kind = load(strategy)
    claims = kind.claims(variant)
    in_dask = bool(claims.needs & IN_DASK)
    # The driver is the caller: a cluster is raised where the state needs one, and not for tasks that call.
    needed = claims if in_dask else replace(claims, callers=frozenset())
    begin_s = time.perf_counter()
    with Environment() as environment:
        dask_s = 0.0
        if in_dask:
            _ = environment.client
            dask_s = time.perf_counter() - begin_s
        own_ports = _ports([psutil.Process()])
        context = environment.context(needed, variant, f"bench-{uuid.uuid4().hex}", _TIMEOUT_S)
        open_from_s = time.perf_counter()
        with kind.open(context) as accounts:
            open_s = time.perf_counter() - open_from_s
            accounts.open_account("account-0", 0, op_id=("deployment", 1))
            first_ack_s = time.perf_counter() - begin_s
            server = None if servers.kind_for(claims) is None else environment.server(claims)
            processes = [] if server is None else _with_descendants(server.pids)
            ports = (_ports([psutil.Process()]) - own_ports) | _ports(processes)
            numbers = itertools.count(2)
            call_s = _median_s(
                CALLS, WARMUP_CALLS, lambda: accounts.deposit("account-0", 1, op_id=("deployment", next(numbers)))
            )
            task_s = _median_task_s() if in_dask else None
        return Deployed(
            first_ack_s=round(first_ack_s, 4),
            dask_s=round(dask_s, 4),
            open_s=round(open_s, 4),
            processes=len(processes),
            ports=len(ports),
            settings=len(code_size.context_fields(claims)) + (0 if server is None else settings_of(server)),
            call_us_p50=round(1e6 * call_s, 1),
            task_us_p50=None if task_s is None else round(1e6 * task_s, 1),
        )


def settings_of(server: Server) -> int:
    """What the harness sets of a running server: options of its command line, and lines of the files they name.

    Files count that were made for it, which lie beside its data.
    """
    made = server.directory.parent.resolve()
    lines = 0
    for argument in server.command:
        path = Path(argument.rpartition("=")[2])
        if path.is_absolute() and path.is_file() and path.resolve().is_relative_to(made):
            lines += sum(_is_setting(line) for line in path.read_text(errors="replace").splitlines())
    return sum(argument.startswith("-") for argument in server.command) + lines


def _is_setting(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith(("#", "//", "}"))


def _with_descendants(pids: Iterable[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def _ports(processes: Iterable[psutil.Process]) -> set[int]:
    found: set[int] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections(kind="inet")
            found |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return found


def _median_task_s() -> float:
    import dask

    return _median_s(TASKS, WARMUP_TASKS, lambda: dask.delayed(int)(1).compute())


def _median_s(calls: int, warmup: int, call: Callable[[], Any]) -> float:
    for _ in range(warmup):
        call()
    times = []
    for _ in range(calls):
        begin_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin_s)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(asdict(measured(*sys.argv[1:])), allow_nan=False))
