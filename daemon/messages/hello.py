"""Hello and welcome: who joins, and who leaves."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = 1


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
