"""The scheduler: requests in, frames out, tokens delivered exactly once (DESIGN.md §3, §6).

Every method is an event and returns the actions it leads to. A lost frame, a Nack, a link that
failed and a new layout all end in `Attempts.reissue`: a new attempt that starts where the pipeline
can go on. The sequence's history is the truth; what stages hold is a cache of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from daemon.fidelity import Fidelity
from daemon.scheduler.actions import Action, Inquire, Suspect
from daemon.scheduler.attempts import Attempts
from daemon.scheduler.book import Book
from daemon.scheduler.dispatch import Dispatch
from daemon.scheduler.hops import Hops, expected_traffic
from daemon.scheduler.pipeline import Limits, Pipeline
from daemon.scheduler.request import (
    FinishReason,
    Refusal,
    Request,
    RequestError,
    check_request,
)
from daemon.scheduler.residency import Residency
from daemon.scheduler.results import Results
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.speculation.acceptance import Acceptance
from daemon.scheduler.speculation.guesser import Guesser
from daemon.scheduler.trace import PipelineStats
from transports.frame import Frame, Span


class Scheduler:
    """Owned by the coordinator's loop; not thread-safe."""

    def __init__(self, limits: Limits | None = None, guesser: Guesser | None = None) -> None:
        self._limits = limits or Limits()
        self._dispatch = Dispatch(self._limits, guesser)
        self._book = Book(self._limits.max_running)
        self.residency = Residency(self._book, self._dispatch.outbox, self._limits)
        self._attempts = Attempts(self._limits, self._dispatch, self._book, self.residency)
        self._results = Results(
            self._dispatch, self._book, self.residency, self._attempts, self._limits.codec
        )

    # --- events -------------------------------------------------------------------------------

    def configure(
        self,
        pipeline: Pipeline | None,
        now: float,
        held: Mapping[bytes, int] | None = None,
        lost: Collection[int] = (),
        intended: bool = False,
    ) -> list[Action]:
        """A new layout, or none. Every running sequence is issued again, from what `held` says that
        all stages have of it; without `held` from what was confirmed, and a Nack corrects it. After
        a barrier they go on: all that was sent has come back, and is held in the new layout. The
        stages `lost` have nothing: they are refilled, where the others have something. When it is
        `intended` that there is none no stage has ended, and nothing can be what ended it.
        """
        if pipeline is None:
            actions = [] if intended else self._attempts.went_down(now)
            self._dispatch.reset(None)
            return actions
        before = self._dispatch.pipeline
        if before is not None and (pipeline.term, pipeline.epoch) <= (before.term, before.epoch):
            raise ValueError(f"epoch {pipeline.epoch} is not newer than {before.epoch}")
        behind_barrier = self._dispatch.holds
        same = self._dispatch.reset(pipeline)
        self._results.configure(pipeline)
        self.residency.configure(pipeline, held, lost, same)
        actions = [*self._attempts.configure(pipeline, now), Inquire()]
        for sequence in self._book.running.values():
            sequence.forgive()
            sequence.tried = False
            replaced = sequence.refilling is not None and (bool(lost) or not same)
            if not same:  # stages that were to be refilled have another place now
                sequence.refilling = None
            if sequence.issued == 0 and not replaced:
                self._dispatch.ready.push(sequence)  # nothing of it was sent in this attempt
                continue
            if behind_barrier and sequence.issued == sequence.confirmed:
                self._attempts.resume(sequence)
                continue
            if lost:
                self._attempts.refill(sequence, lost, len(pipeline.stages), now)
                continue
            position = sequence.confirmed
            if held is not None:
                # What they hold beyond that may be guesses that were wrong.
                right = max(sequence.furthest, sequence.prompt_length)
                there = min(held.get(sequence.id, 0), right)
                position = max(there, self.residency.forkable(sequence))
            # The epoch itself revokes the rest.
            self._attempts.reissue(sequence, position, "layout", now)
        return actions + self._go_on(now)

    def barrier(self, now: float) -> list[Action]:
        """Send nothing more in this layout, and say so to the stages with its last frame: until the
        next `configure`. Results are taken in and requests accepted meanwhile.
        """
        send = self._dispatch.barrier()
        return [send] if send else []

    def submit(
        self, request: Request, now: float, given: tuple[int, ...] | None = None
    ) -> list[Action]:
        """Raise RequestError when the request cannot be taken; nothing has changed then. `given`:
        it was taken by a coordinator before this one, and has these tokens of its answer, which
        are not delivered again; it goes on from what the stages hold of it.
        """
        pipeline = self._dispatch.pipeline
        check_request(request, None if pipeline is None else pipeline.context_length)
        if request.sequence in self._book or request.sequence in self.residency.index:
            raise RequestError(Refusal.SEQUENCE, "this sequence id is in use")
        waiting = len(self._book.waiting)
        if waiting >= self._limits.max_waiting and given is None:
            raise RequestError(Refusal.BUSY, f"{waiting} requests wait already: try again later")
        if short := self.residency.memory.never(request.fidelity.kv_bits, len(request.prompt) + 1):
            tokens = f"{len(request.prompt)} tokens and the first of the answer"
            raise RequestError(Refusal.MEMORY, f"no memory for the prompt's {tokens}: {short}")
        acceptance = Acceptance(self._dispatch.speculator.acceptance)
        self._book.enter(Sequence(request, now, acceptance, given))
        return self._go_on(now)

    def cancel(self, sequence: bytes, now: float) -> list[Action]:
        """At any moment. A sequence that has ended meanwhile, or never was, is left alone."""
        return self.finish(sequence, FinishReason.CANCELLED, now)

    def finish(self, sequence: bytes, reason: FinishReason, now: float) -> list[Action]:
        """The text layer found a stop string, or nobody wants the rest."""
        if (found := self._book.get(sequence)) is None:
            return []
        return self._attempts.finish(found, reason, now) + self._go_on(now)

    def result(self, frame: Frame, now: float) -> list[Action]:
        """A frame came back: a RESULT, or WORK of which only the header is left."""
        return self._results.take(frame, now) + self._go_on(now)

    def link_failed(self, now: float, microbatch: int | None = None) -> list[Action]:
        """A link lost this microbatch; None: a path ended, and nobody knows what was on it."""
        actions: list[Action] = []
        for lost in self._dispatch.window:
            if microbatch in (None, lost.id):
                actions += self._attempts.lost(lost.id, "link" if microbatch else "path", now)
        return actions + self._go_on(now)

    def progress(self, microbatch: int | None, stage: int, now: float) -> list[Action]:
        """A heartbeat of `stage` says which microbatch it computes: that one, and those queued
        behind it, are not lost. Only the first word of a stage on a microbatch counts.
        """
        if microbatch:
            self._dispatch.window.progress(microbatch, stage, now)
        return []

    def held(self, stage: int, sequences: Mapping[bytes, int], now: float) -> list[Action]:
        """A stage says how many tokens it holds of what. Its word counts for what is kept; what was
        asked for by a coordinator that is gone is to be released.
        """
        self.residency.report(stage, sequences)
        return self._go_on(now)

    def draft_ready(self, seconds: float | None, now: float) -> list[Action]:
        """A draft model is there, which measured so many seconds a token; None: it is gone."""
        self._dispatch.speculator.draft_ready(seconds, self._book.running.values())
        return self._go_on(now)

    def drafted(
        self, sequence: bytes, position: int, prefix_hash: int, tokens: tuple[int, ...], now: float
    ) -> list[Action]:
        """The draft model guesses `tokens` from `position` on, after tokens of this hash."""
        found = self._book.running.get(sequence)
        if found is None:
            return []
        self._dispatch.speculator.drafted(found, position, prefix_hash, tokens, now)
        return self._go_on(now)

    def lags(self, sequence: bytes, held: int, now: float) -> list[Action]:
        """The draft model has only so many of the tokens that it was told to start from."""
        found = self._book.running.get(sequence)
        if found is not None and self._dispatch.speculator.draft.lags(sequence, held):
            self._dispatch.speculator.changed(found)
        return self._go_on(now)

    def evict(self, sequence: bytes, now: float) -> list[Action]:
        """A sequence that is kept, pinned or not, is to be forgotten."""
        self.residency.evict(sequence)
        return self._go_on(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: call at `next_wake`, or more often."""
        actions: list[Action] = []
        for overdue in self._dispatch.window.expired(now):
            if overdue.id not in self._dispatch.window:
                continue  # an older one of the same sequence has taken it along
            age = now - overdue.sent
            why = f"not back after {age:.1f} s, predicted {overdue.seconds:.1f} s"
            actions.append(Suspect(overdue.id, why))
            actions += self._attempts.lost(overdue.id, "lost", now)
        self._dispatch.ready.wake(now)
        self._attempts.tick(now)
        return actions + self._go_on(now)

    # --- what is known ------------------------------------------------------------------------

    @property
    def counts(self) -> Counter[str]:
        """Frames that came back, and what of them counts no more."""
        return self._results.counts

    @property
    def stats(self) -> PipelineStats:
        """Of the present layout."""
        return self._results.stats

    @property
    def hops(self) -> Hops:
        return self._results.hops

    @property
    def reissues(self) -> Counter[str]:
        """By cause."""
        return self._attempts.reissues

    def next_wake(self) -> float | None:
        """When `tick` has something to do, if nothing else happens before."""
        times = (self._dispatch.next_wake(), self._attempts.next_wake())
        return min((t for t in times if t is not None), default=None)

    def fidelity(self, kv_bits: int, prompt: tuple[int, ...], max_tokens: int) -> Fidelity:
        """How exact a request is to be that comes now."""
        cost, length = self._dispatch.cost, len(prompt)
        chunk = cost.chunk(length, 0, None) if cost and length else length
        together = len(self._book.running) + 1
        traffic = expected_traffic(length, max_tokens, chunk, together)
        residency = self.residency
        return self.hops.fidelity(kv_bits, prompt, traffic, residency.index, residency.memory.reach)

    def sequences(self) -> Iterator[Sequence]:
        """Running ones, then those that wait, in order. Not to be changed."""
        return iter(self._book)

    def cached_tokens(self, sequence: bytes) -> int | None:
        """Of its prompt; None before it is admitted, and when it has ended."""
        found = self._book.get(sequence)
        return None if found is None or found.admitted is None else found.cached

    def status(self) -> dict[str, Any]:
        """Counters, for `ps` and `status`."""
        return {
            "running": len(self._book.running),
            "waiting": len(self._book.waiting),
            **self._dispatch.status(),
            "frames_returned": self.counts["frames_returned"],
            "ignored": {k: n for k, n in self.counts.items() if k != "frames_returned"},
            "reissues": dict(self.reissues),
            "refills": dict(self._attempts.refills),
            "kept": len(self.residency.index.kept),
            "prefix": dict(self.residency.counts),
            "speculation": self._dispatch.speculator.as_dict(),
        }

    def check_integrity(self) -> None:
        self._dispatch.check_integrity()
        self._results.check_integrity()
        self._book.check_integrity()
        self.residency.check_integrity()
        if self._dispatch.pipeline is not None and self._book.waiting:
            awaited = len(self.residency.expected) or self._attempts.next_wake()
            assert self._book.running or awaited, "scheduler: all wait"
        under_way: dict[bytes, list[Span]] = {}
        for microbatch in self._dispatch.window:
            for span in self._dispatch.window.awaited(microbatch.id):
                assert span.sequence in self._book.running, "scheduler: in flight, but not running"
                under_way.setdefault(span.sequence, []).append(span)
        for sequence in self._book.running.values():
            spans = under_way.get(sequence.id, [])
            assert all(s.attempt == sequence.attempt for s in spans), "scheduler: old attempt"
            assert all(s.position + s.length <= sequence.issued for s in spans), "scheduler: issued"
            assert not sequence.refuted, "scheduler: refuted, and goes on"
            if self._dispatch.pipeline is None:
                continue
            # Liveness: what is not complete is queued, or expected back with a token.
            awaited = any(s.outputs for s in spans)
            assert (sequence.id in self._dispatch.ready) == (sequence.remaining > 0), "ready"
            assert awaited == (sequence.remaining == 0), "scheduler: nothing will come"

    # --- rules --------------------------------------------------------------------------------

    def _go_on(self, now: float) -> list[Action]:
        """Admit who waits, then send what can be sent."""
        if self._dispatch.pipeline is None:
            return []
        actions = self._attempts.admit(now)
        return [*actions, *self._dispatch.fill(now, *self._book.decoding())]
