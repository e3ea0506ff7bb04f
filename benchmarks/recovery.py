"""One of three equal stages is killed with SIGKILL in the middle of an answer: how soon the next
token comes, and how much is computed for it, when the stage before has kept the hidden states that
it sent on, and when nothing is kept, so that all stages compute everything again. And what keeping
costs while nothing happens.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from benchmarks.calm import Calm
from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.models import RandomLlama
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, Table, at_most
from benchmarks.requests import ClusterError
from benchmarks.rounds import interleave, rate

SPLIT = (5, 5, 5)
CONTEXT = 1500
BEFORE = 16  # tokens of the answer when it happens, of the context
WALL, CPU = 0.75, 0.45  # of a full replay
KEPT, REPLAYED = "kept", "replayed"
HIDDEN = {KEPT: None, REPLAYED: 0}


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the kill: until its exit is known, the new process has said hello, it has its
    layers, and the pipeline is up; and from then on until the next token, with the CPU seconds of
    all processes meanwhile.
    """

    exited: float
    joined: float
    loaded: float
    up: float
    again: float
    cpu: float
    ids: tuple[int, ...]


def run(options: Options) -> tuple[list[Check], list[Fact], list[str], Table]:
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    kind = have[0].kind if have else ""
    folder = RandomLlama(layers=sum(SPLIT)).folder()
    context = CONTEXT // 8 if options.quick else CONTEXT
    seeds = count(5000)
    found: dict[str, list[Recovery]] = {KEPT: [], REPLAYED: []}
    calm = Calm(options.patience)
    with ExitStack() as stack:
        clusters = {
            name: stack.enter_context(
                PinnedCluster(folder, SPLIT, kind, name=name, hidden_memory=hidden)
            )
            for name, hidden in HIDDEN.items()
        }
        for number in range(options.counted):
            text = random_prompt(folder, context - BEFORE, next(seeds))[0]
            names = list(found) if number % 2 else list(found)[::-1]
            for name in names:
                found[name].append(_recover(clusters[name], text, number % len(SPLIT)))
        refills = clusters[KEPT].requests.ask("pipeline")["refills"]
        text = random_prompt(folder, 64, next(seeds))[0]
        contestants = {
            name: partial(_rate, cluster, text, options.tokens(kind))
            for name, cluster in clusters.items()
        }
        rates = interleave(contestants, options.counted, turn=calm.turn)
        kept_bytes = _kept_bytes(clusters[KEPT], text)
    pairs = list(zip(found[KEPT], found[REPLAYED], strict=True))
    checks = [
        at_most("wall_after_reload_vs_replay", _median(a.again / b.again for a, b in pairs), WALL),
        at_most("cpu_seconds_vs_replay", _median(a.cpu / b.cpu for a, b in pairs), CPU),
    ]
    same = sum(a.ids == b.ids for a, b in pairs)
    facts = [
        Fact("rounds in which both gave the same tokens", same, f"of {len(pairs)}"),
        Fact("sequences refilled", refills["begun"]),
        Fact("refills that met a hole", refills["given up"]),
        Fact("tokens/s with keeping, of those without", rates.ratio(KEPT, REPLAYED)),
        Fact("kept per token and hop", kept_bytes, "bytes"),
    ]
    notes += [
        f"{context} tokens of context, {sum(SPLIT)} layers of the usual model, each of the three "
        "stages in turn. Both clusters run side by side, one idle; three stages share two cores.",
        "Wall and CPU are from the moment the pipeline is up again; the reload before it is in the "
        "table, and is the same for both. " + calm.note(),
    ]
    return checks, facts, notes, _table(found)


def _recover(cluster: PinnedCluster, text: str, victim: int) -> Recovery:
    """Of a request that is answered while the stage at `victim` is killed."""
    requests = cluster.requests
    requests.ask("kv.evict", sequence="all")
    events = requests.follow()
    stream = requests.begin(text, 2 * BEFORE)
    requests.wait(lambda: len(stream.times) >= BEFORE)
    (pid,) = [n["stage_pid"] for n in cluster.status()["nodes"] if n["stage"] == victim]
    known, had = len(events), len(stream.times)
    killed, began = time.time(), time.monotonic()
    os.kill(pid, signal.SIGKILL)
    requests.wait(lambda: any(e["kind"] == "pipeline-up" for e in events[known:]))
    up, before = time.monotonic(), cluster.cpu_seconds()
    requests.wait(lambda: len(stream.times) > had)
    cpu = _spent(before, cluster.cpu_seconds())
    again = stream.times[had] - up
    requests.wait(lambda: bool(stream.reply))
    if stream.reply["reissues"] < 1 or len(stream.ids) != 2 * BEFORE:
        raise ClusterError("the request was not interrupted, or not completed")
    at = {e["kind"]: e["time"] - killed for e in events[known:]}
    return Recovery(
        at["exited"], at["stage-joined"], at["loaded"], up - began, again, cpu, tuple(stream.ids)
    )


def _spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _kept_bytes(cluster: PinnedCluster, text: str) -> float:
    """Of the first stage, a token."""
    cluster.generate([text], BEFORE)
    rows: list[dict[str, Any]] = cluster.requests.ask("kv")["sequences"]
    return _median(row["hidden_bytes"] / row["tokens"] for row in rows if row["stage"] == 0)


def _table(found: Mapping[str, list[Recovery]]) -> Table:
    """Medians, in seconds from the kill."""
    head = ("medians, s", "exit known", "new process says hello", "layers loaded, warm",
            "pipeline up", "next token after that", "CPU meanwhile")  # fmt: skip
    rows = []
    for name, all_of in found.items():
        values = [
            _median(getattr(one, field) for one in all_of)
            for field in ("exited", "joined", "loaded", "up", "again", "cpu")
        ]
        rows.append((name, *(f"{value:.2f}" for value in values)))
    return Table(head, rows)


def _rate(cluster: PinnedCluster, text: str, tokens: int) -> float:
    return rate(cluster.generate([text], tokens)[0].times)


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))
