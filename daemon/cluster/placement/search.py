"""Which nodes hold which layers, in which order: exact for every objective (DESIGN.md §9).

Dynamic programming over (set of nodes, last node, layers placed), as Held and Karp (1962) order the
towns of a journey: the best way to place the first layers on a set of nodes that ends with a
certain one does not depend on what comes after. A step over all ends of all beginnings is one
(min, +) product of a vector and a matrix of stage costs: n × 2^(n - 1) of them for n nodes, 40 ms
for 8 nodes and 128 layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from daemon.cluster.placement.problem import (
    BALANCED,
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
from daemon.layers import LayerRange

MOST_NODES = 10

Costs = NDArray[np.float64]


def place(
    hosts: Sequence[Host],
    load: Load,
    network: Network,
    objective: Objective,
    must: Collection[int] = (),
) -> Placement:
    """The best placement, on all of the hosts with the numbers `must` and any others. Of equally
    good ones for THROUGHPUT, the one with the least sum; of those that are still equal, one with
    the hosts in the order given. PlacementError when there is none.
    """
    _check(hosts, load)
    tables = Tables(hosts, load, network, must)
    if objective is Objective.LATENCY:
        bound = inf
    else:
        best, _ = _search(tables, tables.busy, np.maximum, inf)
        bound = best * (BALANCED if objective is Objective.BALANCED else 1.0)
    _, order = _search(tables, tables.seconds, np.add, bound * (1 + 1e-12))
    if not order:
        raise why_not(hosts, load)
    seats = tuple(Seat(host, layers, tables.stage_seconds(host, layers)) for host, layers in order)
    return Placement(seats, *totals(seats, network))


class Tables:
    """`stages[k][a, b]`: seconds of layers [a, b) on host k, infinite where they do not fit or it
    is pinned to others; `last` the same with the head.
    """

    def __init__(
        self, hosts: Sequence[Host], load: Load, network: Network, must: Collection[int]
    ) -> None:
        self.layers, self.hosts = len(load.layers), hosts
        self.must = sum(1 << k for k, host in enumerate(hosts) if host.pinned or k in must)
        self.stages = [self._stage(host, load, 0) for host in hosts]
        self.last = [self._stage(host, load, load.last) + host.head_seconds for host in hosts]
        between = range(len(hosts))
        self.seconds = _Hops(network, lambda hop: hop.seconds, between)
        self.busy = _Hops(network, lambda hop: hop.busy, between)

    def _stage(self, host: Host, load: Load, more: int) -> Costs:
        count = self.layers + 1
        seconds = np.concatenate([[0.0], np.cumsum(host.layer_seconds)])
        nbytes = np.concatenate([[0], np.cumsum(load.layers)])
        needed = nbytes[None, :] - nbytes[:, None] + more
        needed[0] += load.first
        table: Costs = seconds[None, :] - seconds[:, None]
        table[needed > host.memory_bytes] = inf
        table[np.arange(count)[:, None] >= np.arange(count)[None, :]] = inf
        if host.pinned:
            only = np.full_like(table, inf)
            at = host.pinned.start, host.pinned.end
            only[at] = table[at]
            table = only
        return table

    def stage_seconds(self, host: int, layers: LayerRange) -> float:
        last = layers.end == self.layers
        return float((self.last if last else self.stages)[host][layers.start, layers.end])


class _Hops:
    def __init__(self, network: Network, of: Callable[[Hop], float], hosts: Sequence[int]) -> None:
        self.entry = [of(hop) for hop in network.entry]
        self.exit = [of(hop) for hop in network.exit]
        self.between = np.array([[of(network.between[a][b]) for b in hosts] for a in hosts])


def _search(
    tables: Tables,
    hops: _Hops,
    join: Callable[..., Costs],
    bound: float,
) -> tuple[float, list[tuple[int, LayerRange]]]:
    """The least cost and the stages that have it, when `join` adds stages and hops up, and no stage
    and no link may be busy for longer than `bound`; infinite, and none, where there is no way.
    """
    count, layers = len(tables.hosts), tables.layers
    stages = [np.where(table <= bound, table, inf) for table in tables.stages]
    last = [np.where(table <= bound, table, inf) for table in tables.last]
    barred = tables.busy
    between = np.where(barred.between <= bound, hops.between, inf)
    entry = [hops.entry[k] if barred.entry[k] <= bound else inf for k in range(count)]
    exits = [hops.exit[k] if barred.exit[k] <= bound else inf for k in range(count)]
    best, found = inf, (0, 0, 0)
    costs = np.full((1 << count, count, layers + 1), inf)
    came = np.zeros((1 << count, count, layers + 1, 2), np.int16)  # the host before, its end
    for used in range(1 << count):
        for k in reversed(range(count)):
            if not used >> k & 1:
                continue
            before = used ^ (1 << k)
            if before:
                others = [j for j in reversed(range(count)) if before >> j & 1]
                reached = join(costs[before][others], between[others, k][:, None])
                host = reached.argmin(axis=0)
                start = reached[host, np.arange(layers + 1)]
            else:
                others, host = [k], np.zeros(layers + 1, np.int64)
                start = np.full(layers + 1, inf)
                start[0] = entry[k]
            if used & tables.must == tables.must:
                ends = join(join(start, last[k][:, layers]), exits[k])
                at = int(ends.argmin())
                if ends[at] < best:
                    best, found = float(ends[at]), (used, k, at)
                    came_last = others[int(host[at])] if before else k
                    came[used, k, layers] = came_last, at
            if not np.isfinite(start).any():
                continue
            whole = join(start[:, None], stages[k])
            at_all = whole.argmin(axis=0)
            inner = slice(0, layers)
            costs[used, k, inner] = whole[at_all, np.arange(layers + 1)][inner]
            came[used, k, inner, 0] = np.array(others)[host[at_all]][inner]
            came[used, k, inner, 1] = at_all[inner]
    return best, list(_backwards(came, found, layers)) if best < inf else []


def _backwards(
    came: NDArray[np.int16], found: tuple[int, int, int], layers: int
) -> list[tuple[int, LayerRange]]:
    used, host, _ = found
    order, end = [], layers
    while used:
        before, start = (int(n) for n in came[used, host, end])
        order.append((host, LayerRange(start, end)))
        used, host, end = used ^ (1 << host), before, start
    return order[::-1]


def _check(hosts: Sequence[Host], load: Load) -> None:
    if not hosts:
        raise PlacementError("no node is left to place layers on")
    if len(hosts) > MOST_NODES:
        raise PlacementError(f"{len(hosts)} nodes: more than {MOST_NODES} are not searched")
    pinned = sorted((h.pinned, h.name) for h in hosts if h.pinned)
    for (one, a), (other, b) in pairwise(pinned):
        if other.start < one.end:
            raise PlacementError(f"{a} and {b} are pinned to the same layers: {one}, {other}")
    for layers, name in pinned:
        if layers.end > len(load.layers):
            raise PlacementError(f"{name} is pinned to {layers} of {len(load.layers)} layers")


def why_not(hosts: Sequence[Host], load: Load) -> PlacementError:
    """Why there is no placement."""
    needed, there = sum(load.layers) + load.first + load.last, sum(h.memory_bytes for h in hosts)
    if needed > there:
        return PlacementError(
            f"the model and its KV take {needed:,} bytes, the nodes have {there:,}"
        )
    return PlacementError(
        "no order of the nodes fits: a layer, the head or what is pinned is too large for one"
    )
