"""The verb `plan` between its clients and stages that answer when the test says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.member import Member
from daemon.coordinator.models import ServedModel
from daemon.layers import LayerRange
from tests.coordinator.stand_in import StandIn
from tests.machine.world import stage
from transports.frame import StageTrace

DIGEST = "digest of toy"


class Cluster(StandIn):
    """Idle nodes a, b and c, of which nothing is known; a is the coordinator's."""

    def __init__(self, state_dir: Path, nodes: tuple[str, ...] = ()) -> None:
        super().__init__(state_dir)
        members = {name: Member(name, stage=stage(name)) for name in "cab"}
        self.cluster = SimpleNamespace(
            slots=(), members=members, up=False, term=1,
            rules=SimpleNamespace(local_node="a"), slot_of=lambda name: None,
        )  # fmt: skip
        self.config.coordinator.nodes = nodes
        self.asked: list[tuple[str, msg.Profile]] = []
        info = SimpleNamespace(
            kv_bytes_per_token_per_layer=1, context_length=8,
        )  # fmt: skip
        spec = ModelSpec("toy", "/toy", DIGEST, (10,) * 6, 5, 5)
        self.model = ServedModel(cast(Any, spec), cast(Any, info), cast(Any, None))

    def context_of(self, model: ServedModel) -> int:
        return 8

    def to_stage(self, node: str, message: msg.Message) -> None:
        assert isinstance(message, msg.Profile)
        self.asked.append((node, message))

    def profiled(self, node: str, asked: msg.Profile) -> None:
        told = msg.Profiled(asked.query, node, DIGEST, 1, 3, 0.2, 0.01, 0.1, 1000, "")
        self.clients.planning.profiled(told)
        self.desk.run()

    def replies(self) -> list[Any]:
        return [heard.data for heard in self.heard if isinstance(heard, msg.Reply)]


@pytest.mark.parametrize("nodes", [(), ("c", "b")])
def test_a_split_is_over_the_nodes_that_a_load_would_take(
    tmp_path: Path, nodes: tuple[str, ...]
) -> None:
    of = Cluster(tmp_path, nodes)
    of.request("plan", split=[4, 2])
    for asked in of.asked:
        of.profiled(*asked)
    (plan,) = of.replies()
    assert [(s["node"], s["layers"]) for s in plan["stages"]] == list(
        zip(nodes or ("a", "b"), ("0-3", "4-5"), strict=True)
    )


def test_what_one_plan_has_measured_serves_those_that_came_meanwhile(tmp_path: Path) -> None:
    of = Cluster(tmp_path)
    for _ in range(3):
        of.clients.planning.plan(of.answer(), {})
    assert [node for node, _ in of.asked] == ["a", "b", "c"], "once"
    for asked in list(of.asked):
        of.profiled(*asked)
    assert len(of.asked) == 3
    assert len(of.replies()) == 3


def test_one_that_does_not_answer_is_asked_again_for_the_next_plan(tmp_path: Path) -> None:
    of = Cluster(tmp_path)
    for _ in range(2):
        of.clients.planning.plan(of.answer(), {})
    for asked in of.asked[:2]:
        of.profiled(*asked)
    of.clients.planning.tick(float("inf"))
    of.desk.run()
    (plan,) = of.replies()
    assert plan["left_out"][-1] == {"node": "c", "why": "it did not answer within 60 s"}
    assert [node for node, _ in of.asked[3:]] == ["c"]
    of.profiled(*of.asked[3])
    assert len(of.replies()) == 2


@pytest.mark.parametrize(("up", "assumed"), [(True, 10), (False, 12)])
def test_links_of_a_layout_that_is_gone_say_nothing_of_the_next(
    tmp_path: Path, up: bool, assumed: int
) -> None:
    of = Cluster(tmp_path)
    of.scheduler.stats.observe([StageTrace(0, 0.1, 0.1, 0.2, 0.2)], 0.0, 0.3)
    of.cluster.up, of.cluster.slots = up, (Slot("b", LayerRange(0, 6)),)
    of.request("plan")
    for asked in of.asked:
        of.profiled(*asked)
    assert of.replies()[0]["hops_assumed"] == assumed
