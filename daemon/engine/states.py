"""State of one recurrent layer for one sequence: a few arrays that every step replaces.

Nothing of such a state can be cut off, so the state at the start of each of the last frames is
kept. That costs no copy: the arrays are replaced, not changed, and only live longer.
"""

from __future__ import annotations

from collections import deque

import mlx.core as mx

from daemon.footprint import Footprint

FRAMES = (
    16  # more than any pipeline has in flight of one sequence; every frame may hold a state alive
)


class StateCache:
    """Follows the protocol of mlx-lm's ArraysCache, for one sequence without padding."""

    __slots__ = ("_frames", "cache", "left_padding", "lengths", "offset")

    def __init__(self, size: int, frames: int = FRAMES) -> None:
        self.cache: list[mx.array | None] = [None] * size
        self.offset = 0
        self.left_padding = None  # mlx-lm's names for what only padded batches have
        self.lengths = None
        self._frames: deque[tuple[int, list[mx.array | None]]] = deque(maxlen=frames)

    def __getitem__(self, index: int) -> mx.array | None:
        return self.cache[index]

    def __setitem__(self, index: int, value: mx.array) -> None:
        self.cache[index] = value

    def advance(self, n: int) -> None:
        """mlx-lm's: moves the padding, of which there is none."""

    def make_mask(self, n: int) -> None:
        """No mask: nothing is padded."""

    def empty(self) -> bool:
        return self.cache[0] is None

    def begin(self) -> None:
        """A step is about to start: remember the state as it is."""
        self._frames.append((self.offset, list(self.cache)))

    def move(self, n: int) -> None:
        """The step has taken in `n` positions."""
        self.offset += n

    def restorable(self, length: int) -> bool:
        return length in (0, self.offset) or any(start == length for start, _ in self._frames)

    def trim_to(self, length: int) -> None:
        """Also of a step that began there and broke off."""
        state: list[mx.array | None] = [None] * len(self.cache)
        if length == self.offset:
            state = self.cache
        while self._frames and self._frames[-1][0] >= length:
            start, held = self._frames.pop()
            if start == length:
                state = held
        self.cache, self.offset = list(state), length

    def fork(self, length: int) -> StateCache:
        """The arrays themselves are shared: a step replaces them, and changes none."""
        fork = StateCache(len(self.cache), self._frames.maxlen or 0)
        fork.cache, fork.offset = list(self.cache), self.offset
        fork._frames.extend((start, list(state)) for start, state in self._frames)
        fork.trim_to(length)
        return fork

    def arrays(self) -> list[mx.array]:
        return [array for array in self.cache if array is not None]

    @property
    def nbytes(self) -> int:
        """With the states kept for trimming, each array counted once."""
        held = [*self.cache, *(array for _, state in self._frames for array in state)]
        return sum({id(array): array.nbytes for array in held if array is not None}.values())

    def footprint(self) -> Footprint:
        """Every frame remembered may hold a state of its own."""
        state = sum(array.nbytes for array in self.arrays())
        return Footprint(0, state * ((self._frames.maxlen or 0) + 1))

    @property
    def kind(self) -> str:
        return "state"

    def check_integrity(self) -> None:
        starts = [start for start, _ in self._frames]
        assert starts == sorted(set(starts)), "state: frames out of order"
        assert not starts or starts[-1] <= self.offset, "state: a frame from the future"
