"""In which order two paths are read: as it was sent, as long as nothing is lost; and never for
ever, when something is.
"""

from __future__ import annotations

import random
from collections import deque

from daemon.hop_path import HopPath
from daemon.ring.junction import DOWN_SECONDS, HOLD_SECONDS, Junction
from transports.frame import Turn

ZMQ, RDMA = HopPath.ZMQ, HopPath.RDMA


class Hop:
    """Both paths of a hop as queues of numbers and turns, and who reads them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.queues: dict[HopPath, deque[int | Turn]] = {path: deque() for path in HopPath}
        self.path, self.turn, self.sent = ZMQ, 0, 0
        self.junction = Junction()
        self.junction.opened(RDMA)
        self.got: list[int] = []
        self.now = 0.0

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.queues[self.path].append(self.sent)
            self.sent += 1

    def switch(self, first: bool = True, last: bool = True) -> None:
        """Either frame of the turn may be lost on its way."""
        self.turn += 1
        if first:
            self.queues[self.path.other].append(Turn(self.turn, last=False))
        if last:
            self.queues[self.path].append(Turn(self.turn, last=True))
        self.path = self.path.other

    def read(self, path: HopPath) -> bool:
        """One thing, if there is one and it may be read."""
        if path is self.junction.held or not self.queues[path]:
            return False
        one = self.queues[path].popleft()
        if isinstance(one, Turn):
            self.junction.turned(path, 1, one)
        else:
            self.got.append(one)
        self.junction.check_integrity()
        return True

    def drain(self) -> None:
        """Everything that may be read now, the paths in any order."""
        while any([self.read(path) for path in self.rng.sample(list(HopPath), 2)]):
            pass


def test_planned_switches_lose_and_reorder_nothing() -> None:
    """However far one path lags behind the other, and though nobody waits."""
    held = 0
    for seed in range(300):
        hop = Hop(seed)
        for _ in range(60):
            match hop.rng.randrange(4):
                case 0:
                    hop.switch()
                case 1:
                    hop.send(hop.rng.randrange(4))
                case _:
                    hop.read(hop.rng.choice(list(HopPath)))
            held += hop.junction.held is not None
        hop.drain()
        assert hop.got == list(range(hop.sent)), f"seed {seed}"
        assert hop.junction.held is None
    assert held > 1000


def test_the_path_taken_is_held_until_the_last_frame_of_the_one_left() -> None:
    hop = Hop()
    hop.send()
    hop.switch()
    hop.send()
    while hop.read(RDMA):
        pass
    assert hop.junction.held is RDMA
    hop.drain()
    assert hop.got == [0, 1]


def test_a_path_that_stays_empty_holds_the_other_for_a_while() -> None:
    """The last frame is lost, and with it what came before it."""
    hop = Hop()
    hop.switch(last=False)
    hop.send(2)
    hop.drain()
    hop.junction.empty(5.0)
    hop.junction.empty(5.0 + HOLD_SECONDS - 0.001)
    hop.drain()
    assert not hop.got
    hop.junction.empty(5.0 + HOLD_SECONDS)
    hop.drain()
    assert hop.got == [0, 1]


def test_what_comes_by_the_path_left_begins_the_while_anew() -> None:
    hop = Hop()
    hop.switch()
    assert hop.read(RDMA)
    hop.junction.empty(5.0)
    hop.junction.busy()
    hop.junction.empty(5.0 + 2 * HOLD_SECONDS)
    assert hop.junction.held is RDMA
    assert hop.junction.until == 5.0 + 3 * HOLD_SECONDS


def test_a_path_that_is_down_is_waited_for_for_a_moment() -> None:
    hop = Hop()
    hop.switch(last=False)
    hop.drain()
    hop.junction.empty(5.0)
    hop.junction.empty(5.2, up=False)
    assert hop.junction.held is RDMA
    hop.junction.empty(5.2 + DOWN_SECONDS, up=False)
    assert hop.junction.held is None


def test_a_path_that_is_closed_holds_nobody() -> None:
    hop = Hop()
    hop.switch()
    hop.drain()
    hop.junction.closed(RDMA)
    hop.switch(last=False)  # back
    hop.send()
    hop.drain()
    assert hop.got == [0]


def test_a_path_that_closes_lets_go_of_the_other() -> None:
    hop = Hop()
    hop.switch()
    hop.switch(last=False)
    hop.send()
    hop.drain()
    assert hop.junction.held is ZMQ
    hop.junction.closed(RDMA)
    hop.drain()
    assert hop.got == [0]


def test_a_lost_first_frame_holds_nothing() -> None:
    hop = Hop()
    hop.switch(first=False)
    hop.send()
    hop.read(RDMA)
    assert hop.got == [0]


def test_a_later_turn_stands_for_a_last_frame_that_is_lost() -> None:
    """zmq to rdma without a last word, and back: what went by rdma comes before the return."""
    hop = Hop()
    hop.send()
    hop.switch(last=False)
    hop.send()
    hop.switch()
    hop.send()
    hop.read(RDMA)
    assert hop.junction.held is RDMA
    hop.read(ZMQ)
    hop.read(ZMQ)
    assert hop.junction.held is ZMQ
    hop.drain()
    assert hop.got == [0, 1, 2]


def test_a_turn_that_comes_twice_or_late_changes_nothing() -> None:
    hop = Hop()
    hop.switch()
    hop.drain()
    for path, last in ((RDMA, False), (ZMQ, True), (RDMA, False)):
        hop.junction.turned(path, 1, Turn(1, last))
        assert hop.junction.held is None
    hop.junction.turned(RDMA, 2, Turn(1, last=False))
    assert hop.junction.held is RDMA, "the turns of a new term are others"
    hop.junction.turned(ZMQ, 1, Turn(9, last=True))
    assert hop.junction.held is RDMA
    hop.junction.turned(ZMQ, 2, Turn(1, last=True))
    assert hop.junction.held is None
