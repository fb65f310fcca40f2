"""Programs of the harness in processes of their own, so that what they do costs the load no time; asked by messages."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 30.0
_GOODBYE_S = 5.0

# Without site-packages: a helper starts in the time that the standard library takes.
_PROGRAM = """
import importlib, json, socket, sys
root, module, control, *arguments = sys.argv[1:]
sys.path.insert(0, root)
with socket.socket(fileno=int(control)) as control:
    try:
        importlib.import_module(module).main(control, *arguments)
    except BaseException as error:
        control.sendall(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\\n")
"""


class HelperFailed(RuntimeError):
    """A helper could not do what it was asked, or its process is gone."""


class HelperProcess:
    """Calls `main(control, *arguments)` of a module that needs the standard library only.

    One line of JSON is asked over `control`, and one answered. The program ends when `control` does: with the
    harness, however that ends. Use as a context manager.
    """

    def __init__(self, module: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> None:
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), module, str(its.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(its.fileno(), *pass_fds),
                start_new_session=True,  # Ctrl-C in a terminal is the harness's to handle
            )
        ours.settimeout(_PATIENCE_S)
        self._module = module
        self._control = ours
        self._answers = ours.makefile("rb")
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have it do something; returns its answer.

        Raises:
            HelperFailed: it could not, did not in time, or is gone.
        """
        try:
            with self._lock:
                self._control.sendall(json.dumps({"ask": what, **arguments}).encode() + b"\n")
                answer = json.loads(self._answers.readline() or b'{"failed": "its process is gone"}')
        except OSError as error:
            raise HelperFailed(f"{self._module} did not answer {what}: {error}") from error
        if "failed" in answer:
            raise HelperFailed(f"{self._module} could not {what}: {answer['failed']}")
        return answer["answer"]

    def close(self) -> None:
        """End it. Idempotent."""
        self._answers.close()
        self._control.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
