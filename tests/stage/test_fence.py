"""Whose frames a stage obeys."""

from __future__ import annotations

import pytest

from daemon.stage.fence import MAX_HELD, Fence, Verdict
from transports.frame import Frame, FrameKind


def frame(term: int, epoch: int, microbatch: int = 1) -> Frame:
    return Frame(FrameKind.WORK, term, epoch, microbatch)


@pytest.mark.parametrize(
    ("layout", "verdict", "counter"),
    [
        ((2, 5), Verdict.ADMIT, None),
        ((2, 4), Verdict.DROP, "old_epoch"),
        ((1, 9), Verdict.DROP, "old_term"),
        ((2, 6), Verdict.HOLD, None),
        ((2, 9), Verdict.HOLD, None),
        ((2, 0), Verdict.DROP, "old_epoch"),
        ((3, 1), Verdict.DROP, "unknown_term"),
        ((3, 6), Verdict.DROP, "unknown_term"),
    ],
)
def test_table(layout: tuple[int, int], verdict: Verdict, counter: str | None) -> None:
    fence = Fence()
    fence.assign(2, 5)
    assert fence.judge(frame(*layout)) is verdict
    assert dict(fence.dropped) == ({counter: 1} if counter else {})
    fence.check_integrity()


def test_held_frames_come_back_in_order_with_their_layout() -> None:
    fence = Fence()
    fence.assign(1, 1)
    for microbatch in (1, 2, 3):
        assert fence.judge(frame(1, 2, microbatch)) is Verdict.HOLD
    assert [f.microbatch for f in fence.assign(1, 2)] == [1, 2, 3]
    assert fence.held == 0
    assert not fence.dropped


def test_only_the_newest_layout_is_held() -> None:
    fence = Fence()
    fence.assign(1, 1)
    for microbatch, epoch in ((1, 2), (2, 4), (3, 3), (4, 4)):
        fence.judge(frame(1, epoch, microbatch))
        fence.check_integrity()
    assert dict(fence.dropped) == {"held_too_long": 1, "old_epoch": 1}
    assert fence.assign(1, 3) == []
    assert [f.microbatch for f in fence.assign(1, 4)] == [2, 4]
    fence.judge(frame(1, 5))
    assert fence.assign(1, 6) == []
    assert fence.held == 0


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_without_a_place_nothing_is_computed(epoch: int) -> None:
    """A stage that has just come is told its place in the layout that the others have already."""
    fence = Fence()
    assert fence.judge(frame(0, 0)) is Verdict.DROP
    fence.see(3)
    held = fence.judge(frame(3, epoch)) is Verdict.HOLD
    assert held == (epoch > 0)
    assert len(fence.assign(3, max(epoch, 1))) == held


def test_what_is_held_goes_with_the_model_and_with_the_term() -> None:
    for end in (Fence.clear, lambda fence: fence.see(4)):
        fence = Fence()
        fence.assign(3, 1)
        fence.judge(frame(3, 2))
        end(fence)
        fence.check_integrity()
        assert fence.held == 0
        assert fence.dropped["held_too_long"] == 1


def test_older_assignments_change_nothing() -> None:
    fence = Fence()
    fence.assign(2, 5)
    assert fence.assign(2, 5) == fence.assign(2, 4) == fence.assign(1, 9) == []
    assert (fence.term, fence.epoch) == (2, 5)


def test_a_higher_term_ends_the_layout_and_a_lower_one_is_refused() -> None:
    fence = Fence()
    fence.assign(2, 5)
    fence.judge(frame(2, 6))
    assert not fence.see(1)
    assert fence.see(2)
    assert fence.see(3)
    assert fence.judge(frame(2, 5)) is Verdict.DROP
    assert fence.judge(frame(2, 6)) is Verdict.DROP
    assert fence.judge(frame(3, 1)) is Verdict.HOLD
    assert len(fence.assign(3, 1)) == 1


def test_what_is_held_is_bounded() -> None:
    fence = Fence()
    fence.see(1)
    for microbatch in range(MAX_HELD + 3):
        fence.judge(frame(1, 1, microbatch))
    assert fence.held == MAX_HELD
    assert fence.dropped["held_overflow"] == 3
