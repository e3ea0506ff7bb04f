"""What all rows of the ladder share: the reference, the clusters, the rows and checks so far."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.paced.cluster import Paced, paced_cluster
from benchmarks.paced.oracle import Script
from benchmarks.paced.pace import MS, Pace
from benchmarks.paced.plan import Kept
from benchmarks.paced.reference import Answer, Reference
from benchmarks.report import Check, at_least
from benchmarks.requests import ClusterError
from benchmarks.rounds import rate, window_rate

SLOW = 3.0
ATTEMPTS = 3
TWO = Pace((6, 2), (30 * MS, 27 * MS))  # 53 and 13 of 66 layers, and the head
THREE = Pace((3, 3, 2), (20 * MS, 20 * MS, 17 * MS))
PROMPTS = (
    "class Queue:\n    def __init__(self, maxsize=0):\n",
    "with open(name, encoding='utf-8') as file:\n",
    "class Node:\n    def __init__(self, value, left=None, right=None):\n",
    "def fibonacci(n):\n    a, b = 0, 1\n",
    "import unittest\n\nclass Test",
    "@property\ndef name(self):\n",
    "import os\nimport sys\n\ndef find(path):\n",
    "def read(self, size=-1):\n    while True:\n",
)


class Overrun(ClusterError):
    """Real work did not fit into its times: the row says nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """`hoped`: for what, by the seed. Ours and the limit in the same unit."""

    name: str
    hoped: str
    ours: float
    limit: float
    unit: str = "tok/s"
    how: str = ""

    @property
    def reached(self) -> float:
        return self.ours / self.limit if self.unit == "tok/s" else self.limit / self.ours

    def cells(self) -> list[str]:
        numbers = (f"{value:.4g} {self.unit}, paced" for value in (self.ours, self.limit))
        return [self.name, self.hoped, *numbers, f"{self.reached:.1%}, paced", self.how]


@dataclass(slots=True)
class Field:
    """`short`: answers are only long enough to see that everything works."""

    reference: Reference
    short: bool
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    passes: Kept = field(default_factory=Kept)
    hops: Kept = field(default_factory=Kept)

    def measure(self, measure: Callable[[Field], None]) -> None:
        """Rows whose real work did not fit are measured again; when it never does, they are not."""
        for attempt in range(ATTEMPTS):
            rows, checks = len(self.rows), len(self.checks)
            try:
                return measure(self)
            except Overrun as overrun:
                if attempt == ATTEMPTS - 1:
                    raise
                print(f"again: {overrun}", file=sys.stderr, flush=True)
                del self.rows[rows:], self.checks[checks:]

    def length(self, tokens: int) -> int:
        """Of an answer that is to have so many."""
        return min(tokens, 24) if self.short else tokens

    def answers(self, count: int, tokens: int) -> list[Answer]:
        return [self.answer(text, tokens) for text in PROMPTS[:count]]

    def answer(self, text: str, tokens: int) -> Answer:
        return self.reference.answer(self.reference.ids(text), self.length(tokens))

    @contextmanager
    def cluster(
        self,
        pace: Pace,
        scripts: Sequence[Script] = (),
        ahead: bool = True,
        guess_seconds: float = 0.0,
        slow: float = SLOW,
    ) -> Iterator[Paced]:
        """It has answered before, so that what passes and hops cost is known to it."""
        with paced_cluster(pace, slow, tuple(scripts), ahead, guess_seconds) as paced:
            paced.cluster.generate([PROMPTS[-1]], 8)
            yield paced
        for kept, what in ((paced.passes, "passes"), (paced.hops, "hops")):
            if not kept.ok:
                raise Overrun(f"{kept.overruns} of {kept.count} {what} took longer than paced")
        self.passes.merge(paced.passes)
        self.hops.merge(paced.hops)

    def streams(self, paced: Paced, answers: Sequence[Answer], slow: float = SLOW) -> float:
        """Tokens per second of virtual time, of all of them at once."""
        tokens = len(answers[0].tokens)
        streams = paced.cluster.generate(PROMPTS[: len(answers)], tokens)
        for stream, answer in zip(streams, answers, strict=True):
            self.reference.compare(stream, answer)
        times = [stream.times for stream in streams]
        return slow * (rate(times[0]) if len(times) == 1 else window_rate(times))

    def add(self, row: Row, check: str = "", share: float | None = None) -> None:
        """`share` of the limit is asked for."""
        self.rows.append(row)
        print(" | ".join(row.cells()), file=sys.stderr, flush=True)
        if share is not None:
            self.checks.append(at_least(f"paced.{check}_vs_limit", row.reached, share))
