"""A layout changes while the pipeline is up; whatever happens meanwhile, it ends well."""

from __future__ import annotations

from typing import Any

import pytest

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.placement.problem import PlacementError
from daemon.layers import LayerRange
from tests.machine.moving import HALVES, UP, Moving, Range, again, ended, held, layout, settled, two
from tests.machine.world import RULES, node

# --- the way --------------------------------------------------------------------------------------


def test_the_pipeline_stays_up_from_the_old_layout_to_the_new() -> None:
    world = two()
    world.rebalance(**UP)
    assert [type(a).__name__ for a in world.seen if not isinstance(a, (cl.Note, cl.ToStage))] == [
        "SendBarrier"
    ]
    kinds = [(n, type(a.message).__name__) for a in world.seen
             if isinstance(a, cl.ToStage) and (n := a.node)]  # fmt: skip
    assert kinds == [
        ("a", "Prepare"), ("b", "Prepare"), ("b", "Give"), ("a", "Switch"), ("b", "Switch"),
    ]  # fmt: skip
    assert world.take(cl.SendBarrier) == [cl.SendBarrier(1)], "behind all Switches"
    assert (layout(world), world.cluster.epoch) == (HALVES, 1)
    world.step(cl.BarrierReturned(1))
    assert layout(world) == HALVES, "nobody has switched"
    world.pass_barrier()
    (up,) = world.take(cl.PipelineUp)
    assert (up.epoch, up.moved, up.first_address) == (2, True, "tcp://a:1")
    assert (layout(world), held(world)) == (UP, UP)
    assert not world.take(cl.PipelineDown)
    assert settled(world)
    assert ended(world) == cl.RebalanceEnded("", 100, replayed=False)
    assert world.cluster.state == "ready"
    assert world.cluster.members["a"].state == "ready"


@pytest.mark.parametrize(
    ("new", "gives", "switches"),
    [
        ({"a": (0, 6), "b": (6, 8)}, [("b", "a", 4, 6)], [("a", 1, True), ("b", 0, True)]),
        ({"a": (0, 2), "b": (2, 8)}, [("a", "b", 2, 4)], [("a", 0, True), ("b", 1, True)]),
        (
            {"b": (0, 4), "a": (4, 8)},
            [("a", "b", 0, 4), ("b", "a", 4, 8)],
            [("b", 1, True), ("a", 1, True)],
        ),
        (
            {"a": (0, 2), "c": (2, 6), "b": (6, 8)},
            [("a", "c", 2, 4), ("b", "c", 4, 6)],
            [("a", 0, True), ("c", 2, False), ("b", 0, True)],
        ),
        ({"a": (0, 4), "c": (4, 8)}, [("b", "c", 4, 8)], [("a", 0, True), ("c", 1, False)]),
        ({"a": (0, 8)}, [("b", "a", 4, 8)], [("a", 1, True)]),
        (
            {"a": (0, 1), "b": (1, 4), "c": (4, 8)},
            [("a", "b", 1, 4), ("b", "c", 4, 8)],
            [("a", 0, True), ("b", 1, True), ("c", 1, False)],
        ),
    ],
)
def test_who_gives_what_to_whom(
    new: dict[str, Range],
    gives: list[tuple[str, str, int, int]],
    switches: list[tuple[str, int, bool]],
) -> None:
    world = two()
    world.rebalance(**new)
    told = [
        (n, one["address"].split("/")[2].split(":")[0], one["start"], one["end"])
        for n, give in world.messages(msg.Give)
        for one in give.takers
    ]
    assert told == gives
    asked = dict(world.messages(msg.Switch))
    assert [(n, s.givers, s.barrier) for n, s in asked.items()] == switches
    assert [s.stage for s in asked.values()] == list(range(len(new)))
    onward = [f"tcp://{name}:1" for name in new][1:]
    assert [s.next_address for s in asked.values()] == [*onward, "tcp://a:9"]
    changed = [name for name, r in new.items() if HALVES.get(name) != r]
    assert [n for n, _ in world.messages(msg.Prepare)] == changed
    world.barrier()
    assert (layout(world), held(world)) == (new, new), "who has no place any more holds nothing"
    assert (ended(world).why, settled(world)) == ("", True)


def test_a_node_that_is_left_is_asked_to_unload_until_it_has() -> None:
    world = two()
    world.rebalance(a=(0, 8))
    world.lost[msg.Unload] = 1
    world.barrier()
    assert "b" in held(world)
    again(world)
    again(world)
    assert held(world) == {"a": (0, 8)}
    world.seen.clear()
    again(world)
    assert not list(world.messages(msg.Unload)), "it is known to be empty"


