"""Notebooks' plots leave nothing out silently, and tell nothing by colour alone."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.harness import advice_text
from benchmarks.harness import notebook_pictures as pictures
from benchmarks.harness.advice import Needs, advise
from benchmarks.harness.cells import Status
from benchmarks.harness.frames import load_asv, load_failures, load_runs
from benchmarks.harness.records import Trial
from tests.harness.commands import ROOT
from tests.harness.runs import fault_trial, run_folder, survivor, trial, unmeasured
from tests.harness.test_advice import FROM_DRIVER, candidate

NASTY = "$x^$ & <b>"


def words(svg: str) -> list[str]:
    """Texts of a picture: matplotlib draws glyphs, and keeps each text in a comment beside them."""
    ET.fromstring(svg)
    return [found.strip().replace("&amp;", "&") for found in re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)]


def frame(parent: Path, *trials: Trial) -> pd.DataFrame:
    return load_runs(run_folder(parent, *trials))


def speed(svg_of: pd.DataFrame) -> str:
    return pictures.by_strategy(pictures.closed_loop(svg_of), "ops_per_s", "calls/s")


def test_what_was_not_measured_stands_there_as_its_mark(tmp_path: Path) -> None:
    shown = words(
        speed(
            frame(
                tmp_path,
                trial(strategy="measured"),
                unmeasured(Status.NOT_APPLICABLE, "x", strategy="inapplicable"),
                unmeasured(Status.RESOURCE_MISSING, "x", strategy="lacking"),
                unmeasured(Status.FAILED, "x", strategy="broken"),
                trial(strategy="idle", ops_per_s=None),
            )
        )
    )
    for mark in ("n/a", "missing", "failed", "-"):
        assert shown.count(mark) == 1
    assert {f"{name}:default" for name in ("measured", "inapplicable", "lacking", "broken", "idle")} <= set(shown)
    assert "volatile" in shown


def test_what_distrusts_itself_is_hollow_and_the_legend_says_so(tmp_path: Path) -> None:
    assert "distrusts itself" not in words(speed(frame(tmp_path, trial())))
    assert "distrusts itself" in words(speed(frame(tmp_path, trial(trusted=False, distrust="x"))))
    curve = frame(tmp_path, *(trial(repeat=n, trusted=bool(n), latency_us_p999=2e3) for n in range(2)))
    assert "distrusts itself" in words(pictures.percentiles(curve))


def test_classes_are_in_their_order_and_each_has_its_rows(tmp_path: Path) -> None:
    shown = words(
        speed(
            frame(
                tmp_path,
                trial(strategy="b", durability="power_loss"),
                trial(strategy="a", durability="replicated"),
                trial(strategy="c"),
            )
        )
    )
    classes = [word for word in shown if word in ("volatile", "power", "replicated")]
    assert classes == ["volatile", "power", "replicated"]


def test_only_one_form_is_drawn_together(tmp_path: Path) -> None:
    several = frame(
        tmp_path,
        *(trial(repeat=repeat) for repeat in range(2)),
        trial(clients=16),
        trial(batch=100),
        trial(drivers=4),
        trial(arrivals="poisson", offered_per_s=100.0),
        fault_trial(),
    )
    assert len(pictures.closed_loop(several)) == 2


def test_frames_of_several_front_doors_share_what_one_of_them_knows(tmp_path: Path) -> None:
    asv = load_asv(ROOT / "results" / "asv")
    row = asv.row[0]
    strategy, variant = row.split(":")
    together = pictures.together(asv, frame(tmp_path, trial(strategy=strategy, variant=variant)))
    assert set(together.durability[together.row == row]) == {"volatile"}
    svg = pictures.by_strategy(pictures.closed_loop(together, "ycsb_a"), "ops_per_s", "calls/s", series="source")
    assert {"asv", "run", "not", "recorded"} <= set(words(svg))


@pytest.mark.parametrize(
    "trials", [[], [unmeasured(Status.FAILED, "oh")], [fault_trial()]], ids=["no", "failed", "hurt"]
)
def test_a_run_without_figures_says_so(trials: list[Trial], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *trials)
    found = load_runs(folder)
    assert words(speed(found))
    assert any("No trial" in word for word in words(pictures.percentiles(pictures.closed_loop(found))))
    assert any("python -m benchmarks sweep" in word for word in words(pictures.latency_over_rate(found)))
    cells = load_failures(folder)
    assert words(pictures.outcome_matrix(cells, "driver", "none"))
    assert words(pictures.outages(cells, "unavailable_s", "outage, s", ["worker_kill"], "task", "none"))
    assert words(pictures.availability(folder, "worker_kill"))


def test_outcomes_are_letters_and_not_only_tints(tmp_path: Path) -> None:
    cells = load_failures(
        run_folder(
            tmp_path,
            survivor(strategy="keeper"),
            fault_trial(strategy="loser"),
            survivor(strategy="doubler", duplicated=3),
            survivor(strategy="mumbler", linearizable="no"),
            survivor(strategy="doubter", trusted=False, distrust="x"),
            unmeasured(Status.NOT_APPLICABLE, "x", strategy="apart", fault="worker_kill", retry="op_id"),
            unmeasured(Status.FAILED, "x", strategy="broken", fault="worker_kill", retry="op_id"),
            survivor(strategy="keeper", fault="server_kill"),
        )
    )
    shown = words(pictures.outcome_matrix(cells, "driver", "op_id"))
    for letters in ("LN", "D", "?", "ok*", "n/a", "failed"):
        assert shown.count(letters) == 1, letters
    assert shown.count("ok") == 2
    assert {"worker_kill", "server_kill"} <= set(shown)


def test_an_open_loop_is_drawn_over_what_was_achieved(tmp_path: Path) -> None:
    at = {"arrivals": "poisson", "achieved_ratio": 1.0, "latency_kind": "response"}
    trials = [
        trial(caller=caller, offered_per_s=rate, ops_per_s=rate, **at)
        for caller in ("driver", "task")
        for rate in (1e2, 1e3)
    ]
    shown = words(pictures.latency_over_rate(frame(tmp_path, *trials)))
    assert {"volatile, p50", "volatile, p99", "vault:default, from a driver", "vault:default, from a task"} <= set(
        shown
    )


def test_a_choice_says_who_is_ruled_out() -> None:
    slow = candidate(strategy="slow", settings=(replace(FROM_DRIVER, ops_per_s=(10.0, 11.0)),))
    advice = advise(Needs(rate_per_s=500, p99_ms=10), [candidate(), slow])
    shown = words(pictures.choice(advice))
    assert {"vault:a: meets it, service time", "slow:a: ruled out, service time"} <= set(shown)
    assert words(pictures.choice(advise(Needs(), [])))
    assert "slow:a" in pictures.table(advice_text.ruled_out(advice)).to_html()


@pytest.mark.parametrize(
    "draw",
    [
        speed,
        pictures.percentiles,
        lambda found: pictures.by_strategy(found, "latency_us_p99", "p99, ms", columns="workload", scale=1e3),
    ],
)
def test_names_are_shown_and_not_obeyed_and_pictures_are_the_same_each_time(
    draw: Callable[[pd.DataFrame], str], tmp_path: Path
) -> None:
    found = frame(tmp_path, *(trial(strategy=NASTY, repeat=repeat, ops_per_s=100.0 + repeat) for repeat in range(3)))
    svg = draw(found)
    assert svg == draw(found)
    assert "<b>" not in svg


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_have_one_form_and_no_logic_of_their_own(path: Path) -> None:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "\nRUN = None" in code[0]
    assert not re.search(r"^\s*(def|class|for|while|if) ", "\n".join(code), re.MULTILINE)
    for cell, following in pairwise(cells):
        if cell["cell_type"] == "code" and "SVG(" in "".join(cell["source"]).rpartition("import")[2]:
            said = "".join(following["source"])
            assert following["cell_type"] == "markdown"
            assert len(re.findall(r"[.:]( |$)", said)) >= 2, said  # two sentences
            assert not re.search(r"(?<!p)\d{2,}", said), "figures come from the records"
