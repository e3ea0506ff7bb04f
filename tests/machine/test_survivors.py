"""A node of the layout does not come back: who goes on, and with what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster import survivors
from daemon.cluster.placement import search
from daemon.cluster.placement.problem import Placement
from daemon.layers import LayerRange
from tests.machine.world import RULES, World, beat, node, stage


def gone(world: World, name: str, now: float) -> None:
    """That machine is silent from 0 on; the others are alive until `now`."""
    incarnation = world.incarnations.pop(name)
    for second in range(1, int(now) + 1):
        beats = [beat(other) for other in world.incarnations]
        world.now = float(second)
        for one in beats:
            world.step(one)
        for other in world.incarnations:
            world.step(msg.NodeHeartbeat(other, "n1", 1, 20))
        world.step(cl.Tick())
    world.incarnations[name] = incarnation


def back(world: World, name: str) -> None:
    """That machine was started again."""
    world.incarnations[name] = "s2"
    world.step(node(name, "n2"))
    world.step(replace(stage(name, "s2"), node_incarnation="n2"))


def refused(load: msg.Load, name: str) -> msg.LoadFailed:
    what = (load.digest, load.start, load.end, "/models/toy", "no such folder", "copy it")
    return msg.LoadFailed(name, "s1", *what)


def holds(world: World, name: str, nbytes: int) -> None:
    """So much its stage has for weights and KV."""
    member = world.cluster.members[name]
    assert member.loaded
    member.loaded = replace(member.loaded, memory_bytes=nbytes)


def test_the_others_go_on_without_a_node_that_does_not_come_back() -> None:
    world = World("a", "b", "c")
    world.want(split=(3, 3, 2))
    world.take(cl.PipelineUp)
    gone(world, "b", RULES.replan_after - 1)
    assert (world.cluster.state, world.take(cl.PipelineUp)) == ("degraded", [])
    gone(world, "b", RULES.replan_after + 1)
    (up,) = world.take(cl.PipelineUp)
    assert [(slot.node, len(slot.layers)) for slot in up.slots] == [("a", 4), ("c", 4)]
    assert up.epoch == 2
    assert up.kept == {"a": ("s1", LayerRange(0, 4)), "c": ("s1", LayerRange(4, 8))}
    assert "toy without b: a 0-3, c 4-7" in [n.text for n in world.take(cl.Note)]


def test_it_is_a_spare_when_it_comes_back() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    gone(world, "b", RULES.replan_after + 1)
    assert [slot.node for slot in world.cluster.slots] == ["a"]
    world.take(cl.PipelineUp)
    back(world, "b")
    world.tick(world.now + 1)
    assert world.cluster.state == "ready"
    assert [slot.node for slot in world.cluster.slots] == ["a"]
    assert world.take(cl.PipelineUp) == []


def test_one_that_comes_back_in_time_has_its_layers_again() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    gone(world, "b", RULES.replan_after - 2)
    world.take(cl.PipelineUp)
    back(world, "b")
    (up,) = world.take(cl.PipelineUp)
    assert [(slot.node, len(slot.layers)) for slot in up.slots] == [("a", 4), ("b", 4)]


def test_a_spare_takes_the_place() -> None:
    world = World("a", "b", "spare")
    world.want(split=(4, 4), nodes=("a", "b"))
    gone(world, "b", RULES.replan_after + 1)
    assert [slot.node for slot in world.cluster.slots] == ["a", "spare"]
    assert world.cluster.state == "ready"


def test_where_the_others_cannot_hold_it_the_cluster_waits_and_says_so() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    holds(world, "a", 87)
    gone(world, "b", RULES.replan_after + 1)
    assert world.cluster.state == "degraded"
    assert "b is lost, and the others cannot hold the model" in world.cluster.why_down
    assert "88 bytes, the nodes have 87" in world.cluster.why_down
    back(world, "b")
    assert world.cluster.state == "ready"


def test_a_stage_that_is_given_up_is_not_waited_for() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    world.step(msg.ChildExited("b", "n1", "stage", 20, "signal", "signal SIGKILL", 5, -1.0))
    assert [slot.node for slot in world.cluster.slots] == ["a"]
    assert world.cluster.state == "ready"


def test_all_that_are_there_may_take_part_however_many() -> None:
    """Of the spares only the last has room for a layer, and there are more nodes than orders of
    them can be looked at.
    """
    names = [f"n{i:02}" for i in range(1, 13)]
    world = World(*names)
    for name in names[8:]:
        world.step(replace(node(name), memory_bytes=20 if name == "n12" else 8))
    world.want(split=(1,) * 8, nodes=tuple(names[:8]))
    for name in names[:8]:
        holds(world, name, 18)
    gone(world, "n03", RULES.replan_after + 1)
    assert world.cluster.state == "ready", world.cluster.why_down
    assert [slot.node for slot in world.cluster.slots] == [
        *("n01", "n02", "n04", "n05", "n06", "n07", "n08", "n12")
    ]


def test_nobody_is_done_without_before_all_were_there() -> None:
    world = World("a", "b")
    world.silent.add("b")
    world.want(split=(4, 4))
    gone(world, "b", RULES.replan_after + 1)
    assert [slot.node for slot in world.cluster.slots] == ["a", "b"]


def test_a_search_that_found_nothing_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long, and every heartbeat asks."""
    searches = []

    def place(*asked: Any) -> Placement:
        searches.append(asked)
        return search.place(*asked)

    monkeypatch.setattr(survivors, "place", place)
    world = World("a", "b")
    world.want(split=(4, 4))
    holds(world, "a", 60)
    gone(world, "b", RULES.replan_after + 5)
    assert len(searches) == 1
    assert "b is lost, and the others cannot" in world.cluster.why_down
    world.incarnations["c"] = "s1"
    world.step(node("c"))
    world.step(stage("c"))
    assert len(searches) == 2, "somebody came"
    assert world.cluster.state == "ready"


