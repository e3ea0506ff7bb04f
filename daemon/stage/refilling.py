"""What a stage does with a frame that refills some of the stages (transports.frame.Refill)."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from daemon.stage.hidden_log import HiddenLog
from daemon.stage.ledger import SpanLedger
from transports.frame import Departure, Frame, Refill, Span, Tensor


class Part(Enum):
    """Of one stage in a frame."""

    COMPUTE = "compute"
    LEND = "lend"  # it adds the hidden states that it sent on before
    PASS = "pass"  # it hands the frame on as it is


def part_of(refill: Refill | None, stage: int) -> Part:
    """Of a frame that is no refill every stage computes its part."""
    if refill is None or stage in refill:
        return Part.COMPUTE
    return Part.LEND if stage == refill.first - 1 else Part.PASS


def lend(frame: Frame, ledger: SpanLedger, log: HiddenLog) -> Frame:
    """With the rows that the next stage is to compute from, those of each span in a tensor. A span
    of which not all were kept, or whose tokens are not those that led to them, leaves.
    """
    spans: list[Span] = []
    tokens: list[int] = []
    tensors: list[Tensor] = []
    departures: list[Departure] = []
    offset = 0
    for span in frame.spans:
        own = frame.tokens[offset : offset + span.length]
        offset += span.length
        departure = ledger.lend(span, own)
        rows = log.rows(span.sequence, span.position, span.position + span.length)
        if departure is None and rows is not None:
            spans.append(span)
            tokens += own
            tensors.append(rows)
        else:
            departures.append(departure or ledger.lacks(span))
    return replace(
        frame,
        spans=tuple(spans),
        tokens=tuple(tokens),
        tensors=tuple(tensors),
        departures=(*frame.departures, *departures),
    )
