"""A request that ends the stages that compute it, and stages slower than foreseen."""

from __future__ import annotations

from itertools import pairwise

from daemon.scheduler.actions import Finished, Suspect
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason
from tests.scheduler.harness import A, B, C, Harness, pipeline, request, show, show_span


def goes_down(h: Harness, epoch: int) -> list[Finished]:
    ended = [a for a in h.keep(h.scheduler.configure(None, h.now)) if isinstance(a, Finished)]
    h.keep(h.scheduler.configure(pipeline(epoch=epoch), h.now, {}))
    return ended


def test_a_request_that_always_ends_a_stage_is_ended() -> None:
    h = Harness(Limits(max_downs=3))
    h.submit(request(A))
    assert goes_down(h, 2) == []
    assert goes_down(h, 3) == []
    (end,) = goes_down(h, 4)
    assert (end.sequence, end.reason) == (A, FinishReason.FAILED)
    assert "3 times" in end.error
    assert h.scheduler.status()["running"] == 0


def test_nobody_is_blamed_for_what_was_intended() -> None:
    h = Harness(Limits(max_downs=2))
    h.submit(request(A))
    for epoch in range(2, 8):
        assert h.keep(h.scheduler.configure(None, h.now, intended=True)) == []
        h.keep(h.scheduler.configure(pipeline(epoch=epoch), h.now, {}))


def test_progress_clears_it() -> None:
    h = Harness(Limits(max_downs=2))
    h.decode(A)
    for epoch in range(2, 8):
        assert goes_down(h, epoch) == []
        h.computed(h.frames[-1], epoch)


def test_one_that_waits_is_not_blamed() -> None:
    h = Harness(Limits(max_downs=2, max_running=1))
    h.submit(request(A), request(B))
    assert goes_down(h, 2) == []
    assert [end.sequence for end in goes_down(h, 3)] == [A]
    assert [s.id for s in h.scheduler.sequences()] == [B]
    assert goes_down(h, 4) == []


def test_chunks_that_came_back_do_not_excuse_the_one_that_did_not() -> None:
    h = Harness(Limits(max_downs=3))
    h.submit(request(A, 40))
    for epoch in (2, 3):
        h.computed(h.frames[-3])
        assert goes_down(h, epoch) == []
        assert len(h.frames[-1].spans) == 1
    h.computed(h.frames[-1])
    assert [end.sequence for end in goes_down(h, 4)] == [A]


def test_being_down_twice_is_one_loss() -> None:
    h = Harness(Limits(max_downs=2))
    h.submit(request(A))
    for _ in range(3):
        assert h.keep(h.scheduler.configure(None, h.now)) == []


def test_those_beside_it_are_computed_one_by_one_and_go_on() -> None:
    """A ends a stage as soon as it is computed, so that B and C never come to an answer."""
    h = Harness()
    h.submit(request(A), request(B), request(C))
    for epoch in (2, 3):
        assert h.scheduler.status()["in_flight"] == 3
        assert goes_down(h, epoch) == []
    for epoch in (4, 5):
        assert show_span(h.frames[-1].spans[0]) == f"A{epoch - 1}[0:4)!"
        assert h.scheduler.status()["in_flight"] == 1
        assert goes_down(h, epoch) == []
    assert [end.sequence for end in goes_down(h, 6)] == [A]
    assert h.scheduler.status()["in_flight"] == 1
    assert show(h.computed(h.frames[-1], 7)) == ["deliver B@4 [7]", "send C3[0:4)!"]
    assert show(h.computed(h.frames[-1], 8)) == [
        "deliver C@4 [8]",
        "send B3[4:5)!",
        "send C3[4:5)!",
    ]


def test_whom_a_lost_frame_holds_up_does_not_hold_up_the_others() -> None:
    h = Harness()
    h.submit(request(A), request(B))
    for epoch in (2, 3):
        goes_down(h, epoch)
    sent = [show_span(f.spans[0])[0] for f in h.frames[-1:]]
    for _ in range(3):  # a link that fails: it must wait, the other need not
        h.keep(h.scheduler.link_failed(h.now))
        sent.append(show_span(h.frames[-1].spans[0])[0])
    assert "B" in sent


def test_every_try_may_take_twice_as_long() -> None:
    h = Harness()
    h.submit(request(A))
    waited = []
    for _ in range(4):
        began = h.now
        while not any(isinstance(a, Suspect) for a in h.tick(h.scheduler.next_wake() or 0.0)):
            assert h.now - began < 1000.0
        waited.append(h.now - began)
    assert all(later > 1.7 * earlier for earlier, later in pairwise(waited))
