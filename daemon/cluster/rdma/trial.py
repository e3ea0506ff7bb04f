"""Whether one hop of a group is good: probes, until enough of them were."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.cluster.rdma.rules import RdmaRules


@dataclass(slots=True)
class Trial:
    """From `sender` to `receiver`, of which `needed` good probes in a row are wanted. `probe` is
    the number of the one that is under way, 0 when none is. Of the last one that ended,
    `round_trip_seconds` and `bytes_per_second` are what it measured, and `why` why it was no good.
    """

    sender: str
    receiver: str
    needed: int
    good: int = 0
    probe: int = 0
    begun_at: float = 0.0
    asked_at: float = float("-inf")
    next_at: float = float("-inf")
    round_trip_seconds: float = 0.0
    bytes_per_second: float = 0.0
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.good >= self.needed

    def begin(self, probe: int, now: float) -> None:
        self.probe, self.begun_at, self.asked_at = probe, now, now

    def ended(self, round_trip: float, rate: float, why: str, rules: RdmaRules, now: float) -> None:
        """The probe that was under way was answered."""
        self.probe, self.why = 0, why
        self.good = 0 if why else self.good + 1
        if why:
            self.needed = rules.good_to_return
        else:
            self.round_trip_seconds, self.bytes_per_second = round_trip, rate
        self.next_at = now + (rules.probe_again_after if why else rules.between_probes)

    def in_words(self) -> str:
        """Why the hop is not on RDMA, or ""."""
        if self.passed:
            return ""
        if self.why:
            return f"the probe failed: {self.why}"
        return f"it is being probed: {self.good} of {self.needed} good"

    def check_integrity(self) -> None:
        assert self.good >= 0, "good probes"
        assert self.needed >= 1, "a hop without probes"
        assert not (self.why and self.good), "good probes after a bad one"
