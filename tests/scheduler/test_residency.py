"""What the stages hold beyond a request's end, who is forked from it, and who has to go."""

from __future__ import annotations

import pytest

from daemon.scheduler.actions import Action, Deliver, Finished, Inquire
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason, Refusal, RequestError
from tests.scheduler.harness import PROMPT, A, B, C, Harness, pipeline, request, show
from transports.frame import Fork, Reason, Release

TURN = (*PROMPT[:20], 1, 2, 7, 8)  # goes on where `ended` ended


def ended(h: Harness) -> Harness:
    """A has ended with the tokens 1, 2 after its prompt of 20; the last was not computed."""
    h.submit(request(A, 20, max_tokens=2))
    for tokens in ((), (1,), (2,)):
        h.computed(h.frames[-2 if tokens == () else -1], *tokens)
    assert kept(h) == {A: 21}
    return h


def kept(h: Harness) -> dict[bytes, int]:
    return {e.sequence: len(e.tokens) for e in h.scheduler.residency.index.kept}


def end_of(actions: list[Action]) -> Finished:
    return next(a for a in actions if isinstance(a, Finished))


def test_the_next_turn_starts_where_the_last_one_ended() -> None:
    h = ended(Harness())
    assert kept(h) == {A: 21}
    actions = h.submit(request(B, TURN))
    assert show(actions) == ["send B1[21:24)! +B<A:21"]
    assert h.scheduler.cached_tokens(B) == 21
    done = h.computed(h.frames[-1], 9)
    assert show(done) == ["deliver B@24 [9]", "send B1[24:25)! -A"], "A is a part of B now"
    assert end_of(h.keep(h.scheduler.cancel(B, 0.0))).usage.cached_tokens == 21
    assert kept(h) == {B: 24}
    counts = h.scheduler.residency.counts
    assert (counts["hits"], counts["hit_tokens"], counts["misses"]) == (1, 21, 1)


def test_the_fork_is_carried_until_a_result_has_shown_that_all_have_it() -> None:
    h = ended(Harness())
    h.submit(request(B, TURN))
    lost = h.keep(h.scheduler.link_failed(0.0))
    assert show(lost)[-1] == "send B2[21:24)! +B<A:21"
    assert A in kept(h)
    h.computed(h.frames[-1], 9)
    assert A not in kept(h)


def test_a_stage_without_the_source_costs_one_reissue() -> None:
    h = ended(Harness())
    h.submit(request(B, TURN))
    actions = h.departed(h.frames[-1], Reason.MISSING, 0)
    assert Inquire() in actions
    assert show(actions) == ["revoke B<2", "send B2[0:16)", "send B2[16:24)!"]
    assert h.scheduler.cached_tokens(B) == 0
    h.keep(h.scheduler.held(0, {A: 21}, 0.0))
    assert kept(h) == {A: 21}
    assert show(h.keep(h.scheduler.held(1, {}, 0.0))) == []
    assert kept(h) == {}


def test_a_stage_with_less_of_the_source_gives_less() -> None:
    h = ended(Harness())
    h.submit(request(B, TURN))
    actions = h.departed(h.frames[-1], Reason.MISSING, 18)
    assert show(actions) == ["revoke B<2", "send B2[18:24)! +B<A:18"]
    h.keep(h.scheduler.held(0, {A: 18}, 0.0))
    assert kept(h) == {A: 18}


def test_a_running_prompt_is_shared_once_it_is_computed() -> None:
    h = Harness()
    h.submit(request(A, 30))
    first, second = h.frames
    h.submit(request(B, 30))
    assert h.scheduler.cached_tokens(B) == 0, "A is not computed yet"
    h.keep(h.scheduler.cancel(B, 0.0))
    h.computed(first)
    h.computed(second, 1)
    h.submit(request(C, 30))
    assert h.scheduler.cached_tokens(C) == 29
    sent = [c for frame in h.frames for c in frame.commands]
    assert Fork(A, C, 1, 29) in sent


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.CANCELLED])
def test_what_was_computed_of_a_cut_short_request_is_kept(reason: FinishReason) -> None:
    h = Harness()
    h.submit(request(A, 40))
    h.computed(h.frames[0])
    h.keep(h.scheduler.finish(A, reason, 0.0))
    assert kept(h) == {A: 16}, "of the frames under way nothing is known"


