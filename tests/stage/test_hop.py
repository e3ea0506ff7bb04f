"""What a stage makes of TakePath, and says when it loses RDMA."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.hop_path import HopPath
from daemon.ring import Lost
from daemon.stage.heartbeat import Progress
from daemon.stage.hop import Hop

ASKED = msg.TakePath(3, 7, 5, "rdma", 2, 1)
TAKEN = msg.PathTaken("a", "i", 7, 5, "rdma", "")


@dataclass
class FakeRing:
    """`cannot` is why no path can be taken; `calls` are what was asked of it."""

    path: HopPath = HopPath.ZMQ
    cannot: str = ""
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    losses: list[Lost] = field(default_factory=list)

    def take_rdma(self, *told: Any) -> str:
        self.calls.append(("rdma", *told))
        self.path = self.path if self.cannot else HopPath.RDMA
        return self.cannot

    def take_zmq(self, *told: Any) -> str:
        self.calls.append(("zmq", *told))
        self.path = self.path if self.cannot else HopPath.ZMQ
        return self.cannot

    def leave_rdma(self) -> None:
        self.calls.append(("leave",))
        self.path = HopPath.ZMQ

    def look(self) -> list[Lost]:
        found, self.losses = self.losses, []
        if any(lost.sending for lost in found):
            self.path = HopPath.ZMQ
        return found


@dataclass
class FakePlace:
    number: tuple[int, int] = (3, 7)


class Stage:
    def __init__(self) -> None:
        self.ring, self.place, self.progress = FakeRing(), FakePlace(), Progress()
        self.said: list[msg.Message] = []
        within: tuple[Any, ...] = (self.ring, self.place, self.progress)
        self.hop = Hop("a", "i", *within, self.said.append)

    def asked(self, **changes: Any) -> list[msg.Message]:
        self.said.clear()
        self.hop.take(replace(ASKED, **changes))
        return self.said


def test_it_takes_the_path_once_and_answers_each_time() -> None:
    stage = Stage()
    assert stage.asked() == stage.asked() == [TAKEN]
    assert stage.ring.calls == [("rdma", 2, 1, (3, 7), 5)]
    assert stage.progress.path == ("rdma", 5)


@pytest.mark.parametrize("change", [{"term": 2}, {"epoch": 6}, {"epoch": 8}, {"turn": 4}])
def test_what_was_said_for_another_layout_or_before_is_not_obeyed(change: dict[str, int]) -> None:
    stage = Stage()
    stage.asked(path="zmq")
    assert stage.asked(**change) == []
    assert stage.ring.path is HopPath.ZMQ


def test_turns_are_counted_anew_in_a_term() -> None:
    stage = Stage()
    stage.asked()
    stage.place.number = (4, 8)
    assert stage.asked(term=4, epoch=8, turn=1, path="zmq", group=2)
    assert stage.ring.calls[-1] == ("zmq", (4, 8), 1)


def test_a_group_that_is_over_is_left_without_a_word() -> None:
    stage = Stage()
    stage.asked()
    assert stage.asked(turn=6, path="zmq", group=0) == [replace(TAKEN, turn=6, path="zmq")]
    assert stage.ring.calls[-1] == ("leave",)


def test_it_says_why_it_cannot() -> None:
    stage = Stage()
    stage.ring.cannot = "no rdma process is connected"
    refused = replace(TAKEN, path="zmq", why=stage.ring.cannot)
    assert stage.asked() == [refused]
    stage.ring.cannot = ""
    assert stage.asked() == [refused], "it was asked before"
    assert stage.progress.path == ("zmq", 5)


def test_a_loss_is_told_for_both_directions_and_shown() -> None:
    stage = Stage()
    stage.asked()
    stage.said.clear()
    stage.ring.losses = [Lost(2, sending, "gone", "it ended") for sending in (True, False)]
    stage.hop.look()
    told = [cast("msg.PathLost", one) for one in stage.said]
    assert told == [msg.PathLost("a", "i", 7, 2, s, "gone", "it ended") for s in (True, False)]
    assert stage.progress.path == ("zmq", 5)
    assert stage.asked() == [replace(TAKEN, path="zmq", why="it ended")], "its answer was lost"
