"""A node is drained and comes back; a coordinator that was restarted keeps the layout."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference


def test_it_has_no_layers_until_it_is_undrained(
    tmp_path: Path, model_folder: Path, reference: Reference
) -> None:
    cluster = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder})
    cluster.start()
    try:
        running = Generation(cluster, CODE, 600).wait_tokens(5)
        drained = cluster.ask("nodes.drain", node="n1")
        assert [row["new"] for row in drained["nodes"] if row["node"] == "n1"] == [None]
        assert cluster.node(1)["layers"] == "0-7"
        until(lambda: cluster.node(0)["state"] == "drained", "it has let go of its layers")
        again = cluster.ask("rebalance", objective="throughput")
        assert not again["changed"]
        coordinator = next(p for p in cluster.family() if "daemon.coordinator" in p.cmdline())
        assert running.result().reply["reissues"] == 0
        reference.check(CODE, running.tokens)
        coordinator.kill()
        cluster.forget_client()
        until(lambda: cluster.state() == "ready", "the next one has adopted the stages")
        assert cluster.node(1)["layers"] == "0-7"
        assert cluster.ask("nodes.undrain", node="n1")["changed"]
        cluster.ask("rebalance", nodes=["n2", "n1"], split=[5, 3])
        reference.check(CODE, Generation(cluster, CODE, 40).result().tokens)
    finally:
        cluster.close()
