"""Writes the generated parts of README.md and docs/ from recorded results, the faults and the claims.

`python -m benchmarks.harness.readme [RUN [SWEEP]]`. Each part stands between two comments that name it, and says which
run it was made from where it was made from one; without RUN and SWEEP, those of README.md and docs/method.md are used
again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    book_claims,
    book_table,
    claims_table,
    companions,
    curves,
    failure_figures,
    failure_outcomes,
    failure_tables,
    faults,
    report,
    report_tables,
    scoreboard,
    three_sentences,
)
from benchmarks.harness.records import RunError, read
from benchmarks.harness.table_text import markdown
from strategies.interface import Fault

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
METHOD = ROOT / "docs" / "method.md"
FAILURES = ROOT / "docs" / "failures.md"
STRATEGIES = ROOT / "docs" / "strategies.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "speed.svg"
CURVE = ROOT / "docs" / "latency_throughput.svg"
SCOREBOARD = ROOT / "results" / "scoreboard.json"
SELFTEST = ROOT / "results" / "selftest.json"
_TABLE = "results/failures.md"
_RUNS_NAMED = 5
"""At most so many have a line each in the README."""

_SOURCE = re.compile(r"<!-- from (\S+) -->")


def source_of(text: str) -> Path:
    """The run that this page's figures are from.

    Raises:
        RunError: it does not say.
    """
    found = _SOURCE.search(text)
    if found is None:
        raise RunError("the page names no run; write one between the comments: <!-- from results/runs/… -->")
    return ROOT / found[1]


def generated(text: str, run: Path) -> str:
    """The README with its generated parts made anew."""
    about, trials = read(run)
    beside = companions.load()
    cells = failure_figures.aggregate(trials)
    lines = book_table.table(trials, beside.unpublished(run.name, cells), beside)
    return _filled(
        text,
        {
            "answer": ["", "\n\n".join(three_sentences.three_sentences(trials)), ""],
            "run": [
                _from(run),
                "",
                report.summary_table(trials, report.SUMMARY_WORKLOAD),
                "",
                *report.provenance(about, trials),
            ],
            "book": ["", *markdown(book_table.verdicts(lines).lines), ""],
        },
    )


def failures(table: failure_tables.FailureTable | None) -> list[str]:
    """A digest of the published failure table, and the book's claims beside it."""
    if table is None:
        return ["", "Not published yet: `make failures` measures it, `make failure-table RUNS=…` publishes it.", ""]
    provenance, *of_runs = table.provenance()
    runs = table.about["runs"]
    if len(runs) > _RUNS_NAMED:
        commits = " and ".join(sorted({run["commit"][:10] for run in runs}))
        named = f"{len(runs)} runs of commit {commits}"
        of_runs = ["", f"The trials are of {named}: [{_TABLE}](../{_TABLE}) has their commands."]
    return [
        "",
        *markdown(book_claims.claims(table)),
        "",
        f"The book is {book_claims.SOURCE}; the words in quotation marks are its own. Row by row, called from the "
        "driver, and sent again with op ids, unless the column says otherwise:",
        "",
        *markdown(book_claims.digest(table)),
        "",
        provenance,
        *of_runs,
        "",
    ]


def generated_failures(text: str) -> str:
    """docs/failures.md with its tables made anew: of faults, and what they left."""
    header = ["fault", "what is struck", "what it emulates", "what heals it", "what it cannot show"]
    lines = [header]
    for fault in Fault:
        action = faults.load(fault)
        lines.append([f"`{fault}`", action.target, action.emulates, action.healed_by, action.cannot_show])
    return _filled(
        text,
        {
            "faults": ["", *markdown(lines), ""],
            "matrix": _matrix(failure_tables.read(failure_tables.RESULTS / failure_tables.ONCE_JSON)),
            "failures": failures(failure_tables.read()),
        },
    )


def _matrix(table: failure_tables.FailureTable | None) -> list[str]:
    if table is None:
        return ["", "Not published yet: `make reference` measures it.", ""]
    left = [
        line
        for section in failure_outcomes.matrices(table.cells)
        for line in (f"{section.heading}:", "", *markdown(section.lines), "")
    ]
    return ["", *left, *table.provenance(), ""]


