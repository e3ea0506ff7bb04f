"""KV that follows its layers to another stage while these go on computing: real models and sockets,
and the tokens of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zmq

from daemon.engine.stage import Stage
from daemon.engine.transfer import cut, only_grows, position_bytes
from daemon.fidelity import Fidelity
from daemon.footprint import StageMemory
from daemon.history import History
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.stage.codecs import RowCoder
from daemon.stage.giving import Giving, Taker
from daemon.stage.pieces import Grown, PieceError, PieceReceiver, PieceSender
from daemon.stage.succession import successor
from daemon.stage.taking import Taking
from daemon.stage.worker import Worker
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Tiny, config_of, write_model
from tests.stage.test_pipeline import Rig
from transports.frame import Frame, FrameKind, Span

A = b"a" * 16
HERE = "tcp://127.0.0.1:0"
PLENTY = 1 << 40
ARCHITECTURES = [
    ("llama", 0),
    ("qwen3", 8),
    ("qwen3", 4),
    ("gemma3_text", 0),
    ("gpt_oss", 0),
    ("deepseek_v3", 0),
]
pytestmark = pytest.mark.usefixtures("recurrent")
CHANGES = [((0, 2, 4), (0, 1, 4)), ((0, 2, 4), (0, 3, 4)), ((0, 1, 4), (0, 3, 4))]


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Move:
    """From a rig's layout to `cuts`; its workers go on until `switch`."""

    def __init__(self, rig: Rig, model: Tiny, cuts: Sequence[int]) -> None:
        self.rig = rig
        self._context: zmq.Context[Any] = zmq.Context()
        old = rig.workers
        self.stages = [
            Stage.load(model.folder, LayerRange(a, b), held=worker.stage)
            for (a, b), worker in zip(pairwise(cuts), old, strict=True)
        ]
        self.takings: list[Taking | None] = []
        takers: list[list[Taker]] = [[] for _ in old]
        for stage, worker in zip(self.stages, old, strict=True):
            own, new = _layers(worker.stage), _layers(stage)
            gained = [n for n in new if n not in own]
            if not gained:
                self.takings.append(None)
                continue
            receiver = PieceReceiver(self._context, HERE, (), (1, 1))
            self.takings.append(Taking(stage, gained, receiver, PLENTY))
            for index, giver in enumerate(old):
                given = [n for n in gained if n in _layers(giver.stage)]
                if given:
                    takers[index].append(taker(self._context, receiver, index, given))
        self.givings = [
            Giving(worker, some) for worker, some in zip(old, takers, strict=True) if some
        ]

    def step(self) -> None:
        for giving in self.givings:
            giving.step()
        for taking in self.takings:
            if taking:
                taking.take()

    @property
    def left(self) -> int:
        return sum(giving.left_bytes for giving in self.givings)

    def switch(self) -> None:
        """As behind a barrier: what is under way is computed, and nothing more is sent."""
        rig = self.rig
        sends, rig.senders[0] = rig.senders[0], _Nowhere()  # type: ignore[assignment]
        while rig.turn():
            pass
        rig.senders[0] = sends
        for giving in self.givings:
            giving.end()
        while not all(giving.finished for giving in self.givings):
            self.step()
        new: list[Worker] = []
        for stage, taking, worker in zip(self.stages, self.takings, rig.workers, strict=True):
            givers = sum(1 for _ in self.givings) if taking else 0
            while taking and not taking.complete(min(givers, 1)):
                taking.take()
            coder = RowCoder.of(stage.info)
            new.append(successor(worker, stage, coder, taking.caches() if taking else ()))
            new[-1].check_integrity()
        rig.workers = new
        memory = tuple(StageMemory(1 << 30, s.footprints(), s.reach) for s in self.stages)
        costs = (StageCost(((1, 0.01),), 0.001),) * len(new)
        rig.perform(rig.scheduler.configure(Pipeline(1, 2, costs, 512, 8, memory=memory), rig.now))

    def close(self) -> None:
        for giving in self.givings:
            giving.close()
        for taking in self.takings:
            if taking:
                taking.close()
        self._context.term()


