"""One node as the coordinator knows it: what was reported, and what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from daemon import messages as msg
from daemon.footprint import Footprint, StageMemory
from daemon.layers import LayerRange
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec


@dataclass(frozen=True, slots=True)
class Holding:
    """Weights that a stage process has in memory."""

    digest: str
    layers: LayerRange


@dataclass(slots=True)
class Member:
    """`*_at` are times of the coordinator's clock. `loaded`, `beat` and `assigned` are what the
    stage reported; `asked` is the last Load sent to it, None after an Unload. `given_up`: its
    shardd does not start its stage any more. In a rebalance, `prepared` and `giving` are its last
    words, and `former` is what it still has of the layout before. `drained`: an operator wants it
    to have no layers.
    """

    name: str
    node: msg.NodeHello | None = None
    node_at: float = 0.0
    joined_at: float = 0.0
    memory_free_bytes: int = 0
    stage_pid: int = 0
    stage_pid_at: float = 0.0
    stage: msg.StageHello | None = None
    beat: msg.Heartbeat | None = None
    beat_at: float = 0.0
    loaded: msg.Loaded | None = None
    loaded_at: float = 0.0
    assigned: int = 0
    asked: Holding | None = None
    asked_at: float = float("-inf")
    load_again_at: float = 0.0
    prepared: msg.Prepared | None = None
    prepared_at: float = 0.0
    giving: msg.Giving | None = None
    giving_at: float = 0.0
    former: Holding | None = None
    settled_at: float = float("-inf")
    restarts: int = 0
    draining: bool = False
    drained: bool = False
    suspect: bool = False
    trouble: str | None = None
    given_up: bool = False

    @property
    def holding(self) -> Holding | None:
        """What the stage says it holds."""
        if self.loaded is None:
            return None
        return Holding(self.loaded.digest, LayerRange(self.loaded.start, self.loaded.end))

    def can_take(self, need: Holding) -> bool:
        """Whether an Assign is enough: it holds these layers, or has them beside what it holds."""
        return need == self.holding or self.has_beside(need)

    def has_beside(self, need: Holding) -> bool:
        """Whether a rebalance has left it these layers."""
        if need == self.former:
            return True
        told = self.prepared
        return bool(told and not told.why and need.layers == LayerRange(told.start, told.end))

    @property
    def data_address(self) -> str:
        """Where it takes frames; empty where that is not known."""
        told = self.loaded or self.prepared
        return told.data_address if told else ""

    @property
    def memory(self) -> StageMemory:
        """What the stage says it has for KV."""
        if self.loaded is None:
            raise ValueError(f"{self.name} has said nothing of its memory")
        footprints = {bits: Footprint(*sizes) for bits, *sizes in self.loaded.kv_footprints}
        return StageMemory(self.loaded.kv_budget_bytes, footprints, self.loaded.kv_reach)

    @property
    def codec_costs(self) -> dict[Codec, Cost]:
        """What the stage says that wire codecs cost it, where it can use them."""
        told = {} if self.loaded is None else self.loaded.codec_seconds
        return {Codec(name): Cost(*seconds) for name, seconds in told.items()}

    @property
    def loading(self) -> bool:
        return self.asked is not None and self.holding != self.asked

    @property
    def state(self) -> str:
        """One of the words of docs/protocol.md."""
        if self.draining:
            return "draining"
        if self.stage is None:
            return "down" if self.trouble else "joining"
        if self.suspect:
            return "suspect"
        if self.drained and self.holding is None:
            return "drained"
        if self.loading:
            return "loading"
        return "ready" if self.loaded else "idle"

    def stage_gone(self, why: str | None) -> None:
        """Its process ended or is about to be ended: nothing it held is counted on any more."""
        self.stage = self.beat = self.loaded = self.asked = None
        self.assigned = 0
        self.asked_at = float("-inf")
        self.load_again_at = 0.0
        self.settled()
        self.suspect = False
        self.trouble = why

    def settled(self) -> None:
        """It is asked to let go of all that its place does not need."""
        self.prepared = self.giving = self.former = None

    def busy_on(self, microbatch: int, now: float) -> float:
        """Seconds that the stage has computed this microbatch, or one before it; 0 when it does
        not. Its heartbeat was true when it was sent, and its silence since then counts as
        computing.
        """
        beat = self.beat
        if self.stage is None or beat is None or not 0 < beat.microbatch <= microbatch:
            return 0.0
        return beat.busy_seconds + max(0.0, now - self.beat_at)
