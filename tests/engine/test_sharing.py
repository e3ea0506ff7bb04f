"""A stage that is given other layers shares what it holds already with what it becomes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.engine.loading import LoadedPart
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from tests.engine.tiny import PROMPT, Pipe, Tiny

MakeTiny = Callable[[str, int | None], Tiny]
MODELS = [("llama", None), ("qwen3", 4), ("gemma3_text", None), ("deepseek_v3", None)]


def part(stage: Stage) -> LoadedPart:
    return stage._part


@pytest.mark.parametrize(("architecture", "bits"), MODELS)
@pytest.mark.parametrize("change", [((0, 2), (0, 3)), ((0, 2), (1, 4)), ((2, 4), (0, 4))])
def test_only_what_is_missing_is_read(
    architecture: str,
    bits: int | None,
    change: tuple[tuple[int, int], tuple[int, int]],
    tiny: MakeTiny,
) -> None:
    model = tiny(architecture, bits)
    before, after = (LayerRange(a, min(b, model.layers)) for a, b in change)
    held = Stage.load(model.folder, before)
    stage = Stage.load(model.folder, after, held=held)
    fresh = Stage.load(model.folder, after)
    assert stage.weights_bytes == fresh.weights_bytes
    assert stage.tensor_names == fresh.tensor_names - held.tensor_names
    shared = part(held).parameters.keys() & part(stage).parameters.keys()
    assert shared, "they have a layer in common"
    assert all(part(stage).parameters[n] is part(held).parameters[n] for n in shared)


@pytest.mark.parametrize(("architecture", "bits"), MODELS)
def test_tokens_are_the_reference_s_before_and_after(
    architecture: str, bits: int | None, tiny: MakeTiny
) -> None:
    model = tiny(architecture, bits)
    old = [
        Stage.load(model.folder, LayerRange(0, 2)),
        Stage.load(model.folder, LayerRange(2, model.layers)),
    ]
    new = [
        Stage.load(model.folder, LayerRange(0, 1), held=old[0]),
        Stage.load(model.folder, LayerRange(1, model.layers), held=old[1]),
    ]
    for stages in (old, new):
        assert Pipe(stages).generate(PROMPT, 12) == model.reference[:12]
    del old, stages
    assert Pipe(new).generate(PROMPT, 12) == model.reference[:12]
