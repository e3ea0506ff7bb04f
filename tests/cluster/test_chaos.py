"""Requests without end while everything that can happen to a cluster happens, from a seed: every
request ends, every token is that of one process, and nothing is left at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.chaos import Chaos
from tests.cluster.harness import Cluster
from tests.cluster.reference import Reference


@pytest.fixture
def own(tmp_path: Path, model_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "c", (3, 3, 2), {"embedded": model_folder}).start()
    yield cluster
    cluster.close()


@pytest.mark.parametrize(
    ("seed", "harms"),
    [
        (1, 4),
        *(
            pytest.param(seed, 100, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])
            for seed in range(2, 6)
        ),
    ],
)
def test_every_request_ends_as_in_one_process(
    own: Cluster, reference: Reference, seed: int, harms: int
) -> None:
    chaos = Chaos(own, seed, reference)
    try:
        while chaos.harms.total() < harms:
            for _ in range(chaos.chance.randrange(1, 4)):
                chaos.ask()
            chaos.wait_some()
            chaos.harm()
            if len(chaos.running) > 8:
                chaos.settle()
        chaos.end()
    except BaseException:
        sys.stdout.write(own.logs())
        raise
    finally:
        sys.stdout.write(f"seed {seed}: {chaos.done} requests, {reference.ties} ties, ")
        sys.stdout.write(f"{chaos.moved} layouts, ")
        sys.stdout.write(f"{chaos.harms.total()} misfortunes: {dict(chaos.harms)}\n")
