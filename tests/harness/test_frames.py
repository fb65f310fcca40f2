"""Frames have the same columns and types whatever is in them, and nothing is dropped or mixed up on the way."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.harness import frames
from benchmarks.harness.cells import Status
from benchmarks.harness.frames import load_asv, load_failures, load_pytest_benchmark, load_runs
from benchmarks.harness.records import RunError
from strategies.interface import Durability
from tests.harness.commands import ROOT
from tests.harness.runs import fault_trial, run_folder, survivor, trial, unmeasured

RESULTS = ROOT / "results"


def types(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


# -- runs ------------------------------------------------------------------------------------------


def test_every_front_door_gives_the_same_columns_and_types(tmp_path: Path) -> None:
    empty = types(load_runs(run_folder(tmp_path)))
    assert list(empty) == list(frames.COLUMNS)
    assert set(empty.values()) == {"category", "string", "Int64", "Float64", "boolean"}
    for frame in (
        load_runs(run_folder(tmp_path, trial(), fault_trial())),
        load_asv(RESULTS / "asv"),
        load_pytest_benchmark(RESULTS / "pytest-benchmark" / "latest.json"),
    ):
        assert types(frame) == empty
        assert len(frame) > 0
        assert types(pd.concat([frame, load_runs(run_folder(tmp_path))])) == empty


def test_what_became_of_a_trial_is_kept_apart(tmp_path: Path) -> None:
    frame = load_runs(
        run_folder(
            tmp_path,
            trial(),
            trial(repeat=1, trusted=False, distrust="the clock jumped"),
            unmeasured(Status.NOT_APPLICABLE, "no such calls", repeat=2),
            unmeasured(Status.RESOURCE_MISSING, "pip install it", repeat=3),
            unmeasured(Status.FAILED, "oh", repeat=4),
        )
    )
    assert list(frame.status) == ["ok", "ok", "not_applicable", "resource_missing", "failed"]
    assert list(frame.trusted[:2]) == [True, False]
    assert frame.distrust[1] == "the clock jumped"
    assert frame.ops_per_s[2:].isna().all()
    assert list(frame.reason[2:]) == ["no such calls", "pip install it", "oh"]
    assert set(frame.row) == {"vault:default"}


def test_durability_is_ordered_and_a_later_programs_word_is_no_gap(tmp_path: Path) -> None:
    frame = load_runs(run_folder(tmp_path, trial(durability="replicated"), trial(repeat=1)))
    assert list(frame.durability.cat.categories) == list(Durability)
    assert list(frame.durability.sort_values()) == ["volatile", "replicated"]
    later = load_runs(run_folder(tmp_path, trial(durability="eternal"), trial(repeat=1)))
    assert list(later.durability) == ["eternal", "volatile"]


def test_several_runs_are_told_apart(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, trial(), trial(repeat=1)), run_folder(tmp_path, trial(strategy="other"))]
    frame = load_runs(*folders)
    assert list(frame.strategy) == ["vault", "vault", "other"]
    assert list(frame.run) == [folders[0].name] * 2 + [folders[1].name]
    assert frame.ops_per_s.sum() == 3 * 12345
    assert load_runs().empty


def test_a_damaged_line_is_told_and_costs_its_own_trial(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    with (folder / "trials.jsonl").open("a") as file:
        file.write("cut")
    with pytest.warns(UserWarning, match="line 2"):
        assert len(load_runs(folder)) == 1
    with pytest.warns(UserWarning, match="line 2"):
        assert load_failures(folder).empty
    (folder / "trials.jsonl").unlink()
    assert load_runs(folder).empty


@pytest.mark.parametrize("load", [load_runs, load_asv, load_pytest_benchmark, load_failures])
def test_what_is_none_is_one_sentence(load: Any, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text("[]")
    (tmp_path / "latest.json").write_text('{"benchmarks": 5}')
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "latest.json"):
        if load is load_failures and path == tmp_path / "latest.json":
            continue  # another test's
        with pytest.raises(RunError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_thousands_of_trials_take_less_than_a_second(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    lines = [json.dumps(vars(trial(repeat=repeat))) for repeat in range(5000)]
    (folder / "trials.jsonl").write_text("\n".join(lines))
    begin = time.process_time()
    assert len(load_runs(folder)) == 5000
    assert time.process_time() - begin < 1


# -- asv -------------------------------------------------------------------------------------------


def asv_folder(parent: Path, results: dict[str, list[Any]], **versions: str) -> Path:
    folder = parent / "asv"
    (folder / "m").mkdir(parents=True)
    about = {
        name: {"param_names": ["strategy", "workload", "caller"], "version": versions.get(name, "1")}
        for name in results
    }
    (folder / "benchmarks.json").write_text(json.dumps({**about, "version": 2}))
    (folder / "m" / "machine.json").write_text("{}")
    columns = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "samples"]
    parameters = [["'vault:a'", "'vault:b'"], ["'hot'"], ["'driver'"]]
    found = {
        name: [result, parameters, "1", 0, 0.0, None, samples][: 7 if samples else 5]
        for name, (result, samples) in results.items()
    }
    text = json.dumps({"commit_hash": "abc", "result_columns": columns, "results": found})
    (folder / "m" / "abc-env.json").write_text(text)
    return folder


def test_asvs_samples_are_rows(tmp_path: Path) -> None:
    frame = load_asv(
        asv_folder(
            tmp_path,
            {
                "throughput.Throughput.track_ops_per_s": [[2.0, 5.0], [[1.0, 2.0, 3.0], [5.0]]],
                "latency.Latency.track_latency_us_p99": [[8.0, math.nan], [[7.0, 9.0], [math.nan]]],
                "somebody.Else.track_something": [[1.0, 1.0], None],
            },
        )
    )
    of_a = frame[frame.variant == "a"]
    assert list(of_a.ops_per_s) == [1.0, 2.0, 3.0]
    assert list(of_a.latency_us_p99.dropna()) == [7.0, 9.0]
    assert list(of_a.repeat) == [0, 1, 2]
    of_b = frame[frame.variant == "b"]
    assert list(zip(of_b.ops_per_s, of_b.status, of_b.row, strict=True)) == [(5.0, "ok", "vault:b")]
    assert of_b.latency_us_p99.isna().all()
    assert set(frame.commit) == {"abc"}
    assert set(frame.run) == {"m/abc-env"}


def test_asvs_skipped_and_failed_cells_differ(tmp_path: Path) -> None:
    frame = load_asv(asv_folder(tmp_path, {"throughput.Throughput.track_ops_per_s": [[math.nan, None], None]}))
    assert list(frame.status.isna()) == [True, False]
    assert list(frame.status[1:]) == ["failed"]
    assert "does not keep" in frame.reason[0]
    whole = load_asv(asv_folder(tmp_path / "whole", {"throughput.Throughput.track_ops_per_s": [None, None]}))
    assert list(whole.status) == ["failed", "failed"]


def test_asvs_results_of_another_version_are_left_out_as_its_site_does(tmp_path: Path) -> None:
    name = "throughput.Throughput.track_ops_per_s"
    assert load_asv(asv_folder(tmp_path, {name: [[1.0, 2.0], None]}, **{name: "2"})).empty


def test_a_file_of_asvs_that_is_damaged_costs_itself_only(tmp_path: Path) -> None:
    folder = asv_folder(tmp_path, {"throughput.Throughput.track_ops_per_s": [[1.0, 2.0], None]})
    (folder / "m" / "other.json").write_text('{"results"')
    (folder / "m" / "third.json").write_text('{"commit_hash": "c", "results": {"x": 1}}')
    with pytest.warns(UserWarning, match="left out") as caught:
        assert len(load_asv(folder)) == 2
    assert len(caught) == 2


def test_the_recorded_asv_results_are_as_asv_sums_them_up() -> None:
    path = max(path for path in (RESULTS / "asv").glob("*/*.json") if path.name != "machine.json")
    medians, parameters, *_ = json.loads(path.read_text())["results"]["throughput.Throughput.track_ops_per_s"]
    frame = load_asv(RESULTS / "asv")
    here = frame[(frame.run == f"{path.parent.name}/{path.stem}") & frame.fault.isna()]
    row, workload, caller = (names[0].strip("'") for names in parameters)
    of_cell = here[(here.row == row) & (here.workload == workload) & (here.caller == caller)]
    assert of_cell.ops_per_s.median() == pytest.approx(medians[0])


# -- pytest-benchmark ------------------------------------------------------------------------------


def test_pytest_benchmarks_trials_are_rows_and_what_has_none_is_one_too(tmp_path: Path) -> None:
    file = tmp_path / "latest.json"
    kept = [vars(trial()), vars(unmeasured(Status.RESOURCE_MISSING, "pip install it", repeat=1))]
    benchmarks: list[dict[str, Any]] = [
        {"name": "a", "param": "vault:default-ycsb_a-driver", "extra_info": {"trials": kept}},
        {"name": "b", "param": "vault:b-transfer-task", "extra_info": {}},
        {"name": "c", "param": "vault:b-worker_kill-task", "extra_info": {}},
    ]
    file.write_text(json.dumps({"commit_info": {"id": "abc"}, "benchmarks": benchmarks}))
    frame = load_pytest_benchmark(file)
    assert list(frame.status[:2]) == ["ok", "resource_missing"]
    assert frame.status[2:].isna().all()
    assert list(frame.workload[2:3]) == ["transfer"]
    assert list(frame.fault[3:]) == ["worker_kill"]
    assert list(frame.row) == ["vault:default"] * 2 + ["vault:b"] * 2
    benchmarks[0]["extra_info"]["trials"][0] = {"strategy": 5}
    file.write_text(json.dumps({"commit_info": {"id": "abc"}, "benchmarks": benchmarks}))
    with pytest.warns(UserWarning, match="a trial of a was left out"):
        assert len(load_pytest_benchmark(file)) == 3


# -- cells around a fault --------------------------------------------------------------------------


def test_the_published_failure_table_as_a_frame() -> None:
    frame = load_failures(RESULTS / "failures.json")
    cells = json.loads((RESULTS / "failures.json").read_text())["cells"]
    assert len(frame) == len(cells)
    assert frame.trials.sum() == sum(cell.get("trials", 0) for cell in cells)
    assert set(frame.outcome[frame.trials_survived == frame.trials]) >= {"survives"}


def test_a_runs_cells_are_the_same_frame(tmp_path: Path) -> None:
    lost = [fault_trial(repeat=repeat, unavailable_s=1.0 + repeat) for repeat in range(3)]
    frame = load_failures(run_folder(tmp_path, trial(), *lost, survivor(strategy="keeper")))
    assert types(frame) == types(load_failures(RESULTS / "failures.json"))
    assert list(frame.row) == ["vault:default", "keeper:default"]
    assert list(frame.unavailable_s) == [2.0, 0.2]
    assert frame.unavailable_s_low[0] < 2.0 < frame.unavailable_s_high[0]
    assert frame.outcome[0].startswith("loses")


def test_no_failure_table(tmp_path: Path) -> None:
    (tmp_path / "failures.json").write_text("{}")
    with pytest.raises(RunError, match="no failure table"):
        load_failures(tmp_path / "failures.json")
