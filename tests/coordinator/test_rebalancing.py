"""The verbs `rebalance` and `rebalance.abort`, from the wish to the result."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.cluster.placement.problem import Objective
from daemon.coordinator.rebalancing import SETTLE_SECONDS
from daemon.coordinator.remembered import Memory
from daemon.coordinator.tokenizer import Tokenizer
from tests.coordinator.nodes import Nodes


@pytest.fixture
def of(tmp_path: Path) -> Nodes:
    """a and b serve, four layers each; c is a spare. b is half as fast."""
    of = Nodes(tmp_path, "a", "b", "c", seconds={"b": 0.02})
    of.serve_toy(4, 4)
    return of


def test_to_the_layout_that_is_said(of: Nodes) -> None:
    of.request("rebalance", split=[6, 2])
    assert of.layout() == [("a", "0-5"), ("b", "6-7")]
    of.tick()
    (result,) = of.replies()
    assert (result["changed"], result["begun"], result["dry_run"]) == (True, True, False)
    assert (result["epoch"], result["copied_bytes"], result["replayed"]) == (2, 500, False)
    assert result["loaded_bytes"] == 20, "two layers: those that stay are not loaded again"
    assert result["longest_gap"] is None, "nobody had any"
    assert "rebalanced: epoch 2" in of.notes[-1]
    assert of.status()["last"]["epoch"] == 2


def test_what_it_would_be_changes_nothing(of: Nodes) -> None:
    of.holds("a", 400)
    of.holds("b", 400)
    told = of.request("rebalance", split=[2, 6], dry_run=True)
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]
    assert (told["dry_run"], told["changed"], told["begun"]) == (True, True, False)
    assert told["nodes"] == [
        {"node": "a", "now": "0-3", "new": "0-1", "moves": -2, "load_bytes": 0},
        {"node": "b", "now": "4-7", "new": "2-7", "moves": 2, "load_bytes": 20},
    ]
    assert told["kv_bytes"] == 200, "half of what a holds"
    assert told["load_seconds"] == pytest.approx(0.5)
    assert told["copy_seconds"] is None, "no link was measured"
    assert told["present"]["slowest_seconds"] == pytest.approx(0.08, rel=0.1)
    assert told["slowest_seconds"] == pytest.approx(0.12, rel=0.1)


def test_the_best_one_takes_a_spare_and_says_when_nothing_would_change(of: Nodes) -> None:
    of.request("rebalance", objective="throughput")
    assert sorted(len(slot.layers) for slot in of.cluster.slots) == [1, 3, 4], "b is slower"
    layout = of.layout()
    of.tick()
    again = of.request("rebalance", objective="throughput")
    assert (again["changed"], again["begun"]) == (False, False)
    assert of.layout() == layout


def test_the_nodes_that_are_named_in_their_order_and_no_others(of: Nodes) -> None:
    """A split without nodes is over those that serve, in their order."""
    for wanted, layout in (
        ({"nodes": ["c", "a"], "split": [5, 3]}, [("c", "0-4"), ("a", "5-7")]),
        ({"split": [4, 4]}, [("c", "0-3"), ("a", "4-7")]),
        ({"nodes": ["b"]}, [("b", "0-7")]),
    ):
        of.request("rebalance", **wanted)
        assert of.layout() == layout
        of.tick()
    for wrong in ({"nodes": ["x"]}, {"nodes": ["a", "a"]}, {"nodes": ["a"], "split": [4, 4]}):
        assert of.request("rebalance", **wrong).startswith("2 rebalance: ")


def test_who_does_not_wait_is_answered_when_it_has_begun(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    told = of.request("rebalance", split=[6, 2], wait=False)
    assert (told["begun"], "epoch" in told) == (True, False)
    assert of.status()["moving"]["phase"] == "preparing"
    refused = of.request("rebalance", split=[5, 3])
    assert refused.startswith("5 another rebalance is under way")
    of.hear()
    of.tick()
    assert of.layout() == [("a", "0-5"), ("b", "6-7")]
    assert of.status()["moving"] is None


@pytest.fixture
def read(tmp_path: Path, chatml: Tokenizer) -> Nodes:
    """Somebody has read a token."""
    of = Nodes(tmp_path, "a", "b", tokenizer=chatml)
    of.serve_toy(4, 4)
    of.clients.request(b"reader", msg.Request(msg.PROTOCOL, 9, "generate", {"prompt": "a"}))
    of.desk.run()
    of.deliver([5])
    return of


def test_the_longest_gap_is_told_when_its_client_has_its_next_token(read: Nodes) -> None:
    of = read
    of.deaf.add(msg.Prepare)
    of.request("rebalance", split=[6, 2])
    of.deliver([6, 7])
    of.hear()
    of.tick()
    assert of.replies() == [], "the reader waits since before the end"
    of.deliver([8])
    of.tick()
    (result,) = of.replies()
    assert result["tokens"] == 3
    gap = result["longest_gap"]
    assert gap["seconds"] > 0.0
    assert of.clients.streams.watch is None


def test_a_reader_who_is_given_nothing_is_not_waited_for_for_ever(read: Nodes) -> None:
    of = read
    of.request("rebalance", split=[6, 2])
    of.clients.rebalancing.tick(time.monotonic() + SETTLE_SECONDS)
    (result,) = of.replies()
    assert result["longest_gap"]["seconds"] >= SETTLE_SECONDS
    assert result["longest_gap"]["median_seconds"] is None


def test_nodes_that_serve_are_as_fast_as_they_are_now(
    of: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a has become five times as slow since it loaded."""
    steps = {"predicted": {"steps": [{"1": 0.2}, {"1": 0.082}]}}
    monkeypatch.setattr(of.scheduler, "status", lambda: steps)
    told = of.request("rebalance", split=[2, 6], dry_run=True)
    assert told["present"]["slowest_seconds"] == pytest.approx(0.2)
    assert [stage["seconds"] for stage in told["stages"]] == pytest.approx([0.1, 0.122])
    planned = of.request("plan", split=[2, 6])
    assert planned["stages"][0]["seconds"] == pytest.approx(0.02), "as when it loaded"


