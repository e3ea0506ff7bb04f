"""Rows of hidden states that codecs have trouble with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transports.frame import DType

Floats = NDArray[np.float32]


def floats(bits: Any) -> Floats:
    return np.asarray(bits, np.uint32).view(np.float32)


def massive(rows: Floats, factor: float) -> Floats:
    """Two channels so many times larger."""
    planted = rows.copy()
    planted[:, [3, rows.shape[1] // 2]] *= np.float32(factor)
    return planted


def cases(count: int, width: int) -> Iterator[tuple[str, Floats]]:
    rng = np.random.default_rng(count * width)
    rows = rng.standard_normal((count, width)).astype(np.float32)
    yield "normal", rows
    yield "massive x300", massive(rows, 300)
    yield "massive x20,000", massive(rows, 20_000)
    yield "zeros", np.zeros_like(rows)
    yield "minus zeros", -np.zeros_like(rows)
    yield "all equal", np.full_like(rows, 1.5)
    yield "small integers", rng.integers(-20, 20, rows.shape).astype(np.float32)
    yield "powers of two", np.exp2(rng.integers(-20, 10, rows.shape)).astype(np.float32)
    # Multiples of half a step of e4m3 or of int8: ties as often as not.
    yield "ties", (rng.integers(-508, 509, rows.shape) / 2).astype(np.float32)
    yield (
        "every exponent in a row",
        rows * np.exp2(rng.integers(-126, 118, rows.shape)).astype("f4"),
    )
    yield "every exponent by row", rows * np.exp2(rng.integers(-126, 118, (count, 1))).astype("f4")
    yield "subnormal", rows * np.float32(1e-41)
    below = np.nextafter(np.float32(2.0**120), np.float32(0))
    yield "largest allowed", np.where(rows > 0, below, -below)
    yield "too large", np.where(rows > 2, np.float32(2.0**120), rows)
    yield "largest float16", np.full_like(rows, 65504)
    broken = rows.copy()
    broken[0, 5], broken[-1, 0], broken[count // 2, 7] = np.nan, np.inf, -np.inf
    yield "NaN and infinities", broken
    broken = rows.copy()
    broken[0, :3] = floats([0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF])
    yield "every kind of NaN", broken
    yield "only NaN", np.full_like(rows, np.nan)
    yield "any bits", floats(rng.integers(0, 1 << 32, rows.shape, dtype=np.uint32))


def stored(rows: Floats, dtype: DType) -> NDArray[Any]:
    """As the model would have them in `dtype`; bfloat16 cut, as bits."""
    if dtype is DType.BFLOAT16:
        return (rows.view(np.uint32) >> 16).astype(np.uint16)
    if dtype is DType.FLOAT16:
        with np.errstate(over="ignore", invalid="ignore"):
            return rows.astype(np.float16)
    return rows


def as_floats(rows: NDArray[Any]) -> Floats:
    """Back from what `stored` made."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):
        return rows.astype(np.float32)
