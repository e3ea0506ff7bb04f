"""The best that a paced cluster could do: stages, links and a draft model as a simulation of
discrete events, with nothing in it that takes time but the passes and hops themselves.

Every resource serves in the order of arrival. What is decided is decided by the best of a family of
plans, each of which is played to the end on the run's own guesses; no plan knows whether a guess is
right before the pipeline says so.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from benchmarks.paced.pace import Pace

FIRST = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
AFTER = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
WARM_ROUNDS, ROUNDS = 10, 60
MOST_CHUNKS = 256


class Pipe:
    """When each stage and each link is taken: by whom does not matter, they serve in order."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._taken: list[deque[tuple[float, float]]] = [deque() for _ in range(2 * self.stages)]

    @property
    def stages(self) -> int:
        return len(self._pace.passes)

    def free(self) -> float:
        """When the first stage has done all that was sent."""
        return self._free(0)

    def send(self, at: float, tokens: int) -> float:
        """A frame of so many positions leaves the coordinator; when it is back."""
        hops = self._pace.hops(tokens)
        for stage in range(self.stages):
            at = self._serve(2 * stage, at, self._pace.pass_seconds(stage, tokens))
            at = self._serve(2 * stage + 1, at, hops[stage])
        return at

    def cancel(self, now: float) -> None:
        """All frames under way are in vain: what has not begun never does."""
        for taken in self._taken:
            while taken and taken[-1][0] >= now:
                taken.pop()

    def _serve(self, resource: int, at: float, seconds: float) -> float:
        taken = self._taken[resource]
        begin = max(at, self._free(resource))
        taken.append((begin, begin + seconds))
        if len(taken) > 64:
            taken.popleft()
        return begin + seconds

    def _free(self, resource: int) -> float:
        taken = self._taken[resource]
        return taken[-1][1] if taken else 0.0


