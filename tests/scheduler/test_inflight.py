"""The window: what is in flight, and when it is overdue."""

from __future__ import annotations

import pytest

from daemon.scheduler.inflight import Microbatch, Window
from tests.scheduler.harness import A, B
from transports.frame import Span


def microbatch(
    number: int, *sequences: bytes, sent: float = 0.0, seconds: float = 1.0
) -> Microbatch:
    spans = tuple(Span(s, 1, 0, 4, 0) for s in sequences)
    return Microbatch(number, spans, sent, seconds, seconds / 2, step=number % 2 == 0)


def window(*microbatches: Microbatch) -> Window:
    made = Window(grace_seconds=3.0, patience=4.0)
    for m in microbatches:
        made.add(m)
    return made


def overdue(made: Window, now: float) -> list[int]:
    made.check_integrity()
    return [m.id for m in made.expired(now)]


def test_overdue_after_grace_and_patience() -> None:
    made = window(microbatch(1, A, seconds=1.0), microbatch(2, B, sent=1.0, seconds=2.0))
    assert made.next_deadline() == 7.0
    assert overdue(made, 6.9) == []
    assert overdue(made, 7.0) == [1]
    assert overdue(made, 12.0) == [1, 2]
    made.remove(1)
    assert made.next_deadline() == 12.0


def test_progress_gives_time_to_what_is_behind_and_not_to_what_is_before() -> None:
    made = window(microbatch(1, A), microbatch(2, A), microbatch(3, A))
    made.progress(2, 0, 5.0)
    assert overdue(made, 7.0) == [1]
    assert overdue(made, 12.0) == [1, 2, 3]


@pytest.mark.parametrize(
    ("reports", "deadline"),
    [
        ([(1, 0, 1.0)], 8.0),
        ([(1, 0, 1.0), (1, 0, 2.0)], 8.0),
        ([(1, 0, 1.0), (1, 1, 2.0)], 9.0),
        ([(9, 0, 1.0)], 7.0),
    ],
)
def test_each_stage_counts_once(reports: list[tuple[int, int, float]], deadline: float) -> None:
    made = window(microbatch(1, A))
    for report in reports:
        made.progress(*report)
    assert made.next_deadline() == deadline


def test_counts() -> None:
    made = window(microbatch(1, A), microbatch(2, B), microbatch(3))
    assert (len(made), made.steps, made.carriers) == (2, 1, 1)
    assert made.queued_seconds() == 1.5
    made.clear()
    made.check_integrity()
    assert (len(made), made.carriers, made.next_deadline()) == (0, 0, None)


def test_a_sequence_leaves_without_the_others() -> None:
    made = window(microbatch(1, A, B), microbatch(2, A), microbatch(3))
    assert made.drop_sequence(A) == [2]
    assert [[s.sequence for s in made.awaited(m.id)] for m in made] == [[B], []]
    assert not made.drop_span(3, A)  # commands alone are not settled by spans
    assert [i for i, _ in made.spans_of(B)] == [1]
    assert made.drop_span(1, B)
    assert not made.drop_span(1, B)
    assert [m.id for m in made] == [3]
    made.check_integrity()
