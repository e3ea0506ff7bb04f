"""The automatic mode: it looks while something runs, and leaves alone what an operator has said."""

from __future__ import annotations

import time
from pathlib import Path

from daemon import messages as msg
from daemon.coordinator.automatic import LOOK_SECONDS
from tests.coordinator.nodes import Nodes


def look(of: Nodes, times: int = 1) -> str:
    """The last decision."""
    for _ in range(times):
        of.ticks = max(of.ticks, time.monotonic()) + LOOK_SECONDS
        of.clients.automatic.tick(of.ticks)
        of.desk.run()
    decision = of.status()["decision"]
    return str(decision["why"]) if decision else ""


def serving(state_dir: Path, *split: int, automatic: bool = True) -> Nodes:
    """b takes three times as long as a."""
    of = Nodes(state_dir, "a", "b", seconds={"b": 0.03}, automatic=automatic)
    of.serve_toy(*split)
    of.busy = True
    return of


def test_a_layout_that_is_clearly_better_is_moved_to(tmp_path: Path) -> None:
    of = serving(tmp_path)
    assert look(of).startswith("another layout promises"), "looked at again"
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]
    assert look(of, 6) == "moved to a better layout"
    assert {slot.node: len(slot.layers) for slot in of.cluster.slots}["a"] > 4
    assert any(note.startswith("rebalance: automatic: ") for note in of.notes)
    of.tick()
    assert "after the last move" in look(of)


def test_it_is_off_unless_it_was_switched_on(tmp_path: Path) -> None:
    of = serving(tmp_path, automatic=False)
    assert look(of, 8) == ""
    assert of.status()["mode"] == "off"
    assert of.layout() == [("a", "0-3"), ("b", "4-7")]


def test_what_an_operator_has_said_stays_until_it_is_set_free(tmp_path: Path) -> None:
    of = serving(tmp_path, 3, 5)
    assert look(of, 8).startswith("an operator has said the layout")
    assert of.layout() == [("a", "0-2"), ("b", "3-7")]
    of.request("rebalance", pins={"b": [5, 8]})
    of.tick()
    assert look(of).startswith("an operator has said the layout")
    of.request("rebalance", objective="throughput")
    of.tick()
    assert not look(of).startswith("an operator has said the layout")


def test_while_nothing_runs_nothing_is_decided(tmp_path: Path) -> None:
    of = serving(tmp_path)
    of.busy = False
    assert look(of, 8).startswith("nothing runs")


def test_a_move_that_fails_is_followed_by_a_pause(tmp_path: Path) -> None:
    of = serving(tmp_path)
    of.deaf.add(msg.Prepare)
    look(of, 7)
    assert look(of) == "layers are moving already"
    of.request("rebalance.abort")
    assert of.status()["decision"]["why"] == "not moved: an operator has ended it"
    assert "after the last move" in look(of)


def test_a_node_that_joins_is_measured_and_given_layers(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", seconds={"a": 0.03}, automatic=True)
    of.serve_toy()
    of.busy = True
    of.join("b")
    assert look(of, 7) == "moved to a better layout"
    assert {node for node, _ in of.layout()} >= {"b"}
