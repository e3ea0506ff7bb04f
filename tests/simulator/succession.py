"""kill -9 of the coordinator: another one goes on from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.scheduler.request import FinishReason
from daemon.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from tests.simulator.world import World


def succeed(world: World) -> None:
    """The journal has every token that was delivered; what the scheduler knew beside is lost."""
    order = [sequence.id for sequence in world.scheduler.sequences()]
    for sequence in world.scheduler.sequences():
        world.inherited[sequence.id] = sequence.proven
    world.scheduler = Scheduler(world.limits, world.oracle)
    for one in order:
        request, got = world.requests[one], tuple(world.delivered[one])
        world.do(world.scheduler.submit(request, world.now, got))
        if 0 < world.stops.get(one, 0) <= len(got):  # found when the text is made again
            world.do(world.scheduler.finish(one, FinishReason.STOP, world.now))
    if world.draft and world.draft.alive:
        world.draft.said_hello()
    world.layouts.reign()
