"""What is kept goes on being used after a stage has restarted: what is forked from it is refilled
there.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.scheduler.pipeline import Hop
from tests.scheduler.harness import PROMPT, A, B, Harness, pipeline, request, show
from transports.frame import DType, Reason, Refill


def kept(*lost: int, length: int = 32) -> Harness:
    """A has ended and is kept; then these of three stages restart."""
    h = Harness(stages=3)
    h.submit(request(A, length, max_tokens=1))
    h.computed(h.frames[-1], 1)
    h.keep(h.scheduler.configure(pipeline(2, stages=3), h.now, lost=lost))
    return h


def test_the_others_fork_it_and_the_stage_that_lost_it_computes_it() -> None:
    h = kept(1)
    assert show(h.submit(request(B, 40))) == [
        "send B1[0:16) +B<A:32 for 1-1",
        "send B1[16:32) for 1-1",
        "send B1[32:40)! +B<A:32",
    ]
    for frame in h.frames[-3:-1]:
        h.computed(frame)
    assert h.scheduler.cached_tokens(B) == 32
    assert show(h.computed(h.frames[-1], 7)) == ["deliver B@40 [7]", "send B1[40:41)! -A"]
    assert h.scheduler.status()["refills"] == {"begun": 1, "given up": 0, "tokens": 32}


def test_what_the_stage_says_that_lost_it_does_not_count() -> None:
    h = kept(1)
    for stage, held in ((0, {A: 32}), (1, {}), (2, {A: 32})):
        h.keep(h.scheduler.held(stage, held, h.now))
    (entry,) = h.scheduler.residency.index.kept
    assert (len(entry.tokens), entry.lacking, entry.unsure) == (32, Refill(1, 2), False)
    h.keep(h.scheduler.configure(pipeline(3, stages=3), h.now))
    for stage, held in ((0, {A: 20}), (1, {}), (2, {A: 32})):
        h.keep(h.scheduler.held(stage, held, h.now))
    assert (len(entry.tokens), entry.lacking) == (20, Refill(1, 2))


@pytest.mark.parametrize("more", [(0,), (0, 2)])
def test_what_all_stages_lost_is_gone(more: tuple[int, ...]) -> None:
    h = kept(1, 2)
    h.keep(h.scheduler.configure(pipeline(3, stages=3), h.now, lost=more))
    assert not h.scheduler.residency.index.kept


def test_a_layout_of_fewer_stages_does_not_ask_those_that_are_not_there() -> None:
    h = kept(2)
    h.keep(h.scheduler.configure(pipeline(3, stages=2), h.now))
    assert not h.scheduler.residency.index.kept


def test_behind_a_barrier_nobody_knows_who_lacks_it() -> None:
    """Others may be in these places, with layers of the stage that lacks it."""
    h = kept(1)
    h.keep(h.scheduler.barrier(h.now))
    assert show(h.keep(h.scheduler.configure(pipeline(3, stages=3), h.now))) == ["send -A"]
    assert not h.scheduler.residency.index.kept


def test_in_other_places_neither() -> None:
    """The stage that lacks it is the last now."""
    h = kept(1)
    here = replace(pipeline(3, stages=3), hops=(hop(2), hop(5)))
    h.keep(h.scheduler.configure(here, h.now))
    assert not h.scheduler.residency.index.kept


def test_in_the_same_places_it_is_known() -> None:
    h = Harness(stages=3)
    h.keep(h.scheduler.configure(replace(pipeline(2, stages=3), hops=(hop(2), hop(5))), h.now))
    h.submit(request(A, 32, max_tokens=1))
    h.computed(h.frames[-1], 1)
    again = replace(pipeline(3, stages=3), hops=(hop(2), hop(5)))
    h.keep(h.scheduler.configure(again, h.now, lost=(1,)))
    h.keep(h.scheduler.configure(replace(again, epoch=4), h.now))
    (entry,) = h.scheduler.residency.index.kept
    assert entry.lacking == Refill(1, 2)


def hop(layer: int) -> Hop:
    return Hop(layer, 8, DType.FLOAT32, {})


def test_what_was_not_kept_is_computed_by_all() -> None:
    h = kept(1)
    h.submit(request(B, 40))
    assert show(h.departed(h.frames[-3], Reason.MISSING, 0, stage=0))[-3:] == [
        "send B2[0:16)",
        "send B2[16:32)",
        "send B2[32:40)!",
    ]


def test_it_does_not_stand_for_what_all_stages_have() -> None:
    h = kept(1)
    h.submit(request(B, 20, max_tokens=1))
    for frame in h.frames[-3:]:
        if frame.spans:
            h.computed(frame, *[7] * sum(span.outputs for span in frame.spans))
    entries = {entry.sequence: entry.lacking for entry in h.scheduler.residency.index.kept}
    assert entries == {A: Refill(1, 2), B: None}


def test_a_lost_frame_forks_again() -> None:
    h = kept(1)
    h.submit(request(B, 40))
    assert show(h.keep(h.scheduler.link_failed(h.now)))[1:] == [
        "send B2[0:16) +B<A:32 for 1-1",
        "send B2[16:32) for 1-1",
        "send B2[32:40)! +B<A:32",
    ]


def test_a_restart_in_the_middle_begins_again() -> None:
    h = kept(1)
    h.submit(request(B, PROMPT))
    assert show(h.keep(h.scheduler.configure(pipeline(3, stages=3), h.now, lost=(1,))))[0] == (
        "send B2[0:16) +B<A:32 for 1-1"
    )
