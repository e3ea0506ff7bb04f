"""Which path each hop is asked to take, and what is issued again when one ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.paths import Hop
from daemon.cluster.wish import NOT_ENABLED, Wish
from daemon.hop_path import HopPath
from tests.machine.world import World, beat

ZMQ, RDMA = HopPath.ZMQ, HopPath.RDMA


def up(*names: str) -> World:
    """A pipeline of these nodes; nothing of it has been looked at."""
    world = World(*(names or ("a", "b", "c")))
    count = len(names or "abc")
    world.want((8 - 2 * (count - 1), *(2,) * (count - 1)), names or ("a", "b", "c"))
    assert world.cluster.up
    world.seen.clear()
    return world


def wish(world: World, sender: str, rank: int, group: int = 1) -> None:
    world.cluster.paths.wish(Wish(sender, RDMA, group, rank, ""))
    world.step(cl.Tick())


def asked(world: World) -> list[tuple[str, msg.TakePath]]:
    """Since the last time."""
    found = [(node, one) for node, one in world.messages(msg.TakePath)]
    world.seen = [a for a in world.seen if not isinstance(a, cl.ToStage)]
    return found


def taken(world: World, sender: str, path: HopPath = RDMA, why: str = "", **other: Any) -> None:
    """It answers what it was asked for last."""
    hop = hop_of(world, sender)
    said = msg.PathTaken(sender, "s1", world.cluster.epoch, hop.turn, path.value, why)
    world.step(replace(said, **other))


def lost(
    world: World, node: str, sending: bool = True, group: int = 1, reason: str = "gone"
) -> None:
    epoch = world.cluster.epoch
    world.step(msg.PathLost(node, "s1", epoch, group, sending, reason, "it ended"))


def hop_of(world: World, node: str) -> Hop:
    hop = world.cluster.paths.of(node)
    assert hop
    return hop


def by_rdma(*names: str) -> World:
    """All hops go by RDMA."""
    world = up(*names)
    for rank, node in enumerate((names or ("a", "b", "c"))[:-1]):
        wish(world, node, rank + 1)
        taken(world, node)
    world.seen.clear()
    return world


def test_nothing_is_asked_for_before_anybody_wishes_it() -> None:
    world = up()
    world.tick(99.0)
    assert not asked(world)
    assert hop_of(world, "a").why_not == NOT_ENABLED
    assert world.cluster.paths.of("c") is None, "the last stage answers the coordinator"


def test_a_wish_is_asked_for_until_it_is_answered() -> None:
    world = up()
    wish(world, "a", 1)
    ask = msg.TakePath(1, world.cluster.epoch, 1, "rdma", 1, 1)
    assert asked(world) == [("a", ask)]
    world.step(cl.Tick())
    assert not asked(world), "just now"
    world.tick(2.5, beat("a"), beat("b"), beat("c"))
    assert asked(world) == [("a", ask)]
    taken(world, "a")
    assert world.take(cl.PathChanged) == [cl.PathChanged(0, RDMA)]
    assert hop_of(world, "a").why_not == ""
    world.tick(5.0, *(beat(n, path="rdma" if n == "a" else "zmq", turn=1) for n in "abc"))
    assert not asked(world)


def test_a_stage_that_cannot_is_asked_again_later() -> None:
    world = up()
    wish(world, "a", 1)
    taken(world, "a", ZMQ, "no rdma process is connected")
    assert hop_of(world, "a").why_not == "no rdma process is connected"
    assert asked(world)
    world.tick(1.0, beat("a"), beat("b"), beat("c"))
    assert not asked(world)
    world.tick(2.5, beat("a"), beat("b"), beat("c"))
    ((node, ask),) = asked(world)
    assert (node, ask.turn) == ("a", 2), "it answers a turn only once in another way"
    assert not world.take(cl.FramesLost)


@pytest.mark.parametrize(
    "change", [{"turn": 7}, {"epoch": 99}, {"incarnation": "s0"}, {"node": "c"}, {"node": "z"}]
)
def test_answers_to_something_else_change_nothing(change: dict[str, Any]) -> None:
    world = up()
    wish(world, "a", 1)
    taken(world, "a", RDMA, **change)
    assert hop_of(world, "a").path is ZMQ
    assert not world.take(cl.PathChanged)


def test_a_planned_way_back_loses_nothing() -> None:
    world = by_rdma()
    world.cluster.paths.wish(Wish("a", why="as somebody said"))
    world.step(cl.Tick())
    ((node, ask),) = asked(world)
    assert (node, ask.path, ask.group) == ("a", "zmq", 1), "the group goes on"
    taken(world, "a", ZMQ)
    assert not world.take(cl.FramesLost)
    assert hop_of(world, "a").why_not == "as somebody said"
    assert not hop_of(world, "a").fallbacks


def test_what_a_sender_loses_is_issued_again_at_once_and_all_leave_the_group() -> None:
    world = by_rdma()
    lost(world, "a", reason="stalled")
    assert len(world.take(cl.FramesLost)) == 1
    assert [(n, a.path, a.group) for n, a in asked(world)] == [("a", "zmq", 0), ("b", "zmq", 0)]
    assert world.take(cl.PathChanged) == [cl.PathChanged(0, ZMQ)]
    assert hop_of(world, "a").fallbacks == hop_of(world, "b").fallbacks == {"stalled": 1}
    assert "it ended" in hop_of(world, "a").why_not
    assert hop_of(world, "b").path is RDMA, "it has not said that it left"


def test_each_sender_that_leaves_later_may_have_lost_more() -> None:
    world = by_rdma()
    lost(world, "b", sending=False)
    assert world.take(cl.FramesLost)
    taken(world, "a", ZMQ)
    assert world.take(cl.FramesLost), "what it sent until now"
    lost(world, "b", sending=True)
    assert world.take(cl.FramesLost)
    for node, sending in (("a", True), ("b", True), ("c", False), ("b", False)):
        lost(world, node, sending)
        assert not world.take(cl.FramesLost), "nothing is on its way by that group"
    assert [hop.fallbacks["gone"] for hop in world.cluster.paths.hops] == [1, 1]


def test_who_was_asked_may_have_gone_over_without_a_word() -> None:
    world = up()
    wish(world, "a", 1)
    lost(world, "b", sending=False)
    assert world.take(cl.FramesLost)


def test_a_group_that_nothing_goes_by_loses_nothing() -> None:
    world = up()
    lost(world, "a")
    assert not world.take(cl.FramesLost)
    wish(world, "a", 1)
    assert not asked(world), "it is over"


@pytest.mark.parametrize("group", [0, -1])
def test_no_group_is_no_group_that_ends(group: int) -> None:
    """Hops without a wish are of group 0: it takes nothing along."""
    world = up()
    lost(world, "a", group=group)
    assert not world.take(cl.FramesLost)
    wish(world, "a", 1)
    assert asked(world)
    assert hop_of(world, "a").fallbacks == {}


def test_others_may_say_that_a_group_is_over() -> None:
    world = by_rdma("a", "b")
    actions = world.cluster.group_over(1, "gone", "rdma of b ended (signal SIGKILL)", world.now)
    assert sum(isinstance(action, cl.FramesLost) for action in actions) == 1
    assert not world.cluster.group_over(1, "gone", "once more", world.now)
    wish(world, "a", 1, group=2)
    assert asked(world)[-1][1].group == 2


def test_a_heartbeat_tells_of_a_word_that_was_lost() -> None:
    world = by_rdma("a", "b")
    turn = hop_of(world, "a").turn
    world.step(beat("a", epoch=1, path="zmq", turn=turn - 1))
    world.step(beat("a", epoch=0, path="zmq", turn=turn))
    world.step(beat("a", epoch=1, path="rdma", turn=turn))
    assert not world.take(cl.FramesLost), "as it was before it answered"
    world.step(beat("a", epoch=1, path="zmq", turn=turn))
    assert world.take(cl.FramesLost)
    assert hop_of(world, "a").path is ZMQ


def test_a_new_layout_begins_with_zmq_and_goes_on_wishing() -> None:
    world = by_rdma()
    world.step(msg.ChildExited("c", "n1", "stage", 20, "signal", "SIGKILL", 1, 0.1))
    world.step(msg.StageHello(1, "0", "c", "n1", "s2", 21, "0", "0", "cpu", "blas", 0))
    world.incarnations["c"] = "s2"
    world.tick(3.0, beat("a"), beat("b"), beat("c", "s2"))
    assert world.cluster.up
    epoch = world.cluster.epoch
    assert [(n, a.path, a.epoch) for n, a in asked(world)] == [
        ("a", "rdma", epoch),
        ("b", "rdma", epoch),
    ]
    assert [hop.path for hop in world.cluster.paths.hops] == [ZMQ, ZMQ]


def test_a_new_term_forgets_groups_and_wishes() -> None:
    world = by_rdma("a", "b")
    lost(world, "a")
    world.cluster.new_term(5, world.now)
    for node in ("a", "b"):
        world.step(msg.Assigned(node, "s1", world.cluster.epoch))
    assert world.cluster.up
    assert hop_of(world, "a").wish == Wish("a")
    world.seen.clear()
    wish(world, "a", 1)
    assert [(a.term, a.turn) for _, a in asked(world)] == [(5, 1)]


def test_every_word_of_a_loss_is_told_to_who_decides() -> None:
    world = by_rdma()
    epoch, turn = world.cluster.epoch, hop_of(world, "a").turn
    world.step(beat("a", epoch=epoch, path="zmq", turn=turn))
    assert [a.group for a in world.seen if isinstance(a, cl.GroupLost)] == [1]


def test_a_frame_that_nobody_has_was_lost_by_the_group() -> None:
    world = up()
    world.step(cl.FrameOverdue(7))
    assert not [a for a in world.seen if isinstance(a, cl.GroupLost | cl.FramesLost)]
    world = by_rdma()
    world.step(cl.FrameOverdue(7))
    (over,) = [a for a in world.seen if isinstance(a, cl.GroupLost)]
    assert (over.group, over.reason) == (1, "stalled")
    assert any(isinstance(a, cl.FramesLost) for a in world.seen)
    assert {node for node, one in asked(world) if one.path == "zmq"} == {"a", "b"}
