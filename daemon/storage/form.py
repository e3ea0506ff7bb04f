"""What the cache of a layer looks like: the measure that a saved layer must fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

POSITIONS = -1  # stands in a shape for the number of positions
ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """One array: its name in the layer ("keys"), safetensors' word for its type, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def at(self, positions: int) -> tuple[int, ...]:
        """The shape with so many positions."""
        return tuple(positions if n == POSITIONS else n for n in self.shape)

    def nbytes(self, positions: int) -> int:
        return prod(self.at(positions)) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class LayerForm:
    """A layer keeps every position, or at least the last `window` - 1 when that is not 0, which is
    all that a new position sees beside itself. `kind` is
    the engine's word for it, which has all that decides how the arrays are to be read.
    """

    kind: str
    arrays: tuple[ArrayForm, ...]
    window: int = 0

    def first_fits(self, first: int, length: int) -> bool:
        """Whether the positions [first, length) are enough to go on from `length`."""
        if first == 0:
            return True
        return 0 < first <= length - (self.window - 1) if self.window else False
