"""Several sequences in one forward, each with caches of its own.

Every position of the batch is a row of its own in the model's forward ([positions, 1,
hidden_size]), so that the dense layers see one matrix, whatever sequence a position belongs to.
Only the caches and the attention know the sequences: where the forward expects the cache of a layer
it is given a `BatchEntry`, which keeps each sequence's keys in that sequence's own cache and hands
out `Ragged` ones, and `engine.attention` attends to those sequence by sequence. So nothing is
padded or copied when sequences of different lengths come together, join, leave or are trimmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx

from daemon.engine.kv import AttentionCache, FullCache
from daemon.engine.states import StateCache


def to_sequence(positions: mx.array) -> mx.array:
    """One sequence's positions, [length, heads, 1, size], as [1, heads, length, size]."""
    return positions if positions.shape[0] == 1 else positions.transpose(2, 1, 0, 3)


def to_positions(sequence: mx.array) -> mx.array:
    """The way back."""
    return sequence if sequence.shape[2] == 1 else sequence.transpose(2, 1, 0, 3)


def spans_of(lengths: Sequence[int]) -> tuple[slice, ...]:
    """Which positions of the batch are each sequence's."""
    return tuple(
        slice(end - length, end) for end, length in zip(accumulate(lengths), lengths, strict=True)
    )


class Ragged:
    """One value per sequence where the forward expects one array: keys, values, masks. A model that
    does more with them than hand them to its attention raises, and is given a PaddedEntry.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)


class BatchEntry:
    """Stands where the forward expects the cache of one attention layer. `spans` are each
    sequence's new positions in the batch, `offset` the place of each position in its sequence.
    """

    __slots__ = ("caches", "offset", "spans")

    def __init__(
        self, caches: Sequence[AttentionCache], spans: Sequence[slice], offset: mx.array
    ) -> None:
        self.caches = caches
        self.spans = spans
        self.offset = offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Ragged, Ragged]:
        held = [
            cache.update_and_fetch(to_sequence(keys[span]), to_sequence(values[span]))
            for cache, span in zip(self.caches, self.spans, strict=True)
        ]
        return Ragged([keys for keys, _ in held]), Ragged([values for _, values in held])

    def make_mask(
        self, n: int, window_size: int | None = None, return_array: bool = False
    ) -> Ragged | None:
        """None when every sequence sees all that it is given, as it does at a single position."""
        masks = [
            cache.make_mask(span.stop - span.start, window_size, return_array)
            for cache, span in zip(self.caches, self.spans, strict=True)
        ]
        return None if all(mask is None for mask in masks) else Ragged(masks)


class PaddedEntry:
    """For a model that computes with its keys itself (the latent ones of deepseek_v3): those of all
    sequences below each other, filled up to the longest. Each sequence takes in one position.

    They are copied at every step, which is little: latent keys are small beside the weights.
    """

    __slots__ = ("caches", "offset")

    def __init__(self, caches: Sequence[AttentionCache], offset: mx.array) -> None:
        """Raises TypeError for caches that do not show every position they hold."""
        if not all(isinstance(cache, FullCache) for cache in caches):
            raise TypeError("only full caches can be padded")
        self.caches = caches
        self.offset = offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        held = [
            cache.update_and_fetch(keys[row : row + 1], values[row : row + 1])
            for row, cache in enumerate(self.caches)
        ]
        return _padded([keys for keys, _ in held]), _padded([values for _, values in held])

    def make_mask(
        self, n: int, window_size: int | None = None, return_array: bool = False
    ) -> mx.array:
        if window_size is not None:
            raise TypeError("a window over padded keys")
        longest = max(cache.offset for cache in self.caches) + 1
        return (mx.arange(longest) <= self.offset[:, None])[:, None, None]


def _padded(parts: Sequence[mx.array]) -> mx.array:
    longest = max(part.shape[2] for part in parts)
    widths = [(0, 0), (0, 0), (0, 0), (0, 0)]
    filled = []
    for part in parts:
        widths[2] = (0, longest - part.shape[2])
        filled.append(mx.pad(part, widths) if widths[2][1] else part)
    return mx.concatenate(filled, axis=0)


class BatchStates:
    """Stands where the forward expects the state of one recurrent layer: those of the sequences,
    one below the other. Each of them takes in one position.
    """

    __slots__ = ("caches", "left_padding", "lengths")

    def __init__(self, caches: Sequence[StateCache]) -> None:
        self.caches = caches
        self.left_padding = None  # mlx-lm's names for what only padded batches have
        self.lengths = None

    def __getitem__(self, index: int) -> mx.array | None:
        held = [array for cache in self.caches if (array := cache[index]) is not None]
        return mx.concatenate(held, axis=0) if held else None

    def __setitem__(self, index: int, value: mx.array) -> None:
        for row, cache in enumerate(self.caches):
            cache[index] = value[row : row + 1]

    def advance(self, n: int) -> None:
        """mlx-lm's: moves the padding, of which there is none."""

    def make_mask(self, n: int) -> None:
        """No mask: nothing is padded."""
