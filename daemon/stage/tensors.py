"""The seam between mx.array and the tensors of a frame."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from transports.frame import DType, Tensor

_TO_WIRE = {
    mx.float32: DType.FLOAT32,
    mx.float16: DType.FLOAT16,
    mx.bfloat16: DType.BFLOAT16,
    mx.int32: DType.INT32,
    mx.uint8: DType.UINT8,
}
_FROM_WIRE = {wire: dtype for dtype, wire in _TO_WIRE.items()}


def wire_type(array: mx.array) -> DType:
    """Of its elements. KeyError for a type that no frame holds."""
    return _TO_WIRE[array.dtype]


def to_tensor(array: mx.array) -> Tensor:
    """A view of an evaluated, row-contiguous array: no copy. It must not be changed until it is
    sent.
    """
    data = memoryview(array.view(mx.uint8))  # type: ignore[arg-type]  # it has the buffer protocol
    return Tensor(wire_type(array), array.shape, data)


def to_array(tensor: Tensor) -> mx.array:
    """The one copy on the way in: MLX takes no foreign memory."""
    raw = mx.array(np.frombuffer(tensor.data, np.uint8))
    return raw.view(_FROM_WIRE[tensor.dtype]).reshape(tensor.shape)
