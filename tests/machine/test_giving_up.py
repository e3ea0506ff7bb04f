"""A rebalance that is given up, at any moment and from any cause, leaves all as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.rebalance import Phase
from daemon.cluster.wish import Wish
from daemon.hop_path import HopPath
from tests.machine.moving import HALVES, UP, Moving, again, ended, held, layout, settled, two
from tests.machine.world import RULES, stage


def at_prepare(world: Moving) -> None:
    world.lost[msg.Prepared] = 1
    world.rebalance(a=(0, 2), c=(2, 6), b=(6, 8))


def at_copy(world: Moving) -> None:
    world.left = 1 << 30
    world.rebalance(1e12, a=(0, 2), c=(2, 6), b=(6, 8))


def at_switch(world: Moving) -> None:
    world.rebalance(a=(0, 2), c=(2, 6), b=(6, 8))


def at_barrier(world: Moving) -> None:
    """All have switched, but one whose word is lost."""
    at_switch(world)
    world.lost[msg.Assigned] = 1
    world.barrier()


MOMENTS = {
    at_prepare: Phase.PREPARE,
    at_copy: Phase.COPY,
    at_switch: Phase.SWITCH,
    at_barrier: Phase.SWITCH,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_unwanted_at_any_moment_it_is_as_it_was(moment: Any) -> None:
    world = two()
    moment(world)
    assert world.cluster.rebalance
    assert world.cluster.rebalance.phase is MOMENTS[moment]
    world.step(cl.RebalanceUnwanted("by an operator"))
    switching = MOMENTS[moment] is Phase.SWITCH
    assert len(world.take(cl.PipelineDown)) == len(world.take(cl.PipelineUp)) == switching
    assert not list(world.messages(msg.Load)), "everybody still has what it had"
    assert ended(world).why == "by an operator"
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)
    world.lost.clear()
    world.left = 0
    world.rebalance(**UP)  # and another one goes through
    world.barrier()
    assert (layout(world), ended(world).why) == (UP, "")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_path_that_ends_under_the_barrier_ends_it(moment: Any) -> None:
    """At any other moment the frames in flight are issued again, and it goes on."""
    world = two()
    world.cluster.paths.wish(Wish("a", HopPath.RDMA, 1, 1, ""))
    moment(world)
    world.take(cl.FramesLost)
    world.step(msg.PathLost("b", "s1", world.cluster.epoch, 1, False, "gone", "it ended"))
    assert len(world.take(cl.FramesLost)) == 1
    under_way = moment is at_switch
    assert len(world.take(cl.PipelineDown)) == len(world.take(cl.PipelineUp)) == under_way
    assert (world.cluster.rebalance is None) == under_way
    if under_way:
        assert ended(world).why == "b: it ended"
        assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)


@pytest.mark.parametrize("node_lost", ["a", "b", "c"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stage_that_is_lost_ends_it(moment: Any, node_lost: str) -> None:
    world = two()
    moment(world)
    world.lose(node_lost)
    world.lost.clear()
    down = node_lost != "c" or MOMENTS[moment] is Phase.SWITCH
    assert len(world.take(cl.PipelineDown)) == down
    world.incarnations[node_lost] = "s1"
    world.step(replace(stage(node_lost, "s1"), pid=21))
    assert len(world.take(cl.PipelineUp)) == down
    assert f"{node_lost}: stage process 20 ended" in ended(world).why
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_raised_term_ends_it(moment: Any) -> None:
    world = two()
    moment(world)
    for action in world.cluster.new_term(7, world.now):
        world.seen.append(action)
        if isinstance(action, cl.ToStage):
            world.answer(action.node, action.message)
    assert "term was raised" in ended(world).why
    assert len(world.take(cl.PipelineDown)) == len(world.take(cl.PipelineUp)) == 1
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)
    assert {m.term for _, m in world.messages(msg.Settle)} == {7}


@pytest.mark.parametrize("moment", MOMENTS)
def test_unloading_ends_it(moment: Any) -> None:
    world = two()
    moment(world)
    world.step(cl.ModelUnwanted())
    assert ended(world).why == "no model is loaded"
    again(world)
    assert (held(world), settled(world)) == ({}, True)
    assert world.cluster.state == "idle"


@pytest.mark.parametrize("moment", MOMENTS)
def test_another_model_ends_it(moment: Any) -> None:
    world = two()
    moment(world)
    world.lost.clear()
    world.start(a=(0, 3), b=(3, 8))
    again(world)
    assert world.cluster.rebalance is None
    assert (layout(world), held(world)) == ({"a": (0, 3), "b": (3, 8)},) * 2
    assert (world.cluster.state, settled(world)) == ("ready", True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_failure_of_a_stage_ends_it_and_is_named(moment: Any) -> None:
    world = two()
    moment(world)
    world.lost.clear()
    world.step(world.prepared("c", "model.safetensors: truncated"))
    assert ended(world).why == "c: model.safetensors: truncated; -"
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)


@pytest.mark.parametrize("moment", [at_copy, at_switch, at_barrier])
def test_a_giver_that_cannot_ends_it(moment: Any) -> None:
    world = two()
    moment(world)
    world.lost.clear()
    world.step(msg.Giving("b", "s1", 1, 1, 0, 0, "c cannot be reached"))
    assert ended(world).why == "b: c cannot be reached"
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)


def test_what_a_stage_lets_go_of_ends_it() -> None:
    world = two()
    at_copy(world)
    world.stages["c"].move = 0
    again(world)
    again(world)
    assert ended(world).why == "c has let go of what it had prepared"


def test_what_is_given_up_after_the_barrier_is_settled_when_it_is_up_again() -> None:
    world = two()
    at_barrier(world)
    world.silent = {"a"}
    world.step(cl.RebalanceUnwanted("by an operator"))
    assert world.cluster.state == "degraded"
    again(world)
    assert not list(world.messages(msg.Settle)), "stages keep what they were"
    world.silent.clear()
    again(world)
    assert ended(world).why == "by an operator"
    assert settled(world)


def test_an_epoch_is_never_used_twice() -> None:
    world = two()
    at_barrier(world)
    assert world.stages["c"].epoch == 2
    world.step(cl.RebalanceUnwanted("by an operator"))
    (up,) = world.take(cl.PipelineUp)
    assert (up.epoch, up.moved) == (3, False)


# --- time -----------------------------------------------------------------------------------------


def test_loading_may_take_as_long_as_it_goes_on() -> None:
    world = two()
    world.lost[msg.Prepared] = 100
    world.rebalance(**UP)
    half = RULES.prepare_within / 2 + 1
    for loaded in range(1, 4):
        world.pass_time(half, loading=True, bytes_loaded=loaded, bytes_total=9)
    assert world.cluster.rebalance
    progress = world.cluster.rebalance.progress(world.cluster.members, world.now)
    assert (progress.phase, progress.bytes_loaded, progress.bytes_total) == (Phase.PREPARE, 6, 18)
    assert progress.seconds == pytest.approx(3 * half)
    world.pass_time(half, loading=True, bytes_loaded=3)
    world.pass_time(half, loading=True, bytes_loaded=3)
    assert ended(world).why == "nothing went on for 60 s while preparing"


def test_a_barrier_that_is_lost_ends_it_unless_stages_go_on_computing() -> None:
    world = two()
    world.rebalance(**UP)
    for n in range(1, 4):
        world.pass_time(RULES.switch_within - 1, frames_finished=n)
    assert world.cluster.up
    world.pass_time(RULES.switch_within + 1, frames_finished=3)
    assert ended(world).why == "nothing went on for 5 s while switching"
    assert (layout(world), held(world), settled(world)) == (HALVES, HALVES, True)


def test_one_frame_before_the_barrier_may_take_long() -> None:
    world = two()
    world.rebalance(**UP)
    for n in range(1, 4):
        world.pass_time(RULES.switch_within - 1, microbatch=7, busy_seconds=4.0 * n)
    assert world.cluster.up
    assert world.cluster.rebalance


def test_what_was_said_of_an_earlier_move_does_not_count() -> None:
    """Numbers begin again with every coordinator: the last word of the one before may come late."""
    world = two()
    world.lost[msg.Prepared] = 100
    for name, (start, end) in UP.items():
        late = (f"tcp://{name}:1", f"tcp://{name}:9", 0.1, "", "")
        world.step(msg.Prepared(name, world.incarnations[name], 1, 1, start, end, *late))
    world.rebalance(**UP)
    world.pass_time(1.0)
    assert world.cluster.rebalance
    assert world.cluster.rebalance.phase is Phase.PREPARE


def test_what_is_said_late_of_a_move_of_an_earlier_term_does_not_count() -> None:
    """Its number is the same: they begin again with every coordinator."""
    world = two()
    world.lost[msg.Prepared] = 100
    world.rebalance(**UP)
    for why in ("", "model.safetensors: truncated"):
        world.step(world.prepared("a", why, term=0))
        world.step(world.prepared("b", why, term=0))
        world.step(msg.Giving("b", "s1", 0, 1, 100, 0, why))
    world.pass_time(RULES.ask_again_after + 0.1, loading=True, move_term=0)
    assert world.cluster.rebalance
    assert world.cluster.rebalance.phase is Phase.PREPARE
    assert len([*world.messages(msg.Prepare)]) == 4, "what loads for another is asked for this one"


def test_a_giver_that_says_nothing_ends_it() -> None:
    world = two()
    world.lost[msg.Giving] = 100
    world.rebalance(**UP)
    world.pass_time(RULES.copy_within + 1)
    assert ended(world).why == "nothing went on for 10 s while copying"


def test_little_that_is_left_goes_behind_the_barrier() -> None:
    world = two()
    world.left = RULES.copied_enough
    world.rebalance(**UP)
    assert world.take(cl.SendBarrier)
