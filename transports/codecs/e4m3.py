"""Numbers of eight bits: OCP 8-bit floating point specification, E4M3 (sign, 4 bits of exponent
with bias 7, 3 of mantissa; subnormals of 2^-9; 0x7F and 0xFF are NaN; no infinity).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 448.0


def _values() -> NDArray[np.float32]:
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    normal = np.ldexp(1.0 + mantissa / 8, exponent - 7)
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, normal)
    magnitude[(code & 0x7F) == 0x7F] = np.nan
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.float32)


def _codes() -> NDArray[np.uint8]:
    """The nearest code, at a tie the even one, of the upper half of every float32 up to LARGEST;
    NaN beyond.
    """
    upper = np.arange(1 << 15, dtype=np.uint32)
    magnitude = (upper << 16).view(np.float32)
    numbers = VALUES[:0x7F]
    middles = (numbers[1:] + numbers[:-1]) / 2  # the i-th lies between the codes i and i + 1
    below = np.searchsorted(middles, magnitude, side="left")  # at a tie the lower code
    at_tie = magnitude == np.append(middles, np.inf).astype(np.float32)[below]
    code = np.where(at_tie, below + (below & 1), below)
    code[~(magnitude <= LARGEST)] = 0x7F
    return np.concatenate([code, code | 0x80]).astype(np.uint8)


VALUES = _values()  # by code
_LOWER = np.uint32(0xFFFF)
_CODES = _codes()


def to_e4m3(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round to nearest, ties to even, of magnitudes up to LARGEST.

    A table over the upper 16 bits, 8 of them significant, is exact if the lowest of them also says
    whether anything stood below: no middle between two codes has more than 5 significant bits.
    """
    bits = values.view(np.uint32)
    marked = bits | ((bits & _LOWER) + _LOWER)
    return np.take(_CODES, marked.view(np.uint16)[..., 1::2])
