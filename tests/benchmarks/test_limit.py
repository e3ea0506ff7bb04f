"""The simulated limit, where a formula says what it must be."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.limit import (
    Draft,
    Pipe,
    Plan,
    batches,
    best_batches,
    best_decode,
    best_guessed_batches,
    decode,
    first_token,
    guessed_batches,
)
from benchmarks.paced.pace import FULL_ROW, Link, Pace
from transports.codecs.layout import Codec

TWO = Pace((6, 2), (0.030, 0.027))
THREE = Pace((3, 3, 2), (0.020, 0.020, 0.017))
NO_LINK = Link(0.0, 0.0, 0.0)


def bernoulli(acceptance: float, tokens: int) -> list[bool]:
    rng = random.Random(1)
    return [rng.random() < acceptance for _ in range(tokens)]


@pytest.mark.parametrize(
    ("pace", "tokens_per_second"),
    [
        (TWO, 1 / 0.063),
        (TWO.with_link(Link().quicker(10)), 1 / 0.0576),
        (replace(TWO, codec=Codec.FP8), 1 / (0.061 + 0.002 * 2082 / FULL_ROW)),
        (THREE, 1 / 0.066),
    ],
)
def test_without_guesses_a_token_takes_all_passes_and_hops(
    pace: Pace, tokens_per_second: float
) -> None:
    assert 1 / pace.round_seconds(1) == pytest.approx(tokens_per_second)
    assert decode(pace, Plan(0), [True] * 50, 50) == pytest.approx(49 / tokens_per_second)


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("guesses", [1, 3, 6])
def test_one_frame_at_a_time_gives_a_geometric_sum_a_round(acceptance: float, guesses: int) -> None:
    tokens, draft = 40_000, Draft(0.006, 0.003)
    seconds = decode(TWO, Plan(guesses), bernoulli(acceptance, tokens), tokens, draft)
    expected = (1 - acceptance ** (guesses + 1)) / (1 - acceptance)
    free = decode(TWO, Plan(guesses), bernoulli(acceptance, tokens), tokens)
    assert tokens / free == pytest.approx(expected / TWO.round_seconds(guesses + 1), rel=0.02)
    # Where all is as it was guessed, the token after the last guess too, the draft has gone on.
    waits = (1 - acceptance ** (guesses + 1)) * (0.006 + guesses * 0.003)
    assert seconds == pytest.approx(free + tokens / expected * waits, rel=0.01)


def test_right_guesses_fill_the_pipe() -> None:
    """Then the slowest stage is all that counts."""
    plan = Plan(4, 4, depth=4)
    seconds = decode(THREE, plan, [True] * 4001, 4001)
    assert 4000 / seconds == pytest.approx(4 / THREE.slowest_seconds(4), rel=0.01)


def test_wrong_guesses_are_not_worth_anything() -> None:
    rate, plan = best_decode(TWO, [False] * 60, 60)
    assert plan == Plan(0)
    assert rate == pytest.approx(1 / 0.063)


def test_a_slow_draft_is_waited_for() -> None:
    draft = Draft(0.006, 0.050)
    seconds = decode(TWO, Plan(0, 1, depth=3), [True] * 1001, 1001, draft)
    assert seconds == pytest.approx(1000 * draft.each, rel=0.01)


def test_running_ahead_is_no_worse_than_waiting() -> None:
    right = bernoulli(0.8, 400)
    waiting, _ = best_decode(TWO, right, 400, after=())
    assert best_decode(TWO, right, 400)[0] >= waiting


def test_it_is_not_known_before_the_pipeline_says_so() -> None:
    """A refuted token costs its whole way; the frames after it nothing but the passes begun."""
    right = [True, True, False, *[True] * 10]
    assert decode(TWO, Plan(1), right, 3) == pytest.approx(TWO.round_seconds(2))
    assert decode(TWO, Plan(2), right, 3) == pytest.approx(TWO.round_seconds(2))
    one_more = decode(TWO, Plan(1), right, 4)
    assert one_more == pytest.approx(TWO.round_seconds(2) + TWO.round_seconds(1))


def test_what_has_not_begun_is_cancelled() -> None:
    pipe = Pipe(TWO.with_link(NO_LINK))
    for _ in range(3):
        pipe.send(0.0, 1)
    pipe.cancel(0.045)  # while the second frame is in the first stage, and the third waits for it
    assert pipe.free() == pytest.approx(0.060)
    assert pipe.send(0.045, 1) == pytest.approx(0.060 + 0.030 + 0.027)


@pytest.mark.parametrize("groups", [(4, 4), (3, 3, 2), (8,)])
def test_groups_take_turns_at_the_slowest_stage_or_wait_for_their_own_round(
    groups: tuple[int, ...],
) -> None:
    slowest = sum(TWO.slowest_seconds(size) for size in groups)
    round_seconds = max(slowest, max(TWO.round_seconds(size) for size in groups))
    assert batches(TWO, groups) == pytest.approx(8 / round_seconds, rel=0.01)


def test_two_streams_fill_two_stages() -> None:
    rate, groups = best_batches(TWO, 2)
    assert groups == (1, 1)
    assert rate == pytest.approx(2 / 0.063)
    without_links = best_batches(TWO.with_link(NO_LINK), 3)[0]
    assert without_links > 1 / 0.030


def test_a_prompt_passes_in_chunks() -> None:
    one_chunk = TWO.round_seconds(400)
    assert first_token(TWO, 400) < one_chunk
    assert first_token(TWO, 1) == pytest.approx(TWO.round_seconds(1))
    alone = Pace((8,), (0.030,), NO_LINK)
    assert first_token(alone, 400) == pytest.approx(alone.pass_seconds(0, 400))


@pytest.mark.parametrize("groups", [(4, 4), (2, 1)])
def test_groups_without_guesses_are_groups(groups: tuple[int, ...]) -> None:
    rights = [[False] * 400 for _ in range(sum(groups))]
    plain = guessed_batches(TWO, groups, 0, rights, Draft(0.5, 0.5))
    assert plain == pytest.approx(batches(TWO, groups), rel=0.01)


def test_one_sequence_in_a_group_is_one_frame_at_a_time() -> None:
    right = bernoulli(0.8, 400)
    alone = guessed_batches(TWO, (1,), 4, [right])
    assert alone == pytest.approx(399 / decode(TWO, Plan(4), right, 400))


def test_guesses_of_many_streams_are_worth_it_when_right() -> None:
    rights = [bernoulli(0.8, 60)] * 8
    plain, _ = best_batches(TWO, 8)
    guessed, _, guesses = best_guessed_batches(TWO, rights)
    assert guesses > 0
    assert guessed > 1.5 * plain
    slower, _, _ = best_guessed_batches(TWO, rights, Draft(0.0, 0.003))
    assert plain < slower < guessed
    assert best_guessed_batches(TWO, [[False] * 60] * 8)[2] == 0


def test_a_draft_that_is_always_right_is_waited_for_once() -> None:
    rights, slow = [[True] * 400] * 4, Draft(0.0, 0.01)
    free = guessed_batches(TWO, (2, 2), 3, rights)
    assert guessed_batches(TWO, (2, 2), 3, rights, slow) == pytest.approx(free, rel=0.01)
