"""The README's part on failures and docs/failures.md say what the table and the faults themselves say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import failure_tables, faults, readme
from benchmarks.harness.records import RunError
from strategies.interface import Fault
from tests.harness.runs import run_folder, survivor


def test_the_table_of_faults_is_that_of_the_code() -> None:
    text = readme.FAILURES.read_text()
    for fault in Fault:
        assert f"| `{fault}` | {faults.load(fault).target}" in text
        for part in ("target", "emulates", "healed_by", "cannot_show"):
            assert getattr(faults.load(fault), part, ""), f"{fault} does not say what {part} is"


def test_a_stale_table_of_faults_is_noticed() -> None:
    text = readme.FAILURES.read_text().replace("| `worker_kill` |", "| `worker_tickle` |")
    assert readme.generated_failures(text) != text


def test_a_page_without_the_comments_is_an_error() -> None:
    with pytest.raises(RunError, match="faults"):
        readme.generated_failures("# nothing")


def test_the_digest_tells_where_it_comes_from(tmp_path: Path) -> None:
    made, _ = failure_tables.table([run_folder(tmp_path, survivor())])
    text = "\n".join(readme.failures(made))
    assert "| vault:default | volatile | survives |" in text
    assert made.about["runs"][0]["run"] in text
    assert "Karau" in text


def test_the_digest_of_many_runs_points_to_them(tmp_path: Path) -> None:
    made, _ = failure_tables.table([run_folder(tmp_path, survivor(seed=part)) for part in range(8)])
    text = "\n".join(readme.failures(made))
    (commit,) = {run["commit"][:10] for run in made.about["runs"]}
    assert f"The trials are of 8 runs of commit {commit}: [results/failures.md]" in text
    assert made.about["runs"][0]["run"] not in text


def test_no_published_table_is_said_to_be_none() -> None:
    text = "\n".join(readme.failures(None))
    assert "make failures" in text
    assert "|" not in text
