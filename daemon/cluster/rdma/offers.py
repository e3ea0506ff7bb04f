"""What the nodes say of RDMA: what each could do, and what runs there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from daemon import messages as msg

Machine = tuple[str, tuple[str, ...]]  # its boot, and its devices
Machines = dict[str, Machine]  # by node


class Offers:
    """The last word of each shardd. Only a word of the node's present shardd counts."""

    def __init__(self) -> None:
        self._said: dict[str, msg.RdmaOffer] = {}

    def hear(self, offer: msg.RdmaOffer) -> None:
        self._said[offer.node] = offer

    def keep_only(self, incarnations: Mapping[str, str]) -> None:
        """Forget what was said by shardds that are gone."""
        for node, offer in list(self._said.items()):
            if incarnations.get(node) != offer.incarnation:
                del self._said[node]

    def of(self, node: str) -> msg.RdmaOffer | None:
        return self._said.get(node)

    def __iter__(self) -> Iterator[msg.RdmaOffer]:
        return iter(self._said.values())

    @property
    def highest(self) -> int:
        """The highest number that any group has had, of those that are known of here."""
        return max((max(o.group, o.ended) for o in self), default=0)

    def obstacle(self, node: str) -> str:
        """Why no group can be started there, or ""."""
        offer = self._said.get(node)
        if offer is None:
            return f"{node} has not said what it offers"
        if offer.why_not or not offer.backends:
            return f"{node}: {offer.why_not or 'it offers no RDMA'}"
        return ""

    def backend(self, nodes: Iterable[str]) -> str:
        """The best one that all of them offer, by the first one's order; "" when there is none."""
        said = [self._said[node].backends if node in self._said else [] for node in nodes]
        common = [name for name in said[0] if all(name in one for one in said)] if said else []
        return common[0] if common else ""

    def longest_run(self, pipeline: Sequence[str]) -> tuple[str, ...]:
        """The most nodes one behind the other that offer the same: hops between those can use it.
        Fewer than two are none.
        """
        best: tuple[str, ...] = ()
        run: list[str] = []
        common: list[str] = []
        for node in pipeline:
            offer = None if self.obstacle(node) else self._said[node]
            mine = offer.backends if offer else []
            common = [name for name in common if name in mine] if run else mine
            run = [*run, node] if common else [node] if mine else []
            common = common or mine
            if len(run) > max(1, len(best)):
                best = tuple(run)
        return best

    def between(self, a: str, b: str) -> str:
        """Why no group can have both of these as neighbours, or ""."""
        if why := self.obstacle(a) or self.obstacle(b):
            return why
        if not self.backend([a, b]):
            both = (f"{node} offers {', '.join(self._said[node].backends)}" for node in (a, b))
            return "no back end in common: " + ", ".join(both)
        return ""

    def machines(self, nodes: Iterable[str]) -> Machines:
        """What these are, as far as failures may lie in it."""
        told = (self._said[node] for node in nodes if node in self._said)
        return {offer.node: (offer.boot, tuple(sorted(offer.devices))) for offer in told}

    def check_integrity(self) -> None:
        for node, offer in self._said.items():
            assert node == offer.node, f"the offer of {offer.node} is kept as that of {node}"
            assert offer.group == 0 or offer.rank < offer.size, f"{node}: rank {offer.rank}"


def hops(pipeline: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of neighbours."""
    return list(pairwise(pipeline))
