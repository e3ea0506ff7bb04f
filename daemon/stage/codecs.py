"""The seam between mx.array and coded tensors: hidden states of one hop, written and read.

Which path is faster depends on the device and on the number of rows. On a CPU it is always NumPy
(`transports.codecs.rows`): MLX pays 50 µs for every evaluation, and its partition is slow. With
2,048 values of float32, on one core of an AMD EPYC (Zen 4), encode + decode in microseconds:

    rows          1      8     32    128     512    4,096
    fp8   NumPy 107    181    419  1,698   6,523   65,410
          MLX   350    420    946  3,146  11,959  178,476
    int8  NumPy 101    155    341  1,381   5,328   57,865
          MLX   434    466    887  2,799  10,254  163,404

Compiled, MLX encodes one row in 59 µs (fp8) and 71 (int8), as fast as NumPy, and 512 no faster; but
each number of rows would cost 0.5 to 5 s of compiling first.

On a GPU `measure` finds out from how many rows on MLX is faster; that was never run on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import mlx.core as mx
import numpy as np

from daemon.engine import codecs as device
from daemon.stage.tensors import to_array, to_tensor
from transports.codecs import rows as reference
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec, layout
from transports.errors import FrameError
from transports.frame import DType, Tensor

_MEASURED = (1, 4, 16, 64, 256)  # rows
_TIMES = 5


@dataclass(frozen=True, slots=True)
class HopCodec:
    """How rows of `width` values of the model's `dtype` are written on a hop. From `device_rows`
    rows on MLX does it; None: never. ValueError (transports.codecs.layout.obstacle) for a width
    that the codec cannot write.
    """

    codec: Codec
    width: int
    dtype: DType
    device_rows: int | None = None

    def __post_init__(self) -> None:
        if self.codec is not Codec.RAW:
            layout(self.codec, self.width)

    def encode(self, rows: mx.array) -> Tensor:
        """For evaluated, row-contiguous [n, width]. Raw, it is a view of `rows`."""
        if self.codec is Codec.RAW:
            return to_tensor(rows)
        count = rows.shape[0]
        if self.on_device(count):
            lazy = device.encode_fp8 if self.codec is Codec.FP8 else device.encode_int8
            coded = np.array(lazy(rows), copy=False)
        else:
            # It has the buffer protocol, whose format NumPy does not look at: it knows no bfloat16.
            stored = np.frombuffer(rows, reference.STORED[self.dtype])  # type: ignore[call-overload]
            coded = reference.encode(self.codec, stored.reshape(count, self.width), self.dtype)
        return Tensor(DType.UINT8, coded.shape, coded.data)

    def decode(self, tensor: Tensor) -> mx.array:
        """[n, width] of the model's type. FrameError when the tensor, which came from a socket, is
        not what `encode` of the same HopCodec makes.
        """
        dtype, row = DType.UINT8, self.width
        if self.codec is Codec.RAW:
            dtype = self.dtype
        else:
            row = layout(self.codec, self.width).row_bytes
        if tensor.dtype is not dtype or tensor.shape[1:] != (row,):
            what = f"{tensor.dtype.name} {list(tensor.shape)}"
            raise FrameError("codec", f"{what} where {dtype.name} [n, {row}] belongs")
        if self.codec is Codec.RAW:
            return to_array(tensor)
        count = tensor.shape[0]
        if self.on_device(count):
            coded = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
            reference.check(layout(self.codec, self.width), coded)
            lazy = device.decode_fp8 if self.codec is Codec.FP8 else device.decode_int8
            return lazy(mx.array(coded), self.width, getattr(mx, self.dtype.name.lower()))
        stored = reference.decode(self.codec, tensor.data, count, self.width, self.dtype)
        return to_array(Tensor(self.dtype, stored.shape, stored))

    def on_device(self, count: int) -> bool:
        return self.device_rows is not None and count >= self.device_rows


def measure(codec: Codec, width: int, dtype: DType, chunk: int) -> tuple[HopCodec, Cost]:
    """The faster path for each number of rows on this device, and what coding costs beyond raw, up
    to `chunk` rows: call it once, before the stage says that it is ready.
    """
    counts = sorted({n for n in _MEASURED if n < chunk} | {chunk})
    host = HopCodec(codec, width, dtype)
    seconds = {n: _seconds(host, n) for n in counts}
    device_rows = None
    if codec is not Codec.RAW and mx.default_device().type == mx.DeviceType.gpu:
        lazy = HopCodec(codec, width, dtype, device_rows=1)
        for n in reversed(counts):
            if (there := _seconds(lazy, n)) >= seconds[n]:
                break
            seconds[n], device_rows = there, n
    row = max(0.0, (seconds[chunk] - seconds[1]) / max(chunk - 1, 1))
    return HopCodec(codec, width, dtype, device_rows), Cost(max(0.0, seconds[1] - row), row)


def _seconds(hop: HopCodec, count: int) -> float:
    """Of encoding and decoding `count` rows; the best of some."""
    rows = mx.random.normal((count, hop.width)).astype(getattr(mx, hop.dtype.name.lower()))
    mx.eval(rows)
    taken = []
    for _ in range(_TIMES + 1):  # the first pays for kernels and memory
        start = perf_counter()
        decoded = hop.decode(hop.encode(rows))
        if hop.on_device(count):  # else what is left to evaluate is what raw leaves too
            mx.eval(decoded)
        taken.append(perf_counter() - start)
    return min(taken[1:])
