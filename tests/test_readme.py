"""README.md and docs/method.md tell what recorded results say: `make readme` after a change of either."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from benchmarks.harness import baselines, cli, fault_trials, intervals, readme, statistics, sweeps, workloads
from benchmarks.harness.records import RunError, read
from strategies import actor_pool, redis_lua
from strategies.interface import load, names

DOCS = readme.ROOT / "docs"


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


def test_so_are_those_of_performance() -> None:
    text = readme.PERFORMANCE.read_text()
    assert readme.generated_performance(text) == text


def test_so_are_those_of_failures() -> None:
    text = readme.FAILURES.read_text()
    assert readme.generated_failures(text) == text


def test_it_answers_within_two_hundred_and_fifty_lines() -> None:
    lines = readme.README.read_text().splitlines()
    assert len(lines) < 250
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[:4] == [
        "## The answer",
        "## Two commands",
        "## How to read the numbers",
        "## What the numbers do not say",
    ]


def prose(text: str) -> str:
    """Without what is generated, commands, code, links' targets, numbers of lists and of decisions."""
    for pattern in (
        r"<!-- (\w+): made.*?<!-- end of \1 -->",
        r"```.*?```",
        r"`[^`]*`",
        r"\]\([^)]*\)",
        r"^\d+\. ",
        r"\b(ADR |adr/)\d{4}",
    ):
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    return text


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", prose(text)))


YCSB_A, DEPOSITS = workloads.load("ycsb_a"), workloads.load("unit_deposits")
SCHEDULE = fault_trials.Schedule()
PROJECT = tomllib.loads((readme.ROOT / "pyproject.toml").read_text())["project"]
(JDK,) = re.findall(r"<maven.compiler.release>(\d+)<", (readme.ROOT / "java/pekko/pom.xml").read_text())
INTERVAL = f"{100 * intervals.CONFIDENCE:g}"
SETTINGS: Mapping[Path, Collection[str]] = {
    # The book's chapter, the licence's clauses; the rest is looked up.
    readme.README: {
        "7",
        "3",
        f"{YCSB_A.zipf_theta:g}",
        f"{YCSB_A.accounts}",
        f"{actor_pool.SHARDS}",
        INTERVAL,
        PROJECT["requires-python"].removeprefix(">="),
        JDK,
    },
    readme.FAILURES: {
        f"{DEPOSITS.accounts}",
        f"{DEPOSITS.amount_max}",
        f"{1e3 * SCHEDULE.interval_s:g}",
        f"{SCHEDULE.tail_s:g}",
        INTERVAL,
    },
    readme.METHOD: {
        f"{100 * statistics._SAMPLES_BEYOND}",
        f"{inspect.signature(cli.search).parameters['target_p99_ms'].default:g}",
        f"{sweeps.PROBES}",
        INTERVAL,
        f"{100 * intervals.CALLED_CONFIDENCE:g}",
        f"{100 * intervals.MARGIN:g}",
        "5",  # what `power_5_percent` is called after
    },
    DOCS / "adding_a_strategy.md": {f"{baselines.BY_HAND_MOST:g}"},
    DOCS / "own_cluster.md": {"1", ".".join(map(str, redis_lua._OLDEST_SERVER))},
}


@pytest.mark.parametrize("page", [readme.README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_every_number_in_prose_is_a_setting_of_the_code(page: Path) -> None:
    """Figures are generated from records."""
    assert numbers(page.read_text()) <= set(SETTINGS.get(page, ()))


def test_a_number_in_prose_is_noticed() -> None:
    assert numbers("1. takes 5 ms, or 2,000.5") == {"5", "2,000.5"}
    assert not numbers("`--seconds 5`\n```sh\nrun 5\n```\n<!-- run: made by x -->5<!-- end of run -->")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#\s]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


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
