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
        ((3, 1), Verdict.HOLD, None),
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
    for microbatch, epoch in ((1, 2), (2, 3), (3, 2), (4, 4)):
        fence.judge(frame(1, epoch, microbatch))
    assert [f.microbatch for f in fence.assign(1, 2)] == [1, 3]
    assert [f.microbatch for f in fence.assign(1, 4)] == [4]
    assert fence.dropped["held_too_long"] == 1
    assert fence.held == 0


def test_older_assignments_change_nothing() -> None:
    fence = Fence()
    fence.assign(2, 5)
    assert fence.assign(2, 5) == fence.assign(2, 4) == fence.assign(1, 9) == []
    assert (fence.term, fence.epoch) == (2, 5)


def test_a_higher_term_ends_the_layout_and_a_lower_one_is_refused() -> None:
    fence = Fence()
    fence.assign(2, 5)
    fence.judge(frame(3, 1))
    assert not fence.see(1)
    assert fence.see(2)
    assert fence.see(3)
    assert fence.judge(frame(2, 5)) is Verdict.DROP
    assert fence.judge(frame(2, 6)) is Verdict.DROP
    assert len(fence.assign(3, 1)) == 1


def test_what_is_held_is_bounded() -> None:
    fence = Fence()
    for microbatch in range(MAX_HELD + 3):
        fence.judge(frame(1, 1, microbatch))
    assert fence.held == MAX_HELD
    assert fence.dropped["held_overflow"] == 3