def test_a_failed_request_leaves_nothing() -> None:
    h = Harness()
    h.submit(request(A, 40))
    h.computed(h.frames[0])
    actions: list[Action] = []
    while not any(isinstance(a, Finished) for a in actions):
        actions = h.departed(h.frames[-1], Reason.FAILED, 16)
        h.tick(h.scheduler.next_wake() or h.now)
    assert end_of(actions).reason is FinishReason.FAILED
    assert h.frames[-1].commands == (Release(A),)
    assert kept(h) == {}


def test_late_words_on_what_is_kept() -> None:
    """A late result is ignored; that a stage holds less after all is not."""
    h = Harness()
    h.submit(request(A, 40))
    one, two, _ = h.frames
    h.computed(one)
    h.keep(h.scheduler.cancel(A, 0.0))
    assert show(h.computed(two)) == []
    h.keep(h.scheduler.held(0, {A: 32, B: 9}, 0.0))
    assert kept(h) == {A: 16}
    assert h.scheduler.status()["releases_pending"] == 1, "B was never asked for here"
    again = ended(Harness())
    late = again.frames[-1]
    again.departed(late, Reason.FAILED, 17)
    assert kept(again) == {A: 17}
    again.departed(late, Reason.FAILED, 0)
    assert kept(again) == {}


@pytest.mark.parametrize(("held", "left"), [(None, {A: 21}), ({A: 18}, {A: 18}), ({}, {})])
def test_a_new_layout_keeps_what_all_its_stages_hold(
    held: dict[bytes, int] | None, left: dict[bytes, int]
) -> None:
    h = ended(Harness())
    h.keep(h.scheduler.configure(None, 0.0))
    assert Inquire() in h.keep(h.scheduler.configure(pipeline(2), 0.0, held))
    assert kept(h) == left
    for stage, tokens in enumerate((21, 17)):
        h.keep(h.scheduler.held(stage, {A: tokens}, 0.0))
    assert kept(h) == ({A: 17} if left else {})


def test_what_is_kept_has_its_place_for_all_that_a_stage_may_hold() -> None:
    h = ended(Harness())
    used = list(h.scheduler.residency.memory.used)
    h.keep(h.scheduler.configure(pipeline(2), 0.0, {A: 18}))
    h.keep(h.scheduler.configure(pipeline(3), 0.0, {A: 17}))
    assert kept(h) == {A: 17}
    assert h.scheduler.residency.memory.used == used


def test_another_model_forgets_everything() -> None:
    h = ended(Harness())
    h.scheduler.residency.forget()
    h.scheduler.check_integrity()
    assert kept(h) == {}
    assert h.scheduler.status()["releases_pending"] == 0, "the stages free it on their own"


def test_only_so_many_are_kept_and_pinned_ones_longest() -> None:
    h = Harness(Limits(max_kept=2))
    for n, sequence in enumerate((A, B, C)):
        h.submit(request(sequence, [n, *PROMPT[:14], 1], max_tokens=1))
        h.computed(h.frames[-1], 5)
        h.scheduler.residency.pin(A, True)
    assert kept(h) == {A: 16, C: 16}
    h.keep(h.scheduler.evict(A, 0.0))
    assert kept(h) == {C: 16}, "an operator's word goes before a pin"


# --- memory: 128 bytes and one per token each ----------------------------------------------------


def test_what_never_fits_is_refused_by_name() -> None:
    h = Harness(budget=160)
    with pytest.raises(RequestError, match=r"stage 0 has 160 bytes for KV, 161 are needed") as e:
        h.submit(request(A, 32))
    assert e.value.refusal is Refusal.MEMORY
    h.submit(request(A, 31, max_tokens=1))


def test_room_is_made_by_evicting_the_least_recently_used() -> None:
    h = Harness(budget=480)
    for n, sequence in enumerate((A, B)):
        h.submit(request(sequence, [n, *PROMPT[:14], 1], max_tokens=1))
        h.computed(h.frames[-1], 5)
    h.submit(request(C, 30, max_tokens=40))
    assert kept(h) == {B: 16}
    assert h.scheduler.residency.counts["evictions"] == 1


def test_who_does_not_fit_waits_for_who_runs() -> None:
    h = Harness(budget=300)
    h.submit(request(A, 12, max_tokens=4), request(B, 30, max_tokens=4))
    assert [f.spans[0].sequence for f in h.frames] == [A]
    assert h.scheduler.cached_tokens(B) is None
    h.keep(h.scheduler.cancel(A, 0.0))
    assert h.frames[1].spans[0].sequence == B
    assert h.frames[1].commands == (Release(A),)


