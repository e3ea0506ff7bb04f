"""The two ends of a lane: messages in pieces, one byte on the socket for each.

Nothing here waits, but for LaneReader.take when it is told to.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from transports.shared.layout import (
    ALIGN,
    BLOCK_BYTES,
    HEAD_BYTES,
    SLOTS,
    WORD,
    Head,
    Lane,
    pieces,
    read_head,
    room,
    write_head,
)
from transports.shared.region import Region, RegionDamaged

MOST_BELLS = 192  # bytes that may wait in a socket: fewer than any system has room for
LOW = 1 << 20  # messages are put below here where there is room: memory that is in the cache
_BELL = b"\1"


class Hangup(Exception):
    """The other end's socket is closed."""


class LaneWriter:
    """Puts messages into a lane: `begin`, fill `payload`, `publish` each piece in turn."""

    def __init__(self, region: Region, lane: Lane, bell: socket.socket) -> None:
        self.bell = bell
        self.payload = region.memory[:0]
        self.capacity = lane.capacity
        self._region = region
        self._lane = lane
        self._area = region.memory[lane.area : lane.area + lane.capacity]
        self._held: deque[tuple[int, int]] = deque()  # where the messages lie that are not freed
        self._freed = 0
        self._sent = 0
        self._rung = 0
        self._taken = 0

    def begin(self, kind: int, dest: int, source: int, total: int, stamp: int) -> bool:
        """False when there is no room now. RegionDamaged when the reader freed what it had not."""
        self._free()
        at = self._place(room(total))
        if at < 0:
            return False
        write_head(self._area, at, Head(kind, dest, source, total, self._sent, stamp))
        self._region.set_word(self._lane.slots + self._sent % SLOTS * WORD, at)
        self.payload = self._area[at + HEAD_BYTES : at + HEAD_BYTES + total]
        self._held.append((at, at + room(total)))
        self._sent += 1
        return True

    def can_publish(self) -> bool:
        """Whether the socket has room for the byte of another piece."""
        if self._rung - self._taken < MOST_BELLS:
            return True
        taken = self._region.word(self._lane.taken)
        if not self._taken <= taken <= self._rung:
            raise RegionDamaged(f"{taken} pieces taken of {self._rung}")
        self._taken = taken
        return self._rung - taken < MOST_BELLS

    def publish(self) -> None:
        """The next piece of the message that was begun is there. Hangup."""
        self._rung += 1
        try:
            self.bell.send(_BELL, socket.MSG_DONTWAIT | _NO_SIGNAL)
        except BlockingIOError:
            raise RegionDamaged("a doorbell that nobody empties") from None
        except OSError as error:
            raise Hangup(str(error)) from error

    def drop(self) -> None:
        """What has not been taken is not to be taken any more."""
        self._region.set_word(self._lane.closed, 1)

    def _free(self) -> None:
        freed = self._region.word(self._lane.freed)
        if not self._freed <= freed <= self._sent:
            raise RegionDamaged(f"{freed} messages freed of {self._sent}")
        for _ in range(freed - self._freed):
            self._held.popleft()
        self._freed = freed

    def _place(self, size: int) -> int:
        """Where `size` bytes are free, or -1: behind the last message, or at the beginning again
        when that is free and the end of the low part is reached.
        """
        held, capacity = self._held, self._lane.capacity
        if not held:
            return 0 if size <= capacity else -1
        if len(held) >= SLOTS:
            return -1
        (first, _), (last, end) = held[0], held[-1]
        if last < first:
            return end if end + size <= first else -1
        if size <= first and end + size > LOW:
            return 0
        return end if end + size <= capacity else -1

    def check_integrity(self) -> None:
        assert self._sent - self._freed == len(self._held) <= SLOTS, "lane: messages held"
        spans = sorted(self._held)
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), "lane: overlap"
        assert all(0 <= a < b <= self._lane.capacity for a, b in spans), "lane: outside"


class Piece(NamedTuple):
    """[start, stop) of a message's payload can be read now. `block` begins with its head."""

    head: Head
    start: int
    stop: int
    block: memoryview
    payload: memoryview


class LaneReader:
    """Takes messages out of a lane, piece by piece."""

    def __init__(self, region: Region, lane: Lane, bell: socket.socket, most: int) -> None:
        """`most` is the longest payload that is believed."""
        self.bell = bell
        self.most = most
        self._region = region
        self._lane = lane
        self._area = region.memory[lane.area : lane.area + lane.capacity]
        self._slots = region.memory[lane.slots : lane.slots + SLOTS * WORD].cast("Q")
        self._received = 0
        self._freed = 0
        self._taken = 0
        self._head: Head | None = None
        self._block = self._payload = region.memory[:0]
        self._pieces: Iterator[tuple[int, int]] = iter(())

    def take(self, wait: bool = False) -> Piece | None:
        """The next piece; None when there is none and it does not wait. Hangup, RegionDamaged."""
        try:
            rung = self.bell.recv(1, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Hangup(str(error)) from error
        if not rung or self._region.word(self._lane.closed):
            raise Hangup("the other process has closed its end")
        self._taken += 1
        self._region.set_word(self._lane.taken, self._taken)
        if self._head is None:
            self._head = self._open()
        start, stop = next(self._pieces)
        if stop >= self._head.total:
            head, self._head = self._head, None
            return Piece(head, start, stop, self._block, self._payload)
        return Piece(self._head, start, stop, self._block, self._payload)

    def _open(self) -> Head:
        at = self._slots[self._received % SLOTS]
        capacity = self._lane.capacity
        if at % ALIGN or at + BLOCK_BYTES > capacity:
            raise RegionDamaged(f"a message at {at}")
        head = read_head(self._area, at)
        if head is None or head.number != self._received:
            raise RegionDamaged(f"message {self._received} is not at {at}")
        if head.total > self.most or at + HEAD_BYTES + head.total > capacity:
            raise RegionDamaged(f"a message of {head.total} bytes")
        self._block = self._area[at : at + BLOCK_BYTES]
        self._payload = self._area[at + HEAD_BYTES : at + HEAD_BYTES + head.total]
        self._pieces = pieces(head.total)
        self._received += 1
        return head

    def free(self) -> None:
        """The oldest message that was taken whole is not looked at any more."""
        assert self._freed < self._received - (self._head is not None), "lane: freed before taken"
        self._freed += 1
        self._region.set_word(self._lane.freed, self._freed)


_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # macOS: Python ignores SIGPIPE anyway
