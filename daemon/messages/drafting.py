"""The messages between the coordinator and a draft process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DraftHello:
    """A draft process says who it is, whose child, the highest term it has obeyed, and which model
    it guesses with. `vocabulary` is the digest of its tokenizer's ids and tokens; `token_seconds`
    what a guess takes, None while it is loading.
    """

    protocol: int
    version: str
    node: str
    node_incarnation: str
    incarnation: str
    pid: int
    model: str
    digest: str
    vocab_size: int
    vocabulary: str
    token_seconds: float | None
    term: int


@dataclass(frozen=True, slots=True)
class DraftBeat:
    """It makes progress: said between two steps, and while nothing is asked. A draft that computes
    for ever is silent.
    """

    node: str
    incarnation: str
    token_seconds: float | None
    sequences: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Guess what follows the first `position` tokens of the sequence, whose hash is `prefix_hash`,
    and `tokens`, up to the length `until`. It replaces what was asked of the sequence before.
    """

    term: int
    sequence: bytes
    position: int
    prefix_hash: int
    tokens: list[int]
    until: int
    constants: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proposed:
    """`tokens` are guessed from `position` on, after tokens whose hash is `prefix_hash`."""

    node: str
    incarnation: str
    sequence: bytes
    position: int
    prefix_hash: int
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class DraftLags:
    """What was asked starts beyond the `held` tokens that are known here; 0: others are known."""

    node: str
    incarnation: str
    sequence: bytes
    held: int
