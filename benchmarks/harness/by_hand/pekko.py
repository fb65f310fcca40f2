"""A deposit by hand over a socket: one request with a batch of one deposit, made before, and its reply."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgpack

from benchmarks.harness.by_hand import Deposit
from strategies.interface import Context

_BATCH, _OPEN = 0, 2
_HEAD_BYTES = 9
"""Length, id and status of a reply."""
_OPEN_ACCOUNT, _DEPOSIT = b"\0", b"\1"


@contextmanager
def opened(context: Context) -> Iterator[Deposit]:
    """In a ledger of its own, on the first node."""
    host, _, port = urlsplit(str(context.pekko_url)).netloc.partition(",")[0].rpartition(":")
    ledger = f"by-hand-{uuid.uuid4().hex}"
    with socket.create_connection((host, int(port)), context.timeout_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(message: bytes) -> bytes:
            connection.sendall(message)
            return connection.recv(4096)[_HEAD_BYTES:]

        (epoch,) = struct.unpack_from(">Q", exchange(_message(_OPEN, 0, ledger, struct.pack(">I", 1))))
        exchange(_message(_BATCH, epoch, ledger, _columns(_OPEN_ACCOUNT, 0)))
        request = _message(_BATCH, epoch, ledger, _columns(_DEPOSIT, 1))

        def deposit() -> Sequence[int]:
            _, _, _, seqs, balances, _ = msgpack.unpackb(exchange(request))
            return struct.unpack("<I", seqs) + struct.unpack("<I", balances)

        yield deposit


def _message(kind: int, epoch: int, ledger: str, payload: bytes) -> bytes:
    body = struct.pack(">IBQB", 0, kind, epoch, len(ledger)) + ledger.encode() + payload
    return struct.pack(">I", len(body)) + body


def _columns(function: bytes, amount: int) -> bytes:
    packed: bytes = msgpack.packb((1, function, ["a"], struct.pack("<I", amount), [], [], b"", b"", []))
    return packed