def test_a_spare_that_cannot_hold_it_is_done_without_too() -> None:
    world = World("a", "b", "spare")
    world.want(split=(4, 4), nodes=("a", "b"))
    world.silent.add("spare")
    gone(world, "b", RULES.replan_after + 1)
    assert [slot.node for slot in world.cluster.slots] == ["a", "spare"]
    load = dict(world.messages(msg.Load))["spare"]
    world.step(refused(load, "spare"))
    assert [slot.node for slot in world.cluster.slots] == ["a"]
    assert world.cluster.state == "ready"


def test_the_old_layout_is_taken_again_when_the_others_cannot_and_its_nodes_are_back() -> None:
    world = World("a", "b")
    world.want(split=(4, 4))
    world.silent.add("a")
    gone(world, "b", RULES.replan_after + 1)
    load = dict(world.messages(msg.Load))["a"]
    assert (load.start, load.end) == (0, 8)
    world.step(refused(load, "a"))
    assert world.cluster.state == "degraded"
    assert "b is lost" not in world.cluster.why_down
    world.silent.clear()
    world.take(cl.PipelineUp)
    back(world, "b")
    assert [slot.node for slot in world.cluster.slots] == ["a", "b"]
    world.tick(world.now + RULES.load_again_after + 1, beat("a"), beat("b", "s2"))
    (up,) = world.take(cl.PipelineUp)
    assert [(slot.node, len(slot.layers)) for slot in up.slots] == [("a", 4), ("b", 4)]


def test_what_is_to_be_done_about_a_lost_stage_is_said_where_nobody_else_is() -> None:
    world = World("a")
    world.want()
    world.step(msg.ChildExited("a", "n1", "stage", 20, "signal", "signal SIGKILL", 5, -1.0))
    assert "a is lost, and the others cannot hold the model: there are none" in (
        world.cluster.why_down
    )
    assert "signal SIGKILL" in world.cluster.why_down
    assert "fix it, then restart shardd" in world.cluster.why_down
