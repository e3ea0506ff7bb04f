"""Processes of groups that are over, or that a coordinator before this one has started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daemon import messages as msg
from daemon.cluster.events import ToNode
from daemon.cluster.rdma.events import ToProcess
from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.offers import Offers
from daemon.cluster.rdma.rules import RdmaRules


class Leftovers:
    """Who was told to start or stop which group, and has not said yet that it has ended."""

    def __init__(self, rules: RdmaRules) -> None:
        self._rules = rules
        self._started: dict[tuple[str, str], int] = {}  # by node and shardd: its last group
        self._stopped_at: dict[tuple[str, int], float] = {}
        self._seen_at: dict[int, float] = {}

    def started(self, group: Group, actions: Iterable[ToNode | ToProcess]) -> None:
        """These are asked to start it."""
        for action in actions:
            if isinstance(action, ToNode):
                self._started[action.node, group.shardds[action.node]] = group.number

    def busy(self, offers: Offers, members: Sequence[str]) -> str:
        """Who of them has still to end a group: its address is taken until then."""
        for node in members:
            offer = offers.of(node)
            if offer is None:
                continue
            if offer.group or offer.ended < self._started.get((node, offer.incarnation), 0):
                return node
        return ""

    def stop(
        self, term: int, number: int, nodes: Iterable[str], why: str, now: float
    ) -> list[ToNode]:
        actions = []
        for node in nodes:
            self._stopped_at[node, number] = now
            actions.append(ToNode(node, msg.RdmaStop(term, number, why)))
        return actions

    def look(
        self, term: int, offers: Offers, mine: int, last: int, may_adopt: bool, now: float
    ) -> tuple[Group | None, list[ToNode]]:
        """A group to go on with, and whom to tell to end what runs there. `mine` is the number of
        the present group, `last` the highest that this coordinator has had: those are its own.
        """
        running: dict[int, dict[int, msg.RdmaOffer]] = {}
        for offer in offers:
            if offer.group and offer.group != mine:
                running.setdefault(offer.group, {})[offer.rank] = offer
        self._prune(offers, now)
        self._seen_at = {n: self._seen_at.get(n, now) for n in running}
        adopted, actions = None, self._stop_unheard(term, offers, mine, now)
        for number, by_rank in sorted(running.items()):
            size = max(offer.size for offer in by_rank.values())
            if number > last and may_adopt and adopted is None:
                if len(by_rank) == size >= 2:
                    adopted = _adopted([by_rank[rank] for rank in range(size)], now)
                    continue
                if now - self._seen_at[number] < self._rules.gather_within:
                    continue  # the others may be about to speak
            due = [
                offer.node
                for offer in by_rank.values()
                if now - self._stopped_at.get((offer.node, number), float("-inf"))
                >= self._rules.ask_again_after
            ]
            actions += self.stop(term, number, due, "it belongs to no group any more", now)
        return adopted, actions

    def _prune(self, offers: Offers, now: float) -> None:
        """Forget of whom nothing is waited for any more."""
        for node, shardd in list(self._started):
            offer = offers.of(node)
            over = offer and offer.ended >= self._started[node, shardd] and not offer.group
            if over or (offer and offer.incarnation != shardd):
                del self._started[node, shardd]
        recent = now - 2 * self._rules.ask_again_after
        self._stopped_at = {key: at for key, at in self._stopped_at.items() if at >= recent}

    def _stop_unheard(self, term: int, offers: Offers, mine: int, now: float) -> list[ToNode]:
        """Who was told to start a group that is over, and says neither that it runs nor that it has
        ended: one of the two words was lost.
        """
        actions: list[ToNode] = []
        for (node, shardd), number in list(self._started.items()):
            offer = offers.of(node)
            if offer is None or offer.incarnation != shardd or offer.ended >= number:
                continue
            told_at = self._stopped_at.get((node, number), float("-inf"))
            waited = now - told_at >= self._rules.ask_again_after
            if number != mine and not offer.group and waited:
                actions += self.stop(term, number, [node], "its group is over", now)
        return actions


def _adopted(offers: Sequence[msg.RdmaOffer], now: float) -> Group:
    """By rank. Its processes are asked who they reach."""
    return Group(
        offers[0].group,
        offers[0].backend,
        tuple(offer.node for offer in offers),
        {offer.node: offer.incarnation for offer in offers},
        now,
        Phase.STARTING,
        adopted=True,
    )
