"""How layers move between stages while these go on computing (DESIGN.md §9). `move` is the number
of a rebalance within a term, from 1 on; what a stage says of one names both, as it may be late.

    coordinator                     a stage that gains layers         a stage that gives some
    Prepare      ────────────────►  loads them in the background
                 ◄──── Prepared ──
    Give         ───────────────────────────────────────────────────►  sends its KV of them, and
                 ◄──────────────────────────────────────── Giving ───  what changes of it
    Switch       ────────────────►  waits
    the barrier  ──────────────────── through the ring ──────────────►  sends the last of it
                                    has the KV: takes its new place
                 ◄─ Loaded, Assigned
    Settle       ────────────────►  lets go of what it was            ► and what it gave

Each of the coordinator's messages may be sent twice, and is answered twice then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load layers [start, end) of the model beside those that you compute with, which go on.
    Answered by Prepared. One of another move takes the place of what was prepared before. To a
    `spare`, which has no place now: layers that you hold need not be loaded, but their KV is of an
    earlier layout, and all that counts is given.
    """

    term: int
    move: int
    model: str
    folder: str
    digest: str
    start: int
    end: int
    spare: bool


@dataclass(frozen=True, slots=True)
class Give:
    """Send the KV of all sequences to these stages, maps of address, start and end (layers), and
    whatever is new of it until the barrier of this epoch comes; then the last of it. Answered by
    Giving, several times a second.
    """

    term: int
    move: int
    takers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Switch:
    """Take place `stage` in the pipeline of `epoch`, with the layers prepared for this move or,
    when none were, with those that you have, and send on to `next_address`: as soon as the KV of
    so many `givers` is complete and, with `barrier`, the barrier of the present epoch has passed.
    Answered by Loaded, where the layers change, and Assigned.
    """

    term: int
    move: int
    epoch: int
    stage: int
    next_address: str
    chunk_tokens: int
    givers: int
    barrier: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """The move is over, or given up. Let go of all that your present place does not need."""

    term: int
    move: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """The layers of this move are loaded, and KV of them is taken at `kv_address`; or `why` says
    why not, and `todo` what can be done about it. `data_address` is where frames are taken.
    """

    node: str
    incarnation: str
    term: int
    move: int
    start: int
    end: int
    data_address: str
    kv_address: str
    load_seconds: float
    why: str
    todo: str


@dataclass(frozen=True, slots=True)
class Giving:
    """Bytes of KV that were handed over, and those that are left to be, which grow while the stage
    computes. `why` says what went wrong, "" when nothing did.
    """

    node: str
    incarnation: str
    term: int
    move: int
    sent_bytes: int
    left_bytes: int
    why: str
