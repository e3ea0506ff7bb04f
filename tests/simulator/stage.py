"""A stage of the simulator: fence, ledger and KV, as the stage process has them."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from daemon.fidelity import Fidelity
from daemon.footprint import StageMemory
from daemon.history import History
from daemon.stage.fence import Fence, Verdict
from daemon.stage.hidden_log import HiddenLog
from daemon.stage.ledger import Compute, SpanLedger
from daemon.stage.refilling import Part, lend, part_of
from tests.simulator.faults import Rates
from tests.simulator.model import Layers, head
from transports.frame import (
    Departure,
    DType,
    Fork,
    Frame,
    FrameKind,
    Reason,
    Release,
    Span,
    StageTrace,
    Tensor,
)


def _pack(hidden: list[int]) -> Tensor:
    """One row of eight bytes per token."""
    return Tensor(DType.UINT8, (len(hidden), 8), struct.pack(f"<{len(hidden)}Q", *hidden))


def _unpack(tensor: Tensor) -> list[int]:
    return list(struct.unpack(f"<{tensor.shape[0]}Q", tensor.data))


class SimulatedStage:
    """Holds layers [start, end). Whoever owns it moves frames and time."""

    def __init__(
        self,
        index: int,
        start: int,
        end: int,
        last: bool,
        rng: random.Random,
        reach: int | None = None,
        hidden_bytes: int = 0,
    ) -> None:
        self.index, self.start, self.end, self.last = index, start, end, last
        self.reach = reach  # a cache can be forked at most so many tokens below its end
        self.fence = Fence()
        self.ledger = SpanLedger(index)
        self.kv: dict[bytes, Layers] = {}
        self.log = HiddenLog(0 if last else hidden_bytes)
        self.queue: deque[Frame] = deque()
        self.working: Frame | None = None
        self.alive = True
        self.hung = False
        self.failures: dict[bytes, int] = {}
        self.shortfalls = 0
        self._rng = rng

    def place(self, index: int, last: bool) -> None:
        self.index = self.ledger.stage = index
        self.last = last

    def handle(
        self,
        frame: Frame,
        rates: Rates,
        started: float,
        computed: float,
        raises: Callable[[Span], bool] = lambda span: False,
    ) -> Frame | None:
        """The frame to send on, None when the fence keeps or drops it. All spans of a frame fail
        when computing one of them `raises`.
        """
        if self.fence.judge(frame) is not Verdict.ADMIT:
            return None
        for command in frame.commands:
            match command:
                case Release(sequence, attempt):
                    if self.ledger.release(sequence, attempt):
                        self.kv.pop(sequence, None)
                        self.log.forget(sequence)
                case Fork():
                    self._fork(command, rates)
        match part_of(frame.refill, self.index):
            case Part.COMPUTE:
                frame = self._computed(frame, rates, raises)
            case Part.LEND:
                frame = lend(frame, self.ledger, self.log)
        trace = StageTrace(self.index, started, started, computed, computed)
        return replace(frame, traces=(*frame.traces, trace))

    def _computed(self, frame: Frame, rates: Rates, raises: Callable[[Span], bool]) -> Frame:
        spans: list[Span] = []
        tokens: list[int] = []
        hidden: list[int] = []
        departures: list[Departure] = []
        offset = 0
        values = [v for tensor in frame.tensors for v in _unpack(tensor)] or list(frame.tokens)
        for span in frame.spans:
            rows = slice(offset, offset + span.length)
            offset += span.length
            out = self._compute(span, frame, list(frame.tokens[rows]), values[rows], rates)
            if isinstance(out, Departure):
                departures.append(out)
                continue
            spans.append(span)
            if self.last:
                seed = self.ledger.constants(span.sequence)["sampling"]["seed"]
                tokens += [head(v, seed) for v in out[len(out) - span.outputs :]]
            else:
                tokens += frame.tokens[rows]
                hidden += out
        if any(map(raises, spans)):
            departures += [self._fail(s, s.position) for s in spans]
            spans, tokens, hidden = [], [], []
        sent = (_pack(hidden),) if hidden else ()
        self.log.keep(spans, sent)
        ends = frame.refill is not None and self.index == frame.refill.end - 1
        return replace(
            frame,
            kind=FrameKind.RESULT if self.last or ends else FrameKind.WORK,
            spans=tuple(spans),
            tokens=() if ends else tuple(tokens),
            departures=(*frame.departures, *departures),
            tensors=() if ends else sent,
        )

    def restore(self, sequence: bytes, history: History, layers: Layers) -> bool:
        """Hold what was saved: `layers` are those of the whole model."""
        if not self.ledger.adopt(sequence, history):
            return False
        self.kv[sequence] = layers.part(self.start, self.end)
        return True

    def kv_bytes(self, memory: StageMemory) -> int:
        """As real caches would take them."""
        return sum(memory.bytes_for(c.fidelity.kv_bits, len(c)) for c in self.kv.values())

    def check_integrity(self) -> None:
        self.fence.check_integrity()
        self.ledger.check_integrity()
        held = self.ledger.held()
        for sequence, layers in self.kv.items():
            assert held[sequence] == len(layers), "ledger and KV differ"
        self.log.check_integrity()
        for sequence, length in self.log.lengths.items():
            assert length <= held[sequence], "more kept than computed"
        assert all(sequence in self.kv for sequence, length in held.items() if length)

    def _compute(
        self, span: Span, frame: Frame, tokens: list[int], values: list[int], rates: Rates
    ) -> list[int] | Departure:
        verdict = self.ledger.admit(span, tokens, frame.constants.get(span.sequence))
        if not isinstance(verdict, Compute):
            return verdict.departure
        fidelity = Fidelity.from_wire(self.ledger.constants(span.sequence))
        layers = self.kv.setdefault(span.sequence, Layers(self.start, self.end, fidelity))
        if len(layers) > span.position and self._rng.random() < rates.shortfall:
            self.shortfalls += 1
            held = self._random_held(span)
            layers.trim(held)
            self.log.trim(span.sequence, held)
            return self.ledger.forget(span, held, Reason.MISSING)
        if self._rng.random() < rates.failure:
            return self._fail(span, self._random_held(span))
        layers.trim(verdict.trim_to)
        return layers.run(values)

    def _fork(self, fork: Fork, rates: Rates) -> None:
        if not self.ledger.can_fork(fork):
            return
        source = self.kv.get(fork.source)
        length = min(fork.length, len(source)) if source else 0
        if source and self.reach is not None and len(source) - length > self.reach:
            length = 0
        if self._rng.random() < rates.shortfall:
            self.shortfalls += 1
            length = self._rng.randint(0, length)
        if source and length:
            self.kv[fork.target] = source.fork(length)
            self.ledger.fork(fork, length)
            self.log.fork(fork.source, fork.target, length)

    def _random_held(self, span: Span) -> int:
        return self._rng.choice((0, self._rng.randint(0, span.position)))

    def _fail(self, span: Span, held: int) -> Departure:
        self.failures[span.sequence] = self.failures.get(span.sequence, 0) + 1
        self.kv[span.sequence].trim(held)
        self.log.trim(span.sequence, held)
        return self.ledger.forget(span, held, Reason.FAILED)
