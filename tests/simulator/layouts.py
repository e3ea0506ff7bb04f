"""One layout of the simulated cluster after another, and what happens to its stages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon.hop_path import HopPath
from daemon.scheduler.pipeline import Pipeline, StageCost
from tests.simulator.computing import DECODE_SECONDS
from tests.simulator.faults import CALM, TROUBLE_SECONDS
from tests.simulator.model import LAYERS
from tests.simulator.requests import CONTEXT
from tests.simulator.stage import SimulatedStage
from tests.simulator.succession import succeed
from transports.frame import Frame

if TYPE_CHECKING:
    from tests.simulator.world import World

CHUNK = 32
Ranges = list[tuple[int, int]]


class Layouts:
    """`stages` are those of the present one, in order, `ranges` their layers."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._stages: list[SimulatedStage] = []
        self.ranges: Ranges = []
        self._term, self._epoch = 1, 0
        self._rng = rng

    @property
    def stages(self) -> list[SimulatedStage]:
        return self._stages

    @property
    def settled(self) -> bool:
        """Whether nothing goes on but what the requests ask for."""
        return True

    def path_of(self, stage: SimulatedStage) -> tuple[HopPath, int]:
        """How frames go on from this stage, and by which group of rdma processes."""
        return HopPath.ZMQ, 0

    def by_rdma(self, link: int, group: int, arrive: Callable[[], None]) -> None:
        raise AssertionError("there is no RDMA here")

    def arrived(self, stage: SimulatedStage, path: HopPath, frame: Frame) -> None:
        stage.queue.append(frame)
        self._world.computing.go_on(stage)

    def passed_barrier(self, stage: SimulatedStage, frame: Frame) -> None:
        raise AssertionError("nobody sends barriers here")

    def barrier_returned(self, frame: Frame) -> None:
        raise AssertionError("nobody sends barriers here")

    @property
    def number(self) -> tuple[int, int]:
        return self._term, self._epoch

    def change(self, count: int, ranges: Ranges | None = None) -> None:
        """A new epoch: `count` stages; those that keep their layers keep what they hold."""
        world = self._world
        self._epoch += 1
        if ranges is None:
            cuts = sorted(world.rng.sample(range(1, LAYERS), count - 1))
            ranges = list(itertools.pairwise([0, *cuts, LAYERS]))
        self.ranges = ranges
        lost = []
        old = {(s.start, s.end): s for s in self.stages if s.alive and not s.hung}
        self._stages = []
        for index, (start, end) in enumerate(ranges):
            stage = old.pop((start, end), None)
            last = end == LAYERS
            if stage is None:
                reach, hidden = world.memory.reach, world.hidden_bytes
                stage = SimulatedStage(index, start, end, last, world.rng, reach, hidden)
                lost.append(index)
            stage.place(index, last)
            self._stages.append(stage)
            layout = self._term, self._epoch
            stage.fence.see(self._term)  # before it may be assigned, a coordinator welcomes it
            delay = world.rng.choice((0.0, 0.0, 0.01))  # the first frame may come before this
            world.later(delay, lambda s=stage, layout=layout: self._assign(s, *layout))
        for gone in old.values():
            gone.alive = False
        held = None
        if world.rng.random() < 0.5:
            known = [s.ledger.held() for s in self.stages]
            held = {q: min(h.get(q, 0) for h in known) for h in known for q in h}
        world.allowed += 4 * world.scheduler.status()["running"]
        pipeline = Pipeline(
            self._term,
            self._epoch,
            (StageCost(((1, DECODE_SECONDS),), world.token_seconds),) * count,
            CONTEXT,
            CHUNK,
            memory=(world.memory,) * count,
        )
        if self._rng.random() < 0.5:
            lost = []  # nobody knows: Nacks tell
        world.do(world.scheduler.configure(pipeline, world.now, held, lost))

    def _assign(self, stage: SimulatedStage, term: int, epoch: int) -> None:
        if stage.fence.see(term):
            stage.ledger.obey(term)
            for frame in reversed(stage.fence.assign(term, epoch)):
                stage.queue.appendleft(frame)
            self._world.computing.go_on(stage)

    def kill(self, stage: SimulatedStage) -> None:
        """Dead at once; found out, and started anew, later."""
        world = self._world
        if not stage.alive:
            return
        stage.alive = False
        world.allowed += len(self.stages) + 1
        world.later(world.rng.uniform(0.0, 1.0), lambda: self._down(stage))
        world.later(world.rng.uniform(1.0, 3.0), lambda: self._up(stage))

    def _down(self, stage: SimulatedStage) -> None:
        if stage in self.stages:
            self._world.do(self._world.scheduler.configure(None, self._world.now))

    def _up(self, stage: SimulatedStage) -> None:
        if stage in self.stages:
            self.change(len(self.stages))

    def restart(self, stage: SimulatedStage) -> None:
        """Dead, and soon there again with the same layers, and nothing held."""
        stage.alive = False
        self._world.allowed += len(self.stages) + 1
        if self._rng.random() < 0.25:
            self._down(stage)
        self._world.later(self._rng.choice((0.0, 0.1)), lambda: self._again(stage))

    def _again(self, stage: SimulatedStage) -> None:
        if stage in self.stages:
            self.change(len(self.stages), self.ranges)

    def kill_hung(self) -> None:
        for stage in self.stages:
            if stage.hung:
                self.kill(stage)

    def heartbeat(self) -> None:
        world = self._world
        for stage in self.stages:
            if stage.alive and stage.working and not (stage.hung and stage.index % 2):
                # Every other stage that hangs spins: its heartbeats go on.
                microbatch = stage.working.microbatch
                world.do(world.scheduler.progress(microbatch, stage.index, world.now))
        world.later(0.1, self.heartbeat)

    def trouble(self) -> None:
        """Four times a second: what does not happen to a frame."""
        world = self._world
        if world.now > TROUBLE_SECONDS:
            world.rates = CALM
            return
        rng, rates = world.rng, world.rates
        world.later(0.25, self.trouble)
        stage = rng.choice(self.stages)
        if self._rng.random() < rates.restart / 4 and stage.alive:
            world.faults["restart"] += 1
            self.restart(stage)
        dies = rates.coordinator and self._rng.random() < rates.coordinator / 4
        if dies and all(s.alive for s in self.stages):
            world.faults["coordinator"] += 1
            succeed(world)
        for kind in ("kill", "hang", "layout", "term"):
            if rng.random() >= getattr(rates, kind) / 4:
                continue
            world.faults[kind] += 1
            match kind:
                case "kill":
                    self.kill(stage)
                case "hang":
                    stage.hung = True
                    world.allowed += 2 * len(self.stages) + 2
                case "layout" if all(s.alive for s in self.stages):
                    self.change(rng.randint(1, LAYERS))
                case "term" if all(s.alive for s in self.stages):
                    self._term += 1
                    self.change(len(self.stages))

    def reign(self) -> None:
        """A coordinator of a higher term takes the stages over as they stand."""
        self._term += 1
        self.change(len(self.stages), self.ranges)
