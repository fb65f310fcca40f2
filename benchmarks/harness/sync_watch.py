"""Answers a server's syncs in the kernel's place, and so knows what of its files is on disk at each moment.

The server's fsync and fdatasync calls are handed over by seccomp, without root. Each is done here on the same file,
before the server is told that it is done. What counts as durable is what the file held when the sync began, from the
moment when it returned while the server still waited: of all the outcomes that a power cut could have, the one that
keeps least. The server is never told of a sync before that.

Not seen: sync, syncfs, msync, and writes through O_SYNC. What only these flush is lost here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import select
import socket
import struct
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.durable_files import DurableFiles, Lost
from benchmarks.harness.helper_process import HelperProcess
from benchmarks.harness.launch import SECCOMP, SYNCS, USER_NOTIF

_GET_ACTION_AVAIL = 2
_RECEIVE, _SEND, _STILL_WAITS = 0xC0502100, 0xC0182101, 0x80082102
"""SECCOMP_IOCTL_NOTIF_RECV, _SEND and _ID_VALID."""
_CALL = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, thread, flags; number, architecture, instruction, arguments."""
_ANSWER = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""
_FSYNC, _ = SYNCS.get(platform.machine(), (-1, -1))
_HANDOVER_S = 10.0


def missing() -> str | None:
    """Why syncs cannot be answered here; None if they can."""
    machine = platform.machine()
    if sys.platform == "linux" and machine in SECCOMP:
        action = ctypes.c_uint32(USER_NOTIF)
        if ctypes.CDLL(None).syscall(SECCOMP[machine], _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0:
            return None
    return "a server's syncs are followed by seccomp's user notification; run on Linux 5.0 or newer, x86_64 or aarch64"


class SyncWatch:
    """Watches one process, from its start, and one directory. Use as a context manager.

    The process is started with the descriptor `handover`, by `launch.py`; then `close_handover`.
    """

    def __init__(self, directory: Path) -> None:
        receiver, self._handover = socket.socketpair()
        with receiver:
            self._helper = HelperProcess(
                __name__, str(receiver.fileno()), str(directory), pass_fds=(receiver.fileno(),)
            )

    @property
    def handover(self) -> int:
        """For the process to be watched."""
        return self._handover.fileno()

    def close_handover(self) -> None:
        """The process has it."""
        self._handover.close()

    def syncs(self) -> tuple[int, float]:
        """How many were answered, and the mean time that each took here, in microseconds."""
        count, mean_us = self._helper.ask("syncs")
        return count, mean_us

    def lose(self) -> Lost:
        """Make the directory what it is on disk. The process must be dead."""
        return Lost(**self._helper.ask("lose"))

    def settle(self) -> None:
        """What the directory holds counts as synced. Nobody must write meanwhile."""
        self._helper.ask("settle")

    def close(self) -> None:
        """Stop watching. Syncs of the process fail from now on. Idempotent."""
        self._handover.close()
        self._helper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main(control: socket.socket, handover: str, directory: str) -> None:
    """In the helper."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each file that is followed stays open
    with closing(DurableFiles(Path(directory))) as files:
        with socket.socket(fileno=int(handover)) as receiver:
            receiver.settimeout(_HANDOVER_S)
            _, descriptors, _, _ = socket.recv_fds(receiver, 16, 1)
            if descriptors:
                receiver.send(b"\n")  # now all that the directory held before is known
        if descriptors:
            _Watch(files, control, descriptors[0]).run()


class _Watch:
    def __init__(self, files: DurableFiles, control: socket.socket, calls: int) -> None:
        self._files = files
        self._control = control
        self._calls = calls
        self._answered = 0
        self._spent_ns = 0

    def run(self) -> None:
        """Until `control` ends."""
        poll = select.poll()
        poll.register(self._calls, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        with self._control.makefile("rb") as questions:
            while True:  # ends with the harness
                for descriptor, event in poll.poll():
                    if descriptor == self._calls and event & select.POLLIN:
                        self._answer_call()
                    elif descriptor == self._calls:
                        poll.unregister(self._calls)  # the process is dead
                    elif not self._answer_question(questions.readline()):
                        return

    def _answer_question(self, line: bytes) -> bool:
        if not line:
            return False
        answer: Any
        asked = json.loads(line)["ask"]
        if asked == "syncs":
            answer = self._answered, self._spent_ns / max(1, self._answered) / 1e3
        elif asked == "settle":
            self._files.settle()
            answer = None
        else:
            answer = vars(self._files.restore())
        self._control.sendall(json.dumps({"answer": answer}).encode() + b"\n")
        return True

    def _answer_call(self) -> None:
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._calls, _RECEIVE, call)
        except FileNotFoundError:  # it was killed meanwhile
            return
        began_ns = time.perf_counter_ns()
        identity, thread, _, number, *_, descriptor = _CALL.unpack(call)[:7]
        error = self._sync(identity, thread, descriptor, number)
        with suppress(FileNotFoundError):
            fcntl.ioctl(self._calls, _SEND, _ANSWER.pack(identity, 0, -error, 0))
        self._answered += 1
        self._spent_ns += time.perf_counter_ns() - began_ns

    def _sync(self, identity: int, thread: int, descriptor: int, number: int) -> int:
        try:
            opened = os.open(f"/proc/{thread}/fd/{descriptor}", os.O_RDONLY)
        except OSError:
            return errno.EBADF
        try:
            if not self._waits(identity):
                return 0  # the thread's number may be another's by now
            synced = self._files.syncing(opened, appends=_appends(thread, descriptor))
            (os.fsync if number == _FSYNC else os.fdatasync)(opened)
            if self._waits(identity):
                synced()
        except OSError as error:
            return error.errno or 0
        finally:
            os.close(opened)
        return 0

    def _waits(self, identity: int) -> bool:
        try:
            fcntl.ioctl(self._calls, _STILL_WAITS, struct.pack("=Q", identity))
        except FileNotFoundError:
            return False
        return True


def _appends(thread: int, descriptor: int) -> bool:
    """Whether the thread has it open for appending."""
    with open(f"/proc/{thread}/fdinfo/{descriptor}", "rb", buffering=0) as file:  # noqa: PTH123 - a Path is slow
        fields = file.read(256).split()
    return bool(int(fields[fields.index(b"flags:") + 1], 8) & os.O_APPEND)
