"""What travels on a link: a frame, its spans, and what was done with them on the way.

A WORK frame asks the stages for a microbatch. It starts at the coordinator with token ids, goes
from stage to stage with hidden states, and the last stage answers the coordinator with a RESULT
frame. Everything a stage needs to judge the work is in the frame (DESIGN.md §3): `term` and `epoch`
of the layout, and for each span the sequence, the attempt, the position it starts at and the hash
of the tokens before it.

These are plain values; `transports.wire` turns them into bytes and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

SEQUENCE_ID_BYTES = 16
FINAL_ATTEMPT = (1 << 32) - 1  # the largest that fits its field: no attempt is above it
MAX_REFILLED = 255  # the highest `end` that fits its field


class FrameKind(IntEnum):
    WORK = 1
    RESULT = 2


class DType(IntEnum):
    """Element types a tensor may have on a link; the value is what stands in the frame."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT32 = 4
    UINT8 = 5
    FP8_ROWS = 6  # bytes, a row of them laid out as transports.codecs.layout says
    INT8_ROWS = 7

    @property
    def itemsize(self) -> int:
        return _ITEMSIZE[self]


_ITEMSIZE = (0, 4, 2, 2, 4, 1, 1, 1)  # at DType's values; an enum as a dictionary's key is slow


class Reason(IntEnum):
    """Why a span left its frame before the end of the pipeline."""

    STALE = 1  # its attempt is below the highest this stage has seen
    DUPLICATE = 2  # it starts below what its attempt has reached
    MISSING = 3  # the stage holds fewer tokens, or others: a Nack; `held` says from where to go on
    FAILED = 4  # computing it raised; the stage's log says what
    CANCELLED = 5  # its sequence was released while it was under way


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence's part of a microbatch: tokens [position, position + length).

    `prefix_hash` is the hash of tokens [0, position) (daemon.history). `outputs` is the number of
    tokens wanted from the last stage, for the last `outputs` positions of the span: 0 in the middle
    of a prefill, 1 for decode.
    """

    sequence: bytes
    attempt: int
    position: int
    length: int
    prefix_hash: int
    outputs: int = 0


@dataclass(frozen=True, slots=True)
class Refill:
    """What stages [first, end) of the pipeline lost is computed again, there and nowhere else, from
    the hidden states that the stage before them has kept (DESIGN.md §9, `stop_at`). The others pass
    the frame on as it is; nothing is sampled, and nothing goes beyond the last of them but the
    header.
    """

    first: int
    end: int

    def __contains__(self, stage: int) -> bool:
        return self.first <= stage < self.end


@dataclass(frozen=True, slots=True)
class Departure:
    """A span that left the frame: at which stage, why, and how many of the sequence's first tokens
    that stage may hold, as far as it can tell.
    """

    sequence: bytes
    attempt: int
    stage: int
    reason: Reason
    held: int


@dataclass(frozen=True, slots=True)
class Release:
    """Command, executed by every stage in the order of frames: forget the sequence and free its
    caches, unless a later attempt than `attempt` has begun; spans of `attempt` and before are
    refused from then on. With FINAL_ATTEMPT the sequence never comes back.
    """

    sequence: bytes
    attempt: int = FINAL_ATTEMPT


@dataclass(frozen=True, slots=True)
class Fork:
    """Command: attempt `attempt` of `target` starts from the first `length` tokens of `source`, and
    whatever the caches have of them. A stage that holds less of the source gives the target less;
    one that holds tokens of the target, or has released this attempt of it, does nothing. It rides
    with the attempt's first span, before which it is executed.
    """

    source: bytes
    target: bytes
    attempt: int
    length: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """Command: no frame of this epoch follows. It leaves the ring as it came."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Command, alone in its frame: the sender of this hop goes over to another path. On the path
    that it leaves comes one that says it is the `last` frame, on the path that it takes one that is
    the first. `number` grows within a term. It is for the next stage's end of the ring, and goes no
    further.
    """

    number: int
    last: bool


Command = Release | Fork | Barrier | Turn


@dataclass(frozen=True, slots=True)
class StageTrace:
    """When a frame reached a stage, was taken up, was computed and was sent on, in seconds of the
    coordinator's clock.
    """

    stage: int
    received: float
    started: float
    computed: float
    sent: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """`data` holds prod(shape) elements of `dtype`, row-major; any object with the buffer protocol,
    never copied here.
    """

    dtype: DType
    shape: tuple[int, ...]
    data: Any

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a link.

    `tokens`: in a WORK frame the spans' new token ids one after another (sum of lengths); in a
    RESULT frame the sampled ids, `outputs` of each span. `constants` maps a sequence to its
    constants in the first frame of an attempt. `logprobs` maps a sequence to one entry per output,
    in RESULT frames, when asked for. `tensors` hold one row per token, the rows of some spans each,
    in the order of the spans: those of a tensor are written alike. With `refill` no span asks for
    tokens, and the frame is for some of the stages only.
    """

    kind: FrameKind
    term: int
    epoch: int
    microbatch: int
    spans: tuple[Span, ...] = ()
    tokens: tuple[int, ...] = ()
    constants: Mapping[bytes, Mapping[str, Any]] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    departures: tuple[Departure, ...] = ()
    traces: tuple[StageTrace, ...] = ()
    logprobs: Mapping[bytes, Any] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()
    refill: Refill | None = None

    @property
    def turn(self) -> Turn | None:
        """What it says of the path that it came by, if that is what it is for."""
        if self.spans or not self.commands:
            return None
        command = self.commands[0]
        return command if isinstance(command, Turn) else None
