"""Stages that restart are refilled, with real workers and models: the others compute nothing again,
and no token changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest

from benchmarks.baseline_coded import CodedModel
from daemon.engine.stage import Row
from daemon.fidelity import Fidelity
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Tiny
from tests.stage.test_guesses import Told
from tests.stage.test_pipeline import Rig
from transports.codecs.layout import Codec

A, B = b"a" * 16, b"b" * 16
TOKENS = 24
KINDS = [
    ("llama", 0),
    ("qwen3", 8),
    ("gemma3_text", 0),
    ("gpt_oss", 0),
    ("deepseek_v3", 0),
    ("qwen3_next", 0),
]
pytestmark = pytest.mark.usefixtures("recurrent")


@pytest.fixture
def llama(tiny: MakeTiny) -> Tiny:
    return tiny("llama", None)


class Counted(Rig):
    """Counts the positions that each stage computes."""

    def __init__(self, tiny: Tiny, **options: Any) -> None:
        super().__init__(tiny, **options)
        self.computed: Counter[int] = Counter()
        for index, worker in enumerate(self.workers):
            self._count(index, worker.stage)

    def _count(self, index: int, stage: Any) -> None:
        run = stage.run

        def counted(rows: Sequence[Row], hidden: Sequence[mx.array] | None = None) -> Any:
            self.computed[index] += sum(len(row.tokens) for row in rows)
            return run(rows, hidden)

        stage.run = counted

    @property
    def refills(self) -> dict[str, int]:
        refills: dict[str, int] = self.scheduler.status()["refills"]
        return refills


def interrupted(rig: Counted, *lost: int, tokens: int = 8) -> None:
    """Until A has some tokens; then these stages restart."""
    while len(rig.tokens.get(A, ())) < tokens:
        assert rig.advance()
    rig.computed.clear()
    rig.restart(*lost)


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_only_what_was_lost_is_computed(llama: Tiny, lost: tuple[int, ...]) -> None:
    rig = Counted(llama, cuts=(0, 1, 3, 4))
    rig.submit(A, TOKENS)
    interrupted(rig, *lost)
    held = len(PROMPT) + len(rig.tokens[A]) - 1
    left = TOKENS - len(rig.tokens[A])
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert rig.computed == {i: left + (held if i in lost else 0) for i in range(3)}
    assert rig.refills == {"begun": 1, "given up": 0, "tokens": held}
    assert rig.reissues == 1


def test_one_after_the_other(llama: Tiny) -> None:
    """The refilled stage has kept what the next one is refilled from."""
    rig = Counted(llama, cuts=(0, 1, 3, 4))
    rig.submit(A, TOKENS)
    interrupted(rig, 1)
    while len(rig.tokens[A]) < 10:
        assert rig.advance()
    interrupted(rig, 2)
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert (rig.refills["begun"], rig.refills["given up"]) == (2, 0)


def test_a_stage_that_is_lost_again_meanwhile(llama: Tiny) -> None:
    rig = Counted(llama, cuts=(0, 1, 3, 4))
    rig.submit(A, TOKENS)
    interrupted(rig, 1)
    while not rig.refills["tokens"]:
        assert rig.advance()
    rig.restart(1)
    left = TOKENS - len(rig.tokens[A])
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert rig.computed[0] == left, "all of it is refilled, not only what was so before"


def test_what_is_kept_is_refilled_when_it_is_used(llama: Tiny) -> None:
    rig = Counted(llama, cuts=(0, 1, 3, 4))
    rig.submit(A, 12)
    rig.run()
    rig.restart(1)
    rig.computed.clear()
    prompt = (*PROMPT, *llama.reference[:8])
    rig.submit(B, TOKENS - 8, prompt=prompt)
    rig.run()
    assert tuple(rig.tokens[B]) == llama.reference[8:TOKENS]
    assert rig.refills == {"begun": 1, "given up": 0, "tokens": len(prompt) - 1}
    own = TOKENS - 8  # the last token of its prompt, and its answer but for the last
    assert rig.computed == {0: own, 1: own + len(prompt) - 1, 2: own}


def test_all_of_them_compute_all(llama: Tiny) -> None:
    rig = Counted(llama, cuts=(0, 1, 3, 4))
    rig.submit(A, TOKENS)
    interrupted(rig, 0, 2)
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert len(set(rig.computed.values())) == 1
    assert rig.refills["begun"] == 0


def test_what_is_not_kept_is_computed_by_all(llama: Tiny) -> None:
    rig = Counted(llama, hidden_bytes=0)
    rig.submit(A, TOKENS)
    interrupted(rig, 1)
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert rig.computed[0] == rig.computed[1]
    assert rig.refills == {"begun": 1, "given up": 1, "tokens": 0}


@pytest.mark.parametrize(("architecture", "kv_bits"), KINDS)
@pytest.mark.parametrize("lost", [0, 1])
def test_every_kind_of_cache(tiny: MakeTiny, architecture: str, kv_bits: int, lost: int) -> None:
    model = tiny(architecture, None)
    cuts, fidelity = (0, model.layers // 2, model.layers), Fidelity(kv_bits)
    calm = Rig(model, cuts=cuts)
    calm.submit(A, TOKENS, fidelity=fidelity)
    calm.run()
    rig = Counted(model, cuts=cuts)
    rig.submit(A, TOKENS, fidelity=fidelity)
    rig.submit(B, TOKENS, fidelity=fidelity, prompt=PROMPT[::-1])
    interrupted(rig, lost)
    rig.run()
    assert rig.tokens[A] == calm.tokens[A]
    assert rig.refills["given up"] == 0
    assert rig.refills["tokens"] > len(PROMPT)
    assert rig.computed[1 - lost] < rig.computed[lost]


@pytest.mark.parametrize("codec", [Codec.FP8, Codec.INT8])
def test_rows_are_those_that_were_on_the_wire(llama: Tiny, codec: Codec) -> None:
    rig = Counted(llama)
    rig.submit(A, TOKENS, fidelity=Fidelity(0, ((2, codec),)))
    interrupted(rig, 1)
    rig.run()
    model = CodedModel(llama.folder, (2, 2), codec)
    assert tuple(rig.tokens[A]) == tuple(model.decode(PROMPT, TOKENS))
    assert rig.refills["given up"] == 0


def test_guesses_that_were_wrong_are_not_lent(llama: Tiny) -> None:
    answers = {A: llama.reference[:TOKENS]}
    rig = Counted(llama, cuts=(0, 1, 3, 4), guesser=Told(answers, 0.5))
    rig.submit(A, TOKENS)
    interrupted(rig, 1, tokens=4)
    while len(rig.tokens[A]) < 10:
        assert rig.advance()
    interrupted(rig, 2)
    rig.run()
    assert tuple(rig.tokens[A]) == llama.reference[:TOKENS]
    assert rig.scheduler.status()["speculation"]["wrong"] > 0
    assert (rig.refills["begun"], rig.refills["given up"]) == (2, 0)


@pytest.mark.parametrize("seed", range(8))
def test_faults_in_the_middle_change_no_token(llama: Tiny, seed: int) -> None:
    rig = Counted(llama, seed=seed, cuts=(0, 1, 3, 4))
    names = [A, B, b"c" * 16]
    for n, name in enumerate(names):
        rig.submit(name, TOKENS + n)
    interrupted(rig, 1 + seed % 2)
    rig.faults(drop=0.1, duplicate=0.1, reorder=0.1, hold=0.1)
    rig.run()
    for n, name in enumerate(names):
        assert tuple(rig.tokens[name]) == llama.reference[: TOKENS + n]