@pytest.mark.parametrize("digest", ["d1", "another model"])
@pytest.mark.parametrize("layers", [(2, 4), (2, 5)])
def test_a_spare_goes_on_with_the_layers_that_it_still_holds(layers: Range, digest: str) -> None:
    """But for those of another model, and with no KV but what it is given."""
    world = Moving("a", "b", "c")
    world.start(a=(0, 2), b=(2, 4), c=(4, 8))
    world.lost[msg.Unload] = 9
    world.rebalance(a=(0, 4), c=(4, 8))
    world.barrier()
    assert held(world)["b"] == (2, 4)
    world.lost.clear()
    world.seen.clear()
    world.step(world.beat_of("b", digest=digest))
    world.rebalance(a=(0, 2), b=layers, c=(layers[1], 8))
    to_b = [a.message for a in world.seen if isinstance(a, cl.ToStage) and a.node == "b"]
    unload = [] if digest == "d1" else [msg.Unload]
    assert [type(one) for one in to_b[: len(unload) + 1]] == [*unload, msg.Prepare]
    asked = dict(world.messages(msg.Prepare))
    assert {node: one.spare for node, one in asked.items() if node in "ab"} == {
        "a": False,
        "b": True,
    }
    (switch,) = [one for one in to_b if isinstance(one, msg.Switch)]
    assert switch.givers == (1 if layers == (2, 4) else 2), "of all its layers"
    world.barrier()
    assert ended(world).why == ""
    assert held(world)["b"] == layers


def test_the_same_layout_ends_at_once() -> None:
    world = two()
    world.rebalance(**HALVES)
    assert ended(world) == cl.RebalanceEnded("", 0, replayed=False)
    assert not list(world.messages(msg.Prepare))


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ({"a": (0, 4)}, "the layout has 4 layers, the model 8"),
        ({"a": (0, 4), "b": (5, 8)}, "b begins with layer 5"),
        ({"a": (0, 4), "b": (3, 8)}, "b begins with layer 3"),
        ({"a": (0, 4), "x": (4, 8)}, "no node x; known are a, b, c"),
        ({"a": (0, 4), "b": (4, 9)}, "the layout has 9 layers"),
    ],
)
def test_what_is_no_layout_is_refused(new: dict[str, Range], why: str) -> None:
    world = two()
    with pytest.raises(PlacementError, match=why):
        world.rebalance(**new)
    assert world.cluster.rebalance is None
    assert not world.seen


def test_when_it_cannot_begin() -> None:
    world = two()
    twice = (cl.Slot("a", LayerRange(0, 4)), cl.Slot("a", LayerRange(4, 8)))
    with pytest.raises(PlacementError, match="two places"):
        world.step(cl.RebalanceWanted(twice, 1.0))
    world.step(msg.Goodbye("c", "n1"))
    with pytest.raises(PlacementError, match="c is about to leave"):
        world.rebalance(a=(0, 4), c=(4, 8))
    world.step(node("c"))
    world.lose("c")
    with pytest.raises(PlacementError, match="c has no stage now"):
        world.rebalance(a=(0, 4), c=(4, 8))
    world.silent.add("a")
    world.rebalance(**UP)
    with pytest.raises(PlacementError, match="another rebalance is under way"):
        world.rebalance(**UP)
    world.lose("b")
    with pytest.raises(PlacementError, match="the pipeline is down: b: "):
        world.rebalance(**UP)


# --- messages that are lost, or come twice --------------------------------------------------------

SAID = (msg.Prepare, msg.Prepared, msg.Give, msg.Giving, msg.Switch, msg.Loaded, msg.Assigned)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", SAID)
def test_what_is_lost_is_asked_for_again(kind: type[Any], times: int) -> None:
    world = two()
    world.lost[kind] = times
    world.rebalance(**UP)
    world.barrier()
    for _ in range(2):
        again(world)
        world.barrier()
    assert not world.lost[kind], "it was never said"
    assert layout(world) == UP
    assert (ended(world).why, settled(world)) == ("", True)
    assert not world.take(cl.PipelineDown)


def test_what_is_at_work_is_not_asked_again() -> None:
    world = two()
    world.lost[msg.Prepared] = 2
    world.rebalance(**UP)
    world.seen.clear()
    for _ in range(3):
        world.pass_time(RULES.ask_again_after, loading=True)
    assert not list(world.messages(msg.Prepare))


def test_what_is_said_twice_or_too_late_changes_nothing() -> None:
    world = two()
    world.rebalance(**UP)
    late = [
        world.prepared("a"),
        msg.Giving("b", "s1", 1, 1, 100, 0, ""),
        msg.Assigned("a", "s1", 1),
    ]
    for event in late:
        world.step(event)
    world.barrier()
    ended(world)
    world.seen.clear()
    for event in [*late, cl.BarrierReturned(1), cl.BarrierReturned(2)]:
        world.step(event)
    assert not [a for a in world.seen if not isinstance(a, cl.Note)]
    world.rebalance(**HALVES)
    (to, again_to) = (dict(world.messages(msg.Prepare))[n].move for n in ("a", "b"))
    assert to == again_to == 2
    world.pass_barrier()
    world.step(cl.BarrierReturned(1))  # of the move before
    assert layout(world) == UP, "results may still be under way"
    world.barrier()
    assert layout(world) == HALVES


def test_a_settle_that_was_lost_is_said_again_but_not_at_every_beat() -> None:
    world = two()
    world.lost[msg.Settle] = 2
    world.rebalance(**UP)
    world.barrier()
    assert not settled(world)
    world.seen.clear()
    world.step(world.beat_of("a"))
    assert not list(world.messages(msg.Settle)), "that beat may be older than its Settle"
    again(world)
    assert settled(world)
    assert sorted(n for n, _ in world.messages(msg.Settle)) == ["a", "b"]
