"""From measurements and wishes to what placement is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.cluster.events import ModelSpec
from daemon.cluster.placement.estimate import (
    ASSUMED_SECONDS,
    COORDINATOR,
    Measured,
    hosts_of,
    left_out,
    load_of,
    network_of,
)
from daemon.cluster.placement.problem import Hop, Host, Objective, PlacementError
from daemon.cluster.placement.search import place
from daemon.cluster.placement.wishes import Wishes
from daemon.cluster.split import SplitError
from daemon.layers import LayerRange

NAMES = ("a", "b", "c")
MODEL = ModelSpec("m", "/m", "d", (100, 100, 200), 50, 30)
HOSTS = tuple(Host(name, (1.0, 1.0, 2.0), 0.5, 1000) for name in NAMES)


def test_the_head_where_it_was_not_measured() -> None:
    measured = [
        Measured("a", (1.0, 1.0, 2.0), 0.8, 9),
        Measured("b", (2.0, 2.0, 4.0), None, 9),
    ]
    measured.append(Measured("c", (1.0, 1.0, 2.0), 0.4, 9))
    heads = [host.head_seconds for host in hosts_of(measured, MODEL)]
    assert heads == [0.8, pytest.approx(8.0 * 0.15), 0.4]
    alone = hosts_of(measured[1:2], MODEL)
    assert alone[0].head_seconds == pytest.approx(8.0 * 50 / 400), "as its bytes do"


def test_memory_is_that_of_weights_and_kv() -> None:
    load = load_of(MODEL, 20)
    assert (load.layers, load.first, load.last) == ((120, 120, 220), 30, 50)


def test_links_that_nobody_uses_are_like_those_in_use() -> None:
    known = {(COORDINATOR, "a"): Hop(0.1), ("a", "b"): Hop(0.3, 0.2), ("b", COORDINATOR): Hop(0.2)}
    network, assumed = network_of(["a", "b"], known)
    assert network.entry == (Hop(0.1), Hop(0.2, 0.0))
    assert network.between == ((Hop(0.0), Hop(0.3, 0.2)), (Hop(0.2, 0.0), Hop(0.0)))
    assert network.exit == (Hop(0.2, 0.0), Hop(0.2))
    assert assumed == 3
    nothing, assumed = network_of(["a"], {})
    assert (nothing.entry, assumed) == ((Hop(ASSUMED_SECONDS),), 2)


def test_who_is_left_out_and_why() -> None:
    hosts = (HOSTS[0], replace(HOSTS[1], layer_seconds=(9.0, 9.0, 9.0)), HOSTS[2])
    hosts = (*hosts[:2], replace(hosts[2], memory_bytes=1))
    load, (network, _) = load_of(MODEL, 20), network_of(["a", "b", "c"], {})
    best = place(hosts, load, network, Objective.LATENCY)
    why = left_out(hosts, load, network, Objective.LATENCY, best)
    assert why.keys() == {"b", "c"}
    assert why["b"] == "with it a token would take 1.15e+04 ms instead of 4501"
    assert "too small" in why["c"]


def test_wishes_win() -> None:
    wishes = Wishes(pins={"b": LayerRange(0, 1)}, memory={"c": 7}, exclude=frozenset("a"))
    b, c = wishes.apply(HOSTS, NAMES)
    assert (b.name, b.pinned, b.memory_bytes) == ("b", LayerRange(0, 1), 1000)
    assert (c.name, c.pinned, c.memory_bytes) == ("c", None, 7)


def test_a_split_is_over_the_nodes_as_they_stand_also_those_that_are_not_known_enough() -> None:
    with pytest.raises(PlacementError, match="the split has layers for b"):
        Wishes(split=(1, 2)).apply((HOSTS[0], HOSTS[2]), NAMES)
    c, b = Wishes(split=(1, 2)).apply(HOSTS[1:][::-1], ("c", "b", "a"))
    assert (c.name, c.pinned, b.pinned) == ("c", LayerRange(0, 1), LayerRange(1, 3))


def test_a_split_leaves_nothing_open() -> None:
    a, b = Wishes(split=(1, 2)).apply(HOSTS, NAMES)
    assert (a.pinned, b.pinned) == (LayerRange(0, 1), LayerRange(1, 3))
    with pytest.raises(SplitError):
        Wishes(split=(1, 1)).apply(HOSTS, NAMES)


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        (Wishes(pins={"x": LayerRange(0, 1)}), "no node x"),
        (Wishes(memory={"x": 1}), "no node x"),
        (Wishes(exclude=frozenset("x")), "no node x; known are a, b, c"),
        (Wishes(pins={"a": LayerRange(0, 1)}, exclude=frozenset("a")), "both pinned and excluded"),
        (Wishes(split=(3,), pins={"a": LayerRange(0, 1)}), "a split says all"),
        (Wishes(split=(1, 1, 1), exclude=frozenset("a")), "3 stages, but 2 nodes"),
    ],
)
def test_wishes_that_contradict(wishes: Wishes, why: str) -> None:
    with pytest.raises(PlacementError, match=why):
        wishes.apply(HOSTS, NAMES)
