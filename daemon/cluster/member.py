"""One node as the coordinator knows it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon import messages as msg
from daemon.layers import LayerRange


@dataclass(frozen=True, slots=True)
class Holding:
    """Weights that a stage process has in memory."""

    digest: str
    layers: LayerRange


@dataclass(slots=True)
class Member:
    """`*_at` are times of the coordinator's clock, 0.0 for never."""

    name: str
    node: msg.NodeHello | None = None
    node_at: float = 0.0
    joined_at: float = 0.0
    memory_free_bytes: int = 0
    stage: msg.StageHello | None = None
    beat: msg.Heartbeat | None = None
    beat_at: float = 0.0
    holding: Holding | None = None
    loading: Holding | None = None
    loaded: msg.Loaded | None = None
    load_again_at: float = 0.0
    assigned: int = 0
    restarts: int = 0
    draining: bool = False
    suspect: bool = False
    trouble: str | None = None

    @property
    def state(self) -> str:
        """One of the words of docs/protocol.md."""
        if self.draining:
            return "draining"
        if self.stage is None:
            return "down" if self.trouble else "joining"
        if self.suspect:
            return "suspect"
        if self.loading:
            return "loading"
        return "ready" if self.holding else "idle"

    def stage_gone(self, why: str) -> None:
        """Its process ended or is about to be ended: nothing it held is counted on any more."""
        self.stage = self.beat = self.holding = self.loading = self.loaded = None
        self.assigned = 0
        self.suspect = False
        self.trouble = why
