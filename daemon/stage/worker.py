"""What a stage does with a frame: judge it by the frame rule, compute what is left, say what was
not done.

No sockets and no clock of its own: a frame in, a frame out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx

from daemon import logs
from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.stage import Row, Stage
from daemon.history import History
from daemon.stage.codecs import RowCoder
from daemon.stage.constants import Known
from daemon.stage.hidden_log import HiddenLog
from daemon.stage.ledger import Compute, SpanLedger
from daemon.stage.onward import Work, to_coordinator, to_next
from daemon.stage.refilling import Part, lend, part_of
from transports.codecs.layout import Codec, obstacle
from transports.errors import FrameError
from transports.frame import (
    Departure,
    Fork,
    Frame,
    Reason,
    Release,
    Span,
    StageTrace,
    Tensor,
)

log = logs.get("stage")


class Worker:
    """One stage's sequences: their ledger and their caches, which always hold the same tokens."""

    def __init__(
        self,
        stage: Stage,
        coder: RowCoder,
        index: int,
        clock: Callable[[], float],
        digest: str = "",
        hidden_bytes: int = 0,
    ) -> None:
        """`digest` is that of the model's weights: what is saved of it belongs to no other.
        `hidden_bytes` are for the hidden states that were sent on.
        """
        self.stage = stage
        self.digest = digest
        self.index = index
        self.ledger = SpanLedger(index)
        self.caches: dict[bytes, SequenceCache] = {}
        self.log = HiddenLog(hidden_bytes)
        self._coder = coder
        self._known: dict[bytes, Known] = {}
        self._bytes: dict[bytes, int] = {}
        self._changed: set[bytes] = set()
        self._clock = clock

    def place(self, index: int) -> None:
        """Take another place in the pipeline; what is held stays."""
        self.index = index
        self.ledger.stage = index

    def adopt(self, sequence: bytes, history: History, cache: SequenceCache) -> bool:
        """Hold a sequence that was restored. False when nobody wants it any more."""
        taken = self.ledger.adopt(sequence, history)
        if taken:
            self.caches[sequence] = cache
            self._changed.add(sequence)
        return taken

    def succeeded(
        self, stage: Stage, coder: RowCoder, caches: dict[bytes, SequenceCache]
    ) -> Worker:
        """One that goes on with these caches, and knows all else that this one does."""
        hidden = self.log.budget_bytes
        worker = Worker(stage, coder, self.index, self._clock, self.digest, hidden)
        if stage.layers.end == self.stage.layers.end:
            worker.log = self.log
            self.log.retain(caches)
        else:  # what this one has sent on is no longer what goes to the next stage
            self.log.retain(())
        worker.ledger = self.ledger.of(caches)
        worker.caches = caches
        worker._changed.update(caches)
        return worker

    def handle(self, frame: Frame, received: float) -> Frame:
        """The frame to send on: a RESULT from the last stage, else the WORK with this stage's
        hidden states.
        """
        started = self._clock()
        for command in frame.commands:
            match command:
                case Release(sequence, attempt):
                    self._release(sequence, attempt)
                case Fork():
                    self._fork(command)
        match part_of(frame.refill, self.index):
            case Part.COMPUTE:
                onward, computed = self._computed(frame)
            case Part.LEND:
                onward, computed = lend(frame, self.ledger, self.log), started
            case Part.PASS:
                onward, computed = frame, started
        trace = StageTrace(self.index, received, started, computed, self._clock())
        return replace(onward, traces=(*onward.traces, trace))

    def _computed(self, frame: Frame) -> tuple[Frame, float]:
        """The frame to send on, and when computing it ended: writing it takes time as well."""
        entering = None
        work, departures = self._admit(frame)
        try:
            if work and not self.stage.is_first:
                entering = self._coder.read(frame.tensors)
            work, output, failed = self._compute_what_can_be(frame, work, entering)
        except FrameError as error:
            log.error("hidden states of microbatch %d are refused: %s", frame.microbatch, error)
            work, output, failed = [], [], [self._fail(w.span) for w in work]
        computed = self._clock()
        departures += failed
        if self.stage.is_last:
            return to_coordinator(frame, work, departures, output), computed
        ends = frame.refill is not None and self.index == frame.refill.end - 1
        sent: tuple[Tensor, ...] = ()
        if work and (self.log.keeps or not ends):
            parts = [(w.codec, w.span.length) for w in work]
            sent = self._coder.write(output[0], parts)
            self.log.keep([w.span for w in work], sent)
        if ends:
            return to_coordinator(frame, work, departures), computed
        return to_next(frame, work, departures, sent), computed

    def _compute_what_can_be(
        self, frame: Frame, work: list[Work], entering: mx.array | None
    ) -> tuple[list[Work], list[Any], list[Departure]]:
        """Together; when that fails each row alone, so that one of them does not cost the others
        what they hold. Returns what was computed, its output, and who leaves.
        """
        done: list[Work] = []
        outputs: list[list[Any]] = []
        failed: list[Departure] = []
        groups = [work] if work else []
        while groups:
            group = groups.pop(0)
            try:
                outputs.append(self._compute(frame, group, entering))
                done += group
            except Exception:
                # Whatever a model's code makes of a request: it must not end the stage for others.
                log.exception("computing microbatch %d failed", frame.microbatch)
                for w in group:
                    if len(group) > 1 and w.row.cache.recover(w.span.position):
                        groups.append([w])
                    else:
                        failed.append(self._fail(w.span))
        return done, self._joined(outputs), failed

    def _joined(self, outputs: list[list[Any]]) -> list[Any]:
        """As if it had been computed together."""
        if self.stage.is_last or len(outputs) < 2:
            return [one for output in outputs for one in output]
        joined = mx.concatenate([carry for (carry,) in outputs])
        mx.eval(joined)
        return [joined]

    def _admit(self, frame: Frame) -> tuple[list[Work], list[Departure]]:
        work: list[Work] = []
        departures: list[Departure] = []
        offset = 0
        for span in frame.spans:
            tokens = frame.tokens[offset : offset + span.length]
            verdict = self.ledger.admit(span, tokens, frame.constants.get(span.sequence))
            if isinstance(verdict, Compute):
                prepared = self._prepare(span, tokens, offset, verdict.trim_to)
            else:
                prepared = verdict.departure
            if isinstance(prepared, Work):
                work.append(prepared)
            else:
                departures.append(prepared)
            offset += span.length
        # Rows that are written alike stand together in one tensor.
        return sorted(work, key=lambda w: w.codec), departures

    def _prepare(
        self, span: Span, tokens: tuple[int, ...], offset: int, position: int
    ) -> Work | Departure:
        """Bring the cache to where the span starts. Some caches cannot go back that far: then what
        they can still hold is said, and the coordinator goes on from there."""
        sequence = span.sequence
        try:
            known = self._constants(sequence)
            cache = self._cache(sequence, known.fidelity.kv_bits)
            codec = Codec.RAW
            if not self.stage.is_last:
                codec = known.fidelity.codec_before(self.stage.layers.end)
            if why := obstacle(codec, self.stage.info.hidden_size):
                raise ValueError(f"{codec} cannot be used: {why}")
        except (KeyError, TypeError, ValueError, CacheError) as error:
            log.error("constants of %s are refused: %r", sequence.hex(), error)
            return self._fail(span)
        restored = cache.trim(position)
        if restored != position:
            self.log.trim(sequence, restored)
            return self.ledger.forget(span, restored, Reason.MISSING)
        row = Row(cache, tokens, self.ledger.tokens(sequence), span.outputs, known.params)
        return Work(span, tokens, row, offset, codec)

    def _constants(self, sequence: bytes) -> Known:
        constants = self.ledger.constants(sequence)
        known = self._known.get(sequence)
        if known is None or known.constants is not constants:
            known = self._known[sequence] = Known.read(constants)
        return known

    def _cache(self, sequence: bytes, kv_bits: int) -> SequenceCache:
        """The sequence's own, or a new one; never one in which exact and quantised KV would mix."""
        self._changed.add(sequence)
        cache = self.caches.get(sequence)
        if cache is None:
            cache = self.caches[sequence] = self.stage.new_cache(kv_bits)
        if cache.kv_bits != kv_bits:
            raise CacheError(f"KV of {cache.kv_bits} bits is held, {kv_bits} are asked for")
        return cache

    def _compute(self, frame: Frame, work: list[Work], entering: mx.array | None) -> list[Any]:
        carry = None if entering is None else [self._rows_of(entering, frame, work)]
        return self.stage.run([w.row for w in work], carry)

    def _rows_of(self, array: mx.array, frame: Frame, work: list[Work]) -> mx.array:
        """The rows of the spans that are left, as these stand: all as they came, as a rule."""
        spans = frame.spans
        if len(work) == len(spans) and all(w.span is s for w, s in zip(work, spans, strict=True)):
            return array
        return mx.concatenate([array[w.offset : w.offset + w.span.length] for w in work])

    def _fail(self, span: Span) -> Departure:
        """Computing broke off somewhere: what the caches hold is not known any more."""
        self.caches.pop(span.sequence, None)
        self.log.forget(span.sequence)
        self._changed.add(span.sequence)
        return self.ledger.forget(span, 0, Reason.FAILED)

    def _release(self, sequence: bytes, attempt: int) -> None:
        if self.ledger.release(sequence, attempt):
            self.caches.pop(sequence, None)
            self.log.forget(sequence)
            self._known.pop(sequence, None)
            self._changed.add(sequence)

    def _fork(self, fork: Fork) -> None:
        """As much as there is of it. Where that is too little, the target's span is refused."""
        if not self.ledger.can_fork(fork):
            return
        source = self.caches.get(fork.source)
        cache = source.fork(fork.length) if source else None
        if cache and cache.length:
            self.caches[fork.target] = cache
            self._changed.add(fork.target)
            self.ledger.fork(fork, cache.length)
            self.log.fork(fork.source, fork.target, cache.length)

    @property
    def dropped(self) -> dict[str, int]:
        """Spans that left their frames here, by reason."""
        return {reason.name.lower(): n for reason, n in self.ledger.counts.items() if n}

    @property
    def kv_bytes(self) -> int:
        """Of all caches; only those that changed since the last time are looked into."""
        for sequence in self._changed:
            cache = self.caches.get(sequence)
            if cache is None:
                self._bytes.pop(sequence, None)
            else:
                self._bytes[sequence] = cache.nbytes
        self._changed.clear()
        return sum(self._bytes.values())

    def check_integrity(self) -> None:
        self.ledger.check_integrity()
        for sequence, cache in self.caches.items():
            held = len(self.ledger.tokens(sequence))
            assert cache.length == held, f"cache holds {cache.length} tokens, ledger {held}"
        self.log.check_integrity()
        for sequence, length in self.log.lengths.items():
            held = len(self.ledger.tokens(sequence))
            assert length <= held, f"log holds {length} positions, ledger {held}"
        assert self.kv_bytes == sum(cache.nbytes for cache in self.caches.values()), "bytes"
