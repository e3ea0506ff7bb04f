"""Rows of hidden states to bytes and back, in NumPy: the definition that every other path equals,
and the fastest one on a CPU.

NumPy has no bfloat16: such rows are given and returned as uint16, their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transports.codecs.e4m3 import VALUES, to_e4m3
from transports.codecs.layout import GROUP, OUTLIERS, Codec, Layout, layout
from transports.errors import FrameError
from transports.frame import DType

Rows = NDArray[Any]  # [rows, width], of STORED's type
Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]

STORED = {DType.FLOAT32: np.float32, DType.FLOAT16: np.float16, DType.BFLOAT16: np.uint16}

BLOCK = 1 << 16  # values at a time: what is made in between stays in the cache
SLICES = 32  # of a row, when outliers are looked for; half of GROUP, so it divides the width
SMALLEST_SCALED = 2.0**-100  # as float32 a normal number, and so is all that comes of it
TOO_LARGE = 2.0**120  # a row with such a magnitude counts as none of numbers
MARK = 0x7FC0  # NaN as bfloat16, the only one that is written
# Of a scale, as bfloat16: positive normal numbers up to 2^118, finite also when times 448.
LEAST_SCALE, MOST_SCALE = np.uint16(0x0080), np.uint16(0x7A80)


def encode(codec: Codec, rows: Rows, dtype: DType) -> NDArray[np.uint8]:
    """[n, row_bytes] for the [n, width] rows; not of RAW, which needs no encoding."""
    count, width = rows.shape
    form = layout(codec, width)
    out = np.empty((count, form.row_bytes), np.uint8)
    step = max(1, BLOCK // width)
    for start in range(0, count, step):
        block = _to_floats(rows[start : start + step], dtype)
        _encode_block(codec, form, block, out[start : start + step])
    return out


def decode(codec: Codec, data: Any, count: int, width: int, dtype: DType) -> Rows:
    """[count, width] from a peer's bytes, which are checked first: FrameError if they are not what
    `encode` makes. Any code is taken: each means a number or NaN.
    """
    form = layout(codec, width)
    raw = np.frombuffer(data, np.uint8)
    if raw.size != count * form.row_bytes:
        size = f"{count} rows of {form.row_bytes}"
        raise FrameError("codec", f"{raw.size} bytes where {size} belong ({codec})")
    coded = raw.reshape(count, form.row_bytes)
    check(form, coded)
    out = np.empty((count, width), STORED[dtype])
    step = max(1, BLOCK // width)
    for start in range(0, count, step):
        floats = _decode_block(codec, form, coded[start : start + step])
        out[start : start + step] = _from_floats(floats, dtype)
    return out


def check(form: Layout, coded: NDArray[np.uint8]) -> None:
    """Scales, channels and values of [n, row_bytes] bytes that nobody vouches for; FrameError."""
    scales, channels, values = _side(form, coded)
    odd = scales - LEAST_SCALE > MOST_SCALE - LEAST_SCALE  # what is less wraps around
    if odd.any() and (scales[odd] != MARK).any():
        raise FrameError("codec", "a scale that is no positive number")
    if (channels[:, 1:] <= channels[:, :-1]).any() or (channels[:, -1] >= form.width).any():
        raise FrameError("codec", f"channels of outliers not ascending below {form.width}")
    odd = (values & 0x7FFF) >= 0x7F80
    if odd.any() and (values[odd] != MARK).any():
        raise FrameError("codec", "an outlier that is no number")


def _side(form: Layout, coded: NDArray[np.uint8]) -> tuple[Halves, Halves, Halves]:
    """What stands beside the codes: scales, channels, values."""
    halves = np.ascontiguousarray(coded[:, form.width :]).view(np.uint16)
    ends = (form.scales, form.scales + OUTLIERS)
    return halves[:, : ends[0]], halves[:, ends[0] : ends[1]], halves[:, ends[1] :]


def _encode_block(codec: Codec, form: Layout, block: Floats, out: NDArray[np.uint8]) -> None:
    """`block` is ours: the outliers in it are set to 0."""
    side = np.empty((len(block), form.scales + 2 * OUTLIERS), np.uint16)
    channels = _outliers(block)
    at = np.arange(len(block))[:, None], channels
    found = block[at]
    wrong = ~np.all(np.abs(found) < TOO_LARGE, axis=1)  # NaN is not below it either
    block[at] = 0.0
    if wrong.any():
        block[wrong] = 0.0
    if codec is Codec.FP8:
        scales, codes = _to_fp8(block)
    else:
        scales, codes = _to_int8(block)
    out[:, : form.width] = codes
    side[:, : form.scales] = scales
    side[:, form.scales : -OUTLIERS] = channels
    side[:, -OUTLIERS:] = _to_bfloat16(found)
    if wrong.any():
        side[wrong] = MARK
        side[wrong, form.scales : -OUTLIERS] = np.arange(OUTLIERS)
    out[:, form.width :] = side.view(np.uint8)


def _outliers(block: Floats) -> NDArray[np.int64]:
    """Channels of the OUTLIERS largest, ascending. A key is a magnitude's upper half above the
    channel counted from the end: no two are equal, so any way to find the largest finds the same.

    At least OUTLIERS values reach the largest of the OUTLIERS-th best slice, and few others do:
    only those are sorted, four times as fast as `partition` over whole rows.
    """
    count, width = block.shape
    keys = (block.view(np.int32) & 0x7FFF0000) | (0xFFFF - np.arange(width, dtype=np.int32))
    slices = keys.reshape(count, -1, width // SLICES).max(axis=2)
    slices.partition(SLICES - OUTLIERS, axis=1)
    some = np.flatnonzero(keys >= slices[:, -OUTLIERS, None])
    ordered = np.sort(((some // width) << 32) | keys.ravel()[some])  # by row, then by key
    ends = np.searchsorted(ordered, np.arange(1, count + 1) << 32)
    channels: NDArray[np.int64] = 0xFFFF - (
        ordered[ends[:, None] - np.arange(1, OUTLIERS + 1)] & 0xFFFF
    )
    channels.sort(axis=1)
    return channels


def _to_fp8(block: Floats) -> tuple[Halves, NDArray[np.uint8]]:
    largest = (block.view(np.int32) & 0x7FFFFFFF).max(axis=1, keepdims=True)
    largest = np.maximum(largest, np.float32(SMALLEST_SCALED).view(np.int32))
    # Exponents count 2^23; a mantissa above 1.75 (448 / 256) goes over to the next one.
    exponent = ((largest + 0x1FFFFF) >> 23) - 8
    inverse = ((254 - exponent) << 23).view(np.float32)
    return (exponent << 7).astype(np.uint16), to_e4m3(block * inverse)


def _to_int8(block: Floats) -> tuple[Halves, NDArray[np.uint8]]:
    groups = block.reshape(len(block), -1, GROUP)
    largest = (groups.view(np.int32) & 0x7FFFFFFF).max(axis=2).view(np.float32)
    scales = _to_bfloat16(np.maximum(largest, np.float32(SMALLEST_SCALED)) * np.float32(1 / 127))
    inverse = np.float32(1) / _widened(scales)
    codes = np.rint(groups * inverse[:, :, None]).astype(np.int8)
    return scales, codes.view(np.uint8).reshape(block.shape)


def _decode_block(codec: Codec, form: Layout, coded: NDArray[np.uint8]) -> Floats:
    scales, channels, values = _side(form, coded)
    codes = coded[:, : form.width]
    if codec is Codec.FP8:
        floats = np.take(VALUES, codes) * _widened(scales)
    else:
        groups = codes.view(np.int8).reshape(len(coded), -1, GROUP)
        floats = (groups * _widened(scales)[:, :, None]).reshape(codes.shape)
    floats[np.arange(len(coded))[:, None], channels] = _widened(values)
    return floats


def _to_floats(rows: Rows, dtype: DType) -> Floats:
    """Always a copy."""
    return _widened(rows) if dtype is DType.BFLOAT16 else rows.astype(np.float32)


def _from_floats(floats: Floats, dtype: DType) -> Rows:
    if dtype is DType.BFLOAT16:
        return _to_bfloat16(floats)
    if dtype is DType.FLOAT16:  # the largest may have been rounded up, as bfloat16 or by its scale
        return np.clip(floats, -65504, 65504).astype(np.float16)
    return floats


def _to_bfloat16(floats: Floats) -> Halves:
    """To nearest, ties to even. NaN stays NaN if its upper half says so."""
    bits = floats.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _widened(halves: Halves) -> Floats:
    return (halves.astype(np.uint32) << 16).view(np.float32)
