"""The layouts of the simulated cluster as the real cluster machine makes them, over nodes whose
messages are late, lost and doubled; and rebalances in the middle of everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.machine import Cluster
from daemon.cluster.placement.problem import PlacementError
from daemon.cluster.rules import Rules
from daemon.hop_path import HopPath
from daemon.layers import LayerRange
from daemon.scheduler.pipeline import Pipeline, StageCost
from tests.simulator.computing import DECODE_SECONDS
from tests.simulator.faults import CALM, TROUBLE_SECONDS
from tests.simulator.layouts import CHUNK, Layouts, Ranges
from tests.simulator.model import LAYERS
from tests.simulator.node import DIGEST, Node
from tests.simulator.paths import Rdma
from tests.simulator.requests import CONTEXT
from tests.simulator.stage import SimulatedStage
from transports.frame import Frame

if TYPE_CHECKING:
    from tests.simulator.world import World

NODES = 5
BEAT_SECONDS = 0.25
MODEL = cl.ModelSpec("toy", "/toy", DIGEST, (10,) * LAYERS, 5, 3)
RULES = Rules(
    "home", "n0", CHUNK, ask_again_after=0.5, replan_after=2.0, load_again_after=0.5,
    prepare_within=5.0, copied_enough=3, measured_after=0.5, copy_within=1.0, switch_within=2.0,
)  # fmt: skip
MOMENTS = (0.0, 0.02, 0.1, 0.3, 0.6)


class ClusterLayouts(Layouts):
    """`ended` are the rebalances so far, `downs` why the pipeline went down."""

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self.ended: list[cl.RebalanceEnded] = []
        self.downs: list[str] = []
        self.cluster = Cluster(RULES, term=1)
        self._free: dict[str, float] = {}  # until when each channel is in use
        self._kept: dict[str, tuple[str, LayerRange]] = {}
        self.nodes: dict[str, Node] = {}
        own = random.Random()
        own.setstate(rng.getstate())  # so that what happens to paths changes nothing else
        self.rdma = Rdma(world, self, own)

    # --- what the world sees ---

    @property
    def number(self) -> tuple[int, int]:
        return self.cluster.term, self.cluster.epoch

    @property
    def stages(self) -> list[SimulatedStage]:
        nodes = [self.nodes[slot.node] for slot in self.cluster.slots]
        return [node.stage for node in nodes if node.stage]

    @property
    def settled(self) -> bool:
        return self.cluster.up and self.cluster.rebalance is None

    def change(self, count: int, ranges: Ranges | None = None) -> None:
        """At first the layout of a model; later a new term, and with it another epoch."""
        if self.nodes:
            self._do(self.cluster.new_term(self.cluster.term + 1, self._world.now))
            return
        world, names = self._world, [f"n{i}" for i in range(NODES)]
        for name in names:
            self.nodes[name] = Node(name, world, self)
            self._happened(msg.NodeHello(1, "0", name, "n", 10, name, "L", "3", 2, 1 << 30, 0))
            self._hello(self.nodes[name])
        cuts = sorted(world.rng.sample(range(1, LAYERS), count - 1))
        split = tuple(b - a for a, b in zip((0, *cuts), (*cuts, LAYERS), strict=True))
        self._happened(cl.ModelWanted(MODEL, "results", tuple(names[:count]), split, at_once=True))

    def kill(self, stage: SimulatedStage) -> None:
        for node in self.nodes.values():
            if node.stage is stage:
                self.kill_node(node)

    def kill_hung(self) -> None:
        """Silence is found by the cluster machine."""

    def passed_barrier(self, stage: SimulatedStage, frame: Frame) -> None:
        for node in self.nodes.values():
            if node.stage is stage:
                node.passed_barrier(frame)

    def barrier_returned(self, frame: Frame) -> None:
        if frame.term == self.cluster.term:
            self._happened(cl.BarrierReturned(frame.epoch))

    def heartbeat(self) -> None:
        super().heartbeat()
        if round(self._world.now / 0.1) % 2:
            return
        for node in self.nodes.values():
            self._happened(msg.NodeHeartbeat(node.name, "n", 1, 20 + node.life))
            if node.alive and not node.hung:
                self.say(node, self._beat(node))
        self._happened(cl.Tick())

    # --- paths ---

    def path_of(self, stage: SimulatedStage) -> tuple[HopPath, int]:
        node = self._node_of(stage)
        return (node.sending.path, node.sending.group) if node else (HopPath.ZMQ, 0)

    def arrived(self, stage: SimulatedStage, path: HopPath, frame: Frame) -> None:
        if node := self._node_of(stage):
            node.arrived(path, frame)

    def by_rdma(self, link: int, group: int, arrive: Callable[[], None]) -> None:
        self.rdma.send(link, group, arrive)

    def send_turn(self, node: Node, path: HopPath, frame: Frame) -> None:
        if node.stage and node.stage.index + 1 < len(self.stages):
            self._world.links.send(node.stage.index + 1, frame, (path, node.sending.group))

    def _node_of(self, stage: SimulatedStage) -> Node | None:
        return next((node for node in self.nodes.values() if node.stage is stage), None)

    # --- channels ---

    def post(self, channel: str, deliver: Callable[[], None]) -> None:
        """In order, a little later, and never lost."""
        world = self._world
        delay = world.rng.choice((0.001, 0.001, 0.01, 0.05))
        at = self._free[channel] = max(self._free.get(channel, 0.0), world.now + delay)
        world.later(at - world.now, deliver)

    def say(self, node: Node, message: msg.Message) -> None:
        """From the node's stage process to the cluster machine."""
        life = node.life
        for _ in range(self._copies()):
            self.post(f"<{node.name}", lambda: self._heard(node, life, message))

    def say_loaded(self, node: Node, stage: SimulatedStage) -> None:
        held = (DIGEST, stage.start, stage.end, f"data:{node.name}")
        speed = ([[1.0, DECODE_SECONDS]], self._world.token_seconds, 0.0, True, "spans")
        loaded = msg.Loaded(
            node.name, node.incarnation, *held, 1, 1, 0.1, *speed, 1 << 40, 1 << 40, [], None, {}
        )
        self.say(node, loaded)

    def _copies(self) -> int:
        rng, rate = self._world.rng, self._world.rates.control
        if rate and rng.random() < rate:
            self._world.faults["control"] += 1
            return rng.choice((0, 2))
        return 1

    def _heard(self, node: Node, life: int, message: msg.Message) -> None:
        if node.life == life:  # what a process said reaches nobody after its successor's hello
            self._happened(message)  # type: ignore[arg-type]

    def _tell(self, name: str, message: msg.Message) -> None:
        node = self.nodes[name]
        life = node.life

        def deliver() -> None:
            if node.alive and not node.hung and node.life == life:
                node.hear(message)

        for _ in range(self._copies()):
            self.post(f">{name}", deliver)

    # --- the coordinator ---

    def _happened(self, event: cl.Event) -> None:
        self._do(self.cluster.step(event, self._world.now))

    def _do(self, actions: list[cl.Action]) -> None:
        world = self._world
        self.cluster.check_integrity()
        for action in actions:
            match action:
                case cl.ToStage():
                    self._tell(action.node, action.message)
                case cl.ToNode():
                    if isinstance(action.message, msg.KillStage):
                        self.kill_node(self.nodes[action.node])
                case cl.PipelineUp():
                    self._up(action)
                case cl.PipelineDown():
                    self.downs.append(action.why)
                    world.do(world.scheduler.configure(None, world.now, intended=action.intended))
                case cl.FramesLost():
                    world.allowed += 2 * world.scheduler.status()["running"]
                    world.do(world.scheduler.link_failed(world.now))
                case cl.PathChanged():
                    path = (action.stage + 1, action.path)
                    world.scheduler.stats.path_changed(*path, world.now)
                case cl.SendBarrier():
                    world.do(world.scheduler.barrier(world.now))
                case cl.RebalanceEnded():
                    self.ended.append(action)

    def _up(self, up: cl.PipelineUp) -> None:
        """As the coordinator's pipe does it."""
        world, count = self._world, len(up.slots)
        nodes = [slot.node for slot in up.slots]
        lost = [i for i, node in enumerate(nodes) if self._kept.get(node) != up.kept.get(node)]
        self._kept = dict(up.kept)
        if not up.moved or world.faults:
            world.allowed += 4 * world.scheduler.status()["running"]
        costs = (StageCost(((1, DECODE_SECONDS),), world.token_seconds),) * count
        memory = (world.memory,) * count
        pipeline = Pipeline(up.term, up.epoch, costs, CONTEXT, CHUNK, memory=memory)
        if up.moved:
            lost = []
            while world.scheduler.residency.expected.give_up():
                pass  # what was read for the layout before
        world.do(world.scheduler.configure(pipeline, world.now, lost=lost))

    # --- what happens ---

    def trouble(self) -> None:
        """Four times a second: rebalances, and what else the rates say."""
        world = self._world
        if world.now > TROUBLE_SECONDS:
            world.rates = CALM
            return
        rng, rates = world.rng, world.rates
        world.later(0.25, self.trouble)
        if rng.random() < rates.rebalance / 4:
            self._rebalance()
        self.rdma.trouble(rates)
        node = rng.choice(list(self.nodes.values()))
        if rng.random() < rates.kill / 4:
            world.faults["kill"] += 1
            world.later(rng.choice(MOMENTS), lambda: self.kill_node(node))
        if rng.random() < rates.hang / 4:
            world.faults["hang"] += 1
            world.later(rng.choice(MOMENTS), lambda: self._hang(node))

    def _rebalance(self) -> None:
        world, rng = self._world, self._world.rng
        names = rng.sample(sorted(self.nodes), rng.randint(1, LAYERS))
        if self.cluster.slots and rng.random() < 0.5:  # the same nodes, other layers
            names = [slot.node for slot in self.cluster.slots]
        cuts = sorted(rng.sample(range(1, LAYERS), len(names) - 1))
        ends = zip(names, (0, *cuts), (*cuts, LAYERS), strict=True)
        slots = tuple(cl.Slot(name, LayerRange(a, b)) for name, a, b in ends)
        replay = 0.0 if world.rates.unwanted and rng.random() < 0.1 else rng.choice((1.0, 1e9))
        try:
            self._happened(cl.RebalanceWanted(slots, replay if world.rates.unwanted else 1e9))
        except PlacementError:
            return
        if rng.random() < world.rates.unwanted:
            world.faults["unwanted"] += 1
            unwanted = cl.RebalanceUnwanted("somebody said so")
            world.later(rng.uniform(0.0, 0.8), lambda: self._happened(unwanted))

    def kill_node(self, node: Node) -> None:
        """Dead at once; found out, and started anew, later."""
        world, life = self._world, node.life
        if not node.alive:
            return
        node.end()
        world.allowed += LAYERS + 1
        exited = (node.name, "n", "stage", 20 + life, "signal", "signal SIGKILL", 1, 0.1)
        delay = world.rng.uniform(0.0, 0.5)
        world.later(delay, lambda: self._happened(msg.ChildExited(*exited)))
        world.later(delay + world.rng.uniform(0.1, 1.5), lambda: self._begin(node))

    def _hang(self, node: Node) -> None:
        if node.alive:
            self._world.allowed += 2 * LAYERS + 2
            node.hung = True
            if node.stage:
                node.stage.hung = True

    def _begin(self, node: Node) -> None:
        node.begin()
        self._hello(node)

    def _hello(self, node: Node) -> None:
        pid, device = 20 + node.life, ("0", "0", "cpu", "blas", 0)
        hello = msg.StageHello(1, "0", node.name, "n", node.incarnation, pid, *device)
        self._happened(hello)

    def _beat(self, node: Node) -> msg.Heartbeat:
        stage = node.stage
        held = (DIGEST, stage.start, stage.end) if stage else ("", 0, 0)
        fields = {
            "frames_received": 0, "frames_started": 0, "frames_finished": 0, "microbatch": 0,
            "busy_seconds": 0.0, "loading": False, "bytes_loaded": 0, "bytes_total": 0,
            "sequences": 0, "kv_bytes": 0, "move_term": node.move[0], "move": node.move[1],
            "resident_bytes": 0, "dropped": {}, "link": "up",
            "path": node.sending.path.value, "turn": node.sending.turn,
        }  # fmt: skip
        process = (node.incarnation, 20 + node.life, self._world.now, node.fence.epoch)
        return msg.Heartbeat(node.name, *process, *held, **fields)  # type: ignore[arg-type]
