"""Guesses that are right as often as wanted: the oracle knows what one process would say."""

from __future__ import annotations

import random
from collections.abc import Mapping

from daemon.scheduler.request import Request
from daemon.scheduler.sequence import Sequence
from tests.simulator.model import VOCABULARY, reference


class Oracle:
    def __init__(
        self, requests: Mapping[bytes, Request], rng: random.Random, context_length: int
    ) -> None:
        self._requests = requests
        self._rng = rng
        self._context_length = context_length
        self._answers: dict[bytes, tuple[int, ...]] = {}
        self.acceptance = rng.choice((0.0, 0.3, 0.6, 0.9, 1.0))

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        request = self._requests[sequence.id]
        if sequence.id not in self._answers:
            self._answers[sequence.id] = reference(request, self._context_length)
        start = sequence.generated + len(sequence.guesses)
        right = self._answers[sequence.id][start : start + most]
        return [
            token if self._rng.random() < self.acceptance else self._rng.randrange(VOCABULARY)
            for token in right
        ]
