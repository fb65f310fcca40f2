"""Runs' folders made by hand, for tests of what reads them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from benchmarks.harness.cells import Status
from benchmarks.harness.records import Run, Trial

_numbers = itertools.count()


def trial(**changes: Any) -> Trial:
    """A speed trial that went well, but for the changes."""
    figures: dict[str, Any] = {
        "strategy": "vault",
        "variant": "default",
        "workload": "ycsb_a",
        "caller": "driver",
        "clients": 4,
        "repeat": 0,
        "seed": 1,
        "status": Status.OK,
        "durability": "volatile",
        "seconds": 1.0,
        "operations": 12345,
        "ops_per_s": 12345.0,
        "latency_us_p50": 70.5,
        "latency_us_p90": 80.0,
        "latency_us_p99": 912.0,
        "latency_us_max": 2000.0,
        "latency_kind": "service",
        "acknowledged": 12345,
        "acknowledged_lost": 0,
        "duplicated": 0,
        "indeterminate": 0,
        "indeterminate_applied": 0,
        "conserved": True,
        "linearizable": "yes",
        "trusted": True,
    }
    return Trial(**(figures | changes))


def fault_trial(**changes: Any) -> Trial:
    """A trial with a fault that cost something, as it was claimed, but for the changes."""
    figures: dict[str, Any] = {
        "workload": "unit_deposits",
        "fault": "worker_kill",
        "retry": "op_id",
        "seconds": 1.7,
        "fault_at_s": 0.4,
        "fault_lasts_s": 0.01,
        "acknowledged": 640,
        "acknowledged_lost": 123,
        "acknowledged_lost_amount": 456,
        "indeterminate": 7,
        "indeterminate_applied": 3,
        "unavailable_s": 1.25,
        "detection_s": 0.05,
        "recovery_s": None,
        "goodput_before_per_s": 401.0,
        "goodput_during_per_s": 302.0,
        "goodput_after_per_s": 203.0,
        "verdict": "as_claimed",
        "latency_kind": "response",
    }
    return trial(**(figures | changes))


def survivor(**changes: Any) -> Trial:
    """A trial with a fault that cost nothing."""
    kept = {"acknowledged_lost": 0, "acknowledged_lost_amount": 0, "unavailable_s": 0.2, "recovery_s": 0.15}
    return fault_trial(**(kept | changes))


def unmeasured(status: Status, reason: str, **changes: Any) -> Trial:
    """A trial without figures."""
    about: dict[str, Any] = {
        "strategy": "vault",
        "variant": "default",
        "workload": "ycsb_a",
        "caller": "driver",
        "clients": 4,
        "repeat": 0,
        "seed": 1,
        "status": status,
        "reason": reason,
        "durability": "volatile",
    }
    return Trial(**(about | changes))


def run_folder(parent: Path, *trials: Trial, finished: bool = True, about: dict[str, Any] | None = None) -> Path:
    """A run with these trials, and with these keys of `run.json` instead of its own."""
    own = {"command": "python -m benchmarks run --quick", "plan": {"seed": 1}}
    run = Run.start(parent / f"parent-{next(_numbers)}", own)
    if about is not None:
        run.about.update(about)
        (run.folder / "run.json").write_text(json.dumps(run.about))
    for each in trials:
        run.add(each)
    if finished:
        run.finish()
    return run.folder
