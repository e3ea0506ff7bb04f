"""Nodes that are drained, and those that leave: their layers move first."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.cluster.events import NodesDrained
from tests.coordinator.nodes import Nodes


@pytest.fixture
def of(tmp_path: Path) -> Nodes:
    of = Nodes(tmp_path, "a", "b")
    of.serve_toy(4, 4)
    return of


def goodbye(of: Nodes, name: str) -> None:
    of.happened(msg.Goodbye(name, "n1"))
    of.clients.draining.leaving(name)
    of.desk.run()


def test_its_layers_move_and_it_is_not_used_until_it_is_undrained(
    of: Nodes, tmp_path: Path
) -> None:
    of.request("nodes.drain", node="b")
    assert of.layout() == [("a", "0-7")]
    of.tick()
    (reply,) = of.replies()
    assert (reply["node"], reply["changed"], reply["replayed"]) == ("b", True, False)
    assert of.cluster.members["b"].drained
    assert not of.request("rebalance", objective="throughput")["changed"], "it is not used"
    again = Nodes(tmp_path, "a", "b")
    again.clients.draining.begin()
    assert again.cluster.members["b"].drained, "remembered"
    assert of.request("nodes.undrain", node="b")["changed"]
    assert not of.request("nodes.undrain", node="b")["changed"]
    of.request("rebalance", objective="throughput")
    assert len(of.layout()) == 2


def test_what_it_would_take_changes_nothing(of: Nodes) -> None:
    told = of.request("nodes.drain", node="b", dry_run=True)
    assert (told["dry_run"], told["nodes"][1]["new"]) == (True, None)
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]
    assert not of.cluster.members["b"].drained


def test_one_without_layers_is_drained_at_once(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", "b", "c")
    of.serve_toy(4, 4)
    assert of.request("nodes.drain", node="c", dry_run=True)["changed"]
    assert not of.cluster.members["c"].drained
    assert of.request("nodes.drain", node="c")["changed"]
    assert of.cluster.members["c"].drained
    assert not of.request("nodes.drain", node="c")["changed"]
    assert of.request("nodes.drain", node="x").startswith("2 nodes.drain: no node x; known are a")


def test_it_is_refused_when_the_others_cannot_hold_the_model(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", "b", memory=60)
    of.serve_toy(4, 4)
    refused = of.request("nodes.drain", node="b")
    assert refused.startswith(
        "5 b cannot be drained: the model and its KV take 88 bytes, the nodes"
    )
    assert not of.cluster.members["b"].drained


def test_with_less_room_for_kv_than_the_whole_context(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", "b", memory=90)
    of.serve_toy(4, 4)
    assert of.request("nodes.drain", node="b", dry_run=True)["context"] == 0
    of.request("nodes.drain", node="b")
    assert of.layout() == [("a", "0-7")]


def test_the_node_of_the_coordinator_too(of: Nodes) -> None:
    of.request("nodes.drain", node="a")
    assert of.layout() == [("b", "0-7")]


def test_a_drain_that_is_given_up_leaves_the_node_as_it_was(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    of.request("nodes.drain", node="b")
    of.request("rebalance.abort")
    assert not of.cluster.members["b"].drained
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]


def test_who_leaves_is_let_go_when_its_layers_are_elsewhere(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    goodbye(of, "b")
    of.tick()
    assert of.clients.draining.going == {"b"}
    assert not of.clients.draining.staying, "requests are taken"
    assert of.to_nodes == []
    goodbye(of, "b")
    of.hear()
    assert of.layout() == [("a", "0-7")]
    of.tick()
    assert of.to_nodes == [("b", msg.Drained("b"))]
    assert not of.cluster.members["b"].drained, "it may come back"


def test_who_says_again_that_it_leaves_before_a_layout_is_found_is_moved_once(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    of.happened(msg.Goodbye("b", "n1"))
    of.clients.draining.leaving("b")
    of.clients.draining.leaving("b")
    of.desk.run()
    assert of.clients.draining.going == {"b"}
    assert not of.clients.draining.staying, "requests are taken while its layers move"


def test_who_leaves_and_cannot_be_replaced_goes_when_its_requests_have_ended(
    tmp_path: Path,
) -> None:
    of = Nodes(tmp_path, "a", "b", memory=60)
    of.serve_toy(4, 4)
    goodbye(of, "b")
    assert of.clients.draining.staying
    assert of.notes[-1].startswith("draining: its layers are not moved: the model and its")
    of.tick()
    assert of.to_nodes == [("b", msg.Drained("b"))], "nothing runs"
    of.happened(msg.ChildExited("b", "n1", "stage", 20, "exit", "exit code 0", 0, 0.0))
    assert not of.clients.draining.staying, "what comes now waits for it"


def test_who_leaves_sooner_than_its_layers_could_move(of: Nodes) -> None:
    of.config.timeouts.drain_s = 0.1
    goodbye(of, "b")
    assert of.clients.draining.staying
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]


def test_two_leave_one_after_the_other(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", "b", "c")
    of.serve_toy(4, 2, 2)
    of.deaf.add(msg.Prepare)
    goodbye(of, "b")
    goodbye(of, "c")
    assert of.clients.draining.going == {"b", "c"}
    of.hear()
    of.tick()
    goodbye(of, "c")
    assert of.layout() == [("a", "0-7")]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\x00"])
def test_a_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "drained.json").write_text(text)
    of = Nodes(tmp_path, "a")
    assert of.clients.draining.nodes == frozenset()
    of.happened(NodesDrained(of.clients.draining.nodes))


def test_a_shardd_that_was_replaced_moves_nothing(of: Nodes) -> None:
    before = of.cluster.slots
    of.happened(msg.Goodbye("b", "an earlier one"))
    of.clients.draining.leaving("b")
    assert of.cluster.slots == before
    assert not of.clients.draining.going
