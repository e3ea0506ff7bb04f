"""A file's bytes: written and read in slices. Every function here is a generator that yields after
each slice, so that its caller decides what comes in between.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Protocol, TypeVar

import numpy as np

from daemon.history import History
from daemon.layers import LayerRange
from daemon.storage.errors import CannotRead, Damaged, Foreign
from daemon.storage.form import LayerForm
from daemon.storage.manifest import (
    MAX_HEADER_BYTES,
    TOKEN_BYTES,
    Identity,
    Manifest,
    SavedArray,
    SavedLayer,
)

SLICE = 1 << 20  # bytes of a step that somebody waits for: about 1 ms
QUIET_SLICE = 1 << 18  # of one that nobody waits for: it shares its core with those who compute
SYNCED = 8 << 20  # bytes that are brought to the disk in one step: readers are served in between
HASHED = 4096  # tokens whose hash is computed in one step: about 1.5 ms

T = TypeVar("T")
Steps = Generator[None, None, T]
Buffer = memoryview


class Source(Protocol):
    """Where a file's bytes come from: this disk, or another node's."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, into: Buffer) -> Iterator[None]:
        """Fill `into`; CannotRead when that is not possible."""


@dataclass(frozen=True, slots=True)
class ArrayParts:
    """An array to be written: its bytes are those of `parts`, one after another."""

    array: SavedArray
    parts: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class LayerParts:
    """A layer to be written: the positions from `first` on."""

    kind: str
    first: int
    arrays: tuple[ArrayParts, ...]

    @property
    def nbytes(self) -> int:
        return sum(part.array.nbytes for part in self.arrays)


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """A layer that was read and found whole: each array with its bytes."""

    first: int
    arrays: tuple[tuple[SavedArray, Buffer], ...]


def write(
    file: IO[bytes],
    identity: Identity,
    layers: LayerRange,
    tokens: Sequence[int],
    parts: Sequence[LayerParts],
) -> Steps[int]:
    """Write the whole file, and have it on the disk; returns its bytes. The header comes last: a
    file that was not finished has none. OSErrors pass through.
    """
    saved = tuple(SavedLayer(p.kind, p.first, 0, tuple(a.array for a in p.arrays)) for p in parts)
    manifest = Manifest(identity, layers, saved)
    header = manifest.header()
    file.seek(len(header))
    file.write(np.asarray(tokens, "<i4").tobytes())
    checked = []
    synced = 0
    for layer, part in zip(saved, parts, strict=True):
        checksum = 0
        for array in part.arrays:
            for piece in array.parts:
                for at in range(0, len(piece), QUIET_SLICE):
                    piece_slice = piece[at : at + QUIET_SLICE]
                    checksum = zlib.crc32(piece_slice, checksum)
                    file.write(piece_slice)
                    yield
                    if file.tell() - synced >= SYNCED:
                        synced = _sync(file)
                        yield
        checked.append(replace(layer, checksum=checksum))
    size = file.tell()
    file.seek(0)
    file.write(replace(manifest, saved=tuple(checked)).header())
    _sync(file)
    return size


def _sync(file: IO[bytes]) -> int:
    """Returns what is on the disk now. Other threads compute meanwhile."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def read_manifest(source: Source) -> Steps[Manifest]:
    """The file's own word, checked in itself and against the file's size. Damaged, Foreign."""
    if source.size < 8:
        raise Damaged(source.name, f"has only {source.size} bytes")
    prefix = yield from read_bytes(source, 0, 8)
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER_BYTES, source.size - 8):
        raise Damaged(source.name, f"has no header of at most {MAX_HEADER_BYTES} bytes")
    manifest = Manifest.parse(source.name, bytes((yield from read_bytes(source, 8, length))))
    wanted = 8 + length + manifest.data_bytes
    if source.size != wanted:
        raise Damaged(source.name, f"has {source.size} bytes instead of {wanted}")
    return manifest


def read_tokens(source: Source, manifest: Manifest) -> Steps[History]:
    """The tokens, which must be those that the manifest names by their hash."""
    count = manifest.identity.tokens
    start = source.size - manifest.data_bytes
    data = yield from read_bytes(source, start, count * TOKEN_BYTES)
    tokens = np.frombuffer(data, "<i4")
    history = History()
    for at in range(0, count, HASHED):
        history.extend(tokens[at : at + HASHED].tolist())
        yield
    if history.hash_at(count) != manifest.identity.token_hash:
        raise Damaged(source.name, "its tokens have changed")
    return history


def read_layer(
    source: Source, manifest: Manifest, layer: int, form: LayerForm
) -> Steps[LayerBytes]:
    """One of the model's layers, whole and of this form. Damaged, Foreign."""
    manifest.check_layer(source.name, layer, form)
    saved = manifest.layer(layer)
    start = source.size - manifest.data_bytes + manifest.offset(layer)
    data = yield from read_bytes(source, start, saved.nbytes)
    checksum = 0
    for at in range(0, len(data), SLICE):
        checksum = zlib.crc32(data[at : at + SLICE], checksum)
        yield
    if checksum != saved.checksum:
        raise Damaged(source.name, f"the bytes of layer {layer} have changed")
    arrays, at = [], 0
    for array in saved.arrays:
        arrays.append((array, data[at : at + array.nbytes]))
        at += array.nbytes
    return LayerBytes(saved.first, tuple(arrays))


def check_identity(name: str, manifest: Manifest, wanted: Identity, layers: LayerRange) -> None:
    """Raise Foreign unless the file is about exactly these caches."""
    if (manifest.identity, manifest.layers) != (wanted, layers):
        raise Foreign(name, "is of other tokens or layers, another model or type")


def read_bytes(source: Source, offset: int, count: int) -> Steps[Buffer]:
    """So many bytes, which must be what the caller expects and not what a file has asked for."""
    try:
        buffer = memoryview(np.empty(count, np.uint8))  # type: ignore[arg-type]  # it is a buffer
    except MemoryError as error:
        raise CannotRead(source.name, f"there is no memory for {count} bytes") from error
    yield from source.read(offset, buffer)
    return buffer
