"""What the coordinator and a stage say to each other; see saved_kv for what is on disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    """Take place `stage` in the pipeline of `epoch`, with layers [start, end), and send on to
    `next_address`; frames of lower epochs are dropped.
    """

    term: int
    epoch: int
    stage: int
    next_address: str
    chunk_tokens: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Measure what this machine makes of the model's layers, which takes seconds: for a stage that
    has no place in the pipeline. Answered by Profiled.
    """

    term: int
    query: int
    model: str
    folder: str
    digest: str


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
    of sequences and the time of a step of so many, `head_seconds` those of norm, head and sampling
    in a step of one, 0 where they are not. `batching` says what of several sequences the
    model takes together. `memory_bytes` are for weights and KV, `kv_budget_bytes` for KV beside
    these layers. `kv_footprints` are bits, bytes per token and bytes per sequence of each
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
    head_seconds: float
    compiled: bool
    batching: str
    memory_bytes: int
    kv_budget_bytes: int
    kv_footprints: list[list[int]]
    kv_reach: int | None
    codec_seconds: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Profiled:
    """Seconds of a step of one token on `layers` layers and on the head, and per token of a prompt
    on these layers; bytes that weights and KV may have together. `why` is "" unless it could not be
    measured.
    """

    query: int
    node: str
    digest: str
    start: int
    end: int
    layer_seconds: float
    prefill_token_seconds: float
    head_seconds: float
    memory_bytes: int
    why: str


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
    whatever was said and lost is noticed. `move` is the rebalance (of `move_term`) that it holds
    something for beside that, 0: none. `microbatch` is the one being computed, since
    `busy_seconds`; 0 when idle. `link` is the state of the link to the next stage, `path` the one
    that frames take there, since switch number `turn` of this term, 0: since it has its place.
    `clock` is the sender's monotonic time, echoed in HeartbeatAck, from which the sender learns the
    coordinator's clock.
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
    move_term: int
    move: int
    resident_bytes: int
    dropped: dict[str, int]
    link: str
    path: str
    turn: int


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
