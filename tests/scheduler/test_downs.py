"""A request that ends the stages that compute it, and stages slower than foreseen."""

from __future__ import annotations

from itertools import pairwise

from daemon.scheduler.actions import Finished, Suspect
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason
from tests.scheduler.harness import A, B, Harness, pipeline, request


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
