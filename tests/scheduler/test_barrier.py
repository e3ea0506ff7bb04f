"""Between a barrier and the next layout: nothing is sent, lost or done twice."""

from __future__ import annotations

from daemon.scheduler.actions import Inquire, Send
from tests.scheduler.harness import A, B, Harness, decoding, pipeline, request, show, show_span
from transports.frame import Barrier, Frame, FrameKind, Reason


def barrier(h: Harness) -> Frame:
    (send,) = h.keep(h.scheduler.barrier(h.now))
    assert isinstance(send, Send)
    return send.frame


def test_the_barrier_is_a_frame_of_its_own_behind_all_others() -> None:
    h = decoding()
    step = h.frames[-1]
    last = barrier(h)
    assert (last.kind, last.spans, last.commands) == (FrameKind.WORK, (), (Barrier(),))
    assert (last.term, last.epoch) == (step.term, step.epoch)
    assert last.microbatch > step.microbatch
    assert h.scheduler.status()["in_flight"] == 1, "nobody waits for the barrier"


def test_results_are_taken_in_and_nothing_is_sent() -> None:
    h = decoding()
    step = h.frames[-1]
    barrier(h)
    assert show(h.computed(step, 9)) == ["deliver A@5 [9]"]
    assert show(h.submit(request(B))) == [], "taken, and waits"
    assert h.scheduler.next_wake() is None
    assert show(h.tick(100.0)) == []


def test_they_go_on_where_they_are_and_nothing_counts_as_trouble() -> None:
    h = decoding()
    step = h.frames[-1]
    barrier(h)
    h.computed(step, 9)
    h.submit(request(B, 6))
    actions = h.keep(h.scheduler.configure(pipeline(epoch=2), 1.0))
    assert show(actions) == ["send A2[5:6)!", "send B1[0:6)!"]
    assert Inquire() in actions
    (first, _) = (a.frame for a in actions if isinstance(a, Send))
    assert first.epoch == 2
    assert first.constants.keys() == {A}, "a stage that is new to it has them from nowhere else"
    assert not h.scheduler.reissues.total()
    assert next(h.scheduler.sequences()).reissues == 0


def test_a_prompt_goes_on_with_its_next_chunk() -> None:
    h = Harness(stages=1)
    h.submit(request(A, 40))
    chunks = list(h.frames)
    barrier(h)
    for chunk in chunks:
        h.computed(chunk)
    read = sum(chunk.spans[0].length for chunk in chunks)
    assert 0 < read < 40
    actions = h.keep(h.scheduler.configure(pipeline(epoch=2), 1.0))
    assert show(actions)[0].startswith(f"send A2[{read}:")


def test_what_was_lost_before_the_barrier_is_issued_again() -> None:
    h = decoding()
    barrier(h)
    actions = h.keep(h.scheduler.configure(pipeline(epoch=2), 1.0))
    assert show(actions) == ["send A2[4:5)!"]
    assert h.scheduler.reissues == {
        "layout": 1,
        "lost": 0,
        "missing": 0,
        "failed": 0,
        "link": 0,
        "path": 0,
    }


def test_what_leaves_its_frame_during_the_hold_waits_too() -> None:
    h = decoding()
    step = h.frames[-1]
    barrier(h)
    assert show(h.departed(step, Reason.MISSING, 2)) == [], "what is under way is computed"
    assert show(h.keep(h.scheduler.configure(pipeline(epoch=2), 1.0))) == ["send A3[2:5)!"]


def test_releases_wait_for_the_new_layout() -> None:
    h = decoding()
    barrier(h)
    h.keep(h.scheduler.cancel(A, h.now))
    assert show(h.tick(100.0)) == []
    assert show(h.keep(h.scheduler.configure(pipeline(epoch=2), 101.0))) == ["send -A"]


def test_without_a_layout_there_is_no_barrier_and_losing_it_ends_the_hold() -> None:
    h = decoding()
    barrier(h)
    h.keep(h.scheduler.configure(None, 1.0))
    assert h.scheduler.barrier(h.now) == []
    assert show(h.keep(h.scheduler.configure(pipeline(epoch=3), 2.0))) == ["send A2[4:5)!"]
    assert h.scheduler.reissues["layout"] == 1


def test_what_is_read_again_up_to_its_last_token_decodes_from_then_on() -> None:
    h = Harness(stages=1, chunk=8)
    h.submit(request(A, 16))
    while h.frames[-1].spans[0].position + h.frames[-1].spans[0].length < 16:
        h.computed(h.frames[-1])
    h.computed(h.frames[-1], 1)
    h.departed(h.frames[-1], Reason.MISSING, 0)
    again = [f for f in h.frames if f.spans[0].attempt == h.frames[-1].spans[0].attempt]
    barrier(h)
    for frame in again:
        h.computed(frame)
    assert [show_span(f.spans[0]) for f in again] == ["A2[0:8)", "A2[8:16)"]
    actions = h.keep(h.scheduler.configure(pipeline(epoch=2, stages=1), 1.0))
    assert show(actions) == ["send A3[16:17)!"]
