"""The fixed records inside part 0 of a frame (drawn in transports.wire), and the checks of single
values.
"""

from __future__ import annotations

import math
import struct

from transports.errors import EncodeError, FrameError
from transports.frame import (
    Barrier,
    Command,
    Departure,
    DType,
    Fork,
    Reason,
    Release,
    StageTrace,
    Tensor,
    Turn,
)
from transports.limits import MAX_RANK, FrameLimits

Buffer = bytes | memoryview

SPAN = struct.Struct("<16sIIIQI")  # in the order of Span's fields
COMMAND = struct.Struct("<B3x16sII16s")
DEPARTURE = struct.Struct("<16sIIHBx")
TRACE = struct.Struct("<Idddd")
TENSOR = struct.Struct("<BBxxIIII")
RELEASE, FORK, BARRIER, TURN = 1, 2, 3, 4
_NOBODY = bytes(16)

_DTYPES = {d.value: d for d in DType}
_REASONS = {r.value: r for r in Reason}


def payload(tensor: Tensor) -> Buffer:
    """The tensor's memory as it is, after checking that it is what the descriptor will say."""
    if len(tensor.shape) > MAX_RANK:
        raise EncodeError(f"a tensor of rank {len(tensor.shape)}, the most is {MAX_RANK}")
    try:
        view = memoryview(tensor.data)
    except (TypeError, ValueError, BufferError) as e:
        raise EncodeError(f"a tensor's data is no buffer: {e}") from e
    if not view.c_contiguous:
        raise EncodeError("a tensor's data is not row-contiguous")
    if view.nbytes != tensor.nbytes:
        raise EncodeError(f"{view.nbytes} bytes for {tensor.dtype.name} of shape {tensor.shape}")
    if view.nbytes == 0:
        return b""
    if view.format == "B" and view.ndim == 1:
        return view
    try:
        return view.cast("B")
    except (
        ValueError
    ):  # formats Python does not know, such as bfloat16: the same bytes by another name
        raise EncodeError(f"buffers of format {view.format!r} are sent as uint8 views") from None


def read_tensor(descriptor: tuple[int, ...], part: Buffer, limits: FrameLimits) -> Tensor:
    code, rank, *dims = descriptor
    dtype = _DTYPES.get(code)
    if dtype is None or rank > MAX_RANK or any(dims[rank:]):
        raise FrameError("tensor", f"element type {code}, rank {rank}")
    shape = tuple(dims[:rank])
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > limits.max_tensor_bytes:
        raise FrameError("limit", f"a tensor of {nbytes} bytes")
    if nbytes != len(part):
        raise FrameError("tensor", f"{len(part)} bytes for {dtype.name} of shape {shape}")
    return Tensor(dtype, shape, memoryview(part))


def pack_command(command: Command) -> bytes:
    match command:
        case Release(sequence, attempt):
            return COMMAND.pack(RELEASE, sequence, attempt, 0, _NOBODY)
        case Fork(source, target, attempt, length):
            if length == 0 or source == target:
                raise EncodeError(f"a fork of {length} tokens, or of a sequence from itself")
            return COMMAND.pack(FORK, target, attempt, length, source)
        case Barrier():
            return COMMAND.pack(BARRIER, _NOBODY, 0, 0, _NOBODY)
        case Turn(number, last):
            return COMMAND.pack(TURN, _NOBODY, number, last, _NOBODY)


def read_command(code: int, sequence: bytes, attempt: int, length: int, source: bytes) -> Command:
    if code == RELEASE and not length and source == _NOBODY:
        return Release(sequence, attempt)
    if code == FORK and length and source != sequence:
        return Fork(source, sequence, attempt, length)
    if code == BARRIER and (sequence, attempt, length, source) == (_NOBODY, 0, 0, _NOBODY):
        return Barrier()
    if code == TURN and length <= 1 and sequence == source == _NOBODY:
        return Turn(attempt, last=bool(length))
    raise FrameError("command", f"command {code} of length {length}")


def read_departure(sequence: bytes, attempt: int, held: int, stage: int, code: int) -> Departure:
    reason = _REASONS.get(code)
    if reason is None:
        raise FrameError("enum", f"reason {code}")
    return Departure(sequence, attempt, stage, reason, held)


def read_trace(stage: int, *times: float) -> StageTrace:
    if not all(map(math.isfinite, times)):
        raise FrameError("trace", "a time that is no number")
    return StageTrace(stage, *times)
