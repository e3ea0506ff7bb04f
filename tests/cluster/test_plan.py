"""Plans of real nodes: those that serve, and those that have to measure themselves first."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl.errors import CommandError
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CODE


def test_of_the_model_that_is_served(cluster: Cluster) -> None:
    Generation(cluster, CODE, 16).result()
    layers = [stage["layers"] for stage in cluster.ask("pipeline")["stages"]]
    split = cluster.ask("plan", split=cluster.split)
    assert [stage["layers"] for stage in split["stages"]] == layers
    assert all(stage["measured_seconds"] > 0 for stage in split["stages"])
    best = cluster.ask("plan", objective="throughput", context=512)
    assert best["slowest_seconds"] <= split["slowest_seconds"] * (1 + 1e-9)
    placed = {stage["node"] for stage in best["stages"]}
    assert placed | {row["node"] for row in best["left_out"]} == set(cluster.names)
    pinned = cluster.ask("plan", pins={"n2": [0, 3]}, exclude=["n1"])
    assert (pinned["stages"][0]["node"], pinned["stages"][0]["layers"]) == ("n2", "0-2")
    with pytest.raises(CommandError) as caught:
        cluster.ask("plan", pins={"nobody": [0, 3]})
    assert "no node nobody; known are n1" in caught.value.line()


def test_nodes_measure_themselves_once(tmp_path: Path, model_folder: Path) -> None:
    cluster = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder}, model=None)
    cluster.start(ready=False)
    try:
        cluster.wait_nodes()
        with cluster.client() as client:
            first, *_, last = list(client.stream("plan", {"model": "embedded"}))
            assert first.data == {"measuring": ["n1", "n2"]}
            assert [len(last.data["stages"]), last.data["hops_assumed"]] in ([1, 6], [2, 6])
            (only,) = list(client.stream("plan", {"model": "embedded"}))
            assert only.data["stages"] == last.data["stages"]
        assert cluster.ask("status")["state"] == "idle"
    finally:
        cluster.close()
