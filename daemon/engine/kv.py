"""Caches of one layer for one sequence. They follow mlx-lm's cache protocol and can be trimmed to
an exact position.

Both kinds hold keys and values in the order of positions, so that decoding one token needs no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

from daemon.footprint import GROWTH, Footprint, step

PHASES = 16
TRIM_SLOTS = 64  # R: the most positions one sequence may have in flight


class LayerCache(Protocol):
    """What a SequenceCache asks of the cache of one layer."""

    offset: int

    def restorable(self, length: int) -> bool:
        """Whether `trim_to(length)` would be exact; `length` is at most `offset`."""

    def trim_to(self, length: int) -> None:
        """Forget the positions from `length` on."""

    def fork(self, length: int) -> LayerCache:
        """Another cache that holds the positions before `length`, which must be restorable; see
        SequenceCache.fork.
        """

    def arrays(self) -> list[mx.array]:
        """What must be evaluated after an update."""

    def footprint(self) -> Footprint:
        """What it takes by length; known once something was appended."""

    @property
    def nbytes(self) -> int: ...

    @property
    def kind(self) -> str: ...

    def check_integrity(self) -> None: ...


class AttentionCache(LayerCache, Protocol):
    """And what a model's attention asks of it: mlx-lm's protocol."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Append [1, heads, n, size], and return all that the new positions may see."""

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Any:
        """What each of the next n positions sees of that; None for everything."""


_phases = count()


def next_phase() -> int:
    """Of a new cache: caches of the same length are to grow at different positions, or one step in
    which all layers of all sequences are copied would take several times as long as the others.
    """
    return next(_phases) % PHASES


def grown(held: int, needed: int, phase: int) -> int:
    """Capacity for `needed` positions, of a cache that is too small with `held`: a sixteenth to an
    eighth more, so that copying stays a small, bounded share.
    """
    more = step(held)
    return max(needed, held + more) + more * phase // PHASES


def resized(old: mx.array | None, new: mx.array, used: int, capacity: int) -> mx.array:
    """A buffer of `capacity` positions that starts with the first `used` of `old`; type and heads
    are `new`'s.
    """
    batch, heads, _, size = new.shape
    if old is None or used == 0:
        return mx.zeros((batch, heads, capacity, size), new.dtype)
    rest = mx.zeros((batch, heads, capacity - used, size), new.dtype)
    return mx.concatenate([old[..., :used, :], rest], axis=2)


def full_mask(n: int, offset: int, window_size: int | None, return_array: bool) -> Any:
    """mlx-lm's mask for `n` new positions after `offset` that are all held: None, "causal" or an
    array.
    """
    if window_size is not None:
        return create_causal_mask(n, offset, window_size=window_size)
    if n == 1:
        return None
    return create_causal_mask(n, offset) if return_array else "causal"


def shared(held: mx.array | None, used: int) -> mx.array | None:
    """The first `used` positions in the same memory, without room for more: what is appended makes
    a buffer of its own.
    """
    return None if held is None or used == 0 else held[..., :used, :]


