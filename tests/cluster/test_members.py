"""Clusters of any size, and nodes that join, vanish and come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference


@pytest.mark.parametrize(
    "split",
    [
        pytest.param((4, 4), marks=pytest.mark.soak),
        pytest.param((2, 2, 2, 1, 1), marks=pytest.mark.soak),
        pytest.param((1,) * 8, marks=pytest.mark.soak),
    ],
    ids=len,
)
def test_any_number_of_nodes(
    tmp_path: Path, model_folder: Path, reference: Reference, split: tuple[int, ...]
) -> None:
    cluster = Cluster(tmp_path / "c", split, {"embedded": model_folder})
    cluster.start()
    try:
        reference.check(CODE, Generation(cluster, CODE, 24).result().tokens)
    finally:
        cluster.close()


def test_one_node_another_that_joins_and_one_that_is_away(
    tmp_path: Path, model_folder: Path, reference: Reference
) -> None:
    own = {"n1": {"timeouts": {"dead_after_s": 1, "drain_s": 60}}}
    cluster = Cluster(tmp_path / "c", (8,), {"embedded": model_folder}, changes=own)
    cluster.start()
    try:
        reference.check(CODE, Generation(cluster, CODE, 24).result().tokens)
        cluster.names.append("n2")
        cluster.start_node("n2")
        until(lambda: len(cluster.nodes()) == 2 and cluster.node(1)["state"] == "idle", "it joins")
        assert cluster.node(1)["role"] == "spare"
        assert cluster.state() == "ready"

        stages, joined = cluster.stage_pids(), len(cluster.events("joined"))
        shardd = cluster.processes["n2"].pid
        os.kill(shardd, signal.SIGSTOP)
        until(lambda: cluster.events("node-lost"), "its silence is noticed")
        os.kill(shardd, signal.SIGCONT)
        until(lambda: len(cluster.events("joined")) > joined, "it is back")
        assert cluster.stage_pids() == stages
        assert cluster.node(1)["state"] == "idle"
        reference.check(CODE, Generation(cluster, CODE, 24).result().tokens)
    finally:
        cluster.close()
