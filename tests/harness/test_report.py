"""Table and page show what the trials are, keep the four marks apart, and load nothing from anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.harness import report
from benchmarks.harness.cells import Status
from benchmarks.harness.records import RunError, Trial
from tests.harness.runs import run_folder, trial, unmeasured

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
        self.text = ""
        self._in_cell = False
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

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
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
    page = {row[0]: row[1:] for row in Page(html).rows if row}
    assert {name: page[f"{name}:default"][1] for name in marks} == marks


def test_every_mark_comes_with_its_reason(tmp_path: Path) -> None:
    table, html = written(run_folder(tmp_path, *EVERY_STATUS))
    for text in (table, Page(html).text):
        for reason in ("it claims no such calls", "run: pip install it", "ZeroDivisionError: oh", "the clock jumped"):
            assert reason in text


def test_a_cell_with_one_failed_repeat_is_failed(tmp_path: Path) -> None:
    """Figures of the repeats that went well would hide it."""
    table, _ = written(run_folder(tmp_path, trial(), unmeasured(Status.FAILED, "oh no", repeat=1), trial(repeat=2)))
    assert markdown_rows(table)["vault:default"][1] == report.MARKS[Status.FAILED]
    assert "oh no" in table


def test_repeats_are_shown_as_median_and_range(tmp_path: Path) -> None:
    trials = [trial(repeat=repeat, ops_per_s=value) for repeat, value in enumerate([1000.0, 5000.0, 2000.0])]
    table, _ = written(run_folder(tmp_path, *trials))
    assert markdown_rows(table)["vault:default"][1] == "2,000 (1,000–5,000)"


def fault_trial(**changes: object) -> Trial:
    figures = {
        "workload": "unit_deposits",
        "fault": "worker_kill",
        "acknowledged": 640,
        "acknowledged_lost": 123,
        "indeterminate": 7,
        "indeterminate_applied": 3,
        "unavailable_s": 1.25,
        "detection_s": 0.05,
        "recovery_s": None,
        "verdict": "as_claimed",
        "latency_kind": "response",
    }
    return trial(**(figures | changes))


def test_what_a_fault_did(tmp_path: Path) -> None:
    table, _ = written(run_folder(tmp_path, fault_trial(), fault_trial(strategy="never", verdict="worse_than_claimed")))
    by_row = markdown_rows(table)
    shown = by_row["vault:default"]
    assert {"640", "123", "7", "3", "1.25", "0.05", "never"} <= set(shown)
    assert shown[-1] == "as claimed"
    assert by_row["never:default"][-1] == "worse than claimed"


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


# -- at the edges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NASTY, "$x^$ & 100%_sure"])
def test_a_name_is_shown_and_not_obeyed(name: str, tmp_path: Path) -> None:
    """File names are the user's: no HTML, no formula."""
    _, html = written(
        run_folder(tmp_path, trial(strategy=name), unmeasured(Status.FAILED, name, workload="hot", strategy=name))
    )
    page = Page(html)
    assert "script" not in page.tags
    assert f"{name}:default" in [row[0] for row in page.rows if row]


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
    assert not set(page.tags) & {"script", "iframe", "object", "embed", "img", "link"}
    assert [target for target in page.loads if not target.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!['\"]?#)", html)


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *EVERY_STATUS)
    assert written(folder) == written(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, trial())
    (folder / "table.md").mkdir()
    with pytest.raises(RunError, match=r"table\.md|written"):
        report.write(folder)
