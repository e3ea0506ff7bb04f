"""When layers move by themselves: soon where it is better, never for noise."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from daemon.cluster.autopilot import FIRST_PAUSE, LEAST_LOOKS, LONGEST_PAUSE, Autopilot, Layout
from daemon.cluster.events import Slot
from daemon.cluster.placement.problem import Hop, Host, Load, Network, Objective, Seat, totals
from daemon.cluster.placement.search import place
from daemon.cluster.split import ranges_of

LOOK = 30.0
LAYERS = 12
HERE, THERE = (Slot("a", ranges_of([8], 8)[0]),), (Slot("b", ranges_of([8], 8)[0]),)


class Nodes:
    """Three nodes with noise in what is measured of each; moves are done at once."""

    def __init__(self, speeds: tuple[float, ...], split: tuple[int, ...], seed: int) -> None:
        self.speeds, self.noise, self.random = speeds, 0.0, random.Random(seed)
        self.layout: Layout = tuple(
            Slot(str(k), layers) for k, layers in enumerate(ranges_of(split, LAYERS))
        )
        self.autopilot = Autopilot()
        self.now = 0.0
        self.moves: list[float] = []
        self.whys: list[str] = []
        self.network = Network((Hop(1e-4),) * 3, ((Hop(1e-4),) * 3,) * 3, (Hop(1e-4),) * 3)

    def look(self, objective: Objective) -> None:
        self.now += LOOK
        seen = [s * self.random.gauss(1.0, self.noise) for s in self.speeds]
        hosts = [Host(str(k), (s,) * LAYERS, s / 2, 1000) for k, s in enumerate(seen)]
        best = place(hosts, Load((1,) * LAYERS), self.network, objective)
        layout = tuple(Slot(str(seat.host), seat.layers) for seat in best.seats)

        def seconds(layout: Layout) -> float:
            seats = [
                Seat(
                    int(slot.node),
                    slot.layers,
                    seen[int(slot.node)] * (len(slot.layers) + (slot is layout[-1]) / 2),
                )
                for slot in layout
            ]
            whole, slowest = totals(seats, self.network)
            return whole if objective is Objective.LATENCY else slowest

        present = seconds(self.layout)
        found = self.autopilot.look(
            self.layout, layout, lambda other: present / seconds(other) - 1, lambda _: 5.0, self.now
        )
        self.autopilot.check_integrity()
        self.whys.append(found.why)
        if found.layout:
            self.moves.append(self.now)
            self.layout = found.layout
            self.autopilot.moved(self.now)

    def run(self, looks: int, noise: float, objective: Objective = Objective.THROUGHPUT) -> None:
        self.noise = noise
        for _ in range(looks):
            self.look(objective)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("noise", [0.05, 0.08])
def test_noise_alone_moves_nothing(noise: float, seed: int) -> None:
    nodes = Nodes((0.001,) * 3, (4, 4, 4), seed)
    nodes.run(1500, noise)
    assert nodes.moves == []
    assert any("another layout promises" in why for why in nodes.whys), "it was tempted"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.08])
def test_a_fifth_more_is_moved_to_once_and_soon(noise: float, seed: int) -> None:
    nodes = Nodes((0.001,) * 3, (4, 3, 5), seed)
    nodes.run(700, noise)
    assert len(nodes.moves) == 1, "5.5 layers become 4.5: 22 % more"
    assert nodes.moves[0] <= LOOK * (60 if noise else LEAST_LOOKS + 1)


def test_a_node_that_becomes_slow_loses_layers_and_gets_them_back() -> None:
    nodes = Nodes((0.001,) * 3, (4, 4, 4), 1)
    nodes.run(100, 0.03)
    nodes.speeds = (0.001, 0.002, 0.001)
    nodes.run(300, 0.03)
    assert [len(slot.layers) for slot in nodes.layout if slot.node == "1"] in ([2], [3], [1])
    assert len(nodes.moves) == 1
    nodes.speeds = (0.001,) * 3
    nodes.run(300, 0.03)
    assert len(nodes.moves) == 2


def test_a_node_that_swings_is_not_followed_for_ever() -> None:
    """Ten minutes slow, ten fast: each change is worth a move, and they become fewer."""
    nodes = Nodes((0.001,) * 3, (4, 4, 4), 1)
    for _ in range(72):  # a day
        nodes.speeds = (0.001, 0.003, 0.001)
        nodes.run(20, 0.02)
        nodes.speeds = (0.001,) * 3
        nodes.run(20, 0.02)
    assert 2 <= len(nodes.moves) <= 16
    assert nodes.moves[-1] - nodes.moves[-2] >= LONGEST_PAUSE / 2


def looks(autopilot: Autopilot, gain: float, cost: float = 1.0) -> Iterator[Layout | None]:
    now = 0.0
    while True:
        now += LOOK
        yield autopilot.look(HERE, THERE, lambda _: gain, lambda _: cost, now).layout


def test_a_gain_of_less_than_a_tenth_is_none() -> None:
    several = looks(Autopilot(), 0.099)
    assert [next(several) for _ in range(20)] == [None] * 20


def test_a_move_has_to_pay_for_itself() -> None:
    several = looks(Autopilot(), 0.2, cost=101.0)
    assert [next(several) for _ in range(20)] == [None] * 20, "100 s are saved in ten minutes"
    several = looks(Autopilot(), 0.2, cost=99.0)
    assert [next(several) for _ in range(7)] == [None] * 6 + [THERE]


def test_a_layout_that_changed_otherwise_is_looked_at_anew() -> None:
    autopilot = Autopilot()
    several = looks(autopilot, 0.5)
    assert [next(several) for _ in range(6)] == [None] * 6
    autopilot.look(THERE, THERE, lambda _: 0.0, lambda _: 1.0, 0.0)
    assert [next(several) for _ in range(7)] == [None] * 6 + [THERE]


def test_pauses_grow_while_moves_come_soon() -> None:
    autopilot, now = Autopilot(), 0.0
    pauses = []
    for _ in range(8):
        autopilot.moved(now)
        start = now
        while (
            "s more after the last move"
            in autopilot.look(HERE, HERE, lambda _: 0.0, lambda _: 1.0, now).why
        ):
            now += LOOK
        pauses.append(now - start)
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    autopilot.moved(now + 5 * LONGEST_PAUSE)
    late = now + 5 * LONGEST_PAUSE + FIRST_PAUSE
    assert "not moved" in autopilot.look(HERE, HERE, lambda _: 0.0, lambda _: 1.0, late).why
