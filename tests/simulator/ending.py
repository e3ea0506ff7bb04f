"""What must hold at the end of any history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.scheduler.request import FinishReason
from tests.simulator.model import reference
from tests.simulator.requests import CONTEXT

if TYPE_CHECKING:
    from tests.simulator.world import World


def check_end(world: World) -> None:
    """Everything ended with the tokens of one process, nothing stays behind, and the re-issues are
    no more than the faults may have cost.
    """
    assert world.finished.keys() == world.requests.keys(), "a sequence never ended"
    for sequence, request in world.requests.items():
        expected = reference(request, CONTEXT)
        got, end = tuple(world.delivered[sequence]), world.finished[sequence]
        if end.reason in (FinishReason.CANCELLED, FinishReason.FAILED):
            assert got == expected[: len(got)], "wrong tokens before the end"
        elif end.error:  # no memory for more
            assert end.reason in (FinishReason.LENGTH, FinishReason.CONTEXT), end
            assert got == expected[: len(got)], "wrong tokens before the end"
            assert world.memory.budget_bytes < 300 or world.pinned, end.error
        elif sequence in world.stops and end.reason is FinishReason.STOP:
            assert got == expected[: max(len(got), 1)], "wrong tokens before the stop string"
        else:
            assert got == expected, "not the tokens of one process"
        if end.reason is FinishReason.FAILED:
            guilty = world.poison is not None and sequence == world.poison[0]
            assert guilty or world.failures[sequence] >= 3, end.error
    reissues = world.scheduler.reissues.total()
    assert reissues <= world.allowed, f"{reissues} re-issues after {dict(world.faults)}"


def check_kept(world: World) -> None:
    """All stages hold what the index says, and nothing else."""
    index = world.scheduler.residency.index
    for stage in world.stages:
        held = stage.ledger.held()
        entries = [entry for entry in index if entry.held_by(stage.index)]
        known = {entry.sequence for entry in entries}
        # A stage that has fewer layers than before may have what it is taken to lack.
        assert known <= held.keys() <= index.entries.keys(), "held, but not in the index"
        assert held.keys() == stage.kv.keys()
        for entry in entries:
            assert held[entry.sequence] >= len(entry.tokens), "less held than the index says"


def check_empty(world: World) -> None:
    for stage in world.stages:
        assert not stage.ledger.held(), "a ledger remembers an ended sequence"
        assert not stage.kv, "KV of an ended sequence"
