"""The ruler measured: each row is a figure of its own behaviour, with the bound that it has to keep."""

from __future__ import annotations

import itertools
import math
import random
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.harness import load as loads
from benchmarks.harness import simulated, workloads
from benchmarks.harness.banks import collect_garbage
from benchmarks.harness.cells import Cell, Status, decide
from benchmarks.harness.environment import Environment
from benchmarks.harness.generator import Client, Share, generate, timed_in_turn
from benchmarks.harness.history import History
from benchmarks.harness.intervals import CALLED_CONFIDENCE, Difference, difference, ratio_paired
from benchmarks.harness.load import Arrivals, Load
from benchmarks.harness.measure import Settings, measure, trial_seed
from benchmarks.harness.search import PROBES, highest_rate
from benchmarks.harness.statistics import open_speed, speed
from strategies.interface import Accounts, Caller, load, names

_MIXED = "ycsb_a"
"""Reads and deposits, where the mix matters."""
_LEAST_CALLS = 5
"""In each half of a pair, however slow the strategy."""

AT_MOST, AT_LEAST = "<=", ">="

_WORKLOAD = "hot"
"""One function and one account: comparisons differ by nothing but the strategy."""


@dataclass(frozen=True)
class Row:
    """One property of the ruler."""

    row: str
    figure: float
    bound: float
    relation: str
    """`<=` or `>=`: how the figure must stand to the bound."""
    unit: str
    detail: str
    """What was done and counted, in one sentence."""
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        kept = self.figure <= self.bound if self.relation == AT_MOST else self.figure >= self.bound
        object.__setattr__(self, "holds", bool(kept))
        object.__setattr__(self, "figure", round(float(self.figure), 4))


@dataclass(frozen=True)
class Extent:
    """How much is done. The bounds are the same for all extents."""

    same_comparisons: int = 40
    same_pairs: int = 60
    slow_comparisons: int = 20
    slow_pairs: int = 800
    slowdown: float = 0.05
    slice_s: float = 0.004
    """Load of each half of a pair: shorter than a machine shared with others keeps one speed."""
    stall_rate_per_s: float = 200.0
    stall_seconds: float = 20.0
    searches: int = 5
    honesty_s: float = 1.0
    honesty_clients: tuple[int, ...] = (1, 4)
    overhead_blocks: int = 40
    memory_operations: int = 1_000_000


FULL = Extent()
SHORT = Extent(
    same_comparisons=10,
    same_pairs=20,
    slow_comparisons=2,
    slow_pairs=600,
    slowdown=0.2,
    stall_seconds=5.0,
    searches=2,
    honesty_s=0.3,
    honesty_clients=(1,),
    overhead_blocks=15,
    memory_operations=200_000,
)
"""So few pairs see a slowdown of a fifth, not of a twentieth; 300 missed one, beside three other test processes."""


def selftest(environment: Environment, seed: int, extent: Extent = FULL) -> Iterator[Row]:
    """Each row as soon as it is known."""
    rows = _runnable(environment)
    # First, while this process has no event loop yet that would take turns with its calls.
    yield _slower(environment, min(rows, key=lambda cell: len(cell.claims.needs)), seed, extent)
    yield _same_twice(environment, rows, seed, extent)
    fastest, fastest_per_s = _fastest(environment, rows, seed, extent)
    yield from _stall(seed, extent)
    yield _search(seed, extent)
    yield from _honesty(environment, fastest, fastest_per_s, extent)
    yield _overhead(extent)
    yield _memory(extent)


def _runnable(environment: Environment) -> list[Cell]:
    cells = [
        Cell(name, variant, _WORKLOAD, Caller.DRIVER, clients=1)
        for name in names()
        for variant in load(name).capabilities.variants
    ]
    return [cell for cell in cells if decide(cell, environment).status is Status.OK]


# -- comparisons -----------------------------------------------------------------------------------


def _same_twice(environment: Environment, rows: Sequence[Cell], seed: int, extent: Extent) -> Row:
    alarms = []
    for index in range(extent.same_comparisons):
        cell = rows[index % len(rows)]
        kind = simulated.slowed(cell.accounts, 0.0)
        if _compare(environment, cell, (kind, kind), extent.same_pairs, seed + index, extent) is not Difference.NONE:
            alarms.append(cell.row)
    return Row(
        "aa_false_alarms",
        len(alarms) / extent.same_comparisons,
        0.05,
        AT_MOST,
        "share",
        f"{len(alarms)} of {extent.same_comparisons} comparisons of a strategy with itself, over {len(rows)} rows, "
        f"saw a difference{': ' + ', '.join(alarms) if alarms else ''}",
    )


def _slower(environment: Environment, cell: Cell, seed: int, extent: Extent) -> Row:
    kinds = simulated.slowed(cell.accounts, 0.0), simulated.slowed(cell.accounts, extent.slowdown)
    found = [
        _compare(environment, cell, kinds, extent.slow_pairs, seed + index, extent)
        for index in range(extent.slow_comparisons)
    ]
    seen = found.count(Difference.ABOVE)
    return Row(
        f"power_{extent.slowdown * 100:g}_percent",
        seen / extent.slow_comparisons,
        0.95,
        AT_LEAST,
        "share",
        f"{cell.row} with every deposit made {extent.slowdown:.0%} longer was called slower in {seen} of "
        f"{extent.slow_comparisons} comparisons of {extent.slow_pairs} pairs",
    )


