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
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason, Refusal, Request, RequestError
from daemon.scheduler.scheduler import Scheduler
from tests.simulator.computing import DEAR_TOKEN_SECONDS, TOKEN_SECONDS, Computing
from tests.simulator.disks import read_something
from tests.simulator.draft import SimulatedDraft
from tests.simulator.ending import check_empty, check_end, check_kept
from tests.simulator.faults import CALM, TROUBLE_SECONDS, Rates
from tests.simulator.layouts import Layouts
from tests.simulator.links import HOP_SECONDS, Links
from tests.simulator.model import VOCABULARY
from tests.simulator.oracle import Oracle
from tests.simulator.requests import CONTEXT, random_memory, random_request
from tests.simulator.stage import SimulatedStage
from transports.frame import Frame

PATIENCE_SECONDS = 300.0  # and by then everything must have ended
PLENTY = 1 << 40


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
        longest: int = 25,
        layouts: type[Layouts] = Layouts,
    ) -> None:
        self.rng = random.Random(seed)
        self.rates = rates
        self.wire = wire
        self.poison: tuple[bytes, int] | None = None
        self.poisoned: set[int] = set()  # epochs
        self._poison_due = poison
        self.raises = raises
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
        self.oracle, self.limits = oracle, replace(limits, speculate=guessing)
        self.scheduler = Scheduler(self.limits, oracle)
        budgets = (200, 320, 450, 700, 1000, PLENTY)
        budgets = (PLENTY,) if poison else (320, 450, 620) if crowd else budgets
        self.memory = random_memory(self.rng, self.rng.choice(budgets))
        restarts = random.Random(seed + 2)
        self.hidden_bytes = restarts.choice((0, 3000, PLENTY, PLENTY))
        self.delivered: dict[bytes, list[int]] = {}
        self.finished: dict[bytes, Finished] = {}
        self.faults: Counter[str] = Counter()
        self.allowed = 0  # re-issues that the faults so far may have cost
        self.suspects = 0
        self.again = 0  # positions that were sent though all stages were known to have had them
        self.inherited: dict[bytes, int] = {}  # of which a coordinator before this one knew that
        self.failures: Counter[bytes] = Counter()
        self.stops: dict[bytes, int] = {}  # where the text layer finds its stop string
        self.links, self.computing = Links(self), Computing(self)
        self.layouts = layouts(self, restarts)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._tick_at: float | None = None
        self.pinned = False
        self._asked = 0
        self.reading = 0
        self._longest = 90 if crowd else longest
        self._head = [self.rng.randrange(VOCABULARY) for _ in range(100)] if alike else []
        self.followed: set[bytes] = set()  # who waited for another's prompt
        self.layouts.change(stages)
        for _ in range(sequences):
            share = 0.1 if crowd or alike else 0.7
            self.later(self.rng.uniform(0.0, TROUBLE_SECONDS * share), self._submit)
            if self.rng.random() < 0.2:
                self.later(self.rng.uniform(0.0, TROUBLE_SECONDS), self._meddle)
            if self.rng.random() < 0.3:
                moment = self.rng.uniform(0.0, TROUBLE_SECONDS * share)
                self.later(moment, lambda: read_something(self))
        if rates != CALM:
            self.later(0.25, self.layouts.trouble)
        self.later(0.1, self.layouts.heartbeat)
        own = random.Random(seed + 1)
        self.draft = SimulatedDraft(self, own) if guessing and own.random() < 0.6 else None

    @property
    def stages(self) -> list[SimulatedStage]:
        return self.layouts.stages

    @property
    def layout(self) -> tuple[int, int]:
        """Term and epoch."""
        return self.layouts.number

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all requests have ended. Then, in a layout of those stages that are still good,
        they hold what the index says, and nothing once that is evicted.
        """
        self._go_on()
        check_end(self)
        self.layouts.change(len(self.stages), self.layouts.ranges)
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
        if len(self.finished) < len(self.requests):
            return False
        status = self.scheduler.status()
        return (
            not status["releases_pending"]
            and not status["in_flight"]
            # A stage that hangs on what nobody waits for is found when it is needed again.
            and not any(s.working or s.queue for s in self.stages if not s.hung)
            and not self.links.under_way.total()
            and not self._asked
            and not self.reading
            and self.layouts.settled
        )

    def _check_stages(self) -> None:
        for stage in self.stages:
            stage.check_integrity()
            # A release that is lost is late; and what is read may be there before a frame has come.
            # Behind a barrier a release waits for the next layout.
            if not self.faults and not self.reading and self.layouts.settled:
                assert stage.kv_bytes(self.memory) <= self.memory.budget_bytes, "over the budget"

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    # --- the coordinator ----------------------------------------------------------------------

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    self._count_again(frame)
                    self.links.send(0, frame)
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
                        self.later(delay, partial(self._report, stage, self.scheduler))
                case Suspect():
                    self.suspects += 1
                    self.later(0.5, self.layouts.kill_hung)
        self._plan_tick()

    def _count_again(self, frame: Frame) -> None:
        had = {sequence.id: sequence.furthest for sequence in self.scheduler.sequences()}
        for span in frame.spans:
            known = max(had[span.sequence], self.inherited.get(span.sequence, 0))
            end = min(span.position + span.length, known)
            self.again += max(0, end - span.position)

    def _report(self, stage: SimulatedStage, asked: Scheduler) -> None:
        """What it holds now is known a little later, if who asked is still there."""
        held = stage.ledger.held()
        self.later(HOP_SECONDS, lambda: self._reported(stage, held, asked))

    def _reported(self, stage: SimulatedStage, held: dict[bytes, int], asked: Scheduler) -> None:
        self._asked -= 1
        if stage in self.stages and stage.alive and asked is self.scheduler:
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
            answer = min(10, request.max_tokens - 1) if self.raises else 0
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
            stop = FinishReason.STOP
            self.later(0.0, lambda: self.do(self.scheduler.finish(sequence, stop, self.now)))
