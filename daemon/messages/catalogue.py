"""The messages themselves, by who says what to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daemon.messages.drafting import DraftBeat, DraftHello, DraftLags, Propose, Proposed
from daemon.messages.saved_kv import (
    DiskQuery,
    DropKv,
    KvRestored,
    KvSaved,
    KvStored,
    LoadKv,
    SaveKv,
)

PROTOCOL = 1

# --- hello and welcome ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeHello:
    """A shardd says who it is, and the highest term it has obeyed; again on every reconnect."""

    protocol: int
    version: str
    node: str
    incarnation: str
    pid: int
    host: str
    system: str
    python: str
    cores: int
    memory_bytes: int
    term: int


@dataclass(frozen=True, slots=True)
class StageHello:
    """A stage process says who it is, whose child, and the highest term it has obeyed. What it
    holds it says in Loaded, right after.
    """

    protocol: int
    version: str
    node: str
    node_incarnation: str
    incarnation: str
    pid: int
    mlx: str
    mlx_lm: str
    device: str
    blas: str
    term: int


@dataclass(frozen=True, slots=True)
class Welcome:
    term: int
    cluster: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The sender may not take part: what differs, why that matters, what to do."""

    what: str
    why: str
    todo: str


@dataclass(frozen=True, slots=True)
class Identify:
    """The coordinator does not know the sender (it may be a new one): say hello again."""

    term: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The node wants to leave on purpose; answered by Drained when no request needs it any more."""

    node: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Drained:
    node: str


# --- coordinator to stage -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Hold layers [start, end) of the model in `folder`, whose weights digest must be `digest`."""

    term: int
    model: str
    folder: str
    digest: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Take place `stage` in the pipeline of `epoch` and send on to `next_address`; frames of lower
    epochs are dropped.
    """

    term: int
    epoch: int
    stage: int
    next_address: str
    chunk_tokens: int


@dataclass(frozen=True, slots=True)
class Unload:
    term: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Spans of `sequence` with an attempt below `attempt` need not be computed any more, wherever
    they are queued.
    """

    term: int
    sequence: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class KvQuery:
    query: int


# --- stage to coordinator -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a stage holds and where it takes frames for it. Seconds are measured on this stage when
    it warmed up, its predicted times before any work was seen: `step_seconds` are pairs of a number
    of sequences and the time of a step of so many. `batching` says what of several sequences the
    model takes together. `kv_footprints` are bits, bytes per token and bytes per sequence of each
    type of KV; `kv_reach` is by how many tokens a cache can always be cut exactly, None: by any.
    `codec_seconds` are two numbers for each wire codec that can write this model's rows: what a
    frame costs to encode and decode, and what each row of it does.
    """

    node: str
    incarnation: str
    digest: str
    start: int
    end: int
    data_address: str
    weights_bytes: int
    tensors_opened: int
    load_seconds: float
    step_seconds: list[list[float]]
    prefill_token_seconds: float
    compiled: bool
    batching: str
    kv_budget_bytes: int
    kv_footprints: list[list[int]]
    kv_reach: int | None
    codec_seconds: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The layers that were asked for are not held, and why."""

    node: str
    incarnation: str
    digest: str
    start: int
    end: int
    what: str
    why: str
    todo: str


@dataclass(frozen=True, slots=True)
class Assigned:
    node: str
    incarnation: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Progress of a stage process, from its own thread: it goes on while the process computes, and
    stops when it hangs.

    It says what the stage holds (no digest: nothing) and in which epoch it has its place, so that
    whatever was said and lost is noticed. `microbatch` is the one being computed, since
    `busy_seconds`; 0 when idle. `link` is the state of the link to the next stage. `clock` is the
    sender's monotonic time, echoed in HeartbeatAck, from which the sender learns the coordinator's
    clock.
    """

    node: str
    incarnation: str
    pid: int
    clock: float
    epoch: int
    digest: str
    start: int
    end: int
    frames_received: int
    frames_started: int
    frames_finished: int
    microbatch: int
    busy_seconds: float
    loading: bool
    bytes_loaded: int
    bytes_total: int
    sequences: int
    kv_bytes: int
    resident_bytes: int
    dropped: dict[str, int]
    link: str


@dataclass(frozen=True, slots=True)
class HeartbeatAck:
    clock: float
    coordinator_clock: float


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """A stage could not hand this microbatch's frame to the next one."""

    node: str
    incarnation: str
    epoch: int
    stage: int
    microbatch: int
    why: str


@dataclass(frozen=True, slots=True)
class KvReport:
    """One map per sequence: sequence (hex), tokens, bytes, kind, kv_bits."""

    query: int
    node: str
    sequences: list[dict[str, Any]]


# --- coordinator and shardd -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KillStage:
    """The stage or draft process `pid` makes no progress: end it with SIGKILL and start it anew."""

    term: int
    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    """`stage_pid` is 0 while there is no stage process."""

    node: str
    incarnation: str
    memory_free_bytes: int
    stage_pid: int


@dataclass(frozen=True, slots=True)
class ChildExited:
    """`reason` is typed: signal, out-of-memory, exit, start; `retry_seconds` < 0 when the
    crash-loop breaker has opened.
    """

    node: str
    incarnation: str
    child: str
    pid: int
    reason: str
    detail: str
    restarts: int
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class LogsQuery:
    query: int
    child: str
    lines: int


@dataclass(frozen=True, slots=True)
class LogsReport:
    query: int
    node: str
    lines: list[str]


# --- shardctl -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """`verb` with its arguments (daemon.control lists them). Answered by one Reply or Failure;
    streams send Chunks before it.
    """

    protocol: int
    request: int
    verb: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    request: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    request: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """`code` is the exit code shardctl ends with (DESIGN.md §11)."""

    request: int
    code: int
    what: str
    why: str
    todo: str


Message = (
    NodeHello
    | StageHello
    | Welcome
    | Refused
    | Identify
    | Goodbye
    | Drained
    | Load
    | Assign
    | Unload
    | Revoke
    | KvQuery
    | SaveKv
    | LoadKv
    | DropKv
    | DiskQuery
    | Loaded
    | LoadFailed
    | Assigned
    | Heartbeat
    | HeartbeatAck
    | LinkFailed
    | KvReport
    | KvSaved
    | KvRestored
    | KvStored
    | DraftHello
    | DraftBeat
    | Propose
    | Proposed
    | DraftLags
    | KillStage
    | NodeHeartbeat
    | ChildExited
    | LogsQuery
    | LogsReport
    | Request
    | Chunk
    | Reply
    | Failure
)
