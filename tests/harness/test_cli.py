"""The command line says what is wrong in one line, and its exit code says the rest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from typer.testing import CliRunner, Result

from benchmarks.harness import environment as environment_module
from benchmarks.harness.cli import Plan, app
from benchmarks.harness.environment import Environment
from benchmarks.harness.records import read
from strategies.interface import load, names
from tests.harness.commands import ROOT
from tests.harness.own import own
from tests.strategies.servers import free_port, redis_server

PASSWORD = "hunter2/ü&1"
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "hunter2")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_url_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_STATE_BENCH_REDIS_URL", raising=False)


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # the user would see its traceback
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def run(environment: Environment, tmp_path: Path) -> Run:
    """`run` of short trials on the session's own cluster, into a folder of the test's own."""
    scheduler = environment.client.scheduler_info()["address"]

    def run_here(*arguments: str | Path, out: Path = tmp_path / "out") -> Result:
        given: list[str | Path] = (
            []
            if "--resume" in arguments
            else ["--quick", "--workload", "hot", "--seconds", "0.1", "--clients", "2", "--out", out]
        )
        return invoke("run", *given, "--scheduler", scheduler, *arguments)

    return run_here


def only_folder(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


# -- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--strategy", "driver_dic"], "driver_dict"),
        (["--strategy", "redis-lua"], "redis_lua"),
        (["--strategy", "redis_lua:evrysec"], "everysec"),
        (["--strategy", "nowhere.py:Class"], "nowhere.py"),
        (["--strategy", f"{own('NoSuchClass')}"], "NoSuchClass"),
        (["--workload", "ycsb-a"], "ycsb_a"),
        (["--fault", "workerkill"], "worker_kill"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "-1"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--resume", "/no/such/folder"], "run.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[-40:],
)
def test_what_cannot_be_is_one_line(arguments: list[str], hint: str) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert hint in line
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--clients", "0"],
        ["--clients", "-1"],
        ["--repeats", "0"],
        ["--repeats", "-3"],
        ["--seed", "-1"],
        ["--caller", "nobody"],
        ["--clients", "x"],
    ],
    ids=" ".join,
)
def test_a_number_out_of_range(arguments: list[str]) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_an_unknown_command() -> None:
    assert invoke("rum").exit_code == 2


def test_it_is_run_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", "--strategy", "driver_dic"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean driver_dict" in done.stderr


def test_nothing_is_written_on_a_usage_error(tmp_path: Path) -> None:
    assert invoke("run", "--strategy", "nobody", "--out", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    result = run("--strategy", own("Plain"), out=tmp_path / "a-file" / "out")
    assert result.exit_code == 2
    assert "--out" in result.stderr


# -- resources of the user's own -------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its patience is 10 s; these tests need not wait that long to see that there is an end to it."""
    assert environment_module._CONNECT_S <= 10
    monkeypatch.setattr(environment_module, "_CONNECT_S", 1.0)


def assert_refused(result: Result, begin: float, *hints: str) -> None:
    assert time.monotonic() - begin < 10
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for hint in hints:
        assert hint in result.stderr
    assert not any(secret in result.output for secret in SECRETS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", [["run", "--quick"], ["list"]], ids=" ".join)
def test_a_redis_that_nobody_answers_at(command: list[str]) -> None:
    port = free_port()
    begin = time.monotonic()
    result = invoke(*command, "--redis-url", f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0")
    assert_refused(result, begin, "--redis-url", str(port))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "http://127.0.0.1:1/",
        "redis://:hunter2@127.0.0.1:port/0",
        "redis://:hunter2#1@127.0.0.1:1/0",
        "redis://user:hunter2/2@127.0.0.1:1/0",
        "redis://:hunter2@127.0.0.1:1/0?socket_timeout=hunter2",
        "redis://127.0.0.1:1/0?password=hunter2",
    ],
)
def test_a_redis_url_that_is_none(url: str) -> None:
    """A password that should have been quoted moves the URL's parts; it is no less secret for that."""
    assert_refused(invoke("run", "--quick", "--redis-url", url), time.monotonic(), "--redis-url")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("given", ["", ":hunter2-wrong@", "nobody:hunter2-wrong@"])
