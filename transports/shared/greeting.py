"""What the two processes say to each other once: who comes, and what it is given.

hello     "SBRDMA" version 2, rank 4, size 4, pid 4, group 8, reach 8 (bit r: rank r)
welcome   "SBSTGE" version 2, capacity 8; with it the region and the ends of the lanes
          down and up, as descriptors
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

VERSION = 1
MOST_RANKS = 64

_HELLO = struct.Struct("<6sHIIIQQ")
_WELCOME = struct.Struct("<6sHQ")
HELLO_BYTES = _HELLO.size
_SMALLEST, _LARGEST = 1 << 16, 1 << 34  # of a capacity that is believed


class GreetingError(Exception):
    """The other side is not what it should be."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The rdma process that is connected: `rank` of a group of `size`; it sends to `reach`."""

    group: int
    rank: int
    size: int
    reach: frozenset[int]
    pid: int


def pack_hello(peer: Peer) -> bytes:
    reach = sum(1 << rank for rank in peer.reach)
    return _HELLO.pack(b"SBRDMA", VERSION, peer.rank, peer.size, peer.pid, peer.group, reach)


def read_hello(data: bytes) -> Peer:
    if len(data) != HELLO_BYTES:
        raise GreetingError(f"a hello of {len(data)} bytes")
    magic, version, rank, size, pid, group, reach = _HELLO.unpack(data)
    if magic != b"SBRDMA" or version != VERSION:
        raise GreetingError(f"not an rdma process of version {VERSION}")
    if not rank < size <= MOST_RANKS or reach >> size or reach >> rank & 1:
        raise GreetingError(f"rank {rank} of {size} that reaches {reach:#x}")
    return Peer(group, rank, size, frozenset(r for r in range(size) if reach >> r & 1), pid)


def send_welcome(connection: socket.socket, capacity: int, fds: list[int]) -> None:
    """OSError when it cannot be said at once."""
    socket.send_fds(connection, [_WELCOME.pack(b"SBSTGE", VERSION, capacity)], fds)


def read_welcome(connection: socket.socket) -> tuple[int, list[int]]:
    """The capacity of a lane, and three descriptors, which are the caller's. OSError,
    GreetingError.
    """
    data, fds, flags, _ = socket.recv_fds(connection, _WELCOME.size, 3)
    try:
        for fd in fds:
            os.set_inheritable(fd, False)
        if len(data) != _WELCOME.size or len(fds) != 3 or flags & socket.MSG_CTRUNC:
            raise GreetingError("no welcome: another stage listens, or it is just ending")
        magic, version, capacity = _WELCOME.unpack(data)
        if magic != b"SBSTGE" or version != VERSION or not _SMALLEST <= capacity <= _LARGEST:
            raise GreetingError(f"not a stage of version {VERSION}")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return capacity, fds
