"""A layout for which KV is computed again, because copying it does not pay."""

from __future__ import annotations

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.rebalance import Phase
from tests.machine.moving import HALVES, UP, Moving, again, ended, held, layout, settled, two
from tests.machine.world import RULES, beat


def giving(world: Moving, sent: int, left: int) -> None:
    world.step(msg.Giving("b", "s1", 1, 1, sent, left, ""))


def replayed(world: Moving) -> None:
    assert len(world.take(cl.PipelineDown)) == 1
    (up,) = world.take(cl.PipelineUp)
    assert (up.moved, up.epoch) == (False, 2)
    assert up.kept.keys() == {"a", "b"}
    assert not list(world.messages(msg.Load)), "what was prepared is taken"
    assert ended(world) == cl.RebalanceEnded("", 0, replayed=True)
    assert (layout(world), held(world), settled(world)) == (UP, UP, True)


def test_what_is_not_to_be_copied_is_computed_again() -> None:
    world = two()
    world.rebalance(0.0, **UP)
    assert not list(world.messages(msg.Give))
    replayed(world)


def test_a_word_that_is_lost_on_the_way_is_said_again() -> None:
    world = two()
    world.lost[msg.Loaded] = 2
    world.rebalance(0.0, **UP)
    assert not world.cluster.up
    again(world)
    assert (layout(world), held(world)) == (UP, UP)
    assert ended(world).replayed


def test_a_copy_that_would_take_longer_is_not_made() -> None:
    world = two()
    world.left = 1 << 30
    world.rebalance(10.0, **UP)
    giving(world, 1 << 20, 1 << 30)
    assert world.cluster.up, "it is not measured yet"
    world.pass_time(RULES.measured_after)
    replayed(world)
    (text,) = [n.text for n in world.take(cl.Note) if "computed again" in n.text]
    assert "1073741824 bytes of KV that are left takes 2048.0 s" in text
    assert "everything again 10.0 s" in text


def test_a_copy_that_pays_goes_on() -> None:
    world = two()
    world.left = 1 << 30
    world.rebalance(20.0, **UP)
    for second in range(1, 9):
        world.pass_time(1.0)
        giving(world, second << 27, (9 - second) << 27)
    assert world.cluster.up
    assert world.cluster.rebalance
    progress = world.cluster.rebalance.progress(world.cluster.members, world.now)
    assert (progress.sent_bytes, progress.left_bytes) == (8 << 27, 1 << 27)
    giving(world, 9 << 27, 1)
    world.barrier()
    assert ended(world).why == ""


def test_a_copy_that_gets_nowhere_is_not_made() -> None:
    world = two()
    world.left = 1 << 30
    world.rebalance(1e9, **UP)
    for _ in range(int(RULES.copy_within) + 1):
        world.pass_time(1.0)
        if world.cluster.rebalance:
            giving(world, 1 << 30, (1 << 30) + 5)
    replayed(world)


def test_a_spare_that_is_lost_while_it_is_computed_again_is_done_without() -> None:
    world = two()
    world.lost[msg.Assigned] = 9
    world.rebalance(0.0, a=(0, 4), c=(4, 8))
    assert world.cluster.rebalance
    assert world.cluster.rebalance.phase is Phase.REPLAY
    world.lost.clear()
    world.lose("c")
    assert layout(world) == HALVES
    assert "c: stage process 20 ended" in ended(world).why


def test_a_node_that_leaves_while_it_is_computed_again_is_not_waited_for() -> None:
    world = two()
    world.lost[msg.Assigned] = 9
    world.rebalance(0.0, a=(0, 4), c=(4, 8))
    world.lost.clear()
    world.lose("b")
    again(world)
    assert layout(world) == {"a": (0, 4), "c": (4, 8)}
    assert ended(world) == cl.RebalanceEnded("", 0, replayed=True)


def test_a_beat_of_another_process_is_nobodys() -> None:
    world = two()
    assert not world.step(beat("a", "s9", move=3))


def test_a_stage_that_has_gone_further_than_it_could_tell_is_loaded_anew() -> None:
    world = two()
    world.lost[msg.Loaded] = 1
    world.lost[msg.Assigned] = 9
    world.rebalance(0.0, **UP)
    assert world.stages["a"].held == UP["a"]
    world.step(cl.RebalanceUnwanted("by an operator"))
    assert world.cluster.state == "degraded", "for all it has told it holds what it did"
    world.lost.clear()
    again(world)
    again(world)
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)
    assert ended(world).why == "by an operator"


def test_only_a_stage_that_is_lost_is_unintended() -> None:
    world = two()
    world.rebalance(0.0, **UP)
    assert [down.intended for down in world.take(cl.PipelineDown)] == [True]
    world.lose("a")
    assert [down.intended for down in world.take(cl.PipelineDown)] == [False]
