"""asv: what a fault costs."""

from __future__ import annotations

from benchmarks.harness import asv_cells
from benchmarks.harness.failure_figures import never_recovered, recovered_s
from benchmarks.harness.intervals import median


class Failure(asv_cells.Faults):
    """Unit deposits around a fault. Medians over trials, and counts of trials."""

    def track_acknowledged_lost(self, cache: asv_cells.Cache, strategy: str, fault: str) -> float:
        """Acknowledged deposits that were gone afterwards."""
        return self._median("acknowledged_lost")

    track_acknowledged_lost.unit = "deposits"  # type: ignore[attr-defined]
    track_acknowledged_lost.version = "3"  # type: ignore[attr-defined]

    def track_duplicated(self, cache: asv_cells.Cache, strategy: str, fault: str) -> float:
        """Deposits that were there afterwards and nobody had asked for."""
        return self._median("duplicated")

    track_duplicated.unit = "deposits"  # type: ignore[attr-defined]
    track_duplicated.version = "3"  # type: ignore[attr-defined]

    def track_unavailable_s(self, cache: asv_cells.Cache, strategy: str, fault: str) -> float:
        """Longest time for which some account was not served, at most until the end of the load."""
        return self._median("unavailable_s")

    track_unavailable_s.unit = "s"  # type: ignore[attr-defined]
    track_unavailable_s.version = "3"  # type: ignore[attr-defined]

    def track_recovery_s(self, cache: asv_cells.Cache, strategy: str, fault: str) -> float:
        """Until all accounts were served again; the rest of the load where that never came, 0 where nobody asked."""
        return median([recovered_s(trial) or 0.0 for trial in self.trials]).value

    track_recovery_s.unit = "s"  # type: ignore[attr-defined]
    track_recovery_s.version = "3"  # type: ignore[attr-defined]

    def track_never_recovered(self, cache: asv_cells.Cache, strategy: str, fault: str) -> int:
        """Trials in which some account was not served again."""
        return sum(map(never_recovered, self.trials))

    track_never_recovered.unit = "trials"  # type: ignore[attr-defined]
    track_never_recovered.version = "3"  # type: ignore[attr-defined]

    def _median(self, figure: str) -> float:
        """Raises ValueError, which asv shows as a failure, where a trial could not be judged."""
        values = [getattr(trial, figure) for trial in self.trials]
        if None in values:
            raise ValueError(f"{figure} is not known: {self.trials[values.index(None)].distrust}")
        return median(values).value
