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
AFTER = (1, 2, 3, 4, 6, 8, 12)
MOST = max(*FIRST, *AFTER)  # guesses in a frame
WORTH = 1.02  # gain below which nothing is guessed: a prediction is not exact
CERTAIN = 0.98  # acceptance beyond which nothing is believed
_TAIL = 1e-3  # chance that a cycle lasts longer than what is looked at


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
    """What a frame of one sequence meets: `stages[n]` the seconds that n positions take at each
    stage, `between[n]` on all links of the ring together, for n up to MOST + 1; guess number i,
    from 1, is there `wait + i * each` seconds after the cycle began. `groups` frames of others and
    its own take turns.
    """

    stages: Sequence[Sequence[float]]
    between: Sequence[float]
    wait: float = 0.0
    each: float = 0.0
    groups: int = 1

    @classmethod
    def of(
        cls,
        stages: Callable[[int], Sequence[float]],
        between: Callable[[int], float],
        wait: float = 0.0,
        each: float = 0.0,
        groups: int = 1,
    ) -> Course:
        """From functions of the number of positions."""
        counts = range(MOST + 2)
        return cls([stages(n) for n in counts], [between(n) for n in counts], wait, each, groups)

    def rate(self, tempo: Tempo, acceptance: float) -> float:
        """Expected tokens per second."""
        if not tempo.after:
            cycle = next(self._cycles(tempo))
            tokens = sum(acceptance**n for n in range(tempo.first + 1))
            return _per(tokens, max(cycle, self.groups * max(self.stages[tempo.first + 1])))
        # A frame is right when its guesses are, and its last token when the frame after it begins
        # with the same: the first frame judges one more than it has.
        seconds, alive, before = 0.0, 1.0, 0.0
        survives = acceptance ** (tempo.first + 1)
        step = acceptance**tempo.after
        for number, cycle in enumerate(self._cycles(tempo)):
            seconds += alive * (1.0 - survives) * cycle
            alive *= survives
            survives = step
            if alive < _TAIL or number == 3 * len(self.stages[1]) + 3:
                # From here on frames return at even distances.
                seconds += alive * (cycle + (cycle - before) / max(1.0 - step, 1.0 - CERTAIN))
                break
            before = cycle
        return _per(1.0 / max(1.0 - acceptance, 1.0 - CERTAIN), seconds)

    def _cycles(self, tempo: Tempo) -> Iterator[float]:
        """For each frame how long the cycle is that ends with it."""
        free = [0.0] * len(self.stages[1])
        returns: list[float] = []
        given = 0
        again = self.wait + tempo.first * self.each if tempo.first else 0.0
        busy = self._busy(tempo.after) if tempo.after else 0.0
        while True:
            guesses = tempo.after if returns else tempo.first
            given += guesses
            positions = guesses + (not returns)
            hop = self.between[positions] / (len(free) + 1)
            ready = self.wait + given * self.each if given else 0.0
            if len(returns) > len(free):
                ready = max(ready, returns[-1 - len(free)])  # at most stages + 1 are under way
            at = ready + hop
            for stage, took in enumerate(self.stages[positions]):
                at = free[stage] = max(at, free[stage]) + took
                at += hop
            returns.append(at)
            # The next cycle's first frame waits for its guesses, or for the first stage, whichever
            # takes longer: what was refuted is cancelled, but for the pass that is going on.
            yield at + max(0.0, busy - again)

    def _busy(self, after: int) -> float:
        """What is left on average of the pass that the first stage is at."""
        step = self.stages[after][0]
        interval = max(max(self.stages[after]), after * self.each)
        return step / 2 * (step / interval if interval else 0.0)


def choose(course: Course, acceptance: float, most: int, ahead: bool) -> Tempo:
    """The best tempo of at most `most` guesses in a frame; `ahead`: whether frames may follow one
    that is under way. What is best alone is best beside what follows, or less is.
    """
    acceptance = min(acceptance, CERTAIN)
    best, rate = NONE, course.rate(NONE, acceptance) * WORTH
    for first in FIRST[1:]:
        if first <= most and (promised := course.rate(Tempo(first), acceptance)) > rate:
            best, rate = Tempo(first), promised
    if ahead:
        alone = best.first
        for first in {0, 1, 2, alone // 2, alone}:
            for after in AFTER:
                tempo = Tempo(first, after)
                if max(first, after) <= most and (now := course.rate(tempo, acceptance)) > rate:
                    best, rate = tempo, now
    return best


def _per(tokens: float, seconds: float) -> float:
    """Before anything is measured, everything takes no time."""
    return tokens / seconds if seconds > 0.0 else math.inf