def test_progress_while_it_goes_on(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    of.request("rebalance", split=[6, 2])
    of.tick()
    chunk = of.heard[-1]
    assert isinstance(chunk, msg.Chunk)
    assert chunk.data["moving"]["phase"] == "preparing"


def test_a_client_that_goes_does_not_end_it(of: Nodes) -> None:
    of.deaf.add(msg.Prepare)
    of.request("rebalance", split=[6, 2])
    of.connected = False
    of.tick()
    of.hear()
    assert of.layout() == [("a", "0-5"), ("b", "6-7")]


def test_nothing_begins_for_a_client_that_has_gone_before(of: Nodes) -> None:
    of.clients.request(b"client", msg.Request(msg.PROTOCOL, 1, "rebalance", {"split": [6, 2]}))
    of.connected = False
    of.desk.run()
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]
    assert not of.clients.rebalancing.under_way


def test_an_abort_leaves_all_as_it_was(of: Nodes) -> None:
    assert of.request("rebalance.abort").startswith("1 nothing to abort")
    of.deaf.add(msg.Prepare)
    of.request("rebalance", split=[6, 2])
    of.clients.request(b"other", msg.Request(msg.PROTOCOL, 2, "rebalance.abort", {}))
    failure = next(heard for heard in of.heard if isinstance(heard, msg.Failure))
    assert (failure.code, failure.what) == (1, "the layout is as it was")
    assert failure.why == "an operator has ended it"
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]
    assert not of.clients.rebalancing.under_way


def test_to_compute_again_is_told_with_its_reason(of: Nodes) -> None:
    of.request("rebalance", split=[6, 2], replay=True)
    of.tick()
    (result,) = of.replies()
    assert (result["replayed"], result["copied_bytes"]) == (True, 0)
    assert "as asked" in result["why"]
    assert list(result["seconds"])[-1] == "replaying"


def test_nothing_moves_while_the_pipeline_is_down(of: Nodes) -> None:
    of.deaf.add(msg.Load)
    of.happened(msg.ChildExited("b", "n1", "stage", 20, "signal", "SIGKILL", 1, 0.0))
    assert of.request("rebalance", split=[6, 2]).startswith("3 nothing can be moved now: b: ")
    of.stopping = True
    refused = of.request("rebalance", split=[6, 2])
    assert refused.startswith("3 nothing can be moved now: the coordinator is about to end")


def test_a_split_that_is_none_is_a_matter_of_usage(of: Nodes) -> None:
    assert of.request("rebalance", split=[9, 9]).startswith("2 there is no such placement")
    assert of.request("rebalance", split=[4, 2, 1, 1]).startswith("2 there is no such placement")


def test_a_restart_goes_on_with_the_layout_that_is_there(of: Nodes, tmp_path: Path) -> None:
    of.request("rebalance", nodes=["c", "a"], split=[5, 3])
    of.tick()
    found = Memory(tmp_path / "model.json").recall("None None ()")
    assert found
    assert (found.nodes, found.split) == (("c", "a"), (5, 3))
    assert found.by_hand
    of.request("rebalance", objective="latency")
    found = Memory(tmp_path / "model.json").recall("None None ()")
    assert found
    assert (found.objective, found.by_hand) == (Objective.LATENCY, False)
    again = Nodes(tmp_path, "a", "b", "c")
    again.clients.loading.load_at_start()
    again.desk.run()
    assert again.layout() == of.layout()


def test_one_that_cannot_begin_any_more_leaves_nothing_behind(of: Nodes) -> None:
    arguments = {"nodes": ["c", "a"], "split": [5, 3]}
    of.clients.request(b"client", msg.Request(msg.PROTOCOL, 1, "rebalance", arguments))
    of.happened(msg.ChildExited("c", "n1", "stage", 20, "signal", "SIGKILL", 1, 0.0))
    of.desk.run()
    assert of.last().startswith("5 the layout cannot change now: c has no stage now")
    assert not of.clients.rebalancing.under_way
    assert of.clients.streams.watch is None
