"""What the coordinator does with frames while the layout changes."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.cluster import events as cl
from daemon.coordinator import pipe as module
from daemon.coordinator.pipe import Pipe
from daemon.layers import LayerRange
from daemon.scheduler.actions import Send
from transports.errors import LinkDown
from transports.frame import Barrier, Frame, FrameKind

BARRIER = Frame(FrameKind.RESULT, 1, 4, 9, commands=(Barrier(),))
UP = cl.PipelineUp(
    1, 5, (cl.Slot("b", LayerRange(0, 8)),), "tcp://b:1", (((1, 0.1),),), (0.1,), True, (), ({},),
    {"b": ("s1", LayerRange(0, 8))}, True,
)  # fmt: skip


class Coordinator:
    """Writes down what it is told, and a ring that gives frames."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.frames: deque[Frame] = deque()
        self.broken = False
        self.model = None
        self.context_length = 100
        self.cluster = SimpleNamespace(up=True, term=1, slots=())
        names = ("configure", "barrier", "result", "link_failed")
        self.scheduler = SimpleNamespace(**{name: self._tell(name) for name in names})
        streams = SimpleNamespace(waiting=self._tell("waiting"))
        self.clients = SimpleNamespace(streams=streams)
        self.pipe = Pipe(self, self)  # type: ignore[arg-type]

    def _tell(self, name: str) -> Any:
        def tell(*arguments: Any, **named: Any) -> list[Any]:
            self.told.append((name, *arguments, *named.values()))
            return [Send(replace(BARRIER, kind=FrameKind.WORK))] if name == "barrier" else []

        return tell

    def named(self, name: str) -> list[Any]:
        return [told for told in self.told if told[0] == name]

    def happened(self, event: cl.Event) -> None:
        self.told.append(("happened", event))

    def note(self, kind: str, node: str, text: str) -> None:
        self.told.append(("note", kind))

    # --- the ring ---

    def connect(self, address: str) -> None:
        self.told.append(("connect", address))

    def send(self, frame: Frame) -> None:
        if self.broken:
            raise LinkDown("gone")
        self.told.append(("send", frame))

    def receive(self) -> Frame | None:
        return self.frames.popleft() if self.frames else None


def test_a_barrier_that_comes_back_is_the_clusters() -> None:
    of = Coordinator()
    result = replace(BARRIER, microbatch=8, commands=())
    of.frames += [result, replace(BARRIER, term=0), BARRIER]
    of.pipe.take_results()
    assert [told[1] for told in of.named("result")] == [result]
    assert of.named("happened") == [("happened", cl.BarrierReturned(4))]


def test_a_barrier_that_cannot_be_sent_ends_the_rebalance() -> None:
    of = Coordinator()
    of.pipe.barrier()
    assert [told[1].commands for told in of.named("send")] == [(Barrier(),)]
    assert not of.named("happened")
    of.broken = True
    of.pipe.barrier()
    ((_, unwanted),) = of.named("happened")
    assert isinstance(unwanted, cl.RebalanceUnwanted)
    assert "the barrier was not sent" in unwanted.why


@pytest.mark.parametrize("moved", [True, False])
def test_nobody_has_lost_anything_behind_a_barrier(moved: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "settle", lambda: None)
    of = Coordinator()
    of.pipe.up(replace(UP, moved=moved))
    ((_, pipeline, _, lost),) = of.named("configure")
    assert (pipeline.epoch, lost) == (5, () if moved else [0])
    assert of.named("connect") == [("connect", "tcp://b:1")]
    assert bool(of.named("waiting")) != moved
