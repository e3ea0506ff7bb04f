"""The frame that a stage sends on, made of the one that came and of what was computed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.engine.stage import Row, Sampled
from transports.codecs.layout import Codec
from transports.frame import Departure, Frame, FrameKind, Span, Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """A span that is to be computed: its tokens, where its rows stand in the frame that came, and
    how they are to be written in the one that goes.
    """

    span: Span
    tokens: tuple[int, ...]
    row: Row
    offset: int
    codec: Codec


def to_next(
    frame: Frame, work: Sequence[Work], departures: Sequence[Departure], sent: tuple[Tensor, ...]
) -> Frame:
    """WORK for the next stage: the spans that are left, and their hidden states."""
    constants = frame.constants
    return replace(
        frame,
        spans=tuple(w.span for w in work),
        tokens=tuple(t for w in work for t in w.tokens),
        constants={s: constants[s] for w in work if (s := w.span.sequence) in constants},
        departures=(*frame.departures, *departures),
        tensors=sent,
    )


def to_coordinator(
    frame: Frame,
    work: Sequence[Work],
    departures: Sequence[Departure],
    results: Sequence[Sampled] = (),
) -> Frame:
    """The RESULT, with what was sampled: nothing at the end of a refill."""
    return replace(
        frame,
        kind=FrameKind.RESULT,
        spans=tuple(w.span for w in work),
        tokens=tuple(t for result in results for t in result.tokens),
        constants={},
        departures=(*frame.departures, *departures),
        logprobs={
            w.span.sequence: result.logprobs
            for w, result in zip(work, results, strict=False)
            if result.logprobs is not None
        },
        tensors=(),
    )
