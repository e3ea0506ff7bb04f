"""A machine that dies for good: the others take its layers, and running requests go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference


@pytest.fixture
def three(tmp_path: Path, model_folder: Path) -> Iterator[Cluster]:
    changes = {"n1": {"timeouts": {"replan_s": 2, "dead_after_s": 1, "drain_s": 60}}}
    cluster = Cluster(tmp_path / "c", (3, 3, 2), {"embedded": model_folder}, changes=changes)
    yield cluster.start()
    cluster.close()


def test_the_others_take_its_layers(three: Cluster, reference: Reference) -> None:
    both = [Generation(three, prompt, 300) for prompt in (CODE, CLASS)]
    for running in both:
        running.wait_tokens(10)
    three.kill_node(1)
    for prompt, running in zip((CODE, CLASS), both, strict=True):
        reference.check(prompt, running.result().tokens)
        assert len(running.tokens) == 300
        assert any("n2" in why for why in running.waited)
    assert three.state() == "ready"
    layers = {stage["node"]: stage["layers"] for stage in three.ask("pipeline")["stages"]}
    assert layers.keys() == {"n1", "n3"}
    assert "embedded without n2" in three.events("layout")[-1]["text"]
    three.start_node("n2")
    until(lambda: three.node(1)["state"] == "idle", "it is back, as a spare")
    assert three.state() == "ready"
