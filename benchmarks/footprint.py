"""asv: what a strategy costs before it does anything."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import asv_cells


class Footprint(asv_cells.Footprints):
    """Of an open strategy in its own environment."""

    def track_open_s(self, cache: Any, strategy: str) -> float:
        """Time of `open` on a blank bank."""
        return self.open_s

    track_open_s.unit = "s"  # type: ignore[attr-defined]
    track_open_s.version = "1"  # type: ignore[attr-defined]

    def track_bytes_per_account(self, cache: Any, strategy: str) -> float:
        """Growth of memory per account, over driver, workers and server."""
        return self.bytes_per_account

    track_bytes_per_account.unit = "bytes"  # type: ignore[attr-defined]
    track_bytes_per_account.version = "1"  # type: ignore[attr-defined]
