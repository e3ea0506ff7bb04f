"""A coordinator that stood still does not blame others for it."""

from __future__ import annotations

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
