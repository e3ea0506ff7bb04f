"""Small saved KV without a model."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.layers import LayerRange
from daemon.storage.content import ArrayParts, LayerBytes, LayerParts, read_layer, read_manifest
from daemon.storage.folder import KvFolder, LocalFile
from daemon.storage.form import POSITIONS, ArrayForm, LayerForm
from daemon.storage.manifest import Identity, SavedArray

DIGEST = "ab" * 32
TOKENS = tuple(range(40, 60))
LAYERS = LayerRange(2, 5)
HEADS, SIZE = 2, 8
FULL = LayerForm(
    "full",
    (
        ArrayForm("keys", "F16", (1, HEADS, POSITIONS, SIZE)),
        ArrayForm("values", "F16", (1, HEADS, POSITIONS, SIZE)),
    ),
)

T = TypeVar("T")


def run(steps: Generator[None, None, T]) -> T:
    """All steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def identity(tokens: tuple[int, ...] = TOKENS, digest: str = DIGEST, kv_bits: int = 0) -> Identity:
    return Identity(digest, Fidelity(kv_bits), len(tokens), History(tokens).hash_at(len(tokens)))


def layer_bytes(layer: int, form: LayerForm = FULL, positions: int = len(TOKENS)) -> list[bytes]:
    """Of each array; the same for the same layer."""
    draw = random.Random(layer)
    return [draw.randbytes(array.nbytes(positions)) for array in form.arrays]


def parts(layers: LayerRange = LAYERS, positions: int = len(TOKENS)) -> list[LayerParts]:
    """Each head a piece of its own."""
    made = []
    for layer in range(layers.start, layers.end):
        arrays = []
        for form, data in zip(FULL.arrays, layer_bytes(layer, FULL, positions), strict=True):
            piece = len(data) // HEADS
            pieces = [memoryview(data)[n * piece : (n + 1) * piece] for n in range(HEADS)]
            saved = SavedArray(form.name, form.dtype, form.at(positions))
            arrays.append(ArrayParts(saved, tuple(pieces)))
        made.append(LayerParts("full", 0, tuple(arrays)))
    return made


def save(folder: KvFolder, tokens: tuple[int, ...] = TOKENS, layers: LayerRange = LAYERS) -> Path:
    run(folder.save(identity(tokens), layers, tokens, parts(layers, len(tokens))))
    return folder.path(identity(tokens), layers)


def read(path: Path, layer: int, form: LayerForm = FULL) -> LayerBytes:
    file = LocalFile(path)
    try:
        manifest = run(read_manifest(file))
        return run(read_layer(file, manifest, layer, form))
    finally:
        file.close()
