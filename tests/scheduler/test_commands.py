"""Releases reach every stage, whatever happens to the frames that carry them."""

from __future__ import annotations

from tests.scheduler.harness import A, B, Harness, decoding, pipeline, request, show
from transports.frame import Release


def test_commands_of_a_lost_frame_ride_again() -> None:
    h = Harness()
    h.decode(A)
    h.submit(request(B, 4))
    h.keep(h.scheduler.cancel(A, 0.0))
    h.computed(h.frames[-1], 1)
    carrier = h.frames[-1]
    assert [c.sequence for c in carrier.commands] == [A]
    h.tick(99.0)
    assert h.frames[-1] is not carrier
    assert h.frames[-1].commands == carrier.commands
    h.computed(h.frames[-1], 2)
    assert h.scheduler.status()["releases_pending"] == 0


def test_a_lost_frame_of_commands_alone_is_sent_again() -> None:
    h = decoding()
    h.keep(h.scheduler.cancel(A, 0.0))
    assert show(h.tick(99.0)) == ["suspect", "send -A"]
    assert h.scheduler.reissues.total() == 0
    h.computed(h.frames[-1])
    assert h.scheduler.next_wake() is None


def test_commands_of_a_frame_that_is_not_awaited_any_more_ride_again() -> None:
    h = Harness()
    h.decode(A)
    h.submit(request(B, 4))
    h.keep(h.scheduler.cancel(A, 0.0))
    h.computed(h.frames[-1], 1)
    assert h.frames[-1].commands == (Release(A),)
    actions = h.keep(h.scheduler.cancel(B, 0.0))
    assert show(actions) == ["end B cancelled", "revoke B<2", "send -A -B"]


def test_a_link_that_stays_down_is_not_flooded_with_commands() -> None:
    h = decoding()
    h.keep(h.scheduler.cancel(A, 0.0))
    assert show(h.keep(h.scheduler.link_failed(0.0))) == ["send -A"]
    assert show(h.keep(h.scheduler.link_failed(0.0))) == []
    assert h.scheduler.next_wake() == 0.1
    assert show(h.tick(0.1)) == ["send -A"]
    h.keep(h.scheduler.link_failed(0.1))
    assert show(h.tick(0.25)) == []
    assert show(h.tick(0.35)) == ["send -A"]
    h.computed(h.frames[-1])
    assert h.scheduler.next_wake() is None


def test_a_new_layout_hears_of_what_was_released_in_the_old() -> None:
    h = decoding()
    h.keep(h.scheduler.cancel(A, 0.0))
    assert show(h.keep(h.scheduler.configure(pipeline(2), 0.0))) == ["send -A"]


def test_a_late_frame_of_an_ended_sequence_is_released_again() -> None:
    h = decoding()
    late = h.frames[-1]
    h.keep(h.scheduler.cancel(A, 0.0))
    h.computed(h.frames[-1])
    assert show(h.computed(late, 5)) == ["send -A"]
