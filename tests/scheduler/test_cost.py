"""What a pass is predicted to cost, and what follows from it."""

from __future__ import annotations

import math
import random

import pytest

from daemon.scheduler.cost import CostModel, Groups, Pass
from daemon.scheduler.curve import CostCurves
from daemon.scheduler.pipeline import Limits, StageCost
from transports.frame import Span, StageTrace

ONE = Pass(1)


def model(*stages: tuple[float, float], chunk: int = 256) -> CostModel:
    """Stages by seconds of a step of one, and per token of a prompt."""
    return CostModel([StageCost(((1, step),), token) for step, token in stages], chunk)


def chunk_of(tokens: int) -> Pass:
    return Pass(tokens, together=False)


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
    assert cost.stage_seconds(ONE)[0] == 0.1
    assert cost.stage_seconds(chunk_of(11))[1] == pytest.approx(0.4)
    assert cost.stage_seconds(chunk_of(0))[1] == 0.0
    assert cost.slowest_seconds(ONE) == 0.2
    assert cost.pass_seconds(ONE) == pytest.approx(0.3)


def test_steps_are_seeded_by_the_number_of_sequences() -> None:
    cost = CostModel([StageCost(((1, 0.1), (4, 0.16), (8, 0.2)), 0.001)], 256)
    found = [cost.stage_seconds(Pass(n))[0] for n in (1, 2, 4, 6, 8, 12)]
    assert found == pytest.approx([0.1, 0.12, 0.16, 0.18, 0.2, 0.204])


def test_learns_from_traces() -> None:
    cost = model((0.1, 0.01), (0.1, 0.01))
    for _ in range(100):
        cost.observe(ONE, traces(0.3, 0.2, gap=0.05), 0.0, 0.65)
        cost.observe(chunk_of(32), traces(0.5, 0.5), 0.0, 1.0)
        cost.observe(chunk_of(33), traces(9.0, 9.0), 0.0, 18.0)  # an odd length teaches nothing
        cost.check_integrity()
    assert cost.stage_seconds(ONE)[0] == pytest.approx(0.3, rel=0.01)
    assert cost.stage_seconds(ONE)[1] == pytest.approx(0.2, rel=0.01)
    assert cost.stage_seconds(chunk_of(32))[0] == pytest.approx(0.5, rel=0.01)
    between = 0.1 + 0.4 * 15 / 31
    assert cost.stage_seconds(chunk_of(16))[0] == pytest.approx(between, rel=0.01)
    assert cost.stage_seconds(chunk_of(256))[0] == pytest.approx(2.65, rel=0.01)  # as seeded
    assert cost.stage_seconds(chunk_of(33))[0] < 0.6


def test_learns_what_passes_between_the_stages() -> None:
    cost = model((0.3, 0.01), (0.3, 0.01))
    for _ in range(100):
        cost.observe(ONE, traces(0.3, 0.3, gap=0.05), 0.0, 0.75)
    assert cost.as_dict()["between_seconds"] == pytest.approx(0.15, rel=0.01)
    assert cost.pass_seconds(ONE) == pytest.approx(0.75, rel=0.01)


def test_waiting_before_the_first_stage_is_not_taken_for_its_link() -> None:
    cost = model((0.3, 0.01), (0.3, 0.01))
    for _ in range(100):
        late = traces(0.3, 0.3, gap=0.05)
        cost.observe(ONE, late, -2.0, 0.75)
    assert cost.pass_seconds(ONE) == pytest.approx(0.75, rel=0.01)


