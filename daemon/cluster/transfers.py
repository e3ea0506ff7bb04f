"""Two layouts of one model: whether the second can follow the first, and what moves between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.cluster.events import Slot
from daemon.cluster.member import Member
from daemon.cluster.placement.problem import PlacementError
from daemon.layers import LayerRange


@dataclass(frozen=True, slots=True)
class Transfer:
    """The KV of these layers, which `giver` has in one layout and `taker` in the next."""

    giver: str
    taker: str
    layers: LayerRange


def changed(old: Sequence[Slot], new: Sequence[Slot]) -> tuple[Slot, ...]:
    """Places of the new layout whose nodes have other layers than before, or had none."""
    before = {slot.node: slot.layers for slot in old}
    return tuple(slot for slot in new if before.get(slot.node) != slot.layers)


def transfers(old: Sequence[Slot], new: Sequence[Slot]) -> tuple[Transfer, ...]:
    """In the order of layers. Nobody gives to itself; both layouts have each layer once."""
    found = []
    for giver in old:
        for taker in new:
            start = max(giver.layers.start, taker.layers.start)
            end = min(giver.layers.end, taker.layers.end)
            if giver.node != taker.node and start < end:
                found.append(Transfer(giver.node, taker.node, LayerRange(start, end)))
    return tuple(found)


def check_layout(slots: Sequence[Slot], layers: int, members: Mapping[str, Member]) -> None:
    """PlacementError when it is no layout of so many layers over the stages that are there."""
    names = [slot.node for slot in slots]
    if len(set(names)) < len(names):
        raise PlacementError(f"a node has two places: {', '.join(names)}")
    at = 0
    for slot in slots:
        if slot.layers.start != at:
            raise PlacementError(
                f"{slot.node} begins with layer {slot.layers.start}, the one before it ends "
                f"before layer {at}"
            )
        at = slot.layers.end
        member = members.get(slot.node)
        if member is None:
            raise PlacementError(f"no node {slot.node}; known are {', '.join(sorted(members))}")
        if member.stage is None:
            raise PlacementError(f"{slot.node} has no stage now: {member.trouble or 'it starts'}")
        if member.draining:
            raise PlacementError(f"{slot.node} is about to leave")
    if at != layers:
        raise PlacementError(f"the layout has {at} layers, the model {layers}")
