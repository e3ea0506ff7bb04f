"""What placement is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from daemon.layers import LayerRange

BALANCED = 1.1  # how much worse than the best the slowest stage may be for a smaller sum


class Objective(StrEnum):
    LATENCY = "latency"  # least sum of stages and hops: one stream
    THROUGHPUT = "throughput"  # least maximum over stages and links: many streams
    BALANCED = "balanced"  # least sum among those within BALANCED of the best maximum


class PlacementError(ValueError):
    """There is no way to place the layers; the text says what is too small, or what contradicts."""


@dataclass(frozen=True, slots=True)
class Hop:
    """`seconds` until a step's hidden states are there, for `busy` of which the link is taken."""

    seconds: float
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """A node that layers can be placed on.

    `layer_seconds` of a step of one token on each layer of the model, `head_seconds` on norm, head
    and sampling. `memory_bytes` for weights and KV. `pinned`: exactly these layers, whatever it
    costs.
    """

    name: str
    layer_seconds: tuple[float, ...]
    head_seconds: float
    memory_bytes: int
    pinned: LayerRange | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What the model takes in memory, in bytes: each layer with its KV at the configured context,
    what only the first stage has, and what only the last has.
    """

    layers: tuple[int, ...]
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """`between[a][b]`: the hop from host a to host b; `entry` from the coordinator to each, `exit`
    back to it.
    """

    entry: tuple[Hop, ...]
    between: tuple[tuple[Hop, ...], ...]
    exit: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """One stage: which host, by its number; its layers; seconds of a step on them."""

    host: int
    layers: LayerRange
    seconds: float


@dataclass(frozen=True, slots=True)
class Placement:
    """`round_seconds`: one token through all stages and hops; `slowest_seconds`: of the stage or
    link that is busy longest for it.
    """

    seats: tuple[Seat, ...]
    round_seconds: float
    slowest_seconds: float


def totals(seats: Sequence[Seat], network: Network) -> tuple[float, float]:
    """`round_seconds` and `slowest_seconds` of stages in this order."""
    hops = [network.entry[seats[0].host]]
    hops += [network.between[a.host][b.host] for a, b in pairwise(seats)]
    hops.append(network.exit[seats[-1].host])
    whole = sum(seat.seconds for seat in seats) + sum(hop.seconds for hop in hops)
    return whole, max(*(seat.seconds for seat in seats), *(hop.busy for hop in hops))