def test_learns_what_a_position_costs_although_times_scatter() -> None:
    rng = random.Random(1)
    curve = CostCurves(range(1, 9), [{1: 0.023, 4: 0.032}], [0.003])
    for turn in range(400):
        tokens = rng.choice((3, 4))
        attended = tokens * (1500 + turn)
        seconds = 0.02 + 0.003 * tokens + 2e-6 * attended
        curve.learn(tokens, attended, [seconds * rng.uniform(0.9, 1.1)])
        curve.learn(tokens, attended, [seconds + 60.0 * (turn == 200)])  # the machine slept once
        curve.check_integrity()
    assert curve.position_seconds[0] == pytest.approx(2e-6, rel=0.2)
    assert curve.seconds(4, 4 * 1900)[0] == pytest.approx(0.0472, rel=0.1)
    assert curve.seconds(4, 0)[0] == pytest.approx(0.032, rel=0.2)
    # What no step of that size has shown is told by the others.
    assert curve.seconds(1, 4 * 1900)[0] == pytest.approx(0.02 + 0.0152, rel=0.2)


def test_stages_that_measured_other_sizes_begin_with_their_own_lines() -> None:
    curves = CostCurves(range(1, 17), [{1: 0.1, 4: 0.16}, {1: 0.2, 8: 0.27}], [0.01, 0.02])
    for tokens, wanted in ((2, [0.12, 0.21]), (4, [0.16, 0.23]), (8, [0.2, 0.27])):
        assert curves.seconds(tokens, 0) == pytest.approx(wanted)
    assert curves.seconds(12, 0) == pytest.approx([0.24, 0.35])
    curves.check_integrity()


@pytest.mark.parametrize("seen", [[], traces(9.0), traces(9.0, 9.0)[::-1], traces(9.0, 9.0, 9.0)])
def test_traces_that_are_not_of_this_layout_teach_nothing(seen: list[StageTrace]) -> None:
    cost = model((0.1, 0.01), (0.1, 0.01))
    cost.observe(ONE, seen, 0.0, 9.0)
    assert cost.pass_seconds(ONE) == pytest.approx(0.2)


def test_clocks_that_differ_do_not_make_negative_times() -> None:
    cost = model((0.1, 0.01))
    cost.observe(ONE, [StageTrace(0, -5.0, 3.0, 2.0, 1.0)], 0.0, 0.5)
    cost.check_integrity()


def test_what_spans_ask_for() -> None:
    def span(position: int, length: int) -> Span:
        return Span(bytes(16), 1, position, length, 0)

    assert Pass.of([span(10, 1), span(7, 1)]) == Pass(2, 17, True)
    assert Pass.of([span(10, 4)]) == Pass(4, 48, False)


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


BATCHING = ((1, 0.0170), (2, 0.0175), (4, 0.0225), (8, 0.0280))  # half a 512 x 16 llama, one core
ROWS = tuple((n, 0.01 * n) for n in (1, 2, 4, 8, 16))  # nothing is shared: as good as alone
READS = tuple((n, 0.03) for n in (1, 2, 4, 8, 16))  # only the weights count


@pytest.mark.parametrize(
    ("steps", "stages", "decoding", "groups"),
    [
        (BATCHING, 2, 0, Groups(1, 1)),
        (BATCHING, 2, 1, Groups(1, 1)),
        (BATCHING, 2, 2, Groups(2, 1)),
        (BATCHING, 2, 3, Groups(2, 2)),
        (BATCHING, 2, 4, Groups(2, 2)),
        (BATCHING, 2, 8, Groups(2, 4)),  # not 3 + 3 + 2
        (BATCHING, 1, 8, Groups(1, 8)),
        (ROWS, 2, 8, Groups(2, 4)),
        (ROWS, 3, 9, Groups(3, 3)),
        (READS, 3, 9, Groups(1, 9)),  # each has its token after one pass of the pipe, at best
        (READS, 2, 200, Groups(4, 50)),  # a step has its limit
    ],
)
def test_groups(
    steps: tuple[tuple[int, float], ...], stages: int, decoding: int, groups: Groups
) -> None:
    cost = CostModel([StageCost(steps, 0.001)] * stages, 256)
    assert cost.groups(decoding, 100 * decoding) == groups


