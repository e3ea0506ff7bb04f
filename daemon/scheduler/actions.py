"""What the scheduler asks its shell to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.scheduler.request import FinishReason, Usage
from transports.frame import Frame


@dataclass(frozen=True, slots=True)
class Send:
    """To the first stage. A link that refuses it is told to the scheduler by `link_failed`."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Deliver:
    """New tokens for the client. `position` is the first one's place in the sequence, prompt
    included. `logprobs` has one entry per token, None when not asked for.
    """

    sequence: bytes
    position: int
    tokens: tuple[int, ...]
    logprobs: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last word on a sequence. `error` says what went wrong, "" when nothing did."""

    sequence: bytes
    reason: FinishReason
    usage: Usage
    error: str = ""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tell every stage, out of band: attempts of the sequence below `attempt` are dead."""

    sequence: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A frame is too old. Heartbeats show which stage is guilty, if any; it was issued again."""

    microbatch: int
    why: str


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the draft model what comes next. Of the sequence it needs tokens [0, position), whose
    hash is `prefix_hash`, and then `tokens`; it is to go on until it has guessed the tokens before
    `until`, and to say each as soon as it has it, those that it has already again
    (`Scheduler.drafted`). A later word on the same sequence replaces this one; `until` at the end
    of `tokens` asks for nothing but to follow. A draft that holds less, or other tokens, says how
    many of the first it holds (`Scheduler.lags`). `constants` are the sequence's, which the draft
    samples with.
    """

    sequence: bytes
    position: int
    prefix_hash: int
    tokens: tuple[int, ...]
    until: int
    constants: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask every stage what it holds, out of band; the scheduler is told by `held`."""


Action = Send | Deliver | Finished | Revoke | Suspect | Propose | Inquire
