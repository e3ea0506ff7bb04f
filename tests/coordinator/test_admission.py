"""Who may take part."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

from daemon import messages as msg
from daemon.cluster.member import Member
from daemon.coordinator.admission import Rivals, refusal

VERSION = metadata.version("shardbus")
NODE = msg.NodeHello(msg.PROTOCOL, VERSION, "a", "n1", 1, "h", "Linux", "3.12", 2, 1, 0)
STAGE = msg.StageHello(
    msg.PROTOCOL, VERSION, "a", "n1", "s1", 2, "0.32.4", "0.32.2", "cpu", "openblas", 0
)


def test_same_versions_are_welcome() -> None:
    assert refusal(NODE, []) is None
    assert refusal(STAGE, [Member("b", stage=replace(STAGE, node="b"))]) is None


def test_another_version_or_protocol_is_refused_by_name() -> None:
    for hello in (replace(NODE, version="9.9"), replace(STAGE, protocol=99)):
        refused = refusal(hello, [])
        assert refused is not None
        assert VERSION in refused.what
        assert "a runs" in refused.what


def test_another_mlx_is_refused_by_name() -> None:
    refused = refusal(STAGE, [Member("b", stage=replace(STAGE, node="b", mlx="0.33.0"))])
    assert refused is not None
    assert "0.33.0" in refused.what
    before = Member("a", stage=replace(STAGE, mlx="0.33.0"))
    assert refusal(STAGE, [before]) is None, "it is not compared with its own past"


def test_a_second_node_of_one_name_waits_and_is_then_refused() -> None:
    rivals = Rivals(patience=3.0)
    first = Member("a", node=NODE, node_at=100.0)
    second = replace(NODE, incarnation="n2")
    assert not rivals.must_wait(NODE, first, 100.0)
    assert rivals.must_wait(second, first, 101.0)
    assert rivals.refusal(second, 101.0) is None
    first.node_at = 110.0
    assert rivals.must_wait(second, first, 110.5)
    refused = rivals.refusal(second, 110.5)
    assert refused is not None
    assert "node.name" in refused.todo


def test_a_node_that_was_restarted_gets_in_when_the_old_one_is_silent() -> None:
    rivals = Rivals(patience=3.0)
    old = Member("a", node=NODE, node_at=100.0)
    assert rivals.must_wait(replace(NODE, incarnation="n2"), old, 101.0)
    assert not rivals.must_wait(replace(NODE, incarnation="n2"), old, 103.5)
