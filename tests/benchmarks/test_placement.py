"""The paced nodes of the benchmark `placement`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.paced.plan import Kept
from benchmarks.placement.nodes import VARIABLE, Node, of_environment, write
from benchmarks.placement.run import Row, _count
from benchmarks.placement.stage import paced
from daemon.cluster.placement.problem import Objective


def test_times_are_those_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(0.01, 0.02)
    assert node.pass_seconds(3, last=False, tokens=1) == pytest.approx(0.03)
    assert node.pass_seconds(3, last=True, tokens=2) == pytest.approx(0.1)
    write(tmp_path / "nodes.json", {"a": node})
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nodes.json"))
    assert of_environment("a") == node
    with pytest.raises(KeyError):
        of_environment("b")


def test_a_pass_is_drawn_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its layers and tokens, from when it began."""
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr("benchmarks.placement.stage.time", clock)
    until: list[float] = []
    kept = cast(Kept, SimpleNamespace(keep=until.append))
    run = paced(lambda stage, rows, hidden: "output", Node(0.01, 0.5), kept)
    stage: Any = SimpleNamespace(layers=range(3), is_last=False)
    assert run(stage, [SimpleNamespace(tokens=(1, 2))]) == "output"
    assert until == pytest.approx([100.06])


def test_paced_stands_beside_every_number() -> None:
    row = Row("6, 12", Objective.LATENCY, 1, "6: 8", 11.0, 10.0)
    assert row.error == pytest.approx(0.1)
    assert all("paced" in cell for cell in row.cells()[4:])


def test_layers_of_a_range() -> None:
    assert [_count(shown) for shown in ("0-5", "6-7", "7")] == [6, 2, 1]
