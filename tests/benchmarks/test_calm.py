"""Turns that other work disturbed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import calm
from benchmarks.calm import Calm, Usage, foreign_share, usage


def _looks(*foreign: float) -> Iterator[Usage]:
    """What is seen before and after turns of one second in which others took so much of a core."""
    at, machine, own = 0.0, 0.0, 0.0
    for share in foreign:
        yield Usage(at, machine, own)
        at, machine, own = at + 1, machine + 1 + share, own + 1
        yield Usage(at, machine, own)


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm.time, "sleep", lambda seconds: None)


def _calm(budget: float, *foreign: float) -> Calm:
    looks = _looks(*foreign)
    return Calm(budget, lambda: next(looks))


def test_a_calm_turn_counts_at_once() -> None:
    turns = _calm(10, 0.02)
    assert turns.turn(lambda: 5.0) == 5.0
    assert turns.note() == "Other work stayed below 10% of one core during every turn."


def test_a_disturbed_turn_is_repeated_when_it_is_calm_again() -> None:
    values = iter([1.0, 9.0])
    turns = _calm(10, 0.8, 0.7, 0.0, 0.05)  # turn, two waits, turn
    assert turns.turn(lambda: next(values)) == 9.0
    assert turns.budget == pytest.approx(8.0)
    assert turns.disturbed == 0


def test_without_calm_the_least_disturbed_turn_stays_and_is_counted() -> None:
    values = iter([1.0, 2.0])
    turns = _calm(2.5, 0.9, 0.0, 0.4, 0.5)  # turn, wait, turn, wait
    assert turns.turn(lambda: next(values)) == 2.0
    assert turns.note() == "In 1 of 1 turns other work took more than 10% of one core."


def test_own_work_is_not_foreign() -> None:
    before = usage()
    end = before.at + 0.2
    while usage().at < end:
        pass
    after = usage()
    assert after.own > before.own
    assert foreign_share(Usage(0, 0, 0), Usage(2, 3, 2)) == 0.5
