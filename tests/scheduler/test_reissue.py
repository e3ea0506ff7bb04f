"""What goes wrong: (state, event) -> actions, one new attempt for every loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from daemon.scheduler.actions import Action, Finished, Suspect
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason
from tests.scheduler.harness import A, B, Harness, decoding, pipeline, request, show
from transports.frame import Frame, FrameKind, Reason

Event = Callable[[Harness], list[Action]]


def prefilling() -> Harness:
    """Three chunks of A are in flight, the first came back."""
    h = Harness()
    h.submit(request(A, 40))
    h.computed(h.frames[0])
    return h


def waiting() -> Harness:
    h = Harness(Limits(max_running=1))
    h.decode(B)
    h.submit(request(A))
    return h


def departs(reason: Reason, held: int, frame: int = -1) -> Event:
    return lambda h: h.departed(h.frames[frame], reason, held)


def old(event: Event) -> Event:
    """The same, after the sequence went on in another attempt."""

    def late(h: Harness) -> list[Action]:
        frame = h.frames[-1]
        h.keep(h.scheduler.link_failed(h.now))
        h.frames.append(frame)
        return event(h)

    return late


def twice(event: Event) -> Event:
    def again(h: Harness) -> list[Action]:
        frame = h.frames[-1]
        event(h)
        h.frames.append(frame)
        return event(h)

    return again


TABLE: list[tuple[str, Callable[[], Harness], Event, list[str]]] = [
    ("overdue", decoding, lambda h: h.tick(99.0),
     ["suspect", "revoke A<2", "send A2[4:5)!"]),
    ("not yet", decoding, lambda h: h.tick(3.7), []),
    ("overdue chunks", prefilling, lambda h: h.tick(99.0),
     ["suspect", "revoke A<2", "send A2[16:32)", "send A2[32:40)!"]),
    ("link, unknown frame", prefilling, lambda h: h.keep(h.scheduler.link_failed(0.0)),
     ["revoke A<2", "send A2[16:32)", "send A2[32:40)!"]),
    ("link, known frame", decoding,
     lambda h: h.keep(h.scheduler.link_failed(0.0, h.frames[-1].microbatch)),
     ["revoke A<2", "send A2[4:5)!"]),
    ("link, other frame", decoding, lambda h: h.keep(h.scheduler.link_failed(0.0, 1)), []),
    ("Nack", decoding, departs(Reason.MISSING, 0), ["revoke A<2", "send A2[0:5)!"]),
    ("Nack, holds part", decoding, departs(Reason.MISSING, 3), ["revoke A<2", "send A2[3:5)!"]),
    ("Nack, holds more", decoding, departs(Reason.MISSING, 9), ["revoke A<2", "send A2[4:5)!"]),
    ("Nack of a chunk", prefilling, departs(Reason.MISSING, 8, 1),
     ["revoke A<2", "send A2[8:24)", "send A2[24:40)!"]),
    ("Nack lost, a follower says so", prefilling, departs(Reason.STALE, 16, 2),
     ["revoke A<2", "send A2[16:32)", "send A2[32:40)!"]),
    ("duplicate", decoding, departs(Reason.DUPLICATE, 5), []),
    ("failed", decoding, departs(Reason.FAILED, 4), ["revoke A<2", "send A2[4:5)!"]),
    ("old Nack", decoding, old(departs(Reason.MISSING, 0)), []),
    ("old failure", decoding, old(departs(Reason.FAILED, 0)), []),
    ("old result", decoding, old(lambda h: h.computed(h.frames[-1], 9)), []),
    ("result twice", decoding, twice(lambda h: h.computed(h.frames[-1], 9)), []),
    ("chunk twice", prefilling, lambda h: h.computed(h.frames[0]), []),
    ("cancel", decoding, lambda h: h.keep(h.scheduler.cancel(A, 0.0)),
     ["end A cancelled", "revoke A<2", "send -A"]),
    ("cancel a prefill", prefilling, lambda h: h.keep(h.scheduler.cancel(A, 0.0)),
     ["end A cancelled", "revoke A<2"]),  # what is computed of it is kept
    ("cancel one that waits", waiting, lambda h: h.keep(h.scheduler.cancel(A, 0.0)),
     ["end A cancelled"]),
    ("cancel another", decoding, lambda h: h.keep(h.scheduler.cancel(B, 0.0)), []),
    ("cancel twice", decoding, twice(lambda h: h.keep(h.scheduler.cancel(A, 0.0))), []),
    ("stop string", decoding, lambda h: h.keep(h.scheduler.finish(A, FinishReason.STOP, 0.0)),
     ["end A stop", "revoke A<2", "send -A"]),
    ("no pipeline", decoding, lambda h: h.keep(h.scheduler.configure(None, 0.0)), []),
    ("new layout", decoding, lambda h: h.keep(h.scheduler.configure(pipeline(2), 0.0)),
     ["send A2[4:5)!"]),
    ("new layout, holds part", decoding,
     lambda h: h.keep(h.scheduler.configure(pipeline(2), 0.0, {A: 2})), ["send A2[2:5)!"]),
    ("new layout, holds nothing", decoding,
     lambda h: h.keep(h.scheduler.configure(pipeline(2), 0.0, {})), ["send A2[0:5)!"]),
    ("new layout, small context", decoding,
     lambda h: h.keep(h.scheduler.configure(pipeline(2, context=5), 0.0)),
     ["end A context", "send -A"]),
    ("new term", decoding, lambda h: h.keep(h.scheduler.configure(pipeline(1, term=2), 0.0)),
     ["send A2[4:5)!"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "state", "event", "actions"), TABLE)
def test_table(name: str, state: Callable[[], Harness], event: Event, actions: list[str]) -> None:
    assert show(event(state())) == actions


def test_an_old_layout_is_not_taken() -> None:
    h = Harness(epoch=3)
    with pytest.raises(ValueError, match="newer"):
        h.scheduler.configure(pipeline(3), 0.0)


def test_frames_of_old_layouts_are_counted_and_ignored() -> None:
    h = decoding()
    frame = h.frames[-1]
    h.keep(h.scheduler.configure(pipeline(2), 0.0))
    assert h.computed(frame, 9) == []
    assert h.scheduler.counts["frames_of_old_layouts"] == 1


@pytest.mark.parametrize("tokens", [(), (1, 2)])
def test_results_that_do_not_add_up_are_counted_and_ignored(tokens: tuple[int, ...]) -> None:
    h = decoding()
    assert h.computed(h.frames[-1], *tokens) == []
    assert h.scheduler.counts["frames_malformed"] == 1
    assert show(h.computed(h.frames[-1], 5))[0] == "deliver A@5 [5]"


def test_work_that_comes_back_undone_is_malformed() -> None:
    h = decoding()
    answer = replace(h.frames[-1], kind=FrameKind.WORK)
    assert h.keep(h.scheduler.result(answer, 0.0)) == []
    assert h.scheduler.counts["frames_malformed"] == 1


def test_a_new_attempt_carries_the_constants_again() -> None:
    h = decoding()
    assert not h.frames[-1].constants
    h.tick(99.0)
    assert h.frames[-1].constants[A] == h.frames[0].constants[A]


def test_a_result_confirms_the_chunks_before_it() -> None:
    """Two results of chunks are lost; the third arrived, so nothing is issued again."""
    h = Harness()
    h.submit(request(A, 40))
    assert show(h.computed(h.frames[2], 7)) == ["deliver A@40 [7]", "send A1[40:41)!"]
    h.computed(h.frames[3], 8)
    assert h.scheduler.reissues.total() == 0
    assert h.scheduler.status()["in_flight"] == 1


def test_repeats_back_off_and_progress_ends_that() -> None:
    h = Harness(Limits(backoff_seconds=0.1, backoff_cap_seconds=0.3))
    h.decode(A)
    waits = []
    for _ in range(5):
        h.departed(h.frames[-1], Reason.MISSING, 4)
        wake = h.scheduler.next_wake()
        assert wake is not None
        waits.append(round(wake - h.now, 3) if wake < h.now + 1 else 0.0)
        if waits[-1]:
            assert h.tick(wake - 0.001) == []
            assert len(h.tick(wake)) == 1
    assert waits == [0.0, 0.1, 0.2, 0.3, 0.3]
    h.computed(h.frames[-1], 9)
    assert show(h.departed(h.frames[-1], Reason.MISSING, 5)) == ["revoke A<7", "send A7[5:6)!"]


def test_a_replay_is_not_progress() -> None:
    """Chunks that were computed before do not reset the back-off of the one that fails."""
    h = Harness()
    h.submit(request(A, 40))
    h.computed(h.frames[0])
    h.departed(h.frames[1], Reason.FAILED, 0)
    h.computed(h.frames[3])
    h.departed(h.frames[4], Reason.FAILED, 0)
    h.tick(h.now + 1.0)  # the back-off is over, and no deadline is
    assert show(h.computed(h.frames[6])) == ["send A3[16:32)"], "alone, to find out"
    (end,) = [a for a in h.departed(h.frames[7], Reason.FAILED, 0) if isinstance(a, Finished)]
    assert end.reason is FinishReason.FAILED
    assert end.error == "stage 1 failed 3 times at token 16; its log says why"


def test_only_the_guilty_one_of_a_batch_that_fails_ends() -> None:
    """A and B decode in one step, which always fails at B; no stage loses what it holds."""
    h = Harness(stages=1)
    for name in (A, B):
        h.submit(request(name))
        h.computed(h.frames[-1], 1)
    h.computed(h.frames[-2], 2)
    ended: list[Finished] = []
    while not ended:
        frame = h.frames[-1]
        if B in [s.sequence for s in frame.spans]:
            actions = h.departed(frame, Reason.FAILED, 6)
        else:
            actions = h.computed(frame, 3)
        ended = [a for a in actions if isinstance(a, Finished)]
        h.tick(h.now + 1.0)  # the back-off is over, and no deadline is
    assert [(end.sequence, end.reason) for end in ended] == [(B, FinishReason.FAILED)]
    assert "failed 3 times" in ended[0].error


def test_a_return_gives_time_to_what_was_sent_later_and_not_to_what_was_sent_before() -> None:
    h = Harness()
    h.submit(request(A, 40))
    wake = h.scheduler.next_wake()
    assert wake is not None
    h.now = 2.0
    h.computed(h.frames[1])  # confirms the first as well
    later = h.scheduler.next_wake()
    assert later is not None
    assert later > wake + 2.0
    h = Harness()
    frames = [h.decode(s) for s in (A, B)]
    wake = h.scheduler.next_wake()
    h.now = 2.0
    h.computed(frames[1], 2)
    assert h.scheduler.next_wake() == wake


def test_what_never_gets_through_ends() -> None:
    h = Harness(Limits(max_repeats=3))
    h.decode(A)
    for _ in range(3):
        h.tick(h.now + 99.0)
        h.tick(h.now + 1.0)
    (end,) = [a for a in h.tick(h.now + 99.0) if isinstance(a, Finished)]
    assert end.reason is FinishReason.FAILED
    assert end.error == "issued 4 times without progress, the last time: lost"


def test_a_long_replay_may_lose_frames_as_long_as_it_goes_on() -> None:
    """A stage has lost all: of the ten chunks each is lost twice before it gets through."""
    h = Harness(Limits(max_repeats=3), chunk=4)
    h.submit(request(A, 40))
    step = replayed(h, 7)
    h.departed(step, Reason.MISSING, 0)
    for chunk in range(9):
        for _ in range(2):
            assert not [a for a in h.tick(h.now + 99.0) if isinstance(a, Finished)]
            h.tick(h.now + 1.0)  # the back-off is over
        h.computed(next(f for f in reversed(h.frames) if f.spans[0].position == 4 * chunk))
    h.tick(h.now + 1.0)
    replayed(h, 8)
    assert not [s for s in h.scheduler.sequences() if s.fruitless or s.falls]


def test_one_that_falls_back_again_and_again_ends() -> None:
    """There is progress in between, but it never comes further than before."""
    h = Harness(Limits(max_repeats=3), chunk=4)
    h.submit(request(A, 40))
    step = replayed(h, 7)
    for _ in range(4):
        assert not [a for a in h.departed(step, Reason.MISSING, 0) if isinstance(a, Finished)]
        h.tick(h.now + 1.0)  # the back-off is over, and no deadline is
        h.computed(next(f for f in h.frames[::-1] if f.spans[0].position == 0))
        step = h.frames[-1]
    (end,) = [a for a in h.departed(step, Reason.MISSING, 0) if isinstance(a, Finished)]
    assert end.error == "issued 4 times without progress, the last time: missing"


def replayed(h: Harness, token: int) -> Frame:
    """All that is in flight comes back, until there is a token; the frame that follows."""
    while h.frames[-1].spans[-1].outputs == 0 or h.frames[-1].spans[0].position < 40 - 4:
        for frame in h.frames[-3:]:
            h.computed(frame, *[token] * sum(s.outputs for s in frame.spans))
    h.computed(h.frames[-1], token)
    return h.frames[-1]


def test_a_link_that_is_down_is_waited_for() -> None:
    h = Harness(Limits(max_repeats=3))
    h.decode(A)
    for _ in range(20):
        h.now += 99.0
        failed = h.scheduler.link_failed(h.now, h.frames[-1].microbatch)
        ended = [*failed, *h.tick(h.now + 98.0)]
        assert not [a for a in ended if isinstance(a, Finished)]


def test_after_a_path_has_ended_nobody_waits_though_it_ends_again() -> None:
    """Both ends of a hop say so, one after the other."""
    h = Harness(Limits(max_repeats=1))
    h.decode(A)
    for attempt in (2, 3, 4):
        actions = h.keep(h.scheduler.link_failed(h.now))
        assert show(actions) == [f"revoke A<{attempt}", f"send A{attempt}[4:5)!"]
    assert h.scheduler.reissues["path"] == 3


def test_progress_restarts_the_deadline_once_per_stage() -> None:
    h = decoding()
    microbatch = h.frames[-1].microbatch
    wake = h.scheduler.next_wake()
    assert wake is not None
    h.scheduler.progress(microbatch, 0, 2.0)
    assert h.scheduler.next_wake() == wake + 2.0
    h.scheduler.progress(microbatch, 0, 3.0)  # it spins
    h.scheduler.progress(None, 1, 3.0)
    assert h.scheduler.next_wake() == wake + 2.0
    h.scheduler.progress(microbatch, 1, 3.0)
    assert h.scheduler.next_wake() == wake + 3.0


def test_suspicion_says_why() -> None:
    h = decoding()
    (suspect,) = [a for a in h.tick(10.0) if isinstance(a, Suspect)]
    assert suspect == Suspect(2, "not back after 10.0 s, predicted 0.2 s")


def test_reissues_are_counted_by_cause_and_by_sequence() -> None:
    h = decoding()
    h.departed(h.frames[-1], Reason.MISSING, 4)
    h.computed(h.frames[-1], 3)
    h.tick(99.0)
    counts = h.scheduler.status()["reissues"]
    assert counts == {"lost": 1, "missing": 1, "failed": 0, "link": 0, "path": 0, "layout": 0}
    assert next(h.scheduler.sequences()).reissues == 2
