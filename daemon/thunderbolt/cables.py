"""Which port is connected with which: by the UUIDs of their controllers, each of which names the
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from daemon.thunderbolt.facts import Machine, Port
from daemon.thunderbolt.verdicts import End, Verdict, Word, of_port


@dataclass(frozen=True, slots=True)
class Cable:
    """Between two nodes, `a` before `b` by name."""

    a: End
    b: End

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        a, b = self.a, self.b
        return of_port(a.machine, a.port, b), of_port(b.machine, b.port, a)

    @property
    def ready(self) -> bool:
        return all(verdict.word is Word.READY for verdict in self.verdicts)

    def between(self, one: str, other: str) -> bool:
        return {self.a.node, self.b.node} == {one, other}

    def at(self, node: str) -> Port:
        """Its port on that node, which is one of its two."""
        return self.a.port if self.a.node == node else self.b.port


def cables(machines: Mapping[str, Machine]) -> list[Cable]:
    """In an order that all nodes have in common: by the nodes' names, then by the receptacle on the
    first of them. JACCL pairs several cables by their order alone, and hangs when the two ends
    differ.
    """
    ends = [End(n, m, port) for n, m in sorted(machines.items()) for port in m.ports if port.domain]
    times = Counter(end.port.domain for end in ends)
    of = {end.port.domain: end for end in ends if times[end.port.domain] == 1}
    found = []
    for end in of.values():
        peer = of.get(end.port.peer_domain)
        if peer is not None and peer.port.peer_domain == end.port.domain and end.node < peer.node:
            found.append(Cable(end, peer))
    return sorted(found, key=lambda cable: (cable.a.node, cable.b.node, _place(cable.a.port)))


def peer_of(node: str, port: Port, found: list[Cable]) -> End | None:
    """The other end of this port's cable, when that is a node."""
    for cable in found:
        if cable.a.node == node and cable.a.port == port:
            return cable.b
        if cable.b.node == node and cable.b.port == port:
            return cable.a
    return None


def _place(port: Port) -> tuple[int, str, str]:
    return len(port.receptacle), port.receptacle, port.domain
