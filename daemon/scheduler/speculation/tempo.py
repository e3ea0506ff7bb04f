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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

FIRST = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
AFTER = (1, 2, 3, 4, 6, 8, 11, 15)
MOST = max(*FIRST, *AFTER)  # guesses in a frame
WORTH = 1.02  # gain below which nothing is guessed: a prediction is not exact
CERTAIN = 0.99  # acceptance beyond which nothing is believed
FEW = 8  # stages with which all is looked at: with 64 that would take a tenth of a second
_TAIL = 1e-3  # chance that a cycle lasts longer than what is looked at
_RUNS = 8  # of neighbouring stages that are told apart


@dataclass(frozen=True, slots=True)
class Tempo:
    """`first` guesses in a frame with a known token; `after` in those that follow while it is under
    way, 0: none follow. At most `depth` frames are under way: with more the stages are busier, and
    with passes that were in vain when the next cycle is to begin.
    """

    first: int = 0
    after: int = 0
    depth: int = 1


NONE = Tempo()


@dataclass(frozen=True, slots=True)
class Course:
    """What a frame of one sequence meets: `stages[n]` the seconds that n positions take at each
    stage, `between[n]` on all links of the ring together, for n up to MOST + 1; guess number i,
    from 1, is there `wait + i * each` seconds after one was refuted: the draft goes on by itself.
    `groups` frames of others and its own take turns.
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
        """From functions of the number of positions. A pass over more of them is not believed to
        take less: both were measured at other times, and a guess that is sure to be wrong must not
        promise anything.
        """
        counts = range(MOST + 2)
        by_stage = zip(*map(stages, counts), strict=True)
        passes = zip(*(accumulate(took, max) for took in by_stage), strict=True)
        return cls([*passes], [between(n) for n in counts], wait, each, groups)

    def rate(self, tempo: Tempo, acceptance: float, least: float = 0.0) -> float:
        """Expected tokens per second; 0 as soon as they are known to be less than `least`."""
        if not tempo.after:
            return self._alone(tempo.first, acceptance)
        tokens = 1.0 / max(1.0 - acceptance, 1.0 - CERTAIN)
        # A frame is right when its guesses are, and its last token when the frame after it begins
        # with the same: the first frame judges one more than it has.
        seconds, alive, survives = 0.0, 1.0, acceptance ** (tempo.first + 1)
        step = acceptance**tempo.after
        ends: list[float] = []
        for end in self._ends(tempo):
            ends.append(end)
            if alive < _TAIL:
                break
            if (seconds + alive * end) * least > tokens:
                return 0.0  # what comes takes at least as long
            if len(ends) == self._enough:
                even = (end - ends[-1 - tempo.depth]) / tempo.depth
                seconds += alive * (end + even * step / max(1.0 - step, 1.0 - CERTAIN))
                break
            seconds += alive * (1.0 - survives) * end
            alive *= survives
            survives = step
        return _per(tokens, seconds)

    @property
    def _enough(self) -> int:
        """Frames after which they return at even distances, as many at once as are under way."""
        return 2 * len(self.stages[1]) + 4

    def _alone(self, first: int, acceptance: float) -> float:
        """One frame at a time, and the draft waited for after a wrong guess: in between it has gone
        on meanwhile.
        """
        tokens = sum(acceptance**n for n in range(first + 1))
        wrong = 1.0 - acceptance ** (first + 1)
        waits = wrong * (self.wait + first * self.each) if first else 0.0
        passes = self.stages[first + 1]
        cycle = waits + sum(passes) + self.between[first + 1]
        return _per(tokens, max(cycle, self.groups * max(passes)))

    def _ends(self, tempo: Tempo) -> Iterator[float]:
        """For each frame when the next cycle begins, if that frame ends this one: when it is back,
        and the first stage has done with the pass that is going on, but for the time in which the
        next guesses are made. What has not begun is cancelled.
        """
        again = self.wait + tempo.first * self.each if tempo.first else 0.0
        under_way: deque[tuple[float, float, float]] = deque()  # the first pass, and the return
        for begin, end, back in self._frames(tempo):
            under_way.append((begin, end, back))
            if len(under_way) == tempo.depth:
                at = under_way[0][2]
                yield max([at, *(end - again for begin, end, _ in under_way if begin < at)])
                under_way.popleft()

    def _frames(self, tempo: Tempo) -> Iterator[tuple[float, float, float]]:
        """When the pass of the first stage begins and ends, and the frame is back, while all
        guesses are right.
        """
        runs, stages = _runs(len(self.stages[1])), len(self.stages[1])
        left = [0.0] * len(runs)  # when the frame before left it
        returns = deque([0.0] * tempo.depth, tempo.depth)
        positions, given = tempo.first + 1, tempo.first
        lengths: dict[int, list[tuple[float, float]]] = {}
        while True:
            at = max(self.wait + given * self.each if given else 0.0, returns[0])
            hop = self.between[positions] / (stages + 1)
            if (length := lengths.get(positions)) is None:
                length = lengths[positions] = self._lengths(runs, positions, hop)
            begin = max(at + hop, left[0])
            for run, (through, apart) in enumerate(length):
                at = left[run] = max(at + hop + through, left[run] + apart)
            returns.append(at + hop)
            yield begin, left[0], at + hop
            positions = tempo.after
            given += positions

    def _lengths(self, runs: list[slice], positions: int, hop: float) -> list[tuple[float, float]]:
        """Of each run of stages: how long a frame takes from its first to its last one, and how far
        two frames are apart that leave it one right after the other. For frames that are alike that
        is all there is to know of it.
        """
        passes = [self.stages[positions][run] for run in runs]
        return [(sum(run) + hop * (len(run) - 1), max(run)) for run in passes]


def _runs(stages: int) -> list[slice]:
    """The first stage alone, whose passes begin and end cycles, and the others in at most as many
    runs as is affordable.
    """
    size = max(1, -(-(stages - 1) // (_RUNS - 1)))
    return [slice(0, 1), *(slice(at, at + size) for at in range(1, stages, size))]


def _depths(stages: int) -> Iterator[int]:
    """Few of many: a fifth more or less makes little difference."""
    depth = min(2, stages)
    while depth < stages + 2:
        yield depth
        depth = max(depth + 1, depth * 5 // 4)


def choose(course: Course, acceptance: float, most: int, ahead: bool) -> Tempo:
    """The best tempo of at most `most` guesses in a frame, with many stages one about as good;
    `ahead`: whether frames may follow one that is under way. What is best alone is best beside what
    follows, or less is.
    """
    acceptance = min(acceptance, CERTAIN)
    best, rate = NONE, course.rate(NONE, acceptance) * WORTH
    for first in FIRST[1:]:
        if first <= most and (promised := course.rate(Tempo(first), acceptance)) > rate:
            best, rate = Tempo(first), promised
    if not ahead or not most:
        return best
    stages, alone = len(course.stages[1]), best.first
    axes = (
        [n for n in sorted({0, 1, 2, alone // 2, alone}) if n <= most],
        [n for n in AFTER if n <= most],
        [*_depths(stages)],
    )
    others = map(Tempo, *zip(*product(*axes), strict=True))
    for tempo in others if stages <= FEW else _climbed(course, acceptance, axes):
        if (promised := course.rate(tempo, acceptance, rate)) > rate:
            best, rate = tempo, promised
    return best


def _climbed(
    course: Course, acceptance: float, axes: tuple[list[int], list[int], list[int]]
) -> Iterator[Tempo]:
    """The best along each axis in turn, until there is none that is better. Few large frames and
    many small ones may be as good, so it is begun in the middle and among the latter.
    """
    for at in ([len(axis) // 2 for axis in axes], [0, 0, len(axes[2]) - 1]):
        known: dict[Tempo, float] = {}
        here, moved = 0.0, True
        while moved:
            moved = False
            for axis, values in enumerate(axes):
                for n in range(len(values)):
                    there = [n if other == axis else place for other, place in enumerate(at)]
                    tempo = Tempo(*(a[i] for a, i in zip(axes, there, strict=True)))
                    if tempo not in known:
                        known[tempo] = course.rate(tempo, acceptance, here)
                    if known[tempo] > here:
                        at, here, moved = there, known[tempo], True
        yield Tempo(*(a[i] for a, i in zip(axes, at, strict=True)))


def _per(tokens: float, seconds: float) -> float:
    """Before anything is measured, everything takes no time."""
    return tokens / seconds if seconds > 0.0 else math.inf
