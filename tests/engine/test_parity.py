"""Split or whole, the tokens are the same, for every supported architecture."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

from daemon.engine.model import SUPPORTED
from tests.engine.conftest import GENERATED, MakeTiny
from tests.engine.tiny import CONFIGS, PROMPT, Pipe, load_split, splits

FORMS = [(architecture, bits) for architecture in SUPPORTED for bits in (None, 4)]


def test_every_supported_architecture_is_tested() -> None:
    assert sorted(CONFIGS) == sorted(SUPPORTED)


@pytest.mark.parametrize(("architecture", "bits"), FORMS)
def test_some_splits_give_the_reference_tokens(
    architecture: str, bits: int | None, tiny: MakeTiny
) -> None:
    model = tiny(architecture, bits)
    last = model.layers - 1
    for cuts in ((0, 1, last + 1), (0, last, last + 1), (0, 1, last, last + 1)):
        stages = load_split(model.folder, cuts)
        assert Pipe(stages).generate(PROMPT, GENERATED) == model.reference, cuts


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("architecture", "bits"), FORMS)
def test_every_split_gives_the_reference_tokens(
    architecture: str, bits: int | None, tiny: MakeTiny
) -> None:
    model = tiny(architecture, bits)
    for cuts in (c for n in (1, 2, 3) for c in splits(model.layers, n)):
        stages = load_split(model.folder, cuts)
        assert Pipe(stages).generate(PROMPT, GENERATED) == model.reference, cuts
        assert Pipe(stages).generate(PROMPT, GENERATED, chunk=6) == model.reference, cuts


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_logits_differ_by_rounding_only(architecture: str, tiny: MakeTiny) -> None:
    model = tiny(architecture, None)
    tokens = mx.array([PROMPT])
    whole, _ = load_model(model.folder)
    expected = whole(tokens)
    stages = load_split(model.folder, (0, 2, 3, model.layers))
    hidden = None
    for stage in stages:
        hidden = stage._partial.body(tokens, stage.new_cache().entries, hidden)
    assert hidden is not None
    found = stages[-1]._partial.tail(hidden)
    scale = max(1.0, mx.abs(expected).max().item())
    assert mx.abs(found - expected).max().item() <= 1e-5 * scale


@pytest.mark.parametrize("architecture", SUPPORTED)
@pytest.mark.parametrize("chunk", [1, 7])
def test_prefill_in_chunks_gives_the_reference_tokens(
    architecture: str, chunk: int, tiny: MakeTiny
) -> None:
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 2, model.layers))
    assert Pipe(stages).generate(PROMPT, GENERATED, chunk) == model.reference


def test_several_rows_in_one_run_are_as_good_as_alone(tiny: MakeTiny) -> None:
    from daemon.engine.stage import Row
    from tests.engine.tiny import GREEDY

    model = tiny("llama", None)
    stages = load_split(model.folder, (0, 2, 4))
    prompts = [PROMPT, PROMPT[:5], PROMPT[3:4]]
    alone = [Pipe(stages).generate(p, 6) for p in prompts]
    caches = [[stage.new_cache() for _ in prompts] for stage in stages]
    news, histories = [list(p) for p in prompts], [list(p) for p in prompts]
    out: list[list[int]] = [[] for _ in prompts]
    for _ in range(6):
        carry = None
        for stage, held in zip(stages, caches, strict=True):
            rows = [Row(c, n, h, 1, GREEDY) for c, n, h in zip(held, news, histories, strict=True)]
            carry = stage.run(rows, carry)
        assert carry is not None
        for n, sampled in enumerate(carry):
            news[n] = sampled.tokens
            histories[n] = histories[n] + sampled.tokens
            out[n] += sampled.tokens
    assert [tuple(o) for o in out] == alone


def test_outputs_of_several_positions_are_those_of_single_steps(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    stages = load_split(model.folder, (0, 2, 4))
    drafted = [*PROMPT, *model.reference[:5]]
    assert tuple(Pipe(stages).feed(drafted, 6).tokens) == model.reference[:6]
