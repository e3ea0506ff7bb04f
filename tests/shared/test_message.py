"""A frame's parts as one payload, and payloads that are none."""

from __future__ import annotations

import random
import struct

import pytest

from tests.transports.contract import full_frame, plain
from transports.errors import FrameError
from transports.limits import FrameLimits
from transports.shared.message import plan, unpack
from transports.wire import decode, encode

LIMITS = FrameLimits(max_tensor_bytes=4096, max_tensors=3)


def joined(parts: list[bytes]) -> memoryview:
    total, buffers = plan(parts)
    payload = memoryview(b"".join(buffers))
    assert len(payload) == total
    return payload


@pytest.mark.parametrize(
    "parts", [[b"head"], [b"head", b""], [b"h" * 17, b"one", b"t" * 4096, b"three"]]
)
def test_parts_come_back_in_their_order(parts: list[bytes]) -> None:
    assert [bytes(part) for part in unpack(joined(parts), LIMITS)] == parts


def test_a_frame_with_something_in_every_field() -> None:
    payload = joined([bytes(part) for part in encode(full_frame())])
    assert plain(decode(unpack(payload, LIMITS), LIMITS)) == plain(full_frame())


def test_a_frame_whose_end_never_came_is_none() -> None:
    """Zeros stand in its place."""
    whole = bytes(joined([bytes(part) for part in encode(full_frame())]))
    for kept in range(0, len(whole) - 1, 7):
        cut = memoryview(whole[:kept] + bytes(len(whole) - kept))
        with pytest.raises(FrameError):
            decode(unpack(cut, LIMITS), LIMITS)


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b"", "foreign"),
        (b"1234567", "foreign"),
        (struct.pack("<II", 0, 0), "parts"),
        (struct.pack("<II", 5, 0) + bytes(100), "parts"),
        (struct.pack("<II", 1, 1) + bytes(100), "parts"),
        (struct.pack("<II", 3, 0) + bytes(8), "parts"),
        (struct.pack("<IIQ", 1, 0, (1 << 64) - 1), "limit"),
        (struct.pack("<IIQ", 1, 0, 5) + b"1234", "length"),
        (struct.pack("<IIQ", 1, 0, 3) + b"1234", "length"),
    ],
)
def test_what_is_no_message(payload: bytes, cause: str) -> None:
    with pytest.raises(FrameError) as caught:
        unpack(memoryview(payload), LIMITS)
    assert caught.value.cause == cause


def test_any_bytes_are_refused_in_order() -> None:
    rng = random.Random(0)
    whole = bytearray(joined([bytes(part) for part in encode(full_frame())]))
    for _ in range(3000):
        changed = whole[:]
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(min(64, len(changed)))] = rng.randrange(256)
        try:
            unpack(memoryview(changed[: rng.randrange(len(changed) + 1)]), LIMITS)
        except FrameError:
            continue
