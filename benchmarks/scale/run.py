"""What a step of the coordinator takes at 64 nodes and 1,000 sequences.

A step is a result frame that the scheduler takes in, with all frames composed that may follow it
then; one heartbeat, of a stage or a shardd, that the cluster machine takes in; and one tick of it.
Their sum is what the limit is for, although only a few heartbeats come between two frames, and
ticks a few times a second.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks.options import Options
from benchmarks.report import Check, Fact, Table, at_most
from benchmarks.scale.crowd import HEAD, OWN, Case, Crowd
from benchmarks.scale.members import SEQUENCES, Members
from benchmarks.scale.timing import Timed
from daemon.scheduler.pipeline import Limits

LIMIT_MS = 2.0
WARM_UP, MEASURED = 500, 2000
MOST = Limits().max_running
CASES = {
    "64 nodes, all run": Case(64, SEQUENCES, SEQUENCES, guessing=False),
    "64 nodes, all run, guessing": Case(64, SEQUENCES, SEQUENCES, guessing=True),
    f"64 nodes, {MOST} run": Case(64, SEQUENCES, MOST, guessing=False),
    f"64 nodes, {MOST} run, guessing": Case(64, SEQUENCES, MOST, guessing=True),
    f"64 nodes, {MOST} run, memory full": Case(64, SEQUENCES, MOST, guessing=True, tight=True),
    "8 nodes, all run": Case(8, SEQUENCES, SEQUENCES, guessing=False),
    "8 nodes, all run, guessing": Case(8, SEQUENCES, SEQUENCES, guessing=True),
    f"8 nodes, {MOST} run, guessing": Case(8, SEQUENCES, MOST, guessing=True),
    "64 nodes, one sequence, guessing": Case(64, 1, MOST, guessing=True),
}
HEAD_OF_TABLE = (
    "simulated",
    "decode",
    "kept",
    "frame p50",
    "frame p99",
    "heartbeat p50",
    "tick p50",
    "sum p50",
    "sum p99",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds."""

    frames: Timed
    beats: Timed
    ticks: Timed

    def sum(self, share: float) -> float:
        return sum(timed.at(share) for timed in (self.frames, self.beats, self.ticks))

    def cells(self) -> list[str]:
        found = [
            self.frames.at(0.5),
            self.frames.at(0.99),
            self.beats.at(0.5),
            self.ticks.at(0.5),
            self.sum(0.5),
            self.sum(0.99),
        ]
        return [f"{ms:.3g} ms" for ms in found]


def run(options: Options) -> tuple[list[Check], list[Fact], list[str], Table]:
    checks, rows = [], []
    facts: list[Fact] = []
    cases = dict(list(CASES.items())[-2:]) if options.quick else CASES
    for name, case in cases.items():
        crowd, found = _measure(case, 100 if options.quick else MEASURED)
        counts = crowd.decoding, len(crowd.scheduler.residency.index.kept)
        rows.append([name, *map(str, counts), *found.cells()])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        facts.append(Fact(f"a new layout taken in: {name}", crowd.new_layout() * 1e3, "ms"))
        checks.append(at_most(f"step_ms_p50.{_id(name)}", found.sum(0.5), LIMIT_MS))
    notes = [
        "Simulated: no sockets, no model, virtual time; what is timed is real. A step is one "
        "result frame taken in and the frames that follow it composed, one heartbeat and one tick "
        "of the cluster machine.",
        f"{SEQUENCES} sequences where nothing else is said; prompts begin with {HEAD} tokens that "
        f"others have too, and have {OWN} of their own; the prefix index is full.",
    ]
    return checks, facts, notes, Table(HEAD_OF_TABLE, rows)


def _measure(case: Case, frames: int) -> tuple[Crowd, Measured]:
    crowd, members = Crowd(case), Members(case.stages)
    for turn in range(-min(WARM_UP, frames), frames):
        if turn == 0:
            for timed in (crowd.results, members.beats, members.ticks):
                timed.clear()
        crowd.turn()
        members.beat(turn, crowd.oldest)
        members.tick()
    crowd.scheduler.check_integrity()
    members.cluster.check_integrity()
    return crowd, Measured(crowd.results, members.beats, members.ticks)


def _id(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")
