"""Stages that do what a rebalance asks of them, at once or when they are told to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.layers import LayerRange
from tests.machine.world import RULES, World, beat, loaded

Range = tuple[int, int]


@dataclass
class Stage:
    """What it holds, has prepared, and was before it switched."""

    held: Range | None = None
    prepared: Range | None = None
    former: Range | None = None
    move: int = 0  # of term 1
    epoch: int = 0
    switch: msg.Switch | None = None
    passed: bool = False


class Moving(World):
    """Messages of these types are lost, as often as `lost` says; `left` is what a giver says is
    left of its KV. The barrier goes round when it is told to.
    """

    def __init__(self, *names: str) -> None:
        self.stages = {name: Stage() for name in names}
        self.lost: Counter[type[Any]] = Counter()
        self.left = 0
        super().__init__(*names)

    def start(self, **layers: Range) -> None:
        split = tuple(end - start for start, end in layers.values())
        self.want(split, tuple(layers))
        self.seen.clear()

    def rebalance(self, replay_seconds: float = 60.0, **layers: Range) -> None:
        slots = tuple(cl.Slot(name, LayerRange(*r)) for name, r in layers.items())
        self.step(cl.RebalanceWanted(slots, replay_seconds))

    def pass_barrier(self) -> None:
        for name, stage in self.stages.items():
            stage.passed = True
            self.try_switch(name)

    def barrier(self) -> None:
        """All the way round."""
        self.pass_barrier()
        for sent in [a for a in self.seen if isinstance(a, cl.SendBarrier)]:
            self.step(cl.BarrierReturned(sent.epoch))

    def pass_time(self, seconds: float, **changes: Any) -> None:
        """In steps in which nobody is taken for dead."""
        until = self.now + seconds
        while self.now < until:
            self.tick(min(until, self.now + 1.0), *[self.beat_of(n, **changes) for n in self.alive])

    @property
    def alive(self) -> list[str]:
        return [name for name in self.stages if name in self.incarnations]

    def beat_of(self, name: str, **changes: Any) -> msg.Heartbeat:
        stage = self.stages[name]
        start, end = stage.held or (0, 0)
        held = {"digest": "d1" if stage.held else "", "start": start, "end": end}
        move = {"move_term": 1, "move": stage.move, "epoch": stage.epoch}
        return beat(name, self.incarnations[name], **(held | move | changes))

    def lose(self, name: str) -> None:
        """Its process ends, and another begins."""
        self.stages[name] = Stage()
        self.step(msg.ChildExited(name, "n1", "stage", 20, "signal", "signal SIGKILL", 1, 0.1))

    def say(self, message: Any) -> None:
        if self.lost[type(message)]:
            self.lost[type(message)] -= 1
            return
        self.step(message)

    def hold(self, name: str, layers: Range) -> None:
        self.stages[name].held = layers
        self.say(loaded(name, msg.Load(1, "toy", "/models/toy", "d1", *layers)))

    def answer(self, name: str, message: msg.Message) -> None:
        stage = self.stages[name]
        if self.lost[type(message)]:
            self.lost[type(message)] -= 1
            return
        match message:
            case msg.Load():
                if stage.held != (message.start, message.end):
                    self.stages[name] = Stage(epoch=stage.epoch)
                self.hold(name, (message.start, message.end))
            case msg.Assign():
                layers = (message.start, message.end)
                if stage.held != layers and layers in (stage.former, stage.prepared):
                    self.hold(name, layers)
                if stage.held == layers:
                    stage.epoch = max(stage.epoch, message.epoch)
                    self.say(msg.Assigned(name, "s1", message.epoch))
            case msg.Prepare():
                stage.move, stage.prepared = message.move, (message.start, message.end)
                self.say(self.prepared(name))
            case msg.Give():
                stage.move = message.move
                self.say(msg.Giving(name, "s1", 1, message.move, 100, self.left, ""))
            case msg.Switch():
                stage.move, stage.switch = message.move, message
                self.try_switch(name)
            case msg.Settle():
                stage.prepared = stage.former = stage.switch = None
                stage.move = 0
            case msg.Unload():
                self.stages[name] = Stage()

    def prepared(self, name: str, why: str = "", term: int = 1) -> msg.Prepared:
        start, end = self.stages[name].prepared or (0, 1)
        where = (f"tcp://{name}:1", f"tcp://{name}:2")
        return msg.Prepared(
            name, "s1", term, self.stages[name].move, start, end, *where, 0.5, why, "-"
        )

    def try_switch(self, name: str) -> None:
        stage, asked = self.stages[name], self.stages[name].switch
        if asked is None or (asked.barrier and not stage.passed):
            return
        if stage.prepared:
            stage.former = stage.held if stage.held != stage.prepared else stage.former
            self.hold(name, stage.prepared)
        stage.epoch, stage.passed = asked.epoch, False
        self.say(msg.Assigned(name, "s1", asked.epoch))


def again(world: Moving) -> None:
    """Long enough for everything to be asked for once more."""
    world.pass_time(RULES.ask_again_after + 0.1)


HALVES: dict[str, Range] = {"a": (0, 4), "b": (4, 8)}
UP: dict[str, Range] = {"a": (0, 6), "b": (6, 8)}


def two() -> Moving:
    world = Moving("a", "b", "c")
    world.start(**HALVES)
    return world


def layout(world: Moving) -> dict[str, Range]:
    return {s.node: (s.layers.start, s.layers.end) for s in world.cluster.slots}


def held(world: Moving) -> dict[str, Range | None]:
    return {name: s.held for name, s in world.stages.items() if s.held}


def ended(world: Moving) -> cl.RebalanceEnded:
    (end,) = world.take(cl.RebalanceEnded)
    assert end == world.cluster.last_rebalance
    assert world.cluster.rebalance is None
    assert isinstance(end, cl.RebalanceEnded)
    return end


def settled(world: Moving) -> bool:
    """Nobody keeps anything for it."""
    return all(s.move == 0 and not s.prepared and not s.former for s in world.stages.values())
