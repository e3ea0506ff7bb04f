"""A sequence's caches as bytes, and back: what saved KV is made of.

`take` copies nothing. It hands out views of the buffers that the caches hold now. MLX replaces an
array that somebody else still looks at instead of changing it, so the caches may go on meanwhile:
their next step copies each buffer once. `put` gives a fresh cache the arrays that were taken, bit
for bit, so that everything after it is as if the cache had never been away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import mlx.core as mx
import numpy as np

from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.kv import FullCache, LayerCache, WindowCache
from daemon.engine.quantized import QuantizedCache
from daemon.engine.states import StateCache
from daemon.storage.content import ArrayParts, LayerBytes, LayerParts
from daemon.storage.form import POSITIONS, ArrayForm, LayerForm
from daemon.storage.manifest import SavedArray

_TO_FILE = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint8: "U8",
}
_FROM_FILE = {word: dtype for dtype, word in _TO_FILE.items()}
_PACKED = ("elements", "scales", "biases")
_AXIS = 2  # of the positions, in [1, heads, positions, ...]


def take(cache: SequenceCache, length: int) -> list[LayerParts]:
    """Views of the first `length` positions, layer by layer. Valid as long as they are held, in any
    thread. CacheError when a layer cannot be cut there.
    """
    if not 0 < length <= cache.length:
        raise CacheError(f"{length} positions are wanted, {cache.length} are held")
    for layer in cache.own:
        if not layer.restorable(length):
            raise CacheError(f"a {layer.kind} cache cannot be cut at position {length}")
    mx.eval(cache.arrays())
    return [take_layer(layer, length) for layer in cache.own]


def put(layer: LayerCache, saved: LayerBytes, length: int) -> None:
    """Make a fresh cache what it was at `length` when it was taken. The bytes are copied."""
    arrays = {array.name: to_array(array, data) for array, data in saved.arrays}
    mx.eval(list(arrays.values()))
    match layer:
        case FullCache() | WindowCache():
            layer.keys, layer.values = arrays["keys"], arrays["values"]
            if isinstance(layer, WindowCache):
                layer.first = saved.first
        case QuantizedCache():
            layer.keys, layer.values = _packed(arrays, "keys"), _packed(arrays, "values")
        case StateCache():
            layer.cache = [arrays.get(str(n)) for n in range(len(layer.cache))]
        case _:
            raise CacheError(f"no way is known to restore a {layer.kind} cache")
    layer.offset = length


def forms(cache: SequenceCache) -> tuple[LayerForm, ...]:
    """What saved layers must look like to fit, from a cache that has taken something in. Nothing is
    evaluated.
    """
    return tuple(_form(layer) for layer in cache.own)


def _form(layer: LayerCache) -> LayerForm:
    arrays = []
    for name, array in named_arrays(layer):
        shape = list(array.shape)
        if not isinstance(layer, StateCache):
            shape[_AXIS] = POSITIONS
        arrays.append(ArrayForm(name, _TO_FILE[array.dtype], tuple(shape)))
    window = layer.window if isinstance(layer, WindowCache) else 0
    return LayerForm(layer.kind, tuple(arrays), window)


def take_layer(layer: LayerCache, length: int) -> LayerParts:
    """The same of one layer, whose arrays are evaluated and which can be cut there."""
    if isinstance(layer, StateCache):
        if length != layer.offset:
            raise CacheError(f"a state is of position {layer.offset}, not of {length}")
        whole = (_whole(name, array) for name, array in named_arrays(layer))
        return LayerParts(layer.kind, 0, tuple(whole))
    first = held_from = 0
    if isinstance(layer, WindowCache):
        held_from = layer.first
        first = max(held_from, length - layer.window - layer.slots)
    span = slice(first - held_from, length - held_from)
    cut = (positions(name, array, span) for name, array in named_arrays(layer))
    return LayerParts(layer.kind, first, tuple(cut))


def named_arrays(layer: LayerCache) -> Iterable[tuple[str, mx.array]]:
    """The arrays of a layer with their names in a file, in a fixed order."""
    match layer:
        case FullCache() | WindowCache():
            if layer.keys is not None and layer.values is not None:
                yield from (("keys", layer.keys), ("values", layer.values))
        case QuantizedCache():
            for side, packed in (("keys", layer.keys), ("values", layer.values)):
                if packed is not None:
                    names = (f"{side}.{part}" for part in _PACKED)
                    yield from zip(names, packed, strict=True)
        case StateCache():
            for n, array in enumerate(layer.cache):
                if array is not None:
                    yield str(n), array
        case _:
            raise CacheError(f"no way is known to save a {layer.kind} cache")


def _packed(arrays: Mapping[str, mx.array], side: str) -> tuple[mx.array, mx.array, mx.array]:
    elements, scales, biases = (arrays[f"{side}.{part}"] for part in _PACKED)
    return elements, scales, biases


def positions(name: str, array: mx.array, span: slice) -> ArrayParts:
    """Views of these positions: heads lie one after another, each with room for more positions
    behind those in use.
    """
    heads = _bytes_of(array)[0, :, span]
    shape = (*array.shape[:_AXIS], span.stop - span.start, *array.shape[_AXIS + 1 :])
    parts = tuple(_memory(head) for head in heads)
    return ArrayParts(SavedArray(name, _TO_FILE[array.dtype], shape), parts)


def _whole(name: str, array: mx.array) -> ArrayParts:
    saved = SavedArray(name, _TO_FILE[array.dtype], array.shape)
    return ArrayParts(saved, (_memory(_bytes_of(array)),))


def _bytes_of(array: mx.array) -> np.ndarray:
    """The array's own memory, its last axis as bytes."""
    return np.asarray(memoryview(array.view(mx.uint8)))  # type: ignore[arg-type]  # a buffer


def _memory(part: np.ndarray) -> memoryview:
    return memoryview(part.reshape(-1))  # type: ignore[arg-type]  # it has the buffer protocol


def to_array(array: SavedArray, data: memoryview) -> mx.array:
    raw = mx.array(np.frombuffer(data, np.uint8))
    return raw.view(_FROM_FILE[array.dtype]).reshape(array.shape)
