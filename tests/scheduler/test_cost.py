"""What a pass is predicted to cost, and what follows from it."""

from __future__ import annotations

import pytest

from daemon.scheduler.cost import CostModel
from daemon.scheduler.pipeline import Limits, StageCost
from transports.frame import StageTrace


def model(*stages: tuple[float, float], chunk: int = 256) -> CostModel:
    return CostModel([StageCost(*s) for s in stages], chunk)


def traces(*seconds: float, gap: float = 0.0) -> list[StageTrace]:
    """Stages one after the other, `gap` between them, from time 0 on."""
    made, now = [], 0.0
    for stage, each in enumerate(seconds):
        now += gap
        made.append(StageTrace(stage, now, now, now + each, now + each))
        now += each
    return made


def test_seeded_by_what_the_stages_measured() -> None:
    cost = model((0.1, 0.01), (0.2, 0.02))
    assert cost.stage_seconds(0, 1) == 0.1
    assert cost.stage_seconds(1, 11) == pytest.approx(0.4)
    assert cost.stage_seconds(1, 0) == 0.0
    assert cost.slowest_seconds(1) == 0.2
    assert cost.pass_seconds(1) == pytest.approx(0.3)


def test_learns_from_traces() -> None:
    cost = model((0.1, 0.01), (0.1, 0.01))
    for _ in range(100):
        cost.observe(1, traces(0.3, 0.2, gap=0.05), 0.0, 0.65)
        cost.observe(32, traces(0.5, 0.5), 0.0, 1.0)
        cost.observe(33, traces(9.0, 9.0), 0.0, 18.0)  # an odd length teaches nothing
        cost.check_integrity()
    assert cost.stage_seconds(0, 1) == pytest.approx(0.3, rel=0.01)
    assert cost.stage_seconds(1, 1) == pytest.approx(0.2, rel=0.01)
    assert cost.stage_seconds(0, 32) == pytest.approx(0.5, rel=0.01)
    assert cost.stage_seconds(0, 16) == pytest.approx(0.3 + 0.2 * 15 / 31, rel=0.01)  # between
    assert cost.stage_seconds(0, 256) == pytest.approx(2.65, rel=0.01)  # as it was seeded
    assert cost.stage_seconds(0, 33) < 0.6


def test_learns_what_passes_between_the_stages() -> None:
    cost = model((0.3, 0.01), (0.3, 0.01))
    for _ in range(100):
        cost.observe(1, traces(0.3, 0.3, gap=0.05), 0.0, 0.75)
    assert cost.as_dict()["between_seconds"] == pytest.approx(0.15, rel=0.01)
    assert cost.pass_seconds(1) == pytest.approx(0.75, rel=0.01)


@pytest.mark.parametrize("seen", [[], traces(9.0), traces(9.0, 9.0)[::-1], traces(9.0, 9.0, 9.0)])
def test_traces_that_are_not_of_this_layout_teach_nothing(seen: list[StageTrace]) -> None:
    cost = model((0.1, 0.01), (0.1, 0.01))
    cost.observe(1, seen, 0.0, 9.0)
    assert cost.pass_seconds(1) == pytest.approx(0.2)


def test_clocks_that_differ_do_not_make_negative_times() -> None:
    cost = model((0.1, 0.01))
    cost.observe(1, [StageTrace(0, -5.0, 3.0, 2.0, 1.0)], 0.0, 0.5)
    cost.check_integrity()


@pytest.mark.parametrize(
    ("stages", "useful"),
    [
        ([(0.1, 0.0)], 2),
        ([(0.1, 0.0)] * 2, 3),
        ([(0.1, 0.0)] * 4, 5),
        ([(1.0, 0.0), (0.1, 0.0)], 2),
        ([(1.0, 0.0), (0.05, 0.0), (0.04, 0.0)], 2),
        ([(0.0, 0.0)] * 2, 3),
    ],
)
def test_useful_in_flight(stages: list[tuple[float, float]], useful: int) -> None:
    assert model(*stages).useful_in_flight() == useful


@pytest.mark.parametrize(
    ("stages", "remaining", "decoding", "chunk"),
    [
        ([(0.01, 0.001)], 10, False, 10),  # all that is left
        ([(0.01, 0.001)], 2000, False, 256),  # one stage: nothing to overlap, few passes
        ([(0.01, 0.001)] * 2, 2000, False, 128),  # two: 16 chunks, and one more to drain
        ([(0.01, 0.001)] * 2, 200, False, 32),
        ([(0.0, 0.001)] * 2, 2000, False, 16),  # passes cost nothing: as small as can be
        ([(0.01, 0.001)] * 2, 2000, True, 16),  # beside others: 1.5 passes at most
        ([(0.01, 0.00005)] * 2, 2000, True, 64),
        ([(0.01, 0.1)] * 2, 2000, True, 16),  # but never less than the smallest
    ],
)
def test_chunk(
    stages: list[tuple[float, float]], remaining: int, decoding: bool, chunk: int
) -> None:
    assert model(*stages).chunk(remaining, decoding) == chunk


def test_a_chunk_size_that_turns_out_dear_is_left() -> None:
    cost = model((0.01, 0.001), (0.01, 0.001))
    assert cost.chunk(2000, False) == 128
    for _ in range(20):
        cost.observe(128, traces(0.5, 0.5), 0.0, 1.0)
    assert cost.chunk(2000, False) == 256


def test_chunks_respect_the_layouts_limit() -> None:
    assert model((0.01, 0.0), chunk=100).chunk(2000, False) == 100
    assert model((0.01, 0.0), chunk=5).chunk(2000, True) == 5


@pytest.mark.parametrize(
    ("repeats", "seconds"), [(1, 0.0), (2, 0.1), (3, 0.2), (6, 1.6), (9, 5.0), (10_000, 5.0)]
)
def test_back_off(repeats: int, seconds: float) -> None:
    assert Limits().backoff(repeats) == pytest.approx(seconds)
