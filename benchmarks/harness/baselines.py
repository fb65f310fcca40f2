"""The same calls written by hand, without the interface: what each strategy's overhead is measured against.

This module names strategies, as nothing else in the ruler does: each baseline is the bare form of one.
"""

from __future__ import annotations

import struct
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgpack

from benchmarks.harness.environment import Environment
from benchmarks.harness.intervals import ratio_paired
from strategies.interface import Accounts, Durability, load
from strategies.redis_lua import SCRIPT
from strategies.support.ledger_actor import LedgerActor

if TYPE_CHECKING:
    from distributed import Client

Loop = Callable[[int], float]
"""Makes so many deposits into one account, one after another; returns the seconds that took."""

_ACCOUNT = "account"
_BLOCKS = 15
_BLOCK_S = 0.12


@dataclass(frozen=True)
class Row:
    """A strategy beside its bare form: ratio of calls per second, with a 95 % interval over paired blocks."""

    row: str
    ratio: float
    low: float
    high: float
    target: float
    verdict: str
    """`holds` or `short`: the ratio against the target."""


def scoreboard(environment: Environment, seed: int) -> list[Row]:
    """Measure every row in one run, each pair in alternating blocks."""
    return [
        _row("dict_call_over_bare", 0.5, _dict, environment, seed),
        _row("redis_call_over_raw", 0.9, _redis, environment, seed),
        _row("actor_call_over_bare_proxied", 0.95, _actor_proxied, environment, seed),
        _row("actor_call_over_bare_direct", 0.95, _actor_direct, environment, seed),
    ]


def _row(
    name: str,
    target: float,
    pair: Callable[[Environment, ExitStack], tuple[Loop, Loop]],
    environment: Environment,
    seed: int,
) -> Row:
    with ExitStack() as stack:
        strategy_s, bare_s = _in_blocks(*pair(environment, stack))
    # Calls per second are the inverse of seconds.
    found = ratio_paired(bare_s, strategy_s, seed)
    assert found.low is not None
    assert found.high is not None
    verdict = "holds" if found.value >= target else "short"
    return Row(name, round(found.value, 4), round(found.low, 4), round(found.high, 4), target, verdict)


def _in_blocks(strategy: Loop, bare: Loop) -> tuple[list[float], list[float]]:
    """Seconds of each, block by block, taking turns at going first."""
    calls = max(10, int(_BLOCK_S / (bare(20) / 20)))
    strategy(calls)
    bare(calls)
    strategy_s, bare_s = [], []
    for block in range(_BLOCKS):
        if block % 2:
            bare_s.append(bare(calls))
            strategy_s.append(strategy(calls))
        else:
            strategy_s.append(strategy(calls))
            bare_s.append(bare(calls))
    return strategy_s, bare_s


def _deposits(accounts: Accounts) -> Loop:
    accounts.open_account(_ACCOUNT)
    session = uuid.uuid4().hex
    number = iter(range(2**53))

    def loop(calls: int) -> float:
        deposit = accounts.deposit
        begin = time.perf_counter()
        for _ in range(calls):
            deposit(_ACCOUNT, 1, op_id=(session, next(number)))
        return time.perf_counter() - begin

    return loop


def _opened(strategy: str, variant: str, environment: Environment, stack: ExitStack) -> Accounts:
    kind = load(strategy)
    context = environment.context(kind.claims(variant), variant, f"baseline-{uuid.uuid4().hex}", timeout_s=5.0)
    return stack.enter_context(kind.open(context))


def _dict(environment: Environment, stack: ExitStack) -> tuple[Loop, Loop]:
    """Both without op ids: remembering them is work that the bare code would have to do too."""
    accounts = _opened("driver_dict", "default", environment, stack)
    accounts.open_account(_ACCOUNT)
    lock = threading.Lock()
    state = {_ACCOUNT: (1, 0)}

    def bare_deposit(account: str, amount: int) -> tuple[int, int]:
        if amount < 1:
            raise ValueError("an amount is at least 1")
        with lock:
            seq, balance = state[account]
            after = state[account] = (seq + 1, balance + amount)
        return after

    def loop_of(deposit: Callable[[str, int], object]) -> Loop:
        def loop(calls: int) -> float:
            begin = time.perf_counter()
            for _ in range(calls):
                deposit(_ACCOUNT, 1)
            return time.perf_counter() - begin

        return loop

    return loop_of(accounts.deposit), loop_of(bare_deposit)


def _redis(environment: Environment, stack: ExitStack) -> tuple[Loop, Loop]:
    """The same script and arguments, by `redis.Redis.evalsha`."""
    import redis

    strategy = _deposits(_opened("redis_lua", "volatile", environment, stack))
    server = stack.enter_context(redis.Redis.from_url(environment.redis_server(Durability.VOLATILE).url))
    name = f"{{raw-{uuid.uuid4().hex}}}"
    keys = (f"{name}:bank", f"{name}:session:{uuid.uuid4().hex}")
    server.hset(keys[0], mapping={"": 1, "a": struct.pack("<dd", 1, 0)})
    digest = server.script_load(SCRIPT)
    number = iter(range(2**53))

    def bare(calls: int) -> float:
        evalsha, packed = server.evalsha, msgpack.packb
        begin = time.perf_counter()
        for _ in range(calls):
            columns = (b"\x01", ("a",), (1,), (), (), (next(number),))
            evalsha(digest, 2, *keys, 1, packed(columns, use_bin_type=False))
        return time.perf_counter() - begin

    return strategy, bare


def _actor_proxied(environment: Environment, stack: ExitStack) -> tuple[Loop, Loop]:
    return _deposits(_opened("actor_single", "proxied", environment, stack)), _bare_actor(environment.client, stack)


def _actor_direct(environment: Environment, stack: ExitStack) -> tuple[Loop, Loop]:
    from distributed import Client

    # An actor's calls go by the newest client of the process: both sides get this one.
    client = stack.enter_context(Client(environment.client.scheduler_info()["address"], direct_to_workers=True))
    kind = load("actor_single")
    context = replace(
        environment.context(kind.claims("direct"), "direct", f"baseline-{uuid.uuid4().hex}", 5.0), client=client
    )
    return _deposits(stack.enter_context(kind.open(context))), _bare_actor(client, stack)


def _bare_actor(client: Client, stack: ExitStack) -> Loop:
    """`actor.method(...).result()` on an actor of the same class."""
    future = client.submit(LedgerActor, actor=True, pure=False)
    stack.callback(future.release)
    actor = future.result()
    actor.open_account(_ACCOUNT).result()
    session = uuid.uuid4().hex
    number = iter(range(2**53))

    def loop(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            actor.deposit(_ACCOUNT, 1, op_id=(session, next(number))).result()
        return time.perf_counter() - begin

    return loop
