"""README.md and docs/method.md tell what recorded results say: `make readme` after a change of either."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.harness import readme
from benchmarks.harness.records import RunError, read
from strategies.interface import load, names


def drawing(svg: str) -> str:
    """What is drawn: processors round the last digits each in their way, and matplotlib names clips after them."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.1f}", re.sub(r"#?\bp[0-9a-f]{10}\b", "clip", svg))


def test_the_generated_parts_are_those_of_the_run_that_they_name() -> None:
    text = readme.README.read_text()
    assert readme.generated(text, readme.source_of(text)) == text


def test_so_are_those_of_the_method() -> None:
    text = readme.METHOD.read_text()
    run = readme.source_of(text)
    assert readme.generated_method(text, run) == text
    assert drawing(readme.CURVE.read_text()) == drawing(readme.curve_plot(run))


def test_the_claims_are_those_of_the_code() -> None:
    text = readme.STRATEGIES.read_text()
    assert readme.generated_strategies(text) == text


@pytest.mark.parametrize("name", names())
def test_every_strategy_has_its_paragraph_and_its_row(name: str) -> None:
    assert f"\n**`{name}`** " in readme.STRATEGIES.read_text()
    (row,) = (line for line in readme.README.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    variants = load(name).capabilities.variants
    assert variants == ("default",) or all(f"`{variant}`" in row for variant in variants)


def test_every_row_of_the_recorded_selftest_holds() -> None:
    recorded = json.loads(readme.SELFTEST.read_text())
    assert not recorded["short"]
    assert len(recorded["selftest"]) >= 8
    assert all(row["holds"] is True for row in recorded["selftest"])


def test_the_run_is_finished_and_in_the_repository() -> None:
    run = readme.source_of(readme.README.read_text())
    assert read(run)[0]["finished"]
    tracked = subprocess.run(
        ["git", "ls-files", "--", run], cwd=readme.ROOT, capture_output=True, text=True, check=True
    )
    assert {Path(path).name for path in tracked.stdout.split()} >= {"run.json", "trials.jsonl", "table.md"}


def test_a_changed_table_is_noticed() -> None:
    text = readme.README.read_text()
    assert "| driver_dict:default |" in text
    stale = text.replace("| driver_dict:default |", "| driver_dict:other |")
    assert readme.generated(stale, readme.source_of(stale)) != stale


def test_a_readme_that_names_no_run_is_an_error() -> None:
    with pytest.raises(RunError, match="names no run"):
        readme.source_of("# nothing")
