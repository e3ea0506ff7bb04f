"""What the coordinator and a shardd say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True, slots=True)
class PortsQuery:
    """What are the machine's Thunderbolt ports like? Answered in the time that a tool has and a
    moment, also when tools hang. `fresh`: not as they were a moment ago. With a `salt` the answer
    has what the tools said, redacted with it; "" means not.
    """

    query: int
    fresh: bool
    salt: str


@dataclass(frozen=True, slots=True)
class PortsReport:
    """`facts` are those of `daemon.thunderbolt.facts.Machine`, `outputs` by tool."""

    query: int
    node: str
    facts: dict[str, Any]
    outputs: dict[str, str]