class FullCache:
    """Every position; any trim is exact."""

    __slots__ = ("_phase", "keys", "offset", "values")

    def __init__(self) -> None:
        self._phase = next_phase()
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        start = self.offset
        end = self.offset = start + keys.shape[2]
        if self.keys is None or self.values is None or end > self.keys.shape[2]:
            capacity = grown(start, end, self._phase)
            self.keys = resized(self.keys, keys, start, capacity)
            self.values = resized(self.values, values, start, capacity)
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    def take_in(self, parts: Sequence[mx.array], room: int) -> None:
        """Append positions that another such cache has: its keys and values. An empty one makes
        room for so many positions, and for those that they grow by, at once.
        """
        keys, values = parts
        if self.keys is None:
            capacity = grown(room, room, self._phase)
            self.keys = resized(None, keys, 0, capacity)
            self.values = resized(None, values, 0, capacity)
        self.update_and_fetch(keys, values)

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Any:
        return full_mask(n, self.offset, window_size, return_array)

    def restorable(self, length: int) -> bool:
        return True

    def trim_to(self, length: int) -> None:
        self.offset = length
        if length == 0:
            self.keys = self.values = None

    def fork(self, length: int) -> FullCache:
        fork = FullCache()
        fork.keys, fork.values = shared(self.keys, length), shared(self.values, length)
        fork.offset = length
        return fork

    def arrays(self) -> list[mx.array]:
        return [a for a in (self.keys, self.values) if a is not None]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays())

    def footprint(self) -> Footprint:
        return Footprint(self.nbytes // (1 if self.keys is None else self.keys.shape[2]), 0)

    @property
    def kind(self) -> str:
        return "full"

    def empty(self) -> bool:
        return self.keys is None

    def check_integrity(self) -> None:
        assert self.keys is not None or self.offset == 0, "cache: positions without keys"
        for held in self.arrays():
            assert held.shape[2] >= self.offset, "cache: fewer slots than positions"


class WindowCache:
    """The last `window` positions and `slots` more, so that trims of up to `slots` positions are
    exact.

    Positions [first, offset) lie at the front of the buffer. When it is full the oldest are
    dropped, an eighth of a window at a time or more, so that the cost of moving the rest is small
    against reading the window at every token.
    """

    __slots__ = ("_phase", "_room", "first", "keys", "offset", "slots", "values", "window")

    def __init__(self, window: int, slots: int = TRIM_SLOTS) -> None:
        self.window = window
        self.slots = slots
        self._phase = next_phase()
        step = max(GROWTH, window // 8)
        self._room = window + slots + step + step * self._phase // PHASES
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0
        self.first = 0

    @property
    def max_size(self) -> int:
        """mlx-lm's name for the window."""
        return self.window

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        n = keys.shape[2]
        used = self.offset - self.first
        context = min(self.offset, self.window - 1)  # older positions that the first new one sees
        self.offset += n
        if used + n <= self._room:
            if self.keys is None or self.values is None or used + n > self.keys.shape[2]:
                capacity = min(self._room, grown(used, used + n, self._phase))
                self.keys = resized(self.keys, keys, used, capacity)
                self.values = resized(self.values, values, used, capacity)
            self.keys[..., used : used + n, :] = keys
            self.values[..., used : used + n, :] = values
            seen = slice(used - context, used + n)
            return self.keys[..., seen, :], self.values[..., seen, :]
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys[..., :used, :], keys], axis=2)
            values = mx.concatenate([self.values[..., :used, :], values], axis=2)
        kept = min(self.window + self.slots, used + n)
        self.first = self.offset - kept
        self.keys = resized(keys[..., -kept:, :], keys, kept, self._room)
        self.values = resized(values[..., -kept:, :], values, kept, self._room)
        return keys[..., used - context :, :], values[..., used - context :, :]

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Any:
        width = window_size or self.window
        context = min(self.offset, self.window - 1)
        if n == 1:
            if context + 1 <= width:
                return None
            return mx.arange(context + 1) >= context + 1 - width
        if context + n > width or return_array:
            return create_causal_mask(n, context, window_size=width)
        return "causal"

    def restorable(self, length: int) -> bool:
        return self.first == 0 or length - (self.window - 1) >= self.first

    def trim_to(self, length: int) -> None:
        self.offset = length
        if length == 0:
            self.keys = self.values = None
            self.first = 0

    def fork(self, length: int) -> WindowCache:
        fork = WindowCache(self.window, self.slots)
        used = length - self.first
        fork.keys, fork.values = shared(self.keys, used), shared(self.values, used)
        fork.offset, fork.first = length, self.first
        return fork

    def arrays(self) -> list[mx.array]:
        return [a for a in (self.keys, self.values) if a is not None]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays())

    def footprint(self) -> Footprint:
        """Of the cache with the most room, whatever its length."""
        slots = 1 if self.keys is None else self.keys.shape[2]
        step = max(GROWTH, self.window // 8)
        return Footprint(0, self.nbytes // slots * (self.window + self.slots + 2 * step))

    @property
    def kind(self) -> str:
        return f"window {self.window}"

    def empty(self) -> bool:
        return self.keys is None

    def check_integrity(self) -> None:
        assert 0 <= self.first <= self.offset, "window: first position after the last"
        assert self.first == 0 or self.offset - self.first >= min(self.window - 1, self.offset), (
            "window: fewer positions than it must see"
        )
        for held in self.arrays():
            assert self.offset - self.first <= held.shape[2], "window: fewer slots than positions"


class Phantom:
    """Stands where a kind of cache is expected that no layer of this stage has; only tells the
    position.
    """

    __slots__ = ("offset",)

    def __init__(self) -> None:
        self.offset = 0

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> None:
        """No mask: the layers that would look at it do not run here."""