def test_groups_stay_unless_others_are_clearly_better() -> None:
    cost = CostModel([StageCost(READS, 0.001)] * 2, 256)
    assert cost.groups(4, 0) == Groups(1, 4)
    for seconds, groups in ((0.0296, Groups(1, 4)), (0.024, Groups(2, 2))):
        for _ in range(100):
            cost.observe(Pass(2), traces(seconds, seconds), 0.0, 2 * seconds)
        assert cost.groups(4, 0) == groups


@pytest.mark.parametrize(
    ("reading", "seconds", "groups"),
    [
        (False, 0.033, Groups(1, 4)),
        (True, 0.033, Groups(2, 2)),
        (True, 0.05, Groups(1, 4)),  # unless it is worth a lot
    ],
)
def test_beside_a_prompt_groups_are_not_joined_for_little(
    reading: bool, seconds: float, groups: Groups
) -> None:
    """Who is to be in a larger group waits up to a round for the others."""
    cost = CostModel([StageCost(READS, 0.001)] * 2, 256)
    for now in (0.020, seconds):  # of two together: first much less than of four, then more
        for _ in range(100):
            cost.observe(Pass(2), traces(now, now), 0.0, 2 * now)
        found = cost.groups(4, 0, reading)
    assert found == groups


@pytest.mark.parametrize(
    ("stages", "remaining", "patience", "chunk"),
    [
        ([(0.01, 0.001)], 10, None, 10),  # all that is left
        ([(0.01, 0.001)], 2000, None, 256),  # one stage: nothing to overlap, few passes
        ([(0.01, 0.001)] * 2, 2000, None, 128),  # two: 16 chunks, and one more to drain
        ([(0.01, 0.001)] * 2, 200, None, 32),
        ([(0.0, 0.001)] * 2, 2000, None, 16),  # passes cost nothing: as small as can be
        ([(0.01, 0.001)] * 2, 2000, 0.02, 8),  # beside others: as long as they may wait
        ([(0.01, 0.00005)] * 2, 2000, 0.02, 128),
        ([(0.01, 0.1)] * 2, 2000, 0.02, 2),  # but never less than the smallest
    ],
)
def test_chunk(
    stages: list[tuple[float, float]], remaining: int, patience: float | None, chunk: int
) -> None:
    assert model(*stages).chunk(remaining, 0, patience) == chunk


@pytest.mark.parametrize(
    ("stages", "groups", "seconds"),
    [
        (2, 1, 0.017),  # a round of 20 ms may take 27, of which the step needs 10 at each stage
        (4, 1, 0.044 / 3),  # one of 40 may take 54: three idle stages share what is left
        (4, 3, 0.024),
        (2, 2, 0.007),  # full: what is above the steps is for one chunk
        (1, 1, 0.0035),
    ],
)
def test_patience(stages: int, groups: int, seconds: float) -> None:
    cost = model(*[(0.01, 0.001)] * stages)
    assert cost.patience(Groups(groups, 1), ONE) == pytest.approx(seconds)


def test_chunks_become_shorter_as_the_prompt_becomes_longer() -> None:
    cost = model((0.01, 0.0001), (0.01, 0.0001))
    assert cost.chunk(4000, 3000, 0.015) == 32
    for position in range(0, 4000, 32):
        attended = 32 * (position + 16)
        seconds = 0.0131 + 1e-7 * attended
        cost.observe(Pass(32, attended, False), traces(seconds, seconds), 0.0, 2 * seconds)
    assert cost.chunk(4000, 0, 0.015) == 32
    assert cost.chunk(4000, 3000, 0.015) == 8


@pytest.mark.parametrize(
    ("rows", "per_token", "remaining", "riders"),
    [
        (1, 0.001, 2000, 3),  # a third more than a step of one
        (8, 0.001, 2000, 6),
        (1, 0.0, 2000, 64),  # where only the weights count, as many as may
        (1, 0.0, 3, 3),
        (1, 0.1, 2000, 1),  # it goes on in any case
    ],
)
def test_riders(rows: int, per_token: float, remaining: int, riders: int) -> None:
    cost = CostModel([StageCost(((1, 0.01), (8, 0.02)), per_token)] * 2, 256)
    cost = model((0.01, per_token), (0.01, per_token)) if rows == 1 else cost
    assert cost.rider(remaining, 0, Pass(rows)) == riders


