"""What goes right: prefill, decode, limits, order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.scheduler.actions import Deliver, Finished
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason, Refusal, RequestError
from daemon.scheduler.scheduler import Scheduler
from tests.scheduler.harness import NAMES, PROMPT, A, B, C, Harness, pipeline, request, show
from transports.frame import FrameKind, Release


def test_one_request_from_prompt_to_release() -> None:
    h = Harness()
    assert show(h.submit(request(A, 4, max_tokens=2))) == ["send A1[0:4)!"]
    assert show(h.computed(h.frames[0], 7)) == ["deliver A@4 [7]", "send A1[4:5)!"]
    assert show(h.computed(h.frames[1], 8)) == ["deliver A@5 [8]", "end A length", "send -A"]
    assert show(h.computed(h.frames[2])) == []
    assert h.scheduler.status()["releases_pending"] == 0
    assert h.scheduler.next_wake() is None


def test_a_frame_says_everything_that_a_stage_must_know() -> None:
    h = Harness(epoch=5, term=3)
    frame = h.decode(A, 4, token=7)
    first = h.frames[0]
    assert (first.kind, first.term, first.epoch) == (FrameKind.WORK, 3, 5)
    assert first.tokens == PROMPT[:4]
    assert first.constants[A]["sampling"]["temperature"] == 0.0
    assert first.constants[A]["kv_bits"] == 0
    assert first.spans[0].prefix_hash == 0
    assert frame.tokens == (7,)
    assert frame.constants == {}
    assert frame.spans[0].prefix_hash == History(PROMPT[:4]).hash_at(4)
    assert frame.microbatch > first.microbatch > 0


def test_a_long_prompt_goes_in_chunks_of_which_several_are_in_flight() -> None:
    h = Harness()
    sent = show(h.submit(request(A, 40)))
    assert sent == ["send A1[0:16)", "send A1[16:32)", "send A1[32:40)!"]
    assert show(h.computed(h.frames[0])) == []
    assert show(h.computed(h.frames[1])) == []
    assert show(h.computed(h.frames[2], 7)) == ["deliver A@40 [7]", "send A1[40:41)!"]


def test_the_window_is_one_more_than_the_stages() -> None:
    h = Harness(stages=1)
    assert show(h.submit(request(A, 40))) == ["send A1[0:16)", "send A1[16:32)"]
    assert h.scheduler.status()["in_flight"] == 2


def test_a_prompt_is_read_on_the_stage_that_a_step_leaves_idle() -> None:
    h = Harness()
    step = h.decode(A)
    assert show(h.submit(request(B, 40))) == ["send B1[0:8)"]
    assert show(h.computed(step, 2)) == ["deliver A@5 [2]", "send A1[5:6)!"]
    assert show(h.computed(h.frames[2])) == ["send B1[8:16)"]


def test_where_no_stage_is_idle_a_prompt_rides_in_the_steps() -> None:
    h = Harness()
    frames = [h.decode(s) for s in (A, B)]
    assert show(h.submit(request(C, 40))) == []  # both stages are busy with a group each
    assert show(h.computed(frames[0], 2)) == ["deliver A@5 [2]", "send A1[5:6)! C1[0:3)"]
    assert show(h.computed(frames[1], 2)) == ["deliver B@5 [2]", "send B1[5:6)! C1[3:6)"]


def test_sequences_take_turns() -> None:
    h = Harness(stages=1)
    h.submit(request(A), request(B), request(C))
    turns: list[str] = []
    for _ in range(6):
        frame = h.frames[len(turns)]
        turns.append("".join(NAMES[s.sequence] for s in frame.spans))
        h.computed(frame, *(1,) * sum(s.outputs for s in frame.spans))
    # C's prompt rides in the first step; then all decode in one.
    assert turns == ["A", "B", "AC", "BAC", "BAC", "BAC"]


def test_those_that_decode_ride_together_in_few_groups() -> None:
    """Four sequences on two stages: two groups of two, whoever comes and goes."""
    h = Harness()
    names = [bytes([letter]) * 16 for letter in b"abcd"]
    h.submit(*(request(name, 4, max_tokens=30) for name in names))
    for frame in h.frames:  # grows while it is walked through
        h.computed(frame, *(1,) * sum(s.outputs for s in frame.spans))
        if len(h.frames) >= 40:
            break
    steps = [{s.sequence for s in frame.spans} for frame in h.frames[-4:]]
    assert [len(step) for step in steps] == [2, 2, 2, 2]
    assert steps[0] == steps[2]
    assert steps[0] | steps[1] == set(names)


def test_who_comes_first_is_admitted_first() -> None:
    h = Harness(Limits(max_running=1))
    h.submit(request(A, 4, max_tokens=1), request(B), request(C))
    assert h.scheduler.status()["waiting"] == 2
    assert show(h.computed(h.frames[0], 7)) == [
        "deliver A@4 [7]",
        "end A length",
        "send B1[0:4)! -A",
    ]


@pytest.mark.parametrize(
    ("asked", "tokens", "delivered", "reason"),
    [
        (request(A, 4, max_tokens=3), [1, 2, 3], [1, 2, 3], FinishReason.LENGTH),
        (request(A, 4, max_tokens=9, stop=[2, 5]), [1, 2], [1], FinishReason.STOP),
        (request(A, 4, max_tokens=9, stop=[1]), [1], [], FinishReason.STOP),
        (request(A, 4, max_tokens=1, stop=[1]), [1], [], FinishReason.STOP),
        (request(A, 4, max_tokens=99), [1, 2, 3, 4], [1, 2, 3, 4], FinishReason.LENGTH),
    ],
)
def test_ends(asked: object, tokens: list[int], delivered: list[int], reason: FinishReason) -> None:
    h = Harness(context=8)
    h.submit(asked)  # type: ignore[arg-type]
    actions = []
    for token in tokens:
        h.now += 1.0
        actions += h.computed(h.frames[-1], token)
    got = [t for a in actions if isinstance(a, Deliver) for t in a.tokens]
    assert got == delivered
    (end,) = [a for a in actions if isinstance(a, Finished)]
    assert end.reason is reason
    assert end.usage.prompt_tokens == 4
    assert end.usage.completion_tokens == len(tokens)
    assert end.usage.first_token_seconds == 1.0
    assert end.usage.total_seconds == len(tokens)
    assert h.frames[-1].commands == (Release(A),)


def test_logprobs_come_with_their_tokens() -> None:
    h = Harness()
    h.submit(request(A, logprobs=1))
    actions = h.computed(h.frames[0], 7, logprobs={A: [[-0.5, [[7, -0.5]]]]})
    assert actions[0] == Deliver(A, 4, (7,), ([-0.5, [[7, -0.5]]],))


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (request(A, 0), Refusal.EMPTY_PROMPT),
        (request(A, [1, -1]), Refusal.BAD_TOKEN),
        (request(A, [1 << 31]), Refusal.BAD_TOKEN),
        (request(A, 20), Refusal.OVER_CONTEXT),
        (request(A, 19), None),
        (request(A, 4, max_tokens=0), Refusal.MAX_TOKENS),
        (request(b"short"), Refusal.SEQUENCE),
        (request(B), Refusal.SEQUENCE),
        (request(C), Refusal.SEQUENCE),
        (replace(request(A), fidelity=Fidelity(3)), Refusal.KV_BITS),
        (replace(request(A), fidelity=Fidelity(4)), None),
    ],
)
def test_what_is_refused(asked: object, refusal: Refusal | None) -> None:
    h = Harness(Limits(max_running=1), context=20)
    h.submit(request(B), request(C))
    if refusal is None:
        h.submit(asked)  # type: ignore[arg-type]
        return
    with pytest.raises(RequestError) as caught:
        h.submit(asked)  # type: ignore[arg-type]
    assert caught.value.refusal is refusal
    assert h.scheduler.status()["waiting"] == 1


def test_too_many_waiting() -> None:
    h = Harness(Limits(max_running=1, max_waiting=1))
    h.submit(request(A), request(B))
    with pytest.raises(RequestError, match="try again"):
        h.submit(request(C))


def test_without_a_pipeline_requests_wait() -> None:
    scheduler = Scheduler()
    assert scheduler.submit(request(A), 0.0) == []
    assert scheduler.next_wake() is None
    scheduler.check_integrity()
    assert show(scheduler.configure(pipeline(), 1.0)) == ["send A1[0:4)!"]
    assert scheduler.reissues.total() == 0


def test_what_is_known_of_sequences() -> None:
    h = Harness(Limits(max_running=1))
    h.decode(A)
    h.submit(request(B))
    known = list(h.scheduler.sequences())
    assert [(s.status.value, s.confirmed, s.generated) for s in known] == [
        ("decode", 4, 1),
        ("waiting", 0, 0),
    ]
