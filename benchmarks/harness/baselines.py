"""The scoreboard's contenders: strategies, the book's way, and the same work written by hand.

This module names strategies, as nothing else in the ruler does: each baseline is the bare form of one.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import statistics
import struct
import sys
import threading
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgpack

from benchmarks.harness import by_hand, workloads
from benchmarks.harness.banks import collect_garbage, open_accounts
from benchmarks.harness.driver_processes import DriverProcess, call_bank, open_bank
from benchmarks.harness.environment import WORKERS, Environment
from benchmarks.harness.history import BALANCE, DEPOSIT, TRANSFER, WITHDRAW
from benchmarks.harness.load import shipped_by_value
from benchmarks.harness.scoreboard import Block, Comparison, Row, Sense, measured
from benchmarks.harness.workloads import OPENING
from strategies.interface import (
    AccountError,
    Accounts,
    Batched,
    Function,
    Operation,
    OpId,
    Pipelined,
    load,
)
from strategies.redis_lua import SCRIPT, SCRIPT_OPERATIONS
from strategies.support.ledger_actor import LedgerActor
from strategies.support.wire import Batch

if TYPE_CHECKING:
    from distributed import Client

MIX = "ycsb_f:accounts=1000"
"""Reads, deposits and withdrawals, as every strategy can do them."""
WITH_TRANSFERS = "smallbank:accounts=1000"
"""Beside these, transfers: three of ten operations, of which three of four are between shards of a pool of four."""
BATCH = WINDOW = 1000
_CALLS = 40
"""Of a block whose figure is the median call."""
_BOOK_CALLS = 200
_CORES_TO_SCALE = 8
_PROCESSES = 4
_LEAD_S = 0.25
"""Until several processes begin, together: what each applies has arrived by then."""
_TIMEOUT_S = 10.0

BY_HAND_MOST = 1.25
"""What a strategy's call may take, over the same call by hand."""

_FUNCTIONS = {
    BALANCE: Function.BALANCE,
    DEPOSIT: Function.DEPOSIT,
    WITHDRAW: Function.WITHDRAW,
    TRANSFER: Function.TRANSFER,
}

_POOL, _SINGLE, _REDIS, _DICT = "actor_pool", "actor_single", "redis_lua", "driver_dict"
_DIRECT, _VOLATILE = "direct", "volatile"

COMPARISONS = (
    Comparison("pool_batched_over_book", "pool apply", "book", Sense.AT_LEAST, 500.0),
    Comparison("pool_submit_over_book_pipelined", "pool submit", "book pipelined", Sense.AT_LEAST, 60.0),
    Comparison("pool_batched_over_redis_batched", "pool apply", "redis apply", Sense.AT_LEAST, 1.0),
    Comparison("pool_submit_over_redis_submit", "pool submit", "redis submit", Sense.AT_LEAST, 1.0),
    Comparison("actor_call_over_comm_echo", "actor call", "comm echo", Sense.AT_MOST, 1.8),
    Comparison(
        "actor_call_over_redis_call", "actor call", "redis call", Sense.REPORT, note="the nearer to 2 the better"
    ),
    Comparison("redis_call_over_raw", "redis calls", "raw script calls", Sense.AT_LEAST, 0.95),
    Comparison("redis_batched_over_raw", "redis apply", "raw script batches", Sense.AT_LEAST, 0.8),
    Comparison("dict_call_over_bare", "dict calls", "bare dict", Sense.AT_LEAST, 0.5),
    Comparison("pool_transfers_over_redis_transfers", "pool apply with transfers", "redis apply with transfers"),
    Comparison("task_batched_over_driver_batched", "pool apply from 4 tasks", "pool apply"),
)


