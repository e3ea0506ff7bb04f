"""Which of many nodes hold which layers, in an order that is given: exact for that order.

There are more orders of more nodes than can be looked at (see search). In one order the best way to
place the first layers on the first hosts does not depend on what comes after, so one pass over the
hosts is enough: a (min, +) product of a vector and a matrix of stage costs for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from daemon.cluster.placement.problem import Host, Load, Network, Placement, Seat, totals
from daemon.cluster.placement.search import Costs, Tables, why_not
from daemon.layers import LayerRange


def place_in_order(hosts: Sequence[Host], load: Load, network: Network) -> Placement:
    """The placement with the least maximum over stages, and of these one with the least sum, on any
    of the hosts in the order given. Links are taken to be free. PlacementError when there is none.
    """
    tables = Tables(hosts, load, network, ())
    best, _ = _search(tables, np.maximum, inf)
    _, order = _search(tables, np.add, best * (1 + 1e-12))
    if not order:
        raise why_not(hosts, load)
    seats = tuple(Seat(host, layers, tables.stage_seconds(host, layers)) for host, layers in order)
    return Placement(seats, *totals(seats, network))


def _search(
    tables: Tables, join: Callable[..., Costs], bound: float
) -> tuple[float, list[tuple[int, LayerRange]]]:
    """The least cost, and the stages that have it, none of which is busy for longer than `bound`;
    infinite, and none, where there is no way.
    """
    count = tables.layers + 1
    reached = np.full(count, inf)  # the least cost of the first layers, on the hosts so far
    reached[0] = 0.0
    came = np.full((len(tables.hosts), count), -1)  # where the host's layers begin; -1: it has none
    for k in range(len(tables.hosts)):
        stages = np.concatenate([tables.stages[k][:, :-1], tables.last[k][:, -1:]], axis=1)
        costs = join(reached[:, None], np.where(stages <= bound, stages, inf))
        start = costs.argmin(axis=0)
        found = costs[start, np.arange(count)]
        better = found < reached
        came[k] = np.where(better, start, -1)
        reached = np.where(better, found, reached)
    return float(reached[-1]), _backwards(came) if reached[-1] < inf else []


def _backwards(came: np.ndarray) -> list[tuple[int, LayerRange]]:
    order, end = [], came.shape[1] - 1
    for k in reversed(range(len(came))):
        if end and (start := int(came[k, end])) >= 0:
            order.append((k, LayerRange(start, end)))
            end = start
    return order[::-1]