def _compare(
    environment: Environment,
    cell: Cell,
    kinds: tuple[type[Accounts], type[Accounts]],
    pairs: int,
    seed: int,
    extent: Extent,
) -> Difference:
    """Whether the second's calls take another time than the first's, from pairs of short loads in random order."""
    chance = random.Random(seed)
    service_s: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as stack:
        handles = [stack.enter_context(_opened(environment, cell, kind)) for kind in kinds]
        shares = [_one_share(_WORKLOAD, calls=_LEAST_CALLS) for _ in kinds]
        warm_s = min(timed_in_turn(handle, share)[0] for handle, share in zip(handles, shares, strict=True))
        calls = max(_LEAST_CALLS, int(_LEAST_CALLS / warm_s * extent.slice_s))
        collect_garbage()
        for _ in range(pairs):
            for side in chance.sample((0, 1), 2):
                share = _one_share(_WORKLOAD, calls)
                service_s[side].append(timed_in_turn(handles[side], share)[1] / calls)
    environment.drop_actors()
    return difference(ratio_paired(service_s[1], service_s[0], seed, CALLED_CONFIDENCE))


def _opened(environment: Environment, cell: Cell, kind: type[Accounts]) -> Accounts:
    bank = f"selftest-{uuid.uuid4().hex}"
    called_here_only = replace(cell.claims, callers=frozenset())
    accounts = kind.open(environment.context(called_here_only, cell.variant, bank, timeout_s=5.0))
    for name in cell.mix.account_names:
        accounts.open_account(name, workloads.OPENING)
    return accounts


def _offer(accounts: Accounts, load_: Load, seed: int, workload: str = _WORKLOAD) -> loads.Offered:
    return loads.in_driver(accounts, workloads.load(workload), load_, f"selftest-{uuid.uuid4().hex}", seed & 0xFFFFFFFF)


# -- open and closed loop --------------------------------------------------------------------------


def _stall(seed: int, extent: Extent) -> Iterator[Row]:
    rate_per_s, seconds, service_s, stall_s = extent.stall_rate_per_s, extent.stall_seconds, 0.001, 1.0
    worked_out_s = simulated.stalled_p99_s(rate_per_s, seconds, service_s, stall_s)

    def p99_s(load_: Load) -> float:
        backend = simulated.OneServer(service_s, stall_after_s=seconds / 3, stall_s=stall_s)
        offered = _offer(backend, load_, seed)
        found = (
            open_speed(offered.history, offered.due_s, 0.0, seconds)
            if load_.arrivals is not Arrivals.CLOSED
            else speed(offered.history, 0.0)
        ).latency_us["p99"]
        assert found is not None
        return found / 1e6

    open_s = p99_s(Load(4, seconds, Arrivals.CONSTANT, rate_per_s))
    closed_s = p99_s(Load(1, seconds))
    yield Row(
        "stall_open_loop_p99_error",
        abs(open_s / worked_out_s - 1),
        0.05,
        AT_MOST,
        "share",
        f"a backend of {service_s * 1e3:g} ms that stalls once for {stall_s:g} s in {seconds:g} s at "
        f"{rate_per_s:g}/s: p99 {open_s * 1e3:.0f} ms, worked out {worked_out_s * 1e3:.0f} ms; a closed loop's p99 of "
        f"the same backend is {closed_s * 1e3:.2f} ms, {worked_out_s / closed_s:.0f} times too low",
    )


# -- search ----------------------------------------------------------------------------------------

_SEARCH_SERVICE_S = 0.001
_SEARCH_TARGET_US = 10_000.0
_SEARCH_OPERATIONS = 40_000


def _search(seed: int, extent: Extent) -> Row:
    """Against one server with exponential service times, simulated without waiting."""
    step = 0.01
    grid = np.arange(0.3, 1.0, step) / _SEARCH_SERVICE_S
    errors = []
    for index in range(extent.searches):
        keeps = _queue_keeps(seed + index)
        best = max(rate for rate in grid.tolist() if keeps(rate))
        # From a closed loop's guess that is off by a third, one way and the other.
        found = highest_rate(keeps, first_per_s=(1.33 if index % 2 else 0.67) / _SEARCH_SERVICE_S, probes=PROBES)
        errors.append(abs((found.rate_per_s or 0.0) / best - 1))
    return Row(
        "search_rate_error",
        max(errors),
        0.05,
        AT_MOST,
        "share",
        f"the highest rate with a p99 of {_SEARCH_TARGET_US / 1e3:g} ms, in {PROBES} probes, beside the best of "
        f"{len(grid)} rates tried in turn: the worst of {extent.searches} searches",
    )