@dataclass(frozen=True, slots=True)
class Draft:
    """Guess number i, from 1, is there `wait + i * each` seconds after the draft model could
    begin: at the start, and when it is told of another token than it guessed, whether or not that
    guess was sent. In between it goes on by itself.
    """

    wait: float = 0.0
    each: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`first` guesses with a known token, `after` in each frame that follows while it is under way,
    0: none does. At most `depth` frames are under way.
    """

    first: int
    after: int = 0
    depth: int = 1


def decode(
    pace: Pace, plan: Plan, right: Sequence[bool], tokens: int, draft: Draft | None = None
) -> float:
    """Seconds from the first token of an answer, which is there at 0, to the last of `tokens`.
    `right[i]`: whether token i is guessed right when all before it are known.
    """
    draft, pipe, now, known = draft or Draft(), Pipe(pace), 0.0, 1
    drafted_from, draft_began = 1, 0.0

    def guessed(until: int) -> float:
        """When the guesses for all tokens before `until` are there."""
        count = until - drafted_from
        return draft_began + draft.wait + count * draft.each if count > 0 else 0.0

    while known < tokens:
        sent = known + min(plan.first, tokens - 1 - known)  # what is guessed, and sent
        begin = max(now, guessed(sent)) if sent > known else now
        returns = deque([(pipe.send(begin, sent - known + 1), sent + 1)])
        while returns:
            more = min(plan.after, tokens - 1 - sent)
            if more > 0 and len(returns) < plan.depth:
                leaves = max(begin, guessed(sent + more), pipe.free())
                if leaves < returns[0][0]:
                    sent += more
                    returns.append((pipe.send(leaves, more), sent + 1))
                    begin = leaves
                    continue
            now, end = returns.popleft()
            begin = max(begin, now)
            judged = min(end, sent)
            wrong = next((i for i in range(known, judged) if not right[i]), None)
            if wrong is None:
                if judged < min(end, tokens) and not right[judged]:
                    drafted_from, draft_began = end, now  # it has gone on from another token
                known = end
                continue
            known = drafted_from = wrong + 1
            draft_began = now
            pipe.cancel(now)
            break
    return now


def best_decode(
    pace: Pace,
    right: Sequence[bool],
    tokens: int,
    draft: Draft | None = None,
    after: Sequence[int] = AFTER,
) -> tuple[float, Plan]:
    """Tokens per second of one stream, and the plan that gives them. Without `after`: one frame at
    a time.
    """
    stages = len(pace.passes)
    plans = [
        Plan(first, more, depth)
        for first in FIRST
        for more in after or (0,)
        for depth in ((stages, stages + 1, stages + 2) if more else (1,))
    ]
    seconds = {plan: decode(pace, plan, right, tokens, draft) for plan in plans}
    plan = min(plans, key=lambda plan: seconds[plan])
    return (tokens - 1) / seconds[plan], plan


def batches(pace: Pace, groups: Sequence[int]) -> float:
    """Tokens per second of so many groups of sequences that take turns, each of such a size."""
    pipe = Pipe(pace)
    back = [(pipe.send(0.0, size), number) for number, size in enumerate(groups)]
    heapq.heapify(back)
    rounds, since, now = [0] * len(groups), 0.0, 0.0
    while min(rounds) < WARM_ROUNDS + ROUNDS:
        now, number = heapq.heappop(back)
        rounds[number] += 1
        if min(rounds) == WARM_ROUNDS and not since:
            since, counted = now, list(rounds)
        heapq.heappush(back, (pipe.send(now, groups[number]), number))
    done = sum((r - c) * g for r, c, g in zip(rounds, counted, groups, strict=True))
    return done / (now - since)


def best_batches(pace: Pace, streams: int) -> tuple[float, tuple[int, ...]]:
    """The same, and the groups that give the most."""
    shared_out = _partitions(streams, len(pace.passes) + 1, streams)
    return max((batches(pace, groups), groups) for groups in shared_out)


def guessed_batches(
    pace: Pace,
    groups: Sequence[int],
    guesses: int,
    rights: Sequence[Sequence[bool]],
    draft: Draft | None = None,
) -> float:
    """Tokens per second of sequences that take turns in groups of such sizes, each with so many
    guesses a frame, until one has all its tokens. `rights[i]` as in `decode`, of sequence i. A
    group waits for the draft, which guesses for all its rows in one step, when a guess of any of
    them was refuted.
    """
    draft, pipe, known = draft or Draft(), Pipe(pace), [1] * len(rights)
    ends = list(accumulate(groups, initial=0))
    members = [range(begin, end) for begin, end in pairwise(ends)]
    waits = draft.wait + guesses * draft.each if guesses else 0.0

    def sent(number: int) -> list[int]:
        """Guesses of each row."""
        return [min(guesses, len(rights[i]) - 1 - known[i]) for i in members[number]]

    def send(number: int, now: float) -> tuple[float, int]:
        return pipe.send(now, sum(sent(number)) + len(members[number])), number

    back = sorted(send(number, waits) for number in range(len(groups)))
    now = 0.0
    while all(n < len(right) for n, right in zip(known, rights, strict=True)):
        now, number = heapq.heappop(back)
        refuted = False
        for i, count in zip(members[number], sent(number), strict=True):
            window = rights[i][known[i] : known[i] + count + 1]
            right = next((n for n, one in enumerate(window) if not one), count + 1)
            refuted |= right <= count
            known[i] += min(right, count) + 1
        if all(known[i] < len(rights[i]) for i in members[number]):
            heapq.heappush(back, send(number, now + waits * refuted))
    return (sum(known) - len(known)) / now


def best_guessed_batches(
    pace: Pace, rights: Sequence[Sequence[bool]], draft: Draft | None = None
) -> tuple[float, tuple[int, ...], int]:
    """The same, and the groups and guesses that give the most."""
    streams = len(rights)
    return max(
        (guessed_batches(pace, groups, guesses, rights, draft), groups, guesses)
        for groups in _partitions(streams, len(pace.passes) + 1, streams)
        for guesses in FIRST
    )


def first_token(pace: Pace, tokens: int) -> float:
    """Seconds that a prompt takes, in the equal chunks that are best."""

    def seconds(chunks: int) -> float:
        pipe, at = Pipe(pace), 0.0
        for chunk in range(chunks):
            length = tokens * (chunk + 1) // chunks - tokens * chunk // chunks
            at = pipe.send(0.0, length)
        return at

    return min(map(seconds, range(1, min(tokens, MOST_CHUNKS) + 1)))


def _partitions(total: int, parts: int, largest: int) -> Iterator[tuple[int, ...]]:
    """All ways to share out `total` to at most so many groups, the largest first."""
    if total == 0:
        yield ()
    elif parts > 0:
        for size in range(min(total, largest), 0, -1):
            for rest in _partitions(total - size, parts - 1, size):
                yield (size, *rest)
