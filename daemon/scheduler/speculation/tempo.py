"""How many guesses to send, and when: the tempo that promises the most tokens per second.

Guessing is a renewal process. A cycle begins when the token that follows is known, because a guess
was refuted or because none was under way: a frame goes out with that token and `first` guesses, and
while it travels further frames follow with `after` guesses each. The cycle ends when the frame
returns in which a guess is refuted. By the renewal-reward theorem the rate is the expected number
of tokens in a cycle over its expected length; the first is known from the acceptance, the second
from the times at which each frame would return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

FIRST = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
AFTER = (0, 1, 2, 3, 4, 6, 8, 12)
WORTH = 1.02  # gain below which nothing is guessed: a prediction is not exact
_TAIL = 1e-3  # chance that a cycle lasts longer than what is looked at
_MOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Tempo:
    """`first` guesses in a frame with a known token; `after` in those that follow while it is under
    way, 0: none follow.
    """

    first: int = 0
    after: int = 0


NONE = Tempo()


@dataclass(frozen=True, slots=True)
class Course:
    """What a frame of one sequence meets: `stages(n)` the seconds that n positions take at each
    stage, `between(n)` on all links of the ring together; guess number i, from 1, is there
    `wait + i * each` seconds after the cycle began. `groups` frames of others and its own take
    turns.
    """

    stages: Callable[[int], Sequence[float]]
    between: Callable[[int], float]
    wait: float = 0.0
    each: float = 0.0
    groups: int = 1

    def rate(self, tempo: Tempo, acceptance: float) -> float:
        """Expected tokens per second."""
        tokens = seconds = 0.0
        alive = 1.0  # the chance that no guess of the frames before was refuted
        sent = 0
        for guesses, cycle in self._cycles(tempo):
            # A frame is right when its guesses are, and its last token when the frame after it
            # begins with the same.
            judged = guesses + 1 if not sent else guesses
            if not tempo.after:
                tokens = sum(acceptance**n for n in range(guesses + 1))
                return _per(tokens, max(cycle, self.groups * max(self.stages(guesses + 1))))
            survives = alive * acceptance**judged
            seconds += (alive - survives) * cycle
            alive, sent = survives, sent + 1
            if alive < _TAIL or sent == _MOST_FRAMES:
                seconds += alive * cycle
                break
        tokens = (1.0 - alive) / (1.0 - acceptance) if acceptance < 1.0 else float(judged * sent)
        return _per(tokens, seconds)

    def _cycles(self, tempo: Tempo) -> Iterator[tuple[int, float]]:
        """For each frame how many guesses it has, and how long the cycle is that ends with it."""
        free = [0.0] * len(self.stages(1))
        given = 0
        returns: list[float] = []
        while True:
            guesses = tempo.after if returns else tempo.first
            given += guesses
            positions = guesses + (not returns)
            passes = self.stages(positions)
            hop = self.between(positions) / (len(free) + 1)
            ready = self.wait + given * self.each if given else 0.0
            if len(returns) > len(free):
                ready = max(ready, returns[-1 - len(free)])  # at most stages + 1 are under way
            at = ready + hop
            for stage, took in enumerate(passes):
                at = free[stage] = max(at, free[stage]) + took
                at += hop
            returns.append(at)
            # The next cycle's first frame waits for its guesses, or for the first stage, whichever
            # takes longer: what was refuted is cancelled, but for the pass that is going on.
            busy = 0.0
            if tempo.after:
                step = self.stages(tempo.after)[0]
                busy = min(step, max(step, self.wait + tempo.after * self.each)) / 2
            again = self.wait + tempo.first * self.each if tempo.first else 0.0
            yield guesses, at + max(0.0, busy - again)


def _per(tokens: float, seconds: float) -> float:
    """Before anything is measured, everything takes no time."""
    return tokens / seconds if seconds > 0.0 else math.inf


def choose(course: Course, acceptance: float, most: int, ahead: bool) -> Tempo:
    """The best tempo of at most `most` guesses in a frame; `ahead`: whether frames may follow one
    that is under way.
    """
    best, rate = NONE, course.rate(NONE, acceptance) * WORTH
    for first in FIRST:
        for after in AFTER if ahead else (0,):
            tempo = Tempo(first, after)
            if max(first, after) <= most and (promised := course.rate(tempo, acceptance)) > rate:
                best, rate = tempo, promised
    return best
