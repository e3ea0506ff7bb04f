"""Hidden states of a hop: from an array to a tensor and back, on either path."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from daemon.stage.codecs import HopCodec, measure
from transports.codecs.layout import Codec, encoded_bytes
from transports.errors import FrameError
from transports.frame import DType, Tensor

WIDTH = 192
FLOATING = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)
CODED = (Codec.FP8, Codec.INT8)


def rows_of(dtype: DType, count: int = 5) -> mx.array:
    rows = mx.random.normal((count, WIDTH), key=mx.random.key(3))
    rows = rows.astype(getattr(mx, dtype.name.lower()))
    mx.eval(rows)
    return rows


@pytest.mark.parametrize("dtype", FLOATING)
def test_raw_is_exact(dtype: DType) -> None:
    hop, rows = HopCodec(Codec.RAW, WIDTH, dtype), rows_of(dtype)
    tensor = hop.encode(rows)
    assert (tensor.dtype, tensor.shape) == (dtype, (5, WIDTH))
    assert mx.array_equal(hop.decode(tensor), rows)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("codec", CODED)
def test_both_paths_are_one_codec(codec: Codec, dtype: DType) -> None:
    rows = rows_of(dtype)
    host, device = HopCodec(codec, WIDTH, dtype), HopCodec(codec, WIDTH, dtype, device_rows=2)
    assert (device.on_device(1), device.on_device(2)) == (False, True)
    tensor = host.encode(rows)
    assert tensor.nbytes == encoded_bytes(codec, WIDTH, 5, dtype) == len(bytes(tensor.data))
    assert bytes(device.encode(rows).data) == bytes(tensor.data)
    received = Tensor(tensor.dtype, tensor.shape, memoryview(bytes(tensor.data)))
    there, here = device.decode(received), host.decode(received)
    assert there.dtype == here.dtype == rows.dtype
    assert mx.array_equal(there, here)
    assert mx.abs(here - rows).max().item() < 0.13


@pytest.mark.parametrize("device_rows", [None, 1])
@pytest.mark.parametrize("codec", list(Codec))
def test_another_tensor_is_refused(codec: Codec, device_rows: int | None) -> None:
    hop = HopCodec(codec, WIDTH, DType.FLOAT32, device_rows)
    others = [HopCodec(c, WIDTH, DType.FLOAT32).encode(rows_of(DType.FLOAT32)) for c in Codec]
    refused = [tensor for tensor, c in zip(others, Codec, strict=True) if c is not codec]
    refused += [Tensor(DType.UINT8, (), bytes(1)), Tensor(DType.INT32, (1, WIDTH), bytes(768))]
    for tensor in refused:
        with pytest.raises(FrameError, match="codec"):
            hop.decode(tensor)


@pytest.mark.parametrize("device_rows", [None, 1])
@pytest.mark.parametrize("codec", CODED)
def test_a_scale_that_is_none_is_refused(codec: Codec, device_rows: int | None) -> None:
    hop = HopCodec(codec, WIDTH, DType.FLOAT32, device_rows)
    tensor = hop.encode(rows_of(DType.FLOAT32))
    coded = np.array(tensor.data)
    coded[4, WIDTH : WIDTH + 2] = (0x80, 0x7F)
    with pytest.raises(FrameError, match="scale"):
        hop.decode(Tensor(tensor.dtype, tensor.shape, coded))


def test_a_width_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="100"):
        HopCodec(Codec.INT8, 100, DType.FLOAT32)


@pytest.mark.parametrize("codec", list(Codec))
def test_measuring(codec: Codec) -> None:
    hop, cost = measure(codec, WIDTH, DType.FLOAT32, 8)
    assert (hop.codec, hop.width) == (codec, WIDTH)
    assert 0 < cost.seconds(8) < 1
