"""Which arrays another one is made from: read off MLX's lazy graph, nothing is evaluated.

MLX shows a graph only as a drawing (`export_to_dot`): lines `"array" -> operation` and `operation
-> "array"`. Operations are named by their address, the same in every drawing, arrays by names that
we may give.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping

import mlx.core as mx

_EDGE = re.compile(
    r'^(?:"(?P<source>[^"]+)" -> (?P<reader>\d+)|(?P<maker>\d+) -> "(?P<made>[^"]+)")$'
)
_AT_ONCE = 500  # arrays per drawing; a Python call into MLX takes at most 1024 named ones

Arrays = Mapping[str, mx.array]


def dependencies(outputs: Arrays, inputs: Arrays) -> dict[str, frozenset[str]]:
    """For every output, the names of the inputs that it is made from.

    Inputs must not be evaluated yet, or they have no origin to be known by. Compiled functions must
    have been switched off (`compiling.uncompiled`): all calls of one share a single operation, so
    that everything would seem to depend on everything. ValueError when either shows.
    """
    named: dict[int, frozenset[str]] = {}
    for name, operation, _ in _drawings(inputs):
        if operation is None:
            raise ValueError(f"{name} has been evaluated already")
        named[operation] = frozenset((name,))
    found = {}
    for name, operation, reads in _drawings(outputs):
        found[name] = frozenset[str]() if operation is None else _reach(operation, reads, named)
    return found


def _drawings(arrays: Arrays) -> Iterator[tuple[str, int | None, dict[int, set[int]]]]:
    """Each array, the operation that makes it, and which operations each operation reads from."""
    names = list(arrays)
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        # One array may have several names; only one of them would be in the drawing.
        labels = {id(arrays[name]): f"array {n}" for n, name in enumerate(part)}
        drawing = io.StringIO()
        mx.export_to_dot(drawing, **{labels[id(arrays[name])]: arrays[name] for name in part})
        makers: dict[str, int] = {}
        reads: dict[int, set[int]] = {}
        readers: list[tuple[str, int]] = []
        for line in drawing.getvalue().splitlines():
            if edge := _EDGE.match(line):
                if edge["made"] is not None:
                    makers[edge["made"]] = int(edge["maker"])
                else:
                    readers.append((edge["source"], int(edge["reader"])))
        for source, reader in readers:
            reads.setdefault(reader, set())
            if source in makers:
                reads[reader].add(makers[source])
        for name in part:
            yield name, makers.get(labels[id(arrays[name])]), reads


def _reach(
    operation: int, reads: Mapping[int, set[int]], named: dict[int, frozenset[str]]
) -> frozenset[str]:
    """Names of the inputs above an operation; `named` remembers every operation visited."""
    waiting = [operation]
    entered: set[int] = set()
    while waiting:
        current = waiting[-1]
        if current in named:
            waiting.pop()
            continue
        unknown = [above for above in reads.get(current, ()) if above not in named]
        if unknown and current in entered:
            raise ValueError("an operation of the graph reads what it makes")
        entered.add(current)
        if unknown:
            waiting += unknown
        else:
            above = (named[source] for source in reads.get(current, ()))
            named[current] = frozenset[str]().union(*above)
    return named[operation]
