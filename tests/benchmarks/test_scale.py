"""The simulated cluster of the benchmark `scale` does what it is taken to do."""

from __future__ import annotations

from benchmarks.scale.crowd import Case, Crowd
from benchmarks.scale.members import Members
from benchmarks.scale.timing import Timed


def test_a_crowd_keeps_running() -> None:
    crowd = Crowd(Case(stages=3, sequences=12, running=8, guessing=True))
    for _ in range(200):
        crowd.turn()
        crowd.scheduler.check_integrity()
    status = crowd.scheduler.status()
    assert (status["running"], status["waiting"]) == (8, 4)
    assert len(crowd.results.seconds) >= 200
    assert sum(status["reissues"].values()) == 0
    assert status["speculation"]["right"] > 0
    assert status["kept"] > 200
    crowd.new_layout()
    assert crowd.scheduler.reissues["layout"] > 0
    crowd.turn()
    crowd.scheduler.check_integrity()


def test_all_members_hold_layers_and_stay() -> None:
    members = Members(5)
    for number in range(10):
        members.beat(number, number + 1)
        members.tick()
    members.cluster.check_integrity()
    assert members.cluster.state == "ready"
    assert len(members.cluster.slots) == 5


def test_shares_of_what_was_timed() -> None:
    timed = Timed()
    assert timed.at(0.5) == 0.0
    timed.seconds = [0.001, 0.002, 0.009]
    assert (timed.at(0.5), timed.at(0.99)) == (2.0, 9.0)
    assert timed.of(lambda: 7) == 7
