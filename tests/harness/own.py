"""Cells of the strategies in `own_accounts.py`, named as a user names a file of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.cells import Cell
from benchmarks.harness.workloads import UNIT_DEPOSITS
from strategies.interface import Caller, Fault

FILE = Path(__file__).with_name("own_accounts.py")


def own(class_name: str) -> str:
    return f"{FILE}:{class_name}"


def speed_cell(
    class_name: str,
    *,
    workload: str = "ycsb_a",
    variant: str = "default",
    caller: Caller = Caller.DRIVER,
    clients: int = 2,
    **form: Any,
) -> Cell:
    return Cell(own(class_name), variant, workload, caller, clients, **form)


def fault_cell(class_name: str, fault: Fault, *, variant: str = "default") -> Cell:
    return Cell(own(class_name), variant, UNIT_DEPOSITS.name, Caller.DRIVER, UNIT_DEPOSITS.accounts, fault)
