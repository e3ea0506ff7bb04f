"""A frame's parts as the payload of one message.

    0   4  number of parts        4   4  reserved, 0
    8      the parts' lengths, 8 each; then, each at a multiple of 16: parts 1..n, then part 0

Part 0 comes last. When a stage ends in the middle of a message, the rest of it crosses the wire as
zeros: what stands for part 0 is then no head of a frame, and the frame is dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from transports.errors import FrameError
from transports.limits import FrameLimits
from transports.records import Buffer

_ALIGN = 16
_GAP = bytes(_ALIGN)


def plan(parts: Sequence[Buffer]) -> tuple[int, list[Buffer]]:
    """The payload's length, and the buffers that it is made of, one behind the other."""
    count = len(parts)
    table = struct.pack(f"<II{count}Q", count, 0, *map(len, parts))
    buffers: list[Buffer] = [table]
    at = len(table)
    for part in (*parts[1:], parts[0]):
        if gap := -at % _ALIGN:
            buffers.append(_GAP[:gap])
        buffers.append(part)
        at += gap + len(part)
    return at, buffers


def unpack(payload: memoryview, limits: FrameLimits) -> list[Buffer]:
    """Views of the parts, part 0 first. FrameError when the table makes no sense."""
    total = len(payload)
    if total < 8:
        raise FrameError("foreign", f"a message of {total} bytes")
    count, reserved = struct.unpack_from("<II", payload)
    if not 0 < count <= limits.max_tensors + 1 or reserved or 8 + 8 * count > total:
        raise FrameError("parts", f"a message of {count} parts")
    lengths = struct.unpack_from(f"<{count}Q", payload, 8)
    if max(lengths) > limits.max_part_bytes:
        raise FrameError("limit", "a part is above the limit of this link")
    at = 8 + 8 * count
    parts = []
    for length in (*lengths[1:], lengths[0]):
        at += -at % _ALIGN
        parts.append(payload[at : at + length])
        at += length
    if at != total:
        raise FrameError("length", f"a message of {total} bytes, its parts say {at}")
    return [bytes(parts.pop()), *parts]  # read more than once: nobody is to change it meanwhile
