"""A Dask actor without state: it has a database apply what callers send it, and each says which database that is.

A request is what remains of its caller's deadline in seconds (a double, little-endian), the length of a handle (two
bytes), that handle, pickled, and a batch in the wire form; none instead asks for every account. The reply is
`ANSWERS` and the answers in the wire form, or the snapshot in it; or `REFUSED` and the one answer to a snapshot.

That a handle is unpickled adds nothing to what a Dask worker does for whoever can connect to it.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import threading
import time
from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from strategies.interface.account import Accounts, Answer, Batched, Function, Operation, OpId, Receipt
from strategies.interface.errors import AccountError
from strategies.support.ledger_actor import open_door
from strategies.support.op_window import Outcome
from strategies.support.wire import (
    BALANCE,
    HAS_TARGET,
    NO_NUMBER,
    Batch,
    decode,
    encode_answers,
    encode_snapshot,
)

ANSWERS, REFUSED = b"\0", b"\1"

THREADS = 16
"""Requests that one front has in hand at a time. The others wait, as long as their callers do."""

_HEAD = struct.Struct("<dH")
_MOST_HANDLES = 64
_FUNCTIONS = tuple(Function)
_ONE_BALANCE = bytes([BALANCE])


def request(handle: bytes, remaining_s: float, batch: bytes) -> bytes:
    """The request's bytes."""
    return _HEAD.pack(remaining_s, len(handle)) + handle + batch


class FrontActor:
    """Stands between callers and databases, in threads of its own: a call of a database blocks."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="front")
        self._handles: dict[bytes, Accounts] = {}
        self._opening = threading.Lock()
        open_door()

    def __del__(self) -> None:
        """Close connections: Dask tells no actor that it is let go of."""
        # Until garbage is collected they would stay. A run of all workloads used up PostgreSQL's two hundred.
        self._threads.shutdown(wait=False)
        for handle in self._handles.values():
            handle.close()

    def reply(self, payload: bytes) -> Awaitable[bytes]:
        """The reply to a request."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, self._answered, payload, time.monotonic())

    def apply(self, handle: Accounts, batch: Batch) -> list[Answer]:
        """Have the database apply the batch."""
        if batch.functions == _ONE_BALANCE:  # which most databases read without a transaction
            try:
                return [handle.balance(batch.accounts[0])]
            except AccountError as error:
                return [error]
        assert isinstance(handle, Batched)
        return handle.apply(_operations(batch))

    def _answered(self, payload: bytes, came_at: float) -> bytes:
        remaining_s, size = _HEAD.unpack_from(payload)
        if time.monotonic() > came_at + remaining_s:
            raise TimeoutError("its turn came when its caller had given up")
        end = _HEAD.size + size
        handle = self._handle(payload[_HEAD.size : end])
        if len(payload) == end:
            return self._snapshot(handle)
        outcomes, epoch = _outcomes(self.apply(handle, decode(payload[end:])))
        return ANSWERS + encode_answers(outcomes, epoch)

    def _snapshot(self, handle: Accounts) -> bytes:
        try:
            found = handle.snapshot()
        except AccountError as error:
            return REFUSED + encode_answers([error], 0)
        epoch = max((receipt.epoch for receipt in found.values()), default=0)
        return ANSWERS + encode_snapshot({name: receipt[:2] for name, receipt in found.items()}, epoch)

    def _handle(self, pickled: bytes) -> Accounts:
        handle = self._handles.get(pickled)
        if handle is None:
            with self._opening:
                while len(self._handles) >= _MOST_HANDLES:
                    del self._handles[next(iter(self._handles))]  # whoever still uses it does so to the end
                handle = self._handles.setdefault(pickled, pickle.loads(pickled))
        return handle


def _operations(batch: Batch) -> list[Operation]:
    """What the batch was made of."""
    rest: Iterator[str] = iter(batch.targets)
    targets = [next(rest) if each else None for each in batch.functions.translate(HAS_TARGET)]
    op_ids: list[OpId | None] | repeat[None] = repeat(None)
    if batch.numbers:
        sessions = map(batch.sessions.__getitem__, batch.session_of or repeat(0))
        op_ids = [
            None if number == NO_NUMBER else OpId(session, number)
            for session, number in zip(sessions, batch.numbers, strict=False)
        ]
    functions = map(_FUNCTIONS.__getitem__, batch.functions)
    columns = zip(functions, batch.accounts, batch.amounts, targets, op_ids, strict=False)
    return list(map(Operation._make, columns))


def _outcomes(answers: Sequence[Answer]) -> tuple[list[Outcome], int]:
    """Answers without their epoch, which they have in common; and that."""
    epoch = 0
    outcomes: list[Outcome] = []
    for answer in answers:
        if isinstance(answer, Receipt):
            outcomes.append(answer[:2])
            epoch = answer.epoch
        elif isinstance(answer, tuple):
            source, target = answer
            outcomes.append((*source[:2], *target[:2]))
            epoch = source.epoch
        else:
            outcomes.append(answer)
    return outcomes, epoch
