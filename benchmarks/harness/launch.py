"""Program: becomes a server that dies with the harness. `launch.py PARENT NAMESPACE HANDOVER USER PROGRAM ARGUMENT…`.

PARENT is the harness's process id; NAMESPACE the path of the network namespace to run in, or `-`; HANDOVER the
descriptor of a socket over which whoever answers the server's syncs is given them, or `-`; USER the `UID:GID` to run
as, or `-`. It knows the standard library only, and its process id is the server's own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import sys

SYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}
"""Numbers of fsync and fdatasync."""
SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

USER_NOTIF = 0x7FC00000
"""SECCOMP_RET_USER_NOTIF."""
_ALLOW = 0x7FFF0000
_SET_MODE_FILTER = 1
_SPEC_ALLOW, _NEW_LISTENER = 1 << 2, 1 << 3
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWNET = 0x40000000


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def command(
    *, namespace: str | None = None, handover: int | None = None, user: tuple[int, int] | None = None
) -> list[str]:
    """What to put before a program and its arguments."""
    return [
        *(sys.executable, "-I", "-S", __file__),
        *(str(os.getpid()), namespace or "-", "-" if handover is None else str(handover)),
        "-" if user is None else f"{user[0]}:{user[1]}",
    ]


def main() -> None:
    """Become the server."""
    parent, namespace, handover, user, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    # A write beyond the largest size that a file may have fails; it does not end the server.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if namespace != "-":
        descriptor = os.open(namespace, os.O_RDONLY)
        _checked(libc.setns(descriptor, _CLONE_NEWNET), "setns")
        os.close(descriptor)
    if user != "-":
        uid, gid = map(int, user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # The kernel kills the server when the harness dies, however that happens. It survives exec, not a new user.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            os._exit(1)  # it died before
    if handover != "-":
        with socket.socket(fileno=int(handover)) as receiver:
            socket.send_fds(receiver, [b"syncs"], [_syncs(libc)])
            if not receiver.recv(1):
                os._exit(1)  # nobody answers them
    os.execv(command[0], command)


def _syncs(libc: ctypes.CDLL) -> int:
    """A descriptor at which this process's syncs, and those of what it becomes, wait for their answers."""
    machine = platform.machine()
    program = [
        (_LOAD_WORD, 0, 0, 4),  # the architecture; another's numbers mean other calls
        (_JUMP_IF_EQUAL, 0, 4, _ARCHITECTURES[machine]),
        (_LOAD_WORD, 0, 0, 0),  # the call's number
        (_JUMP_IF_EQUAL, 1, 0, SYNCS[machine][0]),
        (_JUMP_IF_EQUAL, 0, 1, SYNCS[machine][1]),
        (_RETURN, 0, 0, USER_NOTIF),
        (_RETURN, 0, 0, _ALLOW),
    ]
    instructions = (_Instruction * len(program))(*(_Instruction(*each) for each in program))
    # Without this, only root may.
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    found: int = _checked(
        libc.syscall(
            SECCOMP[machine],
            _SET_MODE_FILTER,
            _NEW_LISTENER | _SPEC_ALLOW,  # no slower branches than an unwatched server has
            ctypes.byref(_Filter(len(program), instructions)),
        ),
        "seccomp",
    )
    return found


def _checked(result: int, call: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
