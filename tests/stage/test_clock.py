"""When things happened, as stages tell it."""

from __future__ import annotations

import time

import pytest

from daemon.stage.arrivals import Arrivals
from daemon.stage.heartbeat import Clock
from transports.frame import Frame, FrameKind, StageTrace


def offset(clock: Clock) -> float:
    return clock() - time.monotonic()


def test_one_machine_has_one_clock_however_slow_the_exchange() -> None:
    clock = Clock()
    clock.exchange(sent=100.0, theirs=100.009, received=100.010)
    assert offset(clock) == pytest.approx(0.0, abs=1e-3)


def test_the_quickest_exchange_tells_the_offset() -> None:
    clock = Clock()
    clock.exchange(sent=100.0, theirs=5100.4, received=101.0)
    clock.exchange(sent=102.0, theirs=5102.0005, received=102.001)
    clock.exchange(sent=103.0, theirs=5103.9, received=104.0)
    assert offset(clock) == pytest.approx(5000.0, abs=2e-3)


def test_an_old_exchange_gives_way_to_a_slower_fresh_one() -> None:
    clock = Clock()
    clock.exchange(sent=0.0, theirs=5000.0005, received=0.001)
    clock.exchange(sent=10000.0, theirs=15001.05, received=10000.1)
    assert offset(clock) == pytest.approx(5001.0, abs=2e-3)


def frame(sent: float) -> Frame:
    return Frame(FrameKind.WORK, 1, 1, 1, traces=(StageTrace(0, 0.0, 0.0, 0.0, sent),))


def test_a_frame_that_queued_arrived_as_long_after_sending_as_the_quickest_one() -> None:
    arrivals = Arrivals()
    assert arrivals.at(frame(1.0), 1.3) == 1.3
    arrivals.finished()
    assert arrivals.at(frame(2.0), 5.0) == pytest.approx(2.3)
    arrivals.finished()
    assert arrivals.at(frame(5.9), 6.0) == 6.0, "not later than now"


def test_a_frame_that_came_while_the_stage_waited_arrived_then() -> None:
    arrivals, asked = Arrivals(), []

    def poll(milliseconds: int) -> list[tuple[str, int]]:
        asked.append(milliseconds)
        return [("ring", 1)] if milliseconds else []

    arrivals.at(frame(1.0), 1.3)
    arrivals.finished()
    assert arrivals.wait(lambda milliseconds: [("ring", 1)], 500) == {"ring": 1}
    assert arrivals.at(frame(2.0), 5.0) == pytest.approx(2.3), "it was there before"
    arrivals.finished()
    assert arrivals.wait(poll, 500) == {"ring": 1}
    assert asked == [0, 500]
    assert arrivals.at(frame(6.0), 8.0) == 8.0
