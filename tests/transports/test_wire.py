"""The frame codec: the exact bytes, what it refuses, and that nothing a peer sends gets past it."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections import Counter
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from tests.transports.contract import LIMITS, full_frame, plain, work
from transports.errors import EncodeError, FrameError, VersionError
from transports.frame import (
    Barrier,
    Departure,
    DType,
    Fork,
    Frame,
    FrameKind,
    Reason,
    Refill,
    Release,
    Span,
    StageTrace,
    Tensor,
    Turn,
)
from transports.limits import FrameLimits
from transports.wire import decode, encode

GOLDEN = bytes.fromhex(
    "5342555301000100ffffffffffffffff030000000000000000000000000000800200000003000000"
    "7b00000002000000010002000200000061616161616161616161616161616161ffffffff64000000"
    "02000000feffffffffffff1f01000000626262626262626262626262626262620100000000000000"
    "0100000000000000000000000000000000000000ffffff7f07000000010000006363636363636363"
    "63636363636363630800000000000000000000000000000000000000000000000200000066666666"
    "666666666666666666666666090000000c0000006464646464646464646464646464646465656565"
    "65656565656565656565656504000000110000000200030000000000000000000000d03f00000000"
    "0000e03f000000000000e83f000000000000f03f01000000000000000000f83f0000000000000040"
    "00000000000008400000000000001040010200000300000004000000000000000000000003030000"
    "0300000000000000020000000000000082a16381c4106161616161616161616161616161616184ab"
    "74656d7065726174757265cb3fe6666666666666a47365656405a5636f646563a3726177a473746f"
    "70920102a16c81c410626262626262626262626262626262629192cbbfe0000000000000929203cb"
    "bfe00000000000009204cbbff8000000000000fbf19ff8"
)


def resealed(head: bytes | bytearray) -> bytes:
    """With a checksum that fits, as a peer that knows the format would send it."""
    return bytes(head[:-4]) + struct.pack("<I", zlib.crc32(head[:-4]))


def poked(head: bytes, offset: int, value: bytes) -> bytes:
    return resealed(head[:offset] + value + head[offset + len(value) :])


def refused(parts: list[bytes], limits: FrameLimits = LIMITS) -> str:
    with pytest.raises(FrameError) as caught:
        decode(parts, limits)
    return caught.value.cause


def as_bytes(frame: Frame) -> list[bytes]:
    return [bytes(part) for part in encode(frame)]


def test_golden_bytes() -> None:
    head, rows, empty = encode(full_frame(), LIMITS)
    assert bytes(head) == GOLDEN
    assert bytes(rows) == struct.pack("<12f", *range(12))
    assert empty == b""
    assert plain(decode([GOLDEN, rows, empty], LIMITS)) == plain(full_frame())


def test_tensors_are_views_on_both_sides() -> None:
    rows = np.zeros((2, 3), np.float32)
    frame = replace(work(), tensors=(Tensor(DType.FLOAT32, (2, 3), rows),))
    parts = encode(frame)
    assert np.shares_memory(np.asarray(parts[1]), rows)
    received = decode(parts, LIMITS).tensors[0].data
    assert np.shares_memory(np.asarray(received), rows)


def test_evaluated_arrays_of_mlx_go_without_a_copy() -> None:
    mx = pytest.importorskip("mlx.core")
    array = mx.arange(6, dtype=mx.float32).astype(mx.bfloat16).reshape(2, 3)
    mx.eval(array)
    frame = replace(work(), tensors=(Tensor(DType.BFLOAT16, (2, 3), array),))
    received = decode(encode(frame), LIMITS).tensors[0]
    again = mx.array(received.data).view(mx.bfloat16).reshape(*received.shape)
    assert again.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("offset", "value", "cause"),
    [
        (0, b"SBUT", "foreign"),
        (6, b"\x03", "enum"),
        (6, b"\x00", "enum"),
        (7, b"\x01", "enum"),
        (32, struct.pack("<I", 65), "limit"),
        (32, struct.pack("<I", 3), "length"),
        (36, struct.pack("<I", 2**32 - 1), "limit"),
        (36, struct.pack("<I", 4), "length"),
        (40, struct.pack("<I", 2**31), "limit"),
        (44, struct.pack("<I", 2**31), "limit"),
        (48, struct.pack("<H", 65535), "limit"),
        (50, struct.pack("<H", 65535), "limit"),
        (52, struct.pack("<H", 9), "limit"),
        (54, b"\x01", "count"),  # a refill of no stage
        (54, b"\x01\x03", "count"),  # a refill that asks for tokens
        (56 + 24, struct.pack("<I", 0), "count"),  # a span of no tokens
        (56 + 24, struct.pack("<I", 2**32 - 1), "count"),
        (56 + 36, struct.pack("<I", 2**32 - 1), "limit"),  # outputs
        (136, struct.pack("<i", -1), "token"),
        (148, b"\x05", "command"),
        (148, b"\x04", "command"),  # a turn of a sequence
        (148, b"\x03", "command"),  # a barrier of a sequence
        (148, b"\x02", "command"),  # a fork of nothing
        (148 + 24, struct.pack("<I", 1), "command"),  # a release with a length
        (148 + 28, b"\x01", "command"),  # a release with a source
        (192 + 24, struct.pack("<I", 0), "command"),  # a fork of no tokens
        (192 + 28, b"f" * 16, "command"),  # a fork from itself
        (236 + 26, b"\x00", "enum"),  # reason of the departure
        (264 + 4, struct.pack("<d", float("nan")), "trace"),
        (264 + 12, struct.pack("<d", float("inf")), "trace"),
        (336, b"\x06", "tensor"),  # element type
        (337, b"\x05", "tensor"),  # rank
        (357, b"\x02", "tensor"),  # a dimension beyond the rank, of a tensor that is empty
        (340, struct.pack("<I", 4), "tensor"),  # one row more than there are bytes
        (340, struct.pack("<I", 2**32 - 1), "limit"),
    ],
)
def test_each_field_is_checked(offset: int, value: bytes, cause: str) -> None:
    head, *payloads = as_bytes(full_frame())
    assert refused([poked(head, offset, value), *payloads]) == cause


@pytest.mark.parametrize("refill", [Refill(0, 1), Refill(1, 255)])
@pytest.mark.parametrize("kind", list(FrameKind))
def test_a_refill_goes_both_ways(kind: FrameKind, refill: Refill) -> None:
    span = Span(b"a" * 16, 1, 4, 2, 7)
    tokens = (1, 2) if kind is FrameKind.WORK else ()
    frame = Frame(kind, 1, 2, 3, (span,), tokens, refill=refill)
    assert decode(encode(frame, LIMITS), LIMITS) == frame


@pytest.mark.parametrize(
    ("refill", "outputs", "why"),
    [
        (Refill(1, 1), 0, "stages"),
        (Refill(1, 256), 0, "field"),
        (Refill(0, 1), 1, "asks for tokens"),
    ],
)
def test_what_is_no_refill_is_not_sent(refill: Refill, outputs: int, why: str) -> None:
    span = Span(b"a" * 16, 1, 4, 2, 7, outputs)
    with pytest.raises(EncodeError, match=why):
        encode(Frame(FrameKind.WORK, 1, 2, 3, (span,), (1, 2), refill=refill))


def test_another_version_names_both() -> None:
    head = as_bytes(work())[0]
    with pytest.raises(VersionError, match="version 7, this side reads 1") as caught:
        decode([head[:4] + b"\x07\x00"], LIMITS)  # however that version goes on
    assert (caught.value.theirs, caught.value.ours) == (7, 1)


def test_element_sizes() -> None:
    assert {d.name: d.itemsize for d in DType} == {
        "FLOAT32": 4,
        "FLOAT16": 2,
        "BFLOAT16": 2,
        "INT32": 4,
        "UINT8": 1,
        "FP8_ROWS": 1,
        "INT8_ROWS": 1,
    }


def test_parts_must_be_as_many_as_announced() -> None:
    parts = as_bytes(full_frame())
    assert refused(parts[:-1]) == refused([*parts, b""]) == "parts"
    assert refused([]) == refused([b""]) == refused([b"SBUS"]) == "foreign"
    assert refused([b"SBUS\x01\x00"]) == "length"
    assert refused([parts[0] + b"\0", *parts[1:]]) == "length"


def test_tokens_belong_to_the_vocabulary() -> None:
    parts = as_bytes(replace(work(), tokens=(99,)))
    assert decode(parts, replace(LIMITS, vocab=100)).tokens == (99,)
    assert refused(parts, replace(LIMITS, vocab=99)) == "token"


def test_outputs_of_a_result() -> None:
    spans = (Span(b"a" * 16, 1, 0, 4, 0, 2), Span(b"b" * 16, 1, 0, 4, 0, 0))
    result = Frame(FrameKind.RESULT, 1, 1, 1, spans, (3, 4))
    assert decode(encode(result), LIMITS) == result
    with pytest.raises(EncodeError, match="add up to 2"):
        encode(replace(result, tokens=(3, 4, 5)))


def with_meta(meta: object) -> list[bytes]:
    """A frame with any msgpack as its meta."""
    packed = meta if isinstance(meta, bytes) else msgpack.packb(meta, strict_types=False)
    head = as_bytes(work())[0]
    head = head[:40] + struct.pack("<I", len(packed)) + head[44:-4] + packed + b"crc!"
    return [resealed(head)]


@pytest.mark.parametrize(
    "meta",
    [
        [1],
        {"x": {}},
        {"c": []},
        {"c": {"name": {}}},
        {"c": {b"short": {}}},
        {"c": {b"s" * 16: [1]}},
        {"c": {b"s" * 16: {b"k": 1}}},
        {"l": {b"s" * 16: 1.5}},
        {"l": {b"s" * 16: [msgpack.ExtType(5, b"x")]}},
        {"l": {b"s" * 16: [msgpack.Timestamp(1, 1)]}},
        msgpack.packb({"c": {}}) + b"\x00",
        b"\x81\xa1l\x81\xc4\x10" + b"s" * 16 + b"\x91\xc7\x00\x05",  # an empty ext
        b"\xc1",
        b"\x81",
        b"\xa1\xff",
        b"\x91" * 600,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_meta_has_one_shape(meta: object) -> None:
    assert refused(with_meta(meta)) == "meta"


def test_a_barrier_is_all_that_its_frame_has() -> None:
    frame = replace(work(), spans=(), tokens=(), constants={}, commands=(Barrier(),), tensors=())
    assert decode(encode(frame), LIMITS) == frame


@pytest.mark.parametrize("last", [False, True])
def test_a_turn_is_all_that_its_frame_has(last: bool) -> None:
    turn = Turn(7, last)
    frame = Frame(FrameKind.WORK, 3, 4, 0, commands=(turn,))
    assert decode(encode(frame), LIMITS) == frame
    assert frame.turn == turn
    for beside in (
        {"commands": (turn, Release(b"x" * 16))},
        {"kind": FrameKind.RESULT},
        {"traces": (StageTrace(0, 1.0, 1.0, 1.0, 1.0),)},
        {"tensors": (Tensor(DType.UINT8, (1,), b"x"),)},
        {"spans": work().spans, "tokens": work().tokens},
        {"departures": (Departure(b"x" * 16, 1, 0, Reason.STALE, 0),)},
        {"refill": Refill(0, 1)},
    ):
        with pytest.raises(EncodeError, match="beside"):
            encode(replace(frame, **beside))  # type: ignore[arg-type]
    head = bytes(encode(frame)[0])
    assert refused([poked(head, 6, b"\x02")]) == "command"
    assert refused([poked(head, 54, b"\x00\x01")]) == "command"


@pytest.mark.parametrize(("offset", "value"), [(4, b"t"), (24, b"\x02"), (28, b"s")])
def test_a_turn_names_nothing_else(offset: int, value: bytes) -> None:
    head = bytes(encode(Frame(FrameKind.WORK, 3, 4, 0, commands=(Turn(7, last=True),)))[0])
    assert refused([poked(head, 56 + offset, value)]) == "command"


def test_no_other_frame_is_a_turn() -> None:
    assert work().turn is None
    assert replace(work(), spans=(), tokens=(), constants={}).turn is None
    assert full_frame().turn is None


@pytest.mark.parametrize("claimed", [LIMITS.max_tokens, 20_000])
def test_nested_lists_cannot_ask_for_much_memory(claimed: int) -> None:
    """Each header asks msgpack for a whole list at once: 20 kB must not become 80 MB."""
    bomb = with_meta((b"\xdc" + struct.pack(">H", claimed)) * 500 + bytes(20_000))
    tracemalloc.start()
    refused(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "frame",
    [
        replace(work(), tokens=(1, 2)),
        replace(work(), tokens=(2**31,)),
        replace(work(), term=-1),
        replace(work(), spans=(Span(b"short", 1, 7, 1, 99, 1),)),
        replace(work(), commands=(Release(b"x" * 17),)),
        replace(work(), commands=(Fork(b"x" * 15, b"y" * 16, 1, 4),)),
        replace(work(), commands=(Fork(b"x" * 16, b"y" * 16, 1, 0),)),
        replace(work(), commands=(Fork(b"x" * 16, b"x" * 16, 1, 4),)),
        replace(work(), commands=(Release(b"x" * 16, 2**32),)),
        replace(work(), spans=(Span(b"s" * 16, 1, 7, 0, 99),), tokens=()),
        replace(work(), constants={b"s" * 16: {"model": object()}}),
        replace(work(), constants={b"s" * 16: {"seed": 2**64}}),
        replace(work(), tensors=(Tensor(DType.FLOAT32, (2,), bytes(7)),)),
        replace(work(), tensors=(Tensor(DType.UINT8, (1,) * 5, b"x"),)),
        replace(work(), tensors=(Tensor(DType.UINT8, (2, 2), np.zeros((2, 4), np.uint8)[:, ::2]),)),
        replace(work(), tensors=(Tensor(DType.UINT8, (3,), "abc"),)),
    ],
)
def test_our_own_mistakes_are_caught_before_sending(frame: Frame) -> None:
    with pytest.raises(EncodeError):
        encode(frame, LIMITS)


@pytest.mark.parametrize(
    "frame",
    [
        replace(work(), spans=work().spans * 65, tokens=(1,) * 65),
        replace(work(), spans=(Span(b"s" * 16, 1, 0, 1025, 0),), tokens=(1,) * 1025),
        replace(work(), spans=(Span(b"s" * 16, 1, 0, 1, 0, 1025),)),
        replace(work(), traces=(StageTrace(0, 0, 0, 0, 0),) * 1025),
        replace(work(), logprobs={b"s" * 16: [bytes(1 << 18)]}),
        replace(work(), tensors=(Tensor(DType.UINT8, (0,), b""),) * 9),
    ],
)
def test_both_sides_keep_the_limits(frame: Frame) -> None:
    with pytest.raises(EncodeError, match="at most"):
        encode(frame, LIMITS)
    assert refused(as_bytes(frame)) in ("limit", "meta")


def test_limits_of_a_model_fit_its_largest_frame() -> None:
    limits = FrameLimits.for_model(row_bytes=8192 * 4, chunk_tokens=512, vocab=1000)
    rows = bytes(8192 * 4 * 512)
    frame = Frame(
        FrameKind.WORK, 1, 1, 1,
        (Span(b"s" * 16, 1, 0, 512, 0),), (1,) * 512,
        tensors=(Tensor(DType.FLOAT32, (512, 8192), rows),),
    )  # fmt: skip
    parts = encode(frame, limits)
    assert decode(parts, limits) == frame
    assert max(map(len, parts)) <= limits.max_part_bytes


def mutated(rng: random.Random, parts: list[bytes]) -> list[bytes]:
    """The parts with something wrong with them; half of the time with a checksum that fits."""
    parts = list(parts)
    i = 0 if rng.random() < 0.9 else rng.randrange(len(parts))
    part = bytearray(parts[i])
    kind = rng.randrange(7)
    if kind == 0:
        part = part[: rng.randrange(len(part) + 1)]
    elif kind == 1 and part:
        for _ in range(rng.randint(1, 4)):
            part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
    elif kind == 2 and len(part) > 8:
        at = rng.randrange(len(part) - 4)
        part[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
    elif kind == 3:
        part = bytearray(rng.randbytes(rng.randrange(200)))
    elif kind == 4:
        at = rng.randrange(len(part) + 1)
        part[at:at] = rng.randbytes(rng.randint(1, 40))
    elif kind == 5 and len(part) > 60:
        at = rng.randrange(56, len(part))
        part[at:] = rng.randbytes(len(part) - at)
    else:
        parts.insert(rng.randrange(len(parts) + 1), rng.randbytes(rng.randrange(60)))
        return parts
    parts[i] = resealed(part) if i == 0 and rng.random() < 0.5 and len(part) > 8 else bytes(part)
    return parts


def test_nothing_but_frame_errors_whatever_the_bytes() -> None:
    rng = random.Random(1)
    seeds = [as_bytes(full_frame()), as_bytes(work(1, bytes(50))), with_meta({"c": {}})]
    seeds.append(as_bytes(Frame(FrameKind.RESULT, 0, 0, 0)))
    causes: Counter[str] = Counter()
    for _ in range(25_000):
        try:
            frame = decode(mutated(rng, rng.choice(seeds)), LIMITS)
        except FrameError as e:
            causes[e.cause] += 1
        else:
            causes["accepted"] += 1
            assert encode(frame, LIMITS), "what is accepted can be sent on"
    assert causes.keys() >= {"foreign", "length", "limit", "checksum", "count", "meta", "tensor"}
    assert causes["accepted"] < 12_500


def test_refusing_costs_no_memory() -> None:
    rng = random.Random(2)
    seed = as_bytes(full_frame())
    messages = [mutated(rng, seed) for _ in range(1000)]
    tracemalloc.start()
    for message in messages:
        try:
            decode(message, LIMITS)
        except FrameError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000, "some count was believed before it was checked"
