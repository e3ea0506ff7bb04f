"""kill -9 at any moment: clients see a pause, then exactly the tokens they would have seen."""

from __future__ import annotations

import psutil
import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE, LONG
from tests.cluster.reference import Reference

TOKENS = 160


@pytest.mark.parametrize(
    "victim", [pytest.param(0, marks=pytest.mark.soak), 1, pytest.param(2, marks=pytest.mark.soak)]
)
def test_a_stage_in_the_middle_of_a_generation(
    cluster: Cluster, reference: Reference, victim: int
) -> None:
    before = cluster.stage_pids()
    running = Generation(cluster, CODE, TOKENS).wait_tokens(10)
    cluster.kill_stage(victim)
    assert len(running.result().tokens) == TOKENS
    reference.check(CODE, running.tokens)
    assert 1 <= running.reply["reissues"] <= 2
    assert any(cluster.names[victim] in why for why in running.waited)
    after = cluster.stage_pids()
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        index != victim for index in range(3)
    ]
    assert "SIGKILL" in cluster.events("exited")[-1]["text"]


@pytest.mark.soak
def test_twice_in_a_row_with_two_requests(cluster: Cluster, reference: Reference) -> None:
    both = [Generation(cluster, prompt, TOKENS) for prompt in (CODE, CLASS)]
    for victim in (1, 2):
        so_far = [len(running.tokens) for running in both]
        for running, had in zip(both, so_far, strict=True):
            running.wait_tokens(had + 5)
        cluster.kill_stage(victim)
        cluster.wait_down_and_up()
    for prompt, running in zip((CODE, CLASS), both, strict=True):
        reference.check(prompt, running.result().tokens)
        assert len(running.tokens) == TOKENS
        assert running.reply["reissues"] <= 4


def test_during_prefill(cluster: Cluster, reference: Reference) -> None:
    taken = cluster.mark("sleep-0", "16")
    running = Generation(cluster, LONG, 24)
    until(taken.exists, "the prompt reaches stage 0")
    cluster.kill_stage(0)
    reference.check(LONG, running.result().tokens)
    assert len(running.tokens) == 24


@pytest.mark.soak
def test_while_it_loads(cluster: Cluster, reference: Reference) -> None:
    cluster.mark("hold-load")
    running = Generation(cluster, CLASS, TOKENS).wait_tokens(10)
    cluster.kill_stage(1)
    until(lambda: cluster.node(1)["state"] == "loading", "stage 1 loads again")
    killed = cluster.kill_stage(1)
    until(lambda: cluster.node(1)["stage_pid"] not in (None, killed), "a third process")
    until(lambda: cluster.node(1)["state"] == "loading", "it loads")
    (cluster.marks / "hold-load").unlink()
    reference.check(CLASS, running.result().tokens)
    assert len(running.tokens) == TOKENS


def test_a_shardd_takes_its_children_along(cluster: Cluster, reference: Reference) -> None:
    running = Generation(cluster, CODE, TOKENS).wait_tokens(5)
    shardd = psutil.Process(cluster.processes["n3"].pid)
    children = shardd.children(recursive=True)
    assert children
    shardd.kill()
    until(lambda: not any(c.is_running() for c in children), "its children end")
    cluster.processes["n3"].wait()
    cluster.start_node("n3")
    reference.check(CODE, running.result().tokens)
    assert len(running.tokens) == TOKENS
