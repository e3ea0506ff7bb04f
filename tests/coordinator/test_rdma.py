"""RDMA in the coordinator: what operators ask for, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.cluster.events import GroupLost, Slot
from daemon.cluster.paths import Paths
from daemon.cluster.rdma.events import Remember
from daemon.cluster.rules import Rules
from daemon.coordinator.answer import Answer, Refusal
from daemon.coordinator.arguments import BadArguments
from daemon.coordinator.process import Coordinator
from daemon.coordinator.rdma import RdmaGroups
from daemon.coordinator.rdma_memory import NOTHING, RdmaMemory
from daemon.coordinator.rdma_verbs import RdmaVerbs
from daemon.hop_path import HopPath
from daemon.layers import LayerRange

TERM = 7


@dataclass
class World:
    """A coordinator of two nodes, a and b, whose processes do what they are asked."""

    folder: Path
    backends: list[str] = field(default_factory=lambda: ["ring"])
    heard: list[msg.Message] = field(default_factory=list)
    sent: list[tuple[str, msg.Message]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    over: list[tuple[int, str]] = field(default_factory=list)
    running: dict[str, msg.RdmaStart] = field(default_factory=dict)
    ended: int = 0

    def __post_init__(self) -> None:
        names = ("a", "b")
        self.paths = Paths(Rules("c", "a", 512))
        members = {
            n: SimpleNamespace(name=n, node=SimpleNamespace(incarnation="s1")) for n in names
        }
        slots = tuple(Slot(n, LayerRange(i, i + 1)) for i, n in enumerate(names))
        self.paths.advance(TERM, 1, slots, 0.0)
        self.cluster = SimpleNamespace(
            term=TERM, slots=slots, members=members, paths=self.paths, group_over=self._over
        )
        self.config = SimpleNamespace(
            node=SimpleNamespace(state_dir=self.folder), rdma=SimpleNamespace(start_s=30.0)
        )
        self.idle = False
        of = cast(Coordinator, self)
        self.rdma = RdmaGroups(of)
        self.verbs = RdmaVerbs(of)
        self.clients = SimpleNamespace(rdma=self.verbs)

    # --- what the coordinator's parts call ---

    def _over(self, group: int, reason: str, why: str, now: float) -> list[Any]:
        self.over.append((group, reason))
        return []

    def do(self, actions: list[Any]) -> None:
        assert not actions

    def note(self, kind: str, node: str, text: str) -> None:
        self.notes.append(f"{kind}: {text}")

    def to_node(self, node: str, message: msg.Message) -> None:
        self.sent.append((node, message))
        match message:
            case msg.RdmaStart():
                self.running[node] = message
            case msg.RdmaStop():
                self.running.pop(node, None)
                self.ended = message.group

    def say(self, peer: bytes, message: msg.Message) -> bool:
        if isinstance(message, msg.RdmaProbe):
            _, node, incarnation, group = peer.decode().split(":")
            probed = (node, incarnation, int(group), message.probe, message.peer, 1e-4, 1e9, "")
            self._probed = msg.RdmaProbed(*probed)
            self.sent.append((node, message))
        elif isinstance(message, msg.Reply | msg.Failure | msg.Chunk):
            self.heard.append(message)
        return True

    # --- what tests do ---

    def offers(self) -> None:
        for node in "ab":
            run = self.running.get(node)
            group, rank, size = (run.group, run.rank, 2) if run else (0, 0, 0)
            told = (node, "s1", "boot", self.backends, f"{node}:7000", [], [], 3, "")
            why_not = "" if self.backends else "it has Thunderbolt 4"
            offer = msg.RdmaOffer(*told, group, "ring", rank, size, 9, self.ended, "asked", "-")
            self.rdma.hear(replace(offer, why_not=why_not))

    def joined(self) -> None:
        for node, run in list(self.running.items()):
            reach = [1 - run.rank]
            self.rdma.hear(msg.RdmaJoined(node, "s1", run.group, run.rank, reach, 9, 0.1))

    def all_well(self) -> None:
        """Until the hop uses RDMA."""
        self.rdma.tick()
        self.offers()
        self.joined()
        self.rdma.hear(self._probed)
        hop = self.paths.of("a")
        assert hop is not None
        assert hop.wish.path is HopPath.RDMA
        hop.path = HopPath.RDMA  # as its stage would say
        self.verbs.tick(0.0)

    def ask(self, verb: Callable[[Answer, dict[str, Any]], None], **arguments: Any) -> Any:
        self.heard.clear()
        verb(Answer(self.say, b"client", 1), arguments)
        return self.last()

    def last(self) -> Any:
        match self.heard[-1] if self.heard else None:
            case msg.Reply() as reply:
                return reply.data
            case msg.Failure() as failure:
                return failure.what
            case _:
                return None


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.rdma.tick()
    made.offers()
    return made


def test_who_enables_it_is_told_when_the_hops_have_it(world: World) -> None:
    assert world.ask(world.verbs.enable) is None
    assert world.last() is None
    world.all_well()
    told = world.last()
    assert (told["enabled"], told["settled"], told["dry_run"]) == (True, True, False)
    (hop,) = told["hops"]
    assert (hop["from"], hop["to"], hop["path"], hop["why"]) == ("a", "b", "rdma", None)
    assert hop["bytes_per_second"] == 1e9
    assert told["group"]["nodes"] == ["a", "b"]
    starts = [m for _, m in world.sent if isinstance(m, msg.RdmaStart)]
    assert {start.term for start in starts} == {TERM}


def test_whoever_tells_that_the_group_is_over_is_believed(world: World) -> None:
    world.ask(world.verbs.enable)
    world.all_well()
    world.rdma.lost(GroupLost(1, "gone", "its heartbeat says so"))
    assert world.rdma.policy.group is None
    assert not world.running
    assert world.rdma.hops()[0]["wished"] == "zmq"
    world.rdma.lost(GroupLost(1, "gone", "once more"))
    assert len(world.over) == 1


def test_a_raised_term_is_that_of_all_messages(world: World) -> None:
    world.cluster.term = TERM + 3
    world.ask(world.verbs.enable)
    starts = [m for _, m in world.sent if isinstance(m, msg.RdmaStart)]
    assert {start.term for start in starts} == {TERM + 3}


def test_who_enables_it_in_vain_is_told_why(world: World) -> None:
    world.backends = []
    world.offers()
    told = world.ask(world.verbs.enable)
    assert told["settled"]
    assert told["hops"][0]["path"] == "zmq"
    assert told["hops"][0]["why"] == "a: it has Thunderbolt 4"


def test_an_answer_comes_though_nothing_is_settled(world: World) -> None:
    world.ask(world.verbs.enable)
    world.verbs.tick(float("inf"))
    assert not world.last()["settled"]
    assert world.last()["hops"][0]["why"] == "the group is being started"


def test_a_dry_run_changes_nothing(world: World) -> None:
    told = world.ask(world.verbs.enable, dry_run=True)
    assert (told["enabled"], told["dry_run"]) == (False, True)
    assert not world.sent
    told = world.ask(world.verbs.test, a="a", b="b", dry_run=True)
    assert (told["backend"], told["why"]) == ("ring", "")
    assert not world.sent
    world.ask(world.verbs.enable)
    assert world.ask(world.verbs.disable, dry_run=True)["changed"]
    assert world.rdma.policy.enabled


def test_disable_is_answered_at_once_and_ends_who_waits(world: World) -> None:
    world.ask(world.verbs.enable)
    told = world.ask(world.verbs.disable)
    assert [type(message).__name__ for message in world.heard] == ["Failure", "Reply"]
    assert (told["changed"], told["enabled"]) == (True, False)
    assert not world.running
    assert world.over == [(1, "asked")]
    assert not world.ask(world.verbs.disable)["changed"]


def test_it_is_enabled_for_the_next_coordinator_too(world: World) -> None:
    world.ask(world.verbs.enable)
    assert World(world.folder).rdma.policy.enabled
    world.ask(world.verbs.disable)
    assert not World(world.folder).rdma.policy.enabled


def test_a_pair(world: World) -> None:
    assert world.ask(world.verbs.test, a="a", b="b") is None
    with pytest.raises(Refusal, match="one at a time"):
        world.ask(world.verbs.test, a="a", b="b")
    world.offers()
    world.joined()
    world.rdma.hear(world._probed)
    told = world.last()
    assert (told["a"], told["b"], told["why"]) == ("a", "b", "")
    assert told["round_trip_seconds"] == 1e-4
    assert not world.running
    assert not world.rdma.policy.enabled
    for wrong in ({"a": "a"}, {"a": "a", "b": "a"}, {"a": "a", "b": "z"}):
        with pytest.raises(BadArguments):
            world.ask(world.verbs.test, **wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"enabled": 1, "failures": 0, "quarantine": [], "why": ""}',
        '{"enabled": true, "failures": 9, "quarantine": [], "why": ""}',
        '{"enabled": true, "failures": 0, "quarantine": [{"a": ["b", []]}], "why": ""}',
        '{"enabled": true, "failures": 0, "quarantine": [{"a": 1, "b": 2}], "why": ""}',
    ],
)
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rdma.json"
    file.write_text(text)
    assert RdmaMemory(file).recall() == NOTHING


def test_what_failed_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "rdma.json"
    remember = Remember(True, 1, ({"a": ("b1", ("rdma_en2",)), "b": ("b2", ())},), "errno 22")
    assert RdmaMemory(file).keep(remember) == ""
    assert RdmaMemory(file).recall() == remember
    assert "cannot write" in RdmaMemory(tmp_path / "absent" / "x").keep(remember)
