"""JACCL's device matrix for nodes in the order of their ranks.

Cell [i][j] lists the devices of rank i that lead to rank j, one per cable, in the same order at
both ends. JACCL takes the matrix for a mesh when every pair has a cable, and then uses the first of
each; for a ring, every rank needs equally many cables to the one before it and the one after, also
between the last and the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from daemon.thunderbolt.cables import Cable, cables
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.verdicts import Word, jaccl_address, of_machine

MOST_CABLES = 4  # between neighbours: JACCL's RING_MAX_CONNS


@dataclass(frozen=True, slots=True)
class Matrix:
    """`shape` is mesh, ring, or "" when it is neither: then `missing` says what for. `coordinator`
    is the address at which rank 1 reaches rank 0 by their cable, and is "" with more ranks: JACCL
    listens at one address, which a third node cannot reach through somebody else's cable.
    """

    shape: str
    devices: list[list[list[str]]]
    coordinator: str
    missing: list[str]

    @property
    def wants_ring(self) -> bool:
        """Whether JACCL must be told to make a ring (MLX_JACCL_RING): it would take the mesh."""
        return self.shape == "ring"


def matrix(order: Sequence[str], machines: Mapping[str, Machine]) -> Matrix:
    """Of the nodes in `order`; one that is not in `machines` has not answered."""
    known = {node: machines[node] for node in order if node in machines}
    found = cables(known)
    ready = {pair: _between(pair, found) for pair in _pairs(order)}
    around = {pair: ready[pair] for pair in _neighbours(order)}
    apart = [f"{node} has not answered" for node in order if node not in known]
    apart += [f"{node}: {v.reason}" for node, m in known.items() if (v := of_machine(m))]
    missing = apart or [_lacking(pair, found) for pair, good in around.items() if not good]
    if missing or len(order) < 2:
        return Matrix("", [], "", missing or ["a group has two nodes or more"])
    width = min(MOST_CABLES, *(len(good) for good in around.values()))
    mesh = all(ready.values()) and width == 1
    used = ready if mesh else around
    rows = [[_cell(i, j, used, width) for j in order] for i in order]
    return Matrix("mesh" if mesh else "ring", rows, _coordinator(order, around), [])


Pair = tuple[str, str]


def _pairs(order: Sequence[str]) -> list[Pair]:
    return [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]


def _neighbours(order: Sequence[str]) -> list[Pair]:
    """As a ring: the last one is beside the first."""
    wrapped = [(order[0], order[-1])] if len(order) > 2 else []
    return [*pairwise(order), *wrapped]


def _between(pair: Pair, found: Sequence[Cable]) -> list[Cable]:
    return [cable for cable in found if cable.between(*pair) and cable.ready]


def _cell(here: str, there: str, used: Mapping[Pair, list[Cable]], width: int) -> list[str]:
    lines = used.get((here, there)) or used.get((there, here)) or []
    return [cable.at(here).device for cable in lines[:width]]


def _coordinator(order: Sequence[str], around: Mapping[Pair, list[Cable]]) -> str:
    if len(order) != 2:
        return ""
    address = jaccl_address(around[order[0], order[1]][0].at(order[0]))
    return str(address.ip) if address else ""


def _lacking(pair: Pair, found: Sequence[Cable]) -> str:
    """Why there is no way between these two."""
    lines = [cable for cable in found if cable.between(*pair)]
    if not lines:
        return f"no Thunderbolt cable between {pair[0]} and {pair[1]}"
    bad = []
    for cable in lines:
        for end, verdict in zip((cable.a, cable.b), cable.verdicts, strict=True):
            if verdict.word is not Word.READY:
                port = end.port.receptacle or end.port.interface
                bad.append(f"port {port} of {end.node} is {verdict.word.value} ({verdict.reason})")
    return f"between {pair[0]} and {pair[1]}: {', '.join(bad)}"
