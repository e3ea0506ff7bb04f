"""A whole cluster under a fake clock: scheduler, stages, links, and everything that goes wrong.

One seed is one history. `World.run` checks what must hold in any of them: every sequence gets the
tokens of a single process, each once and in order, everything ends, nothing stays behind.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from daemon.footprint import Footprint, StageMemory
from daemon.scheduler.actions import (
    Action,
    Deliver,
    Finished,
    Inquire,
    Propose,
    Revoke,
    Send,
    Suspect,
)
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import FinishReason, Refusal, Request, RequestError
from daemon.scheduler.scheduler import Scheduler
from tests.simulator.disks import read_something
from tests.simulator.draft import SimulatedDraft
from tests.simulator.ending import check_empty, check_end, check_kept
from tests.simulator.faults import CALM, Fault, Rates
from tests.simulator.model import LAYERS, VOCABULARY
from tests.simulator.oracle import Oracle
from tests.simulator.requests import CONTEXT, random_request
from tests.simulator.stage import SimulatedStage
from transports.frame import Frame, Span
from transports.limits import FrameLimits
from transports.wire import decode, encode

TROUBLE_SECONDS = 4.0  # after that nothing goes wrong any more
PATIENCE_SECONDS = 300.0  # and by then everything must have ended
CHUNK = 32
HOP_SECONDS = 0.001
DECODE_SECONDS = 0.02
TOKEN_SECONDS = 0.001
DEAR_TOKEN_SECONDS = 0.006  # where it pays to have frames of guesses follow each other
Ranges = list[tuple[int, int]]
PLENTY = 1 << 40
LIMITS = FrameLimits(max_tensor_bytes=8 * CHUNK, vocab=VOCABULARY)


def random_memory(rng: random.Random, budget: int) -> StageMemory:
    """Bytes are tokens here. The smallest budget has no room for some of the requests, a middling
    one for one at a time, or for two.
    """
    footprints = {0: Footprint(1, rng.choice((0, 10))), 8: Footprint(1, 0)}
    return StageMemory(budget, footprints, rng.choice((None, None, 20)))


class World:
    """With `wire` every frame is turned into bytes and back at every hop; with `poison` the first
    request ends a stage whenever a certain token of it is computed, or with `raises` fails, and all
    that is computed with it. In a `crowd` all come
    at once, and there is not memory for all; with `alike` all come at once and begin as one. When
    `guessing`, a draft model or an oracle guesses what follows.
    """

    def __init__(
        self,
        seed: int,
        rates: Rates,
        sequences: int = 5,
        stages: int = 3,
        wire: bool = False,
        poison: bool = False,
        raises: bool = False,
        crowd: bool = False,
        alike: bool = False,
        guessing: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.rates = rates
        self.wire = wire
        self.poison: tuple[bytes, int] | None = None
        self.poisoned: set[int] = set()  # epochs
        self._poison_due = poison
        self._raises = raises
        self.now = 0.0
        self.token_seconds = DEAR_TOKEN_SECONDS if guessing else TOKEN_SECONDS
        limits = Limits(
            max_running=self.rng.choice((2, 4, 64)),
            max_kept=self.rng.choice((3, 256)),
            headroom=self.rng.choice((1, 8)),
        )
        self.requests: dict[bytes, Request] = {}
        # Its own randomness, so that the history is the same with and without it.
        oracle = Oracle(self.requests, random.Random(seed), CONTEXT) if guessing else None
        limits = replace(limits, speculate=guessing)
        self.scheduler = Scheduler(limits, oracle)
        budgets = (200, 320, 450, 700, 1000, PLENTY)
        budgets = (PLENTY,) if poison else (320, 450, 620) if crowd else budgets
        self.memory = random_memory(self.rng, self.rng.choice(budgets))
        self.stages: list[SimulatedStage] = []
        self.delivered: dict[bytes, list[int]] = {}
        self.finished: dict[bytes, Finished] = {}
        self.faults: Counter[str] = Counter()
        self.allowed = 0  # re-issues that the faults so far may have cost
        self.suspects = 0
        self.failures: Counter[bytes] = Counter()
        self.stops: dict[bytes, int] = {}  # where the text layer finds its stop string
        self._links: Counter[int] = Counter()
        self._link_free: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._tick_at: float | None = None
        self.pinned = False
        self._asked = 0
        self.reading = 0
        self._longest = 90 if crowd else 25
        self._head = [self.rng.randrange(VOCABULARY) for _ in range(100)] if alike else []
        self.followed: set[bytes] = set()  # who waited for another's prompt
        self._term, self._epoch = 1, 0
        self._relayout(stages)
        for _ in range(sequences):
            share = 0.1 if crowd or alike else 0.7
            self.later(self.rng.uniform(0.0, TROUBLE_SECONDS * share), self._submit)
            if self.rng.random() < 0.2:
                self.later(self.rng.uniform(0.0, TROUBLE_SECONDS), self._meddle)
            if self.rng.random() < 0.3:
                moment = self.rng.uniform(0.0, TROUBLE_SECONDS * share)
                self.later(moment, lambda: read_something(self))
        if rates != CALM:
            self.later(0.25, self._trouble)
        self.later(0.1, self._heartbeat)
        own = random.Random(seed + 1)
        self.draft = SimulatedDraft(self, own) if guessing and own.random() < 0.6 else None

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all requests have ended. Then, in a layout of those stages that are still good,
        they hold what the index says, and nothing once that is evicted.
        """
        self._go_on()
        check_end(self)
        self._relayout(len(self.stages), self._ranges)
        self._go_on()
        check_kept(self)
        for entry in self.scheduler.residency.index.kept:
            self.do(self.scheduler.evict(entry.sequence, self.now))
        self._go_on()
        check_empty(self)

    def _go_on(self) -> None:
        events = 0
        while self._events and not (self.now > TROUBLE_SECONDS and self._over()):
            self.now, _, event = heapq.heappop(self._events)
            assert self.now < PATIENCE_SECONDS, f"never ends: {self.scheduler.status()}"
            event()
            self.scheduler.check_integrity()
            self.followed |= {s.id for s in self.scheduler.sequences() if s.leader}
            events += 1
            if events % 20 == 0:
                self._check_stages()
        self._check_stages()

    def _over(self) -> bool:
        status = self.scheduler.status()
        return (
            len(self.finished) == len(self.requests)
            and not status["releases_pending"]
            and not status["in_flight"]
            # A stage that hangs on what nobody waits for is found when it is needed again.
            and not any(s.working or s.queue for s in self.stages if not s.hung)
            and not self._links.total()
            and not self._asked
            and not self.reading
        )

    def _check_stages(self) -> None:
        for stage in self.stages:
            stage.check_integrity()
            # A release that is lost is late; and what is read may be there before a frame has come.
            if not self.faults and not self.reading:
                assert stage.kv_bytes(self.memory) <= self.memory.budget_bytes, "over the budget"

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    # --- the coordinator ----------------------------------------------------------------------

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    self._send(0, frame)
                case Deliver(sequence, position, tokens):
                    self._delivered(sequence, position, tokens)
                case Finished(sequence):
                    assert sequence not in self.finished, "ended twice"
                    self.finished[sequence] = action
                case Revoke(sequence, attempt):
                    for stage in self.stages:  # out of band: before or after the frames
                        delay = self.rng.choice((HOP_SECONDS / 2, 0.05, 1.0))
                        revoke = partial(stage.ledger.revoke, sequence, attempt)
                        self.later(delay, revoke)
                case Propose():
                    assert self.draft, "nobody is there to be asked"
                    self.draft.hear(action)
                case Inquire():
                    self.allowed += self.rates != CALM  # a fork was in vain
                    for stage in self.stages:
                        self._asked += 1
                        delay = self.rng.choice((HOP_SECONDS, 0.05, 1.0))
                        self.later(delay, lambda s=stage: self._report(s))
                case Suspect():
                    self.suspects += 1
                    self.later(0.5, self._kill_hung)
        self._plan_tick()

    def _report(self, stage: SimulatedStage) -> None:
        """What it holds now is known a little later."""
        held = stage.ledger.held()
        self.later(HOP_SECONDS, lambda: self._reported(stage, held))

    def _reported(self, stage: SimulatedStage, held: dict[bytes, int]) -> None:
        self._asked -= 1
        if stage in self.stages and stage.alive:
            self.do(self.scheduler.held(stage.index, held, self.now))

    def _plan_tick(self) -> None:
        wake = self.scheduler.next_wake()
        if wake is not None and (self._tick_at is None or wake < self._tick_at):
            self._tick_at = wake
            self.later(max(0.0, wake - self.now), self._tick)

    def _tick(self) -> None:
        self._tick_at = None
        self.do(self.scheduler.tick(self.now))

    def _submit(self) -> None:
        rng = self.rng
        told = [(*r.prompt, *self.delivered[s]) for s, r in self.requests.items()]
        request = random_request(rng, told, self._longest, self._head)
        sequence = request.sequence
        self.requests[sequence] = request
        self.delivered[sequence] = []
        if self._poison_due:
            self._poison_due = False
            answer = min(10, request.max_tokens - 1) if self._raises else 0
            self.poison = sequence, rng.randrange(len(request.prompt) + answer)
        elif rng.random() < 0.1:
            self.stops[sequence] = rng.randint(1, 10)
        try:
            self.do(self.scheduler.submit(request, self.now))
        except RequestError as error:
            if error.refusal is not Refusal.MEMORY:
                raise
            del self.requests[sequence], self.delivered[sequence]
            return
        if rng.random() < 0.2:
            moment = rng.choice((0.0, rng.uniform(0.0, 3.0)))
            self.later(moment, lambda: self.do(self.scheduler.cancel(sequence, self.now)))

    def _meddle(self) -> None:
        """Somebody evicts what is kept, or pins it, or what runs."""
        residency = self.scheduler.residency
        if entries := list(residency.index):
            entry = self.rng.choice(entries)
            if self.rng.random() < 0.5:
                self.do(self.scheduler.evict(entry.sequence, self.now))
            else:
                residency.pin(entry.sequence, not entry.pinned)
                self.pinned = True

    def _delivered(self, sequence: bytes, position: int, tokens: tuple[int, ...]) -> None:
        assert sequence not in self.finished, "tokens after the end"
        got = self.delivered[sequence]
        assert position == len(self.requests[sequence].prompt) + len(got), "twice, or a gap"
        before = len(got)
        got += tokens
        if before < self.stops.get(sequence, 0) <= len(got):
            finish = self.scheduler.finish
            self.later(0.0, lambda: self.do(finish(sequence, FinishReason.STOP, self.now)))

    def _heartbeat(self) -> None:
        for stage in self.stages:
            if stage.alive and stage.working and not (stage.hung and stage.index % 2):
                # Every other stage that hangs spins: its heartbeats go on.
                microbatch = stage.working.microbatch
                self.do(self.scheduler.progress(microbatch, stage.index, self.now))
        self.later(0.1, self._heartbeat)

    # --- layouts ------------------------------------------------------------------------------

    @property
    def layout(self) -> tuple[int, int]:
        return self._term, self._epoch

    def _relayout(self, count: int, ranges: Ranges | None = None) -> None:
        """A new epoch: `count` stages; those that keep their layers keep what they hold."""
        self._epoch += 1
        if ranges is None:
            cuts = sorted(self.rng.sample(range(1, LAYERS), count - 1))
            ranges = list(itertools.pairwise([0, *cuts, LAYERS]))
        self._ranges = ranges
        old = {(s.start, s.end): s for s in self.stages if s.alive and not s.hung}
        self.stages = []
        for index, (start, end) in enumerate(ranges):
            stage = old.pop((start, end), None)
            last = end == LAYERS
            if stage is None:
                stage = SimulatedStage(index, start, end, last, self.rng, self.memory.reach)
            stage.place(index, last)
            self.stages.append(stage)
            layout = self._term, self._epoch
            stage.fence.see(self._term)  # before it may be assigned, a coordinator welcomes it
            delay = self.rng.choice((0.0, 0.0, 0.01))  # the first frame may come before this
            self.later(delay, lambda s=stage, layout=layout: self._assign(s, *layout))
        for gone in old.values():
            gone.alive = False
        held = None
        if self.rng.random() < 0.5:
            known = [s.ledger.held() for s in self.stages]
            held = {q: min(h.get(q, 0) for h in known) for h in known for q in h}
        self.allowed += 3 * self.scheduler.status()["running"]
        pipeline = Pipeline(
            self._term,
            self._epoch,
            (StageCost(((1, DECODE_SECONDS),), self.token_seconds),) * count,
            CONTEXT,
            CHUNK,
            memory=(self.memory,) * count,
        )
        self.do(self.scheduler.configure(pipeline, self.now, held))

    def _assign(self, stage: SimulatedStage, term: int, epoch: int) -> None:
        if stage.fence.see(term):
            for frame in reversed(stage.fence.assign(term, epoch)):
                stage.queue.appendleft(frame)
            self._work(stage)

    def _kill(self, stage: SimulatedStage) -> None:
        """Dead at once; found out, and started anew, later."""
        if not stage.alive:
            return
        stage.alive = False
        self.allowed += len(self.stages) + 1
        self.later(self.rng.uniform(0.0, 1.0), lambda: self._down(stage))
        self.later(self.rng.uniform(1.0, 3.0), lambda: self._up(stage))

    def _down(self, stage: SimulatedStage) -> None:
        if stage in self.stages:
            self.do(self.scheduler.configure(None, self.now))

    def _up(self, stage: SimulatedStage) -> None:
        if stage in self.stages:
            self._relayout(len(self.stages))

    def _kill_hung(self) -> None:
        for stage in self.stages:
            if stage.hung:
                self._kill(stage)

    def _trouble(self) -> None:
        """Four times a second: what does not happen to a frame."""
        if self.now > TROUBLE_SECONDS:
            self.rates = CALM
            return
        rng, rates = self.rng, self.rates
        self.later(0.25, self._trouble)
        stage = rng.choice(self.stages)
        for kind in ("kill", "hang", "layout", "term"):
            if rng.random() >= getattr(rates, kind) / 4:
                continue
            self.faults[kind] += 1
            match kind:
                case "kill":
                    self._kill(stage)
                case "hang":
                    stage.hung = True
                    self.allowed += 2 * len(self.stages) + 2
                case "layout" if all(s.alive for s in self.stages):
                    self._relayout(rng.randint(1, LAYERS))
                case "term" if all(s.alive for s in self.stages):
                    self._term += 1
                    self._relayout(len(self.stages))

    # --- links and stages ---------------------------------------------------------------------

    def _send(self, link: int, frame: Frame) -> None:
        rng, extra, copies = self.rng, 0.0, 1
        if self.wire:
            frame = decode([bytes(part) for part in encode(frame, LIMITS)], LIMITS)
        if rng.random() < self.rates.link:
            fault = rng.choice(self.rates.kinds)
            self.faults[fault.value] += 1
            most = max(1, len(frame.spans))  # each sequence of a frame is issued again by itself
            self.allowed += most
            match fault:
                case Fault.DROP:
                    return
                case Fault.DOUBLE:
                    copies = 2
                case Fault.DELAY:
                    extra = rng.choice((0.01, 0.1, 1.0, 5.0))
                case Fault.STALL:
                    free = max(self.now, self._link_free.get(link, 0.0))
                    self._link_free[link] = free + rng.choice((0.1, 1.0, 5.0))
                    self.allowed += most * (len(self.stages) + 1)
                case Fault.ERROR:
                    known = rng.random() < 0.5
                    self.allowed += 0 if known else most * (len(self.stages) + 1)
                    lost = frame.microbatch if known else None
                    self.later(HOP_SECONDS, lambda: self._link_failed(frame.epoch, lost))
                    return
        for copy in range(copies):
            arrival = max(self.now + HOP_SECONDS, self._link_free.get(link, 0.0))
            late = rng.choice((0.0, 0.05, 1.0)) if copy else extra
            if not late:
                self._link_free[link] = arrival
            self._links[link] += 1
            target = self.stages[link] if link < len(self.stages) else None
            self.later(
                arrival + late - self.now, lambda t=target, f=frame: self._arrive(link, t, f)
            )

    def _arrive(self, link: int, stage: SimulatedStage | None, frame: Frame) -> None:
        self._links[link] -= 1
        if stage is None:
            self.do(self.scheduler.result(frame, self.now))
        elif stage.alive:
            stage.queue.append(frame)
            self._work(stage)

    def _link_failed(self, epoch: int, microbatch: int | None) -> None:
        if epoch == self._epoch:
            self.do(self.scheduler.link_failed(self.now, microbatch))

    def _work(self, stage: SimulatedStage) -> None:
        if stage.working or stage.hung or not stage.alive or not stage.queue:
            return
        frame = stage.queue.popleft()
        admitted = (frame.term, frame.epoch) == (stage.fence.term, stage.fence.epoch)
        poisons = partial(self._is_poison, stage)
        if not self._raises and admitted and any(map(poisons, frame.spans)):
            self.poisoned.add(self._epoch)
            self._kill(stage)
            return
        seconds = 0.0
        if frame.spans:
            tokens = sum(s.length for s in frame.spans)
            seconds = DECODE_SECONDS + self.token_seconds * (tokens - 1)
        before: Any = dict(stage.failures)
        onward = stage.handle(frame, self.rates, self.now, self.now + seconds, poisons)
        if stage.failures != before or stage.shortfalls:
            self.allowed += stage.shortfalls
            stage.shortfalls = 0
            for sequence, count in stage.failures.items():
                self.failures[sequence] += count - before.get(sequence, 0)
                self.allowed += count - before.get(sequence, 0)
        if onward is None:
            self._work(stage)
            return
        stage.working = frame
        layout = self._epoch, stage.index
        self.later(seconds, lambda: self._worked(stage, onward, *layout))

    def _is_poison(self, stage: SimulatedStage, span: Span) -> bool:
        """The last stage, or the one before it, does not survive the poison."""
        if self.poison is None or stage.index < len(self.stages) - 2:
            return False
        sequence, token = self.poison
        end = span.position + span.length
        return span.sequence == sequence and span.position <= token < end

    def _worked(self, stage: SimulatedStage, onward: Frame, epoch: int, index: int) -> None:
        stage.working = None
        if stage.alive:
            if epoch == self._epoch and not stage.hung:
                self._send(index + 1, onward)
            self._work(stage)
