"""Hidden states that are coded on their way: each sequence as its constants say, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from benchmarks.baseline_coded import CodedModel
from daemon.fidelity import Fidelity
from daemon.sampling import SamplingParams
from daemon.stage.codecs import RowCoder
from daemon.stage.worker import Worker
from tests.engine.tiny import PROMPT, Tiny, load_split, reference_tokens, save
from tests.stage.test_pipeline import Rig
from transports.codecs.layout import Codec
from transports.frame import DType, Frame, FrameKind, Reason, Span, Tensor

MakeTiny = Callable[[str, int | None], Tiny]
TOKENS = 12
SPLIT, CUTS = (2, 2), (0, 2, 4)
RAW, FP8, INT8 = (
    Fidelity(0, ((2, codec),) if codec is not Codec.RAW else ())
    for codec in (Codec.RAW, Codec.FP8, Codec.INT8)
)
NAMES = {RAW: b"r" * 16, FP8: b"f" * 16, INT8: b"i" * 16}


@pytest.fixture
def llama(tiny: MakeTiny) -> Tiny:
    return tiny("llama", None)


class Tapped(Rig):
    """Keeps the frames that go from the first stage to the second, as `change` leaves them."""

    def __init__(self, tiny: Tiny, **options: Any) -> None:
        super().__init__(tiny, **options)
        self.between: list[Frame] = []
        self.change: Callable[[Frame], Frame] = lambda frame: frame
        first, handle = self.workers[0], self.workers[0].handle

        def tapped(frame: Frame, received: float) -> Frame:
            onward = self.change(handle(frame, received))
            self.between.append(onward)
            return onward

        first.handle = tapped  # type: ignore[method-assign]


def coded(tiny: Tiny, codec: Codec) -> tuple[int, ...]:
    return tuple(CodedModel(tiny.folder, SPLIT, codec).decode(PROMPT, TOKENS))


@pytest.mark.parametrize("rates", [{}, {"drop": 0.05, "duplicate": 0.1, "reorder": 0.1}])
def test_each_sequence_is_written_as_it_was_admitted(llama: Tiny, rates: dict[str, float]) -> None:
    rig = Tapped(llama)
    rig.faults(**rates)
    for fidelity, name in NAMES.items():
        rig.submit(name, TOKENS, fidelity=fidelity)
    rig.run()
    assert tuple(rig.tokens[NAMES[RAW]]) == llama.reference[:TOKENS]
    for fidelity, codec in ((FP8, Codec.FP8), (INT8, Codec.INT8)):
        assert tuple(rig.tokens[NAMES[fidelity]]) == coded(llama, codec)
    assert len({tuple(tokens) for tokens in rig.tokens.values()}) > 1, "codecs change this model"
    dtypes = [tuple(tensor.dtype for tensor in frame.tensors) for frame in rig.between]
    assert (DType.FP8_ROWS, DType.INT8_ROWS, DType.FLOAT32) in dtypes, "all in one frame"


def test_each_tensor_has_the_rows_of_its_spans(llama: Tiny) -> None:
    rig = Tapped(llama)
    for fidelity, name in NAMES.items():
        rig.submit(name, TOKENS, fidelity=fidelity)
    rig.run()
    kinds = {NAMES[RAW]: DType.FLOAT32, NAMES[FP8]: DType.FP8_ROWS, NAMES[INT8]: DType.INT8_ROWS}
    for frame in rig.between:
        rows: dict[DType, int] = {}
        for span in frame.spans:
            kind = kinds[span.sequence]
            rows[kind] = rows.get(kind, 0) + span.length
        assert [(t.dtype, t.shape[0]) for t in frame.tensors] == list(rows.items())
        (fp8,) = [t for t in frame.tensors if t.dtype is DType.FP8_ROWS] or [None]
        assert fp8 is None or fp8.nbytes == fp8.shape[0] * (64 + 34)


@pytest.mark.parametrize(
    "broken",
    [
        lambda tensor: replace(tensor, shape=(tensor.shape[0], 97), data=bytes(97)),
        lambda tensor: Tensor(DType.INT32, tensor.shape, bytes(4 * tensor.nbytes)),
        lambda tensor: replace(tensor, data=b"\xff" * tensor.nbytes),
    ],
    ids=["width", "type", "scale"],
)
def test_rows_that_cannot_be_read_fail_their_frame_alone(
    llama: Tiny, broken: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Tapped(llama)
    rig.submit(NAMES[FP8], TOKENS, fidelity=FP8)
    rig.turns(6)
    damaged: list[Frame] = []

    def change(frame: Frame) -> Frame:
        if damaged or not frame.tensors:
            return frame
        damaged.append(frame)
        return replace(frame, tensors=tuple(map(broken, frame.tensors)))

    rig.change = change
    rig.run()
    assert damaged
    assert "are refused" in caplog.text
    assert rig.workers[1].ledger.counts[Reason.FAILED] == 1
    assert tuple(rig.tokens[NAMES[FP8]]) == coded(llama, Codec.FP8)


def test_no_hidden_states_at_all_fail_it_too(llama: Tiny) -> None:
    rig = Tapped(llama)
    rig.submit(NAMES[RAW], TOKENS)
    lost: list[Frame] = []

    def change(frame: Frame) -> Frame:
        if lost:
            return frame
        lost.append(frame)
        return replace(frame, tensors=())

    rig.change = change
    rig.run()
    assert rig.workers[1].ledger.counts[Reason.FAILED] == 1
    assert tuple(rig.tokens[NAMES[RAW]]) == llama.reference[:TOKENS]


def test_a_codec_that_cannot_write_this_model_fails_the_span(
    llama: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.stage.worker.obstacle", lambda codec, width: "too odd")
    rig = Rig(llama)
    rig.submit(NAMES[FP8], TOKENS, fidelity=FP8)
    rig.run()
    assert rig.finished[NAMES[FP8]].error
    assert rig.workers[0].caches == {}


def test_only_what_was_written_alike_is_gone_on_from(llama: Tiny) -> None:
    rig = Rig(llama)
    rig.submit(NAMES[FP8], TOKENS, fidelity=FP8)
    rig.run()
    longer = (*PROMPT, *rig.tokens[NAMES[FP8]])
    again = {b"1" * 16: (RAW, 0), b"2" * 16: (INT8, 0), b"3" * 16: (FP8, len(longer) - 1)}
    for name, (fidelity, _) in again.items():
        rig.submit(name, 4, fidelity=fidelity, prompt=longer)
    rig.run()
    assert {name: rig.finished[name].usage.cached_tokens for name in again} == {
        name: cached for name, (_, cached) in again.items()
    }


def test_another_layout_s_hops_are_raw(llama: Tiny) -> None:
    """The codec belongs to the hop before layer 2; here there is none."""
    rig = Tapped(llama, cuts=(0, 1, 4))
    rig.submit(NAMES[FP8], TOKENS, fidelity=FP8)
    rig.run()
    assert tuple(rig.tokens[NAMES[FP8]]) == llama.reference[:TOKENS]
    assert {t.dtype for frame in rig.between for t in frame.tensors} == {DType.FLOAT32}


def test_rows_of_the_model_s_own_type(tiny: MakeTiny) -> None:
    coder = RowCoder.of(load_split(tiny("llama", None).folder, CUTS)[0].info)
    assert (coder.width, coder.dtype) == (64, DType.FLOAT32)
    assert coder.encode(Codec.RAW, mx.zeros((2, 64))).nbytes == 512


@pytest.mark.parametrize("kept", ["norm", "embed"])
def test_a_model_that_computes_in_a_larger_type_than_most_of_its_weights(
    llama: Tiny, tmp_path: Path, kept: str
) -> None:
    weights = mx.load(str(llama.folder / "model.safetensors"))
    assert isinstance(weights, dict)
    mixed = {n: a if kept in n else a.astype(mx.bfloat16) for n, a in weights.items()}
    folder = tmp_path / "mixed"
    folder.mkdir()
    save(folder, json.loads((llama.folder / "config.json").read_text()), mixed)
    model = Tiny(folder, llama.layers, reference_tokens(folder, TOKENS))
    rig = Tapped(model)
    for fidelity, name in ((RAW, NAMES[RAW]), (FP8, NAMES[FP8])):
        rig.submit(name, TOKENS, fidelity=fidelity)
    rig.run()
    assert RowCoder.of(rig.workers[0].stage.info).dtype is DType.BFLOAT16
    assert {t.dtype for f in rig.between for t in f.tensors} == {DType.FP8_ROWS, DType.FLOAT32}
    assert tuple(rig.tokens[NAMES[RAW]]) == model.reference
    assert tuple(rig.tokens[NAMES[FP8]]) == coded(model, Codec.FP8)


def test_rows_that_come_in_one_order_and_go_in_another(llama: Tiny) -> None:
    """Written alike on one hop, sequences may not be on the next: each keeps its own rows."""
    first, second = ((1, Codec.FP8), (3, Codec.INT8)), ((1, Codec.INT8), (3, Codec.FP8))
    asked = {b"1" * 16: (first, PROMPT[:7]), b"2" * 16: (second, PROMPT[3:])}
    together = _through(llama, asked)
    alone = [_through(llama, {name: one}) for name, one in asked.items()]
    assert together == {name: tokens for one in alone for name, tokens in one.items()}
    assert len(set(together.values())) == 2


def _through(
    tiny: Tiny, asked: dict[bytes, tuple[tuple[tuple[int, Codec], ...], Sequence[int]]]
) -> dict[bytes, int]:
    """The next token of each, by three stages that take all of them in one frame."""
    stages = load_split(tiny.folder, (0, 1, 3, 4))
    workers = [Worker(s, RowCoder.of(s.info), i, lambda: 0.0) for i, s in enumerate(stages)]
    frame = Frame(
        FrameKind.WORK,
        1,
        1,
        1,
        tuple(Span(name, 1, 0, len(prompt), 0, 1) for name, (_, prompt) in asked.items()),
        tuple(token for _, prompt in asked.values() for token in prompt),
        {
            name: {"sampling": SamplingParams().to_wire(), **Fidelity(0, codecs).to_wire()}
            for name, (codecs, _) in asked.items()
        },
    )
    for worker in workers:
        frame = worker.handle(frame, 0.0)
    return {span.sequence: token for span, token in zip(frame.spans, frame.tokens, strict=True)}
