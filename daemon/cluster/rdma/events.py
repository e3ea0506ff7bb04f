"""What the machine of RDMA groups is told, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon import messages as msg
from daemon.cluster.events import GroupLost, Note, ToNode
from daemon.cluster.wish import Wish

# --- events: messages of nodes and their rdma processes come as they are --------------------------


@dataclass(frozen=True, slots=True)
class PolicyIs:
    """An operator's word. It also sets the next start free of the pause after the last one."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class ClusterIs:
    """Time has passed, and this is the cluster now: the pipeline's nodes in their order (none while
    it is down), the incarnations of all nodes that are there, and whether no request runs.
    """

    pipeline: tuple[str, ...]
    incarnations: Mapping[str, str]
    idle: bool


@dataclass(frozen=True, slots=True)
class CablesAre:
    """Answer to FindCables. `devices` is JACCL's matrix for the group, `coordinator` an address of
    the first node on the cable (without port), or "". `why` says why there is no matrix, or "".
    """

    group: int
    devices: tuple[tuple[tuple[str, ...], ...], ...]
    coordinator: str
    why: str


@dataclass(frozen=True, slots=True)
class TestWanted:
    """Try RDMA between these two, once; answered by Tested. Refused while another test is under
    way.
    """

    a: str
    b: str


FromRdma = msg.RdmaOffer | msg.RdmaJoined | msg.RdmaProbed | msg.RdmaBeat
Event = FromRdma | GroupLost | PolicyIs | ClusterIs | CablesAre | TestWanted


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToProcess:
    """To the rdma process of this group on this node, a child of that shardd."""

    node: str
    incarnation: str
    group: int
    message: msg.RdmaProbe | msg.Identify


@dataclass(frozen=True, slots=True)
class FindCables:
    """Which devices lead from which of these nodes to which: they are the ranks, in this order."""

    group: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupOver:
    """The group has ended or is about to be ended: no hop may use it. `reason` is for programs."""

    group: int
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Tested:
    """`why` is "" when it went well."""

    a: str
    b: str
    backend: str
    round_trip_seconds: float
    bytes_per_second: float
    why: str


@dataclass(frozen=True, slots=True)
class Remember:
    """What outlasts this coordinator: the operator's word, and what has failed."""

    enabled: bool
    failures: int
    quarantine: tuple[Mapping[str, tuple[str, tuple[str, ...]]], ...]  # of Attempts
    why: str


Action = ToNode | ToProcess | FindCables | Wish | GroupOver | Tested | Remember | Note