def taker(
    context: zmq.Context[Any], receiver: PieceReceiver, giver: int, layers: Sequence[int]
) -> Taker:
    sender = PieceSender(context, receiver.address, (), (1, 1), str(giver))
    return Taker(sender, LayerRange(layers[0], layers[-1] + 1))


class _Nowhere:
    def send(self, frame: object) -> None:
        pass


def _layers(stage: Stage) -> range:
    return range(stage.layers.start, stage.layers.end)


@contextmanager
def moving(rig: Rig, model: Tiny, cuts: Sequence[int]) -> Iterator[Move]:
    move = Move(rig, model, cuts)
    try:
        yield move
    finally:
        move.close()


@pytest.mark.parametrize(
    ("architecture", "kv_bits", "change"),
    [
        *((*what, CHANGES[n % len(CHANGES)]) for n, what in enumerate(ARCHITECTURES)),
        *(("llama", 0, change) for change in CHANGES[1:]),
        *(("qwen3_next", 0, change) for change in CHANGES[1:]),  # a recurrent layer moves
    ],
)
def test_nothing_is_computed_again(
    architecture: str, kv_bits: int, change: tuple[tuple[int, ...], ...], tiny: MakeTiny
) -> None:
    model = tiny(architecture, None)
    before, after = (_within(cuts, model.layers) for cuts in change)
    rig, alone = Rig(model, cuts=before), Rig(model, cuts=before)
    for one in (rig, alone):
        for number in range(3):
            prompt = [*PROMPT, number]
            one.submit(name(number), 40, fidelity=Fidelity(kv_bits), prompt=prompt)
    alone.run()
    rig.turns(25)
    with moving(rig, model, after) as move:
        while move.left:
            move.step()
            rig.turn()
        rig.turns(7)
        move.switch()
        held = [worker.ledger.held() for worker in rig.workers]
        assert held[0] == held[1]
        assert len(held[0]) == 3
        assert all(length > len(PROMPT) for length in held[0].values())
        rig.run()
    assert rig.tokens == alone.tokens
    assert {cause for cause, count in rig.scheduler.reissues.items() if count} <= {"layout"}
    assert not any(worker.dropped for worker in rig.workers)


def _within(cuts: tuple[int, ...], layers: int) -> tuple[int, ...]:
    """The last stage ends with the model."""
    return (*cuts[:-1], layers)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("architecture", "kv_bits"), [("llama", 0), ("qwen3", 8)])