def _queue_keeps(seed: int) -> Callable[[float], bool]:
    probe = itertools.count()

    def keeps(rate_per_s: float) -> bool:
        # A new draw for every probe, as in a real search.
        chance = np.random.default_rng([seed, next(probe)])
        due_s = np.cumsum(chance.exponential(1 / rate_per_s, size=_SEARCH_OPERATIONS))
        history = simulated.queue(due_s, chance.exponential(_SEARCH_SERVICE_S, size=_SEARCH_OPERATIONS))
        p99_us = open_speed(history, due_s, 0.0, float(due_s[-1])).latency_us["p99"]
        return p99_us is not None and p99_us <= _SEARCH_TARGET_US

    return keeps


# -- the generator ---------------------------------------------------------------------------------


def _fastest(environment: Environment, rows: Sequence[Cell], seed: int, extent: Extent) -> tuple[Cell, float]:
    """The cell, of all strategies, callers and one or four clients, that answers most in a closed loop."""
    settings = Settings(seconds=extent.honesty_s, warmup_s=extent.honesty_s / 4)
    best: tuple[Cell, float] | None = None
    for row, caller, clients in itertools.product(rows, Caller, extent.honesty_clients):
        cell = replace(row, caller=caller, clients=clients)
        trial = measure(cell, environment, settings, 0, trial_seed(seed, cell, 0))
        if trial.ops_per_s is not None and (best is None or trial.ops_per_s > best[1]):
            best = cell, trial.ops_per_s
    if best is None:
        raise RuntimeError("no strategy could be measured here, so nothing says what a generator has to reach")
    return replace(best[0], caller=Caller.DRIVER, clients=1), best[1]


def _honesty(environment: Environment, fastest: Cell, fastest_per_s: float, extent: Extent) -> Iterator[Row]:
    rate_per_s = 2.1 * fastest_per_s
    workload = workloads.load(_WORKLOAD)
    for drivers in (1, 2, 4):
        offered = loads.in_drivers(
            simulated.NoOp(),
            workload,
            Load(drivers, extent.honesty_s, Arrivals.CONSTANT, rate_per_s),
            f"selftest-{uuid.uuid4().hex}",
            0,
            environment.drivers(drivers),
        )
        found = open_speed(offered.history, offered.due_s, 0.0, extent.honesty_s)
        achieved = found.achieved_ratio or 0.0
        if achieved >= 0.99:
            break
    how = f"{drivers} driver process{'es' if drivers > 1 else ''}, an open loop and a backend that does nothing"
    yield Row(
        "generator_over_fastest",
        found.ops_per_s / fastest_per_s,
        2.0,
        AT_LEAST,
        "times",
        f"{found.ops_per_s:,.0f}/s from {how}; the fastest strategy, {fastest.row}, answers {fastest_per_s:,.0f}/s",
    )
    yield Row(
        "generator_achieved_ratio",
        math.floor(achieved * 1e4) / 1e4,
        0.99,
        AT_LEAST,
        "share",
        f"of {rate_per_s:,.0f}/s offered by {how}",
    )


def _overhead(extent: Extent) -> Row:
    """Recording beside the same loop, time limit and all, that writes nothing down."""
    calls = 20_000
    recorded_s, bare_s = [], []
    for _ in range(extent.overhead_blocks):
        recorded_s.append(timed_in_turn(simulated.NoOp(), _one_share(_MIXED, calls), record=True)[0])
        bare_s.append(timed_in_turn(simulated.NoOp(), _one_share(_MIXED, calls), record=False)[0])
    cost_us = (min(recorded_s) - min(bare_s)) / calls * 1e6
    return Row(
        "recording_us_per_operation",
        cost_us,
        0.5,
        AT_MOST,
        "us",
        f"the least of {extent.overhead_blocks} blocks of {calls:,} calls with recording, less the least without: "
        "what else runs on a machine only adds",
    )


def _memory(extent: Extent) -> Row:
    """At its worst: while the columns of four clients are merged."""
    operations, clients = extent.memory_operations, 4
    plan = workloads.load(_MIXED).plan(0, 0, 1)
    share = replace(
        _one_share(_MIXED, operations // clients),
        clients=tuple(Client(index, plan.function, plan.account, plan.target, plan.amount) for index in range(clients)),
        seconds=3600.0,
    )
    tracemalloc.start()
    try:
        part = generate(simulated.NoOp(), share)
        history = History.merged(part.columns)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(history) == operations
    return Row(
        "memory_mb_per_million",
        peak / operations,
        100.0,
        AT_MOST,
        "MB",
        f"the most that recording and merging {operations:,} operations of {clients} clients held",
    )


def _one_share(workload: str, calls: int) -> Share:
    """So many calls of one client, in a session of its own."""
    plan = workloads.load(workload).plan(0, 0, 1)
    rows = slice(0, min(calls, workloads.PLAN_LENGTH))
    client = Client(0, plan.function[rows], plan.account[rows], plan.target[rows], plan.amount[rows])
    return Share(session=f"selftest-{uuid.uuid4().hex}", clients=(client,), seconds=3600.0, start_ns=0, capacity=calls)
