"""A prompt of 2,000 tokens whose hidden states cross a cable of a given speed, as they are and in
fp8.

The link's time is that in which at least one of the prompt's frames was between the two stages, by
their own stamps: sent, once it is encoded, and received. The first stage has twice as many layers
as the second, which therefore waits for every frame, so that no frame seems to be under way because
nobody takes it in.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.guided.common import Findings
from benchmarks.models import STATE, RandomLlama
from benchmarks.report import Fact, at_most
from benchmarks.rounds import interleave
from benchmarks.shaped.cable import HOSTS, Cable, CableError, enter
from benchmarks.shaped.coordinator import TRACES
from benchmarks.shaped.shardd import OTHER_END
from benchmarks.worker import Worker, serve

MODEL = RandomLlama(hidden=2048, layers=3, heads=16, kv_heads=2, ffn=512, vocabulary=2048)
SPLIT = (2, 1)
PROMPT = 2000
CODECS = ("raw", "fp8")
SPEEDS = {"unshaped": None, "1 Gbit/s": 1000, "100 Mbit/s": 100}
ASKED = "100 Mbit/s"
TARGET = 0.3
ROUNDS = 2


def measure(found: Findings) -> None:
    try:
        cable = Cable()
    except CableError as error:
        found.checks.append(at_most("link_share_fp8_vs_raw.100_mbit", None, TARGET))
        found.notes.append(f"No links were shaped: {error}. That takes root, ip and tc.")
        return
    with cable, ExitStack() as stack:
        folder = MODEL.folder()
        workers = {
            codec: stack.enter_context(
                Worker(
                    __name__,
                    ["--ends", *cable.ends, "--codec", codec, "--folder", str(folder)],
                    environment=found.multiplier.environment,
                )
            )
            for codec in CODECS
        }
        for worker in workers.values():
            worker.ask(op="prefill", tokens=PROMPT)
        link: defaultdict[str, list[float]] = defaultdict(list)

        def turn(speed: str, codec: str) -> float:
            cable.shape(SPEEDS[speed])
            said = workers[codec].ask(op="prefill", tokens=PROMPT)
            link[_name(speed, codec)].append(said["link"])
            return PROMPT / float(said["seconds"])

        measured = interleave(
            {_name(s, c): partial(turn, s, c) for s in SPEEDS for c in CODECS},
            min(found.rounds, ROUNDS),
            warm=0,
            turn=found.calm.turn,
        )
    seconds = {name: statistics.median(values) for name, values in link.items()}
    share = seconds[_name(ASKED, "fp8")] / seconds[_name(ASKED, "raw")]
    found.checks.append(at_most("link_share_fp8_vs_raw.100_mbit", share, TARGET))
    for name in measured.values:
        rate = measured.median(name)
        found.facts += [
            Fact(f"prefill, {name}", rate, "prompt tok/s"),
            Fact(f"prefill, {name}: the link's time", seconds[name], "s"),
            Fact(f"prefill, {name}: the link's share", seconds[name] * rate / PROMPT),
        ]
    found.notes.append(
        f"Prefill over a cable: {PROMPT} tokens, hidden states of {MODEL.hidden} fp32 values, "
        f"{SPLIT[0]} + {SPLIT[1]} layers in two network namespaces with a token bucket filter at "
        "each end. The link's time is that in which at least one frame was between the stages, "
        "encoded and not yet received; its share is of the time to the first token."
    )


def link_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """In which at least one of these was under way: each from when it was sent until it was
    received.
    """
    total, until = 0.0, -math.inf
    for sent, received in sorted(spans):
        total += max(0.0, received - max(sent, until))
        until = max(until, received)
    return total


def _name(speed: str, codec: str) -> str:
    return f"{speed}, {codec}"


def main() -> None:
    """The process that measures, at the first end of the cable."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ends", nargs=2, required=True)
    parser.add_argument("--codec", choices=CODECS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    here, there = arguments.ends
    enter(here)
    traces = STATE / f"traces-{arguments.codec}.jsonl"
    traces.unlink(missing_ok=True)
    os.environ.update({TRACES: str(traces), OTHER_END: there})
    seeds = count(1)
    with PinnedCluster(
        arguments.folder,
        SPLIT,
        name=f"shaped-{arguments.codec}",
        module="benchmarks.shaped.shardd",
        hosts=HOSTS,
        codec=arguments.codec,
    ) as cluster:

        def prefill(tokens: int) -> dict[str, Any]:
            """A new prompt each time: nothing of it is known from before."""
            text = random_prompt(arguments.folder, tokens, next(seeds))[0]
            stream = cluster.generate([text], 1)[0]
            frames = map(json.loads, traces.read_text().splitlines())
            spans = [(f[0]["sent"], f[1]["received"]) for f in frames if len(f) == len(SPLIT)]
            during = [span for span in spans if span[0] >= stream.asked]
            seconds = stream.times[0] - stream.asked
            return {"seconds": seconds, "link": link_seconds(during), "frames": len(during)}

        serve({"prefill": prefill})


if __name__ == "__main__":
    main()
