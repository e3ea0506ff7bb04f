"""Saved KV that the stages read while requests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.history import History
from tests.simulator.model import LAYERS, Layers
from tests.simulator.stage import SimulatedStage

if TYPE_CHECKING:
    from tests.simulator.world import World

READ_SECONDS = 1.0


def read_something(world: World) -> None:
    """As if a disk had the history of some request: each stage is done in its own time, or fails,
    and the scheduler is told when all have spoken.
    """
    rng = world.rng
    histories = [(r, (*r.prompt, *world.delivered[s])) for s, r in world.requests.items()]
    if not histories:
        return
    request, tokens = rng.choice(histories)
    expected, sequence = world.scheduler.residency.expected, rng.randbytes(16)
    if len(tokens) < 16 or not expected.begin(sequence, request.fidelity, len(tokens)):
        return
    whole = Layers(0, LAYERS, request.fidelity)
    whole.run(list(tokens))
    world.reading += 1
    world.do(world.scheduler.tick(world.now))  # what had to make room is told to go
    layout, stages, read = world.layout, world.stages, []

    def done(stage: SimulatedStage) -> None:
        if stage.alive and stage in world.stages and rng.random() < 0.9:
            read.append(stage.restore(sequence, History(tokens), whole))

    def ended() -> None:
        world.reading -= 1
        if world.layout == layout and read == [True] * len(stages):
            expected.came(sequence, request.fidelity, tokens, world.now)
        else:
            expected.failed(sequence)
        world.do(world.scheduler.tick(world.now))

    for stage in stages:
        world.later(rng.uniform(0.0, READ_SECONDS), lambda s=stage: done(s))
    world.later(READ_SECONDS, ended)
