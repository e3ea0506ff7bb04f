"""Layouts of a cluster, in all the ways in which one may follow another."""

from __future__ import annotations

import random
from collections.abc import Sequence

KINDS = ("up", "down", "swapped", "inserted", "removed", "last")

Layout = tuple[tuple[str, int], ...]  # nodes in their order, and how many layers each has


def changed(
    layout: Layout, names: Sequence[str], kind: str, chance: random.Random
) -> Layout | None:
    """Another layout over some of the nodes `names`; None where there is none of that kind.

    up, down   layers go to the stage before, or after, the one that has them
    swapped    two nodes change places
    inserted   a node that has none is given layers of another
    removed    a node's layers go to its neighbours
    last       another node is the last stage
    """
    nodes, counts = [n for n, _ in layout], [n for _, n in layout]
    spares = [name for name in names if name not in nodes]
    givers = [at for at, count in enumerate(counts) if count > 1]
    match kind:
        case "up" | "down":
            step = -1 if kind == "up" else 1
            pairs = [at for at in givers if 0 <= at + step < len(layout)]
            if not pairs:
                return None
            giver = chance.choice(pairs)
            given = chance.randrange(1, counts[giver])
            counts[giver] -= given
            counts[giver + step] += given
        case "swapped" if len(nodes) > 1:
            one, other = chance.sample(range(len(nodes)), 2)
            nodes[one], nodes[other] = nodes[other], nodes[one]
        case "inserted" if spares and givers:
            giver = chance.choice(givers)
            given = chance.randrange(1, counts[giver])
            counts[giver] -= given
            at = giver + chance.randrange(2)
            nodes.insert(at, chance.choice(spares))
            counts.insert(at, given)
        case "removed" if len(nodes) > 1:
            at = chance.randrange(len(nodes))
            left, _ = counts.pop(at), nodes.pop(at)
            before = left if at == len(nodes) else chance.randrange(left + 1) if at else 0
            counts[max(0, at - 1)] += before
            if left > before:
                counts[at] += left - before
        case "last" if spares:
            nodes[-1] = chance.choice(spares)
        case "last" if len(nodes) > 1:
            at = chance.randrange(len(nodes) - 1)
            nodes[at], nodes[-1] = nodes[-1], nodes[at]
        case _:
            return None
    return tuple(zip(nodes, counts, strict=True))
