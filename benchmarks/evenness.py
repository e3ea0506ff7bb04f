"""How even running streams go: the longest gap between two tokens of any of them, against their
median gap, while a long prompt is read, and while others join and leave.
"""

from __future__ import annotations

import statistics
from itertools import count, pairwise
from pathlib import Path

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_most
from benchmarks.requests import Requests, Stream

LONG_PROMPT = 4000
CONTEXT = 2000
STREAMS = 8
SHORT_PROMPT = 8
QUIET_TOKENS = 40
COMERS = 6  # that join one after the other, and leave after some tokens


def measure(
    cluster: PinnedCluster, folder: Path, options: Options
) -> tuple[list[Check], list[Fact]]:
    found = _Evenness(cluster.requests, folder, options.quick)
    checks: list[Check] = []
    facts: list[Fact] = []
    for streams in (1, 4):
        quiet, longest = found.beside_a_long_prompt(streams)
        name = f"longest_gap_beside_long_prompt.{streams}"
        checks.append(at_most(name, longest / quiet, 3.0))
        facts.append(Fact(f"median gap of {streams} undisturbed", quiet * 1e3, "ms"))
    quiet, steady, longest = found.joins_and_leaves()
    checks.append(at_most("longest_gap_at_join_or_leave", longest / quiet, 1.5))
    facts.append(Fact(f"median gap, {STREAMS} streams of {CONTEXT} tokens", quiet * 1e3, "ms"))
    facts.append(Fact("longest gap against the median, nobody joins", steady / quiet))
    return checks, facts


class _Evenness:
    def __init__(self, requests: Requests, folder: Path, quick: bool) -> None:
        self._requests = requests
        self._folder = folder
        self._shorter = 8 if quick else 1
        self._seeds = count(1000)

    def beside_a_long_prompt(self, streams: int) -> tuple[float, float]:
        """Median gap before, longest gap while the prompt is read, in seconds."""
        prompt = self._prompt(LONG_PROMPT // self._shorter)
        running = self._start(streams, SHORT_PROMPT)
        self._more(running, QUIET_TOKENS)
        quiet = statistics.median(_gaps(running, running[0].times[4]))
        long = self._requests.begin(prompt, 1)
        self._requests.wait(lambda: bool(long.times))
        self._more(running, 2)
        longest = max(_gaps(running, long.asked))
        self._end(running)
        return quiet, longest

    def joins_and_leaves(self) -> tuple[float, float, float]:
        """Median gap, longest without and with others that come and go, in seconds."""
        prompts = [self._prompt(2) for _ in range(COMERS)]
        running = self._start(STREAMS, CONTEXT // self._shorter)
        self._more(running, QUIET_TOKENS)
        first = max(stream.times[2] for stream in running)
        before = _gaps(running, first)
        began = max(stream.times[-1] for stream in running)
        for prompt in prompts:
            self._until_ended(self._requests.begin(prompt, 6))
            self._more(running, 4)
        during = _gaps(running, began)
        self._end(running)
        return statistics.median(before), max(before), max(during)

    def _prompt(self, tokens: int) -> str:
        """A new one each time: nothing of it is known from before. It takes time to make, in which
        nobody looks at what arrives.
        """
        return random_prompt(self._folder, tokens, next(self._seeds))[0]

    def _start(self, streams: int, prompt: int) -> list[Stream]:
        prompts = [self._prompt(prompt) for _ in range(streams)]
        running = [self._requests.begin(text, 2000) for text in prompts]
        self._requests.wait(lambda: all(stream.times for stream in running))
        return running

    def _more(self, running: list[Stream], tokens: int) -> None:
        wanted = [len(stream.times) + tokens for stream in running]
        self._requests.wait(
            lambda: all(len(s.times) >= n for s, n in zip(running, wanted, strict=True))
        )

    def _until_ended(self, stream: Stream) -> None:
        self._requests.wait(lambda: bool(stream.reply))

    def _end(self, running: list[Stream]) -> None:
        for stream in running:
            self._requests.ask("cancel", sequence=stream.sequence)
        self._requests.wait(lambda: all(stream.reply for stream in running))


def _gaps(streams: list[Stream], since: float) -> list[float]:
    """Seconds between tokens that came after `since`; the one that was under way then included."""
    return [
        later - earlier
        for stream in streams
        for earlier, later in pairwise(stream.times)
        if later > since
    ]
