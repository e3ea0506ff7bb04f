"""What shardctl asks, and what it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
