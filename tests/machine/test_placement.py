"""Placement against every order of every subset of the nodes, and every split."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from math import inf

import pytest

from daemon.cluster.placement.in_order import place_in_order
from daemon.cluster.placement.problem import (
    BALANCED,
    Hop,
    Host,
    Load,
    Network,
    Objective,
    Placement,
    PlacementError,
    Seat,
    totals,
)
from daemon.cluster.placement.search import place
from daemon.layers import LayerRange

GIB = 1 << 30
FREE = Hop(0.0)


def every_way(hosts: list[Host], load: Load) -> Iterator[list[Seat]]:
    """All that memory and pins allow."""
    layers = len(load.layers)
    for count in range(1, min(len(hosts), layers) + 1):
        for order in permutations(range(len(hosts)), count):
            if any(host.pinned and k not in order for k, host in enumerate(hosts)):
                continue
            for cuts in combinations(range(1, layers), count - 1):
                ends = [0, *cuts, layers]
                ranges = [LayerRange(a, b) for a, b in pairwise(ends)]
                seats = [seat(hosts[k], k, r, layers) for k, r in zip(order, ranges, strict=True)]
                if all(fits(hosts[s.host], s.layers, load) for s in seats):
                    yield seats


def seat(host: Host, number: int, layers: LayerRange, total: int) -> Seat:
    seconds = sum(host.layer_seconds[layers.start : layers.end])
    return Seat(number, layers, seconds + (host.head_seconds if layers.end == total else 0.0))


def fits(host: Host, layers: LayerRange, load: Load) -> bool:
    needed = sum(load.layers[layers.start : layers.end])
    needed += load.first if layers.start == 0 else 0
    needed += load.last if layers.end == len(load.layers) else 0
    return needed <= host.memory_bytes and host.pinned in (None, layers)


def wanted(ways: list[list[Seat]], network: Network, objective: Objective) -> tuple[float, float]:
    """Sum and maximum of the best."""
    found = [totals(way, network) for way in ways]
    if objective is Objective.LATENCY:
        return min(found)
    bound = min(slowest for _, slowest in found)
    bound *= BALANCED if objective is Objective.BALANCED else 1.0
    return min(pair for pair in found if pair[1] <= bound * (1 + 1e-12))


def random_cluster(rng: random.Random) -> tuple[list[Host], Load, Network]:
    layers, count = rng.randint(1, 6), rng.randint(1, 4)
    load = Load(
        tuple(rng.randint(1, 4) for _ in range(layers)), rng.choice((0, 3)), rng.choice((0, 2, 5))
    )
    hosts = []
    for k in range(count):
        speed = rng.choice((1.0, 2.0, 5.0))
        host = Host(
            f"n{k}",
            tuple(speed * rng.choice((1.0, 1.0, 1.5)) for _ in range(layers)),
            speed * rng.choice((0.0, 0.5, 3.0)),
            rng.randint(4, 30),
        )
        hosts.append(host)
    if rng.random() < 0.25:
        start = rng.randrange(layers)
        pinned = LayerRange(start, rng.randint(start + 1, layers))
        hosts[0] = replace(hosts[0], pinned=pinned)

    def hop() -> Hop:
        seconds = rng.choice((0.0, 0.1, 1.0, 4.0))
        return Hop(seconds, seconds * rng.choice((0.0, 0.5, 1.0)))

    between = tuple(tuple(hop() for _ in hosts) for _ in hosts)
    return hosts, load, Network(tuple(hop() for _ in hosts), between, tuple(hop() for _ in hosts))


@pytest.mark.parametrize("objective", list(Objective))
def test_it_is_the_best_of_all_ways(objective: Objective) -> None:
    rng, placed, none = random.Random(objective), 0, 0
    for _ in range(1000):
        hosts, load, network = random_cluster(rng)
        ways = list(every_way(hosts, load))
        if not ways:
            with pytest.raises(PlacementError):
                place(hosts, load, network, objective)
            none += 1
            continue
        found = place(hosts, load, network, objective)
        assert list(found.seats) in ways
        assert (found.round_seconds, found.slowest_seconds) == totals(found.seats, network)
        best = wanted(ways, network, objective)
        assert found.round_seconds == pytest.approx(best[0])
        limit = best[1] if objective is Objective.THROUGHPUT else inf
        assert found.slowest_seconds <= limit * (1 + 1e-9)
        placed += 1
    assert min(placed, none) > 100


def test_in_a_given_order_it_is_the_best_of_all_ways() -> None:
    rng, placed, none = random.Random(7), 0, 0
    for _ in range(1000):
        hosts, load, _ = random_cluster(rng)
        hosts = [replace(host, pinned=None) for host in hosts]
        free = (FREE,) * len(hosts)
        network = Network(free, (free,) * len(hosts), free)
        ways = [w for w in every_way(hosts, load) if w == sorted(w, key=lambda seat: seat.host)]
        if not ways:
            with pytest.raises(PlacementError):
                place_in_order(hosts, load, network)
            none += 1
            continue
        found = place_in_order(hosts, load, network)
        assert list(found.seats) in ways
        assert (found.round_seconds, found.slowest_seconds) == pytest.approx(
            wanted(ways, network, Objective.THROUGHPUT)
        )
        placed += 1
    assert min(placed, none) > 50


def even(count: int, layers: int = 8, memory: int = 100) -> tuple[list[Host], Load, Network]:
    hosts = [Host(f"n{k}", (1.0,) * layers, 0.0, memory) for k in range(count)]
    free = (FREE,) * count
    return hosts, Load((1,) * layers), Network(free, (free,) * count, free)


def shares(placement: Placement, hosts: list[Host]) -> dict[str, int]:
    return {hosts[seat.host].name: len(seat.layers) for seat in placement.seats}


def test_throughput_shares_out_by_speed() -> None:
    hosts, load, network = even(2, 9)
    hosts[1] = replace(hosts[1], layer_seconds=(2.0,) * 9)
    assert shares(place(hosts, load, network, Objective.THROUGHPUT), hosts) == {"n0": 6, "n1": 3}


def test_latency_leaves_out_who_only_slows() -> None:
    hosts, load, network = even(2)
    hosts[1] = replace(hosts[1], layer_seconds=(2.0,) * 8)
    assert shares(place(hosts, load, network, Objective.LATENCY), hosts) == {"n0": 8}
    hosts[0] = replace(hosts[0], memory_bytes=5)
    assert shares(place(hosts, load, network, Objective.LATENCY), hosts) == {"n0": 5, "n1": 3}


def test_a_slow_cable_is_gone_round() -> None:
    hosts, load, _ = even(3, memory=3)
    bad = Hop(9.0, 9.0)
    between = ((FREE, bad, FREE), (FREE, FREE, bad), (bad, FREE, FREE))
    network = Network((FREE,) * 3, between, (FREE,) * 3)
    for objective in Objective:
        found = place(hosts, load, network, objective)
        order = [seat.host for seat in found.seats]
        assert order in ([0, 2, 1], [1, 0, 2], [2, 1, 0])


def test_the_head_counts() -> None:
    hosts, load, network = even(2, 8)
    hosts = [replace(host, head_seconds=2.0) for host in hosts]
    found = place(hosts, load, network, Objective.THROUGHPUT)
    assert [len(seat.layers) for seat in found.seats] == [5, 3]


def test_what_is_pinned_stays() -> None:
    hosts, load, network = even(3)
    hosts[2] = replace(hosts[2], pinned=LayerRange(0, 1), layer_seconds=(50.0,) * 8)
    found = place(hosts, load, network, Objective.LATENCY)
    assert found.seats[0] == Seat(2, LayerRange(0, 1), 50.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"memory_bytes": 3}, "take 8 bytes, the nodes have 6"),
        ({"pinned": LayerRange(0, 4)}, "n0 and n1 are pinned to the same layers: 0-3, 0-3"),
        ({"pinned": LayerRange(2, 9)}, "pinned to"),
    ],
)
def test_why_there_is_none(change: dict[str, object], why: str) -> None:
    hosts, load, network = even(2)
    hosts = [replace(host, **change) for host in hosts]  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match=why):
        place(hosts, load, network, Objective.LATENCY)


def test_no_node_and_too_many() -> None:
    for count in (0, 11):
        hosts, load, network = even(count)
        with pytest.raises(PlacementError):
            place(hosts, load, network, Objective.LATENCY)
