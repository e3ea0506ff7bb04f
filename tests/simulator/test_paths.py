"""Hops that go from path to path, and paths that end, in the middle of everything: any history
gives the tokens of a single process.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulator.cluster import ClusterLayouts
from tests.simulator.faults import PATHS, TROUBLED_PATHS, TURNING_MOVES, TURNS, Rates
from tests.simulator.test_histories import named, some
from tests.simulator.world import World


def run(seeds: range, rates: Rates, guessing: bool = False, wire: bool = False) -> Counter[str]:
    """What happened, all histories together."""
    happened: Counter[str] = Counter()
    for seed in seeds:
        with named(seed):
            kinds = {"guessing": guessing, "wire": wire}
            world = World(seed, rates, 1 + seed % 7, 2 + seed % 3, layouts=ClusterLayouts, **kinds)
            world.run()
            layouts = world.layouts
            assert isinstance(layouts, ClusterLayouts)
            if not world.faults:
                if world.memory.reach is None:  # else a fork may come too late, as ever
                    assert not world.scheduler.reissues.total(), "a planned turn loses something"
                assert not world.again or world.scheduler.residency.counts["preemptions"]
        happened += world.scheduler.reissues
        happened += layouts.rdma.counts
        happened["held"] += sum(node.receiving.holds for node in layouts.nodes.values())
        happened["moved"] += sum(not end.why for end in layouts.ended)
    return happened


@some(0, 20, 40)
@pytest.mark.parametrize("guessing", [False, True])
def test_planned_turns_lose_and_reorder_nothing(guessing: bool, seeds: range) -> None:
    happened = run(seeds, TURNS, guessing)
    assert min(happened["to rdma"], happened["to zmq"]) > 7.5 * len(seeds)
    assert happened["held"] > 2.5 * len(seeds)


def test_hops_turn_while_layers_move() -> None:
    happened = run(range(15), TURNING_MOVES)
    assert min(happened["to rdma"], happened["moved"]) > 30


@some(0, 20, 40)
@pytest.mark.parametrize("guessing", [False, True])
def test_paths_that_end_lose_and_double_no_token(guessing: bool, seeds: range) -> None:
    happened = run(seeds, PATHS, guessing)
    assert happened["path"] > 1.5 * len(seeds)
    assert happened["lost by rdma"] > len(seeds) * 3 // 8


@some(0, 15, 30)
@pytest.mark.parametrize("guessing", [False, True])
def test_paths_that_end_among_all_other_faults(guessing: bool, seeds: range) -> None:
    happened = run(seeds, TROUBLED_PATHS, guessing, wire=guessing)
    assert min(happened["path"], happened["moved"]) > 2 * len(seeds) // 3


@pytest.mark.soak
@pytest.mark.parametrize("rates", [TURNS, TURNING_MOVES, PATHS, TROUBLED_PATHS])
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_histories_with_two_paths(rates: Rates, block: int) -> None:
    run(range(1000 + 100 * block, 1100 + 100 * block), rates, guessing=bool(block % 2))
