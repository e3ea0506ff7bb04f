"""The layout that the scheduler works for, as its shell describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.footprint import StageMemory
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec
from transports.frame import DType


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage measured of itself when it warmed up: seconds of a step by the number of
    sequences in it, from one upwards.
    """

    step_seconds: tuple[tuple[int, float], ...]
    prefill_token_seconds: float


@dataclass(frozen=True, slots=True)
class Hop:
    """From one stage to the next, whose first layer is `layer`: rows of `width` values that the
    model has as `dtype`. `costs` of coding them, of both ends together, by the codecs that both can
    use.
    """

    layer: int
    width: int
    dtype: DType
    costs: Mapping[Codec, Cost]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """`chunk_tokens` is the most tokens one prefill frame may have, `context_length` the most that
    a sequence may have, prompt and answer together. `mixed`: pieces of a prompt may ride in the
    steps of others. `memory` of each stage; none: not limited. `hops` between
    the stages; none: nothing is known of them, and all are raw.
    """

    term: int
    epoch: int
    stages: tuple[StageCost, ...]
    context_length: int
    chunk_tokens: int
    mixed: bool = True
    memory: tuple[StageMemory, ...] = ()
    hops: tuple[Hop, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """How many stages there are, and where they begin, as far as that is known: with others a
        stage of the same number is another one.
        """
        return (len(self.stages), *(hop.layer for hop in self.hops))

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a pipeline has at least one stage")
        if any(not s.step_seconds or min(s.step_seconds)[0] != 1 for s in self.stages):
            raise ValueError("every stage measures at least a step of one sequence")
        if self.context_length < 2 or self.chunk_tokens < 1:
            raise ValueError("context_length must be 2 or more, chunk_tokens 1 or more")
        if self.memory and len(self.memory) != len(self.stages):
            raise ValueError("memory is of every stage, or of none")
        if self.hops and len(self.hops) != len(self.stages) - 1:
            raise ValueError("hops are all those between stages, or none")


@dataclass(frozen=True, slots=True)
class Limits:
    """At most `max_kept` sequences are kept after their end. One that runs has memory for
    `headroom` tokens more than it has, so that it asks seldom. A frame is overdue after
    grace_seconds + patience * its predicted time. A sequence is given up after `max_failures`
    passes that raised at one place, in the last of which it was computed alone, or `max_repeats`
    re-issues without progress in one layout, which takes minutes, or as many falls back before it
    came further than ever: so a request that no stage can read ends. A link that is down is waited
    for. A request during which the pipeline went down `alone_downs` times without any progress of
    its own is computed alone until there is some, so that one that ends the stages is told from
    those beside it; after `max_downs` times it is taken for the cause. Each try without progress
    doubles the time allowed, so that a stage that is slower than anybody foresaw is waited for in
    the end. `speculate`: whether tokens may be guessed, where that promises more. `codec`: how
    hidden states are to be written, a Codec's name or AUTO.
    """

    max_running: int = 64
    max_waiting: int = 1024
    max_kept: int = 256
    headroom: int = 64
    grace_seconds: float = 3.0
    patience: float = 4.0
    backoff_seconds: float = 0.1
    backoff_cap_seconds: float = 5.0
    max_failures: int = 3
    max_repeats: int = 20
    alone_downs: int = 2
    max_downs: int = 5
    speculate: bool = True
    codec: str = Codec.RAW.value

    def backoff(self, repeats: int) -> float:
        """Seconds to wait before re-issue number `repeats` without progress: the first at once."""
        if repeats <= 1:
            return 0.0
        doubled: float = self.backoff_seconds * 2.0 ** min(repeats - 2, 20)
        return min(self.backoff_cap_seconds, doubled)
