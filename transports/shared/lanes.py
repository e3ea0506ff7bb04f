"""The two ends of a lane: messages in pieces, one byte on the socket for each.

Nothing here waits, but for LaneReader.take when it is told to. A frame passes here twice on every
hop, so this is written for few steps.
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
    EAGER_BYTES,
    HEAD,
    HEAD_BYTES,
    MAGIC,
    SLOTS,
    Head,
    Lane,
    further_pieces,
    read_head,
    room,
)
from transports.shared.region import Region, RegionDamaged

MOST_BELLS = 192  # bytes that may wait in a socket: fewer than any system has room for
LOW = 1 << 20  # messages are put below here where there is room: memory that is in the cache
_BELL = b"\1"
_NOW = socket.MSG_DONTWAIT
_SEND = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)  # Python ignores SIGPIPE anyway


class Hangup(Exception):
    """The other end's socket is closed."""


class LaneWriter:
    """Puts messages into a lane: `begin`, fill `payload`, `publish` each piece in turn."""

    def __init__(
        self, region: Region, lane: Lane, bell: socket.socket, ahead: int | None = None
    ) -> None:
        """Not more than `ahead` bytes wait for the reader, if it is more than one message: what
        waits leaves the cache.
        """
        self.bell = bell
        self.payload = region.memory[:0]
        self.capacity = lane.capacity
        self._ahead = ahead or lane.capacity
        self._waiting = 0  # bytes of what is held
        self._words = region.words
        self._lane = lane
        self._area = region.memory[lane.area : lane.area + lane.capacity]
        self._held: deque[tuple[int, int]] = deque()  # where the messages lie that are not freed
        self._freed = 0
        self._sent = 0
        self._rung = 0
        self._taken = 0

    def begin(self, kind: int, dest: int, source: int, total: int, stamp: int) -> bool:
        """False when there is no room now. RegionDamaged when the reader freed what it had not."""
        if self._words[self._lane.freed] != self._freed:
            self._free()
        size = room(total)
        if self._held and self._waiting + size > self._ahead:
            return False
        at = self._place(size) if self._held else 0
        if at < 0 or at + size > self.capacity:
            return False
        number = self._sent
        HEAD.pack_into(self._area, at, MAGIC, kind, dest, source, total, number, stamp)
        self._words[self._lane.slots + number % SLOTS] = at
        begin = at + HEAD_BYTES
        self.payload = self._area[begin : begin + total]
        self._held.append((at, at + size))
        self._waiting += size
        self._sent = number + 1
        return True

    def can_publish(self, count: int = 1) -> bool:
        """Whether the socket has room for the bytes of so many pieces."""
        if self._rung + count - self._taken <= MOST_BELLS:
            return True
        taken = self._words[self._lane.taken]
        if not self._taken <= taken <= self._rung:
            raise RegionDamaged(f"{taken} pieces taken of {self._rung}")
        self._taken = taken
        return self._rung + count - taken <= MOST_BELLS

    def publish(self, count: int = 1) -> None:
        """The next pieces of the message that was begun are there. Hangup."""
        self._rung += count
        try:
            self.bell.send(_BELL * count, _SEND)
        except BlockingIOError:
            raise RegionDamaged("a doorbell that nobody empties") from None
        except OSError as error:
            raise Hangup(str(error)) from error

    def drop(self) -> None:
        """What has not been taken is not to be taken any more."""
        self._words[self._lane.closed] = 1

    def _free(self) -> None:
        freed = self._words[self._lane.freed]
        if not self._freed <= freed <= self._sent:
            raise RegionDamaged(f"{freed} messages freed of {self._sent}")
        for _ in range(freed - self._freed):
            at, end = self._held.popleft()
            self._waiting -= end - at
        self._freed = freed

    def _place(self, size: int) -> int:
        """Where `size` bytes are free, or -1: behind the last message, or at the beginning again
        when that is free and the end of the low part is reached.
        """
        held = self._held
        if len(held) >= SLOTS:
            return -1
        (first, _), (last, end) = held[0], held[-1]
        if last < first:
            return end if end + size <= first else -1
        if size <= first and end + size > LOW:
            return 0
        return end if end + size <= self.capacity else -1

    def check_integrity(self) -> None:
        assert self._sent - self._freed == len(self._held) <= SLOTS, "lane: messages held"
        spans = sorted(self._held)
        assert self._waiting == sum(b - a for a, b in spans), "lane: bytes held"
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), "lane: overlap"
        assert all(0 <= a < b <= self.capacity for a, b in spans), "lane: outside"


class Piece(NamedTuple):
    """[start, stop) of a message's payload can be read now. `block` begins with its head."""

    head: Head
    start: int
    stop: int
    block: memoryview
    payload: memoryview


class LaneReader:
    """Takes messages out of a lane, piece by piece."""

    def __init__(self, region: Region, lane: Lane, bell: socket.socket) -> None:
        self.bell = bell
        self._words = region.words
        self._fence = region.fence
        self._lane = lane
        self._area = region.memory[lane.area : lane.area + lane.capacity]
        self._received = 0
        self._freed = 0
        self._taken = 0
        self._head: Head | None = None  # of a message that has begun
        self._block = self._payload = region.memory[:0]
        self._pieces: Iterator[tuple[int, int]] = iter(())

    def take(self, wait: bool = False) -> Piece | None:
        """The next piece; None when there is none and it does not wait. Hangup, RegionDamaged."""
        try:
            rung = self.bell.recv(1, 0 if wait else _NOW)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Hangup(str(error)) from error
        words, lane = self._words, self._lane
        if not rung or words[lane.closed]:
            raise Hangup("the other process has closed its end")
        self._taken += 1
        words[lane.taken] = self._taken
        head = self._head
        if head is None:
            head, start = self._open(), 0
            stop = head.total
            if stop > EAGER_BYTES:
                self._head, stop = head, EAGER_BYTES
                self._pieces = further_pieces(head.total)
        else:
            start, stop = next(self._pieces)
            if stop == head.total:
                self._head = None
        return Piece(head, start, stop, self._block, self._payload)

    def _open(self) -> Head:
        at = self._words[self._lane.slots + self._received % SLOTS]
        capacity = self._lane.capacity
        if at % ALIGN or at + BLOCK_BYTES > capacity:
            raise RegionDamaged(f"a message at {at}")
        head = read_head(self._area, at)
        if head is None or head.number != self._received:
            raise RegionDamaged(f"message {self._received} is not at {at}")
        begin = at + HEAD_BYTES
        end = begin + head.total
        if end > capacity:
            raise RegionDamaged(f"a message of {head.total} bytes")
        self._block = self._area[at : at + BLOCK_BYTES]
        self._payload = self._area[begin:end]
        self._received += 1
        return head

    def free(self) -> None:
        """The oldest message that was taken whole is not looked at any more."""
        assert self._freed < self._received - (self._head is not None), "lane: freed before taken"
        self._freed += 1
        self._fence()
        self._words[self._lane.freed] = self._freed
