"""The wire codecs in NumPy: what stands in the bytes, how much is lost, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.transports.hidden import Floats, as_floats, cases, massive, stored
from transports.codecs.e4m3 import VALUES, to_e4m3
from transports.codecs.layout import GROUP, OUTLIERS, Codec, encoded_bytes, layout, obstacle
from transports.codecs.rows import STORED, decode, encode
from transports.errors import FrameError
from transports.frame import DType

CODED = (Codec.FP8, Codec.INT8)
F32 = DType.FLOAT32


def random_rows(count: int, width: int = 256) -> Floats:
    return np.random.default_rng(7).standard_normal((count, width)).astype(np.float32)


def through(codec: Codec, rows: NDArray[Any], dtype: DType = F32) -> NDArray[Any]:
    return decode(codec, encode(codec, rows, dtype), *rows.shape, dtype)


def error(rows: Floats, codec: Codec) -> float:
    """Of what came through, relative, over the channels that are not planted."""
    left = np.delete(np.arange(rows.shape[1]), [3, rows.shape[1] // 2])
    lost = (through(codec, rows) - rows)[:, left]
    return float(np.linalg.norm(lost) / np.linalg.norm(rows[:, left]))


def test_e4m3_is_that_of_the_specification() -> None:
    """OCP 8-bit floating point specification, table 2."""
    table = {0x00: 0.0, 0x01: 2.0**-9, 0x07: 0.875 * 2.0**-6, 0x08: 2.0**-6, 0x38: 1.0, 0x7E: 448.0}
    for code, value in table.items():
        assert VALUES[code] == value
        assert VALUES[code | 0x80] == -value
    assert np.isnan(VALUES[[0x7F, 0xFF]]).all()
    assert np.isfinite(np.delete(VALUES, [0x7F, 0xFF])).all()


def test_e4m3_rounds_to_nearest_and_ties_to_even() -> None:
    numbers = VALUES[:0x7F]
    middles = (numbers[1:] + numbers[:-1]) / 2
    codes = np.arange(0x7E)
    assert (to_e4m3(numbers) == np.arange(0x7F)).all()
    assert (to_e4m3(middles) == codes + (codes & 1)).all()
    assert (to_e4m3(np.nextafter(middles, np.float32(0))) == codes).all()
    assert (to_e4m3(np.nextafter(middles, np.float32(449))) == codes + 1).all()
    assert (to_e4m3(-middles) == (codes + (codes & 1) | 0x80)).all()


def test_sizes() -> None:
    raw = encoded_bytes(Codec.RAW, 2048, 3, F32)
    assert raw == 3 * 8192
    assert encoded_bytes(Codec.FP8, 2048, 3, F32) == 3 * 2082 <= 0.26 * raw
    assert encoded_bytes(Codec.INT8, 2048, 3, F32) == 3 * 2144 <= 0.27 * raw
    for codec in CODED:
        assert encode(codec, random_rows(3, 2048), F32).nbytes == encoded_bytes(codec, 2048, 3, F32)


@pytest.mark.parametrize("width", [0, 32, 100, 65600])
def test_widths_that_cannot_be_written(width: int) -> None:
    assert not obstacle(Codec.RAW, width)
    for codec in CODED:
        assert str(width) in obstacle(codec, width)
        with pytest.raises(ValueError, match=str(width)):
            layout(codec, width)


def test_bytes_of_fp8() -> None:
    """0 to 63 with the sign changing: 56 to 63 stand apart, and 55 decides the scale."""
    row = np.arange(64, dtype=np.float32) * np.where(np.arange(64) & 1, -1, 1).astype(np.float32)
    data = encode(Codec.FP8, row[None], F32).tobytes()
    scale = 2.0**-3  # 55 becomes 440
    assert data[64:66] == struct.pack("<f", scale)[2:]
    assert data[66:82] == struct.pack("<8H", *range(56, 64))
    assert data[82:] == b"".join(struct.pack("<f", v)[2:] for v in row[56:])
    assert data[56:64] == bytes(8)
    assert data[:56] == to_e4m3(row[:56] / np.float32(scale)).tobytes()
    assert data[1] == 0x80 | 0x50  # -1 / 2^-3 = -8 = -2^3: exponent 10, mantissa 0


def test_bytes_of_int8() -> None:
    row = np.zeros(128, np.float32)
    row[:8] = 1000.0
    row[8:12] = [127.0, -127.0, 0.5, 1.5]  # a scale of 1, and ties
    row[64:67] = [1.27, -0.634, 0.01]
    data = encode(Codec.INT8, row[None], F32).tobytes()
    assert list(np.frombuffer(data[:12], np.int8)) == [0] * 8 + [127, -127, 0, 2]
    assert list(np.frombuffer(data[64:67], np.int8)) == [127, -63, 1]
    assert data[128:130] == struct.pack("<f", 1.0)[2:]
    assert data[132:148] == struct.pack("<8H", *range(8))


def test_the_largest_stand_apart_and_the_lower_channel_of_equals() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(-9, 10, (50, 192)).astype(np.float32)
    rows[0] = 1.0
    form = layout(Codec.FP8, 192)
    coded = encode(Codec.FP8, rows, F32)
    channels = np.ascontiguousarray(coded[:, form.at_channels : form.at_values]).view(np.uint16)
    for row, found in zip(rows, channels, strict=True):
        order = sorted(range(192), key=lambda c: (-abs(row[c]), c))
        assert list(found) == sorted(order[:OUTLIERS])


@pytest.mark.parametrize("dtype", list(STORED))
@pytest.mark.parametrize("codec", CODED)
def test_what_comes_through_is_near_or_not_a_number(codec: Codec, dtype: DType) -> None:
    for name, rows in cases(5, 192):
        before = as_floats(rows_stored := stored(rows, dtype))
        after = as_floats(through(codec, rows_stored, dtype))
        with np.errstate(invalid="ignore"):
            numbers = (np.abs(before) < 2.0**120).all(axis=1)
        assert np.isnan(after[~numbers]).all(), name
        if not numbers.any():
            continue
        before, after = before[numbers], after[numbers]
        group = 192 if codec is Codec.FP8 else GROUP
        left = np.abs(before)
        np.put_along_axis(left, np.argsort(-left, kind="stable")[:, :OUTLIERS], 0, axis=1)
        largest = left.reshape(len(left), -1, group).max(axis=2).repeat(group, axis=1)
        # e4m3 keeps 4 bits, or 2^-18 of the largest; int8 half a 127th of its group's largest,
        # before which, and after which, something is rounded to bfloat16.
        share, floor = (2.0**-4, 2.0**-17) if codec is Codec.FP8 else (2.0**-8, 1 / 250)
        most = np.abs(before) * share + np.maximum(largest, 2.0**-100) * floor
        if dtype is DType.FLOAT16:
            most += 2.0**-25  # its own smallest step
        assert (np.abs(after - before) <= most).all(), name


@pytest.mark.parametrize(("codec", "most"), [(Codec.FP8, 0.028), (Codec.INT8, 0.007)])
@pytest.mark.parametrize("factor", [1, 300, 20_000])
def test_massive_channels_do_not_harm_the_others(codec: Codec, most: float, factor: float) -> None:
    assert error(massive(random_rows(16, 2048), factor), codec) <= most


@pytest.mark.parametrize("codec", CODED)
def test_a_row_stands_alone(codec: Codec) -> None:
    """What was written together, and in blocks, may be read apart."""
    rows = np.concatenate([case for _, case in cases(9, 4096)])
    assert len(rows) * 4096 > 1 << 16
    together = encode(codec, rows, F32)
    for i in range(0, len(rows), 7):
        assert (encode(codec, rows[i : i + 1], F32) == together[i]).all()
    all_of_them = decode(codec, together, *rows.shape, F32)
    alone = decode(codec, together[20].tobytes(), 1, 4096, F32)
    assert (alone.view(np.uint32) == all_of_them[20].view(np.uint32)).all()


@pytest.mark.parametrize("codec", CODED)
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf, 2.0**120])
def test_no_number_spoils_its_own_row_and_no_other(codec: Codec, wrong: float) -> None:
    rows = random_rows(3)
    spoilt = rows.copy()
    spoilt[1, 200] = wrong
    after = through(codec, spoilt)
    assert np.isnan(after[1]).all()
    assert (after[[0, 2]] == through(codec, rows)[[0, 2]]).all()


def test_the_largest_float16_does_not_become_infinite() -> None:
    rows = np.full((1, 64), 65504, np.float16)
    for codec in CODED:
        assert np.isfinite(through(codec, rows, DType.FLOAT16)).all()


@pytest.mark.parametrize("codec", CODED)
@pytest.mark.parametrize("off", [-1, 1, -1000])
def test_a_wrong_size_is_refused(codec: Codec, off: int) -> None:
    data = encode(codec, random_rows(2), F32).tobytes()
    data = data[:off] if off < 0 else data + bytes(off)
    with pytest.raises(FrameError, match="codec"):
        decode(codec, data, 2, 256, F32)


@pytest.mark.parametrize("codec", CODED)
@pytest.mark.parametrize(
    ("place", "half"),
    [
        ("scale", 0x0000),
        ("scale", 0x007F),  # subnormal
        ("scale", 0x7A81),  # above 2^118
        ("scale", 0x7F80),  # infinite
        ("scale", 0x7FC1),  # another NaN
        ("scale", 0xBF80),  # -1
        ("channel", 0x0000),  # not above the one before
        ("channel", 256),
        ("channel", 0xFFFF),
        ("value", 0x7F80),
        ("value", 0xFF80),
        ("value", 0x7F81),
        ("value", 0xFFC0),
    ],
)
def test_what_no_encoder_writes_is_refused(codec: Codec, place: str, half: int) -> None:
    form = layout(codec, 256)
    coded = encode(codec, random_rows(2), F32)
    at = {"scale": form.at_channels - 2, "channel": form.at_values - 2, "value": form.row_bytes - 2}
    coded[1, at[place] : at[place] + 2] = list(struct.pack("<H", half))
    with pytest.raises(FrameError, match="codec"):
        decode(codec, coded, 2, 256, F32)


@pytest.mark.parametrize("dtype", list(STORED))
@pytest.mark.parametrize("codec", CODED)
def test_any_bytes_are_refused_or_finite(codec: Codec, dtype: DType) -> None:
    """Warnings are errors: nothing may overflow either."""
    rng = np.random.default_rng(11)
    form = layout(codec, 64)
    taken = 0
    for _ in range(300):
        data = rng.integers(0, 256, form.row_bytes, dtype=np.uint8)
        if rng.random() < 0.8:  # what is checked is legal: the rest may be anything
            scales = rng.integers(0x0080, 0x7A81, form.scales)
            side = [*scales, *range(8), *rng.integers(0, 0x7F80, 8)]
            data[64:] = np.array(side, np.uint16).view(np.uint8)
        try:
            row = as_floats(decode(codec, data, 1, 64, dtype))
        except FrameError:
            continue
        taken += 1
        assert not np.isinf(row).any()
    assert taken > 200
