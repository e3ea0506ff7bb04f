"""When the next group may be started: back-off, and no more of what has failed.

A group start may leave something in a driver that only a restart of the machine gives back, so
nothing here is tried in a loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from daemon import messages as msg
from daemon.cluster.rdma.events import Remember
from daemon.cluster.rdma.offers import Machine, Machines
from daemon.cluster.rdma.rules import RdmaRules

BLAMELESS = frozenset({"asked", "lost"})  # not RDMA's fault
FOLLOWING = frozenset({"peer"})  # another member has ended before
# A start that ended so cannot end otherwise until something is changed.
HOPELESS = frozenset(
    {
        "arguments",
        "backend",
        "devices",
        "device-gone",
        "memory-regions",
        "no-backend",
        "queue-pairs",
    }
)


class Attempts:
    def __init__(self, rules: RdmaRules) -> None:
        self.failures = 0  # starts in a row that came to nothing
        self.quarantine: list[Machines] = []  # groups that failed, as their machines were then
        self.why = ""  # the last failure's
        self._unexplained: Machines = {}  # of which only who follows others has said why
        self._rules = rules
        self._pause = rules.first_pause
        self._not_before = float("-inf")
        self._cables_again_at, self._no_cables = float("-inf"), ""

    def ended(
        self, machines: Machines, lasted: float | None, reason: str, why: str, now: float
    ) -> None:
        """A group over these is over. `lasted`: for how long it was used, None where not all of its
        hops were ever tried: then its start has failed.
        """
        self._unexplained = {}
        if reason in BLAMELESS:
            return
        if lasted is None and reason not in FOLLOWING:
            self._failed(machines, reason, why, now)
            return
        self.why = why
        if lasted is None:
            self._unexplained = machines
        elif lasted >= self._rules.settled_after:
            self._pause = self._rules.first_pause
        self._wait(now)

    def learn(self, reason: str, why: str, now: float) -> bool:
        """More of how the last group ended, from another member: who follows others says less than
        who came first. Whether its start has failed, as is known now.
        """
        if reason in BLAMELESS | FOLLOWING:
            return False
        self.why = why if self.why else ""
        failed, self._unexplained = self._unexplained, {}
        if failed:
            self._failed(failed, reason, why, now)
        return bool(failed)

    def _failed(self, machines: Machines, reason: str, why: str, now: float) -> None:
        self.failures += 1
        self.why = why
        if reason in HOPELESS or self.failures >= self._rules.most_failures:
            self.failures = 0
            self.quarantine.append(dict(machines))
        self._wait(now)

    def succeeded(self) -> None:
        """A hop uses the group."""
        self.failures, self.why = 0, ""

    def at_once(self) -> None:
        """An operator has asked: no pause. What has failed has failed all the same."""
        self._pause, self._not_before = self._rules.first_pause, float("-inf")
        self._cables_again_at = float("-inf")

    def not_cabled(self, why: str, now: float) -> None:
        """No matrix connects the nodes: nothing was started. They are looked at again later."""
        self._cables_again_at, self._no_cables = now + self._rules.probe_again_after, why

    def restore(self, failures: int, quarantine: Sequence[Mapping[str, Machine]], why: str) -> None:
        self.failures, self.why = failures, why
        self.quarantine = [dict(group) for group in quarantine]

    def remember(self, enabled: bool) -> Remember:
        return Remember(enabled, self.failures, tuple(map(dict, self.quarantine)), self.why)

    def release(self, offer: msg.RdmaOffer) -> bool:
        """Set free the groups of which this machine has another boot, other devices or a cable out.
        Whether there were any.
        """
        kept = [group for group in self.quarantine if not _changed(group, offer)]
        released = len(kept) < len(self.quarantine)
        if released:
            self.quarantine = kept
            self.succeeded()
        return released

    def quarantined(self, nodes: Collection[str]) -> str:
        """Why a group over these is not tried until a machine has changed, or ""."""
        for group in self.quarantine:
            if len(group.keys() & set(nodes)) >= 2:
                names = ", ".join(sorted(group))
                change = "is restarted, or a cable of it was out for two minutes"
                what = f"not tried again until one of {names} {change}"
                return f"{what}: {self.why}"
        return ""

    def obstacle(self, nodes: Collection[str], now: float) -> str:
        """Why no group over these may be started now, or ""."""
        if why := self.quarantined(nodes):
            return why
        if now < self._not_before:
            return "the next group is started after a pause" + (f": {self.why}" if self.why else "")
        return self._no_cables if now < self._cables_again_at else ""

    def check_integrity(self) -> None:
        assert 0 <= self.failures < self._rules.most_failures
        assert self._rules.first_pause <= self._pause <= self._rules.longest_pause
        assert all(len(group) >= 2 for group in self.quarantine), "a group of one"

    def _wait(self, now: float) -> None:
        self._not_before = now + self._pause
        self._pause = min(self._rules.longest_pause, 2 * self._pause)


def _changed(then: Machines, offer: msg.RdmaOffer) -> bool:
    """A boot or devices that are not known are no other ones: a tool may have failed. A cable that
    is out is another one when it is in again.
    """
    if offer.node not in then:
        return False
    boot, devices = then[offer.node]
    others = tuple(sorted(offer.devices))
    rebooted = boot and offer.boot and offer.boot != boot
    recabled = others and others != devices
    return bool(rebooted or recabled or not set(devices).isdisjoint(offer.unplugged))
