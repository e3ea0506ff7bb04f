"""Messages about saved KV. A stage is asked by the first four and answers with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SaveKv:
    """Write the KV of the first `length` tokens of `sequence`, of this fidelity
    (daemon.fidelity), to disk, in the background. Answered by KvSaved.
    """

    term: int
    query: int
    sequence: bytes
    fidelity: dict[str, Any]
    length: int


@dataclass(frozen=True, slots=True)
class LoadKv:
    """Hold, under the id `sequence`, the saved KV of `tokens` tokens with this hash. What this node
    has not saved is read from `sources`: maps of address, start and end (layers). Answered by
    KvRestored.
    """

    term: int
    query: int
    sequence: bytes
    fidelity: dict[str, Any]
    tokens: int
    token_hash: int
    sources: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class DropKv:
    """Delete what is saved under this id for this model."""

    term: int
    digest: str
    entry: str


@dataclass(frozen=True, slots=True)
class DiskQuery:
    """What is saved for the model with this digest? Answered by KvStored."""

    term: int
    digest: str


@dataclass(frozen=True, slots=True)
class KvSaved:
    """The file is on the disk, or `why` says what went wrong; "" when nothing did."""

    query: int
    node: str
    tokens: int
    bytes: int
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class KvRestored:
    """The layers are held, `tokens` positions of them, or `why` says why none are."""

    query: int
    node: str
    tokens: int
    bytes: int
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class KvStored:
    """What this node has on disk for a model, the most recently used of it. One map per file:
    kv_bits and codecs (its fidelity), tokens (int32, little-endian, in bytes), token_hash, start,
    end (layers), bytes, used (Unix time). Other stages read the files at `address`; "" when they
    cannot.
    """

    node: str
    incarnation: str
    digest: str
    address: str
    files: list[dict[str, Any]]
