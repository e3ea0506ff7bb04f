"""The test of two nodes that an operator has asked for: one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from daemon import messages as msg
from daemon.cluster.rdma.attempts import Attempts
from daemon.cluster.rdma.events import Action, Tested, TestWanted
from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.offers import Offers
from daemon.cluster.rdma.rules import RdmaRules
from daemon.cluster.rdma.trials import Hop, Trials


class Need(Enum):
    """What the test wants of the machine."""

    NOTHING = 0
    GROUP = 1  # one of these two nodes
    END = 2  # of the group that was made for it


class Tryout:
    """By the group that stands, where it joins the two; else by one of their own."""

    def __init__(self, rules: RdmaRules, term: int, numbers: Iterator[int]) -> None:
        self.hop: Hop | None = None
        self.trials = Trials(rules, term, numbers)
        self._patience = rules.join_within + rules.probe_within
        self._until = 0.0

    def want(self, event: TestWanted, now: float) -> list[Action]:
        if self.hop:
            return [Tested(event.a, event.b, "", 0.0, 0.0, "another test is under way")]
        self.hop, self._until = (event.a, event.b), now + self._patience
        return []

    def go_on(
        self, group: Group | None, offers: Offers, attempts: Attempts, now: float
    ) -> tuple[list[Action], Need]:
        if self.hop is None:
            return [], Need.NOTHING
        if why := self._obstacle(self.hop, group, offers, attempts, now):
            return self.failed(why), Need.END
        if group is None:
            return [], Need.GROUP
        if group.phase is not Phase.STANDING:
            return [], Need.NOTHING
        actions: list[Action] = [*self.trials.go_on(group, [self.hop], now)]
        trial = self.trials[self.hop]
        if trial is None or not (trial.passed or trial.why):
            return actions, Need.NOTHING
        measured = (trial.round_trip_seconds, trial.bytes_per_second)
        told = Tested(*self.hop, group.backend, *measured, trial.why)
        self._forget()
        return [told], Need.END

    def answered(self, said: msg.RdmaProbed, now: float) -> None:
        self.trials.answered(said, now)

    def failed(self, why: str, backend: str = "") -> list[Action]:
        """It is over, if there was one."""
        if self.hop is None:
            return []
        told = Tested(*self.hop, backend, 0.0, 0.0, why)
        self._forget()
        return [told]

    def _forget(self) -> None:
        self.hop = None
        self.trials.forget()

    def _obstacle(
        self, hop: Hop, group: Group | None, offers: Offers, attempts: Attempts, now: float
    ) -> str:
        if now > self._until:
            return "it took too long"
        if group is None:
            return offers.between(*hop) or attempts.quarantined(hop)
        if group.phase is Phase.STANDING and not group.reaches(*hop):
            return "a group stands that does not join them: `shardctl rdma disable` first"
        return ""