READING = StageCost(((1, 0.020), (2, 0.028), (64, 0.032)), 0.00004)  # only the weights count


def test_where_the_weights_are_what_costs_a_prompt_does_not_starve() -> None:
    """Even the least piece takes longer than it may; many times as many tokens hardly do."""
    cost = CostModel([READING] * 2, 512)
    full = cost.groups(2, 0)
    assert full == Groups(2, 1)
    assert cost.slowest_seconds(chunk_of(2)) > cost.patience(full, ONE)
    assert cost.chunk(2000, 0, cost.patience(full, ONE)) == 64
    assert cost.slowest_seconds(ONE.joined(1, 0)) > 1.35 * cost.slowest_seconds(ONE)
    assert cost.rider(2000, 0, ONE) == 64
    assert cost.rider(40, 0, ONE) == 40


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])  # of a step, whatever its length
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_no_round_is_predicted_to_take_three_times_as_long(
    share: float, stages: int, rows: int
) -> None:
    token = 0.01 * (1.0 - share)
    costs = tuple((n, 0.01 * share + n * token) for n in (1, 2, 4, 8))
    cost = CostModel([StageCost(costs, token)] * stages, 256)
    groups, step = cost.groups(rows, 0), Pass(math.ceil(rows / stages))
    steps = groups.count * cost.slowest_seconds(step)
    usual = max(steps, cost.pass_seconds(step))
    idle = max(1, stages - groups.count)
    chunk = cost.chunk(2000, 0, cost.patience(groups, step))
    beside = steps + idle * cost.slowest_seconds(chunk_of(chunk))
    assert beside <= 3.0 * usual * 1.0001
    joined = step.joined(cost.rider(2000, 0, step), 0)
    assert cost.slowest_seconds(joined) <= 2.0 * cost.slowest_seconds(step) * 1.0001


def test_riders_become_fewer_as_the_prompt_becomes_longer() -> None:
    cost = model((0.01, 0.0001), (0.01, 0.0001))
    for position in range(0, 4000, 32):
        done = ONE.joined(16, position)
        seconds = 0.0116 + 1e-7 * done.attended
        cost.observe(done, traces(seconds, seconds), 0.0, 2 * seconds)
    assert [cost.rider(4000, at, ONE) for at in (0, 1000, 3000)] == [32, 16, 8]


def test_a_chunk_size_that_turns_out_dear_is_left() -> None:
    cost = model((0.01, 0.001), (0.01, 0.001))
    assert cost.chunk(2000, 0, None) == 128
    for _ in range(20):
        cost.observe(chunk_of(128), traces(0.5, 0.5), 0.0, 1.0)
    assert cost.chunk(2000, 0, None) == 256


def test_chunks_respect_the_layouts_limit() -> None:
    assert model((0.01, 0.0), chunk=100).chunk(2000, 0, None) == 100
    assert model((0.01, 0.0), chunk=5).chunk(2000, 0, 1.0) == 5


@pytest.mark.parametrize(
    ("repeats", "seconds"), [(1, 0.0), (2, 0.1), (3, 0.2), (6, 1.6), (9, 5.0), (10_000, 5.0)]
)
def test_back_off(repeats: int, seconds: float) -> None:
    assert Limits().backoff(repeats) == pytest.approx(seconds)


def test_several_positions_of_one_sequence_begin_as_a_step_of_as_many() -> None:
    """Until some were seen: the weights are read once for all of them."""
    stages = (StageCost(((1, 0.1), (4, 0.13), (8, 0.17)), 0.05),) * 2
    cost = CostModel(stages, 16)
    assert cost.stage_seconds(Pass(4, together=False, verify=True))[0] == pytest.approx(0.13)
    assert cost.stage_seconds(Pass(6, together=False, verify=True))[0] == pytest.approx(0.15)