def scoreboard(environment: Environment, seed: int) -> list[Row]:
    """Measure every row in one run, all contenders by turns."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    scaling = Comparison(
        "pool_scaling_4",
        "4 shards from 4 processes",
        "1 shard from 1 process",
        Sense.AT_LEAST if cores >= _CORES_TO_SCALE else Sense.REPORT,
        2.5,
        f"on {cores} cores; the target is for {_CORES_TO_SCALE} and more",
    )
    with ExitStack() as stack:
        contenders = _contenders(environment, seed, stack)
        calls, comparisons = _single_calls(environment, stack)
        return measured(contenders | calls, [*COMPARISONS, scaling, *comparisons], seed)


def _single_calls(environment: Environment, stack: ExitStack) -> tuple[dict[str, Block], list[Comparison]]:
    """A call of each strategy beside the same by hand, of those whose resources are there; and their rows."""
    contenders: dict[str, Block] = {}
    comparisons = []
    for name in by_hand.names():
        kind = load(name)
        variant = kind.capabilities.variants[0]
        if environment.missing(kind.claims(variant)):
            continue
        context = environment.context(kind.claims(variant), variant, f"scoreboard-{uuid.uuid4().hex}", _TIMEOUT_S)
        accounts = stack.enter_context(kind.open(context))
        accounts.open_account("a")
        call, bare = f"{name}:{variant} call", f"{name} by hand"
        contenders[call] = _median_call(itertools.repeat(partial(accounts.deposit, "a", 1)))
        contenders[bare] = _median_call(itertools.repeat(stack.enter_context(by_hand.load(name)(context))))
        comparisons.append(Comparison(f"{name}_call_over_by_hand", call, bare, Sense.AT_MOST, BY_HAND_MOST))
    return contenders, comparisons


def _contenders(environment: Environment, seed: int, stack: ExitStack) -> dict[str, Block]:
    opened = partial(_opened, environment, stack)
    pool, redis = opened(_POOL, _DIRECT), opened(_REDIS, _VOLATILE)
    book = _book(environment.client, seed, stack)
    raw_calls, raw_batches = _raw_scripts(environment, seed, stack)
    drivers = environment.drivers(_PROCESSES + 1)
    return {
        "pool apply": _applying(pool, seed),
        "pool submit": _submitting(pool, seed),
        "redis apply": _applying(redis, seed),
        "redis submit": _submitting(redis, seed),
        "pool apply with transfers": _applying(pool, seed, WITH_TRANSFERS),
        "redis apply with transfers": _applying(redis, seed, WITH_TRANSFERS),
        "book": partial(book, 1),
        "book pipelined": partial(book, WINDOW),
        "actor call": _median_call(_deposits(opened(_SINGLE, _DIRECT))),
        "redis call": _median_call(_deposits(redis)),
        "comm echo": _echo(environment.client, stack),
        "redis calls": _calling(redis),
        "raw script calls": raw_calls,
        "raw script batches": raw_batches,
        "dict calls": _dict_calling(opened(_DICT, "default")),
        "bare dict": _bare_dict(),
        "pool apply from 4 tasks": _from_tasks(pool, environment.client, seed),
        "4 shards from 4 processes": _from_processes(environment, drivers[:_PROCESSES], seed, stack),
        "1 shard from 1 process": _from_processes(environment, drivers[_PROCESSES:], seed, stack),
    }


def _opened(environment: Environment, stack: ExitStack, strategy: str, variant: str) -> Accounts:
    kind = load(strategy)
    context = environment.context(kind.claims(variant), variant, f"scoreboard-{uuid.uuid4().hex}", _TIMEOUT_S)
    accounts = stack.enter_context(kind.open(context))
    open_accounts(accounts, _names())
    return accounts


def _names() -> list[str]:
    return workloads.load(MIX).account_names


# -- the operations of all rows --------------------------------------------------------------------


class Stream:
    """Operations without end, each with an op id of its own."""

    def __init__(self, seed: int, client: int = 0, mix: str = MIX) -> None:
        plan = workloads.load(mix).plan(seed, client, 1)
        names = _names()
        functions = [_FUNCTIONS[code] for code in plan.function.tolist()]
        accounts = [names[index] for index in plan.account.tolist()]
        targets = [None if index < 0 else names[index] for index in plan.target.tolist()]
        self._rows = itertools.cycle(zip(functions, accounts, plan.amount.tolist(), targets, strict=True))
        self._session = uuid.uuid4().hex
        self._numbers = itertools.count()

    def take(self, count: int) -> list[Operation]:
        """The next so many."""
        session = self._session
        return [
            Operation(function, account, amount, target, OpId(session, number))
            for (function, account, amount, target), number in zip(
                itertools.islice(self._rows, count), self._numbers, strict=False
            )
        ]


def _checked(answers: Sequence[object]) -> None:
    """Fast and wrong is no result: every operation is one that can be done."""
    for answer in answers:
        if isinstance(answer, AccountError):
            raise answer


def _begun() -> float:
    """When what is measured begins, once all is prepared."""
    collect_garbage()
    return time.perf_counter()


def apply_batches(accounts: Batched, batches: Sequence[Sequence[Operation]], at: float) -> tuple[int, float, float]:
    """Apply one after the other, from that time on; how many operations, and when that began and ended."""
    accounts.apply(batches[0][:1])  # connects
    gc.collect()
    time.sleep(max(0.0, at - time.time()))
    begin = time.time()
    answers = [accounts.apply(batch) for batch in batches]
    end = time.time()
    for each in answers:
        for answer in each:
            if isinstance(answer, AccountError):
                raise answer
    return sum(map(len, batches)), begin, end


def apply_packed(accounts: Batched, packed: bytes, at: float) -> tuple[int, float, float]:
    """The same with pickled batches."""
    return apply_batches(accounts, cloudpickle.loads(packed), at)


# -- strategies ------------------------------------------------------------------------------------


def _applying(accounts: Accounts, seed: int, mix: str = MIX, batches: int = 10) -> Block:
    assert isinstance(accounts, Batched)
    stream, apply = Stream(seed, mix=mix), accounts.apply

    def block() -> float:
        prepared = [stream.take(BATCH) for _ in range(batches)]
        begin = _begun()
        answers = [apply(batch) for batch in prepared]
        seconds = time.perf_counter() - begin
        for each in answers:
            _checked(each)
        return batches * BATCH / seconds

    return block


def _submitting(accounts: Accounts, seed: int, operations: int = 10_000) -> Block:
    assert isinstance(accounts, Pipelined)
    stream, submit = Stream(seed), accounts.submit

    def block() -> float:
        prepared = stream.take(operations)
        in_flight: deque[Any] = deque()
        begin = _begun()
        for operation in prepared:
            if len(in_flight) == WINDOW:
                in_flight.popleft().result()
            in_flight.append(submit(operation))
        for future in in_flight:
            future.result()
        return operations / (time.perf_counter() - begin)

    return block


def _deposits(accounts: Accounts) -> Iterator[Callable[[], object]]:
    session, account = uuid.uuid4().hex, _names()[0]
    for number in itertools.count():
        yield partial(accounts.deposit, account, 1, op_id=(session, number))


def _median_call(deposits: Iterator[Callable[[], object]]) -> Block:
    def block() -> float:
        seconds = []
        collect_garbage()
        for deposit in itertools.islice(deposits, _CALLS):
            begin = time.perf_counter()
            deposit()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    return block


def _calling(accounts: Accounts, calls: int = 300) -> Block:
    session, account = uuid.uuid4().hex, _names()[0]
    numbers = itertools.count()

    def block() -> float:
        deposit = accounts.deposit
        begin = _begun()
        for number in itertools.islice(numbers, calls):
            deposit(account, 1, op_id=(session, number))
        return calls / (time.perf_counter() - begin)

    return block


def _dict_calling(accounts: Accounts) -> Block:
    """Without op ids: remembering them is work that the bare code would have to do too."""
    return _timed_deposits(accounts.deposit)


def _timed_deposits(deposit: Callable[[str, int], object], calls: int = 50_000) -> Block:
    account = _names()[0]

    def block() -> float:
        begin = _begun()
        for _ in range(calls):
            deposit(account, 1)
        return calls / (time.perf_counter() - begin)

    return block


def _from_tasks(accounts: Accounts, client: Client, seed: int, tasks: int = 4, batches: int = 10) -> Block:
    streams = [Stream(seed, client=place) for place in range(tasks)]
    handle = cloudpickle.dumps(accounts)
    task = shipped_by_value(apply_batches)

    def block() -> float:
        packed = [_packed(stream, batches) for stream in streams]
        at = time.time() + _LEAD_S
        return _together(client.gather([client.submit(task, handle, each, at, pure=False) for each in packed]))

    return block


def _from_processes(
    environment: Environment, drivers: Sequence[DriverProcess], seed: int, stack: ExitStack, batches: int = 10
) -> Block:
    """As many shards as processes that call them."""
    kind = load(_POOL)
    bank = f"scoreboard-{uuid.uuid4().hex}"
    context = environment.context(kind.claims(_DIRECT), _DIRECT, bank, _TIMEOUT_S, len(drivers))
    open_accounts(stack.enter_context(kind.open(context)), _names())
    scheduler = environment.client.scheduler_info()["address"]
    for driver in drivers:
        driver.send(open_bank, _POOL, replace(context, client=None), scheduler, {}, _TIMEOUT_S)
    for driver in drivers:
        driver.answer()
    streams = [Stream(seed, client=place) for place in range(len(drivers))]

    def block() -> float:
        packed = [_packed(stream, batches) for stream in streams]
        at = time.time() + _LEAD_S
        for driver, each in zip(drivers, packed, strict=True):
            driver.send(call_bank, apply_packed, each, at)
        return _together([driver.answer() for driver in drivers])

    return block


def _packed(stream: Stream, batches: int) -> bytes:
    packed: bytes = cloudpickle.dumps([stream.take(BATCH) for _ in range(batches)])
    return packed


def _together(parts: Sequence[tuple[int, float, float]]) -> float:
    """Operations per second, from when the first began to when the last ended."""
    operations, begins, ends = zip(*parts, strict=True)
    rate: float = sum(operations) / (max(ends) - min(begins))
    return rate


# -- the book's way --------------------------------------------------------------------------------


def _book(client: Client, seed: int, stack: ExitStack) -> Callable[[int], float]:
    """A hashed pool of actors, one remote call an operation by Dask's own proxies, and then `.result()`.

    `in_flight` calls are made before the first result is asked for.
    """
    futures = [
        client.submit(LedgerActor, actor=True, pure=False, workers=[worker])
        for worker in sorted(client.nthreads())[:WORKERS]
    ]
    for future in futures:
        stack.callback(future.release)
    actors = [future.result() for future in futures]

    def of(account: str) -> Any:
        return actors[zlib.crc32(account.encode()) % len(actors)]

    for opened in [of(name).open_account(name, OPENING) for name in _names()]:
        opened.result()
    stream = Stream(seed)

    def block(in_flight: int) -> float:
        prepared = stream.take(_BOOK_CALLS if in_flight == 1 else 5 * in_flight // 4)
        begun: deque[Any] = deque()
        begin = _begun()
        for function, account, amount, _, op_id in prepared:
            if len(begun) == in_flight:
                begun.popleft().result()
            if function is Function.BALANCE:
                begun.append(of(account).balance(account))
            else:
                begun.append(getattr(of(account), function.value)(account, amount, op_id=op_id))
        for each in begun:
            each.result()
        return len(prepared) / (time.perf_counter() - begin)

    return block


# -- by hand ---------------------------------------------------------------------------------------


def _bare_dict() -> Block:
    lock = threading.Lock()
    state = dict.fromkeys(_names(), (1, OPENING))

    def deposit(account: str, amount: int) -> tuple[int, int]:
        if amount < 1:
            raise ValueError("an amount is at least 1")
        with lock:
            seq, balance = state[account]
            after = state[account] = (seq + 1, balance + amount)
        return after

    return _timed_deposits(deposit)


def _raw_scripts(environment: Environment, seed: int, stack: ExitStack) -> tuple[Block, Block]:
    """The strategy's script by `redis.Redis.evalsha`: single deposits, and batches."""
    import redis

    server = stack.enter_context(redis.Redis.from_url(environment.server(load(_REDIS).capabilities).url))
    names = _names()
    bank = f"{{raw-{uuid.uuid4().hex}}}"
    server.hset(f"{bank}:bank", mapping={"": 1} | {name: struct.pack("<dd", 1, OPENING) for name in names})
    digest = server.script_load(SCRIPT)

    def run(columns: tuple[object, ...], session: str) -> Any:
        packed = msgpack.packb(columns, use_bin_type=False)
        return server.evalsha(digest, 2, f"{bank}:bank", f"{bank}:session:{session}", 1, packed)

    numbers, session = itertools.count(), uuid.uuid4().hex

    def calls(count: int = 300) -> float:
        begin = _begun()
        for number in itertools.islice(numbers, count):
            run((b"\x01", (names[0],), (1,), (), (), (number,)), session)
        return count / (time.perf_counter() - begin)

    stream = Stream(seed)

    def batches(count: int = 10) -> float:
        prepared = [Batch.of(stream.take(SCRIPT_OPERATIONS)) for _ in range(count * BATCH // SCRIPT_OPERATIONS)]
        begin = _begun()
        for functions, accounts, amounts, targets, sessions, session_of, own_numbers, _ in prepared:
            columns = (functions, accounts, amounts, targets, session_of, own_numbers)
            msgpack.unpackb(run(columns, sessions[0]))
        return count * BATCH / (time.perf_counter() - begin)

    return calls, batches


def _echo(client: Client, stack: ExitStack) -> Block:
    """There and back over one open comm stream to a worker, in an event loop of its own."""
    from distributed.comm import connect

    worker = min(client.nthreads())
    address = client.run(_listening, workers=[worker])[worker]
    stack.callback(client.run, _stop_listening, workers=[worker])
    runner = stack.enter_context(asyncio.Runner())
    comm = runner.run(connect(address))

    async def hang_up() -> None:
        await comm.close()

    stack.callback(lambda: runner.run(hang_up()))

    async def exchange() -> float:
        seconds = []
        collect_garbage()
        for _ in range(_CALLS):
            begin = time.perf_counter()
            await comm.write(b"a deposit of 1 into an account, with its op id")
            await comm.read()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    return lambda: runner.run(exchange())


async def _listening(dask_worker: Any) -> str:
    from distributed.comm import CommClosedError, listen

    async def echo(comm: Any) -> None:
        try:
            while True:  # ends when the other side hangs up
                await comm.write(await comm.read())
        except CommClosedError:
            pass

    dask_worker.scoreboard_echo = await listen("tcp://127.0.0.1:0", echo)
    address: str = dask_worker.scoreboard_echo.contact_address
    return address


def _stop_listening(dask_worker: Any) -> None:
    dask_worker.scoreboard_echo.stop()


# To driver processes, which may not be able to import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
