"""What stands where in a region, and how a message is cut into pieces.

    offset
    0        words of 8 bytes, a cache line each
               0     alive: raised by the rdma process's main loop
               64    lane down: pieces taken, then at 128 messages freed, at 192 closed
               256   lane up: the same
    1024     lane down: where the messages lie, 128 slots of 8 bytes; message n in slot n % 128
    2048     lane up: the same
    4096     lane down: `capacity` bytes for messages
    4096 + capacity    lane up

A message is 64 bytes of head and its payload behind it, in one stretch of its lane:

    0   4  magic "SBRM"         16  8  bytes of payload
    4   4  kind                 24  8  number of the message in its lane
    8   4  rank it goes to      32  8  when it was handed over, nanoseconds of the machine's clock
    12  4  rank it comes from   40     reserved

Both are written first, the slot after them, and then a byte on the lane's socket says that the
first piece can be read. Only the reader writes `taken` and `freed`, only the writer the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

CAPACITY = 256 << 20  # of a lane: four of the largest frames; memory is used as far as it is needed
SLOTS = 128
ALIGN = 64
HEAD_BYTES = 64
EAGER_BYTES = 9152  # of payload in the first piece: hidden states of 4,096 channels in 16 bits
BLOCK_BYTES = HEAD_BYTES + EAGER_BYTES
SMALLEST_CHUNK = 1 << 20  # of the other pieces: what a core keeps in its own cache
MOST_CHUNKS = 64
MAGIC = b"SBRM"

ALIVE = 0
LANES = 4096

HEAD = struct.Struct("<4sIIIQQQ")


class Head(NamedTuple):
    """What stands in front of a message."""

    kind: int
    dest: int
    source: int
    total: int
    number: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Lane:
    """Where one lane's parts are: the area in bytes, the others in words."""

    taken: int
    freed: int
    closed: int
    slots: int
    area: int
    capacity: int


def down(capacity: int) -> Lane:
    return Lane(8, 16, 24, 128, LANES, capacity)


def up(capacity: int) -> Lane:
    return Lane(32, 40, 48, 256, LANES + capacity, capacity)


def region_bytes(capacity: int) -> int:
    return LANES + 2 * capacity


def read_head(memory: memoryview, at: int = 0) -> Head | None:
    """None when it is none."""
    magic, *fields = HEAD.unpack_from(memory, at)
    return Head(*fields) if magic == MAGIC else None


def room(total: int) -> int:
    """Bytes that a message takes of its lane: the first piece can always be read as a block."""
    payload = total if total > EAGER_BYTES else EAGER_BYTES
    return HEAD_BYTES + payload + ALIGN - 1 & -ALIGN


def further_pieces(total: int) -> Iterator[tuple[int, int]]:
    """The pieces of a payload after the first one, [0, EAGER_BYTES), as [start, stop)."""
    stop, size = EAGER_BYTES, chunk_bytes(total)
    while stop < total:
        start, stop = stop, min(total, stop + size)
        yield start, stop


def chunk_bytes(total: int) -> int:
    """As large as they have to be, so that they are no more than MOST_CHUNKS."""
    size = max(SMALLEST_CHUNK, -(-(total - EAGER_BYTES) // MOST_CHUNKS))
    return size + LANES - 1 & -LANES
