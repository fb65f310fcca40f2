"""Directories of the harness's own: removed at the end, or by the next harness if this one is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "dask-state-bench-"
_OWNED = "owned"
"""Locked for as long as its owner lives: the kernel lets go of it, however that ends."""


@contextmanager
def directory(purpose: str) -> Iterator[Path]:
    """An empty directory, until it is left."""
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
    lock = None
    try:
        lock = _own(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # what a dying process still writes is swept up later
        if lock is not None:
            os.close(lock)


def sweep() -> list[Path]:
    """Remove the directories whose owners are dead; those without an owner's lock are not known to be ours."""
    swept = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not path.is_symlink() and _is_orphan(path):
            shutil.rmtree(path, ignore_errors=True)
            swept.append(path)
    return swept


def _own(path: Path) -> int:
    """Lock it before it can be seen: who finds it unlocked may remove it."""
    unseen = path / f"{_OWNED}.new"
    lock = os.open(unseen, os.O_CREAT | os.O_WRONLY, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unseen.rename(path / _OWNED)
    return lock


def _is_orphan(path: Path) -> bool:
    with suppress(OSError):  # no such file; or somebody holds it, or it is another user's
        lock = os.open(path / _OWNED, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)
        return True
    return False
