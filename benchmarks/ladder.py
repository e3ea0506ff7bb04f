"""The cluster that the seed of this project measured, and what it hoped for, one row each: measured
on a paced replica, beside the best that could be had there.

Where the seed says nothing, what is assumed stands in `benchmarks/paced/pace.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.limit import AFTER, Plan, best_batches, best_decode, first_token
from benchmarks.options import Options
from benchmarks.paced.cluster import Paced, paced_cluster
from benchmarks.paced.oracle import Script, trace
from benchmarks.paced.pace import MS, Link, Pace
from benchmarks.paced.plan import Kept
from benchmarks.paced.reference import Answer, Reference
from benchmarks.report import Check, Fact, Table, at_least, at_most
from benchmarks.requests import ClusterError, Stream
from benchmarks.rounds import rate, window_rate

SLOW = 3.0
SLOW_DIRECT = 8.0  # so that a real socket fits into a hop of 0.3 ms
SEED_RATE = 15.9
TWO = Pace((6, 2), (30 * MS, 27 * MS))  # 53 and 13 of 66 layers, and the head
EVENED = Pace((5, 3), (20 * MS, 45 * MS))  # 40 and 26, as the seed expects them
THREE = Pace((3, 3, 2), (20 * MS, 20 * MS, 17 * MS))
DIRECT = Link().quicker(10)
ACCEPTANCE = 0.8
ACCEPTANCES = (0.0, 0.6, 0.95)  # shown beside it
STREAMS = 8
HISTORY, ANSWER, TURN = 2000, 12, "\n\n\nclass Second:\n    def __init__(self) -> None:\n"
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


@dataclass(frozen=True, slots=True)
class Row:
    """`hoped`: for what, by the seed. Ours and the limit in the same unit; `share` of the limit is
    asked for.
    """

    name: str
    hoped: str
    ours: float
    limit: float
    share: float | None
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
    """What all rows share. `tokens` of an answer where one stream is guessed, and where none is."""

    reference: Reference
    tokens: int
    few: int
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    passes: Kept = field(default_factory=Kept)
    hops: Kept = field(default_factory=Kept)

    def answers(self, count: int, tokens: int) -> list[Answer]:
        return [self.answer(text, tokens) for text in PROMPTS[:count]]

    def answer(self, text: str, tokens: int) -> Answer:
        return self.reference.answer(self.reference.ids(text), tokens)

    @contextmanager
    def cluster(
        self,
        pace: Pace,
        scripts: Sequence[Script] = (),
        ahead: bool = True,
        slow: float = SLOW,
    ) -> Iterator[Paced]:
        """It has answered before, so that what passes and hops cost is known to it."""
        with paced_cluster(pace, slow, tuple(scripts), ahead) as paced:
            paced.cluster.generate([PROMPTS[-1]], 8)
            yield paced
        for kept, what in ((paced.passes, "passes"), (paced.hops, "hops")):
            if not kept.ok:
                raise ClusterError(f"{kept.overruns} of {kept.count} {what} took longer than paced")
        self.passes.merge(paced.passes)
        self.hops.merge(paced.hops)

    def add(self, row: Row, check: str = "") -> None:
        self.rows.append(row)
        print(" | ".join(row.cells()), file=sys.stderr, flush=True)
        if row.share is not None:
            self.checks.append(at_least(f"paced.{check}_vs_limit", row.reached, row.share))


def run(options: Options) -> tuple[list[Check], list[Fact], list[str], Table]:
    began = time.monotonic()
    with Reference() as reference:
        field = Field(reference, *((24, 12) if options.quick else (160, 32)))
        for measure in MEASURES:
            measure(field)
    checks = [
        *field.checks,
        at_most("paced.tokens_not_those_of_mlx_lm", len(reference.different), 0),
    ]
    facts = [
        Fact("tokens compared with mlx-lm's, paced", reference.compared),
        Fact("ties among them, paced", reference.ties),
        Fact("virtual time is slowed, where nothing else is said, paced", SLOW, "times"),
        *_kept("passes", field.passes),
        *_kept("hops", field.hops),
        Fact("whole ladder", time.monotonic() - began, "s"),
    ]
    notes = [
        "Paced: real daemons, sockets, caches and tokens of the embedded model; passes and hops "
        "are drawn out to the seed's times. No number says how fast this machine is.",
        "The oracle guesses at once: the time of a draft model is in neither column. Left out, "
        "until there is what they need: fp8 on the wire, a draft's delays, all together.",
        *reference.different,
    ]
    head = ("row", "the seed hopes for", "ours", "limit", "of the limit", "limit's plan")
    return checks, facts, notes, Table(head, [row.cells() for row in field.rows])


def _kept(what: str, kept: Kept) -> list[Fact]:
    late = sorted(kept.late)
    return [
        Fact(f"{what}, paced", kept.count),
        Fact(f"{what} whose real work took longer, paced", kept.overruns),
        Fact(f"{what}, late (p99), paced", late[len(late) * 99 // 100] * 1e3, "ms"),
    ]


def _baseline(field: Field) -> None:
    ours = _plain(field, TWO)
    field.add(Row("baseline", "15.9 measured", ours, 1 / TWO.round_seconds(1), None))
    ratio = ours / SEED_RATE
    field.checks.append(
        Check("paced.baseline_vs_seed", round(ratio, 4), "0.95 to 1.05", 0.95 <= ratio <= 1.05)
    )


def _direct(field: Field) -> None:
    pace = TWO.with_link(DIRECT)
    ours = _plain(field, pace, SLOW_DIRECT)
    how = f"slowed {SLOW_DIRECT:g} times"
    name = "RDMA-like link, hops ÷ 10"
    field.add(Row(name, "~22", ours, 1 / pace.round_seconds(1), 0.97, how=how), "direct")


def _plain(field: Field, pace: Pace, slow: float = SLOW) -> float:
    """One stream that nothing is guessed of."""
    with field.cluster(pace, slow=slow) as paced:
        answers = field.answers(1, round(field.few * SLOW / slow))
        return _streams(field, paced, answers, slow)


def _two_streams(field: Field) -> None:
    for name, pace in (("53/13", TWO), ("40/26", EVENED)):
        limit, groups = best_batches(pace, 2)
        with field.cluster(pace) as paced:
            ours = _streams(field, paced, field.answers(2, field.few))
        how = f"groups of {groups}"
        row = Row(f"2 streams, {name}", "a balanced split is best", ours, limit, 0.97, how=how)
        field.add(row, f"2_streams_{name}")


def _batching(field: Field) -> None:
    limit, groups = best_batches(TWO, STREAMS)
    with field.cluster(TWO) as paced:
        ours = _streams(field, paced, field.answers(STREAMS, field.few))
    hoped, how = "2-3 × the baseline", f"groups of {groups}"
    field.add(Row(f"{STREAMS} streams, continuous batching", hoped, ours, limit, None, how=how))
    field.checks.append(at_least("paced.8_streams_vs_baseline", ours / field.rows[0].ours, 6.0))


def _streams(field: Field, paced: Paced, answers: Sequence[Answer], slow: float = SLOW) -> float:
    """Tokens per second of virtual time."""
    tokens = len(answers[0].tokens)
    streams = paced.cluster.generate(PROMPTS[: len(answers)], tokens)
    for stream, answer in zip(streams, answers, strict=True):
        field.reference.compare(stream, answer)
    times = [stream.times for stream in streams]
    return slow * (rate(times[0]) if len(times) == 1 else window_rate(times))


def _synchronous(field: Field) -> None:
    _guessed(field, "speculation, one frame at a time", "22-25", TWO, (), 0.95)


def _overlapped(field: Field) -> None:
    _guessed(field, "speculation, overlapped", "~30", TWO, ACCEPTANCES, 0.93)


def _third_node(field: Field) -> None:
    _guessed(field, "third node, speculation overlapped", "25-28", THREE, (), 0.93)


def _guessed(
    field: Field, name: str, hoped: str, pace: Pace, beside: Sequence[float], share: float
) -> None:
    """One stream after the other, each with a prompt and an acceptance of its own."""
    ahead = "overlapped" in name
    acceptances = (ACCEPTANCE, *beside)
    answers = [
        field.answer(text, field.tokens if acceptance else field.few)
        for text, acceptance in zip(PROMPTS, acceptances, strict=False)
    ]
    scripts = [
        Script(answer.prompt, answer.tokens, trace(acceptance, len(answer.tokens)))
        for answer, acceptance in zip(answers, acceptances, strict=True)
    ]
    found: list[Stream] = []
    with field.cluster(pace, scripts, ahead) as paced:
        for text, answer in zip(PROMPTS, answers, strict=False):
            found += paced.cluster.generate([text], len(answer.tokens))
    for stream, answer, script, acceptance in zip(
        found, answers, scripts, acceptances, strict=True
    ):
        field.reference.compare(stream, answer)
        tokens, after = len(answer.tokens), AFTER if ahead else ()
        limit, plan = best_decode(pace, script.right, tokens, after=after)
        asked = share if acceptance == ACCEPTANCE else None
        label = f"{name}, an oracle right {acceptance:.0%} of the time"
        row = Row(label, hoped, SLOW * rate(stream.times), limit, asked, how=_said(plan))
        field.add(row, f"{'ahead' if ahead else 'synchronous'}_{len(pace.passes)}_nodes")


def _said(plan: Plan) -> str:
    ahead = f", then {plan.after} a frame, {plan.depth} frames" if plan.after else ""
    return f"{plan.first} guesses{ahead}"


def _second_turn(field: Field) -> None:
    reference = field.reference
    text = "\n".join(PROMPTS * 50)
    while len(reference.ids(text)) > HISTORY:
        text = text[: -max(1, len(reference.ids(text)) - HISTORY)]
    with field.cluster(TWO) as paced:
        ttft, computed, prompt = [], [], list[int]()
        for turn in (text, TURN):
            prompt += reference.ids(turn)
            stream = paced.cluster.requests.begin(turn, ANSWER, "ladder")
            paced.cluster.requests.wait(partial(_ended, stream))
            answer = reference.answer(prompt, ANSWER)
            reference.compare(stream, answer)
            computed.append(len(prompt) - int(stream.reply["cached_tokens"]))
            prompt += stream.ids
            ttft.append((stream.times[0] - stream.asked) / SLOW)
    limits = [first_token(TWO, tokens) for tokens in computed]
    for name, ours, limit in zip(("first turn", "second turn"), ttft, limits, strict=True):
        field.add(Row(f"first token, {name}", "huge for chat", ours * 1e3, limit * 1e3, None, "ms"))
    field.checks.append(at_most("paced.second_turn_vs_cold", ttft[1] / ttft[0], 1 / 20))


def _ended(stream: Stream) -> bool:
    return bool(stream.reply)


MEASURES: tuple[Callable[[Field], None], ...] = (
    _baseline,
    _third_node,
    _batching,
    _synchronous,
    _direct,
    _overlapped,
    _two_streams,
    _second_turn,
)
