"""However long the reader computes for each frame, nothing overtakes: in virtual time."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.hop_path import HopPath
from daemon.ring.incoming import Incoming
from daemon.ring.junction import DOWN_SECONDS, HOLD_SECONDS
from tests.ring.rig import LAYOUT, numbered
from transports.base import LinkState, LinkStats
from transports.frame import Frame, FrameKind, Turn

ZMQ, RDMA = HopPath.ZMQ, HopPath.RDMA
COMPUTES_S = 0.1  # for each frame
MOST_MS = 10_000


class Path:
    """One end, in place of a link; it is its own pollable."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.state = LinkState.UP
        self.stats = LinkStats()

    @property
    def pollable(self) -> Path:
        return self

    def receive(self, timeout_s: float) -> Frame | None:
        return self.frames.popleft() if self.frames else None


class Reader:
    """It polls and reads as a stage does. `later`: what comes at which time, and by which path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("daemon.ring.incoming.time", clock)
        self.now = 0.0
        self.got: list[tuple[int, float]] = []
        self.ends = {path: Path() for path in HopPath}
        self.later: deque[tuple[float, HopPath, Frame]] = deque()
        self._polled: list[Path] = []
        self.incoming = Incoming(
            cast(Any, self.ends[ZMQ]), cast(Any, self.ends[RDMA]), cast(Any, self)
        )
        self.incoming.connected(rdma=True)

    def register(self, path: Path, _: int) -> None:
        self._polled.append(path)

    def unregister(self, path: Path) -> None:
        self._polled.remove(path)

    def turn(self, number: int, to: HopPath) -> None:
        for path, last in ((to, False), (to.other, True)):
            self.ends[path].frames.append(turn(number, last))

    def poll(self, milliseconds: int) -> list[Path]:
        """What is ready, in so long."""
        until = self.now + milliseconds / 1000
        while not (ready := [path for path in self._polled if path.frames]):
            if not self.later or self.later[0][0] > until:
                self.now = until
                break
            at, path, frame = self.later.popleft()
            self.now = max(self.now, at)
            self.ends[path].frames.append(frame)
        return ready

    def read(self, count: int) -> list[int]:
        """The numbers of the frames that came, when there are so many."""
        for _ in range(100):
            most = self.incoming.wait_ms(MOST_MS, self.now) if self.incoming.held else MOST_MS
            if self.incoming.readable(self.poll(most)) and (frame := self.incoming.receive()):
                self.got.append((frame.microbatch, self.now))
                self.now += COMPUTES_S
            if len(self.got) == count:
                break
        return [number for number, _ in self.got]


def turn(number: int, last: bool) -> Frame:
    return Frame(FrameKind.WORK, *LAYOUT, 0, commands=(Turn(number, last),))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)


@pytest.mark.parametrize("to", HopPath)
def test_what_is_queued_is_not_overtaken_by_the_path_taken(reader: Reader, to: HopPath) -> None:
    """More of it than any hold is long."""
    count = 2 + int(2 * HOLD_SECONDS / COMPUTES_S)
    reader.ends[to.other].frames.extend(map(numbered, range(count)))
    reader.turn(1, to)
    reader.ends[to].frames.append(numbered(count))
    assert reader.read(count + 1) == list(range(count + 1))


@pytest.mark.parametrize("to", HopPath)
def test_a_path_left_that_is_slow_is_waited_for(reader: Reader, to: HopPath) -> None:
    """Each frame takes nearly as long as a hold: large chunks of a prompt."""
    step = 0.9 * HOLD_SECONDS
    reader.ends[to].frames.extend([turn(1, last=False), numbered(2)])
    for number, frame in enumerate([numbered(0), numbered(1), turn(1, last=True)]):
        reader.later.append(((number + 1) * step, to.other, frame))
    assert reader.read(3) == [0, 1, 2]
    assert reader.incoming.held is None


@pytest.mark.parametrize(
    ("state", "held"), [(LinkState.UP, HOLD_SECONDS), (LinkState.DOWN, DOWN_SECONDS)]
)
def test_a_last_frame_that_is_lost_is_not_waited_for_for_ever(
    reader: Reader, state: LinkState, held: float
) -> None:
    """Nor is what came before it."""
    reader.ends[ZMQ].state = state
    reader.ends[ZMQ].frames.append(numbered(0))
    reader.ends[RDMA].frames.extend([turn(1, last=False), numbered(2)])
    assert reader.read(2) == [0, 2]
    [(_, first), (_, second)] = reader.got
    assert second - first - COMPUTES_S == pytest.approx(held, abs=0.002)


def test_a_path_that_always_has_a_frame_leaves_the_other_its_turn(reader: Reader) -> None:
    """At the port an rdma process may want to connect, or frames may come as well."""
    for number in range(3):
        reader.ends[ZMQ].frames.append(numbered(number))
        reader.ends[RDMA].frames.append(numbered(10 + number))
    assert reader.incoming.readable([*reader.ends.values()])
    got = []
    while frame := reader.incoming.receive():
        got.append(frame.microbatch)
    assert got == [0, 10, 1, 11, 2, 12]
