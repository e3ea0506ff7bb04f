"""The account of the stages' memory."""

from __future__ import annotations

from daemon.footprint import Footprint, StageMemory
from daemon.scheduler.memory import Memory

A, B = b"a" * 16, b"b" * 16
EXACT, EIGHT = Footprint(10, 100), Footprint(3, 100)


def place(tokens: int, footprint: Footprint = EXACT) -> int:
    return footprint.bytes_for(tokens)


def test_bytes_are_those_of_the_largest_cache_of_that_length() -> None:
    assert place(0) == 100 + 10 * 128
    assert place(1000) == 100 + 10 * (1000 + 2 * 64)
    assert place(16000) == 100 + 10 * (16000 + 2 * 1000)


def test_every_stage_must_have_room() -> None:
    small = StageMemory(place(500), {0: EXACT, 8: EIGHT})
    memory = Memory((StageMemory(1 << 40, {0: EXACT}), small))
    assert memory.shortage(A, 0, 500) is None
    short = memory.shortage(A, 0, 501)
    assert short is not None
    assert (short.stage, short.needed, short.budget) == (1, place(501), place(500))
    assert "stage 1" in str(short)
    assert memory.shortage(A, 8, 1500) is None


def test_places_are_taken_changed_and_given_back() -> None:
    memory = Memory((StageMemory(place(200) + place(100), {0: EXACT}),))
    memory.place(A, 0, 200)
    assert memory.shortage(B, 0, 100) is None
    assert memory.shortage(B, 0, 101) is not None
    assert memory.shortage(B, 0, 101, without=[A]) is None
    assert memory.shortage(A, 0, 300) is None, "its own place counts once"
    memory.place(A, 0, 10)
    assert memory.used == [place(10)]
    memory.check_integrity()
    freed = memory.freed
    memory.free(A)
    memory.free(A)
    assert memory.used == [0]
    assert memory.freed == freed + 1
    assert memory.never(0, 10**6) is not None
    assert not memory.over


def test_without_stages_nothing_is_limited() -> None:
    memory = Memory()
    memory.place(A, 0, 10**9)
    assert memory.shortage(B, 0, 10**9) is None
    assert memory.reach is None
    assert not memory.over


def test_the_least_reach_of_a_stage_is_that_of_all() -> None:
    stages = [StageMemory(1, {0: EXACT}, reach) for reach in (None, 64, 0)]
    assert Memory(tuple(stages)).reach == 0
    assert Memory(tuple(stages[:2])).reach == 64
    assert Memory(tuple(stages[:1])).reach is None
