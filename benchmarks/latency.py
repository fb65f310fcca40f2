"""asv: how long a call takes."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import asv_cells


class Latency(asv_cells.Speed):
    """Service time in a closed loop, four callers."""

    def track_latency_us_p50(self, cache: asv_cells.Cache, strategy: str, workload: str, caller: str) -> dict[str, Any]:
        """Half of the calls take at most this."""
        return self.samples("latency_us_p50")

    track_latency_us_p50.unit = "us"  # type: ignore[attr-defined]
    track_latency_us_p50.version = "2"  # type: ignore[attr-defined]

    def track_latency_us_p99(self, cache: asv_cells.Cache, strategy: str, workload: str, caller: str) -> dict[str, Any]:
        """99 of 100 calls take at most this."""
        return self.samples("latency_us_p99")

    track_latency_us_p99.unit = "us"  # type: ignore[attr-defined]
    track_latency_us_p99.version = "2"  # type: ignore[attr-defined]
