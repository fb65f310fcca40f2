"""The page in a real browser: its scripts work, ask for nothing, and its filters show what they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.harness import report
from benchmarks.harness.cells import Status
from tests.harness import large_run
from tests.harness.browser import asked_for, chromium, logged
from tests.harness.runs import fault_trial, run_folder, trial, unmeasured

NASTY = "<img src=x onerror=window.obeyed=1></script><script>window.obeyed=1</script>"
OPEN_S, WRITE_S, SIZE_MB = 2.0, 30.0, 10.0
"""What a full run's page may take."""
_TRIES = 3
_WAIT_S = 30


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def opened(browser: webdriver.Chrome, page: Path, width: int = 1400) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def explored(browser: webdriver.Chrome) -> None:
    WebDriverWait(browser, _WAIT_S).until(
        lambda found: found.find_element(By.ID, "explorer").get_attribute("data-ready") == "yes"
    )


def shown(browser: webdriver.Chrome) -> list[str]:
    """Rows, workloads and callers of the cells that Bokeh draws as points, by its own view of them."""
    found: list[str] = browser.execute_script(
        """
        const view = Bokeh.documents[0].get_model_by_name("points").view;
        const data = Bokeh.documents[0].get_model_by_name("cells").data;
        const columns = [data.row, data.workload, data.caller];
        return Array.from(view.indices).map(place => columns.map(values => values[place]).join(" "));
        """
    )
    return sorted(found)


def choose(browser: webdriver.Chrome, name: str, value: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f'input[name="{name}"][value="{value}"]').click()


def of_all_kinds(parent: Path) -> Path:
    trials = [
        trial(strategy="quick", caller="driver"),
        trial(strategy="quick", caller="task"),
        trial(strategy="quick", workload="hot"),
        trial(strategy="sure", durability="power_loss", ops_per_s=321.0, latency_us_p99=None),
        trial(strategy=NASTY, durability="power_loss"),
        unmeasured(Status.FAILED, NASTY, strategy="broken"),
        unmeasured(Status.RESOURCE_MISSING, "pip install it", strategy="lacking"),
        fault_trial(strategy="quick", verdict="worse_than_claimed"),
    ]
    return report.write(run_folder(parent, *trials))


def test_filters_show_what_they_say(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, of_all_kinds(tmp_path))
    explored(browser)
    count = browser.find_element(By.ID, "explorer-count")
    everything = shown(browser)
    assert len(everything) == 5
    assert count.text == "5 of 5 cells shown"

    choose(browser, "durability", "power_loss")
    assert shown(browser) == [
        "quick:default hot driver",
        "quick:default ycsb_a driver",
        "quick:default ycsb_a task",
    ]
    choose(browser, "workload", "hot")
    choose(browser, "caller", "task")
    assert shown(browser) == ["quick:default ycsb_a driver"]
    assert count.text == "1 of 5 cells shown"
    choose(browser, "durability", "volatile")
    assert shown(browser) == []
    for name, value in (
        ("durability", "volatile"),
        ("durability", "power_loss"),
        ("workload", "hot"),
        ("caller", "task"),
    ):
        choose(browser, name, value)
    assert shown(browser) == everything
    assert not logged(browser)


def test_another_percentile_can_be_chosen(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, of_all_kinds(tmp_path))
    explored(browser)
    browser.find_element(By.CSS_SELECTOR, "#explorer-controls select option:nth-child(2)").click()
    label, field = browser.execute_script(
        """
        const named = name => Bokeh.documents[0].get_model_by_name(name);
        return [named("latency-axis").axis_label, named("points").glyph.y.field];
        """
    )
    assert (label, field) == ("p90, ms (log)", "p90")
    assert not logged(browser)


def test_a_page_asks_for_nothing_and_obeys_no_name(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = of_all_kinds(tmp_path)
    asked_for(browser)
    opened(browser, page)
    explored(browser)
    time.sleep(0.5)  # for what a script would load later
    assert {address for address in asked_for(browser) if not address.startswith("data:")} == {page.as_uri()}
    assert not logged(browser)
    assert browser.execute_script("return window.obeyed") is None
    assert NASTY in browser.find_element(By.CSS_SELECTOR, "body").text


@pytest.mark.parametrize(
    "trials",
    [[], [trial()], [unmeasured(Status.FAILED, "oh")], [fault_trial()]],
    ids=["no trials", "one trial", "only a failure", "only a fault"],
)
def test_a_page_with_little_to_show_is_whole(browser: webdriver.Chrome, trials: list[Any], tmp_path: Path) -> None:
    page = report.write(run_folder(tmp_path, *trials))
    logged(browser)
    opened(browser, page)
    assert not logged(browser)
    headings = [each.text for each in browser.find_elements(By.TAG_NAME, "h2")]
    assert headings[0] == "The answer"
    assert headings[-1] == "Method and environment"


@pytest.mark.parametrize("width", [390, 1400])
def test_a_page_is_as_wide_as_its_window(width: int, browser: webdriver.Chrome, tmp_path: Path) -> None:
    """What is wider scrolls within it: tables and plots."""
    opened(browser, of_all_kinds(tmp_path), width)
    explored(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_the_page_of_a_full_run_is_made_and_opened_in_time(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Made in so much processor time, and opened at the best of a few tries: what else runs on a machine only adds."""
    folder = large_run.folder(tmp_path)
    begin_s = time.process_time()
    page = report.write(folder)
    made_s = time.process_time() - begin_s
    opens_s = []
    for _ in range(_TRIES):
        opened(browser, page)
        explored(browser)
        loaded_ms = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
        opens_s.append(browser.execute_script(loaded_ms) / 1e3)
    assert page.stat().st_size <= SIZE_MB * 1e6
    assert made_s <= WRITE_S
    assert 0 < min(opens_s) <= OPEN_S
    assert not logged(browser)
