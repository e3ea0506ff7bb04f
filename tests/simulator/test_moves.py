"""Layouts that change while requests run, as the cluster machine makes them: any history gives the
tokens of a single process.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.simulator.cluster import ClusterLayouts
from tests.simulator.faults import MOVES, TROUBLED_MOVES, Rates
from tests.simulator.test_histories import named
from tests.simulator.world import World


def run(seeds: range, rates: Rates, guessing: bool = False) -> Counter[str]:
    """How rebalances ended, all histories together."""
    happened: Counter[str] = Counter()
    for seed in seeds:
        with named(seed):
            world = World(
                seed, rates, 1 + seed % 7, 1 + seed % 3, guessing=guessing, layouts=ClusterLayouts
            )
            world.run()
            layouts = world.layouts
            assert isinstance(layouts, ClusterLayouts)
            if not world.faults:
                assert layouts.downs == ["the coordinator's term was raised"], "at its end"
                if world.memory.reach is None:  # else a fork may come too late, as ever
                    assert not world.scheduler.reissues.total()
                if not world.scheduler.residency.counts["preemptions"]:
                    assert not world.again, "computed twice"
        for end in layouts.ended:
            happened["given up" if end.why else "replayed" if end.replayed else "moved"] += 1
        happened["bytes"] += sum(end.copied_bytes for end in layouts.ended)
    return happened


@pytest.mark.parametrize("guessing", [False, True])
def test_a_calm_rebalance_computes_nothing_twice(guessing: bool) -> None:
    happened = run(range(15), MOVES, guessing)
    assert happened["moved"] > 60
    assert happened["bytes"] > 1000
    assert not happened["given up"]


@pytest.mark.parametrize("guessing", [False, True])
def test_rebalances_among_faults_lose_and_double_no_token(guessing: bool) -> None:
    happened = run(range(25), TROUBLED_MOVES, guessing)
    assert min(happened[kind] for kind in ("moved", "given up", "replayed")) > 5


@pytest.mark.soak
@pytest.mark.parametrize("rates", [MOVES, TROUBLED_MOVES], ids=["calm", "troubled"])
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_rebalances(rates: Rates, block: int) -> None:
    seeds = range(1000 + 100 * block, 1100 + 100 * block)
    happened = run(seeds, rates, guessing=bool(block % 2))
    counts = ", ".join(f"{happened[kind]} {kind}" for kind in ("moved", "replayed", "given up"))
    sys.stdout.write(f"sum of {len(seeds)} simulated histories: {counts}\n")
