"""Silence: of the coordinator itself, and of a stage after a long life."""

from __future__ import annotations

from daemon import messages as msg
from daemon.cluster import events as cl
from tests.machine.test_cluster import RULES, World, beat


def test_silence_during_a_stall_is_nobodys() -> None:
    world = World("a", "b")
    world.want()
    world.take(cl.PipelineUp)
    for name in ("a", "b"):
        world.step(beat(name))
    world.now += RULES.dead_after + 5.0
    assert not [a for a in world.step(cl.Tick(RULES.dead_after + 5.0)) if isinstance(a, cl.Note)]
    assert world.cluster.up
    world.now += RULES.dead_after + 0.1
    assert any(isinstance(a, cl.PipelineDown) for a in world.step(cl.Tick()))


def test_a_stage_that_falls_silent_is_ended_once() -> None:
    world = World("a", "b")
    world.want()
    world.step(msg.NodeHeartbeat("b", "n1", 1, 20))
    for _ in range(100):
        world.now += 1.0
        for name in ("a", "b"):
            world.step(beat(name))
            world.step(msg.NodeHeartbeat(name, "n1", 1, 20))
        world.step(cl.Tick())
    ended = []
    for _ in range(8):
        world.now += 1.0
        world.step(beat("a"))
        for name in ("a", "b"):
            world.step(msg.NodeHeartbeat(name, "n1", 1, 20))
        ended += [a.text for a in world.step(cl.Tick()) if isinstance(a, cl.Note)]
    assert len(ended) == 1, ended
    assert "silent" in ended[0]
