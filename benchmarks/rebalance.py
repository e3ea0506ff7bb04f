"""A quarter of the layers moves to another node and back while four streams are read: the longest
gap between two tokens that any of them sees, at two lengths of context.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, pairwise
from typing import Any

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, at_least, at_most
from benchmarks.requests import ClusterError, Stream

CONTEXTS = (2000, 4000)
STREAMS = 4
MOVES = 20  # at each length
SPLITS = ((8, 8), (12, 4))  # of 16 layers
BEFORE, AFTER = 24, 8  # tokens that every stream has before a move begins, and after it has ended
MOST = 3000  # tokens that a stream may have come to when a move ends
NAMES = ("bench0", "bench1")


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    kind = have[0].kind if have else ""
    folder = replace(options.model(), context=8192).folder()
    moves = 2 if options.quick else MOVES
    longest: dict[int, float] = {}
    facts: list[Fact] = []
    wrong = 0
    for context in CONTEXTS:
        length = context // 8 if options.quick else context
        texts = [random_prompt(folder, length, 5000 + n)[0] for n in range(STREAMS)]
        with PinnedCluster(folder, SPLITS[0], kind) as cluster:
            ratios, replies, different = _measure(cluster, texts, moves)
        wrong += different
        longest[context] = statistics.median(ratios)
        facts += _facts(context, ratios, replies)
    first, second = (longest[context] for context in CONTEXTS)
    checks = [
        *(
            at_most(f"longest_gap_vs_median_gap_at_{context}", longest[context], 3.0)
            for context in CONTEXTS
        ),
        at_least("longest_gap_does_not_grow_with_context", 1.2 - abs(second / first - 1.0), 1.0),
        at_most("streams_that_differ_from_their_undisturbed_run", wrong, 0),
    ]
    notes.append(
        f"{STREAMS} streams, {moves} moves at each length between layers {SPLITS[0]} and "
        f"{SPLITS[1]} of 16. A gap is seen by the client. Longest: of all streams, from the moment "
        "that the move is asked for until it has ended, loading and copying included; against the "
        "median gap of the same streams before it. The check is on the median of all moves."
    )
    return checks, facts, notes


def _measure(
    cluster: PinnedCluster, texts: Sequence[str], moves: int
) -> tuple[list[float], list[dict[str, Any]], int]:
    """For each move the longest gap in medians, and what was replied; and how many streams had
    other tokens than without one.
    """
    requests = cluster.requests
    alone = _begin(cluster, texts, BEFORE)
    _cancel(cluster, alone)
    ratios, replies, different = [], [], 0
    splits: Iterator[tuple[int, ...]] = cycle((*SPLITS[1:], SPLITS[0]))
    for _ in range(moves):
        streams = _begin(cluster, texts, BEFORE)
        had = [len(stream.times) for stream in streams]
        asked = requests.run("rebalance", split=list(next(splits)), nodes=list(NAMES))
        requests.wait(lambda asked=asked: bool(asked.reply))  # type: ignore[misc]
        ends = [len(stream.times) + AFTER for stream in streams]
        requests.wait(lambda s=streams, e=ends: _have(s, e))  # type: ignore[misc]
        calm = [
            b - a
            for stream, count in zip(streams, had, strict=True)
            for a, b in pairwise(stream.times[4:count])
        ]
        disturbed = [
            b - a
            for stream, count in zip(streams, had, strict=True)
            for a, b in pairwise(stream.times[count - 1 :])
        ]
        _cancel(cluster, streams)
        if asked.reply["replayed"]:
            raise ClusterError(f"KV was computed again: {asked.reply['why']}")
        ratios.append(max(disturbed) / statistics.median(calm))
        replies.append(asked.reply)
        different += _different(alone, streams)
        alone = _longer(alone, streams)
    return ratios, replies, different


def _begin(cluster: PinnedCluster, texts: Sequence[str], tokens: int) -> list[Stream]:
    """Until each has so many tokens; what was kept of an earlier run is not computed again."""
    streams = [cluster.requests.begin(text, MOST) for text in texts]
    cluster.requests.wait(lambda: _have(streams, [tokens] * len(streams)))
    return streams


def _have(streams: Sequence[Stream], tokens: Sequence[int]) -> bool:
    if any(stream.reply for stream in streams):
        raise ClusterError("a stream has ended before the move")
    return all(len(s.times) >= n for s, n in zip(streams, tokens, strict=True))


def _cancel(cluster: PinnedCluster, streams: Sequence[Stream]) -> None:
    cluster.requests.ask("cancel", sequence="all")
    cluster.requests.wait(lambda: all(stream.reply for stream in streams))


def _different(one: Sequence[Stream], other: Sequence[Stream]) -> int:
    """By the tokens that both have."""
    pairs = zip(one, other, strict=True)
    return sum(any(a != b for a, b in zip(s.ids, t.ids, strict=False)) for s, t in pairs)


def _longer(one: Sequence[Stream], other: Sequence[Stream]) -> list[Stream]:
    return [max(s, t, key=lambda x: len(x.ids)) for s, t in zip(one, other, strict=True)]


def _facts(
    context: int, ratios: Sequence[float], replies: Sequence[dict[str, Any]]
) -> Iterator[Fact]:
    at = f"at {context:,} tokens"
    yield Fact(f"moves {at}", len(ratios))
    yield Fact(f"longest gap {at}, least of all moves", min(ratios), "medians")
    yield Fact(f"longest gap {at}, most of all moves", max(ratios), "medians")
    for what, key, unit in (
        ("KV copied", "copied_bytes", "bytes"),
        ("tokens that clients were given meanwhile", "tokens", "tokens"),
    ):
        yield Fact(f"{what}, {at}", statistics.median(reply[key] for reply in replies), unit)
    phases: dict[str, list[float]] = {}
    for reply in replies:
        for phase, seconds in reply["seconds"].items():
            phases.setdefault(phase, []).append(seconds)
    for phase, several in phases.items():
        yield Fact(f"seconds of {phase}, {at}", statistics.median(several), "s")
