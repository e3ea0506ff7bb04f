"""Which nodes hold which layers: the operator's wish, or an even split over the nodes that are
there.
"""

from __future__ import annotations

from collections.abc import Iterable

from daemon.cluster.events import ModelWanted, Slot
from daemon.cluster.member import Member
from daemon.cluster.split import balanced_split, ranges_of


class NotYet(Exception):
    """The nodes that the layout needs have not all joined; the text says what is missing."""


def plan(
    wanted: ModelWanted, members: Iterable[Member], local_node: str, settled: bool
) -> tuple[Slot, ...]:
    """The layout. NotYet, or SplitError when it can never be.

    Without a split every stage reads as many bytes per token as the others, the head counted.
    Without named nodes the coordinator's own goes first and the others follow by name. Without a
    split either, who is there when no node has joined for a while (`settled`) takes part.
    """
    known = {member.name: member for member in members}
    layers, nodes, split = wanted.model.layers, list(wanted.nodes), list(wanted.split)
    if split:
        ranges_of(split, layers)
    if not nodes:
        present = [m for m in known.values() if m.stage and not (m.draining or m.drained)]
        here = sorted((m.name for m in present), key=lambda name: (name != local_node, name))
        if split and len(here) < len(split):
            raise NotYet(f"{len(split)} stages wanted, {len(here)} nodes have joined")
        if not split and not settled:
            raise NotYet("waiting for nodes to join")
        nodes = here[: len(split)] if split else here[:layers]
    missing = [name for name in nodes if name not in known or known[name].stage is None]
    if missing or not nodes:
        raise NotYet(f"waiting for {', '.join(missing) or 'a first node'}")
    model = wanted.model
    split = split or balanced_split(model.layer_bytes, model.head_bytes, len(nodes))
    ranges = ranges_of(split, layers)
    return tuple(Slot(name, layers) for name, layers in zip(nodes, ranges, strict=True))
