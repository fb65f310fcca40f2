"""Writes the generated parts of README.md from recorded results: `python -m benchmarks.harness.readme [RUN]`.

Each part stands between two comments that name it. The part `run` also says which run it was made
from; without RUN, that one is used again.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.harness import report
from benchmarks.harness.records import RunError, read

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PLOT = ROOT / "docs" / "speed.svg"
SCOREBOARD = ROOT / "results" / "scoreboard.json"

_SOURCE = re.compile(r"<!-- from (\S+) -->")


def source_of(text: str) -> Path:
    """The run that this README's figures are from.

    Raises:
        RunError: it does not say.
    """
    found = _SOURCE.search(text)
    if found is None:
        raise RunError("README.md names no run; give one: python -m benchmarks.harness.readme RUN")
    return ROOT / found[1]


def generated(text: str, run: Path) -> str:
    """The README with its generated parts made anew."""
    about, trials = read(run)
    parts = {
        "run": [
            f"<!-- from {run.relative_to(ROOT).as_posix()} -->",
            "",
            report.summary_table(trials, report.SUMMARY_WORKLOAD),
            "",
            *report.provenance(about, trials),
        ],
        "scoreboard": [_scoreboard()],
    }
    for name, lines in parts.items():
        begin, end = f"<!-- {name}: made by `make readme` -->", f"<!-- end of {name} -->"
        before, middle, after = *text.partition(begin)[:2], text.partition(end)[2]
        if not (middle and after):
            raise RunError(f"README.md lacks the comments around its generated part {name!r}")
        text = "\n".join([before + begin, *lines, end]) + after
    return text


def _scoreboard() -> str:
    rows = json.loads(SCOREBOARD.read_text())["scoreboard"]
    lines = ["| row | ratio | 95 % interval | target | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        interval = f"{row['low']:.2f}–{row['high']:.2f}"
        lines.append(f"| `{row['row']}` | {row['ratio']:.2f} | {interval} | ≥ {row['target']} | {row['verdict']} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Rewrite README.md and its plot; returns the exit code."""
    try:
        text = README.read_text()
        run = Path(arguments[0]).resolve() if arguments else source_of(text)
        README.write_text(generated(text, run))
        PLOT.write_text(report.plot_speed(read(run)[1], report.SUMMARY_WORKLOAD))
    except (RunError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
