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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import perf_counter

import mlx.core as mx
import numpy as np

from daemon.engine import codecs as device
from daemon.engine.model import ModelInfo
from daemon.stage.tensors import to_array, to_tensor, wire_type
from transports.codecs import rows as reference
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec, layout, obstacle
from transports.errors import FrameError
from transports.frame import DType, Tensor

_MEASURED = (1, 4, 16, 64, 256)  # rows
_TIMES = 5
_WIRE = {Codec.FP8: DType.FP8_ROWS, Codec.INT8: DType.INT8_ROWS}
_CODECS = {dtype: codec for codec, dtype in _WIRE.items()}


@dataclass(frozen=True, slots=True)
class RowCoder:
    """Writes and reads rows of `width` values, as a stage sends and takes them. `dtype` is the
    model's, which coded rows are read as; raw they stay of the type that the stage computes them
    in, which may be a larger one: that of norms that are kept in float32, for example.
    `device_rows`: from how many rows on MLX does it, by codec; where nothing stands, never.
    """

    width: int
    dtype: DType
    device_rows: Mapping[Codec, int] = field(default_factory=dict)

    @classmethod
    def of(cls, info: ModelInfo) -> RowCoder:
        """In NumPy, whatever the number of rows."""
        return cls(info.hidden_size, DType[info.dtype.upper()])

    def encode(self, codec: Codec, rows: mx.array) -> Tensor:
        """For evaluated, row-contiguous [n, width]. Raw, it is a view of `rows`. ValueError for a
        width that the codec cannot write (transports.codecs.layout.obstacle).
        """
        if codec is Codec.RAW:
            return to_tensor(rows)
        count = rows.shape[0]
        if self.on_device(codec, count):
            layout(codec, self.width)
            lazy = device.encode_fp8 if codec is Codec.FP8 else device.encode_int8
            coded = np.array(lazy(rows), copy=False)
        else:
            # It has the buffer protocol, whose format NumPy does not look at: it knows no bfloat16.
            dtype = wire_type(rows)
            stored = np.frombuffer(rows, reference.STORED[dtype])  # type: ignore[call-overload]
            coded = reference.encode(codec, stored.reshape(count, self.width), dtype)
        return Tensor(_WIRE[codec], coded.shape, coded.data)

    def decode(self, tensor: Tensor) -> mx.array:
        """[n, width]. FrameError when the tensor, which came from a socket, is not what `encode` of
        an equal RowCoder makes.
        """
        codec = _CODECS.get(tensor.dtype, Codec.RAW)
        row = self.width
        if codec is not Codec.RAW and not obstacle(codec, self.width):
            row = layout(codec, self.width).row_bytes
        elif tensor.dtype not in reference.STORED:
            raise FrameError("codec", f"{tensor.dtype.name} cannot be rows of {self._rows}")
        if tensor.shape[1:] != (row,) or not tensor.shape[0]:
            what = f"{tensor.dtype.name} {list(tensor.shape)}"
            raise FrameError("codec", f"{what} where [n, {row}] belongs, rows of {self._rows}")
        if codec is Codec.RAW:
            return to_array(tensor)
        count = tensor.shape[0]
        if self.on_device(codec, count):
            coded = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
            reference.check(layout(codec, self.width), coded)
            lazy = device.decode_fp8 if codec is Codec.FP8 else device.decode_int8
            return lazy(mx.array(coded), self.width, getattr(mx, self.dtype.name.lower()))
        stored = reference.decode(codec, tensor.data, count, self.width, self.dtype)
        return to_array(Tensor(self.dtype, stored.shape, stored))

    def write(self, rows: mx.array, parts: Sequence[tuple[Codec, int]]) -> tuple[Tensor, ...]:
        """Evaluated rows, of which so many in turn are to be written in such a codec: one tensor
        for all that stand together and are written alike.
        """
        tensors, start = [], 0
        for codec, group in groupby(parts, key=lambda part: part[0]):
            end = start + sum(count for _, count in group)
            some = rows
            if end - start < rows.shape[0]:
                some = mx.contiguous(rows[start:end])
                mx.eval(some)
            tensors.append(self.encode(codec, some))
            start = end
        return tuple(tensors)

    def read(self, tensors: Sequence[Tensor]) -> mx.array:
        """The rows of all tensors, one after another. FrameError for what are none."""
        arrays = [self.decode(tensor) for tensor in tensors]
        if not arrays:
            raise FrameError("codec", "no hidden states")
        return arrays[0] if len(arrays) == 1 else mx.concatenate(arrays)

    def on_device(self, codec: Codec, count: int) -> bool:
        return codec in self.device_rows and count >= self.device_rows[codec]

    @property
    def _rows(self) -> str:
        return f"{self.width} floating-point values"


def measure(coder: RowCoder, chunk: int) -> tuple[RowCoder, dict[Codec, Cost]]:
    """One that takes the faster path for each number of rows on this device, and what coding costs
    beyond raw, up to `chunk` rows, by the codecs that can write such rows: call it once, before the
    stage says that it is ready.
    """
    costs: dict[Codec, Cost] = {}
    for codec in _WIRE:
        if not obstacle(codec, coder.width):
            device_rows, costs[codec] = _measure(coder, codec, chunk)
            if device_rows is not None:
                coder = replace(coder, device_rows={**coder.device_rows, codec: device_rows})
    return coder, costs


def _measure(host: RowCoder, codec: Codec, chunk: int) -> tuple[int | None, Cost]:
    counts = sorted({n for n in _MEASURED if n < chunk} | {chunk})
    seconds = {n: _seconds(host, codec, n) for n in counts}
    device_rows = None
    if mx.default_device().type == mx.DeviceType.gpu:
        lazy = replace(host, device_rows={codec: 1})
        for n in reversed(counts):
            if (there := _seconds(lazy, codec, n)) >= seconds[n]:
                break
            seconds[n], device_rows = there, n
    row = max(0.0, (seconds[chunk] - seconds[1]) / max(chunk - 1, 1))
    return device_rows, Cost(max(0.0, seconds[1] - row), row)


def _seconds(coder: RowCoder, codec: Codec, count: int) -> float:
    """Of encoding and decoding `count` rows; the best of some."""
    rows = mx.random.normal((count, coder.width)).astype(getattr(mx, coder.dtype.name.lower()))
    mx.eval(rows)
    taken = []
    for _ in range(_TIMES + 1):  # the first pays for kernels and memory
        start = perf_counter()
        decoded = coder.decode(coder.encode(codec, rows))
        if coder.on_device(codec, count):  # else what is left to evaluate is what raw leaves too
            mx.eval(decoded)
        taken.append(perf_counter() - start)
    return min(taken[1:])
