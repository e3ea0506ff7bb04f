"""A layer's cache on its way to another stage, in pieces of some positions.

Caches that only grow (full attention, exact or quantised) are copied while they are in use:
`cut` copies positions out of one, `paste` appends them to another. What is replaced or moves on
(sliding windows, states) goes as a whole when nothing is computed any more: see snapshot.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from daemon.engine.errors import CacheError
from daemon.engine.kv import FullCache, LayerCache
from daemon.engine.quantized import QuantizedCache
from daemon.engine.snapshot import named_arrays, positions, to_array
from daemon.storage.form import POSITIONS, LayerForm
from daemon.storage.manifest import SavedArray


def only_grows(form: LayerForm) -> bool:
    """Whether a cache of this form can be copied in pieces."""
    return not form.window and all(POSITIONS in array.shape for array in form.arrays)


def position_bytes(form: LayerForm) -> int:
    """Of one position of such a cache."""
    return sum(array.nbytes(1) for array in form.arrays)


def cut(layer: LayerCache, start: int, stop: int) -> bytes:
    """A copy of positions [start, stop): its arrays one after another, each head by head."""
    span = slice(start, stop)
    return b"".join(
        part for name, array in named_arrays(layer) for part in positions(name, array, span).parts
    )


def paste(
    layer: LayerCache, form: LayerForm, start: int, stop: int, data: memoryview, room: int
) -> None:
    """Make positions [start, stop) those that were cut; what the cache has from `start` on goes. It
    will have to have room for `room` positions. CacheError when it has not come to `start`, or when
    these are not the bytes of so many positions.
    """
    count = stop - start
    if layer.offset < start or len(data) != count * position_bytes(form):
        raise CacheError(f"{len(data)} bytes for positions [{start}, {stop}) at {layer.offset}")
    layer.trim_to(start)
    arrays: list[mx.array] = []
    at = 0
    for array in form.arrays:
        end = at + array.nbytes(count)
        piece = np.frombuffer(data[at:end], np.uint8).data
        arrays.append(to_array(SavedArray(array.name, array.dtype, array.at(count)), piece))
        at = end
    match layer:
        case FullCache() | QuantizedCache():
            layer.take_in(arrays, room)
        case _:
            raise CacheError(f"a {layer.kind} cache cannot be copied in pieces")
    mx.eval(layer.arrays())
