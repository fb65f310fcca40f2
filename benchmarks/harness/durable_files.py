"""What of a directory's files would be left after a power cut: what was synced, as it was when the sync began.

The strictest file system that keeps POSIX's promises: an overwritten, appended, new, renamed or deleted file is as it
was before, until its sync (of names: its directory's) has returned. As every common file system does, a file's own
sync keeps its name too. What is synced is copied aside; a block that was synced half is not known here.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK_BYTES = 1 << 18
_FILES_MAX = 10_000

Inode = tuple[int, int]


@dataclass
class _Node:
    """A file or directory as it is on disk."""

    held: int
    """A descriptor: as long as it is open, no other file gets this one's inode."""
    mode: int
    uid: int
    gid: int
    names: dict[str, Inode] = field(default_factory=dict)
    """Of a directory."""
    copy: int = -1
    """Of a file: a descriptor of its durable content."""


@dataclass(frozen=True)
class Lost:
    """What a power cut took along."""

    files: int
    """That are shorter, other or gone."""
    appended_bytes: int
    """By which files are shorter."""


class DurableFiles:
    """Follows one directory, whose present content counts as durable. Copies are in memory. Linux only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._nodes: dict[Inode, _Node] = {}
        self._named: dict[Inode, str] = {}
        """Paths that files' own syncs made durable, as long as no directory's sync changed them."""
        self.settle()

    def settle(self) -> None:
        """All that is there counts as durable from now on."""
        for path in (self._directory, *self._directory.rglob("*")):
            if _is_followed(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    self.syncing(descriptor)()
                finally:
                    os.close(descriptor)

    def syncing(self, descriptor: int, *, appends: bool = False) -> Callable[[], None]:
        """A sync of this open file or directory begins: call what is returned when it has.

        `appends`: it is open for appending, so that what is there already does not change.
        """
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a Path takes as long as all the rest
        if f"{path}/".startswith(f"{self._directory}/"):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return self._syncing_directory(descriptor, Path(path))
            return self._syncing_file(descriptor, path, appends)
        return lambda: None

    def restore(self) -> Lost:
        """Make the directory what it is on disk. Nobody may have its files open."""
        found = {path.relative_to(self._directory): path for path in self._directory.rglob("*") if path.is_file()}
        kept: dict[Path, int] = {}
        self._collect(_inode(self._directory.stat()), Path(), kept)
        changed = shorter = 0
        for name, path in found.items():
            copy = kept.get(name)
            if copy is None or not _same(path, copy):
                changed += 1
                shorter += max(0, path.stat().st_size - (os.fstat(copy).st_size if copy is not None else 0))
        for path in self._directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self._build(_inode(self._directory.stat()), self._directory)
        return Lost(changed + len(set(kept) - set(found)), shorter)

    def close(self) -> None:
        """Forget everything."""
        for node in self._nodes.values():
            os.close(node.held)
            if node.copy >= 0:
                os.close(node.copy)
        self._nodes.clear()

    def _syncing_directory(self, descriptor: int, path: Path) -> Callable[[], None]:
        names = {}
        for each in path.iterdir():
            with suppress(FileNotFoundError):  # deleted meanwhile
                if _is_followed(each):
                    names[each.name] = self._known_at(each)

        def synced() -> None:
            self._nodes[self._known(descriptor)].names = names
            self._keep_names_to(path)
            self._named.clear()

        return synced

    def _syncing_file(self, descriptor: int, path: str, appends: bool) -> Callable[[], None]:
        inode = self._known(descriptor)
        copy = self._nodes[inode].copy
        before, size = os.fstat(copy).st_size, os.fstat(descriptor).st_size
        changed = []
        for start in range(before if appends and size >= before else 0, size, _BLOCK_BYTES):
            block = os.pread(descriptor, min(_BLOCK_BYTES, size - start), start)
            if start >= before or block != os.pread(copy, len(block), start):
                changed.append((start, block))

        def synced() -> None:
            for start, block in changed:
                os.pwrite(copy, block, start)
            os.ftruncate(copy, size)
            if self._named.get(inode) != path:
                self._name(inode, Path(path))

        return synced

    def _name(self, inode: Inode, path: Path) -> None:
        if not path.exists() or _inode(path.stat()) != inode:
            return  # it is deleted, and the system says so at the path's end
        if path.stat().st_nlink == 1:
            for node in self._nodes.values():
                node.names = {name: named for name, named in node.names.items() if named != inode}
        self._keep_names_to(path)
        self._named[inode] = str(path)

    def _known(self, descriptor: int) -> Inode:
        """The open file's or directory's identity; new ones are blank."""
        status = os.fstat(descriptor)
        inode = _inode(status)
        if inode not in self._nodes:
            if len(self._nodes) == _FILES_MAX:
                raise RuntimeError(f"more than {_FILES_MAX:,} files were synced; follow fewer")
            node = _Node(os.dup(descriptor), status.st_mode, status.st_uid, status.st_gid)
            if stat.S_ISREG(status.st_mode):
                node.copy = os.memfd_create("durable", os.MFD_CLOEXEC)
            self._nodes[inode] = node
        return inode

    def _known_at(self, path: Path) -> Inode:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return self._known(descriptor)
        finally:
            os.close(descriptor)

    def _keep_names_to(self, path: Path) -> None:
        while path != self._directory:
            inode, name, path = self._known_at(path), path.name, path.parent
            self._nodes[self._known_at(path)].names[name] = inode

    def _collect(self, inode: Inode, path: Path, kept: dict[Path, int]) -> None:
        """Every durable file's path and content, below a directory."""
        for name, named in self._nodes[inode].names.items():
            node = self._nodes[named]
            if node.copy >= 0:
                kept[path / name] = node.copy
            else:
                self._collect(named, path / name, kept)

    def _build(self, inode: Inode, path: Path) -> None:
        for name, named in self._nodes[inode].names.items():
            node, made = self._nodes[named], path / name
            if node.copy < 0:
                made.mkdir()
                self._build(named, made)
            else:
                os.lseek(node.copy, 0, os.SEEK_SET)
                with open(node.copy, "rb", closefd=False) as source, made.open("wb") as target:
                    shutil.copyfileobj(source, target)
            made.chmod(stat.S_IMODE(node.mode))
            if os.geteuid() == 0:
                os.chown(made, node.uid, node.gid)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _is_followed(path: Path) -> bool:
    return stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)


def _same(path: Path, copy: int) -> bool:
    if path.stat().st_size != os.fstat(copy).st_size:
        return False
    with path.open("rb") as file:
        return all(
            file.read(_BLOCK_BYTES) == os.pread(copy, _BLOCK_BYTES, start)
            for start in range(0, os.fstat(copy).st_size, _BLOCK_BYTES)
        )
