"""Which draft guesses, what it is asked, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.coordinator import drafting
from daemon.coordinator.drafting import Drafting
from daemon.coordinator.process import Coordinator
from daemon.scheduler import actions as sc

SEQUENCE = b"s" * 16
ASK = sc.Propose(SEQUENCE, 2, 77, (5, 6), 8, {"sampling": {}})


class Scheduler:
    """What it is told; each time it has something to be done."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def draft_ready(self, seconds: float | None, now: float) -> list[sc.Action]:
        return self._note("ready", seconds)

    def drafted(
        self, sequence: bytes, position: int, prefix_hash: int, tokens: tuple[int, ...], now: float
    ) -> list[sc.Action]:
        return self._note("drafted", sequence, position, prefix_hash, tokens)

    def lags(self, sequence: bytes, held: int, now: float) -> list[sc.Action]:
        return self._note("lags", sequence, held)

    def _note(self, *what: Any) -> list[sc.Action]:
        self.told.append(what)
        return [sc.Inquire()]


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(drafting, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.config = SimpleNamespace(timeouts=SimpleNamespace(dead_after_s=3.0))
        self.cluster = SimpleNamespace(term=7)
        self.scheduler = Scheduler()
        self.model: Any = None
        self.performed = 0
        self.said: list[tuple[bytes, msg.Message]] = []
        self.to_nodes: list[tuple[str, msg.Message]] = []
        self.notes: list[str] = []
        self.drafting = Drafting(cast(Coordinator, self))

    def serve(self, name: str | None, vocabulary: str = "v", size: int = 1024) -> None:
        self.model = name and SimpleNamespace(
            spec=SimpleNamespace(name=name, digest=f"digest of {name}"),
            info=SimpleNamespace(vocab_size=size),
            vocabulary=vocabulary,
        )
        self.drafting.tick(self.now)

    # --- what drafting calls ---

    def say(self, peer: bytes, message: msg.Message) -> bool:
        self.said.append((peer, message))
        return True

    def to_node(self, node: str, message: msg.Message) -> None:
        self.to_nodes.append((node, message))

    def note(self, kind: str, node: str, text: str) -> None:
        self.notes.append(text)

    def perform(self, actions: Iterable[sc.Action]) -> None:
        self.performed += len(list(actions))

    # --- what a draft says ---

    def hello(self, node: str = "a", life: str = "1", seconds: float | None = 0.002) -> None:
        who = (msg.PROTOCOL, "0", node, "n", life, 40 + int(life))
        self.drafting.hello(msg.DraftHello(*who, "small", "d", 1024, "v", seconds, 0))

    def hear(self, kind: Any, *values: Any, node: str = "a", life: str = "1") -> None:
        self.drafting.hear(kind(node, life, *values), b"peer")

    @property
    def told(self) -> list[Any]:
        told, self.scheduler.told = self.scheduler.told, []
        assert self.performed >= len(told)
        self.performed = 0
        return told

    @property
    def states(self) -> dict[str, str]:
        return {view["node"]: view["state"] for view in self.drafting.view()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_draft_is_used_when_it_has_loaded_and_a_model_is_served(world: World) -> None:
    world.hello(seconds=None)
    world.serve("big")
    assert (world.states, world.told) == ({"a": "loading"}, [])
    world.hello()
    assert (world.states, world.told) == ({"a": "ready"}, [("ready", 0.002)])
    assert world.drafting.view()[0]["tokens_per_second"] == 500.0
    world.drafting.propose(ASK)
    ask = msg.Propose(7, SEQUENCE, 2, 77, [5, 6], 8, {"sampling": {}})
    assert world.said == [(b"draft:a:1", ask)]
    world.hear(msg.Proposed, SEQUENCE, 4, 78, [9])
    world.hear(msg.DraftLags, SEQUENCE, 3)
    assert world.told == [("drafted", SEQUENCE, 4, 78, (9,)), ("lags", SEQUENCE, 3)]


def test_nobody_is_asked_where_there_is_no_draft(world: World) -> None:
    world.serve("big")
    world.drafting.propose(ASK)
    world.serve(None)
    assert (world.said, world.told) == ([], [])


def test_a_draft_that_was_there_before_the_model(world: World) -> None:
    world.hello()
    assert (world.told, world.states) == ([], {"a": "spare"})
    world.serve("big")
    assert world.told == [("ready", 0.002)]
    world.serve("other")  # what was guessed for the one means nothing for the other
    assert world.told == [("ready", 0.002)]
    world.serve(None)
    assert world.told == [("ready", None)]


@pytest.mark.parametrize(
    ("vocabulary", "size", "why"),
    [
        ("w", 1024, "draft not used: small has another tokenizer than big"),
        ("v", 2048, "draft not used: small has 1024 tokens, big 2048"),
        ("", 1024, "draft not used: small has another tokenizer than big"),
    ],
)
def test_a_draft_that_does_not_fit_is_said_so_once(
    world: World, vocabulary: str, size: int, why: str
) -> None:
    world.serve("big", vocabulary, size)
    world.hello()
    world.hear(msg.DraftBeat, 0.003, 0)
    world.drafting.tick(world.now)
    assert (world.notes, world.told, world.states) == ([why], [], {"a": "unused"})
    assert world.drafting.view()[0]["reason"] in why
    world.hear(msg.Proposed, SEQUENCE, 4, 78, [9])
    assert world.told == []
    world.serve("fitting")
    assert (world.told, world.states) == ([("ready", 0.003)], {"a": "ready"})


def test_a_draft_whose_process_ended(world: World) -> None:
    world.serve("big")
    world.hello()
    exited = msg.ChildExited("a", "n", "draft", 40, "signal", "signal SIGKILL", 1, 0.1)
    world.drafting.exited(exited)  # of the life before
    world.drafting.exited(msg.ChildExited("a", "n", "stage", 41, "exit", "exit code 1", 1, 0.1))
    assert world.told == [("ready", 0.002)]
    world.drafting.exited(msg.ChildExited("a", "n", "draft", 41, "exit", "exit code 1", 1, 0.1))
    assert (world.told, world.states) == ([("ready", None)], {})
    assert world.notes[-1] == "small: exit code 1"


def test_another_process_of_the_same_node(world: World) -> None:
    world.serve("big")
    world.hello()
    world.hello()  # it was asked who it is
    assert world.told == [("ready", 0.002)]
    world.hello(life="2", seconds=None)
    assert (world.told, world.states) == ([("ready", None)], {"a": "loading"})
    world.hear(msg.Proposed, SEQUENCE, 4, 78, [9])  # of the one before
    assert world.told == []
    assert world.said[-1] == (b"peer", msg.Identify(7))
    world.hear(msg.DraftBeat, 0.001, 0, life="2")  # its second hello is lost
    assert world.told == [("ready", 0.001)]


def test_a_silent_draft_is_forgotten_and_ended(world: World) -> None:
    world.serve("big")
    world.hello()
    world.now += 2.9
    world.hear(msg.DraftBeat, 0.002, 1)
    world.now += 2.9
    world.drafting.tick(world.now)
    assert world.told == [("ready", 0.002)]
    world.now += 0.2
    world.drafting.tick(world.now)
    assert (world.told, world.states) == ([("ready", None)], {})
    assert world.to_nodes == [("a", msg.KillStage(7, 41, "silent for 3.1 s"))]
    world.hear(msg.DraftBeat, 0.002, 1)  # it was only held up
    assert world.said == [(b"peer", msg.Identify(7))]


def test_one_that_warms_up_may_be_silent_for_longer(world: World) -> None:
    world.hello(seconds=None)
    world.now += 60.0
    world.drafting.tick(world.now)
    assert world.states == {"a": "loading"}
    world.now += drafting.LOADING_SECONDS
    world.drafting.tick(world.now)
    assert world.states == {}


def test_another_node_takes_over(world: World) -> None:
    world.serve("big")
    world.hello()
    world.hello("b", seconds=0.004)
    assert (world.told, world.states) == ([("ready", 0.002)], {"a": "ready", "b": "spare"})
    world.hear(msg.Proposed, SEQUENCE, 4, 78, [9], node="b")
    assert world.told == []
    world.drafting.exited(msg.ChildExited("a", "n", "draft", 41, "exit", "exit code 1", 1, 0.1))
    assert (world.told, world.states) == ([("ready", 0.004)], {"b": "ready"})
