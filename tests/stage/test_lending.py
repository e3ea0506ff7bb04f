"""What a stage lends of what it has sent on: rows of the tokens that are asked for, or none."""

from __future__ import annotations

import pytest

from daemon.history import History
from daemon.stage.hidden_log import HiddenLog
from daemon.stage.ledger import SpanLedger
from daemon.stage.refilling import Part, lend, part_of
from transports.frame import Departure, DType, Frame, FrameKind, Reason, Refill, Span, Tensor

A, B = b"a" * 16, b"b" * 16
TOKENS = (11, 12, 13, 14, 15, 16, 17, 18)
OTHER = (11, 12, 99, 14, 15, 16, 17, 18)
REFILL = Refill(3, 4)
STAGE = 2


def span(
    sequence: bytes, attempt: int, position: int, length: int, tokens: tuple[int, ...]
) -> Span:
    return Span(sequence, attempt, position, length, History(tokens).hash_at(position))


def rows(start: int, end: int) -> Tensor:
    return Tensor(DType.UINT8, (end - start, 1), bytes(range(start, end)))


def held(kept: int = 6) -> tuple[SpanLedger, HiddenLog]:
    """Attempt 2 of A with six tokens, and the rows of some of them."""
    ledger, log = SpanLedger(STAGE), HiddenLog(1 << 20)
    first = span(A, 2, 0, 6, TOKENS)
    ledger.admit(first, TOKENS[:6], {"seed": 7})
    log.keep([first], [rows(0, 6)])
    log.trim(A, kept)
    return ledger, log


def asked(*spans: Span, tokens: tuple[int, ...] = TOKENS) -> Frame:
    ids = tuple(t for s in spans for t in tokens[s.position : s.position + s.length])
    return Frame(FrameKind.WORK, 1, 1, 9, spans, ids, refill=REFILL)


def test_rows_of_a_span_are_lent_and_nothing_is_entered() -> None:
    ledger, log = held()
    frame = asked(span(A, 3, 2, 3, TOKENS))
    lent = lend(frame, ledger, log)
    assert (lent.spans, lent.tokens, lent.refill) == (frame.spans, frame.tokens, REFILL)
    assert lent.tensors == (rows(2, 5),)
    assert not lent.departures
    assert ledger.held() == {A: 6}
    late = span(A, 2, 6, 1, TOKENS)
    assert ledger.admit(late, TOKENS[6:7], None), "attempt 3 has not begun here"


@pytest.mark.parametrize(
    ("name", "came", "tokens", "reason", "has"),
    [
        ("unknown", span(B, 1, 0, 2, TOKENS), TOKENS, Reason.MISSING, 0),
        ("an attempt that is over", span(A, 1, 0, 2, TOKENS), TOKENS, Reason.STALE, 6),
        ("fewer tokens", span(A, 3, 4, 4, TOKENS), TOKENS, Reason.MISSING, 4),
        ("none there", span(A, 3, 7, 1, TOKENS), TOKENS, Reason.MISSING, 0),
        ("other tokens before", span(A, 3, 4, 2, OTHER), OTHER, Reason.MISSING, 0),
        ("other tokens", span(A, 3, 2, 3, OTHER), OTHER, Reason.MISSING, 2),
        ("a hole", span(A, 3, 3, 3, TOKENS), TOKENS, Reason.MISSING, 3),
    ],
)
def test_what_cannot_be_lent_leaves_the_frame(
    name: str, came: Span, tokens: tuple[int, ...], reason: Reason, has: int
) -> None:
    ledger, log = held(kept=5 if name == "a hole" else 6)
    lent = lend(asked(came, tokens=tokens), ledger, log)
    assert lent.departures == (Departure(came.sequence, came.attempt, STAGE, reason, has),)
    assert not lent.spans
    assert not lent.tokens
    assert not lent.tensors
    assert ledger.counts[reason] == 1


def test_a_sequence_that_was_released_is_not_lent() -> None:
    ledger, log = held()
    ledger.release(A, 3)
    (departure,) = lend(asked(span(A, 3, 0, 2, TOKENS)), ledger, log).departures
    assert departure.reason is Reason.CANCELLED


def test_of_several_those_go_that_can() -> None:
    ledger, log = held()
    lent = lend(asked(span(B, 1, 0, 2, TOKENS), span(A, 3, 0, 2, TOKENS)), ledger, log)
    assert [s.sequence for s in lent.spans] == [A]
    assert lent.tokens == TOKENS[:2]
    assert lent.tensors == (rows(0, 2),)
    assert [d.sequence for d in lent.departures] == [B]


def test_who_does_what() -> None:
    parts = [part_of(Refill(2, 4), stage) for stage in range(5)]
    assert parts == [Part.PASS, Part.LEND, Part.COMPUTE, Part.COMPUTE, Part.PASS]
    assert [part_of(Refill(0, 1), stage) for stage in range(2)] == [Part.COMPUTE, Part.PASS]
    assert part_of(None, 7) is Part.COMPUTE
