"""A node of the simulated cluster: one stage process after another, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.hop_path import HopPath
from daemon.layers import LayerRange
from daemon.stage.fence import Fence
from tests.simulator.copying import Giving, Last, Piece, Taker, Taking, become
from tests.simulator.model import LAYERS
from tests.simulator.paths import Receiving, Sending
from tests.simulator.stage import SimulatedStage
from transports.frame import Frame

if TYPE_CHECKING:
    from tests.simulator.cluster import ClusterLayouts
    from tests.simulator.world import World

DIGEST = "d"
NOTHING = (0, 0)


class Node:
    """`stage` is what it computes with, or computed with before its process ended; None before it
    was given any layers. `life` counts its processes.
    """

    def __init__(self, name: str, world: World, layouts: ClusterLayouts) -> None:
        self.name = name
        self.life = 0
        self.alive = self.hung = False
        self.stage: SimulatedStage | None = None
        self._world = world
        self._layouts = layouts
        self.begin()

    def begin(self) -> None:
        """Another process."""
        self.life += 1
        self.alive, self.hung, self.stage = True, False, None
        self.fence = Fence()
        self.sending = Sending(self, self._layouts)
        self.receiving = Receiving(self._world, self.read)
        self.receiving.junction.opened(HopPath.RDMA)
        self.move = NOTHING
        self.settled = NOTHING
        self.former: SimulatedStage | None = None
        self.coming: SimulatedStage | None = None
        self.spare = False  # it holds no KV that counts
        self.taking: Taking | None = None
        self.giving: Giving | None = None
        self.switch: msg.Switch | None = None
        self.barrier = NOTHING

    def end(self) -> None:
        self.alive = False
        if self.stage:
            self.stage.alive = False

    @property
    def incarnation(self) -> str:
        return f"s{self.life}"

    @property
    def range(self) -> tuple[int, int] | None:
        return (self.stage.start, self.stage.end) if self.stage else None

    # --- what it is told ---

    def hear(self, message: msg.Message) -> None:
        if not self.fence.see(message.term):  # type: ignore[union-attr]
            return
        match message:
            case msg.Load():
                if self.range != (message.start, message.end):
                    self._reset()
                    self._compute_with(self._fresh(message.start, message.end))
                self._say_loaded()
            case msg.Unload():
                self._reset()
                self._gone(self.stage)
                self.stage = None
                self.fence.clear()
            case msg.Assign():
                self._assign(message)
            case msg.TakePath():
                self.sending.take(message)
            case msg.Prepare() if self._begins(message):
                life, move = self.life, self.move
                delay = self._world.rng.choice((0.01, 0.1, 0.4))
                done = (message, life, move)
                self._world.later(delay, lambda: self._prepared(*done))
            case msg.Give() if self._begins(message) and self.giving is None and self.stage:
                takers = [self._taker(one) for one in message.takers]
                self.giving = Giving(self.stage, takers)
                self._give(self.giving)
            case msg.Switch() if self._begins(message):
                if (self.fence.term, self.fence.epoch) == (message.term, message.epoch):
                    self._say_loaded()
                    self._say(msg.Assigned(self.name, self.incarnation, message.epoch))
                else:
                    self.switch = message
                    self.try_switch()
            case msg.Settle() if (message.term, message.move) >= self.move:
                self.settled = message.term, message.move
                self._reset()

    def arrived(self, path: HopPath, frame: Frame) -> None:
        """A frame, or a turn, from the stage before this one."""
        self.receiving.put(path, frame)
        self.read()

    def read(self) -> None:
        frames = self.receiving.read()
        if self.stage and self.alive:
            self.stage.queue.extend(frames)
            self._world.computing.go_on(self.stage)

    def passed_barrier(self, frame: Frame) -> None:
        self.barrier = frame.term, frame.epoch
        if self.giving and not self.giving.finished:
            self.giving.finish()
            self._report(self.giving)
        self.try_switch()

    def take(self, move: tuple[int, int], life: int, giver: str, piece: Piece | Last) -> None:
        if self.alive and not self.hung and (self.move, self.life) == (move, life) and self.taking:
            self.taking.take(giver, piece)
            self.try_switch()

    def try_switch(self) -> None:
        asked, coming = self.switch, self.coming
        place = self.fence.term, self.fence.epoch
        if asked is None or self.hung or (asked.barrier and self.barrier != place):
            return
        if coming and coming is not self.stage:
            if asked.givers and not (self.taking and self.taking.complete(asked.givers)):
                return
            self.former = self.stage
            become(None if self.spare else self.stage, coming, self.taking)
            self._compute_with(coming)
            self._say_loaded()
        if self.stage is None:
            return
        self.switch = None
        self._place(asked.stage, asked.term, asked.epoch)

    # --- within ---

    def _begins(self, message: msg.Prepare | msg.Give | msg.Switch) -> bool:
        number = message.term, message.move
        if number <= self.settled:
            return False
        if number > self.move:
            self._reset()
            self.move = number
        return number == self.move

    def _reset(self) -> None:
        self.move = NOTHING
        self.former = self.coming = self.taking = self.giving = self.switch = None

    def _fresh(self, start: int, end: int) -> SimulatedStage:
        world = self._world
        kept = world.memory.reach, world.hidden_bytes
        return SimulatedStage(0, start, end, end == LAYERS, world.rng, *kept)

    def _compute_with(self, stage: SimulatedStage) -> None:
        if self.stage is not stage:
            self._gone(self.stage)
        stage.fence, stage.alive = self.fence, self.alive
        self.stage = stage

    def _gone(self, stage: SimulatedStage | None) -> None:
        """Frames that reach it are dropped."""
        if stage:
            stage.alive = False
            stage.queue.clear()

    def _prepared(self, asked: msg.Prepare, life: int, move: tuple[int, int]) -> None:
        if not self.alive or self.hung or (self.life, self.move) != (life, move):
            return
        if self.coming is None:
            self.coming, self.spare = self._fresh(asked.start, asked.end), asked.spare
            self.taking = Taking(asked.start, asked.end)
        address = f"kv:{self.name}:{self.life}"
        what = (self.incarnation, asked.term, asked.move, asked.start, asked.end)
        self._say(msg.Prepared(self.name, *what, f"data:{self.name}", address, 0.1, "", ""))

    def _taker(self, told: dict[str, object]) -> Taker:
        _, name, life = str(told["address"]).split(":")
        move, layers = self.move, LayerRange(int(str(told["start"])), int(str(told["end"])))
        post: Callable[[str, Callable[[], None]], None] = self._layouts.post
        node = self._layouts.nodes[name]

        def send(piece: Piece | Last) -> None:
            post(f"{self.name}>{name}", lambda: node.take(move, int(life), self.name, piece))

        return Taker(send, layers)

    def _give(self, giving: Giving) -> None:
        """One piece each, now and then."""
        if giving is not self.giving or not self.alive or self.hung or giving.finished:
            return
        giving.step()
        self._report(giving)
        self._world.later(0.02, lambda: self._give(giving))

    def _report(self, giving: Giving) -> None:
        left = 0 if giving.finished else giving.left
        self._say(msg.Giving(self.name, self.incarnation, *self.move, giving.sent, left, ""))

    def _assign(self, asked: msg.Assign) -> None:
        wanted = (asked.start, asked.end)
        if self.range != wanted:
            for other in (self.former, self.coming):
                if other and (other.start, other.end) == wanted:
                    if other is self.coming:
                        become(None if self.spare else self.stage, other, None)
                    self.former = None if other is self.former else self.former
                    self._compute_with(other)
                    self._say_loaded()
                    break
        if self.range == wanted:
            self._place(asked.stage, asked.term, asked.epoch)

    def _place(self, index: int, term: int, epoch: int) -> None:
        stage = self.stage
        assert stage
        stage.place(index, stage.end == LAYERS)
        stage.ledger.obey(term)
        if (term, epoch) > (self.fence.term, self.fence.epoch):
            self.sending.place()
        for frame in reversed(self.fence.assign(term, epoch)):
            stage.queue.appendleft(frame)
        self._say(msg.Assigned(self.name, self.incarnation, epoch))
        self._world.computing.go_on(stage)

    def _say_loaded(self) -> None:
        if self.stage:
            self._layouts.say_loaded(self, self.stage)

    def _say(self, message: msg.Message) -> None:
        self._layouts.say(self, message)
