"""A run as large as a full one: thirty rows, every workload, every fault, and all that can become of a trial."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import workloads
from benchmarks.harness.cells import Status
from benchmarks.harness.records import Trial
from strategies.interface import Caller, Durability, Fault
from tests.harness.runs import fault_trial, run_folder, survivor, trial, unmeasured

ROWS = [
    (strategy, variant, durability)
    for strategy, classes in (
        ("driver_dictionary", ["volatile"]),
        ("actor_for_each_account", ["volatile", "volatile"]),
        ("actor_for_all", ["volatile", "volatile"]),
        ("pool_of_actors", ["volatile", "volatile"]),
        ("recoverable_pool_of_actors", ["process_crash", "power_loss"]),
        ("key_value_store", ["volatile", "process_crash", "power_loss"]),
        ("embedded_database", ["process_crash", "power_loss"]),
        ("database_server", ["process_crash", "power_loss", "replicated"]),
        ("coordination_service", ["power_loss", "replicated", "replicated"]),
        ("other_actors", ["volatile", "process_crash", "replicated"]),
        ("actors_on_the_jvm", ["volatile", "process_crash", "power_loss", "replicated"]),
        ("write_behind", ["volatile", "process_crash", "power_loss"]),
    )
    for variant, durability in zip(
        ("default", "direct", "proxied", "four_nodes"),
        (Durability(each) for each in classes),
        strict=False,
    )
]

_SEED = 7
_UNMEASURED = {
    3: (Status.RESOURCE_MISSING, "no program of it is installed; run: make java"),
    11: (Status.FAILED, "TimeoutError: 4 tasks did not end within 60 s"),
    17: (Status.NOT_APPLICABLE, "it claims no calls from a task"),
}
"""By the place of a row."""


def folder(parent: Path, repeats: int = 3, fault_repeats: int = 2) -> Path:
    """The run."""
    return run_folder(parent, *_speed(repeats), *_faults(fault_repeats))


def _speed(repeats: int) -> Iterator[Trial]:
    chance = random.Random(_SEED)
    for place, (strategy, variant, durability) in enumerate(ROWS):
        base = 10 ** chance.uniform(2.3, 4.6)
        for workload, caller, repeat in itertools.product(workloads.names(), Caller, range(repeats)):
            about = {
                "strategy": strategy,
                "variant": variant,
                "durability": durability,
                "workload": workload,
                "caller": caller,
                "repeat": repeat,
            }
            if place in _UNMEASURED and (caller is Caller.TASK or place != 17):
                yield unmeasured(*_UNMEASURED[place], **about)
                continue
            rate = base * chance.uniform(0.6, 1.4)
            p50 = 4e6 / rate
            doubtful = place == 5 and repeat == 1
            yield trial(
                **about,
                ops_per_s=rate,
                operations=int(rate),
                latency_us_p50=p50,
                latency_us_p90=p50 * 1.7,
                latency_us_p99=None if place % 9 == 8 else p50 * 5,
                latency_us_p999=None if place % 2 else p50 * 11,
                latency_us_max=p50 * 30,
                trusted=not doubtful,
                distrust="the clock jumped" if doubtful else None,
            )


def _faults(repeats: int) -> Iterator[Trial]:
    chance = random.Random(_SEED)
    for place, (strategy, variant, durability) in enumerate(ROWS):
        for fault, caller, retry, repeat in itertools.product(
            Fault, Caller, ("none", "naive", "op_id"), range(repeats)
        ):
            about = {
                "strategy": strategy,
                "variant": variant,
                "durability": durability,
                "fault": fault,
                "caller": caller,
                "retry": retry,
                "repeat": repeat,
                "workload": "unit_deposits",
            }
            if place in _UNMEASURED:
                yield unmeasured(*_UNMEASURED[place], **about)
            elif chance.random() < 0.6:
                yield survivor(**about, violations=None)
            else:
                yield fault_trial(**about, duplicated=chance.choice([0, 44]))
