"""How many layers each stage gets."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.layers import LayerRange


class SplitError(ValueError):
    """A split that does not fit the model or the nodes. The operator's fault."""


def even_split(layers: int, stages: int) -> list[int]:
    """As equal as can be; the remainder goes to the first stages, because the last one has the
    head.
    """
    if stages > layers:
        raise SplitError(f"{stages} stages for {layers} layers: a stage has at least one layer")
    base, extra = divmod(layers, stages)
    return [base + (i < extra) for i in range(stages)]


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
