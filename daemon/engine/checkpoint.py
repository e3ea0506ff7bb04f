"""The tensors of a model folder, from the headers of its safetensors files. No MLX, no weights
read.

A safetensors file is: 8 bytes little-endian length n, n bytes of JSON {name: {dtype, shape,
data_offsets}}, data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from daemon.engine.errors import MissingWeights, TruncatedWeights, UnreadableCheckpoint

INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_AGAIN = "copy or download the model again"
_ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: where its bytes lie, and what they are."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def layer(self) -> int | None:
        """The first number in the name's path, which in mlx-lm's models is the layer; None outside
        the layers.
        """
        found = _NUMBER.search(self.name)
        return int(found.group(1)) if found else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises UnreadableCheckpoint."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, "no such file", "check the model's folder") from error
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise UnreadableCheckpoint(path, reason, "check the file's owner and rights") from error
    except ValueError as error:
        raise UnreadableCheckpoint(path, "is not JSON", _AGAIN) from error
    if not isinstance(value, dict):
        raise UnreadableCheckpoint(path, "is not a JSON object", _AGAIN)
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model, sorted; with an index, exactly those it
    names.
    """
    if (folder / INDEX).exists():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(f, str) for f in named.values()):
            raise UnreadableCheckpoint(folder / INDEX, "has no weight_map", _AGAIN)
        files = sorted({folder / name for name in named.values()})
        for file in files:
            if file.parent != folder:
                raise UnreadableCheckpoint(folder / INDEX, f"names {file.name} elsewhere", _AGAIN)
            if not file.is_file():
                raise UnreadableCheckpoint(file, "named by the index but absent", _AGAIN)
        return files
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UnreadableCheckpoint(
            folder, "holds no model*.safetensors", "give the folder of a model in safetensors form"
        )
    return files


def read_header_bytes(file: Path) -> bytes:
    """The JSON header as it stands in the file; raises TruncatedWeights or UnreadableCheckpoint."""
    try:
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8:
                raise TruncatedWeights(file, f"only {len(prefix)} bytes long", _AGAIN)
            if length > _MAX_HEADER_BYTES:
                raise UnreadableCheckpoint(file, "is not a safetensors file", _AGAIN)
            header = stream.read(length)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise UnreadableCheckpoint(file, reason, "check the file's owner and rights") from error
    if len(header) < length:
        raise TruncatedWeights(file, "ends inside its header", _AGAIN)
    return header


def read_header(file: Path) -> list[TensorEntry]:
    """The tensors of one file, each checked against its own shape and the file's size."""
    header = read_header_bytes(file)
    try:
        described = json.loads(header)
        entries = [
            _entry(name, file, facts) for name, facts in described.items() if name != "__metadata__"
        ]
        data_bytes = max((int(f["data_offsets"][1]) for n, f in described.items()
                          if n != "__metadata__"), default=0)  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableCheckpoint(file, f"has a damaged header ({error})", _AGAIN) from error
    missing = 8 + len(header) + data_bytes - file.stat().st_size
    if missing > 0:
        raise TruncatedWeights(file, f"is {missing} bytes shorter than its header says", _AGAIN)
    return entries


def _entry(name: str, file: Path, facts: Mapping[str, Any]) -> TensorEntry:
    shape = tuple(int(n) for n in facts["shape"])
    start, end = facts["data_offsets"]
    nbytes = prod(shape) * _ITEM_BITS[facts["dtype"]] // 8
    if start < 0 or end - start != nbytes or any(n < 0 for n in shape):
        raise ValueError(f"{name}: {end - start} bytes for shape {list(shape)}")
    return TensorEntry(name, file, facts["dtype"], shape, nbytes)


def read_catalog(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of the model by name. Reads headers only; raises a LoadError for a damaged
    folder.
    """
    catalog: dict[str, TensorEntry] = {}
    for file in weight_files(folder):
        for entry in read_header(file):
            if entry.name in catalog:
                other = catalog[entry.name].file.name
                raise UnreadableCheckpoint(
                    file, f"{entry.name} is also in {other}", "remove the file that does not belong"
                )
            catalog[entry.name] = entry
    if (folder / INDEX).exists():
        absent = sorted(set(read_json(folder / INDEX)["weight_map"]) - set(catalog))
        if absent:
            raise MissingWeights(
                folder / INDEX, f"{absent[0]} and {len(absent) - 1} more are in no file", _AGAIN
            )
    return catalog
