"""kill -9 of one stage: it alone computes what it lost."""

from __future__ import annotations

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference

TOKENS = 200


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.soak), 1, 2])
def test_a_stage_that_is_killed_is_refilled(
    cluster: Cluster, reference: Reference, victim: int
) -> None:
    before = cluster.ask("pipeline")["refills"]
    both = [Generation(cluster, prompt, TOKENS) for prompt in (CODE, CLASS)]
    for running in both:
        running.wait_tokens(20)
    cluster.kill_stage(victim)
    for prompt, running in zip((CODE, CLASS), both, strict=True):
        reference.check(prompt, running.result().tokens)
        assert len(running.tokens) == TOKENS
    refills = cluster.ask("pipeline")["refills"]
    assert refills["begun"] - before["begun"] == 2
    assert refills["given up"] == before["given up"]
    assert refills["tokens"] - before["tokens"] >= 40
