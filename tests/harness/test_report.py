"""Table and page show what the trials are, keep the four marks apart, and load nothing from anywhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.harness import curves, report, report_explorer
from benchmarks.harness.cells import Status
from benchmarks.harness.history import NEVER_NS, UNKNOWN
from benchmarks.harness.history_files import HistoryFile, save
from benchmarks.harness.records import HISTORIES, RunError, Trial, read
from benchmarks.harness.table_text import MARKS
from strategies.interface import Receipt
from tests.harness.rows import history, row
from tests.harness.runs import fault_trial, run_folder, survivor, trial, unmeasured

NASTY = "<script>alert(1)</script>"

EVERY_STATUS = [
    trial(strategy="measured"),
    unmeasured(Status.NOT_APPLICABLE, "it claims no such calls", strategy="inapplicable"),
    unmeasured(Status.RESOURCE_MISSING, "run: pip install it", strategy="lacking"),
    unmeasured(Status.FAILED, "ZeroDivisionError: oh", strategy="broken"),
    trial(strategy="doubtful", trusted=False, distrust="the clock jumped"),
]


class Page(HTMLParser):
    """What a page loads, runs, shows in its cells and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_cell = self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action", "data")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if tag == "script":
            self.scripts.append("")
            self._in_script = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_script = False
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
            return
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data


def written(folder: Path) -> tuple[str, str]:
    page = report.write(folder)
    assert page == folder / "report.html"
    return (folder / "table.md").read_text(), page.read_text()


