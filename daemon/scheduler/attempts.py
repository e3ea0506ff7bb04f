"""How the attempts of sequences begin and end: admitted, issued again, preempted, finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from daemon.scheduler.actions import Action, Finished, Inquire
from daemon.scheduler.book import Book
from daemon.scheduler.dispatch import Dispatch
from daemon.scheduler.pipeline import Limits, Pipeline
from daemon.scheduler.refilling import MIN_REFILL, Refilling, refill_of
from daemon.scheduler.request import FinishReason
from daemon.scheduler.residency import Residency
from daemon.scheduler.sequence import Sequence, SequenceStatus
from transports.frame import Departure

CAUSES = ("lost", "missing", "failed", "link", "path", "layout")
REFILLS = ("begun", "given up", "tokens")
REPORT_SECONDS = 1.0  # that stages have to say what they hold, before it is found out by Nacks
_KEPT = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED)


class Attempts:
    def __init__(
        self, limits: Limits, dispatch: Dispatch, book: Book, residency: Residency
    ) -> None:
        self.reissues: Counter[str] = Counter(dict.fromkeys(CAUSES, 0))
        self.refills: Counter[str] = Counter(dict.fromkeys(REFILLS, 0))
        self._limits = limits
        self._dispatch = dispatch
        self._book = book
        self._residency = residency
        self._reports_due: float | None = None  # while what is inherited waits for them

    def next_wake(self) -> float | None:
        """When those that are inherited are to wait no longer."""
        return self._reports_due

    def tick(self, now: float) -> None:
        if self._reports_due is not None and now >= self._reports_due:
            self._reports_due = None

    def admit(self, now: float) -> list[Action]:
        """Whoever waits and has room: first come, first admitted, but for those that are soon to be
        forked from one that runs. Who never will have room ends; what is expected from disks may be
        evicted once it is there, as what runs ends some day.
        """
        actions: list[Action] = []
        for sequence in list(self._book.waiting.values()):
            if self._book.full:
                break
            if sequence.inherited is not None and self._reports_due and self._residency.silent:
                break  # it is about to be known what the stages hold of it
            if self._residency.following.waits(sequence, self._residency.memory.reach):
                continue
            tokens, kv_bits = len(sequence.history), sequence.request.fidelity.kv_bits
            short = self._residency.memory.never(kv_bits, tokens)
            if short is None:
                short = self._residency.admit(sequence, now)
                if short is None:
                    self.refills["begun"] += sequence.refilling is not None
                    self._book.run(sequence)
                    self._dispatch.ready.push(sequence)
                    self._dispatch.speculator.changed(sequence)
                    continue
                if self._book.running or len(self._residency.expected):
                    break
            error = f"no memory for its {tokens} tokens beside what is pinned: {short}"
            actions += self.finish(sequence, FinishReason.CONTEXT, now, error)
        return actions

    def grow(self, sequence: Sequence, now: float) -> list[Action]:
        """It has more tokens than it has room for: find some, at the cost of what is only expected,
        then of who came last, which may be itself. The only one that runs ends instead.
        """
        actions: list[Action] = []
        while short := self._residency.grow(sequence):
            if self._residency.expected.give_up():
                continue
            if len(self._book.running) == 1:
                tokens = len(sequence.history)
                error = (
                    f"no memory for more than its {tokens} tokens beside what is pinned: {short}"
                )
                return actions + self.finish(sequence, FinishReason.LENGTH, now, error)
            youngest = self._book.youngest
            actions += self.preempt(youngest)
            if youngest is sequence:
                break
        return actions

    def configure(self, pipeline: Pipeline, now: float) -> list[Action]:
        """The new layout may have too little context or memory for what runs or waits."""
        inherited = any(s.inherited is not None for s in self._book.waiting.values())
        self._reports_due = now + REPORT_SECONDS if inherited else None
        actions: list[Action] = []
        for sequence in self._book:
            if len(sequence.history) >= pipeline.context_length:
                error = f"too long for the new layout's context of {pipeline.context_length}"
                actions += self.finish(sequence, FinishReason.CONTEXT, now, error)
        while self._residency.memory.over and self._book.running:
            actions += self.preempt(self._book.youngest)
        return actions

    def lost(self, microbatch: int, cause: str, now: float) -> list[Action]:
        """One re-issue of each sequence in it, whatever else of that sequence is in flight."""
        actions: list[Action] = []
        for span in self._dispatch.give_up(microbatch, now):
            sequence = self._book.running[span.sequence]
            actions += self.reissue(sequence, sequence.confirmed, cause, now, sequence.refilling)
        return actions

    def refill(self, sequence: Sequence, lost: Collection[int], stages: int, now: float) -> None:
        """In a new layout, of which these stages, of so many, have nothing of it any more."""
        refill, refilling = refill_of(lost, stages), None
        until, before = max(sequence.proven, self._residency.forkable(sequence)), sequence.refilling
        if before and refill and before.stages.first in refill and before.stages.end - 1 in refill:
            until = before.until  # they were lost again meanwhile
        if refill and until >= MIN_REFILL:
            refilling = Refilling(refill, until)
            self.refills["begun"] += 1
        self.reissue(sequence, 0, "layout", now, refilling)  # the epoch revokes what was before

    def missing(self, sequence: Sequence, departure: Departure, now: float) -> list[Action]:
        """A stage holds less than was thought: then that is what all go on from; or it has not kept
        what another was to be refilled from, and all compute that again.
        """
        refilling = sequence.refilling
        if refilling and departure.stage not in refilling.stages:
            self.refills["given up"] += 1
            refilling = None
            sequence.repeats -= 1  # there was no try that all take part in
        return self.reissue(sequence, departure.held, "missing", now, refilling)

    def failed(self, sequence: Sequence, departure: Departure, now: float) -> list[Action]:
        """Computing raised, for all rows of a frame: nobody ends who was not computed alone."""
        sequence.failures += 1
        sequence.alone |= sequence.failures == self._limits.max_failures - 1
        if sequence.failures < self._limits.max_failures:
            refilling = sequence.refilling
            if refilling and departure.stage not in refilling.stages:
                refilling = None
            return self.reissue(sequence, departure.held, "failed", now, refilling)
        error = (
            f"stage {departure.stage} failed {sequence.failures} times at token "
            f"{sequence.confirmed}; its log says why"
        )
        return self.finish(sequence, FinishReason.FAILED, now, error)

    def went_down(self, now: float) -> list[Action]:
        """Whatever was under way may be what a stage ended of, if it happens again and again."""
        actions: list[Action] = []
        for sequence in list(self._book.running.values()):
            if not sequence.tried:
                continue
            sequence.tried = False
            sequence.downs += 1
            sequence.alone = sequence.downs >= self._limits.alone_downs
            if sequence.downs >= self._limits.max_downs:
                error = (
                    f"the pipeline went down {sequence.downs} times while token "
                    f"{sequence.furthest} was computed"
                )
                actions += self.finish(sequence, FinishReason.FAILED, now, error)
        return actions

    def reissue(
        self,
        sequence: Sequence,
        position: int,
        cause: str,
        now: float,
        refilling: Refilling | None = None,
    ) -> list[Action]:
        """All stages go on from `position`, or first those that are `refilling`."""
        self.reissues[cause] += 1
        sequence.reissues += 1
        # Nothing goes by a path that ended: to wait before the next try would help nobody.
        sequence.repeats += cause != "path"
        sequence.fruitless += cause not in ("link", "path")  # a cable that is out comes back
        tries = max(sequence.fruitless, sequence.falls)
        if tries > self._limits.max_repeats:
            error = f"issued {tries} times without progress, the last time: {cause}"
            return self.finish(sequence, FinishReason.FAILED, now, error)
        actions: list[Action] = []
        if cause == "missing" and sequence.prefix and position < sequence.prefix.length:
            actions += self.inquire()
        self._dispatch.withdraw(sequence.id)
        self._dispatch.speculator.refuted(sequence)
        sequence.begin_attempt(position, refilling)
        self._book.changed(sequence)
        self._residency.began(sequence)
        delay = self._limits.backoff(max(sequence.repeats, sequence.falls))
        if delay > 0.0:
            self._dispatch.ready.park(sequence, now + delay)
        else:
            self._dispatch.ready.push(sequence)
        return [*actions, *self._dispatch.revoke(sequence.id, sequence.attempt)]

    def resume(self, sequence: Sequence) -> None:
        """Stages that were given what others held of it go on where all have got to. The attempt is
        another one because they are to have its constants.
        """
        self._dispatch.speculator.refuted(sequence)
        sequence.begin_attempt(sequence.confirmed)
        self._residency.began(sequence)
        self._book.changed(sequence)
        self._dispatch.ready.push(sequence)

    def refuted(self, sequence: Sequence) -> list[Action]:
        """A guess was wrong: the next attempt begins with the token that is right."""
        under_way = self._dispatch.withdraw(sequence.id)
        self._dispatch.speculator.refuted(sequence)
        # All stages have had the constants, or a result would not have come.
        due = sequence.prefix is not None
        sequence.begin_attempt(len(sequence.history) - 1)
        self._book.changed(sequence)
        sequence.constants_due = due
        self._residency.began(sequence)
        return [*self._dispatch.revoke(sequence.id, sequence.attempt)] if under_way else []

    def inquire(self) -> list[Action]:
        if self._dispatch.pipeline is None:
            return []
        self._residency.inquire(len(self._dispatch.pipeline.stages))
        return [Inquire()]

    def preempt(self, sequence: Sequence) -> list[Action]:
        """It waits again, before all others, and loses no token: what it has is computed anew."""
        self._dispatch.withdraw(sequence.id)
        self._book.wait(sequence)
        self._dispatch.speculator.forget(sequence.id)
        self._residency.preempt(sequence)
        return [*self._dispatch.revoke(sequence.id, sequence.attempt)]

    def finish(
        self, sequence: Sequence, reason: FinishReason, now: float, error: str = ""
    ) -> list[Action]:
        actions: list[Action] = [Finished(sequence.id, reason, sequence.usage(now), error)]
        if self._dispatch.withdraw(sequence.id):
            actions += self._dispatch.revoke(sequence.id, sequence.attempt + 1)
        self._book.remove(sequence)
        self._dispatch.speculator.forget(sequence.id)
        self._residency.ended(sequence, reason in _KEPT, now)
        sequence.status = SequenceStatus.FINISHED
        return actions
