"""The cluster's state machine: members, layouts, epochs, losses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.split import SplitError, balanced_split, ranges_of
from daemon.layers import LayerRange
from tests.machine.world import MODEL, RULES, World, beat, node, stage


def test_a_wanted_model_is_loaded_assigned_and_up() -> None:
    world = World("a", "b")
    world.want(split=(5, 3))
    loads = dict(world.messages(msg.Load))
    assert (loads["a"].start, loads["a"].end) == (0, 5)
    assert (loads["b"].start, loads["b"].end) == (5, 8)
    assigns = dict(world.messages(msg.Assign))
    assert assigns["a"].next_address == "tcp://b:1"
    assert assigns["b"].next_address == "tcp://a:9"
    (up,) = world.take(cl.PipelineUp)
    assert (up.epoch, up.first_address) == (1, "tcp://a:1")
    assert world.take(cl.LoadEnded) == [cl.LoadEnded(None)]
    assert world.cluster.state == "ready"


def test_the_pipeline_is_not_up_before_every_stage_has_its_place() -> None:
    world = World("a", "b")
    world.silent.add("b")
    world.want()
    assert not world.take(cl.PipelineUp)
    load = dict(world.messages(msg.Load))["b"]
    world.silent.clear()
    world.answer("b", load)
    assert len(world.take(cl.PipelineUp)) == 1


def test_it_waits_for_the_nodes_that_a_split_needs() -> None:
    world = World("a")
    world.want(split=(4, 4))
    assert not list(world.messages(msg.Load))
    assert "1 nodes have joined" in world.cluster.why_down
    world.incarnations["b"] = "s1"
    world.step(node("b"))
    world.step(stage("b"))
    assert len(world.take(cl.PipelineUp)) == 1


@pytest.mark.parametrize("split", [(5, 2), (5, 4), (8, 0), (9, -1)])
def test_a_split_that_does_not_fit_is_refused_and_nothing_is_loaded(split: tuple[int, ...]) -> None:
    world = World("a", "b")
    world.want(split=split)
    (ended,) = world.take(cl.LoadEnded)
    assert ended.failure.code == 2
    assert not list(world.messages(msg.Load))
    assert world.cluster.state == "idle"


def test_a_stage_that_was_replaced_is_loaded_again_in_a_new_epoch() -> None:
    world = World("a", "b")
    world.want()
    world.take(cl.PipelineUp)
    world.step(msg.ChildExited("b", "n1", "stage", 20, "signal", "signal SIGKILL", 1, 0.1))
    (down,) = world.take(cl.PipelineDown)
    assert "SIGKILL" in down.why
    assert world.cluster.state == "degraded"
    world.seen.clear()
    world.incarnations["b"] = "s2"
    world.step(stage("b", "s2", pid=21))
    assert [name for name, _ in world.messages(msg.Load)] == ["b"], "a kept its weights"
    (up,) = world.take(cl.PipelineUp)
    assert up.epoch == 2
    assert up.kept == {"a": ("s1", LayerRange(0, 4)), "b": ("s2", LayerRange(4, 8))}


def test_what_a_replaced_process_still_says_is_ignored() -> None:
    world = World("a", "b")
    world.want()
    world.incarnations["b"] = "s2"
    world.step(stage("b", "s2", pid=21))
    before = world.cluster.epoch
    assert world.step(msg.LinkFailed("b", "s1", before, 1, 7, "gone")) == []
    assert world.step(replace(beat("b"), microbatch=3)) == []


def test_a_silent_stage_is_ended() -> None:
    world = World("a", "b")
    world.want()
    world.tick(RULES.dead_after - 0.1, beat("a"))
    assert not list(world.messages(msg.KillStage))
    assert world.cluster.members["b"].suspect
    world.tick(RULES.dead_after + 0.1, beat("a"))
    assert [(n, m.pid) for n, m in world.messages(msg.KillStage)] == [("b", 20)]


def test_a_kill_is_asked_for_until_it_is_done() -> None:
    world = World("a", "b")
    world.want()
    world.tick(RULES.dead_after + 0.1, beat("a"))
    world.tick(world.now + 0.1, beat("a"))
    assert len(list(world.messages(msg.KillStage))) == 1
    world.tick(world.now + RULES.ask_again_after, beat("a"))
    assert len(list(world.messages(msg.KillStage))) == 2
    world.step(msg.ChildExited("b", "n1", "stage", 20, "signal", "signal SIGKILL", 1, 0.1))
    world.tick(world.now + RULES.ask_again_after, beat("a"))
    assert len(list(world.messages(msg.KillStage))) == 2


def test_a_stage_that_sits_on_an_overdue_frame_is_ended_and_a_lost_frame_ends_nobody() -> None:
    world = World("a", "b")
    world.want()
    world.step(beat("a", microbatch=7, busy_seconds=0.1))
    world.step(cl.FrameOverdue(7))
    world.step(cl.FrameOverdue(8))
    assert not list(world.messages(msg.KillStage)), "it has only just begun, or nobody has it"
    world.step(beat("b", microbatch=7, busy_seconds=RULES.hung_after + 1))
    world.step(cl.FrameOverdue(7))
    assert [n for n, _ in world.messages(msg.KillStage)] == ["b"]


def test_a_hang_that_the_last_heartbeat_did_not_show_yet_is_found() -> None:
    world = World("a", "b")
    world.want()
    world.step(beat("b", microbatch=7, busy_seconds=RULES.hung_after - 0.2))
    world.now += 0.4
    world.step(cl.FrameOverdue(9))  # issued again meanwhile, under another number
    assert [n for n, _ in world.messages(msg.KillStage)] == ["b"]


def test_a_process_that_never_says_hello_is_ended_unless_it_is_at_work() -> None:
    world = World("a")
    world.incarnations["b"] = "s1"
    world.step(node("b"))
    within = RULES.join_within
    world.tick(1.0, beat("a"))
    world.tick(within, beat("a"), beat("b", loading=True))
    world.tick(within + 2.0, beat("a"))
    assert not list(world.messages(msg.KillStage))
    world.tick(2 * within + 1.0, beat("a"))
    assert [n for n, _ in world.messages(msg.KillStage)] == ["b"]


def test_what_was_asked_for_and_lost_is_asked_for_again() -> None:
    world = World("a", "b")
    world.silent = {"b"}
    world.want()
    world.tick(1.0, beat("a"), beat("b", digest="", loading=True))
    world.tick(RULES.ask_again_after, beat("a"), beat("b", digest="", loading=True))
    assert len([n for n, _ in world.messages(msg.Load) if n == "b"]) == 1, "it is at it"
    world.tick(RULES.ask_again_after + 0.1, beat("a"), beat("b", digest=""))
    assert len([n for n, _ in world.messages(msg.Load) if n == "b"]) == 2
    load = dict(world.messages(msg.Load))["b"]
    world.answer("b", load)
    assert not world.take(cl.PipelineUp), "its Assign was lost"
    world.silent.clear()
    world.tick(world.now + RULES.ask_again_after + 0.1, beat("a"), beat("b"))
    assert len(world.take(cl.PipelineUp)) == 1
    assert len([n for n, _ in world.messages(msg.Assign) if n == "a"]) == 1


def test_unload_during_a_load_and_load_again() -> None:
    """The stage says Loaded, then carries out the Unload that was under way meanwhile."""
    world = World("a")
    world.silent.add("a")
    world.want()
    (load,) = [m for _, m in world.messages(msg.Load)]
    world.step(cl.ModelUnwanted())
    world.answer("a", load)
    world.want()
    world.tick(1.0, beat("a", digest=""))
    world.silent.clear()
    world.tick(RULES.ask_again_after + 1.5, beat("a", digest=""))
    world.tick(2 * RULES.ask_again_after + 3.0, beat("a", digest=""))
    assert world.cluster.state == "ready"


def test_a_stage_that_let_go_of_its_layers_gets_them_again() -> None:
    world = World("a", "b")
    world.want()
    world.take(cl.PipelineUp)
    world.tick(1.0, beat("a"), beat("b", digest=""))
    assert world.cluster.up, "that heartbeat may be older than its Loaded"
    world.tick(RULES.ask_again_after + 0.5, beat("a"), beat("b", digest=""))
    assert len(world.take(cl.PipelineDown)) == 1
    assert len(world.take(cl.PipelineUp)) == 1


def test_a_failed_load_ends_the_request_and_unloads_the_others() -> None:
    world = World("a", "b")
    world.silent.add("b")
    world.want()
    world.step(msg.LoadFailed("b", "s1", "d1", 0, 3, "x", "of another time", "-"))
    assert not world.take(cl.LoadEnded)
    world.step(msg.LoadFailed("b", "s1", "d1", 4, 8, "model.safetensors", "truncated", "copy it"))
    (ended,) = world.take(cl.LoadEnded)
    assert "truncated" in ended.failure.why
    world.now += RULES.ask_again_after
    world.step(beat("a"))
    world.step(cl.Tick())
    assert "a" in dict(world.messages(msg.Unload))
    assert world.cluster.state == "idle"


def test_a_stage_that_cannot_be_kept_alive_ends_the_load() -> None:
    world = World("a", "b")
    world.silent.add("b")
    world.want()
    world.step(msg.ChildExited("b", "n1", "stage", 20, "out-of-memory", "out of memory", 1, 0.1))
    (ended,) = world.take(cl.LoadEnded)
    assert "out of memory" in ended.failure.why


def test_a_load_that_fails_later_is_tried_again_but_not_at_once() -> None:
    world = World("a", "b")
    world.want()
    world.silent.add("b")
    world.incarnations["b"] = "s2"
    world.step(stage("b", "s2", pid=21))
    world.seen.clear()
    world.step(msg.LoadFailed("b", "s2", "d1", 4, 8, "x", "disk error", "look"))
    for now in (1.0, RULES.load_again_after - 1):
        world.tick(now, beat("a"), beat("b", "s2", digest=""))
    assert not list(world.messages(msg.Load))
    world.tick(RULES.load_again_after + 0.1, beat("a"), beat("b", "s2", digest=""))
    assert [n for n, _ in world.messages(msg.Load)] == ["b"]


def test_a_load_that_nobody_waits_for_is_tried_until_it_is_mended() -> None:
    world = World("a", "b")
    world.silent.add("b")
    world.step(cl.ModelWanted(MODEL, "tcp://a:9", ("a", "b"), (4, 4)))
    assert world.cluster.state == "loading"
    world.step(msg.LoadFailed("b", "s1", "d1", 4, 8, "model.safetensors", "no such file", "-"))
    assert not world.take(cl.LoadEnded)
    assert world.cluster.state == "degraded"
    assert "no such file" in world.cluster.why_down
    assert [n.kind for n in world.take(cl.Note)].count("load-failed") == 1
    world.step(msg.LoadFailed("b", "s1", "d1", 4, 8, "model.safetensors", "no such file", "-"))
    assert not [n for n in world.take(cl.Note) if n.kind == "load-failed"], "it is known"
    world.silent.clear()
    world.tick(RULES.load_again_after + 0.1, beat("a"), beat("b", digest=""))
    (ended,) = world.take(cl.LoadEnded)
    assert ended.failure is None
    assert world.cluster.state == "ready"


def test_the_stage_of_a_node_that_leaves_has_not_failed() -> None:
    world = World("a", "b")
    world.step(msg.Goodbye("b", "n1"))
    world.seen.clear()
    world.step(msg.ChildExited("b", "n1", "stage", 20, "exit", "exit code 0", 0, -1.0))
    (note,) = world.take(cl.Note)
    assert "too many failures" not in note.text


def test_without_names_or_split_it_waits_until_nobody_joins_any_more() -> None:
    world = World("a")
    world.step(cl.ModelWanted(MODEL, "tcp://a:9"))
    assert not list(world.messages(msg.Load))
    world.tick(RULES.settle_after - 1.0, beat("a"))
    world.incarnations["b"] = "s1"
    world.step(node("b"))
    world.step(stage("b"))
    world.tick(world.now + RULES.settle_after + 0.1, beat("a"), beat("b"))
    assert [str(s.layers) for s in world.cluster.slots] == ["0-3", "4-7"]


def test_another_shardd_of_the_same_name_is_not_believed() -> None:
    world = World("a", "b")
    world.want()
    assert not world.step(msg.ChildExited("b", "n9", "stage", 20, "exit", "exit code 0", 0, -1.0))
    assert world.cluster.up


def test_a_node_that_drained_and_left_is_forgotten() -> None:
    world = World("a", "b", "c")
    world.want(split=(4, 4))
    world.step(msg.Goodbye("c", "n1"))
    for _ in range(2):
        world.now += RULES.dead_after + 1
        for name in ("a", "b"):
            world.step(msg.NodeHeartbeat(name, "n1", 1, 20))
            world.step(beat(name))
        world.step(cl.Tick())
    assert "c" not in world.cluster.members
    assert world.cluster.state == "ready"


def test_a_raised_term_assigns_everything_anew() -> None:
    world = World("a", "b")
    world.want()
    world.take(cl.PipelineUp)
    world.seen.clear()
    for action in world.cluster.new_term(5, world.now):
        world.seen.append(action)
        if isinstance(action, cl.ToStage):
            world.answer(action.node, action.message)
    assert {m.term for _, m in world.messages(msg.Assign)} == {5}
    (up,) = world.take(cl.PipelineUp)
    assert (up.term, up.epoch) == (5, 2)


def test_a_node_that_says_goodbye_is_draining_not_down() -> None:
    world = World("a", "b")
    world.want()
    world.step(msg.Goodbye("b", "n1"))
    assert world.cluster.members["b"].state == "draining"
    assert world.cluster.up
    assert world.cluster.state == "draining"


def test_unloading_forgets_the_layout() -> None:
    world = World("a", "b")
    world.want()
    world.now += RULES.ask_again_after
    world.step(cl.ModelUnwanted())
    assert world.cluster.state == "idle"
    assert len(world.take(cl.PipelineDown)) == 1
    assert {n for n, _ in world.messages(msg.Unload)} == {"a", "b"}


def test_splits() -> None:
    assert [(r.start, r.end) for r in ranges_of((5, 2, 1), 8)] == [(0, 5), (5, 7), (7, 8)]
    with pytest.raises(SplitError, match="at least one layer"):
        balanced_split([1, 1], 0, 3)
    with pytest.raises(SplitError, match="has 7 layers, the model has 8"):
        ranges_of((5, 2), 8)


@pytest.mark.parametrize(
    ("layers", "head", "stages", "split"),
    [
        ([1] * 8, 0, 2, [4, 4]),
        ([1] * 16, 1.4, 2, [9, 7]),
        ([1] * 8, 0.3, 3, [3, 3, 2]),
        ([1, 1, 1, 5], 0, 2, [3, 1]),
        ([2, 1, 1], 9, 3, [1, 1, 1]),
        ([1] * 5, 100, 2, [4, 1]),
        ([3], 1, 1, [1]),
    ],
)
def test_the_head_counts_in_a_balanced_split(
    layers: list[float], head: float, stages: int, split: list[int]
) -> None:
    assert balanced_split(layers, head, stages) == split


def test_no_split_is_better_than_the_balanced_one() -> None:
    rng = random.Random(3)
    for _ in range(200):
        layers = [rng.randint(1, 9) for _ in range(rng.randint(1, 8))]
        head, stages = rng.randint(0, 12), rng.randint(1, len(layers))

        def dearest(sizes: Sequence[int], layers: list[int] = layers, head: int = head) -> int:
            ranges = ranges_of(sizes, len(layers))
            costs = [sum(layers[r.start : r.end]) for r in ranges]
            return max([*costs[:-1], costs[-1] + head])

        cuts = combinations(range(1, len(layers)), stages - 1)
        ends = [(0, *cut, len(layers)) for cut in cuts]
        every = [[b - a for a, b in pairwise(end)] for end in ends]
        assert dearest(balanced_split(layers, head, stages)) == min(map(dearest, every))
