"""Requests at random: long and short prompts, with and without stop tokens. Many begin as others
do, or go on where others ended.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from daemon.fidelity import Fidelity
from daemon.footprint import Footprint, StageMemory
from daemon.sampling import SamplingParams
from daemon.scheduler.request import Request
from tests.simulator.model import VOCABULARY
from transports.codecs.layout import Codec

CONTEXT = 160
CODED = ((2, Codec.FP8),)
FIDELITIES = (*[Fidelity()] * 4, Fidelity(8), Fidelity(0, CODED))


def random_request(
    rng: random.Random,
    histories: Sequence[Sequence[int]] = (),
    longest: int = 25,
    head: Sequence[int] = (),
) -> Request:
    """`histories` are prompts and answers so far, some of them not at their end. With a `head` all
    begin with it.
    """
    length = rng.choice((1, 2, rng.randint(3, 60), rng.randint(60, CONTEXT - 1)))
    tokens: list[int] = []
    if head:
        tokens, length = list(head), len(head) + rng.choice((0, 1, rng.randint(2, 30)))
    elif histories and rng.random() < 0.8:
        tokens = list(rng.choice(histories))
        if rng.random() < 0.5:  # else the next turn of the same talk
            del tokens[rng.randint(len(tokens) // 2, len(tokens)) :]
        length = min(CONTEXT - 1, max(len(tokens), 1) + rng.choice((0, 1, 5, 40)))
    tokens += [rng.randrange(VOCABULARY) for _ in range(length - len(tokens))]
    return Request(
        sequence=rng.randbytes(16),
        prompt=tuple(tokens[:length]),
        max_tokens=rng.randint(1, longest),
        params=SamplingParams(seed=rng.randrange(1000)),
        stop_tokens=frozenset(rng.sample(range(VOCABULARY), rng.choice((0, 0, 3)))),
        fidelity=rng.choice(FIDELITIES),
    )


def random_memory(rng: random.Random, budget: int) -> StageMemory:
    """Bytes are tokens here. The smallest budget has no room for some of the requests, a middling
    one for one at a time, or for two.
    """
    footprints = {0: Footprint(1, rng.choice((0, 10))), 8: Footprint(1, 0)}
    return StageMemory(budget, footprints, rng.choice((None, None, 20)))
