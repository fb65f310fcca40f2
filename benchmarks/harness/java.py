"""The Java runtime that servers written in Java run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from benchmarks.harness.servers import ServerMissing

ROOT = Path(__file__).resolve().parents[2]
JARS = ROOT / ".java"
"""Where `make java` puts what it fetches and builds, a folder for each server."""

_ANSWER_S = 20.0


def runtime(oldest: int) -> Path:
    """The program `java` of at least this version: of JAVA_HOME, else on PATH.

    Raises:
        ServerMissing: there is none, or it is older, with what helps.
    """
    found = _program()
    helps = f"install Java {oldest} or newer (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one"
    if found is None:
        raise ServerMissing(f"there is no Java on PATH; {helps}")
    version = _version(found)
    if version is None:
        raise ServerMissing(f"{found} does not run or does not say which version of Java it is; {helps}")
    if version < oldest:
        raise ServerMissing(f"{found} is Java {version}; {helps}")
    return Path(found)


def jars(name: str) -> list[Path]:
    """What `make java` made for the server of this name.

    Raises:
        ServerMissing: it did not yet.
    """
    found = sorted((JARS / name).glob("*.jar"))
    if not found:
        raise ServerMissing(f"there are no jars in {JARS / name}; run: make java (it needs Maven and a JDK)")
    return found


def versions(name: str, jar: str) -> dict[str, str]:
    """Of the server of this name, by its jar `<jar>-<version>.jar`, and of Java; of what is there."""
    there = sorted((JARS / name).glob(f"{jar}-[0-9]*.jar"))
    if not there:
        return {}
    program = _program()
    version = _version(program) if program else None
    return {str(name): there[-1].stem.removeprefix(f"{jar}-"), "java": str(version)}


def _program() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else shutil.which("java")


@cache
def _version(program: str) -> int | None:
    """The feature release: 8 for 1.8.0_402, 17 for 17.0.15."""
    try:
        said = subprocess.run(
            [program, "-XX:-UsePerfData", "-version"],  # else it leaves a directory among the temporary ones
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
            stdin=subprocess.DEVNULL,
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None
