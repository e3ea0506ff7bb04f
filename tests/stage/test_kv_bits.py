"""Quantised KV from the request to the stages' caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from daemon.engine.stage import Stage
from daemon.fidelity import Fidelity
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.stage.codecs import RowCoder
from daemon.stage.worker import Worker
from tests.engine.tiny import PROMPT, Pipe, Tiny, load_split
from tests.stage.test_pipeline import Rig
from transports.frame import Departure, Frame, FrameKind, Reason, Span

MakeTiny = Callable[[str, int | None], Tiny]
A = b"a" * 16
TOKENS = 12


@pytest.fixture
def qwen(tiny: MakeTiny) -> Tiny:
    return tiny("qwen3", None)


@pytest.fixture
def worker(qwen: Tiny) -> Worker:
    stage = Stage.load(qwen.folder, LayerRange(0, 4))
    return Worker(stage, RowCoder.of(stage.info), 0, lambda: 0.0)


def work(attempt: int, kv_bits: Any, tokens: Sequence[int] = PROMPT) -> Frame:
    constants = {"sampling": SamplingParams().to_wire(), "kv_bits": kv_bits, "codecs": []}
    span = Span(A, attempt, 0, len(tokens), 0, 1)
    return Frame(FrameKind.WORK, 1, 1, attempt, (span,), tuple(tokens), {A: constants})


def test_each_request_gets_the_kv_it_asked_for(qwen: Tiny) -> None:
    rig = Rig(qwen)
    names = {bits: bytes([65 + bits]) * 16 for bits in (0, 8, 4)}
    for bits, name in names.items():
        rig.submit(name, TOKENS, fidelity=Fidelity(bits))
    kinds: dict[bytes, set[str]] = {name: set() for name in names.values()}
    while len(rig.finished) < len(names):
        assert rig.turn()
        for worker in rig.workers:
            for name, cache in worker.caches.items():
                kinds[name].add(cache.kind)
    assert kinds == {
        names[0]: {"2 × full"},
        names[8]: {"2 × full 8-bit"},
        names[4]: {"2 × full 4-bit"},
    }
    stages = load_split(qwen.folder, (0, 2, 4))
    for bits, name in names.items():
        assert tuple(rig.tokens[name]) == Pipe(stages, kv_bits=bits).generate(PROMPT, TOKENS, 8)
    assert len({tuple(tokens) for tokens in rig.tokens.values()}) > 1, "4 bits change this model"


def test_a_replay_is_quantised_as_well(qwen: Tiny) -> None:
    calm, rough = Rig(qwen), Rig(qwen, seed=5)
    rough.faults(drop=0.1, duplicate=0.1)
    for rig in (calm, rough):
        rig.submit(A, TOKENS, fidelity=Fidelity(4))
        rig.run()
    assert rough.reissues > 0
    assert rough.tokens == calm.tokens


def test_kv_of_one_sequence_never_mixes(worker: Worker) -> None:
    assert worker.handle(work(1, 8), 0.0).kind is FrameKind.RESULT
    mixed = worker.handle(work(2, 4), 0.0)
    assert mixed.departures == (Departure(A, 2, 0, Reason.FAILED, 0),)
    assert mixed.tokens == ()
    assert not worker.caches
    worker.check_integrity()
    assert worker.handle(work(3, 4), 0.0).departures == (), "from nothing there is nothing to mix"
    assert worker.caches[A].kv_bits == 4


@pytest.mark.parametrize("bits", [3, "8", None, True, 8.0])
def test_constants_that_no_coordinator_sends_fail_the_span(worker: Worker, bits: Any) -> None:
    done = worker.handle(work(1, bits), 0.0)
    assert [d.reason for d in done.departures] == [Reason.FAILED]
    assert not worker.caches
    worker.check_integrity()


def test_a_model_that_cannot_fails_the_span(tiny: MakeTiny) -> None:
    stage = Stage.load(tiny("gpt_oss", None).folder, LayerRange(0, 2))
    worker = Worker(stage, RowCoder.of(stage.info), 0, lambda: 0.0)
    done = worker.handle(work(1, 8), 0.0)
    assert [d.reason for d in done.departures] == [Reason.FAILED]
    assert worker.handle(work(2, 0), 0.0).departures == ()
