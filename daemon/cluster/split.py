"""How many layers each stage gets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from daemon.layers import LayerRange


class SplitError(ValueError):
    """A split that does not fit the model or the nodes. The operator's fault."""


def balanced_split(layer_costs: Sequence[float], head_cost: float, stages: int) -> list[int]:
    """Contiguous stages whose dearest is as cheap as can be; the last one has the head as well.

    By dynamic programming over (stages, layers), exact. Of equally good splits, the one whose first
    stages are smaller.
    """
    layers = len(layer_costs)
    if stages > layers:
        raise SplitError(f"{stages} stages for {layers} layers: a stage has at least one layer")
    sums = [0.0, *accumulate(layer_costs)]
    # best[n] is the least possible maximum for the last `stage` stages over layers [n, layers).
    best = [sums[-1] - sums[n] + head_cost for n in range(layers)]
    cuts: list[list[int]] = []
    for stage in range(2, stages + 1):
        chosen = []
        for n in range(layers - stage + 1):
            ends = range(n + 1, layers - stage + 2)
            cost, end = min((max(sums[e] - sums[n], best[e]), e) for e in ends)
            chosen.append((cost, end))
        best = [cost for cost, _ in chosen]
        cuts.append([end for _, end in chosen])
    split, start = [], 0
    for ends_of in reversed(cuts):
        split.append(ends_of[start] - start)
        start = ends_of[start]
    return [*split, layers - start]


def ranges_of(split: Sequence[int], layers: int) -> list[LayerRange]:
    """Contiguous ranges of these sizes; SplitError unless they cover the model's layers exactly."""
    for size in split:
        if size < 1:
            raise SplitError(f"a stage of {size} layers: a stage has at least one layer")
    if sum(split) != layers:
        raise SplitError(
            f"the split {','.join(map(str, split))} has {sum(split)} layers, the model has {layers}"
        )
    ranges, start = [], 0
    for size in split:
        ranges.append(LayerRange(start, start + size))
        start += size
    return ranges
