"""The part of a frame that has no fixed shape: constants and log-probabilities, as msgpack.

    {"c": {sequence: {name: value, ...}}, "l": {sequence: [entry per output, ...]}}

Either key is left out when empty, and nothing at all is written when both are. Tuples come back as
lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack

from transports.errors import EncodeError, FrameError
from transports.frame import SEQUENCE_ID_BYTES
from transports.limits import FrameLimits

Constants = Mapping[bytes, Mapping[str, Any]]
Logprobs = Mapping[bytes, Any]


def pack_meta(constants: Constants, logprobs: Logprobs) -> bytes:
    """Bytes for both maps, b"" when both are empty."""
    if not constants and not logprobs:
        return b""
    meta: dict[str, Any] = {}
    if constants:
        meta["c"] = constants
    if logprobs:
        meta["l"] = logprobs
    try:
        packed: bytes = msgpack.packb(meta)
    except (TypeError, ValueError, OverflowError) as e:
        raise EncodeError(f"constants or logprobs cannot be packed: {e}") from e
    return packed


def unpack_meta(data: bytes | memoryview, limits: FrameLimits) -> tuple[Constants, Logprobs]:
    """Both maps, checked for shape; what the values mean is the receiver's to check.

    A list's header makes msgpack allocate the whole list at once, and lists nest: hence the bound
    on their length, without which a few kilobytes could ask for hundreds of megabytes.
    """
    if not len(data):
        return {}, {}
    try:
        meta = msgpack.unpackb(
            data,
            ext_hook=_refuse_ext,
            strict_map_key=True,
            max_array_len=max(limits.max_tokens, 64),
            max_map_len=max(limits.max_spans, 64),
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as e:
        raise FrameError("meta", f"not plain msgpack: {type(e).__name__}") from e
    if not isinstance(meta, dict) or not meta.keys() <= {"c", "l"}:
        raise FrameError("meta", "not a map of c and l")
    constants = _sequence_map(meta.get("c", {}), limits)
    logprobs = _sequence_map(meta.get("l", {}), limits)
    for value in constants.values():
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise FrameError("meta", "constants are not a map of names")
    if not all(isinstance(value, list) for value in logprobs.values()):
        raise FrameError("meta", "logprobs are not lists")
    return constants, logprobs


def _sequence_map(value: object, limits: FrameLimits) -> dict[bytes, Any]:
    if not isinstance(value, dict) or len(value) > limits.max_spans:
        raise FrameError("meta", "not a map, or longer than max_spans")
    for key in value:
        if not isinstance(key, bytes) or len(key) != SEQUENCE_ID_BYTES:
            raise FrameError("meta", "a key is not a sequence id")
    return value


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"ext type {code} of {len(data)} bytes")
