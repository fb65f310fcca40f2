"""The ruler keeps its bounds, on a small scale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.selftests import AT_LEAST, AT_MOST, Row

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_SPARE_CORES = {"recording_us_per_operation", "generator_over_fastest", "generator_achieved_ratio"}
"""What a machine that runs other tests meanwhile may be too slow for. The recorded selftest has them too."""


def test_a_short_selftest_keeps_its_bounds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "selftest", "--short", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = {row["row"]: row for row in json.loads(done.stdout)["selftest"]}
    assert len(rows) == 8, done.stderr
    assert done.returncode == (0 if all(row["holds"] for row in rows.values()) else 1)
    for name, row in rows.items():
        assert row["holds"] or name in WITHOUT_SPARE_CORES, row
        assert row["figure"] >= 0


@pytest.mark.parametrize(
    ("figure", "relation", "holds"),
    [(0.05, AT_MOST, True), (0.051, AT_MOST, False), (0.95, AT_LEAST, True), (0.949, AT_LEAST, False)],
)
def test_a_row_holds_by_its_figure_alone(figure: float, relation: str, *, holds: bool) -> None:
    bound = 0.05 if relation == AT_MOST else 0.95
    assert Row("some", figure, bound, relation, "share", "how").holds is holds
    assert not Row("some", float("nan"), bound, relation, "share", "how").holds
