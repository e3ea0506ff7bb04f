"""How a row of hidden states stands in a frame.

A coded tensor has the type FP8_ROWS or INT8_ROWS and the shape [rows, row_bytes]. One row of
`width` values, little-endian:

    offset           size
    0                width   codes, one byte a value: e4m3 (fp8) or two's complement (int8)
    width            2 × S   scales, bfloat16: S = 1 (fp8) or width / 64 (int8)
    width + 2 S      16      outliers: channels, uint16, strictly ascending
    width + 2 S + 16 16      outliers: values, bfloat16

A value is its code times its group's scale, except in the outliers: there the code is 0 and the
value stands apart. They are the 8 largest of the row by magnitude (cut to bfloat16; the lower
channel where two are equal), because the residual stream has channels hundreds of times larger than
the rest, beside which int8 leaves nothing of the others, and fp8 less (perplexity +0.31 % instead
of +0.06 % with two channels x20,000, over one hop of the embedded model).

- fp8: OCP 8-bit floating point specification, E4M3: no infinity, at most 448. The scale is the
  power of two that brings the largest value that is left into (224, 448]: scaling is exact, only
  the code rounds (to nearest, ties to even; relative error at most 1/16).
- int8: codes -127 to 127 of a scale of (largest of the group) / 127, rounded to nearest.

A scale is chosen as if something of at least 2^-100 were there, so no subnormal float32 ever
decides a byte: devices differ in what they do with those.

A row with NaN, an infinity or a magnitude of 2^120 or more comes out as NaN in every value: its
scales and outliers are written as NaN, of channels 0 to 7, its codes as 0. The next layer's norm
would spread it over the row in any case, the other rows of the frame are none the worse, and
nothing of it looks like a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from transports.frame import DType

GROUP = 64  # values that share a scale (int8)
OUTLIERS = 8
MAX_WIDTH = 1 << 16  # a channel has two bytes


class Codec(StrEnum):
    """The value is its name in configurations and in a sequence's constants."""

    RAW = "raw"
    FP8 = "fp8"
    INT8 = "int8"


AUTO = "auto"  # no codec but the wish that `choice.choose` picks one


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a coded row; positions in bytes."""

    width: int
    scales: int

    @property
    def at_channels(self) -> int:
        return self.width + 2 * self.scales

    @property
    def at_values(self) -> int:
        return self.at_channels + 2 * OUTLIERS

    @property
    def row_bytes(self) -> int:
        return self.at_values + 2 * OUTLIERS


def obstacle(codec: Codec, width: int) -> str:
    """Why rows of `width` values cannot be written so; "" when they can."""
    if codec is Codec.RAW:
        return ""
    if not 0 < width <= MAX_WIDTH or width % GROUP:
        return f"its rows have {width} values, which must be a multiple of {GROUP} to {MAX_WIDTH}"
    return ""


def layout(codec: Codec, width: int) -> Layout:
    """Of FP8 or INT8. ValueError where there is an obstacle."""
    if why := obstacle(codec, width):
        raise ValueError(f"{codec} cannot be used: {why}")
    return Layout(width, {Codec.FP8: 1, Codec.INT8: width // GROUP}[codec])


def encoded_bytes(codec: Codec, width: int, rows: int, dtype: DType) -> int:
    """Of `rows` rows of `width` values that the model has as `dtype`."""
    if codec is Codec.RAW:
        return rows * width * dtype.itemsize
    return rows * layout(codec, width).row_bytes