def test_a_wrong_password(given: str, tmp_path: Path) -> None:
    with redis_server(tmp_path, requirepass=PASSWORD) as port:
        begin = time.monotonic()
        result = invoke("run", "--quick", "--redis-url", f"redis://{given}127.0.0.1:{port}/0")
    assert_refused(result, begin, "--redis-url")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "127.0.0.1:{port}", "gibberish://x", "not an address"])
def test_a_scheduler_that_nobody_answers_at(address: str) -> None:
    address = address.format(port=free_port())
    begin = time.monotonic()
    assert_refused(invoke("run", "--quick", "--scheduler", address), begin, "--scheduler")


# -- secrets ---------------------------------------------------------------------------------------


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[int]:
    """A server with a password, set as `redis_lua:volatile` wants it."""
    with redis_server(tmp_path, requirepass=PASSWORD) as port:
        yield port


@pytest.mark.parametrize("form", ["redis://:{}@127.0.0.1:{port}/0", "redis://127.0.0.1:{port}/0?password={}"])
def test_a_password_is_written_nowhere(form: str, locked_redis: int, run: Run, tmp_path: Path) -> None:
    url = form.format(quote(PASSWORD, safe=""), port=locked_redis)
    result = run(
        *(
            "--strategy",
            "redis_lua:volatile",
            "--strategy",
            own("TellsItsUrl"),
            "--redis-url",
            url,
            "--repeats",
            "1",
            "--json",
        ),
    )
    assert result.exit_code == 1  # TellsItsUrl fails
    folder = only_folder(tmp_path / "out")
    assert sorted({trial.status for trial in read(folder)[1] if trial.strategy == "redis_lua"}) == ["ok"]
    written = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert {"run.json", "trials.jsonl", "table.md", "report.html"} <= set(written)
    assert str(locked_redis) in written["run.json"]  # the command that made it, less its secrets
    for place, text in {**written, "output": result.output}.items():
        found = [secret for secret in SECRETS if secret in text]
        assert not found, f"{found} in {place}"


# -- list ------------------------------------------------------------------------------------------


def test_list_shows_every_strategy_and_variant() -> None:
    found = json.loads(invoke("list", "--json").stdout)["strategies"]
    wanted = [(name, variant) for name in names() for variant in load(name).capabilities.variants]
    assert [(each["strategy"], each["variant"]) for each in found] == wanted
    for each in found:
        claims = load(each["strategy"]).claims(each["variant"])
        assert each["durability"] == claims.durability
        assert each["survives"] == sorted(claims.survives)
        assert each["missing"] is None or "pip install" in each["missing"]
    table = invoke("list").stdout
    for name, variant in wanted:
        assert f"{name}:{variant}" in table


def test_list_tells_what_the_users_redis_cannot_serve(tmp_path: Path) -> None:
    with redis_server(tmp_path) as port:
        found = json.loads(invoke("list", "--json", "--redis-url", f"redis://127.0.0.1:{port}/0").stdout)["strategies"]
    missing = {each["variant"]: each["missing"] for each in found if each["strategy"] == "redis_lua"}
    assert missing["volatile"] is None
    assert "appendonly" in missing["everysec"]
    assert "appendonly" in missing["always"]


# -- run, report, resume ---------------------------------------------------------------------------


