"""What layouts promise, and which of several good ones is proposed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.placement.estimate import ASSUMED_SECONDS, Measured
from daemon.cluster.placement.problem import Objective
from daemon.cluster.placement.wishes import Wishes
from daemon.coordinator.proposal import Known, Promise, propose, propose_change
from daemon.layers import LayerRange

MODEL = ModelSpec("m", "/m", "d", (10,) * 8, 10, 10)
NAMES = ("a", "b", "c")


def known(*speeds: float, head: float = 0.01) -> Known:
    measured = tuple(
        Measured(name, (speed,) * 8, head, 1000) for name, speed in zip(NAMES, speeds, strict=False)
    )
    return Known(MODEL, 16, 1, NAMES[: len(speeds)], measured, {})


def slots(**layers: tuple[int, int]) -> tuple[Slot, ...]:
    return tuple(Slot(node, LayerRange(*ends)) for node, ends in layers.items())


def test_a_layout_promises_what_its_stages_and_hops_take() -> None:
    promise = known(0.01, 0.02).promise(slots(b=(0, 3), a=(3, 8)))
    assert promise
    assert promise.slowest_seconds == pytest.approx(0.06)
    assert promise.round_seconds == pytest.approx(0.06 + 0.06 + 3 * ASSUMED_SECONDS)
    assert known(0.01).promise(slots(a=(0, 4), b=(4, 8))) is None, "b was not measured"
    assert known(0.01).promise(()) is None


def test_it_promises_the_same_as_the_proposal_itself() -> None:
    found = propose(known(0.01, 0.02, 0.03), Wishes(Objective.BALANCED))
    promise = found.known.promise(found.slots)
    assert promise
    assert promise.round_seconds == pytest.approx(found.promise.round_seconds)
    assert promise.slowest_seconds == pytest.approx(found.promise.slowest_seconds)


def test_what_an_objective_wants_little_of() -> None:
    promise = Promise(0.09, 0.04)
    wanted = {objective: promise.seconds(objective) for objective in Objective}
    assert wanted[Objective.LATENCY] == 0.09
    assert wanted[Objective.THROUGHPUT] == 0.04
    assert wanted[Objective.BALANCED] == pytest.approx(0.06)


def test_nodes_keep_their_order_where_that_gives_as_much() -> None:
    wishes = Wishes(Objective.THROUGHPUT)
    alike, present = known(0.01, 0.01, 0.01), slots(c=(0, 2), b=(2, 4), a=(4, 8))
    assert [slot.node for slot in propose(alike, wishes).slots] == ["a", "b", "c"]
    assert [slot.node for slot in propose_change(alike, wishes, present).slots] == ["c", "b", "a"]


def test_and_lose_it_where_another_gives_more() -> None:
    wishes = Wishes(Objective.THROUGHPUT)
    heads = known(0.01, 0.01)
    slow = replace(heads.measured[0], head_seconds=0.05)
    heads = replace(heads, measured=(slow, heads.measured[1]))
    found = propose_change(heads, wishes, slots(b=(0, 4), a=(4, 8)))
    assert [slot.node for slot in found.slots] == ["a", "b"], "the head is slow on a"


def test_a_split_says_the_order_itself() -> None:
    split = propose_change(known(0.01, 0.01), Wishes(split=(5, 3)), slots(b=(0, 4), a=(4, 8)))
    assert split.slots == slots(a=(0, 5), b=(5, 8))
