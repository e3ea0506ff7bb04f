"""Who waits for what another computes, and goes on when that comes to nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from daemon.scheduler.pipeline import Limits
from tests.scheduler.harness import A, B, C, Harness, pipeline, request, show
from transports.frame import Reason

LONG = tuple(range(200, 300))


def alike(limits: Limits | None = None, **layout: int) -> Harness:
    """A's prompt of 100 tokens is computed, the first 32 are; B came with the same one."""
    h = Harness(limits, stages=1, chunk=32, **layout)
    h.submit(request(A, LONG))
    assert show(h.submit(request(B, LONG))) == []
    h.computed(h.frames[0])
    return h


def go_on(h: Harness) -> None:
    """Until B is at it."""
    done = 0
    while not any(s.sequence == B for f in h.frames for s in f.spans):
        frame = h.frames[done]
        done += 1
        h.computed(frame, *[1] * sum(s.outputs for s in frame.spans))


def test_the_second_of_two_that_begin_alike_is_forked_from_the_first() -> None:
    h = alike()
    h.computed(h.frames[1])
    h.computed(h.frames[2])
    sent = show(h.computed(h.frames[3], 1))[1]
    assert sent == "send A1[100:101)! B1[99:100)! +B<A:99"
    assert h.scheduler.cached_tokens(B) == 99


def test_others_are_not_held_up_by_one_that_waits() -> None:
    h = alike()
    h.submit(request(C, 8))
    assert h.scheduler.cached_tokens(C) == 0
    assert h.scheduler.cached_tokens(B) is None


@pytest.mark.parametrize(
    ("prompt", "waits"),
    [
        ((*LONG[:64], 1, 2), True),
        ((*LONG[:63], 1, 2), False),  # too little is saved
        ((*LONG[:80], *range(60)), True),
        (LONG[:65], True),
        (LONG[:64], False),  # of which the last is computed anyway
        (LONG[1:], False),
    ],
)
def test_who_waits(prompt: tuple[int, ...], waits: bool) -> None:
    h = Harness(stages=1, chunk=32)
    h.submit(request(A, LONG), request(B, prompt))
    assert (h.scheduler.cached_tokens(B) is None) == waits


def test_nobody_waits_for_much_that_is_not_shared() -> None:
    h = Harness(stages=1, chunk=32, context=10_000)
    h.submit(request(A, (*LONG, *range(1000))), request(B, LONG))
    assert h.scheduler.cached_tokens(B) == 0


def test_nobody_waits_for_what_is_there_already() -> None:
    h = alike()
    go_on(h)
    h.submit(request(C, (*LONG, 7, 8)))
    assert h.scheduler.cached_tokens(C) == 100


def fails(h: Harness) -> None:
    for _ in range(3):
        h.departed(h.frames[-1], Reason.FAILED, 0)
        h.tick(h.now + 1.0)


def loses_frames(h: Harness) -> None:
    for _ in range(2):
        h.tick(h.now + 99.0)


@pytest.mark.parametrize(
    ("event", "cached"),
    [
        (lambda h: h.keep(h.scheduler.cancel(A, 0.0)), 32),  # of which it is forked
        (fails, 0),
        (loses_frames, 0),
        (lambda h: h.keep(h.scheduler.configure(None, 0.0)), None),
        (lambda h: h.keep(h.scheduler.configure(pipeline(2), 0.0)), None),  # A goes on
        (lambda h: h.keep(h.scheduler.configure(pipeline(2, budget=230), 0.0)), None),
    ],
)
def test_it_goes_on_when_the_first_does_not(
    event: Callable[[Harness], object], cached: int | None
) -> None:
    h = alike()
    event(h)
    assert h.scheduler.cached_tokens(B) == cached


def test_one_that_is_preempted_is_first_again() -> None:
    """C, which came before both, grows and takes A's place; B is not to take it before A. There is
    never room for both, so that B is not forked in the end.
    """
    h = Harness(Limits(headroom=1), stages=1, chunk=32, budget=367)
    h.submit(request(C, 8), request(A, LONG), request(B, LONG))
    running = []
    for frame in h.frames:  # which grows meanwhile
        h.computed(frame, *[1] * sum(s.outputs for s in frame.spans))
        known = [s for s in h.scheduler.sequences() if s.status.value != "waiting"]
        running.append([s.id for s in known])
        if B in running[-1]:
            break
    assert h.scheduler.residency.counts["preemptions"] == 1
    turns = [running[0], *(after for before, after in pairwise(running) if before != after)]
    assert turns == [[C, A], [C], [A], [B]]