def generated_strategies(text: str) -> str:
    """docs/strategies.md with its table of claims made anew."""
    return _filled(text, {"claims": ["", *markdown(claims_table.claims_table()), ""]})


def generated_method(text: str, run: Path) -> str:
    """docs/method.md with its generated parts made anew."""
    about, trials = read(run)
    (stall,) = (row["detail"] for row in _selftest_rows() if row["row"].startswith("stall"))
    plot = f"![Response time over achieved throughput, a line for each strategy]({CURVE.name})"
    return _filled(
        text,
        {
            "stall": ["", f"> {stall[0].upper()}{stall[1:]}.", ""],
            "curve": [_from(run), "", plot, "", *report.provenance(about, trials)],
            "selftest": _selftest(),
        },
    )


def generated_performance(text: str) -> str:
    """docs/performance.md with its generated parts made anew."""
    return _filled(text, {"scoreboard": ["", *_scoreboard(), ""], "scaling": ["", *_scaling(), ""]})


def curve_plot(run: Path) -> str:
    """The latency-throughput curve of docs/method.md."""
    trials = read(run)[1]
    return curves.latency_over_throughput(trials, f"{trials[0].workload}, called from a {trials[0].caller}")


def _from(run: Path) -> str:
    return f"<!-- from {run.relative_to(ROOT).as_posix()} -->"


def _filled(text: str, parts: Mapping[str, Sequence[str]]) -> str:
    for name, lines in parts.items():
        begin, end = f"<!-- {name}: made by `make readme` -->", f"<!-- end of {name} -->"
        before, middle, after = *text.partition(begin)[:2], text.partition(end)[2]
        if not (middle and after):
            raise RunError(f"the page lacks the comments around its generated part {name!r}")
        text = "\n".join([before + begin, *lines, end]) + after
    return text


def _selftest_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(SELFTEST.read_text())["selftest"]
    return rows


def _selftest() -> list[str]:
    lines = ["| row | figure | bound | holds | how |", "| --- | --- | --- | --- | --- |"]
    for row in _selftest_rows():
        figure, bound = f"{row['figure']:g} {row['unit']}", f"{row['relation']} {row['bound']:g}"
        lines.append(f"| `{row['row']}` | {figure} | {bound} | {'yes' if row['holds'] else 'no'} | {row['detail']} |")
    return lines


def _scoreboard() -> list[str]:
    recorded = json.loads(SCOREBOARD.read_text())
    rows = [scoreboard.Row.of_record(row) for row in recorded["scoreboard"]]
    table = markdown([scoreboard.COLUMNS, *([f"`{row.row}`", *row.cells[1:]] for row in rows)])
    notes = [f"- `{row.row}`: {row.note}." for row in rows if row.note]
    machine = recorded["machine"]
    return [
        *table,
        "",
        *notes,
        "",
        f"Measured on {machine['cores_usable']} cores of {machine['cpu']}; commit {recorded['commit'][:10]}; command: "
        f"`{recorded['command']}`.",
    ]


def _scaling() -> list[str]:
    """Of the recorded sweeps over clients or shards."""
    lines = []
    for sweep in companions.load().sweeps:
        for section in report_tables.findings(sweep.about):
            lines += [f"{section.heading}:", "", *markdown(section.lines), ""]
        lines += [*report.provenance(sweep.about, sweep.trials), ""]
    return lines or ["Not recorded yet: `python -m benchmarks sweep --over clients` measures it."]


def main(arguments: list[str]) -> int:
    """Rewrite the pages and their plots; returns the exit code."""
    try:
        readme, method = README.read_text(), METHOD.read_text()
        run = Path(arguments[0]).resolve() if arguments else source_of(readme)
        sweep = Path(arguments[1]).resolve() if len(arguments) > 1 else source_of(method)
        README.write_text(generated(readme, run))
        PLOT.write_text(report.plot_speed(read(run)[1], report.SUMMARY_WORKLOAD))
        METHOD.write_text(generated_method(method, sweep))
        CURVE.write_text(curve_plot(sweep))
        FAILURES.write_text(generated_failures(FAILURES.read_text()))
        PERFORMANCE.write_text(generated_performance(PERFORMANCE.read_text()))
        STRATEGIES.write_text(generated_strategies(STRATEGIES.read_text()))
    except (RunError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
