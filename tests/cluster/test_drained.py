"""A node is drained and comes back; a coordinator that was restarted keeps the layout."""

from __future__ import annotations

import os
import signal

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference


def test_it_has_no_layers_until_it_is_undrained(two: Cluster, reference: Reference) -> None:
    running = Generation(two, CODE, 600).wait_tokens(5)
    drained = two.ask("nodes.drain", node="n1")
    assert [row["new"] for row in drained["nodes"] if row["node"] == "n1"] == [None]
    assert two.node(1)["layers"] == "0-7"
    until(lambda: two.node(0)["state"] == "drained", "it has let go of its layers")
    again = two.ask("rebalance", objective="throughput")
    assert not again["changed"]
    assert running.result().reply["reissues"] == 0
    reference.check(CODE, running.tokens)
    os.kill(two.coordinator_pid(), signal.SIGKILL)
    two.forget_client()
    until(lambda: two.state() == "ready", "the next one has adopted the stages")
    two.wait_nodes()  # the drained one's as well, which the pipeline does not need
    assert two.node(1)["layers"] == "0-7"
    assert two.ask("nodes.undrain", node="n1")["changed"]
    two.ask("rebalance", nodes=["n1", "n2"], split=two.split)
    assert two.node(0)["layers"] == "0-4"
    reference.check(CODE, Generation(two, CODE, 40).result().tokens)
