"""The wire codecs in MLX: the same bytes as the reference's, and the same numbers from them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from daemon.engine.codecs import decode_fp8, decode_int8, encode_fp8, encode_int8
from tests.transports.hidden import as_floats, cases, stored
from transports.codecs.layout import Codec
from transports.codecs.rows import STORED, decode, encode
from transports.frame import DType

CODED = (Codec.FP8, Codec.INT8)
ENCODE = {Codec.FP8: encode_fp8, Codec.INT8: encode_int8}
DECODE = {Codec.FP8: decode_fp8, Codec.INT8: decode_int8}


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize("width", [64, 192, 2048])
@pytest.mark.parametrize("dtype", list(STORED))
@pytest.mark.parametrize("codec", CODED)
def test_bytes_and_numbers_equal_the_reference(
    codec: Codec, dtype: DType, width: int, count: int
) -> None:
    model_type = getattr(mx, dtype.name.lower())
    for name, rows in cases(count, width):
        given = stored(rows, dtype)
        coded = encode(codec, given, dtype)
        lazy = ENCODE[codec](mx.array(given).view(model_type))
        assert (np.array(lazy) == coded).all(), name
        theirs = decode(codec, coded, count, width, dtype)
        array = DECODE[codec](mx.array(coded), width, model_type)
        assert array.dtype == model_type
        assert array.shape == (count, width)
        ours = np.array(array.view(mx.uint16) if dtype is DType.BFLOAT16 else array)
        wrong = np.isnan(as_floats(theirs))  # MLX's NaN has other bits as float16
        assert (np.isnan(as_floats(ours)) == wrong).all(), name
        bits = np.uint32 if dtype is DType.FLOAT32 else np.uint16
        assert (ours.view(bits) == theirs.view(bits))[~wrong].all(), name


@pytest.mark.parametrize("codec", CODED)
def test_a_whole_chunk(codec: Codec) -> None:
    rows = np.random.default_rng(1).standard_normal((4096, 64)).astype(np.float32)
    lazy = ENCODE[codec](mx.array(rows))
    assert (np.array(lazy) == encode(codec, rows, DType.FLOAT32)).all()
