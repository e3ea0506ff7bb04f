"""What a stage keeps of one sequence: the caches of its own layers, behind one length."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache, make_prompt_cache

from daemon.engine.errors import CacheError
from daemon.engine.kv import AttentionCache, FullCache, LayerCache, Phantom, WindowCache
from daemon.engine.quantized import QuantizedCache
from daemon.engine.ragged import BatchEntry, BatchStates, PaddedEntry, spans_of
from daemon.engine.states import StateCache
from daemon.footprint import Footprint
from daemon.kv_bits import EXACT
from daemon.layers import LayerRange


class SequenceCache:
    """The caches of a stage's layers for one sequence.

    `entries` is the list that the model's forward is given, one element per layer of the whole
    model. In place of a layer outside the stage stands an own one of the same kind, because models
    take masks from fixed indices. `kv_bits` is what was asked for: layers that cannot be quantised
    are exact all the same. `lowest` is the least length that it was cut to since somebody last set
    it: who copies the caches while they change knows by it how far the copy is right.
    """

    __slots__ = ("entries", "kv_bits", "length", "lowest", "own", "phantoms", "states")

    def __init__(
        self,
        own: Sequence[LayerCache],
        entries: Sequence[Any],
        phantoms: Sequence[Phantom],
        kv_bits: int = EXACT,
    ) -> None:
        self.own = tuple(own)
        self.entries = list(entries)
        self.phantoms = tuple(phantoms)
        self.kv_bits = kv_bits
        self.states = tuple(layer for layer in self.own if isinstance(layer, StateCache))
        self.length = 0
        self.lowest = sys.maxsize

    def begin(self) -> None:
        """The forward is about to append to every own cache."""
        for state in self.states:
            state.begin()

    def advance(self, n: int) -> None:
        """The forward has just appended `n` positions to every own cache."""
        self.length += n
        for state in self.states:
            state.move(n)
        for phantom in self.phantoms:
            phantom.offset = self.length

    def restored(self, length: int) -> None:
        """Every own cache, fresh until now, was given `length` positions."""
        for layer in self.own:
            if layer.offset != length:
                raise CacheError(f"a layer holds {layer.offset} positions, not {length}")
        self.length = length
        for phantom in self.phantoms:
            phantom.offset = length

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
        self._cut(length)
        return length

    def recover(self, length: int) -> bool:
        """A pass that began at `length` broke off: some layers have taken it in, others not. As it
        only appended, they can go back to where it began. False when one cannot, and then nothing
        of this is to be used any more.
        """
        if length and not all(layer.restorable(length) for layer in self.own):
            return False
        self._cut(length)
        return True

    def _cut(self, length: int) -> None:
        for layer in self.own:
            layer.trim_to(length)
        for phantom in self.phantoms:
            phantom.offset = length
        self.length = length
        self.lowest = min(self.lowest, length)

    def fork(self, length: int) -> SequenceCache | None:
        """Another sequence that starts with the first `length` positions of this one; fewer when
        fewer are held, none when a layer can no longer tell what it held there.

        The memory is shared until one side writes: that side copies it then, so that neither ever
        sees what the other wrote. Nothing is computed here.
        """
        length = min(length, self.length)
        if not all(layer.restorable(length) for layer in self.own):
            return None
        forks = {id(layer): layer.fork(length) for layer in self.own}
        phantom = Phantom()
        phantom.offset = length
        entries = [forks.get(id(entry), phantom) for entry in self.entries]
        fork = SequenceCache(
            [forks[id(layer)] for layer in self.own],
            entries,
            [phantom] if self.phantoms else [],
            self.kv_bits,
        )
        fork.length = length
        return fork

    def joined(self, other: Mapping[int, LayerCache], length: int) -> SequenceCache:
        """One of the same layers, of which some are those of `other`, by their place among `own`;
        all of them hold `length` positions. CacheError when one does not.
        """
        own = [other.get(n, layer) for n, layer in enumerate(self.own)]
        places = {id(layer): n for n, layer in enumerate(self.own)}
        entries = [own[places[id(e)]] if id(e) in places else e for e in self.entries]
        joined = SequenceCache(own, entries, self.phantoms, self.kv_bits)
        joined.restored(length)
        return joined

    def arrays(self) -> list[mx.array]:
        """What has to be evaluated after a step."""
        return [array for layer in self.own for array in layer.arrays()]

    def footprint(self) -> Footprint:
        """What it takes by length; known once something was computed."""
        each = [layer.footprint() for layer in self.own]
        return Footprint(sum(f.token_bytes for f in each), sum(f.sequence_bytes for f in each))

    @property
    def reach(self) -> int | None:
        """By how many positions it can always be cut exactly; None when by any number."""
        windows = [layer.slots for layer in self.own if isinstance(layer, WindowCache)]
        return 0 if self.states else min(windows, default=None)

    @property
    def nbytes(self) -> int:
        """Bytes allocated now, room for growth included."""
        return sum(layer.nbytes for layer in self.own)

    @property
    def kind(self) -> str:
        """For people: "3 × full 8-bit, 5 × window 512"."""
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
        kinds = [Kind.of(cache) for cache in make_prompt_cache(model)]
        self._own = kinds[layers.start : layers.end]
        # Per layer of the model: index into the own caches, or None for a kind no own layer has.
        self._sources: list[int | None] = [
            index - layers.start
            if layers.start <= index < layers.end
            else (self._own.index(kind) if kind in self._own else None)
            for index, kind in enumerate(kinds)
        ]

    def new(self, kv_bits: int = EXACT, group_size: int = 0) -> SequenceCache:
        """An empty one; `group_size` elements share a scale where KV is quantised."""
        own = [kind.make(kv_bits, group_size) for kind in self._own]
        phantom = Phantom()
        entries = [phantom if source is None else own[source] for source in self._sources]
        return SequenceCache(own, entries, [phantom] if None in self._sources else [], kv_bits)

    def together(
        self, caches: Sequence[SequenceCache], lengths: Sequence[int], padded: bool
    ) -> list[Any]:
        """`entries` for a forward in which each of `caches` takes in its number of positions."""
        places = [c.length + n for c, new in zip(caches, lengths, strict=True) for n in range(new)]
        offset, spans = mx.array(places, mx.int32), spans_of(lengths)
        own: list[BatchEntry | PaddedEntry | BatchStates] = []
        for layers in zip(*(cache.own for cache in caches), strict=True):
            if isinstance(layers[0], StateCache):
                own.append(BatchStates(layers))
                continue
            attention = cast(Sequence[AttentionCache], layers)  # the other kinds all are
            if padded:
                own.append(PaddedEntry(attention, offset))
            else:
                own.append(BatchEntry(attention, spans, offset))
        phantom = Phantom()
        return [phantom if source is None else own[source] for source in self._sources]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a layer of the model keeps; `size` is the window, or the number of arrays of a state."""

    make_empty: Callable[[int], LayerCache]
    size: int = 0

    @classmethod
    def of(cls, cache: Any) -> Kind:
        """The kind that stands in for one of mlx-lm's; raises CacheError when there is none."""
        if type(cache) is KVCache:
            return cls(_full)
        if type(cache) is RotatingKVCache and cache.keep == 0:
            return cls(WindowCache, int(cache.max_size))
        if type(cache) is ArraysCache:
            return cls(StateCache, len(cache.cache))
        raise CacheError(f"no way is known to trim a {type(cache).__name__}")

    def make(self, kv_bits: int = EXACT, group_size: int = 0) -> LayerCache:
        """Windows and states stay exact: they are bounded."""
        if kv_bits != EXACT and self.make_empty is _full:
            return QuantizedCache(kv_bits, group_size)
        return self.make_empty(self.size)


def _full(_: int) -> LayerCache:
    return FullCache()
