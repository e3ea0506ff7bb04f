"""Guesses from what a text repeats: a llama of the measured shape whose answers repeat themselves
by construction, with and without.
"""

from __future__ import annotations

from functools import partial

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.guided.common import Findings, checked
from benchmarks.lineup import SPLIT
from benchmarks.paced.reference import Answer, Reference
from benchmarks.repeating import repeating_llama
from benchmarks.report import Fact
from benchmarks.rounds import interleave, window_rate

PROMPT, TOKENS = 16, 96
STREAMS = (1, 4)
OFF, ON = "512 x 16, repeating, no speculation", "512 x 16, repeating, n-grams"


def measure(found: Findings) -> None:
    folder = repeating_llama(found.options.model())
    prompts = [random_prompt(folder, PROMPT, seed) for seed in range(max(STREAMS))]
    tokens = found.tokens(TOKENS)
    with found.single(folder) as worker, Reference(folder, worker) as reference:
        answers = [reference.answer(ids, tokens) for _, ids in prompts]
        texts = [text for text, _ in prompts]
        with (
            PinnedCluster(folder, SPLIT, name="off") as off,
            PinnedCluster(folder, SPLIT, name="lookup", guessing=True) as lookup,
        ):
            measured = interleave(
                {
                    _name(who, n): partial(_rate, cluster, reference, texts[:n], answers[:n])
                    for who, cluster in ((OFF, off), (ON, lookup))
                    for n in STREAMS
                },
                found.rounds,
                turn=found.calm.turn,
            )
    found.facts += [
        Fact(f"{_name(ON, n)}, against no speculation", measured.ratio(_name(ON, n), _name(OFF, n)))
        for n in STREAMS
    ]
    found.rates(measured)
    found.agreed(reference, "repeating")
    distinct = min(len(set(answer.tokens)) for answer in answers)
    found.notes.append(
        "512 x 16, repeating: random weights, but an embedding and a head that let each token be "
        "followed by the next of a cycle of 12 until the layers lead elsewhere "
        f"(benchmarks/repeating.py); {tokens} tokens, at least {distinct} of them different."
    )


def _name(who: str, streams: int) -> str:
    return f"{who}, {streams} stream{'s' if streams > 1 else ''}"


def _rate(
    cluster: PinnedCluster, reference: Reference, texts: list[str], answers: list[Answer]
) -> float:
    streams = cluster.generate(texts, len(answers[0].tokens))
    checked(reference, streams, answers)
    return window_rate([stream.times for stream in streams])