def test_a_run_of_one_cell(run: Run, tmp_path: Path) -> None:
    result = run("--strategy", "driver_dict", "--caller", "task", "--repeats", "2", "--seed", "9", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    folder = only_folder(tmp_path / "out")
    assert shown["run"] == str(folder)
    assert [(trial["strategy"], trial["caller"], trial["repeat"], trial["status"]) for trial in shown["trials"]] == [
        ("driver_dict", "task", 0, "ok"),
        ("driver_dict", "task", 1, "ok"),
    ]
    assert [trial.key for trial in read(folder)[1]] == [
        ("driver_dict", "default", "hot", "task", 2, None, None, 1, None, "closed", None, None, None, repeat)
        for repeat in range(2)
    ]
    assert "--seed 9" in shown["command"]
    (folder / "report.html").unlink()
    result = invoke("report", folder)
    assert result.exit_code == 0
    assert "driver_dict" in result.stdout
    assert str(folder / "report.html") in result.stdout.replace("\n", "")
    assert (folder / "report.html").exists()


def test_a_failed_cell_is_exit_code_1_and_the_others_are_measured(run: Run, tmp_path: Path) -> None:
    result = run("--strategy", own("CannotOpen"), "--strategy", "driver_dict", "--caller", "driver", "--repeats", "1")
    assert result.exit_code == 1
    assert "the vault is locked" in result.stderr
    assert sorted(trial.status for trial in read(only_folder(tmp_path / "out"))[1]) == ["failed", "ok"]


def test_what_does_not_apply_is_no_failure(run: Run, tmp_path: Path) -> None:
    """And is recorded once, not once per repeat."""
    result = run("--strategy", own("Plain"), "--caller", "task", "--repeats", "3")
    assert result.exit_code == 0
    assert [trial.status for trial in read(only_folder(tmp_path / "out"))[1]] == ["not_applicable"]


def test_two_strategies_of_one_file_are_two(run: Run, tmp_path: Path) -> None:
    result = run("--strategy", own("Plain"), "--strategy", own("CannotOpen"), "--caller", "driver", "--repeats", "1")
    trials = read(only_folder(tmp_path / "out"))[1]
    assert sorted(trial.status for trial in trials) == ["failed", "ok"]
    assert len({trial.key for trial in trials}) == 2
    assert result.exit_code == 1


def test_resume_measures_only_what_is_missing(run: Run, tmp_path: Path) -> None:
    assert (
        run("--strategy", own("Plain"), "--strategy", "driver_dict", "--caller", "driver", "--repeats", "2").exit_code
        == 0
    )
    folder = only_folder(tmp_path / "out")
    path = folder / "trials.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    assert len(whole) == 4
    path.write_text("".join([whole[0], whole[2], whole[3][:50]]))
    result = run("--resume", folder)
    assert result.exit_code == 0, result.output
    resumed = path.read_text().splitlines(keepends=True)
    assert resumed[:2] == [whole[0], whole[2]]  # as they were, to the last digit

    def which(lines: list[str]) -> list[tuple[object, ...]]:
        return sorted((each["strategy"], each["repeat"], each["seed"]) for each in map(json.loads, lines))

    assert which(resumed) == which(whole)


def test_resuming_a_finished_run_measures_nothing(run: Run, tmp_path: Path) -> None:
    assert run("--strategy", own("Plain"), "--caller", "driver", "--repeats", "1").exit_code == 0
    folder = only_folder(tmp_path / "out")
    before = (folder / "trials.jsonl").read_text()
    assert run("--resume", folder).exit_code == 0
    assert (folder / "trials.jsonl").read_text() == before


@pytest.mark.parametrize("about", [{"format": 99}, {"format": 1}])
def test_a_run_that_cannot_be_resumed(about: dict[str, int], run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(about))
    result = run("--resume", tmp_path)
    assert result.exit_code == 2
    assert "run.json" in result.stderr or "format 99" in result.stderr


@pytest.mark.parametrize("command", ["report"])
def test_a_folder_that_is_not_a_runs(command: str, tmp_path: Path) -> None:
    result = invoke(command, tmp_path)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_order_of_trials_follows_from_the_seed() -> None:
    """Each repeat is a block with every cell in it once; blocks differ."""

    def order(seed: int) -> list[tuple[str, str, str, int]]:
        plan = Plan(
            quick=True,
            strategies=tuple(names()),
            workloads=("hot", "ycsb_a"),
            callers=("driver", "task"),
            faults=(),
            clients=2,
            repeats=3,
            seconds=None,
            seed=seed,
        )
        return [(cell.row, cell.workload, cell.caller, repeat) for cell, repeat in plan.trials()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))
    size = len(order(1)) // 3
    blocks = [[trial[:-1] for trial in order(1)[begin : begin + size]] for begin in range(0, 3 * size, size)]
    assert sorted(blocks[0]) == sorted(blocks[1]) == sorted(blocks[2])
    assert len(set(blocks[0])) == size
    assert blocks[0] != blocks[1]
    assert [repeat for *_, repeat in order(1)] == sorted(repeat for *_, repeat in order(1))


