"""Messages as bytes, and bytes as messages: nothing of a socket is believed unchecked."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields
from math import isfinite
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack

from daemon.batching import Batching
from daemon.hop_path import HopPath, PathLoss
from daemon.messages.catalogue import Message
from daemon.messages.drafting import Propose, Proposed
from daemon.messages.moving import Prepare, Prepared
from daemon.messages.rdma import PathLost, PathTaken, TakePath
from daemon.messages.stage import Assign, Heartbeat, Load, Loaded
from transports.codecs.layout import Codec

MAX_MESSAGE_BYTES = 8 << 20
_BATCHING = {batching.value for batching in Batching}
_PATHS = {path.value for path in HopPath}
_LOSSES = {loss.value for loss in PathLoss}
_OF_A_PATH = (TakePath, PathTaken, Heartbeat)
_OF_LAYERS = (Load, Loaded, Assign, Prepare, Prepared)
LARGEST = (1 << 62) - 1  # of every number: sums and successors still fit 64 bits

_BY_NAME: dict[str, type[Any]] = {cls.__name__: cls for cls in get_args(Message)}


class MessageError(Exception):
    """Bytes that are not a message of this protocol. The sender's fault."""


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    body = {f.name: getattr(message, f.name) for f in fields(message)}
    body["type"] = type(message).__name__
    packed: bytes = msgpack.packb(body)
    return packed


def decode(data: bytes) -> Message:
    """Raise MessageError unless `data` is exactly one message with exactly its fields, each of its
    type.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"{len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        body = msgpack.unpackb(data, ext_hook=_refuse_extension)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise MessageError(f"not msgpack: {error}") from error
    if not isinstance(body, dict):
        raise MessageError("not a map")
    name = body.pop("type", None)
    cls = _BY_NAME.get(name) if isinstance(name, str) else None
    if cls is None:
        raise MessageError(f"unknown message type {name!r:.40}")
    checks = _CHECKS[cls]
    if body.keys() != checks.keys():
        raise MessageError(f"{cls.__name__} with fields {sorted(map(str, body))}")
    for field, value in body.items():
        if not checks[field](value):
            raise MessageError(f"{cls.__name__}.{field} is {value!r:.40}")
    if cls in _OF_LAYERS and not body["start"] < body["end"]:
        raise MessageError(f"{cls.__name__} of layers [{body['start']}, {body['end']})")
    if cls in _OF_A_PATH and body["path"] not in _PATHS:
        raise MessageError(f"{cls.__name__}.path is {body['path']!r:.40}")
    if cls is PathLost and body["reason"] not in _LOSSES:
        raise MessageError(f"PathLost.reason is {body['reason']!r:.40}")
    if cls is Loaded and body["batching"] not in _BATCHING:
        raise MessageError(f"Loaded.batching is {body['batching']!r:.40}")
    if cls is Loaded and not _are_steps(body["step_seconds"]):
        raise MessageError(f"Loaded.step_seconds is {body['step_seconds']!r:.40}")
    if cls is Loaded and not _are_footprints(body["kv_footprints"]):
        raise MessageError(f"Loaded.kv_footprints is {body['kv_footprints']!r:.40}")
    if cls is Loaded and not _are_codecs(body["codec_seconds"]):
        raise MessageError(f"Loaded.codec_seconds is {body['codec_seconds']!r:.40}")
    if cls is Propose and body["until"] < body["position"] + len(body["tokens"]):
        raise MessageError(f"Propose up to {body['until']}, which is before the last token")
    if cls is Proposed and not body["tokens"]:
        raise MessageError("Proposed without a token")
    message: Message = cls(**body)
    return message


def _are_steps(pairs: list[list[float]]) -> bool:
    """Whether these are pairs of a number of sequences, from one upwards, and seconds."""
    counts = [pair[0] for pair in pairs if len(pair) == 2 and pair[1] >= 0.0]
    return len(counts) == len(pairs) > 0 and counts[0] == 1 and counts == sorted(set(counts))


def _are_footprints(value: list[list[int]]) -> bool:
    return all(len(one) == 3 for one in value) and 0 in [one[0] for one in value]


def _are_codecs(value: dict[str, list[float]]) -> bool:
    known = {codec.value for codec in Codec if codec is not Codec.RAW}
    numbers = [number for one in value.values() for number in one]
    pairs = all(len(one) == 2 for one in value.values())
    return value.keys() <= known and pairs and min(numbers, default=0.0) >= 0.0


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _check(hint: Any) -> Callable[[Any], bool]:
    """A predicate for the few kinds of types that messages have."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if hint is float:
        return lambda value: type(value) in (int, float) and isfinite(value)
    if hint is int:
        return lambda value: type(value) is int and 0 <= value <= LARGEST
    if origin is None:
        return lambda value: type(value) is hint
    if origin in (Union, types.UnionType):
        parts = [_check(arg) for arg in args]
        return lambda value: any(part(value) for part in parts)
    if origin is list:
        item = _check(args[0])
        return lambda value: type(value) is list and all(map(item, value))
    if origin is dict:
        key, item = _check(args[0]), _check(args[1])
        return lambda value: (
            type(value) is dict and all(map(key, value)) and all(map(item, value.values()))
        )
    raise TypeError(f"messages cannot hold {hint}")


_CHECKS = {
    cls: {name: _check(hint) for name, hint in get_type_hints(cls).items()}
    for cls in _BY_NAME.values()
}
