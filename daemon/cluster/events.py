"""What can happen to the cluster, and what the cluster may ask its shell to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon import messages as msg
from daemon.batching import Batching
from daemon.cluster.member import Member
from daemon.footprint import StageMemory
from daemon.hop_path import HopPath
from daemon.layers import LayerRange
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as the coordinator knows it: what to load, how to recognise it, what a pass reads of
    it.

    `embedding_bytes` are what only the first stage has, `head_bytes` those of norm and head, and of
    the embedding where that is the head.
    """

    name: str
    folder: str
    digest: str
    layer_bytes: tuple[int, ...]
    head_bytes: int
    embedding_bytes: int

    @property
    def layers(self) -> int:
        return len(self.layer_bytes)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the pipeline: which node holds which layers."""

    node: str
    layers: LayerRange


# --- events: messages of nodes and stages come as they are -----------------------------------


@dataclass(frozen=True, slots=True)
class ModelWanted:
    """Load this model. `nodes` in pipeline order and `split` in layers; empty: the
    cluster decides. The last stage sends its results to `result_address`.
    `at_once`: with the nodes that are there, without waiting for others to join.
    """

    model: ModelSpec
    result_address: str
    nodes: tuple[str, ...] = ()
    split: tuple[int, ...] = ()
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class ModelUnwanted:
    pass


@dataclass(frozen=True, slots=True)
class NodesDrained:
    """No layers are to be placed on these nodes, whether they are there or not; those that they
    have are left to them.
    """

    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class FrameOverdue:
    """The scheduler has waited too long for this microbatch."""

    microbatch: int


@dataclass(frozen=True, slots=True)
class RebalanceWanted:
    """Move the running pipeline to this layout. Computing again all that it holds would take
    `replay_seconds`: where copying it takes longer, that is done instead. PlacementError when it is
    no layout for this cluster now.
    """

    slots: tuple[Slot, ...]
    replay_seconds: float


@dataclass(frozen=True, slots=True)
class RebalanceUnwanted:
    """Go on as before."""

    why: str


@dataclass(frozen=True, slots=True)
class BarrierReturned:
    """The barrier of this epoch has come out of the ring, behind all results."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. For `stalled` seconds of it the coordinator itself stood still (its machine
    slept, or was overloaded): whose silence that was nobody knows.
    """

    stalled: float = 0.0


FromMember = (
    msg.NodeHello
    | msg.StageHello
    | msg.Loaded
    | msg.LoadFailed
    | msg.Assigned
    | msg.Heartbeat
    | msg.NodeHeartbeat
    | msg.ChildExited
    | msg.Goodbye
    | msg.LinkFailed
    | msg.PathTaken
    | msg.PathLost
    | msg.Prepared
    | msg.Giving
)
Event = (
    FromMember
    | ModelWanted
    | ModelUnwanted
    | NodesDrained
    | FrameOverdue
    | RebalanceWanted
    | RebalanceUnwanted
    | BarrierReturned
    | Tick
)


# --- actions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToNode:
    node: str
    message: msg.Message


@dataclass(frozen=True, slots=True)
class ToStage:
    node: str
    message: msg.Message


@dataclass(frozen=True, slots=True)
class PipelineUp:
    """Every stage of this epoch is in its place. Seconds are those measured when it loaded.
    `moved`: behind a barrier, with the KV of the layout before, which was up until now.
    """

    term: int
    epoch: int
    slots: tuple[Slot, ...]
    first_address: str
    step_seconds: tuple[tuple[tuple[int, float], ...], ...]
    prefill_token_seconds: tuple[float, ...]
    mixed: bool  # every stage takes several positions of several sequences at once
    memory: tuple[StageMemory, ...]
    codec_costs: tuple[Mapping[Codec, Cost], ...]  # of each stage, where it can use them
    kept: Mapping[str, tuple[str, LayerRange]]  # by node: another stage, or layers, hold no KV
    moved: bool

    @classmethod
    def of(
        cls,
        term: int,
        epoch: int,
        slots: tuple[Slot, ...],
        members: Sequence[Member],
        moved: bool = False,
    ) -> PipelineUp:
        """The members hold the layers of these slots."""
        loaded = [m.loaded for m in members if m.loaded]
        return cls(
            term,
            epoch,
            slots,
            loaded[0].data_address,
            tuple(tuple((int(n), s) for n, s in one.step_seconds) for one in loaded),
            tuple(one.prefill_token_seconds for one in loaded),
            all(one.batching == Batching.SPANS.value for one in loaded),
            tuple(m.memory for m in members),
            tuple(m.codec_costs for m in members),
            {
                m.name: (m.stage.incarnation, slot.layers)
                for m, slot in zip(members, slots, strict=True)
                if m.stage
            },
            moved,
        )


@dataclass(frozen=True, slots=True)
class PipelineDown:
    """Requests wait; `why` is for people. `intended`: no stage has ended, so that none of the
    requests can be what has ended it.
    """

    why: str
    intended: bool


@dataclass(frozen=True, slots=True)
class SendBarrier:
    """Nothing is to be sent in this epoch after a barrier, which is to be sent now."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RebalanceEnded:
    """The pipeline is up in the wanted layout, or `why` says why it is not. KV was copied, so many
    bytes, or is computed again (`replayed`).
    """

    why: str
    copied_bytes: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class LinkLost:
    """A frame could not be handed over: it is to be issued again."""

    microbatch: int
    why: str


@dataclass(frozen=True, slots=True)
class FramesLost:
    """A path ended, and nobody knows what was on it: all that is in flight is issued again."""

    why: str


@dataclass(frozen=True, slots=True)
class GroupLost:
    """A group of rdma processes is over for its hops, whoever has said so: `reason` is for
    programs.
    """

    group: int
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Frames from stage number `stage` to the next one go by this path from now on."""

    stage: int
    path: HopPath


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """The wanted model is in place, or `failure` says why it is not."""

    failure: msg.Failure | None


@dataclass(frozen=True, slots=True)
class Note:
    """Something people want to know: goes to the log and to `shardctl events`."""

    kind: str
    node: str
    text: str


Action = (
    ToNode
    | ToStage
    | PipelineUp
    | PipelineDown
    | SendBarrier
    | RebalanceEnded
    | LinkLost
    | FramesLost
    | GroupLost
    | PathChanged
    | LoadEnded
    | Note
)