def test_what_is_cut_back_meanwhile_is_copied_again(
    architecture: str, kv_bits: int, seed: int, tiny: MakeTiny
) -> None:
    """Frames are lost and doubled, sequences come, are forked and evicted while they are copied."""
    model = tiny(architecture, None)
    rig, alone = (Rig(model, seed, limits=Limits(max_kept=3)) for _ in range(2))
    rig.faults(drop=0.1, duplicate=0.1, reorder=0.1)
    for number in range(5):
        for one in (rig, alone):
            prompt = [*PROMPT, number // 2]
            one.submit(name(number), 25, fidelity=Fidelity(kv_bits), prompt=prompt)
        alone.run()
        for _ in range(10):
            rig.advance()
    with moving(rig, model, (0, 1, 4)) as move:
        for _ in range(60):
            move.step()
            rig.advance()
        rig.faults(drop=0.0, duplicate=0.0, reorder=0.0)
        move.switch()
        rig.run()
    assert rig.tokens == alone.tokens


def test_other_tokens_replace_what_was_copied(tiny: MakeTiny) -> None:
    """As after a guess that was wrong: the copy has the tokens, and the bytes, that count."""
    model = tiny("llama", None)
    rig = Rig(model, limits=Limits(max_kept=0))
    worker = rig.workers[0]
    with moving(rig, model, (0, 1, 4)) as move:
        taking = move.takings[1]
        assert taking
        for attempt, position, tokens in ((1, 0, range(40)), (2, 20, range(90, 120))):
            prefix_hash = worker.ledger.hash_at(A, position) if position else 0
            span = Span(A, attempt, position, len(tokens), prefix_hash)
            constants = {A: {"sampling": SamplingParams().to_wire(), **Fidelity().to_wire()}}
            work = Frame(FrameKind.WORK, 1, 1, attempt, (span,), tuple(tokens), constants)
            worker.handle(work, 0.0)
            move.step()
        for giving in move.givings:
            giving.end()
        while not taking.complete(1):
            move.step()
        ((sequence, history, cache),) = taking.caches()
    assert (sequence, history.tokens) == (A, [*range(20), *range(90, 120)])
    given, form = worker.caches[A].own[1], worker.stage.kv_forms()[1]
    assert only_grows(form)
    assert cut(cache.own[0], 0, 50) == cut(given, 0, 50)


def test_there_is_room_for_so_much_and_no_more(tiny: MakeTiny) -> None:
    """What a giver says is not believed, and what is given again is counted once."""
    stage = Stage.load(tiny("llama", None).folder, LayerRange(1, 3))
    each = 2 * position_bytes(stage.kv_forms()[0])
    context: zmq.Context[Any] = zmq.Context()
    receiver = PieceReceiver(context, HERE, (), (1, 1))
    sender = PieceSender(context, receiver.address, (), (1, 1), "0")
    taking = Taking(stage, range(1, 3), receiver, each * 10)
    data = bytes((each + 4) * 4)

    def given(sequence: bytes, room: int) -> None:
        piece = Grown(sequence, 0, 0, 4, room, LayerRange(1, 3))
        while not sender.send(piece, data):
            pass
        assert receiver.socket.poll(5000)
        taking.take()

    given(A, 4)
    given(A, 6)
    given(A, 4)
    given(name(1), 4)
    with pytest.raises(PieceError, match=f"it takes {each * 14:,} bytes, and there are"):
        given(name(2), 1)
    with pytest.raises(PieceError, match="and there are"):
        given(A, 1 << 60)
    sender.close()
    taking.close()
    context.term()


def test_two_that_give_to_each_other_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """What goes behind the barrier is more than their links have room for: each takes while it
    gives.
    """
    config = config_of("gemma3_text", sliding_window=512)
    folder, layers = write_model(tmp_path / "m", config), LayerRange(0, 2)
    workers = [_with_windows(Stage.load(folder, layers), 40) for _ in range(2)]
    context: zmq.Context[Any] = zmq.Context()
    receivers = [PieceReceiver(context, HERE, (), (1, 1)) for _ in workers]
    takings = [Taking(Stage.load(folder, layers), range(2), one, PLENTY) for one in receivers]
    givings = [
        Giving(worker, [taker(context, receiver, index, range(2))])
        for index, (worker, receiver) in enumerate(zip(workers, reversed(receivers), strict=True))
    ]
    for giving in givings:
        giving.end()
    full = [False, False]
    while not all(full):  # nobody takes anything
        full = [giving.step() is False and giving.sent_bytes > 0 for giving in givings]
    while not all(taking.complete(1) for taking in takings):
        for one in (*givings, *givings):
            one.step()
        for taking in takings:
            taking.take()
    for taking in takings:
        assert len(list(taking.caches())) == 40
    for one in (*givings, *takings):
        one.close()
    context.term()


def _with_windows(stage: Stage, count: int) -> Worker:
    """That holds so many sequences that began alike, longer than the window."""
    worker = Worker(stage, RowCoder.of(stage.info), 0, lambda: 0.0)
    tokens = tuple(PROMPT) * 30
    constants = {A: {"sampling": SamplingParams().to_wire(), **Fidelity().to_wire()}}
    span = Span(A, 1, 0, len(tokens), 0)
    worker.handle(Frame(FrameKind.WORK, 1, 1, 1, (span,), tokens, constants), 0.0)
    for number in range(count - 1):
        fork = worker.caches[A].fork(len(tokens))
        assert fork
        assert worker.adopt(name(number), History(tokens), fork)
    return worker
