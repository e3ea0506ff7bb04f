"""One rebalance as those see it who wait for it: where it is, and what it was like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon.cluster.events import RebalanceEnded
from daemon.coordinator.answer import Answer
from daemon.coordinator.change import Change
from daemon.coordinator.gaps import GapWatch


@dataclass(slots=True)
class Move:
    """`told` is what is known of it beforehand. `answer`: who waits for its end, None: nobody.
    `settled` is called once it is over, with why it was given up, or "". `seconds` by phase, in
    their order; `why` says why KV is computed again and not copied.
    """

    change: Change
    told: dict[str, Any]
    began: float
    watch: GapWatch
    answer: Answer | None
    settled: Callable[[str], object]
    phase: str = ""
    phase_at: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    why: str = ""
    ended: RebalanceEnded | None = None
    ended_at: float = 0.0

    def enter(self, phase: str, now: float) -> None:
        """It is in this phase; the one before it took until now."""
        if self.phase == phase:
            return
        if self.phase:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.phase_at
        self.phase, self.phase_at = phase, now

    def end(self, ended: RebalanceEnded, now: float) -> None:
        self.enter("", now)
        self.ended, self.ended_at = ended, now

    def result(self, epoch: int) -> dict[str, Any]:
        """In the shape of docs/protocol.md."""
        assert self.ended
        gap = self.watch.longest
        return {
            "epoch": epoch,
            "seconds": self.seconds,
            "loaded_bytes": sum(self.change.load_bytes.values()),
            "copied_bytes": self.ended.copied_bytes,
            "replayed": self.ended.replayed,
            "why": self.why or None,
            "tokens": self.watch.tokens,
            "longest_gap": gap.to_wire() if gap else None,
        }
