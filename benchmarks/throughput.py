"""asv: how many calls a strategy answers."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import asv_cells


class Throughput(asv_cells.Speed):
    """Closed loop, four callers. Gate on seconds: asv takes less for better, always."""

    def track_seconds_per_call(
        self, cache: asv_cells.Cache, strategy: str, workload: str, caller: str
    ) -> dict[str, Any]:
        """Time of the trial over its calls."""
        return {"samples": [1 / value for value in self.samples("ops_per_s")["samples"]], "number": 1}

    track_seconds_per_call.unit = "s"  # type: ignore[attr-defined]
    track_seconds_per_call.version = "2"  # type: ignore[attr-defined]

    def track_ops_per_s(self, cache: asv_cells.Cache, strategy: str, workload: str, caller: str) -> dict[str, Any]:
        """Answered calls."""
        return self.samples("ops_per_s")

    track_ops_per_s.unit = "calls/s"  # type: ignore[attr-defined]
    track_ops_per_s.version = "2"  # type: ignore[attr-defined]
    track_ops_per_s.higher_is_better = True  # type: ignore[attr-defined]
