"""SIGTERM: what runs ends well, then everything does; a second one does not wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import PATIENCE, Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference


@pytest.fixture
def fresh(tmp_path: Path, model_folder: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of this test's own."""
    started: list[Cluster] = []

    def start(*split: int) -> Cluster:
        started.append(Cluster(tmp_path / "c", split, {"embedded": model_folder}))
        return started[-1].start()

    yield start
    for cluster in started:
        cluster.close()


def end(cluster: Cluster, name: str, seconds: float = PATIENCE) -> int:
    return cluster.processes[name].wait(seconds)


def test_of_the_whole_cluster(fresh: Callable[..., Cluster], reference: Reference) -> None:
    cluster = fresh(4, 4)
    running = Generation(cluster, CODE, 150).wait_tokens(5)
    cluster.processes["n1"].send_signal(signal.SIGTERM)
    until(lambda: cluster.state() in ("draining", ""), "it drains")
    late = Generation(cluster, CODE, 5, steady=False).join()
    assert late.error is not None
    assert late.error.code in (4, 5), late.error.line()
    reference.check(CODE, running.result().tokens)
    assert len(running.tokens) == 150
    cluster.forget_client()
    assert end(cluster, "n1") == 0
    cluster.processes["n2"].send_signal(signal.SIGTERM)
    assert end(cluster, "n2") == 0
    assert cluster.family() == []


def test_of_a_node_that_only_computes(fresh: Callable[..., Cluster], reference: Reference) -> None:
    """Its layers move to the other one, while requests run and new ones are taken."""
    cluster = fresh(4, 4)
    running = Generation(cluster, CODE, 400).wait_tokens(5)
    cluster.processes["n2"].send_signal(signal.SIGTERM)
    assert end(cluster, "n2") == 0
    assert cluster.node(0)["layers"] == "0-7"
    late = Generation(cluster, CODE, 12)
    for generation, count in ((running, 400), (late, 12)):
        reference.check(CODE, generation.result().tokens)
        assert len(generation.tokens) == count
        assert generation.reply["reissues"] == 0
    assert cluster.state() == "ready"


def test_of_one_that_the_others_cannot_do_without(
    tmp_path: Path, model_folder: Path, reference: Reference
) -> None:
    """It leaves when its requests have ended. What is asked for meanwhile waits for its return."""
    small = {name: {"node": {"max_memory": "10MB", "kv_memory": "2MB"}} for name in ("n1", "n2")}
    cluster = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder}, changes=small)
    cluster.start()
    try:
        running = Generation(cluster, CODE, 150).wait_tokens(5)
        cluster.processes["n2"].send_signal(signal.SIGTERM)
        until(lambda: cluster.node(1)["state"] == "draining", "it drains")
        reference.check(CODE, running.result().tokens)
        assert len(running.tokens) == 150
        assert running.reply["reissues"] == 0
        assert end(cluster, "n2") == 0
        until(lambda: cluster.state() != "ready", "its absence is noticed")
        waiting = Generation(cluster, CODE, 12).wait_started()
        cluster.start_node("n2")
        reference.check(CODE, waiting.result().tokens)
    finally:
        cluster.close()


def test_a_second_signal_does_not_wait(fresh: Callable[..., Cluster]) -> None:
    cluster = fresh(4, 4)
    running = Generation(cluster, CODE, 3000, steady=False).wait_tokens(5)
    taken = cluster.mark("sleep-1", "1")
    until(taken.exists, "a stage is busy for long")
    for process in cluster.processes.values():
        process.send_signal(signal.SIGTERM)
    until(lambda: cluster.state() in ("draining", ""), "it drains")
    began = time.monotonic()
    for process in cluster.processes.values():
        process.send_signal(signal.SIGTERM)
    for name in cluster.names:
        end(cluster, name)
    assert time.monotonic() - began < 30.0  # a drain may take 60
    assert cluster.family() == []
    assert running.join().error is not None


@pytest.mark.soak
def test_when_idle_it_takes_no_time(fresh: Callable[..., Cluster]) -> None:
    cluster = fresh(8)
    for process in cluster.processes.values():
        process.send_signal(signal.SIGTERM)
    assert [end(cluster, name, 20.0) for name in cluster.names] == [0]
    assert cluster.family() == []
