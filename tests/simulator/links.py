"""The links of the simulated cluster, and what becomes of the frames on them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from daemon.hop_path import HopPath
from tests.simulator.faults import Fault
from tests.simulator.layouts import CHUNK
from tests.simulator.model import VOCABULARY
from tests.simulator.stage import SimulatedStage
from transports.frame import Barrier, Frame
from transports.limits import FrameLimits
from transports.wire import decode, encode

if TYPE_CHECKING:
    from tests.simulator.world import World

HOP_SECONDS = 0.001
LIMITS = FrameLimits(max_tensor_bytes=8 * CHUNK, vocab=VOCABULARY)


class Links:
    """Link n leads to stage n, the last one back to the scheduler. `under_way`: frames on each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.under_way: Counter[int] = Counter()
        self._free: dict[int, float] = {}

    def send(self, link: int, frame: Frame, by: tuple[HopPath, int] | None = None) -> None:
        """By the path in force, or by one that is said."""
        world = self._world
        rng, extra, copies = world.rng, 0.0, 1
        if world.wire:
            frame = decode([bytes(part) for part in encode(frame, LIMITS)], LIMITS)
        if 0 < link < len(world.stages):
            path, group = by or world.layouts.path_of(world.stages[link - 1])
            if path is HopPath.RDMA:  # nothing happens to it there, unless its group ends
                target = world.stages[link]
                world.layouts.by_rdma(
                    link, group, lambda: self._arrived(link, target, frame, HopPath.RDMA)
                )
                return
        if rng.random() < world.rates.link:
            fault = rng.choice(world.rates.kinds)
            world.faults[fault.value] += 1
            most = max(1, len(frame.spans))  # each sequence of a frame is issued again by itself
            world.allowed += most
            match fault:
                case Fault.DROP:
                    return
                case Fault.DOUBLE:
                    copies = 2
                case Fault.DELAY:
                    extra = rng.choice((0.01, 0.1, 1.0, 5.0))
                case Fault.STALL:
                    free = max(world.now, self._free.get(link, 0.0))
                    self._free[link] = free + rng.choice((0.1, 1.0, 5.0))
                    world.allowed += most * (len(world.stages) + 1)
                case Fault.ERROR:
                    known = rng.random() < 0.5
                    world.allowed += 0 if known else most * (len(world.stages) + 1)
                    lost = frame.microbatch if known else None
                    world.later(HOP_SECONDS, lambda: self._failed(frame.epoch, lost))
                    return
        for copy in range(copies):
            arrival = max(world.now + HOP_SECONDS, self._free.get(link, 0.0))
            late = rng.choice((0.0, 0.05, 1.0)) if copy else extra
            if not late:
                self._free[link] = arrival
            self.under_way[link] += 1
            target = world.stages[link] if link < len(world.stages) else None
            world.later(
                arrival + late - world.now, lambda t=target, f=frame: self._arrive(link, t, f)
            )

    def _arrive(self, link: int, stage: SimulatedStage | None, frame: Frame) -> None:
        self.under_way[link] -= 1
        self._arrived(link, stage, frame, HopPath.ZMQ)

    def _arrived(
        self, link: int, stage: SimulatedStage | None, frame: Frame, path: HopPath
    ) -> None:
        if stage is None and Barrier() in frame.commands:
            self._world.layouts.barrier_returned(frame)
        elif stage is None:
            self._world.do(self._world.scheduler.result(frame, self._world.now))
        elif stage.alive:
            self._world.layouts.arrived(stage, path, frame)

    def _failed(self, epoch: int, microbatch: int | None) -> None:
        world = self._world
        if epoch == world.layout[1]:
            world.do(world.scheduler.link_failed(world.now, microbatch))