# -- series, comparisons, exports --------------------------------------------------------------------

OF_ONE_ROW = ("--strategy", "driver_dict", "--caller", "driver", "--seconds", "0.1")


def recorded(result: Result) -> Path:
    assert result.exit_code == 0, result.stderr
    return Path(json.loads(result.stdout)["run"])


def test_a_search_says_which_rate_kept_the_target(tmp_path: Path) -> None:
    result = invoke("search", *OF_ONE_ROW, "--probes", "5", "--clients", "2", "--out", tmp_path, "--json")
    folder = recorded(result)
    (found,) = json.loads(result.stdout)["search"]
    assert found["probes"] <= 5
    assert len(read(folder)[1]) == found["probes"]
    assert (found["rate_per_s"] is None) == (found["reason"] is not None)
    assert "Highest rate that keeps the target" in (folder / "table.md").read_text()
    assert "Latency over throughput" in (folder / "report.html").read_text()


def test_a_sweep_over_clients_is_fitted(tmp_path: Path) -> None:
    over = ("--over", "clients", "--values", "1,2,3,4", "--repeats", "2")
    result = invoke("sweep", *OF_ONE_ROW, *over, "--out", tmp_path, "--json")
    folder = recorded(result)
    (found,) = json.loads(result.stdout)["sweep"]
    assert found["over"] == "clients"
    assert found["ops_per_s_of_one"]["value"] > 0
    assert {trial.clients for trial in read(folder)[1]} == {1, 2, 3, 4}
    assert "Throughput over clients" in (folder / "report.html").read_text()


def test_a_sweep_over_rates_is_a_curve(tmp_path: Path) -> None:
    result = invoke("sweep", *OF_ONE_ROW, "--values", "500,1000,1000", "--repeats", "1", "--out", tmp_path, "--json")
    trials = read(recorded(result))[1]
    assert [trial.offered_per_s for trial in trials] == [500.0, 1000.0]
    assert {trial.latency_kind for trial in trials} == {"response"}


def test_a_run_beside_itself_shows_no_difference(tmp_path: Path) -> None:
    folder = recorded(invoke("run", *OF_ONE_ROW, "--workload", "hot", "--repeats", "3", "--out", tmp_path, "--json"))
    result = invoke("compare", folder, folder, "--json")
    rows = json.loads(result.stdout)["rows"]
    assert {row["verdict"] for row in rows} <= {"no difference seen", "not comparable"}
    assert rows[0]["verdict"] == "no difference seen"
    assert "no difference seen" in invoke("compare", folder, folder).stdout


def test_trials_are_exported(tmp_path: Path) -> None:
    folder = recorded(invoke("run", *OF_ONE_ROW, "--workload", "hot", "--repeats", "2", "--out", tmp_path, "--json"))
    assert invoke("export", folder, "--to", tmp_path / "trials.csv").exit_code == 0
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("run,strategy,variant,workload,caller,clients")
    refused = invoke("export", folder, "--to", tmp_path / "trials.xls")
    assert refused.exit_code == 2
    assert ".csv or .parquet" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--clients", "0"], "--clients must be 1 to 256"),
        (["run", "--seconds", "0"], "--seconds must be above 0"),
        (["run", "--rate", "100"], "--arrivals poisson and constant need a --rate"),
        (["run", "--rate", "-1", "--arrivals", "poisson"], "--rate must be above 0"),
        (["run", "--drivers", "2", "--clients", "1", "--caller", "driver"], "2 driver processes need as many"),
        (["run", "--drivers", "2"], "add --caller driver"),
        (["run", "--workload", "ycsb_a:accounts=0"], "takes 1 to 1,000,000 accounts"),
        (["run", "--zipf", "2"], "zipf must be 0"),
        (["search", "--target-p99-ms", "0"], "--target-p99-ms must be above 0"),
        (["search", "--arrivals", "closed"], "a closed loop has no rate"),
        (["sweep", "--over", "moons"], "--over takes rate, clients or shards"),
        (["sweep", "--over", "clients", "--values", "1,2.5"], "positive whole numbers"),
    ],
)
def test_what_cannot_be_is_a_usage_error(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = invoke(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(tmp_path.iterdir())