def markdown_rows(table: str) -> dict[str, list[str]]:
    """By the first column; of several tables' rows with one name, the last."""
    lines = [
        [entry.strip() for entry in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {line[0]: line[1:] for line in lines}


def test_every_status_has_a_mark_of_its_own(tmp_path: Path) -> None:
    table, html = written(run_folder(tmp_path, *EVERY_STATUS))
    by_row = markdown_rows(table)
    marks = {
        name: by_row[f"{name}:default"][1] for name in ("measured", "inapplicable", "lacking", "broken", "doubtful")
    }
    assert marks["measured"] == "12,345"
    assert marks["doubtful"] == "12,345*"
    assert len(set(marks.values())) == 5, marks
    assert not any(re.search(r"\d", marks[name]) for name in ("inapplicable", "lacking", "broken"))
    page = {line[0]: line[1:] for line in Page(html).rows if line}
    assert {name: page[f"{name}:default"][1] for name in marks} == marks


def test_every_mark_comes_with_its_reason(tmp_path: Path) -> None:
    table, html = written(run_folder(tmp_path, *EVERY_STATUS))
    for text in (table, Page(html).text):
        for reason in ("it claims no such calls", "run: pip install it", "ZeroDivisionError: oh", "the clock jumped"):
            assert reason in text


def test_a_cell_with_one_failed_repeat_is_failed(tmp_path: Path) -> None:
    """Figures of the repeats that went well would hide it."""
    table, _ = written(run_folder(tmp_path, trial(), unmeasured(Status.FAILED, "oh no", repeat=1), trial(repeat=2)))
    assert markdown_rows(table)["vault:default"][1] == MARKS[Status.FAILED]
    assert "oh no" in table


def test_repeats_are_shown_as_median_and_range(tmp_path: Path) -> None:
    trials = [trial(repeat=repeat, ops_per_s=value) for repeat, value in enumerate([1000.0, 5000.0, 2000.0])]
    table, _ = written(run_folder(tmp_path, *trials))
    assert markdown_rows(table)["vault:default"][1] == "2,000 (1,000–5,000)"


def test_what_a_fault_did(tmp_path: Path) -> None:
    table, html = written(
        run_folder(tmp_path, fault_trial(), fault_trial(strategy="never", verdict="worse_than_claimed"))
    )
    for by_row in (markdown_rows(table), {line[0]: line[1:] for line in Page(html).rows if line}):
        shown = by_row["vault:default"]
        assert {"driver", "op_id", "640", "123", "456", "7", "3", "1.25", "0.05", "never"} <= set(shown)
        assert {"401", "302", "203"} <= set(shown)
        assert shown[-2:] == ["yes", "as claimed"]
        assert by_row["never:default"][-1] == "worse than claimed!"


def test_a_matrix_says_in_words_what_is_left(tmp_path: Path) -> None:
    absent = {"workload": "unit_deposits", "fault": "worker_kill", "retry": "op_id"}
    _, html = written(
        run_folder(
            tmp_path,
            fault_trial(strategy="loser"),
            survivor(strategy="keeper"),
            survivor(strategy="boaster", verdict="worse_than_claimed", linearizable="no"),
            unmeasured(Status.NOT_APPLICABLE, "no server", strategy="apart", **absent),
            unmeasured(Status.RESOURCE_MISSING, "as root", strategy="lacking", **absent),
            unmeasured(Status.FAILED, "NotInjected", strategy="broken", **absent),
        )
    )
    shown = {line[0]: line[1] for line in Page(html).rows if len(line) == 2}
    assert shown == {
        "strategy (durability)": "worker_kill",
        "loser:default (volatile)": "loses 19 %, never served again",
        "keeper:default (volatile)": "survives",
        "boaster:default (volatile)": "answers out of order, worse than claimed!",
        "apart:default (volatile)": "n/a",
        "lacking:default (volatile)": "missing",
        "broken:default (volatile)": "failed",
    }


def test_callers_and_retries_are_not_mixed(tmp_path: Path) -> None:
    table, _ = written(
        run_folder(
            tmp_path,
            survivor(caller="task", retry="naive", duplicated=44),
            survivor(caller="task", retry="op_id"),
            survivor(caller="driver", retry="op_id"),
        )
    )
    matrices = re.findall(r"^## (What is left.*)\n\n.*\n.*\n.*\| (.*) \|$", table, re.MULTILINE)
    assert [(heading.partition(": ")[2], entry) for heading, entry in matrices] == [
        ("called from a driver, sent again with op ids", "survives"),
        ("called from a task, sent again without op ids", "doubles 44"),
        ("called from a task, sent again with op ids", "survives"),
    ]
    assert "deposits lost by" not in table  # of several ways of calling there is no one figure


def test_what_was_lost_stands_beside_the_speed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial(), fault_trial(), fault_trial(repeat=1, acknowledged_lost=7))
    _, trials = read(folder)
    header, _, line = report.summary_table(trials, "ycsb_a").splitlines()
    assert header.endswith("| deposits lost by worker_kill |")
    assert line.endswith("| 130 of 1,280 |")


def test_claims_that_were_not_kept_come_first(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, survivor(verdict="better_than_claimed"), survivor(strategy="fine"))
    text = Page(written(folder)[1]).text
    assert "1 cell not as claimed" in text
    assert text.index("vault:default, worker_kill, driver, sent again with op ids") < text.index("What is left")
    text = Page(written(run_folder(tmp_path, survivor()))[1]).text
    assert "No cells not as claimed" in text


# -- pictures --------------------------------------------------------------------------------------


def with_history(folder: Path, name: str, **about: object) -> None:
    """A deposit, acknowledged and lost, around a fault."""
    moments = {"start_ns": 0, "struck_ns": 10**8, "healed_ns": 2 * 10**8, "ended_ns": 10**9}
    kept = history(
        row(account=0, sent_ns=10**7, done_ns=2 * 10**7, seq=2, balance=101, epoch=7),
        row(account=0, sent_ns=3 * 10**8, done_ns=NEVER_NS, fate=UNKNOWN),
    )
    (folder / HISTORIES).mkdir(exist_ok=True)
    file = HistoryFile(kept, ["account-0"], 100, {"account-0": Receipt(1, 100, 7)}, moments | about)
    save(folder / HISTORIES / name, file)


def test_availability_and_violations_are_drawn(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, fault_trial(history="x.npz", violations="acknowledged_lost"))
    with_history(folder, "x.npz")
    page = Page(written(folder)[1])
    assert page.tags.count("svg") == 2
    assert "worker_kill, called from a driver, sent again with op ids" in page.text
    assert "nothing was acknowledged for" in page.text  # the picture, for whoever cannot see it
    assert "acknowledged_lost: vault:default, worker_kill" in page.text
    assert "deposit 1 -> seq 2, 101" in page.text


def test_histories_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    gone = run_folder(tmp_path, fault_trial(history="x.npz", violations="acknowledged_lost"), survivor(strategy="b"))
    page = Page(written(gone)[1])
    assert "svg" not in page.tags
    assert "have no history in histories/ (2)" in page.text
    assert "have no history in histories/ (1)" in page.text


@pytest.mark.parametrize("damage", ["bytes", "moments"])
def test_a_damaged_history_costs_its_own_picture_only(damage: str, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, fault_trial(history="x.npz", violations="acknowledged_lost"), survivor(strategy="b", history="y.npz")
    )
    with_history(folder, "y.npz")
    if damage == "bytes":
        (folder / HISTORIES / "x.npz").write_bytes(b"PK\x03\x04 and no more")
    else:
        with_history(folder, "x.npz", struck_ns="noon")
    page = Page(written(folder)[1])
    assert "x.npz" in page.text
    assert "b:default (volatile)" in page.text
    assert page.tags.count("svg") == (1 if damage == "bytes" else 2)


def test_a_record_does_not_choose_the_folder_of_its_history(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, fault_trial(history="../../elsewhere/histories/x.npz"))
    (tmp_path / "elsewhere").mkdir()
    with_history(tmp_path / "elsewhere", "x.npz")
    assert "svg" not in Page(written(folder)[1]).tags


def test_speed_and_faults_of_one_row_are_not_mixed(tmp_path: Path) -> None:
    table, _ = written(run_folder(tmp_path, trial(), fault_trial(ops_per_s=17.0)))
    assert "12,345" in table
    assert "17" not in re.sub(r"\d{4}-.*", "", table.split("worker_kill")[0]).replace("12,345", "")


def test_rows_are_grouped_by_durability(tmp_path: Path) -> None:
    """Results are compared within one class only."""
    classes = ["power_loss", "volatile", "process_crash", "volatile"]
    trials = [trial(strategy=f"s{index}", durability=durability) for index, durability in enumerate(classes)]
    table, _ = written(run_folder(tmp_path, *trials))
    shown = [row[0] for name, row in markdown_rows(table).items() if name.startswith("s") and name[1].isdigit()]
    assert shown == ["volatile", "volatile", "process_crash", "power_loss"]


def test_the_page_says_where_its_figures_come_from(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    table, html = written(folder)
    for text in (table, Page(html).text):
        assert "python -m benchmarks run --quick" in text
        assert "seed 1" in text
        assert "python 3." in text
        assert "distributed" in text


@pytest.mark.parametrize("values", [(8648.0, 8582.0), (5000.0, 5000.0), (1.0, 1e7)])
def test_figures_of_any_range_can_be_drawn(values: tuple[float, float], tmp_path: Path) -> None:
    """Close together they leave a logarithmic axis without a decade; warnings are errors here."""
    trials = [
        trial(strategy=f"s{index}", caller=caller, ops_per_s=value)
        for index, (caller, value) in enumerate(zip(("driver", "task"), values, strict=True))
    ]
    failed = unmeasured(Status.FAILED, "oh", strategy="own_accounts.TellsItsUrl")
    _, html = written(run_folder(tmp_path, *trials, failed))
    assert "<svg" in html


def test_what_failed_or_is_distrusted_is_not_drawn_as_if_it_were_sound(tmp_path: Path) -> None:
    doubtful = trial(strategy="doubtful", ops_per_s=77.0, trusted=False, distrust="the clock jumped")
    half_failed = [trial(strategy="half"), unmeasured(Status.FAILED, "oh", strategy="half", repeat=1)]
    _, html = written(run_folder(tmp_path, trial(strategy="sound"), doubtful, *half_failed))
    figures = re.findall(r"<figcaption>.*?</figcaption>|<desc>.*?</desc>|<text.*?</text>", html, re.DOTALL)
    text = " ".join(Page(each).text for each in figures)
    assert "77* (distrusted)" in text
    assert "half:default from a driver: failed" in text
    assert "Not drawn: half:default: failed" in text


def test_the_knee_is_where_throughput_over_the_p99_is_greatest() -> None:
    """Of rates that are trusted, and of enough of them."""
    points = {1000.0: 1000.0, 2000.0: 1100.0, 4000.0: 1500.0, 8000.0: 90_000.0, 9000.0: 1.0}
    trials = [
        trial(arrivals="poisson", offered_per_s=rate, ops_per_s=rate, latency_us_p99=us, trusted=rate < 9000)
        for rate, us in points.items()
    ]
    assert curves.knee(trials) == (4000.0, 1.5)
    assert curves.knee(trials[:3]) is None


# -- at the edges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NASTY, "$x^$ & 100%_sure"])
def test_a_name_is_shown_and_not_obeyed(name: str, tmp_path: Path) -> None:
    """File names are the user's: no HTML, no formula."""
    _, html = written(
        run_folder(
            tmp_path,
            trial(strategy=name),
            unmeasured(Status.FAILED, name, workload="hot", strategy=name),
            fault_trial(strategy=name, verdict="worse_than_claimed"),
            unmeasured(Status.FAILED, name, strategy=name, fault="server_kill", retry="op_id"),
        )
    )
    page = Page(html)
    bokehs, data, own = page.scripts
    assert own == report_explorer.EXPLORE
    assert name not in bokehs
    assert json.dumps(f"{name}:default") in json.dumps(json.loads(data))
    assert f"{name}:default" in [line[0] for line in page.rows if line]
    assert f"{name}:default (volatile)" in [entry for line in page.rows for entry in line]


def test_a_name_does_not_break_the_markdown_table(tmp_path: Path) -> None:
    table, _ = written(run_folder(tmp_path, trial(strategy="a|b"), trial(strategy="plain")))
    tables = re.findall(r"(?:^\|.*\n)+", table, re.MULTILINE)
    assert tables
    for each in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in each.splitlines()}) == 1, each


