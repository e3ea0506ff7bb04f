"""Which inputs each output of an MLX computation depends on: read off the graph, nothing is
evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

Arrays = Mapping[str, mx.array]


def dependencies(
    compute: Callable[[dict[str, mx.array]], Arrays], inputs: Arrays
) -> dict[str, frozenset[str]]:
    """For every output of `compute`, the names of the inputs that it is made from.

    `compute` is called once, with placeholders of the inputs' shapes and types; it must not
    evaluate them.
    """
    names = list(inputs)
    labels: list[str] = []
    events: list[dict[str, Any]] = []

    def positional(*arrays: mx.array) -> list[mx.array]:
        outputs = compute(dict(zip(names, arrays, strict=True)))
        labels.extend(outputs)
        return list(outputs.values())

    mx.export_function(events.append, positional, *inputs.values())
    reach: dict[str, frozenset[str]] = {}
    results: list[str] = []
    for event in events:  # primitives come in an order in which every input precedes its use
        kind = event["type"]
        if kind == "inputs":
            reach.update(
                (symbol, frozenset((name,)))
                for name, (symbol, *_) in zip(names, event["inputs"], strict=True)
            )
        elif kind == "outputs":
            results = [symbol for symbol, *_ in event["outputs"]]
        elif kind == "primitive":
            made = frozenset[str]().union(
                *(reach.get(symbol, frozenset()) for symbol, *_ in event["inputs"])
            )
            reach.update((symbol, made) for symbol, *_ in event["outputs"])
    return {
        label: reach.get(symbol, frozenset()) for label, symbol in zip(labels, results, strict=True)
    }
