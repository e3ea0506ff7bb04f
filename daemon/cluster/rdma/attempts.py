"""When the next group may be started: back-off, and no more of what has failed.

A group start may leave something in a driver that only a restart of the machine gives back, so
nothing here is tried in a loop.
"""

from __future__ import annotations

from collections.abc import Collection

from daemon.cluster.rdma.offers import Machines
from daemon.cluster.rdma.rules import RdmaRules

FOLLOWING = ("asked", "peer")


class Attempts:
    def __init__(self, rules: RdmaRules) -> None:
        self.failures = 0  # starts in a row that came to nothing
        self.quarantine: Machines = {}  # those that failed, as they were then
        self.why = ""  # the last failure's
        self._rules = rules
        self._pause = rules.first_pause
        self._not_before = float("-inf")

    def failed(self, machines: Machines, why: str, hopeless: bool, now: float) -> None:
        """A start came to nothing; `hopeless`: the next one could not do better."""
        self.failures += 1
        self.why = why
        if hopeless or self.failures >= self._rules.most_failures:
            self.failures = 0
            self.quarantine |= machines
        self._wait(now)

    def ended(self, lasted: float, why: str, now: float) -> None:
        """A group that hops had used is over."""
        self.why = why
        if lasted >= self._rules.settled_after:
            self._pause = self._rules.first_pause
        self._wait(now)

    def learn(self, reason: str, why: str) -> None:
        """More of how the last group ended: who follows others says less than who came first."""
        if self.why and reason not in FOLLOWING:
            self.why = why

    def succeeded(self) -> None:
        """A hop uses the group."""
        self.failures, self.why, self.quarantine = 0, "", {}

    def at_once(self) -> None:
        """An operator has asked: no pause. What has failed has failed all the same."""
        self._pause, self._not_before = self._rules.first_pause, float("-inf")

    def restore(self, failures: int, quarantine: Machines, why: str) -> None:
        self.failures, self.quarantine, self.why = failures, dict(quarantine), why

    def release(self, present: Machines) -> bool:
        """Set free what was kept apart when one of its machines has another boot or other devices.
        Whether that is so.
        """
        changed = any(
            node in present and present[node] != machine
            for node, machine in self.quarantine.items()
        )
        if changed:
            self.succeeded()
        return changed

    def quarantined(self, nodes: Collection[str]) -> str:
        """Why a group over these is not tried until a machine has changed, or ""."""
        if len(self.quarantine.keys() & set(nodes)) < 2:
            return ""
        names = ", ".join(sorted(self.quarantine))
        return f"not tried again until one of {names} is restarted or has other cables: {self.why}"

    def obstacle(self, nodes: Collection[str], now: float) -> str:
        """Why no group over these may be started now, or ""."""
        if why := self.quarantined(nodes):
            return why
        if now < self._not_before:
            return "the next group is started after a pause" + (f": {self.why}" if self.why else "")
        return ""

    def check_integrity(self) -> None:
        assert 0 <= self.failures < self._rules.most_failures
        assert self._rules.first_pause <= self._pause <= self._rules.longest_pause
        assert len(self.quarantine) != 1, "a group of one"

    def _wait(self, now: float) -> None:
        self._not_before = now + self._pause
        self._pause = min(self._rules.longest_pause, 2 * self._pause)
