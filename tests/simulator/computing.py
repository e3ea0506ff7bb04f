"""What the stages of the simulated cluster compute, one frame at a time, and how long it takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulator.stage import SimulatedStage
from transports.frame import Barrier, Frame, Span

if TYPE_CHECKING:
    from tests.simulator.world import World

DECODE_SECONDS = 0.02
TOKEN_SECONDS = 0.001
DEAR_TOKEN_SECONDS = 0.006  # where it pays to have frames of guesses follow each other


class Computing:
    def __init__(self, world: World) -> None:
        self._world = world

    def go_on(self, stage: SimulatedStage) -> None:
        world = self._world
        if stage.working or stage.hung or not stage.alive or not stage.queue:
            return
        frame = stage.queue.popleft()
        admitted = (frame.term, frame.epoch) == (stage.fence.term, stage.fence.epoch)
        poisons = partial(self._is_poison, stage)
        if not world.raises and admitted and any(map(poisons, frame.spans)):
            world.poisoned.add(world.layout[1])
            world.layouts.kill(stage)
            return
        seconds = 0.0
        if frame.spans:
            tokens = sum(s.length for s in frame.spans)
            seconds = DECODE_SECONDS + world.token_seconds * (tokens - 1)
        before: Any = dict(stage.failures)
        onward = stage.handle(frame, world.rates, world.now, world.now + seconds, poisons)
        if stage.failures != before or stage.shortfalls:
            world.allowed += stage.shortfalls
            stage.shortfalls = 0
            for sequence, count in stage.failures.items():
                world.failures[sequence] += count - before.get(sequence, 0)
                world.allowed += count - before.get(sequence, 0)
        if onward is None:
            self.go_on(stage)
            return
        stage.working = frame
        layout = world.layout[1], stage.index
        world.later(seconds, lambda: self._done(stage, onward, *layout))

    def _is_poison(self, stage: SimulatedStage, span: Span) -> bool:
        """The last stage, or the one before it, does not survive the poison."""
        world = self._world
        if world.poison is None or stage.index < len(world.stages) - 2:
            return False
        sequence, token = world.poison
        end = span.position + span.length
        return span.sequence == sequence and span.position <= token < end

    def _done(self, stage: SimulatedStage, onward: Frame, epoch: int, index: int) -> None:
        stage.working = None
        if stage.alive:
            if epoch == self._world.layout[1] and not stage.hung:
                self._world.links.send(index + 1, onward)
                if Barrier() in onward.commands:
                    self._world.layouts.passed_barrier(stage, onward)
            self.go_on(stage)
