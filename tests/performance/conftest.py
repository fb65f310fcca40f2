"""pytest-benchmark's records are published: they name the machine's kind, not its host."""

from __future__ import annotations

from typing import Any


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)
