"""Which RDMA devices lead from which node to which: what JACCL must be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.cluster.rdma.events import CablesAre
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.matrix import matrix

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

Devices = tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Cabling:
    """As CablesAre, for no group yet."""

    devices: Devices
    coordinator: str
    why: str

    def of(self, group: int) -> CablesAre:
        return CablesAre(group, self.devices, self.coordinator, self.why)


class Cables:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator

    def find(self, nodes: tuple[str, ...], then: Callable[[Cabling], None]) -> None:
        """Ask these nodes for their ports as they are now; `then` is told in seconds, whatever
        happens to them.
        """

        def ended(machines: Mapping[str, Machine], silent: list[str]) -> None:
            then(cabling(nodes, machines))

        self._of.clients.ports.ask(ended, set(nodes), fresh=True)


def cabling(nodes: tuple[str, ...], machines: Mapping[str, Machine]) -> Cabling:
    """For these nodes in the order of their ranks."""
    of = matrix(nodes, machines)
    devices = tuple(tuple(tuple(cell) for cell in row) for row in of.devices)
    return Cabling(devices, of.coordinator, "; ".join(of.missing))
