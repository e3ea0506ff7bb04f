"""A node that is to have no layers gets none, whoever places them."""

from __future__ import annotations

from daemon.cluster import events as cl
from tests.machine.test_survivors import gone
from tests.machine.world import RULES, World, node, stage


def layout(world: World) -> list[tuple[str, int]]:
    return [(slot.node, len(slot.layers)) for slot in world.cluster.slots]


def test_a_load_takes_the_others() -> None:
    world = World("a", "b", "c")
    world.step(cl.NodesDrained(frozenset({"b"})))
    world.want(split=(4, 4))
    assert layout(world) == [("a", 4), ("c", 4)]
    assert world.cluster.members["b"].state == "drained"


def test_it_is_drained_though_it_joins_later_and_until_it_is_said_otherwise() -> None:
    world = World("a")
    world.step(cl.NodesDrained(frozenset({"b"})))
    world.incarnations["b"] = "s1"
    world.step(node("b"))
    world.step(stage("b"))
    world.want()
    assert layout(world) == [("a", 8)]
    world.step(cl.NodesDrained(frozenset()))
    world.want()
    assert layout(world) == [("a", 4), ("b", 4)]


def test_layers_that_it_has_are_left_to_it() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    world.take(cl.PipelineDown)
    world.step(cl.NodesDrained(frozenset({"b"})))
    assert (layout(world), world.take(cl.PipelineDown)) == ([("a", 4), ("b", 4)], [])
    assert world.cluster.members["b"].state == "ready"


def test_it_is_no_survivor() -> None:
    world = World("a", "b", "c")
    world.want(split=(4, 4), nodes=("a", "b"))
    world.step(cl.NodesDrained(frozenset({"c"})))
    gone(world, "b", RULES.replan_after + 1)
    assert layout(world) == [("a", 8)]