@pytest.mark.parametrize("finished", [True, False])
def test_no_trials_at_all(finished: bool, tmp_path: Path) -> None:
    table, html = written(run_folder(tmp_path, finished=finished))
    assert table
    page = Page(html)
    assert "h1" in page.tags
    assert ("not finished" in page.text) is not finished


@pytest.mark.parametrize("only", [*EVERY_STATUS, fault_trial()], ids=lambda each: f"{each.strategy}-{each.fault}")
def test_only_one_trial(only: Trial, tmp_path: Path) -> None:
    table, html = written(run_folder(tmp_path, only))
    assert f"{only.row}" in table
    assert only.row in Page(html).text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    """It is read from a disk or an archive of results, years later."""
    _, html = written(run_folder(tmp_path, *EVERY_STATUS, trial(caller="task"), fault_trial()))
    page = Page(html)
    assert "svg" in page.tags
    assert not set(page.tags) & {"iframe", "object", "embed", "img", "link"}
    assert [target for target in page.loads if not target.startswith(("#", "data:"))] == []
    without_scripts = html
    for script in page.scripts:  # what these load, tests/harness/test_report_in_browser.py sees
        without_scripts = without_scripts.replace(script, "")
    assert not re.search(r"@import|url\((?!['\"]?#)", without_scripts)


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *EVERY_STATUS)
    assert written(folder) == written(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    (folder / "table.md").mkdir()
    with pytest.raises(RunError, match=r"table\.md|written"):
        report.write(folder)
