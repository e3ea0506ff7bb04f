"""The wire codecs on the device: the same bytes as `transports.codecs.rows`, where they are defined
and explained.

Integers decide wherever floats could differ between devices. Only int8's 1 / scale is a division:
a device that does not round it correctly may choose a neighbouring code at a tie.
"""

from __future__ import annotations

import mlx.core as mx

# As in transports.codecs, which the engine does not import; a test compares every byte.
_GROUP = 64
_OUTLIERS = 8
_SMALLEST_SCALED = 2.0**-100
_TOO_LARGE = 2.0**120
_MARK = 0x7FC0


def encode_fp8(rows: mx.array) -> mx.array:
    """uint8 [n, row_bytes], not evaluated, for rows [n, width] of float32, float16 or bfloat16."""
    block, wrong, channels, values = _part(rows)
    smallest = mx.array(_SMALLEST_SCALED, mx.float32).view(mx.int32)
    largest = mx.maximum(_magnitude(block).max(axis=1, keepdims=True), smallest)
    exponent = ((largest + 0x1FFFFF) >> 23) - 8
    inverse = ((254 - exponent) << 23).view(mx.float32)
    return _join(mx.to_fp8(block * inverse), exponent << 7, wrong, channels, values)


def encode_int8(rows: mx.array) -> mx.array:
    """As `encode_fp8`."""
    block, wrong, channels, values = _part(rows)
    groups = block.reshape(block.shape[0], -1, _GROUP)
    largest = mx.maximum(_magnitude(groups).max(axis=2).view(mx.float32), _SMALLEST_SCALED)
    scales = _bfloat16_bits(largest * mx.array(1 / 127, mx.float32))
    inverse = 1 / (scales << 16).view(mx.float32)
    codes = mx.round(groups * inverse[:, :, None]).astype(mx.int8)
    return _join(codes.view(mx.uint8).reshape(block.shape), scales, wrong, channels, values)


def decode_fp8(coded: mx.array, width: int, dtype: mx.Dtype) -> mx.array:
    """[n, width], not evaluated, from bytes [n, row_bytes] that were checked
    (`transports.codecs.rows.check`).
    """
    scales, channels, values = _side(coded, width, 1)
    floats = mx.from_fp8(coded[:, :width], mx.float32) * scales
    return _whole(floats, channels, values, dtype)


def decode_int8(coded: mx.array, width: int, dtype: mx.Dtype) -> mx.array:
    """As `decode_fp8`."""
    scales, channels, values = _side(coded, width, width // _GROUP)
    codes = mx.contiguous(coded[:, :width]).view(mx.int8).reshape(len(coded), -1, _GROUP)
    floats = (codes.astype(mx.float32) * scales[:, :, None]).reshape(-1, width)
    return _whole(floats, channels, values, dtype)


def _part(rows: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """What is left as float32, which rows are no numbers, and the outliers' channels and bits."""
    floats = rows.astype(mx.float32)
    width = floats.shape[1]
    keys = (floats.view(mx.int32) & 0x7FFF0000) | (0xFFFF - mx.arange(width, dtype=mx.int32))
    largest = mx.partition(keys, width - _OUTLIERS, axis=1)[:, -_OUTLIERS:]
    channels = mx.sort(0xFFFF - (largest & 0xFFFF), axis=1)
    found = mx.take_along_axis(floats, channels, axis=1)
    wrong = ~(mx.abs(found) < _TOO_LARGE).all(axis=1, keepdims=True)
    zeros = mx.zeros(channels.shape, mx.float32)
    block = mx.where(wrong, 0.0, mx.put_along_axis(floats, channels, zeros, axis=1))
    return block, wrong, channels, _bfloat16_bits(found)


def _join(
    codes: mx.array, scales: mx.array, wrong: mx.array, channels: mx.array, values: mx.array
) -> mx.array:
    scales, values = mx.where(wrong, _MARK, scales), mx.where(wrong, _MARK, values)
    channels = mx.where(wrong, mx.arange(_OUTLIERS), channels)
    side = mx.concatenate([scales, channels, values], axis=1).astype(mx.uint16)
    return mx.concatenate([codes, side.view(mx.uint8)], axis=1)


def _side(coded: mx.array, width: int, scales: int) -> tuple[mx.array, mx.array, mx.array]:
    """Scales, channels and values."""
    halves = mx.contiguous(coded[:, width:]).view(mx.uint16).astype(mx.uint32)
    floats = (halves << 16).view(mx.float32)
    channels = halves[:, scales : scales + _OUTLIERS]
    return floats[:, :scales], channels, floats[:, scales + _OUTLIERS :]


def _whole(floats: mx.array, channels: mx.array, values: mx.array, dtype: mx.Dtype) -> mx.array:
    floats = mx.put_along_axis(floats, channels, values, axis=1)
    if dtype == mx.float16:
        floats = mx.clip(floats, -65504, 65504)
    return floats.astype(dtype)


def _magnitude(floats: mx.array) -> mx.array:
    return floats.view(mx.int32) & 0x7FFFFFFF


def _bfloat16_bits(floats: mx.array) -> mx.array:
    """As int32, to nearest, ties to even."""
    bits = floats.view(mx.int32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF
