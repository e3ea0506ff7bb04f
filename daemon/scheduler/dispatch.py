"""Frames out: turns ready sequences into frames while the window has room, commands on board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.scheduler.actions import Propose, Revoke, Send
from daemon.scheduler.compose import Load, Piece, compose
from daemon.scheduler.cost import CostModel, Pass
from daemon.scheduler.inflight import Microbatch, Window
from daemon.scheduler.outbox import Outbox
from daemon.scheduler.pipeline import Limits, Pipeline
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence, SequenceStatus
from daemon.scheduler.speculation.guesser import Guesser
from daemon.scheduler.speculation.speculator import Speculator
from transports.frame import Barrier, Fork, Frame, FrameKind, Span


class Dispatch:
    """Everything between "this sequence has tokens to compute" and a frame, and what is known of
    the frames under way.
    """

    def __init__(self, limits: Limits, guesser: Guesser | None) -> None:
        self.pipeline: Pipeline | None = None
        self.cost: CostModel | None = None
        self.ready = ReadyQueue()
        self.window = Window(limits.grace_seconds, limits.patience)
        self.outbox = Outbox()
        self.speculator = Speculator(limits.speculate, guesser)
        self.frames_sent = 0
        self.holds = False  # a barrier was sent, and nothing follows it in this layout
        self._limits = limits
        self._last_id = 0  # 0 means idle in a heartbeat
        self._carriers_lost = 0
        self._carrier_after = 0.0
        self._now = 0.0
        self._places: tuple[int, ...] = ()  # of the last layout

    def reset(self, pipeline: Pipeline | None) -> bool:
        """Nothing that was sent before counts any more. Whether each stage is in the place that it
        had in the last layout: behind a barrier others may be there, with what these had.
        """
        same = not self.holds and pipeline is not None and pipeline.places == self._places
        self._places = pipeline.places if pipeline else self._places
        self.pipeline = pipeline
        self.cost = _cost_of(pipeline) if pipeline else None
        self.speculator.configure(pipeline, self.cost)
        self.window.clear()
        self.outbox.lost_all()
        self.ready.clear()
        self.holds = False
        self._carriers_lost, self._carrier_after = 0, 0.0
        return same

    def withdraw(self, sequence: bytes) -> bool:
        """Neither queued nor expected back any more. True when something of it was under way."""
        self.ready.discard(sequence)
        under_way = self.window.spans_of(sequence)
        for microbatch in self.window.drop_sequence(sequence):
            self.outbox.lost(microbatch)
        return bool(under_way)

    def revoke(self, sequence: bytes, attempt: int) -> list[Revoke]:
        """What is under way of earlier attempts need not be computed any more; but behind a barrier
        it is, so that all stages end with the same tokens.
        """
        return [] if self.holds else [Revoke(sequence, attempt)]

    def judged(self, sequence: Sequence, guesses: int) -> None:
        """The pipeline has said what comes where `guesses` had been sent: all were right, or the
        last was not, and what is under way after it is in vain.
        """
        wrong = sequence.refuted
        cancelled = len(self.window.spans_of(sequence.id)) if wrong else 0
        self.speculator.judged(guesses - wrong, wrong, cancelled)

    def give_up(self, microbatch: int, now: float) -> tuple[Span, ...]:
        """The frame will not come back. Returns the spans that were still awaited from it."""
        spans = self.window.awaited(microbatch)
        lost = self.window.remove(microbatch)
        self.outbox.lost(microbatch)
        if lost is not None and not lost.spans:
            self._carriers_lost += 1
            self._carrier_after = now + self._limits.backoff(self._carriers_lost)
        return spans

    def carried(self, microbatch: int) -> None:
        """A frame of commands alone came back."""
        self.window.remove(microbatch)
        self._carriers_lost, self._carrier_after = 0, 0.0

    def settle(self, microbatch: int, span: Span) -> None:
        """`span` was computed in `microbatch`. So was then whatever its attempt had to compute
        before it, whether or not those frames came back; only tokens cannot be inferred.
        """
        end = span.position + span.length
        for other, s in self.window.spans_of(span.sequence):
            inferred = other == microbatch or not s.outputs
            if s.position + s.length > end or not inferred:
                continue
            if self.window.drop_span(other, span.sequence):
                self.outbox.lost(other)

    def fill(self, now: float, decoding: int, attended: int) -> list[Send | Propose]:
        """Send what the window has room for, and ask the draft for more. `decoding` running
        sequences decode, `attended` are their positions.
        """
        self._now = now
        if self.pipeline is None or self.cost is None:
            return []
        sends: list[Send | Propose] = []
        while not self.holds and (
            pieces := compose(
                self.ready, self._load(decoding, attended), self.cost, self.speculator, now
            )
        ):
            sends.append(self._send(self.pipeline, self.cost, pieces, now))
        if self._carrier_due() and now >= self._carrier_after:
            sends.append(self._send(self.pipeline, self.cost, (), now))
        return [*sends, *self.speculator.proposals(now)]

    def barrier(self) -> Send | None:
        """The last frame of this layout: stages are done with it when it has passed them. It is not
        waited for here, nor sent again. None without a layout.
        """
        if self.pipeline is None:
            return None
        self.holds = True
        self._last_id += 1
        layout, commands = (self.pipeline.term, self.pipeline.epoch), (Barrier(),)
        return Send(Frame(FrameKind.WORK, *layout, self._last_id, commands=commands))

    def next_wake(self) -> float | None:
        times = [
            self.window.next_deadline(),
            self.ready.next_wake(),
            self.speculator.next_wake(self._now),
        ]
        if self._carrier_due():
            times.append(self._carrier_after)
        return min((t for t in times if t is not None), default=None)

    def status(self) -> dict[str, Any]:
        return {
            "in_flight": len(self.window),
            "window": self.cost.useful_in_flight() if self.cost else 0,
            "releases_pending": len(self.outbox),
            "frames_sent": self.frames_sent,
            "predicted": {} if self.cost is None else self.cost.as_dict(),
        }

    def check_integrity(self) -> None:
        self.ready.check_integrity()
        self.window.check_integrity()
        self.outbox.check_integrity()
        if self.cost is not None:
            self.cost.check_integrity()
        if self.pipeline is None:
            assert not list(self.window), "dispatch: in flight without a pipeline"

    def _load(self, decoding: int, attended: int) -> Load:
        steps, ahead = self.window.steps, self.window.ahead
        chunks = len(self.window) - steps - ahead
        return Load(steps, chunks, decoding, attended, self.window.alone, ahead)

    def _carrier_due(self) -> bool:
        """Commands wait, and nothing is in flight after which a frame could take them along."""
        idle = not len(self.window) and not self.window.carriers
        return self.pipeline is not None and idle and self.outbox.waiting > 0 and not self.holds

    def _send(
        self, pipeline: Pipeline, cost: CostModel, pieces: tuple[Piece, ...], now: float
    ) -> Send:
        spans: list[Span] = []
        tokens: list[int] = []
        constants: dict[bytes, Mapping[str, Any]] = {}
        ahead = bool(pieces) and not any(p.sequence.remaining for p in pieces)
        step = not ahead and any(p.sequence.status is SequenceStatus.DECODE for p in pieces)
        forks: list[Fork] = []
        refill = pieces[0].sequence.refill if pieces else None  # then it is the only one
        for piece in pieces:
            sequence = piece.sequence
            span, carried = sequence.span(piece.length)
            spans.append(span)
            tokens += carried
            if sequence.constants_due:
                constants[sequence.id] = sequence.constants
                sequence.constants_due = False
                if prefix := sequence.prefix:
                    fork = Fork(prefix.source, sequence.id, sequence.attempt, prefix.length)
                    forks.append(fork)
            sequence.issued += piece.length
            sequence.constants_due |= refill is not None and sequence.refill is None
            sequence.tried = True
            self.ready.discard(sequence.id)
            self.ready.push(sequence)
        self._last_id += 1
        self.frames_sent += 1
        asked = Pass.of(spans)
        seconds = cost.pass_seconds(asked) + self.window.queued_seconds()
        self.window.add(
            Microbatch(
                self._last_id,
                tuple(spans),
                now,
                seconds,
                cost.slowest_seconds(asked),
                step,
                ahead,
                max((p.sequence.repeats + p.sequence.downs for p in pieces), default=0),
                any(p.sequence.alone for p in pieces),
            )
        )
        return Send(
            Frame(
                kind=FrameKind.WORK,
                term=pipeline.term,
                epoch=pipeline.epoch,
                microbatch=self._last_id,
                spans=tuple(spans),
                tokens=tuple(tokens),
                constants=constants,
                commands=(*self.outbox.board(self._last_id), *forks),
                refill=refill,
            )
        )


def _cost_of(pipeline: Pipeline) -> CostModel:
    return CostModel(pipeline.stages, pipeline.chunk_tokens, pipeline.mixed)
