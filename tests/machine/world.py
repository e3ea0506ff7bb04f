"""A cluster machine whose stages answer at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.machine import Cluster
from daemon.cluster.rules import Rules

MODEL = cl.ModelSpec("toy", "/models/toy", "d1", (10,) * 8, 5, 3)
RULES = Rules("home", "a", 512)


def node(name: str, incarnation: str = "n1") -> msg.NodeHello:
    return msg.NodeHello(1, "0", name, incarnation, 10, name, "Linux", "3.12", 2, 1 << 30, 0)


def stage(name: str, incarnation: str = "s1", pid: int = 20) -> msg.StageHello:
    return msg.StageHello(1, "0", name, "n1", incarnation, pid, "0", "0", "cpu", "blas", 0)


def loaded(name: str, load: msg.Load, incarnation: str = "s1") -> msg.Loaded:
    held = (load.digest, load.start, load.end, f"tcp://{name}:1")
    speed, memory = (
        ([[1.0, 0.01]], 0.001, 0.002, True, "spans"),
        (1 << 31, 1 << 30, [[0, 8, 0]], 64),
    )
    return msg.Loaded(name, incarnation, *held, 100, 9, 0.1, *speed, *memory, {"fp8": [1e-4, 1e-5]})


def beat(name: str, incarnation: str = "s1", **changes: Any) -> msg.Heartbeat:
    fields: dict[str, Any] = {
        "pid": 20, "clock": 0.0, "epoch": 1, "digest": "d1", "start": 0, "end": 1,
        "frames_received": 0, "frames_started": 0, "frames_finished": 0,
        "microbatch": 0, "busy_seconds": 0.0, "loading": False, "bytes_loaded": 0,
        "bytes_total": 0, "sequences": 0, "kv_bytes": 0, "move_term": 1, "move": 0,
        "resident_bytes": 0, "dropped": {}, "link": "up", "path": "zmq",
        "turn": 0,
    }  # fmt: skip
    return msg.Heartbeat(name, incarnation, **(fields | changes))


class World:
    """A cluster whose stages answer at once, unless told not to."""

    def __init__(self, *names: str) -> None:
        self.cluster = Cluster(RULES, term=1)
        self.now = 0.0
        self.seen: list[cl.Action] = []
        self.silent: set[str] = set()
        self.incarnations = dict.fromkeys(names, "s1")
        for name in names:
            self.step(node(name))
            self.step(stage(name))

    def step(self, event: cl.Event) -> list[cl.Action]:
        actions = self.cluster.step(event, self.now)
        self.cluster.check_integrity()
        self.seen += actions
        for action in actions:
            if isinstance(action, cl.ToStage) and action.node not in self.silent:
                self.answer(action.node, action.message)
        return actions

    def answer(self, name: str, message: msg.Message) -> None:
        incarnation = self.incarnations[name]
        if isinstance(message, msg.Load):
            self.step(loaded(name, message, incarnation))
        elif isinstance(message, msg.Assign):
            self.step(msg.Assigned(name, incarnation, message.epoch))

    def want(self, split: tuple[int, ...] = (), nodes: tuple[str, ...] = ()) -> None:
        self.step(cl.ModelWanted(MODEL, "tcp://a:9", nodes, split, at_once=True))

    def tick(self, now: float, *beats: msg.Heartbeat) -> None:
        """Time passes; every shardd and the stages of these heartbeats are alive."""
        self.now = now
        for one in beats:
            self.step(one)
        for name in self.incarnations:
            self.step(msg.NodeHeartbeat(name, "n1", 1, 20))
        self.step(cl.Tick())

    def take(self, kind: type[Any]) -> list[Any]:
        """Actions of this kind since the last take."""
        found = [a for a in self.seen if isinstance(a, kind)]
        self.seen = [a for a in self.seen if not isinstance(a, kind)]
        return found

    def messages(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        return (
            (a.node, a.message)
            for a in self.seen
            if isinstance(a, (cl.ToStage, cl.ToNode)) and isinstance(a.message, kind)
        )


def notes(actions: Iterable[cl.Action]) -> list[str]:
    return [a.kind for a in actions if isinstance(a, cl.Note)]
