"""How hops come to use RDMA, and stop. `group` numbers the groups; it only grows, also over terms.

    coordinator        shardd              rdma process             stage
                ◄──── RdmaOffer
    RdmaStart   ─────► starts it
                ◄─────────────────────────  RdmaJoined
    RdmaProbe   ─────────────────────────►  tries its neighbours
                ◄─────────────────────────  RdmaProbed
    TakePath    ────────────────────────────────────────────────►   sends by it
                ◄────────────────────────────────────────────────   PathTaken; PathLost when it ends
    RdmaStop    ─────► ends it
                ◄──── RdmaOffer, ChildExited

Each of the coordinator's messages may be sent twice, and is answered twice then. What runs and what
has ended is in every RdmaOffer, so that a coordinator that has just started knows it too; the
process says RdmaJoined again when it is asked who it is (Identify).
"""

from __future__ import annotations

from dataclasses import dataclass

# --- coordinator and shardd -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RdmaOffer:
    """What a node could do and what it does: said after Welcome, when it changes, and every few
    seconds. `backends` are those of mx.distributed that it may use, best first; `address` is where
    its part of the next group would listen (host:port), `devices` the RDMA devices by name,
    `unplugged` those whose ports have no cable, for certain. `boot` names the boot; `starts_left`
    is how many more groups may be started in it, `why_not` why none may be: "" when one may.

    `group`, `rank`, `size` and `pid` are those of the rdma process that there is now (`group` 0:
    there is none). `ended` is the last group that has ended here, or was to be ended before it
    began, `reason` (for programs) and `detail` (for people) how.
    """

    node: str
    incarnation: str
    boot: str
    backends: list[str]
    address: str
    devices: list[str]
    unplugged: list[str]
    starts_left: int
    why_not: str
    group: int
    backend: str
    rank: int
    size: int
    pid: int
    ended: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RdmaStart:
    """Start the rdma process: `rank` of a group over `hosts` (one address per rank). `devices` is
    JACCL's matrix, one row per rank; empty for other back ends.
    """

    term: int
    group: int
    backend: str
    rank: int
    hosts: list[str]
    devices: list[list[list[str]]]


@dataclass(frozen=True, slots=True)
class RdmaStop:
    term: int
    group: int
    why: str


# --- coordinator and rdma process -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RdmaJoined:
    """The group stands, and the stage of this node is connected or will be when it listens. `reach`
    are the ranks that this one can send to.
    """

    node: str
    incarnation: str
    group: int
    rank: int
    reach: list[int]
    pid: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RdmaProbe:
    """Try the way to `peer` (a rank) and back: a checksum, the round trip, the bandwidth."""

    term: int
    group: int
    probe: int
    peer: int


@dataclass(frozen=True, slots=True)
class RdmaProbed:
    """`why` is "" when it went well; seconds there and back of a small message (the median), and
    bytes per second of large ones.
    """

    node: str
    incarnation: str
    group: int
    probe: int
    peer: int
    round_trip_seconds: float
    bytes_per_second: float
    why: str


@dataclass(frozen=True, slots=True)
class RdmaBeat:
    """Every heartbeat_s while a group stands. `stage`: whether the stage of the node is connected.
    What went out came from it, what came in was for it; `dropped` is counted by cause. Seconds from
    the stage to this process, of the last 1024 frames that went out.
    """

    node: str
    incarnation: str
    group: int
    rank: int
    stage: bool
    frames_out: int
    bytes_out: int
    frames_in: int
    bytes_in: int
    dropped: dict[str, int]
    handover_p50: float
    handover_p99: float


# --- coordinator and stage ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakePath:
    """Send on to the next stage by `path`, "zmq" or "rdma", there to `rank` of `group`. `turn`
    numbers the switches within a term, and only grows. To "zmq" of no group (0): that which is left
    is over, and nothing more is to be said by it.
    """

    term: int
    epoch: int
    turn: int
    path: str
    group: int
    rank: int


@dataclass(frozen=True, slots=True)
class PathTaken:
    """Answer to TakePath. `path` is the one in use; `why` says why, if not the one asked for."""

    node: str
    incarnation: str
    epoch: int
    turn: int
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class PathLost:
    """RDMA ended under this stage: frames may be lost that it sent (`sending`) or that were on
    their way to it. `reason` is for programs: gone, stalled, damaged.
    """

    node: str
    incarnation: str
    epoch: int
    group: int
    sending: bool
    reason: str
    why: str
