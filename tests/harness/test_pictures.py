"""A violation's picture and its text show the rows that prove it, what is around them, and nothing that breaks out."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from benchmarks.harness.history import BALANCE, NEVER_NS, REASONS, REJECTED, TRANSFER, UNKNOWN, WITHDRAW
from benchmarks.harness.pictures import ROWS_MAX, in_words, picture
from benchmarks.harness.violations import Kind, Violation
from tests.harness.rows import history, row

KIND = next(iter(Kind))
MS = 1_000_000
NAMES = ["alice", "b<o>b", "c" * 200]
ROWS = history(
    row(client=0, sent_ns=5 * MS, done_ns=6 * MS, seq=7, balance=120, amount=20),
    row(client=2, sent_ns=7 * MS, done_ns=9 * MS, seq=9, balance=131, amount=7),
    row(client=0, sent_ns=8 * MS, done_ns=8_500_000, seq=9, balance=129, amount=5),
    row(client=3, number=17, keyed=1, sent_ns=8 * MS, done_ns=20 * MS, fate=UNKNOWN, amount=11),
    row(client=3, number=17, keyed=1, attempt=1, sent_ns=21 * MS, done_ns=NEVER_NS, fate=UNKNOWN, amount=11),
    row(client=0, sent_ns=9 * MS, done_ns=10 * MS, function=WITHDRAW, fate=REJECTED, reason=3, amount=900),
    row(client=5, sent_ns=900 * MS, done_ns=901 * MS, account=1, seq=2, balance=5, amount=3),
    row(
        client=1,
        sent_ns=30 * MS,
        done_ns=31 * MS,
        function=TRANSFER,
        account=1,
        target=2,
        amount=30,
        seq=3,
        balance=70,
        target_seq=2,
        target_balance=130,
    ),
    row(client=1, sent_ns=40 * MS, done_ns=41 * MS, function=BALANCE, amount=0, account=1, seq=3, balance=70),
)


def violation(*rows: int, account: str = "alice", words: str = "two changes have one seq") -> Violation:
    return Violation(KIND, account, words, rows)


def drawn(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in drawn(svg, "text")]


def test_words_give_times_from_the_first_call_and_mark_what_proves_it() -> None:
    text = in_words(violation(1, 2), ROWS, NAMES, context=1)
    assert text.splitlines()[0] == f"{KIND} on alice: two changes have one seq"
    lines = [line.split() for line in text.splitlines()[2:]]
    assert [line[:3] for line in lines] == [
        ["0.000", "1.000", "0"],
        [">", "2.000", "4.000"],
        [">", "3.000", "3.500"],
    ]
    assert "deposit 7 -> seq 9, 131" in text
    assert "deposit 5 -> seq 9, 129" in text


def test_bars_keep_the_order_of_calls_and_answers() -> None:
    first, second, third = in_words(violation(1, 2), ROWS, NAMES, context=1).splitlines()[2:]
    start = {line: line.index("|") for line in (first, second, third)}
    end = {line: line.rindex("|") for line in (first, second, third)}
    assert start[first] < end[first] < start[second] < start[third] < end[third] < end[second]


def test_other_attempts_come_first_among_what_is_around() -> None:
    text = in_words(violation(3), ROWS, NAMES, context=1)
    assert "deposit 11 -> unknown" in text
    assert "deposit 11 -> never returned (attempt 2)" in text
    assert len(text.splitlines()) == 4
    assert " - " in text.splitlines()[3]  # instead of the time of an answer


def test_what_happened_to_other_accounts_is_not_around() -> None:
    for shown in (in_words(violation(1), ROWS, NAMES, context=9), picture(violation(1), ROWS, NAMES, context=9)):
        assert "deposit 20" in shown
        assert "InsufficientFunds" in shown
        assert "deposit 3" not in shown


def test_a_transfer_names_its_accounts_in_short() -> None:
    text = in_words(violation(7), ROWS, NAMES, context=0)
    assert "transfer 30 to cccccccccccc…ccccccccccc -> seq 3, 70 and seq 2, 130" in text


def test_rows_of_several_accounts_say_which() -> None:
    text = in_words(violation(0, 8), ROWS, NAMES, context=0)
    assert "alice: deposit 20" in text
    assert "b<o>b: balance -> seq 3, 70" in text


def test_every_row_has_a_bar_and_a_label_in_the_picture() -> None:
    svg = picture(violation(1, 2, 4), ROWS, NAMES, context=0)
    found = texts(svg)
    for label in ("deposit 7 → seq 9, 131", "deposit 5 → seq 9, 129", "deposit 11 → never returned (attempt 2)"):
        assert label in found
    assert [each for each in found if each.startswith("client")] == ["client 2", "client 0", "client 3"]
    assert {"proves it", "never returned"} <= set(found)
    assert not {"shown beside it", "its caller was not told"} & set(found)
    assert found[:2] == [f"{KIND} on alice", "two changes have one seq"]


def test_the_picture_has_a_text_alternative() -> None:
    svg = picture(violation(1, 2), ROWS, NAMES)
    assert [each.text for each in drawn(svg, "title")] == [f"{KIND} on alice"]
    assert [each.text for each in drawn(svg, "desc")] == [in_words(violation(1, 2), ROWS, NAMES)]
    assert ElementTree.fromstring(svg).get("role") == "img"


def labels(svg: str) -> Iterator[tuple[float, float, float]]:
    """Left, right and line of each text, by a generous estimate."""
    for each in drawn(svg, "text"):
        size = float(each.get("font-size", 0))
        left = float(each.get("x", 0))
        if each.get("y") is not None and each.text:
            yield left, left + 0.55 * size * len(each.text), float(each.get("y", 0))


@pytest.mark.parametrize("clients", [1, 4])
def test_labels_neither_overlap_nor_leave_the_picture(clients: int) -> None:
    rows = history(
        *(
            row(
                client=place % clients,
                sent_ns=place * 1_000,
                done_ns=NEVER_NS if place % 7 == 0 else place * 1_000 + 9_500,
                seq=place + 2,
                balance=10**15 + place,
                function=TRANSFER if place % 5 == 0 else WITHDRAW,
                target=2,
                amount=10**12,
            )
            for place in range(20)
        )
    )
    svg = picture(Violation(KIND, "alice", "x " * 300, tuple(range(0, 20, 2))), rows, NAMES, context=10)
    legend = len(["proves it", "shown beside it", "never returned"])
    placed = list(labels(svg))[:-legend]  # these are moved as a whole
    assert len(placed) > 30
    for left, right, _ in placed:
        assert left >= 0
        assert right <= 960
    for place, (left, right, line) in enumerate(placed):
        for other_left, other_right, other_line in placed[:place]:
            if abs(line - other_line) < 9:
                assert right <= other_left or other_right <= left


def test_hostile_names_and_words_stay_text() -> None:
    shown = Violation(KIND, "a\x1b[2J<script>", "see\x00 </desc><b>&", (6,))
    names = [NAMES[0], "\x1b]0;x\x07<i>", NAMES[2]]
    svg = picture(shown, ROWS, names, context=1)
    text = in_words(shown, ROWS, names, context=1)
    assert "\x1b" not in text + svg
    assert "\x00" not in text + svg
    assert not drawn(svg, "b") + drawn(svg, "script") + drawn(svg, "i")
    assert "\\x1b[2J<script>" in text


def test_a_violation_without_rows_or_with_very_many() -> None:
    assert in_words(violation(), ROWS, NAMES) == f"{KIND} on alice: two changes have one seq"
    assert texts(picture(violation(), ROWS, NAMES)) == [f"{KIND} on alice", "two changes have one seq"]
    many = history(*(row(sent_ns=place, done_ns=place + 1) for place in range(40)))
    text = in_words(violation(*range(40)), many, NAMES, context=0)
    assert len(text.splitlines()) == 2 + ROWS_MAX + 1
    assert text.splitlines()[-1] == f"and {40 - ROWS_MAX} more rows"
    assert f"and {40 - ROWS_MAX} more rows" in texts(picture(violation(*range(40)), many, NAMES))


def test_reasons_are_named() -> None:
    assert REASONS[3] in in_words(violation(5), ROWS, NAMES, context=0)
