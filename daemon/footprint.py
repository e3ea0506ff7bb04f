"""What the caches of a sequence take on one stage, and what it has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GROWTH = 64  # least number of positions that a cache grows by
SHARE = 16  # or this part of what it holds, if that is more


def step(held: int) -> int:
    """Positions that a cache which is too small with `held` grows by, once to twice."""
    return max(GROWTH, held // SHARE)


def room_for(tokens: int) -> int:
    """The most positions that the caches of a sequence of so many tokens have room for, however it
    grew.
    """
    return tokens + 2 * step(tokens)


@dataclass(frozen=True, slots=True)
class Footprint:
    """`token_bytes` for every position there is room for, `sequence_bytes` whatever the length:
    windows and states.
    """

    token_bytes: int
    sequence_bytes: int

    def bytes_for(self, tokens: int) -> int:
        """The most that a sequence of so many tokens takes."""
        return self.sequence_bytes + self.token_bytes * room_for(tokens)


@dataclass(frozen=True, slots=True)
class StageMemory:
    """What a stage has for KV. `footprints` by bits of the KV, exact KV (0) among them; `reach` is
    by how many tokens its caches can always be cut exactly, None when by any number.
    """

    budget_bytes: int
    footprints: Mapping[int, Footprint]
    reach: int | None = None

    def footprint(self, kv_bits: int) -> Footprint:
        """Bits that the stage does not name count as exact: fewer never take more."""
        return self.footprints.get(kv_bits, self.footprints[0])

    def bytes_for(self, kv_bits: int, tokens: int) -> int:
        return self.footprint(kv_bits).bytes_for(tokens)
