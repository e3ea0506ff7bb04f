"""Lanes: any order of writing, taking and freeing; and a side that lies."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from transports.shared.lanes import MOST_BELLS, Hangup, LaneReader, LaneWriter
from transports.shared.layout import (
    BLOCK_BYTES,
    EAGER_BYTES,
    HEAD_BYTES,
    SLOTS,
    Lane,
    chunk_bytes,
    down,
    further_pieces,
    room,
)
from transports.shared.region import Region, RegionDamaged, create

CAPACITY = 4 << 20
MOST = 3 << 20


class Ends:
    """Both ends of one lane, over one region."""

    def __init__(self) -> None:
        fd = create(CAPACITY)
        here, there = socket.socketpair()
        self.region = Region(fd, CAPACITY)
        self.lane: Lane = down(CAPACITY)
        self.writer = LaneWriter(self.region, self.lane, here)
        self.reader = LaneReader(Region(fd, CAPACITY), self.lane, there)
        os.close(fd)

    def put(self, payload: bytes, kind: int = 1) -> bool:
        """All of it, when there is room."""
        if not self.writer.begin(kind, 2, 1, len(payload), 5):
            return False
        self.writer.payload[:] = payload
        for _ in [0, *further_pieces(len(payload))]:
            assert self.writer.can_publish()
            self.writer.publish()
        return True

    def take(self) -> bytes:
        """A whole message, not freed yet."""
        found = b""
        while piece := self.reader.take():
            assert piece.start == len(found)
            found += bytes(piece.payload[piece.start : piece.stop])
            if len(found) == piece.head.total:
                assert (piece.head.dest, piece.head.source, piece.head.stamp) == (2, 1, 5)
                return found
        raise AssertionError("nothing whole is there")


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.writer.bell.close()
    made.reader.bell.close()


@pytest.mark.parametrize(
    "total", [0, 1, EAGER_BYTES, EAGER_BYTES + 1, 1 << 20, (16 << 20) + 5, 64 << 20, 250 << 20]
)
def test_the_pieces_are_the_payload(total: int) -> None:
    stop = min(total, EAGER_BYTES)
    count = 1
    for start, end in further_pieces(total):
        assert start == stop < end
        assert end - start <= chunk_bytes(total)
        stop, count = end, count + 1
    assert stop == total
    assert count <= 66 < MOST_BELLS
    assert room(total) >= HEAD_BYTES + total
    assert room(total) >= BLOCK_BYTES


@pytest.mark.parametrize("seed", range(6))
def test_what_is_taken_is_what_was_put(ends: Ends, seed: int) -> None:
    rng = random.Random(seed)
    waiting: deque[bytes] = deque()
    held = put = taken = 0
    for _ in range(1500):
        choice = rng.random()
        if choice < 0.5:
            size = rng.choice([0, 9, 4000, EAGER_BYTES, 20_000, 300_000, rng.randrange(MOST)])
            payload = bytes([put % 251]) * size
            if ends.put(payload):
                waiting.append(payload)
                put += 1
        elif choice < 0.8 and waiting:
            assert ends.take() == waiting.popleft()
            taken, held = taken + 1, held + 1
        elif held:
            ends.reader.free()
            held -= 1
        ends.writer.check_integrity()
    assert taken > 100


def test_a_byte_for_each_piece_and_none_too_many(ends: Ends) -> None:
    assert ends.reader.take() is None
    ends.put(bytes(2 << 20))
    for _ in [0, *further_pieces(2 << 20)]:
        assert ends.reader.take()
    assert ends.reader.take() is None
    for _ in range(SLOTS - 1):
        assert ends.put(b"small")
    assert not ends.put(b"one too many")
    ends.reader.free()
    assert ends.put(b"in its place")


def test_small_messages_stay_in_the_cache(ends: Ends) -> None:
    ends.put(b"held")
    ends.take()
    highest = 0
    for _ in range(1000):
        ends.put(bytes(4000))
        ends.take()
        ends.reader.free()
        highest = max(highest, max(end for _, end in ends.writer._held))
    assert highest < 2 << 20


def test_the_end_of_the_other_side(ends: Ends) -> None:
    ends.put(b"the last")
    ends.writer.bell.close()
    assert ends.take() == b"the last"
    with pytest.raises(Hangup):
        ends.reader.take()


def test_what_was_dropped_is_not_taken(ends: Ends) -> None:
    ends.put(b"not to be read")
    ends.writer.drop()
    with pytest.raises(Hangup):
        ends.reader.take()


def set_word(at: Callable[[Lane], int], value: int) -> Callable[[Ends], None]:
    def lie(ends: Ends) -> None:
        ends.region.words[at(ends.lane)] = value

    return lie


def set_head(offset: int, value: bytes) -> Callable[[Ends], None]:
    def lie(ends: Ends) -> None:
        at = ends.lane.area + offset
        ends.region.memory[at : at + len(value)] = value

    return lie


@pytest.mark.parametrize(
    "lie",
    [
        set_word(lambda lane: lane.slots, 1),
        set_word(lambda lane: lane.slots, CAPACITY),
        set_word(lambda lane: lane.slots, (1 << 64) - 64),
        set_word(lambda lane: lane.slots, CAPACITY - 64),
        set_head(0, b"SBRX"),
        set_head(16, (CAPACITY - HEAD_BYTES + 1).to_bytes(8, "little")),
        set_head(16, ((1 << 64) - 1).to_bytes(8, "little")),
        set_head(24, (1).to_bytes(8, "little")),
    ],
)
def test_a_writer_that_lies(ends: Ends, lie: Callable[[Ends], None]) -> None:
    ends.put(b"true")
    lie(ends)
    with pytest.raises(RegionDamaged):
        ends.reader.take()


def test_a_reader_that_lies(ends: Ends) -> None:
    ends.put(b"one")
    for freed in (2, 1 << 63):
        ends.region.words[ends.lane.freed] = freed
        with pytest.raises(RegionDamaged):
            ends.writer.begin(1, 2, 1, 3, 5)
    ends.region.words[ends.lane.freed] = 0
    ends.writer._rung = MOST_BELLS + 1
    ends.region.words[ends.lane.taken] = 1 << 40
    with pytest.raises(RegionDamaged):
        ends.writer.can_publish()


def test_a_region_cannot_be_cut() -> None:
    fd = create(1 << 16)
    try:
        if hasattr(os, "memfd_create"):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)
