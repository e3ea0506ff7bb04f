"""What the scheduler makes of a pace when nothing else takes time, beside the best there could be.
All times are virtual.
"""

from __future__ import annotations

import random

import pytest

from benchmarks.limit import Draft, Plan, best_decode, decode
from benchmarks.paced.oracle import Script, trace
from benchmarks.paced.pace import Pace
from benchmarks.paced.rehearsal import Rehearsal
from daemon.scheduler.speculation.tempo import Course, Tempo

TWO = Pace((6, 2), (0.030, 0.027))
THREE = Pace((3, 3, 2), (0.020, 0.020, 0.017))
AT_ONCE, DRAFTED = Draft(), Draft(0.0, 0.003)


def script(acceptance: float, tokens: int) -> Script:
    rng = random.Random(tokens)
    answer = tuple(rng.randrange(1000) for _ in range(tokens))
    return Script((1, 2, 3), answer, trace(acceptance, tokens))


@pytest.mark.parametrize("pace", [TWO, THREE])
def test_without_guesses_a_token_takes_one_round(pace: Pace) -> None:
    rehearsal = Rehearsal(pace, [])
    assert rehearsal.rate(script(0.0, 40)) == pytest.approx(1 / pace.round_seconds(1))


@pytest.mark.parametrize("draft", [AT_ONCE, DRAFTED])
@pytest.mark.parametrize("pace", [TWO, THREE])
def test_wrong_guesses_are_given_up_soon(pace: Pace, draft: Draft) -> None:
    wrong = script(0.0, 300)
    reached = Rehearsal(pace, [wrong], draft.each).rate(wrong) * pace.round_seconds(1)
    assert 0.98 < reached <= 1.0


@pytest.mark.parametrize("draft", [AT_ONCE, DRAFTED])
@pytest.mark.parametrize("pace", [TWO, THREE])
@pytest.mark.parametrize(("acceptance", "share"), [(0.6, 0.96), (0.8, 0.93), (0.95, 0.92)])
def test_overlapped_guesses_reach_most_of_what_is_possible(
    pace: Pace, acceptance: float, share: float, draft: Draft
) -> None:
    """Though the acceptance is to be found out first."""
    guessed = script(acceptance, 240)
    limit, _ = best_decode(pace, guessed.right, 240, draft)
    assert share * limit < Rehearsal(pace, [guessed], draft.each).rate(guessed) < 1.05 * limit


@pytest.mark.parametrize("draft", [AT_ONCE, DRAFTED])
@pytest.mark.parametrize("pace", [TWO, THREE])
@pytest.mark.parametrize("tempo", [Tempo(4), Tempo(2, 3, 2), Tempo(4, 5, 2), Tempo(3, 4, 3)])
def test_a_tempo_gives_what_it_promises(pace: Pace, tempo: Tempo, draft: Draft) -> None:
    course = Course.of(
        lambda n: [pace.pass_seconds(stage, n) for stage in range(len(pace.passes))],
        lambda n: sum(pace.hops(n)),
        draft.wait,
        draft.each,
    )
    rng, tokens = random.Random(3), 4000
    right = [rng.random() < 0.8 for _ in range(tokens)]
    share = sum(right) / tokens
    plan = Plan(tempo.first, tempo.after, tempo.depth)
    played = tokens / decode(pace, plan, right, tokens, draft)
    assert course.rate(tempo, share) == pytest.approx(played, rel=0.04)


def test_streams_share_the_stages() -> None:
    rehearsal = Rehearsal(TWO, [])
    first, second = rehearsal.streams([script(0.0, 40), script(0.0, 50)])
    assert len(first) == 40
    assert len(second) == 50
    together = (first[-1] - first[0]) / 39
    assert together == pytest.approx(TWO.round_seconds(1), rel=0.02), "one fills the other's gaps"