def test_a_source_that_is_forked_makes_room_for_who_waits() -> None:
    h = ended(Harness(Limits(headroom=1), budget=440))
    h.submit(request(B, [*PROMPT[:18], 7, 8]), request(C, [9, *PROMPT[:30]]))
    assert [f.spans[0].sequence for f in h.frames[3:]] == [B]
    assert show(h.computed(h.frames[-1], 9))[1:] == ["send B1[20:21)! -A", "send C1[0:8)"]


def test_a_source_that_leaves_no_room_is_given_up() -> None:
    h = ended(Harness(budget=200))
    assert kept(h) == {A: 21}
    assert show(h.submit(request(B, TURN)))[0] == "send B1[0:16) -A"
    assert h.scheduler.cached_tokens(B) == 0


def outgrown(budget: int) -> tuple[Harness, list[Action]]:
    """A and B decode in turns, until they need more than there is."""
    h = Harness(Limits(headroom=1), budget=budget)
    h.submit(request(A, 4, max_tokens=100), request(B, 5, max_tokens=100))
    for number, frame in enumerate(h.frames):  # which grows meanwhile
        actions = h.computed(frame, *[number] * sum(s.outputs for s in frame.spans))
        if h.scheduler.residency.counts["preemptions"]:
            return h, actions
    raise AssertionError("nobody was preempted")


def test_the_youngest_is_preempted_and_comes_back() -> None:
    h, actions = outgrown(280)
    assert "revoke B<2" in show(actions)
    (waiting,) = [s for s in h.scheduler.sequences() if s.status.value == "waiting"]
    before = list(waiting.history.tokens)
    h.keep(h.scheduler.cancel(A, 0.0))
    back = h.frames[-1]
    assert back.spans[0].sequence == B
    assert Release(B, 2) in back.commands
    assert (back.spans[0].attempt, back.spans[0].position) == (3, 0)
    assert list(back.tokens) == before, "what it had is computed anew, and nothing delivered twice"
    (delivered,) = [a for a in h.computed(back, 77) if isinstance(a, Deliver)]
    assert delivered.position == len(before)
    assert h.scheduler.residency.counts["preemptions"] == 1


def test_what_is_pinned_stays_so_when_it_is_preempted() -> None:
    h = Harness()
    h.submit(request(A, 4), request(B, 20, max_tokens=3))
    for number, frame in enumerate(h.frames):  # which grows meanwhile
        h.computed(frame, *[number] * sum(s.outputs for s in frame.spans))
        if B in h.scheduler.residency.index:
            break
    h.scheduler.residency.pin(B, True)
    h.keep(h.scheduler.configure(pipeline(2, budget=160), 0.0))
    assert B not in h.scheduler.residency.index, "it was preempted"
    h.keep(h.scheduler.cancel(A, 0.0))
    while h.scheduler.status()["running"]:
        frame = h.frames[-1]
        h.computed(frame, *[9] * sum(s.outputs for s in frame.spans))
    (entry,) = h.scheduler.residency.index.kept
    assert (entry.sequence, entry.pinned) == (B, True)


def test_the_only_one_that_runs_ends_where_memory_ends() -> None:
    h = Harness(Limits(headroom=1), budget=140)
    h.submit(request(A, 4, max_tokens=100))
    actions: list[Action] = []
    while not any(isinstance(a, Finished) for a in actions):
        actions = h.computed(h.frames[-1], 3)
    end = end_of(actions)
    assert end.reason is FinishReason.LENGTH
    assert end.usage.completion_tokens == 9
    assert "no memory for more than its 13 tokens" in end.error


def test_a_layout_with_less_memory_preempts_what_is_too_much() -> None:
    h = Harness()
    h.submit(request(A, 4), request(B, 5))
    h.keep(h.scheduler.configure(pipeline(2, budget=150), 0.0))
    assert [(s.id, s.status.value) for s in h.scheduler.sequences()] == [
        (A, "prefill"),
        (B, "waiting"),
    ]
    actions = h.keep(h.scheduler.configure(pipeline(3, budget=100), 0.0))
    assert [a.reason for a in actions if isinstance(a, Finished)] == [FinishReason.CONTEXT] * 2
