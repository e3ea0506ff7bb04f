"""The nodes of a large cluster, as the cluster machine knows them: each holds a layer or two and
says so.
"""

from __future__ import annotations

from benchmarks.scale.timing import Timed
from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.machine import Cluster
from daemon.cluster.rules import Rules

GIB = 1 << 30
LAYER, HEAD = GIB, 2 * GIB
MODEL = "m"
BEAT_SECONDS = 0.5
CHUNK = 256
SEQUENCES = 1000
TICK_SECONDS = 0.25


class Members:
    """All nodes have joined and the pipeline is up. `beats` are what the machine took for the
    heartbeats of stages and shardds, `ticks` for those of the clock, `joins` for all before.
    """

    def __init__(self, nodes: int) -> None:
        self.joins, self.beats, self.ticks = Timed(), Timed(), Timed()
        self.names = [f"n{number:02}" for number in range(nodes)]
        self.cluster = Cluster(Rules("bench", self.names[0], CHUNK), term=1)
        self._now = 0.0
        self._held: dict[str, tuple[str, int, int]] = {}
        for name in self.names:
            self._step(self.joins, _node(name))
            self._step(self.joins, _stage(name))
        spec = cl.ModelSpec(MODEL, "/m", "d", (LAYER,) * 2 * nodes, HEAD, HEAD)
        self._step(self.joins, cl.ModelWanted(spec, "tcp://n:9", at_once=True))
        assert self.cluster.up, self.cluster.why_down

    def beat(self, number: int, microbatch: int) -> None:
        """Of one stage, and of its shardd."""
        name = self.names[number % len(self.names)]
        self._step(self.beats, self._heartbeat(name, microbatch))
        self._step(self.beats, msg.NodeHeartbeat(name, "n", GIB, 20))

    def tick(self) -> None:
        """Nobody has been silent for too long."""
        self._now += TICK_SECONDS
        for member in self.cluster.members.values():
            member.beat_at = member.node_at = self._now - BEAT_SECONDS
        self._step(self.ticks, cl.Tick())

    def _step(self, timed: Timed, event: cl.Event) -> None:
        """Stages do at once what they are asked to."""
        actions = timed.of(lambda: self.cluster.step(event, self._now))
        for action in actions:
            match action:
                case cl.ToStage(node, msg.Load() as load):
                    self._held[node] = (load.digest, load.start, load.end)
                    self._step(timed, _loaded(node, load))
                case cl.ToStage(node, msg.Assign() as assign):
                    self._step(timed, msg.Assigned(node, "s", assign.epoch))

    def _heartbeat(self, name: str, microbatch: int) -> msg.Heartbeat:
        digest, start, end = self._held[name]
        return msg.Heartbeat(
            node=name,
            incarnation="s",
            pid=20,
            clock=0.0,
            epoch=self.cluster.epoch,
            digest=digest,
            start=start,
            end=end,
            frames_received=microbatch,
            frames_started=microbatch,
            frames_finished=microbatch - 1,
            microbatch=microbatch,
            busy_seconds=0.01,
            loading=False,
            bytes_loaded=2 * LAYER,
            bytes_total=2 * LAYER,
            sequences=SEQUENCES,
            kv_bytes=GIB,
            move_term=0,
            move=0,
            resident_bytes=3 * GIB,
            dropped={},
            link="up",
            path="zmq",
            turn=0,
        )


def _node(name: str) -> msg.NodeHello:
    return msg.NodeHello(1, "0", name, "n", 10, name, "Linux", "3.12", 8, 64 * GIB, 0)


def _stage(name: str) -> msg.StageHello:
    return msg.StageHello(1, "0", name, "n", "s", 20, "0", "0", "cpu", "blas", 0)


def _loaded(name: str, load: msg.Load) -> msg.Loaded:
    held = (load.digest, load.start, load.end, f"tcp://{name}:1", 2 * GIB, 20, 1.0)
    speed, memory = ([[1.0, 0.005], [8.0, 0.006]], 2e-4, 0.0, True, "spans"), (64 * GIB, 60 * GIB)
    return msg.Loaded(name, "s", *held, *speed, *memory, [[0, 1024, 0]], None, {})
