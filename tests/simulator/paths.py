"""The two paths of the simulated hops: rdma processes that come and go, turns, and what a stage's
ring makes of them.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.cluster.wish import Wish
from daemon.hop_path import HopPath
from daemon.ring.junction import HOLD_SECONDS, Junction
from tests.simulator.faults import Rates
from transports.frame import Frame, FrameKind, Turn

if TYPE_CHECKING:
    from tests.simulator.cluster import ClusterLayouts
    from tests.simulator.node import Node
    from tests.simulator.world import World

LATE = (0.0001, 0.0001, 0.002, 0.02)  # of a frame by RDMA: from much quicker than ZeroMQ to slower
NOTICED = (0.0, 0.0, 0.001, 0.05, 0.4)


class Receiving:
    """Of one stage process: what came by each path and was not read. `go_on` is called when
    something can be read that is held now.
    """

    def __init__(self, world: World, go_on: Callable[[], None]) -> None:
        self.junction = Junction()
        self.holds = 0
        self._world = world
        self._go_on = go_on
        self._waiting: dict[HopPath, deque[Frame]] = {path: deque() for path in HopPath}

    def put(self, path: HopPath, frame: Frame) -> None:
        self._waiting[path].append(frame)

    def read(self) -> list[Frame]:
        """Everything that may be read now."""
        junction, waiting = self.junction, self._waiting
        found: list[Frame] = []
        while True:
            while paths := [p for p, w in waiting.items() if w and p is not junction.held]:
                frame = waiting[paths[0]].popleft()
                if junction.held:
                    junction.busy()
                if turn := frame.turn:
                    junction.turned(paths[0], frame.term, turn)
                    self.holds += junction.held is not None
                else:
                    found.append(frame)
                junction.check_integrity()
            if junction.held is None:
                return found
            junction.empty(self._world.now)
            if junction.held:
                self._world.later(HOLD_SECONDS, self._go_on)
                return found


class Sending:
    """Of one stage process. `group` is that of the rdma process it is connected to, 0: none."""

    def __init__(self, node: Node, layouts: ClusterLayouts) -> None:
        self.path, self.turn = HopPath.ZMQ, 0
        self.group = layouts.rdma.group
        self._number = (0, 0)
        self._why = ""
        self._node = node
        self._layouts = layouts

    def place(self) -> None:
        """A new layout."""
        self.path, self.turn = HopPath.ZMQ, 0

    def take(self, asked: msg.TakePath) -> None:
        node = self._node
        number = (asked.term, asked.turn)
        if (asked.term, asked.epoch) != (node.fence.term, node.fence.epoch):
            return
        if number < self._number:
            return
        if number > self._number:
            self._number, self.turn = number, asked.turn
            self._why = self._go(HopPath(asked.path), asked)
        said = (node.name, node.incarnation, asked.epoch, asked.turn, self.path.value, self._why)
        self._layouts.say(node, msg.PathTaken(*said))

    def _go(self, path: HopPath, asked: msg.TakePath) -> str:
        if path is self.path:
            return ""
        if path is HopPath.RDMA and asked.group != self.group:
            return "it is not connected to that group"
        if asked.group:
            for last, by in ((False, path), (True, self.path)):
                turn = (Turn(asked.turn, last),)
                frame = Frame(FrameKind.WORK, asked.term, asked.epoch, 0, commands=turn)
                self._layouts.send_turn(self._node, by, frame)
        self.path = path
        self._layouts.rdma.counts[f"to {path}"] += 1
        return ""

    def lose(self, group: int) -> None:
        """Its rdma process has ended, and it has noticed."""
        node = self._node
        if self.group != group or not node.alive or node.hung:
            return
        self.group, before, self.path = 0, self.path, HopPath.ZMQ
        for sending in (True, False) if before is HopPath.RDMA else (False,):
            at = (node.name, node.incarnation, node.fence.epoch, group)
            self._layouts.say(node, msg.PathLost(*at, sending, "gone", "it ended"))


class Rdma:
    """The rdma processes of all nodes: one group after another, of which `group` is the newest."""

    def __init__(self, world: World, layouts: ClusterLayouts, rng: random.Random) -> None:
        self.group = 1
        self.counts: Counter[str] = Counter()
        self._world = world
        self._layouts = layouts
        self._rng = rng
        self._over: set[int] = set()
        self._free: dict[int, float] = {}

    def send(self, link: int, group: int, arrive: Callable[[], None]) -> None:
        """Frames keep their order. Of those that are on their way when the group ends some come
        through.
        """
        world = self._world
        at = max(world.now + self._rng.choice(LATE), self._free.get(link, 0.0))
        self._free[link] = at
        through = group not in self._over and self._rng.random() < 0.3

        def come() -> None:
            if through or group not in self._over:
                arrive()
            else:
                self.counts["lost by rdma"] += 1
                self._cost()

        world.later(at - world.now, come)

    def trouble(self, rates: Rates) -> None:
        """Four times a second."""
        for _ in range(int(rates.turns / 4)):
            self._world.later(self._rng.uniform(0.0, 0.25), self._switch)
        if rates.rdma and self._rng.random() < rates.rdma / 4:
            self._world.faults["rdma"] += 1
            self.counts["ended"] += 1
            self._end()

    def _switch(self) -> None:
        """Somebody wishes another path for some hop."""
        paths = self._layouts.cluster.paths
        if not paths.hops:
            return
        index = self._rng.randrange(len(paths.hops))
        hop = paths.hops[index]
        back = Wish(hop.sender, why="nobody wants it")
        forth = Wish(hop.sender, HopPath.RDMA, self.group, index + 1, "")
        paths.wish(back if hop.wish.path is HopPath.RDMA else forth)

    def _end(self) -> None:
        """A member dies; the others notice it sooner or later, and begin again with another."""
        world, group = self._world, self.group
        self._over.add(group)
        self._cost()
        self.group += 1
        for node in self._layouts.nodes.values():
            sending, receiving = node.sending, node.receiving
            world.later(self._rng.choice(NOTICED), lambda s=sending: s.lose(group))
            world.later(
                self._rng.choice(NOTICED),
                lambda r=receiving: r.junction.closed(HopPath.RDMA),
            )
            world.later(1.0, lambda n=node: self._connect(n))

    def _connect(self, node: Node) -> None:
        if node.sending.group not in (0, self.group):
            node.sending.lose(node.sending.group)
        node.sending.group = self.group
        node.receiving.junction.opened(HopPath.RDMA)

    def _cost(self) -> None:
        running = int(self._world.scheduler.status()["running"])
        self._world.allowed += (running + 1) * (len(self._world.stages) + 2)
