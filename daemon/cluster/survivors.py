"""A layout on the nodes that are left, when one that had layers does not come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.member import Member
from daemon.cluster.placement.problem import (
    Hop,
    Host,
    Load,
    Network,
    Objective,
    PlacementError,
)
from daemon.cluster.placement.search import MOST_NODES, place

KEPT_SHARE = 8  # of a machine's memory, what is left to everything else, where nobody measured


def lost(slots: Sequence[Slot], members: dict[str, Member], now: float, after: float) -> list[str]:
    """Nodes of the layout that have been silent for so many seconds, shardd and all, or whose
    shardd has given their stage up.
    """
    found = []
    for slot in slots:
        member = members.get(slot.node)
        if (
            member is None
            or member.given_up
            or (member.stage is None and member.node is None and now - member.beat_at >= after)
        ):
            found.append(slot.node)
    return found


def layout_without(
    model: ModelSpec, slots: Sequence[Slot], members: Iterable[Member], gone: Sequence[str]
) -> tuple[Slot, ...]:
    """Every node that is there may take part, those of the layout first. PlacementError when the
    model does not fit them.

    Nothing is known here of how fast they are: each stage reads as many bytes a token as memory
    allows, and no more of them than have to take part in that.
    """
    order = {slot.node: i for i, slot in enumerate(slots)}
    there = sorted(
        (m for m in members if m.node and not (m.draining or m.given_up or m.name in gone)),
        key=lambda member: (order.get(member.name, len(order)), member.name),
    )[:MOST_NODES]
    hosts = [
        Host(m.name, tuple(map(float, model.layer_bytes)), float(model.head_bytes), _memory(m))
        for m in there
    ]
    if not hosts:
        raise PlacementError("no node is left")
    free = (Hop(0.0),) * len(hosts)
    load, network = (
        Load(model.layer_bytes, last=model.head_bytes),
        Network(free, (free,) * len(hosts), free),
    )
    seats = place(hosts, load, network, Objective.THROUGHPUT).seats
    return tuple(Slot(hosts[seat.host].name, seat.layers) for seat in seats)


def _memory(member: Member) -> int:
    """For weights and KV: as its stage has measured, else what its machine has."""
    if member.loaded:
        return member.loaded.kv_budget_bytes + member.loaded.weights_bytes
    whole = member.node.memory_bytes if member.node else 0
    return whole - whole // KEPT_SHARE
