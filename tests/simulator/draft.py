"""A draft model beside the simulated cluster: it is told, it guesses, it forgets, it is killed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon.history import History
from daemon.scheduler.actions import Action, Propose
from tests.simulator.model import VOCABULARY, reference
from tests.simulator.requests import CONTEXT

if TYPE_CHECKING:
    from tests.simulator.world import World

HOP_SECONDS = 0.001
GUESS_SECONDS = 0.003


class SimulatedDraft:
    """Guesses are right as often as one throw of the dice says, where its tokens are."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._acceptance = rng.choice((0.0, 0.5, 0.9, 1.0))
        self._held: dict[bytes, History] = {}
        self._until: dict[bytes, int] = {}
        self._answers: dict[bytes, tuple[int, ...]] = {}
        self._busy = False
        self.alive = False
        self._life = 0
        self.starts = 0
        self._come()

    def hear(self, propose: Propose) -> None:
        life = self._life
        self._world.later(HOP_SECONDS, lambda: self._heard(propose, life))

    def _heard(self, asked: Propose, life: int) -> None:
        if not self.alive or life != self._life:
            return
        if self._rng.random() < 0.01:
            self._held.pop(asked.sequence, None)  # there was no room for it
        held = self._held.setdefault(asked.sequence, History())
        if len(held) < asked.position or held.hash_at(asked.position) != asked.prefix_hash:
            known = len(held) if len(held) < asked.position else 0
            self._say(lambda w: w.scheduler.lags(asked.sequence, known, w.now))
            return
        end = asked.position + len(asked.tokens)
        if tuple(held.tokens[asked.position : end]) != asked.tokens:
            held.trim(asked.position)
            held.extend(asked.tokens)
        if len(held) > end:
            self._guessed(asked.sequence, end, held.hash_at(end), tuple(held.tokens[end:]))
        self._until[asked.sequence] = asked.until
        self._go_on()

    def _go_on(self) -> None:
        if not self._busy and any(len(self._held[s]) < n for s, n in self._until.items()):
            self._busy = True
            life = self._life
            self._world.later(GUESS_SECONDS, lambda: self._step(life))

    def _step(self, life: int) -> None:
        if life != self._life:
            return
        self._busy = False
        for sequence, until in self._until.items():
            held = self._held[sequence]
            if len(held) < until:
                position, before = len(held), held.hash_at(len(held))
                held.extend((self._guess(sequence, position),))
                self._guessed(sequence, position, before, (held.tokens[-1],))
        self._go_on()

    def _guess(self, sequence: bytes, position: int) -> int:
        request = self._world.requests[sequence]
        if sequence not in self._answers:
            self._answers[sequence] = reference(request, CONTEXT)
        right = self._answers[sequence][position - len(request.prompt) :][:1]
        if right and self._rng.random() < self._acceptance:
            return right[0]
        return self._rng.randrange(VOCABULARY)

    def _guessed(
        self, sequence: bytes, position: int, before: int, tokens: tuple[int, ...]
    ) -> None:
        self._say(lambda w: w.scheduler.drafted(sequence, position, before, tokens, w.now))

    def _say(self, event: Callable[[World], list[Action]]) -> None:
        self._world.later(HOP_SECONDS, lambda: self._world.do(event(self._world)))

    def _come(self) -> None:
        self.alive = True
        self.starts += 1
        self.said_hello()
        if self._rng.random() < 0.5:
            self._world.later(self._rng.uniform(0.2, 3.0), self._die)

    def said_hello(self) -> None:
        self._say(lambda w: w.scheduler.draft_ready(GUESS_SECONDS, w.now))

    def _die(self) -> None:
        """What was said to it is lost; somebody notices."""
        self.alive = self._busy = False
        self._life += 1
        self._held.clear()
        self._until.clear()
        self._world.later(0.1, self._missed)
        self._world.later(self._rng.uniform(0.2, 1.0), self._come)

    def _missed(self) -> None:
        self._world.do(self._world.scheduler.draft_ready(None, self._world.now))
