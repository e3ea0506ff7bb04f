"""Keys and values of one full-attention layer for one sequence, in 8 or 4 bits.

A new position is quantised before anything attends to it. What the cache holds, and what a position
sees of those before it, therefore does not depend on how the tokens were cut into steps: a replay
gives the same. (mlx-lm's own generation lets the first chunk of a prompt see exact keys.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from daemon.engine.errors import CacheError
from daemon.engine.kv import full_mask, grown, next_phase, resized
from daemon.footprint import Footprint

Packed = tuple[mx.array, mx.array, mx.array]


class QuantizedCache:
    """Every position; any trim is exact. Follows the protocol of mlx-lm's QuantizedKVCache: its
    attention takes the path for quantised keys when a cache has `bits`.

    `keys` and `values` are (packed elements, scales, biases), [1, heads, capacity, ...] each.
    """

    __slots__ = ("_phase", "bits", "group_size", "keys", "offset", "values")

    def __init__(self, bits: int, group_size: int) -> None:
        self.bits = bits
        self.group_size = group_size
        self._phase = next_phase()
        self.keys: Packed | None = None
        self.values: Packed | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Packed, Packed]:
        """Append [1, heads, n, size] each; the sizes may differ. Returns all positions held.

        Raises CacheError, with nothing changed, for a size that the group does not divide.
        """
        return self._append(self._packed(keys), self._packed(values))

    def take_in(self, parts: Sequence[mx.array], room: int) -> None:
        """Append positions that another such cache has: three arrays of its keys, then three of its
        values. An empty one makes room for so many positions, and for those that they grow by, at
        once.
        """
        elements, scales, biases, *values = parts
        self._append((elements, scales, biases), (values[0], values[1], values[2]), room)

    def _append(self, keys: Packed, values: Packed, room: int = 0) -> tuple[Packed, Packed]:
        start, end = self.offset, self.offset + keys[0].shape[2]
        if self.keys is None or self.values is None or end > self.keys[0].shape[2]:
            capacity = grown(max(start, room), end, self._phase)
            self.keys = _resized(self.keys, keys, start, capacity)
            self.values = _resized(self.values, values, start, capacity)
        self.offset = end
        return _appended(self.keys, keys, start), _appended(self.values, values, start)

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Any:
        return full_mask(n, self.offset, window_size, return_array)

    def restorable(self, length: int) -> bool:
        return True

    def trim_to(self, length: int) -> None:
        self.offset = length
        if length == 0:
            self.keys = self.values = None

    def fork(self, length: int) -> QuantizedCache:
        fork = QuantizedCache(self.bits, self.group_size)
        if self.keys is not None and self.values is not None and length:
            fork.keys, fork.values = _shared(self.keys, length), _shared(self.values, length)
        fork.offset = length
        return fork

    def arrays(self) -> list[mx.array]:
        return [*(self.keys or ()), *(self.values or ())]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def footprint(self) -> Footprint:
        slots = self.keys[0].shape[2] if self.keys is not None else 1
        return Footprint(self.nbytes // slots, 0)

    @property
    def kind(self) -> str:
        return f"full {self.bits}-bit"

    def empty(self) -> bool:
        return self.keys is None

    def check_integrity(self) -> None:
        assert self.keys is not None or self.offset == 0, "cache: positions without keys"
        for held in self.arrays():
            assert held.shape[2] >= self.offset, "cache: fewer slots than positions"

    def _packed(self, new: mx.array) -> Packed:
        size = new.shape[-1]
        if size % self.group_size:
            raise CacheError(
                f"a head size of {size} cannot be quantised in groups of {self.group_size}"
            )
        packed, scales, biases = mx.quantize(new, self.group_size, self.bits)
        return packed, scales, biases


def _resized(old: Packed | None, new: Packed, used: int, capacity: int) -> Packed:
    befores = old or (None, None, None)
    packed, scales, biases = (
        resized(before, like, used, capacity) for before, like in zip(befores, new, strict=True)
    )
    return packed, scales, biases


def _shared(held: Packed, used: int) -> Packed:
    packed, scales, biases = (array[..., :used, :] for array in held)
    return packed, scales, biases


def _appended(buffers: Packed, new: Packed, start: int) -> Packed:
    """Write `new` from position `start` on; what is then held."""
    end = start + new[0].shape[2]
    for buffer, part in zip(buffers, new, strict=True):
        buffer[..., start:end, :] = part
    packed, scales, biases = (buffer[..., :end, :] for buffer in buffers)
    return packed, scales, biases
