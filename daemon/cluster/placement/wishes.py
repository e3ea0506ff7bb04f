"""What an operator says about a placement, which always wins over what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from daemon.cluster.placement.problem import Host, Objective, PlacementError
from daemon.cluster.split import ranges_of
from daemon.layers import LayerRange


@dataclass(frozen=True, slots=True)
class Wishes:
    """`split` are layers per stage over the nodes in their order; nothing else is searched then.
    `pins` by node, `memory` in bytes, for weights and KV.
    """

    objective: Objective = Objective.BALANCED
    split: tuple[int, ...] = ()
    pins: Mapping[str, LayerRange] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()

    def apply(self, hosts: Sequence[Host], known: Sequence[str]) -> tuple[Host, ...]:
        """The hosts as they are to be used; `known` are the nodes that there are, in their order,
        also those that cannot be hosts. PlacementError for a node that is none of them, or pinned
        and excluded; SplitError for a split that does not fit the model.
        """
        for name in (*self.pins, *self.memory, *sorted(self.exclude)):
            if name not in known:
                raise PlacementError(f"no node {name}; known are {', '.join(sorted(known))}")
        if both := sorted(self.exclude & self.pins.keys()):
            raise PlacementError(f"{both[0]} is both pinned and excluded")
        pins = dict(self.pins)
        left = [host for host in hosts if host.name not in self.exclude]
        if self.split:
            if pins:
                raise PlacementError("a split says all: nothing can be pinned beside it")
            there = [name for name in known if name not in self.exclude]
            if len(self.split) > len(there):
                raise PlacementError(f"{len(self.split)} stages, but {len(there)} nodes")
            names = there[: len(self.split)]
            left = [host for host in left if host.name in names]
            if unknown := sorted(set(names) - {host.name for host in left}):
                raise PlacementError(f"the split has layers for {', '.join(unknown)}")
            layers = len(left[0].layer_seconds)
            pins = dict(zip(names, ranges_of(self.split, layers), strict=True))
        return tuple(
            replace(
                host,
                memory_bytes=self.memory.get(host.name, host.memory_bytes),
                pinned=pins.get(host.name),
            )
            for host in left
        )
