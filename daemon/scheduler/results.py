"""What a frame that came back means: tokens, who left it, and what passes and links cost."""

from __future__ import annotations

from collections import Counter

from daemon.fidelity import Fidelity
from daemon.scheduler.actions import Action, Deliver
from daemon.scheduler.attempts import Attempts
from daemon.scheduler.book import Book
from daemon.scheduler.cost import Pass
from daemon.scheduler.dispatch import Dispatch
from daemon.scheduler.hops import Hops
from daemon.scheduler.pipeline import Pipeline
from daemon.scheduler.residency import Residency
from daemon.scheduler.trace import PipelineStats
from transports.frame import Departure, Frame, FrameKind, Reason, Span

WIDEN = 8  # tokens after which a sequence tries to have its whole room for guesses again


class Results:
    """`counts` are frames and spans that count no more, by why."""

    def __init__(
        self, dispatch: Dispatch, book: Book, residency: Residency, attempts: Attempts, codec: str
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.stats = PipelineStats(0)
        self.hops = Hops(codec)
        self._dispatch = dispatch
        self._book = book
        self._residency = residency
        self._attempts = attempts

    def configure(self, pipeline: Pipeline) -> None:
        self.stats = PipelineStats(len(pipeline.stages))
        self.hops.configure(pipeline)

    def take(self, frame: Frame, now: float) -> list[Action]:
        """A RESULT, or WORK of which only the header is left."""
        pipeline = self._dispatch.pipeline
        if pipeline is None or (frame.term, frame.epoch) != (pipeline.term, pipeline.epoch):
            self.counts["frames_of_old_layouts"] += 1
            return []
        wanted = sum(span.outputs for span in frame.spans)
        if wanted != len(frame.tokens) or (frame.kind is FrameKind.WORK and frame.spans):
            self.counts["frames_malformed"] += 1
            return []
        self._observe(frame, now)
        actions: list[Action] = []
        taken = 0
        for span in frame.spans:
            tokens = frame.tokens[taken : taken + span.outputs]
            taken += span.outputs
            actions += self._computed(pipeline, frame, span, tokens, now)
        for departure in frame.departures:
            actions += self._departed(departure, now)
        return actions

    def check_integrity(self) -> None:
        self.stats.check_integrity()
        self.hops.check_integrity()

    def _computed(
        self, pipeline: Pipeline, frame: Frame, span: Span, tokens: tuple[int, ...], now: float
    ) -> list[Action]:
        sequence = self._book.running.get(span.sequence)
        if sequence is None:
            # It is kept, or waits again, or its release is under way. If none of that, a late frame
            # brought the KV back.
            self.counts["spans_of_ended"] += 1
            if span.sequence not in self._book and span.sequence not in self._residency.index:
                self._dispatch.outbox.release(span.sequence)
            return []
        end = span.position + span.length
        if span.attempt != sequence.attempt or end > sequence.issued:
            self.counts["spans_of_old_attempts"] += 1
            return []
        self._dispatch.settle(frame.microbatch, span)
        self._attempts.refills["tokens"] += span.length if frame.refill else 0
        first = end - span.outputs + 1
        fresh = len(sequence.history) - first  # tokens of the result that are known already
        if fresh < 0:  # links keep the order: what led to its guesses is lost
            refilling = sequence.refilling
            return self._attempts.reissue(sequence, sequence.confirmed, "lost", now, refilling)
        assumed, before = sequence.assumed, len(sequence.history)
        reason, delivered = sequence.accept(tokens[fresh:], pipeline.context_length, now)
        self._book.changed(sequence)
        self._dispatch.speculator.changed(sequence)
        if assumed:
            self._dispatch.judged(sequence, min(assumed, len(sequence.history) - before))
        sequence.confirm(min(end, len(sequence.history) - 1))
        if sequence.prefix is not None or not sequence.listed:
            self._residency.proved(sequence, now)
        actions: list[Action] = []
        if delivered:
            self._dispatch.speculator.delivered(sequence, len(delivered), now)
            logprobs = frame.logprobs.get(span.sequence)
            chosen = None if logprobs is None else tuple(logprobs[fresh : fresh + len(delivered)])
            actions.append(Deliver(sequence.id, first + fresh, delivered, chosen))
        if reason is not None:
            return actions + self._attempts.finish(sequence, reason, now)
        if sequence.refuted:
            actions += self._attempts.refuted(sequence)
        if len(sequence.history) // WIDEN > before // WIDEN:
            self._residency.widen(sequence)
        if len(sequence.history) > sequence.reserved:
            actions += self._attempts.grow(sequence, now)
        if delivered and sequence.id in self._book.running:
            self._dispatch.ready.push(sequence)
        return actions

    def _departed(self, departure: Departure, now: float) -> list[Action]:
        sequence = self._book.running.get(departure.sequence)
        if sequence is None or departure.attempt != sequence.attempt:
            self.counts["departures_of_old_attempts"] += 1
            self._residency.departed(departure.sequence, departure.attempt, departure.held)
            return []
        match departure.reason:
            case Reason.DUPLICATE:
                return []  # the first copy is on its way; if it is not, its deadline says so
            case Reason.MISSING | Reason.STALE:
                # STALE in the current attempt: its Nack was lost, or this is it.
                return self._attempts.missing(sequence, departure, now)
            case Reason.FAILED | Reason.CANCELLED:
                return self._attempts.failed(sequence, departure, now)

    def _fidelity_of(self, sequence: bytes) -> Fidelity | None:
        running = self._book.running.get(sequence)
        return None if running is None else running.request.fidelity

    def _observe(self, frame: Frame, now: float) -> None:
        dispatch = self._dispatch
        dispatch.outbox.done(frame.microbatch)
        microbatch = dispatch.window.get(frame.microbatch)
        if microbatch is None:
            self.counts["frames_not_awaited"] += 1
            return
        self.counts["frames_returned"] += 1
        dispatch.window.restart(frame.microbatch, now)
        if frame.refill is None:  # else most stages did nothing
            self.stats.observe(frame.traces, microbatch.sent, now)
        if not microbatch.spans:
            dispatch.carried(frame.microbatch)
        elif frame.refill is None and not frame.departures and dispatch.cost is not None:
            dispatch.cost.observe(Pass.of(frame.spans), frame.traces, microbatch.sent, now)
            self.hops.observe(frame.spans, self._fidelity_of, frame.traces)
