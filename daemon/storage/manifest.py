"""What a file of saved KV says of itself: the header of a safetensors file, with a manifest.

    8 bytes     length of the header, little-endian
    header      {"__metadata__": {"checksum": 8 hex digits, "format": ..., "manifest": JSON},
                 "tokens": ..., "layers.3.keys": ..., "layers.3.values": ..., ...}
    data        the arrays in that order, without gaps

`checksum` is the CRC-32 of the header with zeros in its place. The manifest has one for the bytes
of each layer, so that a stage can read some layers of a file and know that these are whole.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

from daemon.fidelity import Fidelity
from daemon.layers import LayerRange
from daemon.storage.errors import Damaged, Foreign
from daemon.storage.form import ITEM_BYTES, LayerForm

FORMAT = "shardbus-kv"
VERSION = 1
MAX_HEADER_BYTES = 1 << 20
MAX_NUMBER = 1 << 48
TOKEN_BYTES = 4
_START = b'{"__metadata__":{"checksum":"'
_ZEROS = b"0" * 8


@dataclass(frozen=True, slots=True)
class Identity:
    """Which caches these are: of which model, how exact, of which tokens."""

    digest: str
    fidelity: Fidelity
    tokens: int
    token_hash: int

    @property
    def entry(self) -> str:
        """The id of everything that is saved of these tokens, on whichever node: 32 hex digits."""
        fidelity = _dumps(self.fidelity.to_wire())
        parts = f"{self.digest} {fidelity} {self.tokens} {self.token_hash}"
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SavedArray:
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class SavedLayer:
    """The positions from `first` on; `checksum` is over the bytes of its arrays in order."""

    kind: str
    first: int
    checksum: int
    arrays: tuple[SavedArray, ...]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Manifest:
    """`layers` are the model's, `saved` has one element for each."""

    identity: Identity
    layers: LayerRange
    saved: tuple[SavedLayer, ...]

    @property
    def data_bytes(self) -> int:
        return self.identity.tokens * TOKEN_BYTES + sum(layer.nbytes for layer in self.saved)

    def offset(self, layer: int) -> int:
        """Where the data of a layer of the model begins."""
        before = self.saved[: layer - self.layers.start]
        return self.identity.tokens * TOKEN_BYTES + sum(one.nbytes for one in before)

    def layer(self, layer: int) -> SavedLayer:
        return self.saved[layer - self.layers.start]

    def check_layer(self, name: str, layer: int, form: LayerForm) -> None:
        """Raise Foreign unless this layer of the file is of that form."""
        saved, length = self.layer(layer), self.identity.tokens
        if saved.kind != form.kind:
            raise Foreign(name, f"layer {layer} is {saved.kind}, this model's is {form.kind}")
        if not form.first_fits(saved.first, length):
            raise Foreign(name, f"layer {layer} begins at position {saved.first} of {length}")
        wanted = [(a.name, a.dtype, a.at(length - saved.first)) for a in form.arrays]
        if [(a.name, a.dtype, a.shape) for a in saved.arrays] != wanted:
            raise Foreign(name, f"the arrays of layer {layer} are not those of this model")

    # --- as bytes ---

    def header(self) -> bytes:
        """With its length before it. As long as the checksums are numbers of 32 bits, its length
        does not depend on them.
        """
        about = {
            "version": VERSION,
            "digest": self.identity.digest,
            **self.identity.fidelity.to_wire(),
            "tokens": self.identity.tokens,
            "token_hash": f"{self.identity.token_hash:016x}",
            "start": self.layers.start,
            "end": self.layers.end,
            "layers": [
                {"kind": one.kind, "first": one.first, "checksum": f"{one.checksum:08x}"}
                for one in self.saved
            ],
        }
        metadata = {"checksum": _ZEROS.decode(), "format": FORMAT, "manifest": _dumps(about)}
        body = _dumps({"__metadata__": metadata, **self._tensors()}).encode()
        body += b" " * (-len(body) % 8)
        return len(body).to_bytes(8, "little") + _sealed(body)

    def _tensors(self) -> dict[str, Any]:
        tokens = SavedArray("tokens", "I32", (self.identity.tokens,))
        named = chain(
            [("tokens", tokens)],
            (
                (f"layers.{n}.{array.name}", array)
                for n, layer in enumerate(self.saved, self.layers.start)
                for array in layer.arrays
            ),
        )
        found, at = {}, 0
        for name, array in named:
            end = at + array.nbytes
            found[name] = {
                "dtype": array.dtype,
                "shape": list(array.shape),
                "data_offsets": [at, end],
            }
            at = end
        return found

    @classmethod
    def parse(cls, name: str, body: bytes) -> Manifest:
        """From a header without its length. Damaged or Foreign when it is none of ours."""
        if not body.startswith(_START):
            raise Foreign(name, "is not saved KV")
        if body != _sealed(body):
            raise Damaged(name, "its header has changed")
        try:
            header = json.loads(body)
            metadata = header.pop("__metadata__")
            about = json.loads(metadata["manifest"])
            if metadata["format"] != FORMAT or about["version"] != VERSION:
                raise Foreign(name, f"is not saved KV of version {VERSION}")
            manifest = _manifest(about, header)
            # Whatever else stands there, and every offset, must be what we would have written.
            same = manifest.header()[8:] == body
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Foreign(name, f"has a header that is none of ours ({error!r:.80})") from error
        if not same:
            raise Foreign(name, "has a header that is none of ours")
        return manifest


def _manifest(about: Mapping[str, Any], tensors: Mapping[str, Any]) -> Manifest:
    layers = LayerRange(_number(about["start"]), _number(about["end"]))
    arrays: dict[int, list[SavedArray]] = {}
    for name, facts in tensors.items():
        if name == "tokens":
            continue
        _, layer, array = str(name).split(".", 2)
        dtype, shape = str(facts["dtype"]), tuple(_number(n) for n in facts["shape"])
        if dtype not in ITEM_BYTES:
            raise ValueError(f"type {dtype}")
        arrays.setdefault(int(layer), []).append(SavedArray(array, dtype, shape))
    identity = Identity(
        str(about["digest"]),
        Fidelity.from_wire(about),
        _number(about["tokens"]),
        int(about["token_hash"], 16),
    )
    if len(about["layers"]) != len(layers):
        raise ValueError(f"{len(about['layers'])} layers in {layers}")
    return Manifest(identity, layers, tuple(_saved(about["layers"], layers, arrays)))


def _saved(
    told: list[Any], layers: LayerRange, arrays: Mapping[int, list[SavedArray]]
) -> Iterator[SavedLayer]:
    for n, one in enumerate(told, layers.start):
        yield SavedLayer(
            str(one["kind"]),
            _number(one["first"]),
            int(one["checksum"], 16),
            tuple(arrays.get(n, ())),
        )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError(f"{value!r:.40} is no number of ours")
    return value


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _sealed(body: bytes) -> bytes:
    """The header with its right checksum."""
    rest = body[len(_START) + len(_ZEROS) :]
    checksum = zlib.crc32(rest, zlib.crc32(_START + _ZEROS))
    return _START + f"{checksum:08x}".encode() + rest
