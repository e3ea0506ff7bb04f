"""The cluster that the seed of this project measured, and what it hoped for, one row each: measured
on a paced replica, beside the best that could be had there.

Where the seed says nothing, what is assumed stands in `benchmarks/paced/pace.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.limit import batches, best_batches, first_token
from benchmarks.options import Options
from benchmarks.paced import guessed, together
from benchmarks.paced.field import PROMPTS, SLOW, TWO, Field, Row
from benchmarks.paced.pace import MS, Link, Pace
from benchmarks.paced.plan import Kept
from benchmarks.paced.reference import Reference
from benchmarks.report import Check, Fact, Table, at_least, at_most
from benchmarks.requests import Stream
from transports.codecs.layout import Codec

SLOW_DIRECT = 8.0  # so that a real socket fits into a hop of 0.3 ms
SEED_RATE = 15.9
LAYERS = 66
EVENED = Pace((5, 3), (20 * MS, 45 * MS))  # 40 and 26 layers, as the seed expects them
DIRECT = Link().quicker(10)
TOKENS = 32  # of an answer, where nothing is guessed
STREAMS = 8
HISTORY, ANSWER, TURN = 2000, 12, "\n\n\nclass Second:\n    def __init__(self) -> None:\n"


def split_pace(layers: int) -> Pace:
    """With so many layers on the first node, by the times per layer that the seed gives for each:
    30 ms of 53 there; 18 ms more for 13 more on the second, and what is left of its 27 is the head.
    """
    second = 27 * MS + 18 * MS / 13 * (53 - layers)
    return Pace((6, 2), (30 * MS / 53 * layers, second))


def best_split(groups: tuple[int, ...] | None = None) -> int:
    """Layers on the first node with which two streams give the most tokens, in the groups that are
    best, or in these. The first node's memory is not known, and the second has one layer at least.
    """

    def rate(layers: int) -> float:
        pace = split_pace(layers)
        return batches(pace, groups) if groups else best_batches(pace, 2)[0]

    return max(range(1, LAYERS), key=rate)


def run(options: Options) -> tuple[list[Check], list[Fact], list[str], Table]:
    began = time.monotonic()
    with Reference() as reference:
        field = Field(reference, options.quick)
        for measure in MEASURES:
            field.measure(measure)
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
        "Guesses are an oracle's, right as often as is said, from a draft process that takes 3 ms "
        "for each, or at once where that is said; for both columns. The limit is the best fixed "
        "plan in hindsight: it need not find out how often guesses are right.",
        "With fp8 on the wire the tokens are those of one process that codes hidden states alike.",
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
    field.add(Row("baseline", "15.9 measured", ours, 1 / TWO.round_seconds(1)))
    ratio = ours / SEED_RATE
    field.checks.append(
        Check("paced.baseline_vs_seed", round(ratio, 4), "0.95 to 1.05", 0.95 <= ratio <= 1.05)
    )


def _coded(field: Field) -> None:
    """Its tokens are compared with those of one process that codes hidden states as well."""
    pace = replace(TWO, codec=Codec.FP8)
    with field.reference.coded(pace.layers, pace.codec) as reference:
        answers = [reference.answer(reference.ids(PROMPTS[0]), field.length(TOKENS))]
        with field.cluster(pace) as paced:
            ours = field.streams(paced, answers)
    field.add(Row("fp8 on the wire", "~21", ours, 1 / pace.round_seconds(1)), "fp8", 0.97)


def _direct(field: Field) -> None:
    pace = TWO.with_link(DIRECT)
    ours = _plain(field, pace, SLOW_DIRECT)
    how = f"slowed {SLOW_DIRECT:g} times"
    name = "RDMA-like link, hops ÷ 10"
    field.add(Row(name, "~22", ours, 1 / pace.round_seconds(1), how=how), "direct", 0.97)


def _plain(field: Field, pace: Pace, slow: float = SLOW) -> float:
    """One stream that nothing is guessed of."""
    with field.cluster(pace, slow=slow) as paced:
        answers = field.answers(1, round(TOKENS * SLOW / slow))
        return field.streams(paced, answers, slow)


def _two_streams(field: Field) -> None:
    splits = {"53/13": TWO, "40/26": EVENED}
    for groups, why in (((1, 1), "the best that overlaps"), (None, "the best of all")):
        layers = best_split(groups)
        splits[f"{layers}/{LAYERS - layers}, {why} by the seed's times"] = split_pace(layers)
    for name, pace in splits.items():
        limit, best = best_batches(pace, 2)
        with field.cluster(pace) as paced:
            ours = field.streams(paced, field.answers(2, TOKENS))
        row = Row(f"2 streams, {name}", "a balanced split is best", ours, limit, how=_in(best))
        field.add(row, f"2_streams_{name.split(',')[0]}", 0.97)


def _batching(field: Field) -> None:
    limit, best = best_batches(TWO, STREAMS)
    with field.cluster(TWO) as paced:
        ours = field.streams(paced, field.answers(STREAMS, TOKENS))
    name = f"{STREAMS} streams, continuous batching"
    field.add(Row(name, "2-3 × the baseline", ours, limit, how=_in(best)))
    field.checks.append(at_least("paced.8_streams_vs_baseline", ours / field.rows[0].ours, 6.0))


def _in(groups: tuple[int, ...]) -> str:
    return f"groups of {groups}"


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
        field.add(Row(f"first token, {name}", "huge for chat", ours * 1e3, limit * 1e3, "ms"))
    field.checks.append(at_most("paced.second_turn_vs_cold", ttft[1] / ttft[0], 1 / 20))


def _ended(stream: Stream) -> bool:
    return bool(stream.reply)


MEASURES: tuple[Callable[[Field], None], ...] = (
    _baseline,
    _coded,
    guessed.three_nodes,
    _batching,
    guessed.two_nodes,
    _direct,
    _two_streams,
    _second_turn,
    together.two_nodes,
    together.three_nodes,
)
