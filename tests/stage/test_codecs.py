"""Hidden states of a hop: from an array to a tensor and back, on either path."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from daemon.stage.codecs import RowCoder, measure
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
    coder, rows = RowCoder(WIDTH, dtype), rows_of(dtype)
    tensor = coder.encode(Codec.RAW, rows)
    assert (tensor.dtype, tensor.shape) == (dtype, (5, WIDTH))
    assert mx.array_equal(coder.decode(tensor), rows)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("codec", CODED)
def test_both_paths_are_one_codec(codec: Codec, dtype: DType) -> None:
    rows = rows_of(dtype)
    host, device = RowCoder(WIDTH, dtype), RowCoder(WIDTH, dtype, {codec: 2})
    assert (device.on_device(codec, 1), device.on_device(codec, 2)) == (False, True)
    tensor = host.encode(codec, rows)
    assert tensor.nbytes == encoded_bytes(codec, WIDTH, 5, dtype) == len(bytes(tensor.data))
    assert bytes(device.encode(codec, rows).data) == bytes(tensor.data)
    received = Tensor(tensor.dtype, tensor.shape, memoryview(bytes(tensor.data)))
    there, here = device.decode(received), host.decode(received)
    assert there.dtype == here.dtype == rows.dtype
    assert mx.array_equal(there, here)
    assert mx.abs(here - rows).max().item() < 0.13


@pytest.mark.parametrize("path", [{}, {Codec.FP8: 1, Codec.INT8: 1}])
def test_other_tensors_are_refused(path: dict[Codec, int]) -> None:
    coder, wider = RowCoder(WIDTH, DType.FLOAT32, path), RowCoder(2 * WIDTH, DType.FLOAT32)
    refused = [wider.encode(c, mx.zeros((1, 2 * WIDTH))) for c in Codec]
    refused += [Tensor(DType.INT32, (1, WIDTH), bytes(4 * WIDTH))]
    for dtype in (DType.FLOAT32, DType.FP8_ROWS, DType.INT8_ROWS):
        refused += [Tensor(dtype, (), bytes(4)), Tensor(dtype, (0, WIDTH), b"")]
    refused += [Tensor(DType.UINT8, (1, WIDTH), bytes(WIDTH))]
    for tensor in refused:
        with pytest.raises(FrameError, match="codec"):
            coder.decode(tensor)


@pytest.mark.parametrize("path", [{}, {Codec.FP8: 1, Codec.INT8: 1}])
@pytest.mark.parametrize("codec", CODED)
def test_a_scale_that_is_none_is_refused(codec: Codec, path: dict[Codec, int]) -> None:
    coder = RowCoder(WIDTH, DType.FLOAT32, path)
    tensor = coder.encode(codec, rows_of(DType.FLOAT32))
    coded = np.array(tensor.data)
    coded[4, WIDTH : WIDTH + 2] = (0x80, 0x7F)
    with pytest.raises(FrameError, match="scale"):
        coder.decode(Tensor(tensor.dtype, tensor.shape, coded))


@pytest.mark.parametrize("path", [{}, {Codec.FP8: 1, Codec.INT8: 1}])
@pytest.mark.parametrize("codec", CODED)
def test_a_width_that_cannot_be_written(codec: Codec, path: dict[Codec, int]) -> None:
    coder = RowCoder(100, DType.FLOAT32, path)
    with pytest.raises(ValueError, match="100"):
        coder.encode(codec, mx.zeros((1, 100)))
    with pytest.raises(FrameError, match="codec"):
        coder.decode(Tensor(DType.FP8_ROWS, (1, 134), bytes(134)))


def test_measuring() -> None:
    coder, costs = measure(RowCoder(WIDTH, DType.FLOAT32), 8)
    assert coder.width == WIDTH
    assert costs.keys() == set(CODED)
    assert all(0 < cost.seconds(8) < 1 for cost in costs.values())
    assert measure(RowCoder(100, DType.FLOAT32), 8)[1] == {}
