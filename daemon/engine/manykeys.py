"""Attention to many keys, on the CPU and in fp32.

MLX has no kernel for it there. What it does instead reads the keys at a third of the memory's
speed, and takes 12 ns for each exponential, one at a time, so that at 4,000 keys a position costs
half as much as the weights of its layer. Here the product is taken the other way round, keys @
queries; the exponentials are powers of two, by a polynomial that is computed four at a time; and a
long chunk is taken in blocks, whose weights stay in the processor's cache (FlashAttention, Dao et
al. 2022, goes further and divides the keys too). A weight is off by 2e-7 of itself at most.
"""

from __future__ import annotations

import math

import mlx.core as mx

MANY = 8192  # exponentials (heads x positions x keys) from which it takes less time than MLX's way
BLOCK = 32  # positions
_LOG2_E = math.log2(math.e)
_MANTISSA = 1 << 23
_BIAS = 127
# 2^(f+1) - 1 for f in [-1, 0], from the sixth power down: least squares at 400 Chebyshev points,
# with the last fixed, so that 2^0 is 1. Off by 3e-9 at most: less than what rounding adds.
_POLYNOMIAL = (
    0.00021962619,
    0.00255419865,
    0.0191635747,
    0.110984145,
    0.480449316,
    1.38629417,
    1.0,
)


def attend_to_many(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Of queries [1, heads, n, size], the last n positions of keys and values [1, groups, total,
    size], each of which sees all up to itself: [1, heads, n, size]. Everything is float32.
    """
    n, before = queries.shape[2], keys.shape[2] - queries.shape[2]
    parts = []
    for start in range(0, n, BLOCK):
        end = min(n, start + BLOCK)
        seen = slice(before + end)
        part = _block(queries[:, :, start:end], keys[:, :, seen], values[:, :, seen], scale)
        parts.append(part)
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def _block(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    _, heads, n, size = queries.shape
    groups, total = keys.shape[1:3]
    rows = (queries * (scale * _LOG2_E)).reshape(1, groups, heads // groups * n, size)
    scores = keys @ rows.swapaxes(-1, -2)
    axis = -2
    if n == 1:  # so few rows are gone through in longer runs when they are copied
        scores, axis = mx.contiguous(scores.swapaxes(-1, -2)), -1
    else:
        later = mx.arange(n)[:, None] > mx.arange(n)
        unseen = mx.tile(mx.where(later, -mx.inf, 0.0), (1, heads // groups))
        scores[..., total - n :, :] += unseen
    weights = exp2(scores - mx.max(scores, axis=axis, keepdims=True))
    sums = mx.sum(weights, axis=axis)[..., None]
    if n > 1:
        weights = weights.swapaxes(-1, -2)
    return ((weights @ values) / sums).reshape(1, heads, n, values.shape[-1])


def exp2(x: mx.array) -> mx.array:
    """2^x for x <= 0, float32; 0 below -127."""
    return _bits(x).view(mx.float32)


def warm() -> None:
    """Have what is compiled here compiled."""
    mx.eval(exp2(mx.zeros((1, 1, 1, 2))))


def _power_bits(x: mx.array) -> mx.array:
    """The bits of 2^x: the polynomial is the mantissa, the whole part of x the exponent, and where
    the polynomial is 1, at the upper end, it carries over into that.
    """
    x = mx.maximum(x, -float(_BIAS))
    whole = x.astype(mx.int32)  # towards zero
    part = x - whole.astype(mx.float32)
    mantissa = part * _POLYNOMIAL[0] + _POLYNOMIAL[1]
    for coefficient in _POLYNOMIAL[2:]:
        mantissa = mantissa * part + coefficient
    return (whole + (_BIAS - 1)) * _MANTISSA + (mantissa * _MANTISSA).astype(mx.int32)


_bits = mx.compile(_power_bits, shapeless=True)
