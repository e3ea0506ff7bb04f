"""What a reader sees when a hop goes over to RDMA in the middle of an answer, and when an rdma
process is killed, crashes or stands still under it.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, at_most
from benchmarks.requests import ClusterError, Stream
from daemon.config.sections import RdmaConfig

SPLIT = (8, 8)
PROMPT = 64  # tokens
MOST = 3000  # tokens that a stream may have come to when all is over
MARGIN = 12  # tokens before and after whatever happens
TURNS = 8  # of each
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
GAP_MS = 300.0  # beyond the watchdog, where it is that which finds out
WATCHDOG_MS = RdmaConfig().watchdog_s * 1000
UPGRADE = 2.0  # median times of a token
AROUND_S = 0.05  # of the word that a hop has gone over: the turn itself was just before it
PATIENCE_S = 60.0
RDMA = "daemon.rdma"


@dataclass(slots=True)
class Seen:
    """By the reader, in all turns. Gaps are in milliseconds after a signal, and in median times of
    a token when RDMA was enabled: around the turn, and from the moment that it was asked for.
    """

    lost: dict[signal.Signals, list[float]] = field(
        default_factory=lambda: {one: [] for one in SIGNALS}
    )
    turned: list[float] = field(default_factory=list)
    enabled: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)  # seconds
    different: int = 0  # answers
    restarted: int = 0  # stage processes


def measure(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    kind = have[0].kind if have else ""
    folder = options.model().folder()
    text = random_prompt(folder, PROMPT, 6000)[0]
    turns = 1 if options.quick else TURNS
    seen = Seen()
    with PinnedCluster(folder, SPLIT, kind, name="rdma", rdma="ring") as cluster:
        reader = Reader(cluster, text, seen)
        for turn in range(turns):
            for number, what in enumerate(SIGNALS):
                reader.turn(what, victim=(turn + number) % len(SPLIT))
    notes.append(
        f"Gaps are seen by the client of one stream, {turns} of each signal to an rdma process of"
        f" either end in turn, {turns * len(SIGNALS)} enablings; watchdog {WATCHDOG_MS:g} ms. The"
        f" turn: within {AROUND_S * 1000:g} ms of the word that a hop has gone over. Enabling: from"
        " the request to its reply, while two rdma processes start up on the stages' own two cores."
    )
    return list(_checks(seen)), list(_facts(seen)), notes


class Reader:
    def __init__(self, cluster: PinnedCluster, text: str, seen: Seen) -> None:
        self._cluster = cluster
        self._requests = cluster.requests
        self._text = text
        self._seen = seen
        self._events = self._requests.follow()
        self._longest: list[int] = []  # ids of the answer, as far as any stream has had it

    def turn(self, what: signal.Signals, victim: int) -> None:
        """An answer during which RDMA is enabled, and one of its processes gets this signal."""
        seen, stages = self._seen, self._stages()
        self._requests.ask("kv.evict", sequence="all")
        stream = self._requests.begin(self._text, MOST)
        self._have_more(stream)
        asked, turned, replied = self._enable()
        self._have_more(stream)
        sent = time.monotonic()
        os.kill(self._cluster.children(RDMA)[victim], what)
        self._until(lambda: not self._on_rdma(), "the loss is not noticed")
        noticed = time.monotonic()
        self._have_more(stream)
        self._end(stream)
        median = statistics.median(b - a for a, b in pairwise(stream.times))
        seen.medians.append(median)
        seen.lost[what].append(_longest(stream, sent, noticed) * 1000)
        seen.turned.append(_longest(stream, turned - AROUND_S, turned + AROUND_S) / median)
        seen.enabled.append(_longest(stream, asked, replied) / median)
        seen.restarted += self._stages() != stages
        seen.different += any(a != b for a, b in zip(self._longest, stream.ids, strict=False))
        self._longest = max(self._longest, stream.ids, key=len)

    def _enable(self) -> tuple[float, float, float]:
        """When it was asked for, the hop had gone over, and it was answered."""
        known = len(self._events)
        clock = time.time() - time.monotonic()
        asked = self._requests.run("rdma.enable")
        self._requests.wait(lambda: bool(asked.reply))
        replied = time.monotonic()
        if not self._on_rdma():
            raise ClusterError(f"the hop does not go by RDMA: {asked.reply}")
        turns = [
            e["time"]
            for e in self._events[known:]
            if e["kind"] == "path" and e["text"].endswith("by rdma")
        ]
        return asked.asked, turns[0] - clock, replied

    def _end(self, stream: Stream) -> None:
        """No process is left for the next turn."""
        self._requests.ask("cancel", sequence="all")
        self._requests.wait(lambda: bool(stream.reply))
        self._requests.ask("rdma.disable")
        self._until(lambda: not self._cluster.children(RDMA), "the rdma processes do not end")

    def _on_rdma(self) -> bool:
        return all(hop["path"] == "rdma" for hop in self._cluster.status()["hops"][1:-1])

    def _stages(self) -> list[int]:
        return [node["stage_pid"] for node in self._cluster.status()["nodes"]]

    def _have_more(self, stream: Stream) -> None:
        enough = len(stream.times) + MARGIN
        self._requests.wait(lambda: len(stream.times) >= enough or bool(stream.reply))
        if stream.reply:
            raise ClusterError("the answer has ended too early")

    def _until(self, done: Callable[[], bool], why: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise ClusterError(why)
            time.sleep(0.01)


def _longest(stream: Stream, begin: float, end: float) -> float:
    """The longest gap, in seconds, of which some part was between these times."""
    return max(b - a for a, b in pairwise(stream.times) if b >= begin and a <= end)


def _checks(seen: Seen) -> Iterator[Check]:
    for what, gaps in seen.lost.items():
        most = GAP_MS + (WATCHDOG_MS if what is signal.SIGSTOP else 0.0)
        yield at_most(f"gap_ms.{what.name}.longest", max(gaps), most)
    yield at_most("gap_in_median_tokens.turn_to_rdma.longest", max(seen.turned), UPGRADE)
    yield at_most("gap_in_median_tokens.enabling.longest", max(seen.enabled), UPGRADE)
    yield at_most("answers_that_differ_from_each_other", seen.different, 0)
    yield at_most("stage_processes_that_are_others", seen.restarted, 0)


def _facts(seen: Seen) -> Iterator[Fact]:
    for what, gaps in seen.lost.items():
        yield Fact(f"gap_ms.{what.name}.median", statistics.median(gaps), "ms")
    for name, gaps in (("turn_to_rdma", seen.turned), ("enabling", seen.enabled)):
        yield Fact(f"gap_in_median_tokens.{name}.median", statistics.median(gaps))
    yield Fact("median_token_ms", statistics.median(seen.medians) * 1000, "ms")
