"""Stages that lost what they held are refilled: who is asked for what, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.scheduler.actions import Action
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.refilling import MIN_REFILL, refill_of
from tests.scheduler.harness import A, B, C, Harness, pipeline, request, show
from transports.frame import FrameKind, Reason, Refill, StageTrace

AT_ONCE = Limits(backoff_seconds=0.0)


def decoding(prompt: int = 40, limits: Limits = AT_ONCE) -> Harness:
    """Three stages hold the prompt of A, whose next token is in flight."""
    h = Harness(limits, stages=3)
    h.submit(request(A, prompt))
    h.computed(h.frames[-1], 1)
    return h


def lost(h: Harness, *stages: int, epoch: int = 2) -> list[Action]:
    return h.keep(h.scheduler.configure(pipeline(epoch, stages=3), h.now, lost=stages))


@pytest.mark.parametrize(
    ("stages", "whom"), [((0,), "0-0"), ((1,), "1-1"), ((2,), "2-2"), ((0, 1), "0-1")]
)
def test_these_stages_go_first_then_all_go_on(stages: tuple[int, ...], whom: str) -> None:
    h = decoding()
    assert show(lost(h, *stages)) == [
        f"send A2[0:16) for {whom}",
        f"send A2[16:32) for {whom}",
        f"send A2[32:40) for {whom}",
        "send A2[40:41)!",
    ]
    assert [A in frame.constants for frame in h.frames[-4:]] == [True, False, False, True]
    for frame in h.frames[-4:-1]:
        assert h.computed(frame) == []
    assert show(h.computed(h.frames[-1], 9))[0] == "deliver A@41 [9]"
    assert h.scheduler.status()["refills"] == {"begun": 1, "given up": 0, "tokens": 40}


@pytest.mark.parametrize("stages", [(0, 2), (0, 1, 2)])
def test_where_that_is_all_of_them_nobody_is_refilled(stages: tuple[int, ...]) -> None:
    h = decoding()
    assert show(lost(h, *stages))[:1] == ["send A2[0:16)"]
    assert h.scheduler.status()["refills"]["begun"] == 0


def test_a_few_tokens_are_computed_by_all() -> None:
    h = decoding(MIN_REFILL - 1)
    assert show(lost(h, 1)) == ["send A2[0:16)!"]


def test_a_prompt_that_is_being_read_goes_on_where_it_was() -> None:
    h = Harness(stages=3)
    h.submit(request(A, 40))
    h.computed(h.frames[0])
    assert show(lost(h, 1)) == [
        "send A2[0:16) for 1-1",
        "send A2[16:32)",
        "send A2[32:40)!",
    ]


def test_what_was_not_kept_is_computed_by_all() -> None:
    """What the stage before says counts as no try: nobody waits before the next."""
    h = decoding(limits=Limits())
    lost(h, 1)
    frame = h.frames[-4]
    h.computed(frame)
    assert show(h.departed(h.frames[-3], Reason.MISSING, 16, stage=0)) == [
        "revoke A<3",
        "send A3[16:32)",
        "send A3[32:41)!",
    ]
    assert h.scheduler.status()["refills"]["given up"] == 1


def test_a_chunk_that_did_not_arrive_is_sent_to_the_same_stage_again() -> None:
    h = decoding()
    lost(h, 1)
    assert show(h.departed(h.frames[-3], Reason.MISSING, 0, stage=1))[:2] == [
        "revoke A<3",
        "send A3[0:16) for 1-1",
    ]
    assert h.scheduler.status()["refills"] == {"begun": 1, "given up": 0, "tokens": 0}


def test_a_frame_that_is_lost_is_sent_to_the_same_stage_again() -> None:
    h = decoding()
    lost(h, 1)
    h.computed(h.frames[-4])
    assert show(h.keep(h.scheduler.link_failed(h.now))) == [
        "revoke A<3",
        "send A3[16:32) for 1-1",
        "send A3[32:40) for 1-1",
        "send A3[40:41)!",
    ]


def test_once_it_is_there_a_nack_is_one_of_all() -> None:
    h = decoding()
    lost(h, 1)
    for frame in h.frames[-4:-1]:
        h.computed(frame)
    assert "for" not in " ".join(show(h.departed(h.frames[-1], Reason.MISSING, 20, stage=1)))


def test_a_stage_that_is_lost_again_has_all_of_it_refilled() -> None:
    h = decoding()
    lost(h, 1)
    h.computed(h.frames[-4])
    again = show(lost(h, 1, epoch=3))
    assert again[-2:] == ["send A3[32:40) for 1-1", "send A3[40:41)!"]
    assert show(lost(h, 0, epoch=4))[:2] == ["send A4[0:16)", "send A4[16:32)"], "nothing is proven"


def test_another_layout_does_not_refill_the_places_of_the_one_before() -> None:
    """Also where nothing was sent yet: a frame for a stage that is not there passes all."""
    h = decoding(limits=Limits())
    lost(h, 2)
    h.keep(h.scheduler.link_failed(h.now))  # it waits now, before it is sent again
    actions = h.keep(h.scheduler.configure(pipeline(3, stages=1), h.now, lost=[0]))
    assert show(actions) == ["send A4[0:16)", "send A4[16:32)"]


def test_passes_of_stages_that_did_nothing_teach_nothing() -> None:
    h = decoding()
    lost(h, 1)
    before = h.scheduler.status()["predicted"]
    traces = tuple(StageTrace(stage, 0.1, 0.2, 5.0, 5.1) for stage in range(3))
    h.now = 10.0
    h.computed(replace(h.frames[-4], traces=traces))
    assert h.scheduler.status()["predicted"] == before
    assert h.scheduler.stats.as_dict(10.0)["hops"][0]["link"]["count"] == 0


def test_chunks_for_one_stage_do_not_ride_with_steps_of_all() -> None:
    h = Harness(stages=2)
    h.submit(request(A, range(200), 99), request(B, range(20), 99), request(C, range(30, 50), 99))
    answered = 0

    def go_on() -> None:
        nonlocal answered
        while not all(s.generated for s in h.scheduler.sequences()):
            frame = h.frames[answered]
            answered += 1
            h.computed(frame, *[1] * sum(span.outputs for span in frame.spans))

    go_on()
    answered = len(h.frames)
    h.keep(h.scheduler.configure(pipeline(2), h.now, lost=[1]))
    beside = 0
    while h.scheduler.status()["refills"]["tokens"] < 240:
        frame = h.frames[answered]
        answered += 1
        beside += len(h.frames) > answered and any(s.outputs for s in frame.spans)
        assert frame.refill is None or len(frame.spans) == 1
        assert frame.refill or not any(s.sequence == A and s.position < 200 for s in frame.spans)
        h.computed(frame, *[1] * sum(span.outputs for span in frame.spans))
    assert beside, "no step went beside the chunks"


def test_a_refill_that_comes_back_undone_is_malformed() -> None:
    h = decoding()
    lost(h, 1)
    answer = replace(h.frames[-4], kind=FrameKind.WORK)
    assert h.keep(h.scheduler.result(answer, 0.0)) == []
    assert h.scheduler.counts["frames_malformed"] == 1


@pytest.mark.parametrize(
    ("stages", "count", "refill"),
    [
        ([], 3, None),
        ([1], 3, Refill(1, 2)),
        ([2, 1], 3, Refill(1, 3)),
        ([0, 1, 2], 3, None),
        ([0], 1, None),
        ([254], 300, Refill(254, 255)),
        ([255], 300, None),  # beyond what a frame can say
    ],
)
def test_stages_between_lost_ones_are_refilled_too(
    stages: list[int], count: int, refill: Refill | None
) -> None:
    assert refill_of(stages, count) == refill
