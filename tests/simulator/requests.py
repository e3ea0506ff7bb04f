"""Requests at random: long and short prompts, with and without stop tokens."""

from __future__ import annotations

import random

from daemon.sampling import SamplingParams
from daemon.scheduler.request import Request
from tests.simulator.model import VOCABULARY

CONTEXT = 160


def random_request(rng: random.Random) -> Request:
    length = rng.choice((1, 2, rng.randint(3, 60), rng.randint(60, CONTEXT - 1)))
    return Request(
        sequence=rng.randbytes(16),
        prompt=tuple(rng.randrange(VOCABULARY) for _ in range(length)),
        max_tokens=rng.randint(1, 25),
        params=SamplingParams(seed=rng.randrange(1000)),
        stop_tokens=frozenset(rng.sample(range(VOCABULARY), rng.choice((0, 0, 3)))),
    )
