"""The ports of real nodes, on a system that has none."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.shardctl import shardctl


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has ports, and verdicts of its own")
def test_they_are_told_without_rdma_and_without_root(cluster: Cluster) -> None:
    data = cluster.ask("rdma.status")
    assert [node["node"] for node in data["nodes"]] == list(cluster.names)
    assert {node["verdict"] for node in data["nodes"]} == {"unsupported-os"}
    assert all("macOS only" in node["reason"] for node in data["nodes"])
    assert len({node["boot"] for node in data["nodes"]}) == 1
    assert data["silent"] == []
    done = shardctl(cluster, "rdma", "status")
    assert done.returncode == 0
    assert all(name in done.stdout.decode() for name in cluster.names)


def test_a_report_names_no_boot_and_no_address(cluster: Cluster) -> None:
    boot = cluster.ask("rdma.status")["nodes"][0]["boot"]
    document = cluster.ask("rdma.report")
    assert set(document["machines"]) == set(cluster.names)
    assert boot
    assert boot not in str(document)
