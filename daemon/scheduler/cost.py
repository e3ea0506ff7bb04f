"""What a pass costs on each stage, learnt from the traces that frames bring back, and what follows
from it: into how many groups the sequences that decode are shared out, how much to have in flight,
and how long a prefill chunk may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from daemon.batching import MOST_TOGETHER
from daemon.scheduler.curve import CostCurves
from daemon.scheduler.links import LinkCost
from daemon.scheduler.pipeline import StageCost
from transports.frame import Refill, Span, StageTrace

MIN_CHUNK = 16
MIN_CHUNK_BESIDE = 2  # others that run
MOST_ROWS = 64  # sequences in one step
# While a prompt is read, a round of the running streams takes so much longer, as predicted. Some
# take longer than predicted, and none is to take three times the usual.
PREFILL_SHARE = 1.35
# A longer piece of a prompt that takes no more than so much longer than the least is as good as
# free: what costs is reading the weights, and few tokens at a time would not come to the end.
AS_GOOD_AS_FREE = 1.25
_RIDERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_TOGETHER)
WORTH_CHANGING = 0.02  # predicted gain below which the number of groups stays
# The same for fewer groups while a prompt is read: who has to wait for others to become one group
# with them waits for up to a round, and rounds are longer then.
WORTH_JOINING = 0.25


@dataclass(frozen=True, slots=True)
class Pass:
    """What a frame asks of each stage: `tokens` new positions, which attend to `attended` positions
    in all. `together`: of several sequences, or one position; else a chunk of a prompt, or, with
    `verify`, several positions of one sequence that each give a token.
    """

    tokens: int
    attended: int = 0
    together: bool = True
    verify: bool = False

    def joined(self, length: int, position: int) -> Pass:
        """With `length` positions of a prompt, from `position` on."""
        attended = self.attended + length * (position + length // 2)
        return Pass(self.tokens + length, attended)

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Pass:
        return cls(
            sum(s.length for s in spans),
            sum(s.length * (s.position + s.length // 2) for s in spans),
            len(spans) > 1 or all(s.length == 1 for s in spans),
            len(spans) == 1 and spans[0].length == spans[0].outputs > 1,
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """The sequences that decode: so many microbatches of at most `size` of them."""

    count: int
    size: int


class CostModel:
    """Starts from what the stages measured when they warmed up. `chunk_tokens` bounds every prefill
    chunk.
    """

    def __init__(self, stages: Sequence[StageCost], chunk_tokens: int, mixed: bool = True) -> None:
        self.mixed = mixed
        self._chunk_sizes = _candidates(chunk_tokens)
        steps = [dict(s.step_seconds) for s in stages]
        prefill = [s.prefill_token_seconds for s in stages]
        self._steps = CostCurves(range(1, MOST_ROWS + MOST_TOGETHER + 1), steps, prefill)
        # Weights are read once for all positions, be they of one sequence or of as many.
        few = [{n: took for n, took in one.items() if n <= MOST_TOGETHER} for one in steps]
        self._verify = CostCurves(range(2, MOST_TOGETHER + 1), few, prefill)
        ones = [{1: min(s.step_seconds)[1]} for s in stages]
        self._chunks = CostCurves((1, *self._chunk_sizes), ones, prefill)
        self._between = LinkCost()
        self._groups = 1
        self._answered: tuple[tuple[int, int, bool], Groups] | None = None  # since it last learnt
        self.stages = len(stages)

    def observe(self, done: Pass, traces: Sequence[StageTrace], sent: float, now: float) -> None:
        """A frame that asked for this came back complete."""
        if not done.tokens or [t.stage for t in traces] != list(range(self.stages)):
            return
        self._answered = None
        seconds = [max(0.0, trace.computed - trace.started) for trace in traces]
        self._curves(done).learn(done.tokens, done.attended, seconds)
        # A frame that waited before the first stage seems to have been under way for longer (only
        # other stages stamp what they send): its way there counts like its way back.
        way_back = max(0.0, now - traces[-1].sent)
        between = min(way_back, max(0.0, traces[0].received - sent)) + way_back
        between += sum(max(0.0, b.received - a.sent) for a, b in pairwise(traces))
        between += sum(max(0.0, trace.sent - trace.computed) for trace in traces)
        self._between.learn(done.tokens, between)

    def stage_seconds(self, asked: Pass) -> list[float]:
        """Predicted time of one pass on each stage."""
        if not asked.tokens:
            return [0.0] * self.stages
        return self._curves(asked).seconds(asked.tokens, asked.attended)

    def slowest_seconds(self, asked: Pass) -> float:
        return max(self.stage_seconds(asked))

    def pass_seconds(self, asked: Pass) -> float:
        """Predicted time through the whole pipe, with nothing queued ahead."""
        return self.between_seconds(asked.tokens) + sum(self.stage_seconds(asked))

    def between_seconds(self, tokens: int) -> float:
        """Predicted time of a frame with so many positions on all links, encoding included."""
        return self._between.seconds(tokens)

    def useful_in_flight(self) -> int:
        """As many microbatches as keep the slowest stage busy, and one that waits before it."""
        one = Pass(1)
        slowest = self.slowest_seconds(one)
        if slowest <= 0.0:
            return self.stages + 1
        return min(self.stages + 1, math.ceil(self.pass_seconds(one) / slowest - 0.1) + 1)

    def groups(self, decoding: int, attended: int, reading: bool = False) -> Groups:
        """How to share out so many sequences, of `attended` positions in all, so that each has its
        next token soonest. One round of all of them takes as long as the slowest stage needs for
        every group, or as one group needs through the pipe. Few large groups are better where a
        pass is bound by reading the weights, many small ones fill more stages. `reading`: a prompt
        is, beside them.
        """
        asked = decoding, attended, reading
        if self._answered is None or self._answered[0] != asked:
            self._answered = asked, self._share_out(*asked)
        return self._answered[1]

    def _share_out(self, decoding: int, attended: int, reading: bool) -> Groups:
        if decoding < 2:
            self._groups = 1
            return Groups(1, 1)
        rounds: dict[int, float] = {}
        least = math.ceil(decoding / MOST_ROWS)
        for count in range(least, max(least, self.stages + 1) + 1):
            size = math.ceil(decoding / count)
            if math.ceil(decoding / size) != count:
                continue  # a smaller number of groups has this size too
            passes = self.stage_seconds(Pass(size, attended * size // decoding))
            rounds[count] = max(count * max(passes), self.between_seconds(size) + sum(passes))
        best = min(rounds, key=lambda count: rounds[count])
        gain = WORTH_JOINING if reading and best < self._groups else WORTH_CHANGING
        if rounds.get(self._groups, math.inf) * (1 - gain) > rounds[best]:
            self._groups = best
        return Groups(self._groups, math.ceil(decoding / self._groups))

    def patience(self, groups: Groups, step: Pass) -> float:
        """How long a chunk of a prompt may keep a stage, beside groups that run steps like this:
        the stages that these leave idle have one each, and there is one in any case.
        """
        steps = groups.count * self.slowest_seconds(step)
        usual = max(steps, self.pass_seconds(step))
        return (PREFILL_SHARE * usual - steps) / max(1, self.stages - groups.count)

    def chunk(
        self, remaining: int, position: int, patience: float | None, refill: Refill | None = None
    ) -> int:
        """Tokens of the next prefill chunk of a prompt of which `remaining` are to be sent, from
        `position` on.

        Alone, the chunk size with the least predicted time through the pipe: small chunks cost
        passes, large ones leave the other stages waiting at the start and at the end. Beside
        others, one that keeps no stage longer than `patience`. Those of a `refill` alone count.
        """
        stages = range(refill.first, refill.end) if refill else range(self.stages)
        if patience is not None:
            passes = (
                (length, self._slowest(stages, _chunk(length, position)))
                for length in _up_to(remaining, self._chunk_sizes)
            )
            return _fitting(passes, patience)
        sizes = [n for n in self._chunk_sizes if n >= min(MIN_CHUNK, self._chunk_sizes[-1])]
        totals = {
            length: self._slowest(stages, _chunk(length, position))
            * (math.ceil(remaining / length) + len(stages) - 1)
            for length in _up_to(remaining, sizes)
        }
        return min(totals, key=lambda length: totals[length])

    def rider(self, remaining: int, position: int, step: Pass) -> int:
        """Tokens of a prompt, `remaining` from `position` on, that ride in this step of others: the
        weights are read once for both.
        """
        passes = (
            (length, self.slowest_seconds(step.joined(length, position)))
            for length in _up_to(remaining, _RIDERS)
        )
        return _fitting(passes, PREFILL_SHARE * self.slowest_seconds(step))

    def as_dict(self) -> dict[str, object]:
        """For `pipeline`: predicted seconds by number of tokens, and between the stages."""
        return {
            "steps": [self._steps.as_dict(stage) for stage in range(self.stages)],
            "verify": [self._verify.as_dict(stage) for stage in range(self.stages)],
            "chunks": [self._chunks.as_dict(stage) for stage in range(self.stages)],
            "between_seconds": self.between_seconds(1),
        }

    def check_integrity(self) -> None:
        self._between.check_integrity()
        for curves in (self._steps, self._verify, self._chunks):
            curves.check_integrity()

    def _slowest(self, stages: range, asked: Pass) -> float:
        return max(self.stage_seconds(asked)[stages.start : stages.stop])

    def _curves(self, asked: Pass) -> CostCurves:
        if asked.verify:
            return self._verify
        return self._steps if asked.together else self._chunks


def _chunk(length: int, position: int) -> Pass:
    return Pass(length, length * (position + length // 2), together=False)


def _up_to(most: int, sizes: Sequence[int]) -> Iterator[int]:
    yield from (size for size in sizes if size < most)
    yield min(most, sizes[-1])


def _fitting(passes: Iterator[tuple[int, float]], wait: float) -> int:
    """Of lengths, the least first, with the time of a pass of each: the most that take no longer
    than `wait`, or the first where none fits; or the most that take hardly longer than the
    quickest, where that is more than twice as many.
    """
    fits, free, least = 0, 0, math.inf
    for length, seconds in passes:
        fits = fits or length
        least = min(least, seconds)
        if seconds > max(wait, AS_GOOD_AS_FREE * least):
            break
        fits = length if seconds <= wait else fits
        free = length if seconds <= AS_GOOD_AS_FREE * least else free
    return free if free > 2 * fits else fits


def _candidates(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`, and `most`: few lengths, so that few signatures are compiled."""
    sizes = []
    size = MIN_CHUNK_BESIDE
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)
