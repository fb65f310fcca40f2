"""What callers were told in each tenth of a second, and what a fault did to the flow."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.harness.history import LOST, NEVER_NS, OK, REJECTED, TRANSFER, UNAVAILABLE, UNKNOWN, History
from benchmarks.harness.timeline import Panel, figures, in_words, picture, timeline
from tests.harness.rows import history, row

S = 1_000_000_000
MS = 1_000_000
START = 5 * S


def steady(*silences: tuple[float, float], accounts: int = 2, seconds: int = 6) -> History:
    """Ten deposits a second to each account, answered at once but in the silences, where they are unavailable."""
    rows = []
    for account in range(accounts):
        for number in range(10 * seconds):
            at_s = number / 10
            silent = any(begin <= at_s < end for begin, end in silences)
            sent = START + number * S // 10
            rows.append(
                row(
                    client=account,
                    account=account,
                    number=number,
                    sent_ns=sent,
                    done_ns=sent + MS,
                    fate=UNAVAILABLE if silent else OK,
                )
            )
    return history(*rows)


# -- timelines -------------------------------------------------------------------------------------


def test_each_answer_is_counted_when_it_came() -> None:
    rows = history(
        row(sent_ns=START, done_ns=START + 99 * MS),
        row(sent_ns=START, done_ns=START + 100 * MS),
        row(sent_ns=START, done_ns=START + 150 * MS, fate=REJECTED),
        row(sent_ns=START + 10 * MS, done_ns=START + 310 * MS, fate=UNKNOWN),
        row(sent_ns=START + 210 * MS, done_ns=NEVER_NS, fate=UNKNOWN),
        row(sent_ns=START, done_ns=START + 320 * MS, fate=LOST),
        row(sent_ns=START, done_ns=START + 330 * MS, fate=UNAVAILABLE),
        row(sent_ns=START - 9, done_ns=START - 1),
    )
    found = timeline(rows, START)
    assert {kind: count.tolist() for kind, count in found.counts.items()} == {
        "acknowledged": [1, 1, 0, 0],
        "rejected": [0, 1, 0, 0],
        "unknown": [0, 0, 1, 1],
        "unavailable": [0, 0, 0, 1],
        "state lost": [0, 0, 0, 1],
    }
    assert len(timeline(rows, START, end_ns=START + S)) == 10
    assert len(timeline(rows, START, bin_s=0.2)) == 2
    assert timeline(rows, START, (START + S, START + 3 * S)).fault_s == (1.0, 3.0)


def test_what_is_sent_again_after_its_acknowledgement_does_not_count() -> None:
    rows = history(
        row(number=1, keyed=1, sent_ns=START, done_ns=START + 1, fate=UNKNOWN),
        row(number=1, keyed=1, attempt=1, sent_ns=START + 2, done_ns=START + 3),
        row(number=1, keyed=1, attempt=2, sent_ns=START + S, done_ns=START + S + 1),
        row(number=1, client=1, sent_ns=START, done_ns=START + 1),
    )
    counts = timeline(rows, START).counts
    assert counts["acknowledged"].sum() == 2
    assert counts["unknown"].sum() == 1


def test_a_timeline_has_bounds() -> None:
    rows = history(row(sent_ns=START, done_ns=START + 10_000 * S))
    with pytest.raises(ValueError, match="longer bin_s"):
        timeline(rows, START, bin_s=0.01)
    assert len(timeline(history(), START)) == 1


# -- figures ---------------------------------------------------------------------------------------


def test_goodput_before_during_and_after() -> None:
    found = figures(steady((2.0, 3.0)), START + 2 * S, START + 3 * S)
    assert found.goodput_before_per_s == pytest.approx(20)
    assert found.goodput_during_per_s == 0
    assert found.goodput_after_per_s == pytest.approx(20, rel=0.02)
    assert found.unknown_share == 0


def test_a_blow_without_a_remedy_is_felt_for_a_while() -> None:
    found = figures(steady((2.0, 2.5)), START + 2 * S, START + 2 * S)
    assert found.goodput_during_per_s == pytest.approx(10)
    assert figures(steady(), START + 6 * S, START + 6 * S).goodput_after_per_s is None


def test_gaps_of_everybody_and_of_each_account() -> None:
    one = steady((1.0, 3.0), accounts=1)
    other = replace(steady((4.0, 4.5), accounts=1), account=one.account + np.int32(1), client=one.client + np.int16(1))
    found = figures(History.concatenated([one, other]), START + S, START + 3 * S)
    assert found.gap_max_s_by_account == pytest.approx({0: 2.1, 1: 0.6})
    assert found.account_gap_max_s == pytest.approx(2.1)
    assert found.gap_max_s == pytest.approx(0.1)


def test_silence_to_the_end_is_a_gap() -> None:
    never_again = steady((1.0, 9.0), accounts=1)
    assert figures(never_again, START + S, START + S).account_gap_max_s == pytest.approx(5, abs=0.1)
    died = never_again.where(never_again.fate == OK)  # nobody lived to ask
    assert figures(died, START + S, START + S).account_gap_max_s < 0.2
    found = figures(died, START + S, START + S, end_ns=START + 6 * S)
    assert found.account_gap_max_s == pytest.approx(5.1, abs=0.1)
    assert found.goodput_after_per_s == 0


def test_a_transfer_serves_both_accounts() -> None:
    rows = history(row(sent_ns=START + S, done_ns=START + S, function=TRANSFER, target=1, due_ns=START))
    found = figures(rows, START + S, START + S, end_ns=START + 2 * S)
    assert found.gap_max_s_by_account == {0: 1.0, 1: 1.0}


def test_unknown_is_what_the_caller_never_learnt() -> None:
    attempts = (
        row(number=1, keyed=1, sent_ns=START, done_ns=START + 1, fate=UNKNOWN),
        row(number=1, keyed=1, attempt=1, sent_ns=START + 2, done_ns=START + 3),
        row(number=2, sent_ns=START, done_ns=START + 1, fate=UNKNOWN),
        row(number=2, attempt=1, sent_ns=START + 2, done_ns=START + 3),
        row(number=3, keyed=1, sent_ns=START, done_ns=NEVER_NS, fate=UNKNOWN),
        row(number=4, sent_ns=START, done_ns=START + 1),
    )
    # The first was told at last; of the second, one attempt was never told of.
    assert figures(history(*attempts), START, START).unknown_share == 0.5


def test_figures_of_nothing() -> None:
    found = figures(history(), START, START)
    assert (found.goodput_before_per_s, found.unknown_share, found.account_gap_max_s) == (None, None, 0.0)


# -- pictures --------------------------------------------------------------------------------------


def panel(title: str = "actor_pool:direct") -> Panel:
    rows = steady((2.0, 3.0))
    return Panel(title, timeline(rows, START, (START + 2 * S, START + 3 * S)))


def test_words_say_what_the_picture_shows() -> None:
    assert in_words(panel()) == (
        "actor_pool:direct: 100 acknowledged, 20 unavailable in 6.0 s; the fault struck after 2.00 s and was healed "
        "after 3.00 s; nothing was acknowledged for 1.0 s from 2.0 s on."
    )
    assert in_words(Panel("x", timeline(history(), START))).startswith("x: no answers in 0.1 s")


def test_one_svg_holds_all_panels_and_their_words() -> None:
    panels = [panel(), panel("<mine>/$x_1$.py:Bank"), panel("long " * 60)]
    svg = picture(panels, "worker_kill & op_id")
    root = ElementTree.fromstring(svg)
    found = {each.tag.rpartition("}")[2]: each.text or "" for each in root if each.text}
    assert found["title"] == "worker_kill & op_id"
    assert all(in_words(each) in found["desc"] for each in panels)
    assert root.get("role") == "img"
    assert svg.startswith("<svg")
    assert svg.count('id="axes_') == 3
    assert picture(panels, "worker_kill & op_id") == svg


def test_kinds_differ_by_more_than_colour() -> None:
    rows = steady((1.0, 1.5), accounts=1)
    mixed = replace(rows, fate=np.where(np.arange(len(rows)) % 5 > 0, np.arange(len(rows)) % 5, 0).astype(np.int8))
    svg = picture([Panel("x", timeline(mixed, START))], "all kinds")
    patterns = [each for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("}pattern")]
    assert len({ElementTree.tostring(each[-1]) for each in patterns}) == 4  # all but what was acknowledged
    assert "fault" not in svg


def test_dozens_of_panels_stay_small() -> None:
    svg = picture([panel(f"strategy {place}") for place in range(8)], "many")
    assert len(svg) < 200_000
