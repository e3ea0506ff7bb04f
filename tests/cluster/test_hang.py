"""A stage that hangs is found by what it does not do; one that is slow is left alone.

The victims differ from test to test: more than 8 ends in 120 s open a stage's breaker.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference

SLACK = 20.0  # seconds for a busy machine


def test_a_stopped_stage_is_silent(cluster: Cluster, reference: Reference) -> None:
    victim = 0
    running = Generation(cluster, CODE, 160).wait_tokens(10)
    stopped = cluster.kill_stage(victim, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: cluster.node(victim)["stage_pid"] != stopped, "it is found")
    assert time.monotonic() - began < 3.0 + SLACK
    reference.check(CODE, running.result().tokens)
    assert len(running.tokens) == 160
    assert running.reply["reissues"] <= 3
    assert "silent" in cluster.events("ended")[-1]["text"]


def test_a_spinning_stage_makes_no_progress(cluster: Cluster, reference: Reference) -> None:
    pids = cluster.stage_pids()
    running = Generation(cluster, CLASS, 160).wait_tokens(10)
    taken = cluster.mark("spin-2")
    until(taken.exists, "stage 2 spins")
    reference.check(CLASS, running.result().tokens)
    assert len(running.tokens) == 160
    assert running.reply["reissues"] <= 4
    assert "no progress" in cluster.events("ended")[-1]["text"]
    assert cluster.stage_pids()[2] != pids[2]


@pytest.mark.soak
def test_a_slow_stage_is_left_alone(cluster: Cluster, reference: Reference) -> None:
    """A prefill chunk takes 10 s on a stage that has measured itself to be as slow as that."""
    cluster.mark("slow-prefill", "0.7")
    cluster.kill_stage(1)
    cluster.wait_down_and_up()
    pids = cluster.stage_pids()
    taken = cluster.mark("sleep-1", "10")
    running = Generation(cluster, CODE, 24).wait_started()
    assert running.start["prompt_tokens"] >= 10
    reference.check(CODE, running.result().tokens)
    assert taken.exists()
    assert running.reply["ttft"] > 9.0
    assert cluster.stage_pids() == pids
    assert len(running.tokens) == 24
    assert running.reply["reissues"] == 0
    (cluster.marks / "slow-prefill").unlink()
    cluster.kill_stage(1)
    cluster.wait_down_and_up()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_stage_slower_than_anybody_foresaw_is_waited_for_in_the_end(
    cluster: Cluster, reference: Reference
) -> None:
    """It looks as if it hung, and is ended; but each further try is given more time."""
    drag = cluster.mark("drag-0", "10").with_suffix("")
    running = Generation(cluster, CODE, 24)
    running.join(240.0)
    drag.unlink()
    reference.check(CODE, running.result().tokens)
    assert len(running.tokens) == 24
    assert running.reply["reissues"] <= 6
