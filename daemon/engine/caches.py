"""What a stage keeps of one sequence: the caches of its own layers, behind one length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from daemon.engine.errors import CacheError
from daemon.engine.kv import FullCache, LayerCache, Phantom, WindowCache
from daemon.layers import LayerRange


class SequenceCache:
    """The caches of a stage's layers for one sequence.

    `entries` is the list that the model's forward is given, one element per layer of the whole
    model. In place of a layer outside the stage stands an own one of the same kind, because models
    take masks from fixed indices.
    """

    __slots__ = ("entries", "length", "own", "phantoms")

    def __init__(
        self, own: Sequence[LayerCache], entries: Sequence[Any], phantoms: Sequence[Phantom]
    ) -> None:
        self.own = tuple(own)
        self.entries = list(entries)
        self.phantoms = tuple(phantoms)
        self.length = 0

    def advance(self, n: int) -> None:
        """The forward has just appended `n` positions to every own cache."""
        self.length += n
        for phantom in self.phantoms:
            phantom.offset = self.length

    def trim(self, length: int) -> int:
        """Forget the positions from `length` on; returns the position from which work must go on.

        That is `length` when every layer can be restored exactly, which is promised for up to
        TRIM_SLOTS positions back and is always so without sliding windows; 0 when not, and then
        nothing is held any more. With less than `length` held nothing changes, and what is held is
        returned.
        """
        if length < 0:
            raise CacheError(f"cannot trim a sequence to position {length}")
        if length >= self.length:
            return self.length
        if not all(layer.restorable(length) for layer in self.own):
            length = 0
        for layer in self.own:
            layer.trim_to(length)
        for phantom in self.phantoms:
            phantom.offset = length
        self.length = length
        return length

    def arrays(self) -> list[mx.array]:
        """What has to be evaluated after a step."""
        return [array for layer in self.own for array in layer.arrays()]

    @property
    def nbytes(self) -> int:
        """Bytes allocated now, room for growth included."""
        return sum(layer.nbytes for layer in self.own)

    @property
    def kind(self) -> str:
        """For people: "3 × full, 5 × window 512"."""
        kinds = Counter(layer.kind for layer in self.own)
        return ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))

    def check_integrity(self) -> None:
        for layer in self.own:
            layer.check_integrity()
            assert layer.offset == self.length, "cache: a layer holds another length"
        for phantom in self.phantoms:
            assert phantom.offset == self.length, "cache: a phantom holds another length"


class CachePlan:
    """How to make the SequenceCache of a stage; worked out once per stage."""

    def __init__(self, model: Module, layers: LayerRange) -> None:
        """Raises CacheError for a kind of cache that this engine cannot trim."""
        wanted = [_recipe(cache) for cache in make_prompt_cache(model)]
        self._own = wanted[layers.start : layers.end]
        first_of: dict[int | None, int] = {}
        for index, window in enumerate(self._own):
            first_of.setdefault(window, index)
        # Per layer of the model: index into the own caches, or None for a kind that no own layer
        # has.
        self._sources: list[int | None] = [
            index - layers.start if layers.start <= index < layers.end else first_of.get(window)
            for index, window in enumerate(wanted)
        ]

    def new(self) -> SequenceCache:
        own = [FullCache() if window is None else WindowCache(window) for window in self._own]
        phantom = Phantom()
        entries = [phantom if source is None else own[source] for source in self._sources]
        return SequenceCache(own, entries, [phantom] if None in self._sources else [])


def _recipe(cache: Any) -> int | None:
    """The window of a layer's cache; None for one that holds every position."""
    if type(cache) is KVCache:
        return None
    if type(cache) is RotatingKVCache and cache.keep == 0:
        return int(cache.max_size)
    raise CacheError(f"no way is known to trim a {type(cache).__name__}")
