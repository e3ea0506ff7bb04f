"""Whether a draft is worth what it takes."""

from __future__ import annotations

import pytest

from daemon.scheduler.speculation.trial import AGAIN, PERIOD, Trial


def periods(trial: Trial, count: int, rates: dict[bool, float]) -> list[bool]:
    """With the draft or without, and tokens come at the rate of what it is."""
    now, seen = 0.0, []
    trial.interrupt()
    trial.delivered(1, now, True)
    for _ in range(count):
        seen.append(trial.drafting)
        now += PERIOD / rates[trial.drafting]
        trial.delivered(PERIOD, now, True)
    return seen


@pytest.mark.parametrize("worth", [True, False])
def test_the_better_one_goes_on_and_the_other_is_tried_again(worth: bool) -> None:
    seen = periods(Trial(), 3 * AGAIN, {worth: 300.0, not worth: 200.0})
    assert seen[:2] == [True, False]
    assert seen[2:AGAIN] == [worth] * (AGAIN - 2)
    assert seen[AGAIN] is not worth
    assert seen.count(not worth) == 3


def test_what_changes_is_seen() -> None:
    trial = Trial()
    periods(trial, AGAIN, {True: 300.0, False: 200.0})
    assert trial.drafting is False, "it is tried again"
    assert periods(trial, 3, {True: 300.0, False: 900.0}) == [False, False, False]


def test_a_pause_does_not_count() -> None:
    trial = Trial()
    trial.delivered(1, 0.0, True)
    trial.delivered(PERIOD - 1, 1.0, True)
    trial.interrupt()
    trial.delivered(1, 1000.0, True)
    trial.delivered(PERIOD - 1, 1001.0, True)
    assert trial.drafting, "no period is over"
    trial.delivered(1, 1001.1, True)
    assert not trial.drafting


def test_nothing_is_tried_where_there_is_nothing_else() -> None:
    trial = Trial()
    for now in range(5):
        trial.delivered(PERIOD, float(now), False)
    assert trial.drafting
    trial.delivered(PERIOD, 5.0, True)
    assert not trial.drafting
