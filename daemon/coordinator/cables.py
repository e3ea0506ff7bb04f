"""Which RDMA devices lead from which node to which: what JACCL must be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.cluster.rdma.events import CablesAre

Matrix = tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Cabling:
    """As CablesAre, for no group yet."""

    devices: Matrix
    coordinator: str
    why: str

    def of(self, group: int) -> CablesAre:
        return CablesAre(group, self.devices, self.coordinator, self.why)


class Cables:
    """Nodes are not asked for their ports yet: JACCL gets no group."""

    def find(self, nodes: tuple[str, ...], then: Callable[[Cabling], None]) -> None:
        names = ", ".join(nodes)
        then(Cabling((), "", f"it is not known how {names} are cabled"))
