"""What the stages read from their disks has its place before it is there, and is kept after."""

from __future__ import annotations

import pytest

from daemon.fidelity import Fidelity
from daemon.footprint import Footprint
from daemon.scheduler.memory import Memory, StageMemory
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.scheduler import Scheduler
from tests.scheduler.harness import PROMPT, Harness, request, show

A, B = b"a" * 16, b"b" * 16
TOKENS = tuple(range(100))


@pytest.fixture
def scheduler() -> Scheduler:
    """With memory for 256 tokens."""
    scheduler = Scheduler(Limits())
    scheduler.residency.memory = Memory((StageMemory(256, {0: Footprint(1, 0)}),))
    return scheduler


def pending(scheduler: Scheduler) -> list[bytes]:
    """What the stages are told to forget."""
    scheduler.check_integrity()
    return [command.sequence for command in scheduler._dispatch.outbox.board(99)]


def test_it_is_kept_once_every_stage_holds_it(scheduler: Scheduler) -> None:
    residency = scheduler.residency
    assert scheduler.residency.expected.begin(A, Fidelity(), len(TOKENS))
    scheduler.check_integrity()
    assert residency.index.match(Fidelity(), (*TOKENS, 1), None) is None
    residency.report(0, {A: 100, B: 100})  # one stage was quicker than the others
    assert pending(scheduler) == [B]
    scheduler.residency.expected.came(A, Fidelity(), TOKENS, 1.0)
    found = residency.index.match(Fidelity(), (*TOKENS, 1), None)
    assert found is not None
    assert (found[0].sequence, found[1]) == (A, 100)
    assert pending(scheduler) == []


def test_its_place_is_free_again_when_a_stage_could_not(scheduler: Scheduler) -> None:
    assert scheduler.residency.expected.begin(A, Fidelity(), len(TOKENS))
    scheduler.residency.expected.failed(A)
    assert len(scheduler.residency.memory) == 0
    assert pending(scheduler) == [A]


def test_others_make_room_and_what_does_not_fit_is_not_expected(scheduler: Scheduler) -> None:
    residency = scheduler.residency
    for sequence, first in ((A, 1), (B, 2)):
        assert scheduler.residency.expected.begin(sequence, Fidelity(), len(TOKENS))
        scheduler.residency.expected.came(sequence, Fidelity(), (first, *TOKENS[1:]), float(first))
    assert [entry.sequence for entry in residency.index.kept] == [B]
    assert pending(scheduler) == [A]
    assert not scheduler.residency.expected.begin(A, Fidelity(), 1000)
    assert [entry.sequence for entry in residency.index.kept] == [B]


def test_another_model_forgets_what_was_expected(scheduler: Scheduler) -> None:
    assert scheduler.residency.expected.begin(A, Fidelity(), len(TOKENS))
    scheduler.residency.forget()
    scheduler.residency.expected.came(A, Fidelity(), TOKENS, 1.0)
    assert not scheduler.residency.index.kept
    assert pending(scheduler) == [A]


def test_who_keeps_nothing_reads_nothing() -> None:
    scheduler = Scheduler(Limits(max_kept=0))
    assert not scheduler.residency.expected.begin(A, Fidelity(), 10)


# --- beside requests, with memory in which 128 bytes and one per token are taken each -------------


def expecting(budget: int) -> Harness:
    """B, of 100 tokens, is being read; there is not room for much beside it."""
    h = Harness(Limits(headroom=1), budget=budget)
    assert h.scheduler.residency.expected.begin(B, Fidelity(), len(TOKENS))
    return h


@pytest.mark.parametrize("well", [True, False])
def test_who_has_no_room_beside_it_waits_until_it_is_there_or_is_not(well: bool) -> None:
    h = expecting(budget=300)
    assert show(h.submit(request(A, 40))) == []
    expected = h.scheduler.residency.expected
    if well:
        expected.came(B, Fidelity(), TOKENS, 1.0)
    else:
        expected.failed(B)
    assert show(h.tick(1.0))[0] == "send A1[0:16) -B"


def test_who_runs_takes_its_place_rather_than_end() -> None:
    h = expecting(budget=368)
    h.submit(request(A, PROMPT[:10], max_tokens=20))
    while h.scheduler.status()["running"]:
        h.computed(h.frames[-1], 3)
    assert not len(h.scheduler.residency.expected)
    h.scheduler.residency.expected.came(B, Fidelity(), TOKENS, 1.0)  # too late
    h.tick(1.0)
    assert [entry.sequence for entry in h.scheduler.residency.index.kept] == [A]
    assert len(h.scheduler.residency.index.kept[0].tokens) == 29
