"""Frames that are lost, or come twice, between real processes: every token comes once."""

from __future__ import annotations

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference

TOKENS = 160


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        ("drop", 1),
        pytest.param("drop", 0, marks=pytest.mark.soak),
        pytest.param("drop", 2, marks=pytest.mark.soak),
        ("double", 1),
        pytest.param("double", 0, marks=pytest.mark.soak),
        pytest.param("double", 2, marks=pytest.mark.soak),
    ],
)
def test_every_token_comes_once(
    cluster: Cluster, reference: Reference, fault: str, stage: int
) -> None:
    pids = cluster.stage_pids()
    both = [Generation(cluster, prompt, TOKENS) for prompt in (CODE, CLASS)]
    for one in both:
        one.wait_tokens(10)
    taken = cluster.mark(f"{fault}-{stage}")
    until(taken.exists, "a frame is sent on")
    for prompt, one in zip((CODE, CLASS), both, strict=True):
        reference.check(prompt, one.result().tokens)
        assert len(one.tokens) == TOKENS
    reissues = [one.reply["reissues"] for one in both]
    assert any(reissues) == (fault == "drop"), reissues
    assert cluster.stage_pids() == pids, "no process is at fault"
