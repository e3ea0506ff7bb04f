"""The layout that placement proposes, and what any promises, from what is known of the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any

from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.placement.estimate import Measured, hosts_of, left_out, load_of, network_of
from daemon.cluster.placement.problem import (
    Hop,
    Host,
    Load,
    Network,
    Objective,
    Placement,
    PlacementError,
    Seat,
    totals,
)
from daemon.cluster.placement.search import place
from daemon.cluster.placement.wishes import Wishes
from daemon.layers import LayerRange

LEAST_GAIN = 0.01  # less than that is noise, for which nothing is moved


@dataclass(frozen=True, slots=True)
class Promise:
    """Seconds of one token through all stages and hops, and of what is busy longest for it."""

    round_seconds: float
    slowest_seconds: float

    def seconds(self, objective: Objective) -> float:
        """What the objective wants little of: for BALANCED the geometric mean of both, so that so
        many per cent of either weigh the same.
        """
        match objective:
            case Objective.LATENCY:
                return self.round_seconds
            case Objective.THROUGHPUT:
                return self.slowest_seconds
            case Objective.BALANCED:
                return sqrt(self.round_seconds * self.slowest_seconds)

    def to_wire(self) -> dict[str, float | None]:
        return {
            "round_seconds": self.round_seconds,
            "slowest_seconds": self.slowest_seconds,
            "tokens_per_second": 1 / self.round_seconds if self.round_seconds else None,
            "tokens_per_second_full": 1 / self.slowest_seconds if self.slowest_seconds else None,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What is known when a layout is asked for. `kv_bytes` of each layer at `context` tokens.
    `candidates` are the nodes that may have layers, in their order, also those that could not be
    measured; `measured` are these and those that have layers now.
    """

    model: ModelSpec
    context: int
    kv_bytes: int
    candidates: tuple[str, ...]
    measured: tuple[Measured, ...]
    hops: Mapping[tuple[str, str], Hop]

    def promise(self, slots: Iterable[Slot]) -> Promise | None:
        """Of this layout, whatever was wished; None where one of its nodes was not measured."""
        slots = tuple(slots)
        hosts = {host.name: host for host in hosts_of(self.measured, self.model)}
        if not slots or any(slot.node not in hosts for slot in slots):
            return None
        seats = [
            Seat(i, slot.layers, _seconds(hosts[slot.node], slot.layers))
            for i, slot in enumerate(slots)
        ]
        network, _ = network_of([slot.node for slot in slots], self.hops)
        return Promise(*totals(seats, network))


@dataclass(frozen=True, slots=True)
class Proposal:
    """The best layout under these wishes, and what it was found among."""

    known: Known
    wishes: Wishes
    hosts: tuple[Host, ...]
    load: Load
    network: Network
    hops_assumed: int
    best: Placement

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(Slot(self.hosts[seat.host].name, seat.layers) for seat in self.best.seats)

    @property
    def promise(self) -> Promise:
        return Promise(self.best.round_seconds, self.best.slowest_seconds)

    def left_out(self) -> dict[str, str]:
        """Why each other host has no layers. As slow as a search for each."""
        return left_out(self.hosts, self.load, self.network, self.wishes.objective, self.best)

    def stages(self) -> list[dict[str, Any]]:
        """In the shape of docs/protocol.md, but for what was measured of each."""
        known = self.known
        return [
            {
                "stage": i,
                "node": self.hosts[seat.host].name,
                "layers": str(seat.layers),
                "weights_bytes": weights_of(known.model, seat.layers),
                "kv_bytes": known.kv_bytes * len(seat.layers),
                "memory_bytes": self.hosts[seat.host].memory_bytes,
                "seconds": seat.seconds,
            }
            for i, seat in enumerate(self.best.seats)
        ]


def propose_change(known: Known, wishes: Wishes, present: Sequence[Slot]) -> Proposal:
    """As `propose`; but where it gives as much to leave the nodes in their order, that is proposed:
    fewer layers move.
    """
    best = propose(known, wishes)
    try:
        steady = propose(known, wishes, [slot.node for slot in present])
    except PlacementError:
        return best
    enough = best.promise.seconds(wishes.objective) * (1 + LEAST_GAIN)
    return steady if steady.promise.seconds(wishes.objective) <= enough else best


def propose(known: Known, wishes: Wishes, order: Sequence[str] = ()) -> Proposal:
    """Takes up to a second with many nodes. Those in `order` keep it, others may be anywhere.
    PlacementError or SplitError when there is none.
    """
    there = [h for h in hosts_of(known.measured, known.model) if h.name in known.candidates]
    hosts = wishes.apply(there, known.candidates)
    load = load_of(known.model, known.kv_bytes)
    names = [host.name for host in hosts]
    network, assumed = network_of(names, known.hops)
    network = _in_order(network, names, order)
    best = place(hosts, load, network, wishes.objective)
    return Proposal(known, wishes, hosts, load, network, assumed, best)


def weights_of(model: ModelSpec, layers: LayerRange) -> int:
    """Bytes of a stage with these layers."""
    nbytes = sum(model.layer_bytes[layers.start : layers.end])
    nbytes += model.embedding_bytes if layers.start == 0 else 0
    return nbytes + (model.head_bytes if layers.end == model.layers else 0)


def _in_order(network: Network, names: Sequence[str], order: Sequence[str]) -> Network:
    """No hop leads back from a node of the order to one before it. (A node between these two may
    lead back: that costs layers a move, and nothing else.)
    """
    place = {name: i for i, name in enumerate(order)}
    never = Hop(inf, inf)

    def back(a: str, b: str) -> bool:
        return a in place and b in place and place[b] < place[a]

    between = tuple(
        tuple(never if back(a, b) else hop for b, hop in zip(names, hops, strict=True))
        for a, hops in zip(names, network.between, strict=True)
    )
    return replace(network, between=between)


def _seconds(host: Host, layers: LayerRange) -> float:
    seconds = sum(host.layer_seconds[layers.start : layers.end])
    return seconds + (host.head_seconds if layers.end == len(host.layer_seconds) else 0.0)
