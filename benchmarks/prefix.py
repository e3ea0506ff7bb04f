"""The second turn of a conversation against a cold prompt of the same length, from memory and from
disk; and what looking for something to reuse costs when there is nothing.
"""

from __future__ import annotations

import shutil
import statistics
import time
from itertools import count, pairwise

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.coordinator import turnover_seconds
from benchmarks.lineup import SPLIT
from benchmarks.models import STATE
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, at_most
from benchmarks.requests import ClusterError, Stream
from daemon.scheduler.pipeline import Limits

HISTORY = 2000
TURN = 16
ANSWER = 16
REPEATS = 5
SAVE_SECONDS = 60.0
STREAMS = 8
TURNOVER = 64  # tokens of a prompt, and of an answer, in the simulation


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    kind = have[0].kind if have else ""
    folder = options.model().folder()
    history = HISTORY // 8 if options.quick else HISTORY
    repeats = 1 if options.quick else REPEATS
    texts = (random_prompt(folder, history, seed)[0] for seed in count(3000))
    turns = (random_prompt(folder, TURN, seed)[0] for seed in count(4000))
    cold: list[float] = []
    warm: list[float] = []
    from_disk: list[float] = []
    reused: list[float] = []
    step = 0.0
    for number in range(repeats):
        for saved in STATE.glob(f"cluster-{kind or 'default'}/*/kv"):
            shutil.rmtree(saved)  # of an earlier run
        name = f"bench-{number}"
        with PinnedCluster(folder, SPLIT, kind) as cluster:
            _forget(cluster, name)
            _ask(cluster, next(turns), None)  # so that nothing is done for the first time
            cold.append(_ttft(first := _ask(cluster, next(texts), name)))
            if first.reply["cached_tokens"]:
                raise ClusterError("something was known of what should be cold")
            warm.append(_ttft(second := _ask(cluster, next(turns), name)))
            reused.append(second.reply["cached_tokens"] / second.reply["prompt_tokens"])
            _wait_until_saved(cluster, second.reply["prompt_tokens"])
            step = step or _step(cluster, [next(turns) for _ in range(STREAMS)])
        with PinnedCluster(folder, SPLIT, kind) as cluster:  # every process is a new one
            from_disk.append(_ttft(third := _ask(cluster, next(turns), name)))
            if not third.reply["cached_tokens"]:
                raise ClusterError("nothing was read from disk")
    keeping, forgetting = (
        statistics.median(turnover_seconds(STREAMS, TURNOVER, limits) for _ in range(3))
        for limits in (Limits(), Limits(max_kept=0))
    )
    checks = [
        at_most("second_turn_vs_cold", _ratio(warm, cold), 1 / 20),
        at_most("from_disk_after_restart_vs_cold", _ratio(from_disk, cold), 1 / 4),
        at_most("share_of_time_with_nothing_to_reuse", (keeping - forgetting) / (step / 4), 0.01),
    ]
    facts = [
        Fact("first token, cold", statistics.median(cold) * 1e3, "ms"),
        Fact("first token, second turn", statistics.median(warm) * 1e3, "ms"),
        Fact("first token, from disk after a restart", statistics.median(from_disk) * 1e3, "ms"),
        Fact("share of the second turn's prompt that was not computed", min(reused)),
        Fact("scheduler per token, keeping what ended", keeping * 1e6, "us"),
        Fact("scheduler per token, keeping nothing", forgetting * 1e6, "us"),
        Fact("step of 8 streams in two groups of 4", step * 1e3, "ms"),
    ]
    notes.append(f"History of {history} tokens, turns of {TURN}; {repeats} conversations.")
    notes.append(
        "Cost with nothing to reuse: the scheduler's time per token, simulated, while requests of "
        f"{TURNOVER} + {TURNOVER} tokens that share nothing come and go, keeping what ended or "
        "not, against a step. Stages do nothing for it until something is reused or saved."
    )
    return checks, facts, notes


def _ask(cluster: PinnedCluster, text: str, conversation: str | None) -> Stream:
    stream = cluster.requests.begin(text, ANSWER, conversation)
    cluster.requests.wait(lambda: bool(stream.reply))
    return stream


def _wait_until_saved(cluster: PinnedCluster, tokens: int) -> None:
    """An entry of so many tokens, which was used just now."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < SAVE_SECONDS:
        saved = [e for e in cluster.requests.ask("kv")["entries"] if e["state"] == "saved"]
        if any(e["complete"] and e["tokens"] >= tokens and e["idle"] < waited + 2 for e in saved):
            return
        time.sleep(0.2)
    raise ClusterError(f"the conversation was not saved within {SAVE_SECONDS:.0f} s")


def _step(cluster: PinnedCluster, texts: list[str]) -> float:
    """Median seconds between two tokens of one of eight streams: a round of two groups; half of it
    is a step.
    """
    streams = cluster.generate(texts, 32)
    gaps = [b - a for stream in streams for a, b in pairwise(stream.times[8:])]
    return statistics.median(gaps) / 2


def _ttft(stream: Stream) -> float:
    return stream.times[0] - stream.asked


def _ratio(values: list[float], against: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, against, strict=True))


def _forget(cluster: PinnedCluster, name: str) -> None:
    """Of an earlier run."""
    known = cluster.requests.ask("conversation.list")["conversations"]
    if any(conversation["name"] == name for conversation in known):
        cluster.requests.ask("conversation.forget", conversation=name)
