"""Attention to many keys is MLX's, but for the last bits."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from daemon.engine import attention, manykeys
from daemon.engine.manykeys import BLOCK, attend_to_many, exp2
from tests.engine.conftest import MakeTiny
from tests.engine.test_batches import Batch
from tests.engine.tiny import PROMPT, Pipe, load_split

SIZE, VALUE_SIZE = 16, 8


def exactly(queries: Any, keys: Any, values: Any, scale: float) -> Any:
    """In double precision, one head after the other."""
    _, heads, n, _ = queries.shape
    shared = heads // keys.shape[1]
    seen = np.tri(n, keys.shape[2], keys.shape[2] - n, dtype=bool)
    found = []
    for head in range(heads):
        scores = queries[0, head] @ keys[0, head // shared].T * scale
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found.append(weights / weights.sum(axis=-1, keepdims=True) @ values[0, head // shared])
    return np.stack(found)[None]


@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize(
    ("heads", "groups", "n", "before"),
    [
        (8, 4, 1, 700),
        (4, 4, 1, 300),
        (8, 4, 2, 300),
        (6, 2, 5, 90),
        (4, 1, BLOCK, 0),
        (4, 2, 2 * BLOCK + 3, 50),
    ],
)
def test_attention(heads: int, groups: int, n: int, before: int, spread: float) -> None:
    """Also where nearly all the weight is on one key, and that of others below every float."""
    rng = np.random.default_rng(n)
    queries = rng.standard_normal((1, heads, n, SIZE)) * spread
    keys = rng.standard_normal((1, groups, before + n, SIZE))
    values = rng.standard_normal((1, groups, before + n, VALUE_SIZE))
    single = [mx.array(a.astype(np.float32)) for a in (queries, keys, values)]
    found = np.array(attend_to_many(*single, SIZE**-0.5))
    expected = exactly(*[np.array(a, np.float64) for a in single], SIZE**-0.5)
    assert found.dtype == np.float32
    assert found.shape == (1, heads, n, VALUE_SIZE)
    assert np.abs(found - expected).max() < 1e-6 * max(1.0, spread)


def test_power_of_two() -> None:
    x = np.concatenate([-np.arange(127.0), -np.random.default_rng(0).uniform(0, 125, 50_000)])
    x = x.astype(np.float32)
    found = np.array(exp2(mx.array(x)), np.float64)
    assert (found[:127] == 2.0 ** x[:127].astype(np.float64)).all()
    assert np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 2e-7
    assert exp2(mx.array([-127.0, -128.5, -1e9, -math.inf])).tolist() == [0.0] * 4


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "gpt_oss"])
def test_tokens_are_those_of_mlx_lm(
    architecture: str, tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in batches, in pieces, and beside caches of another kind."""
    lengths = set()

    def noted(queries: mx.array, *rest: Any) -> mx.array:
        lengths.add(queries.shape[2])
        return attend_to_many(queries, *rest)

    monkeypatch.setattr(manykeys, "MANY", 1)
    monkeypatch.setattr(manykeys, "attend_to_many", noted)
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 2, model.layers))
    tokens = len(model.reference)
    assert Pipe(stages).generate(PROMPT, tokens, 7) == model.reference
    assert Pipe(stages).generate(PROMPT, tokens) == model.reference
    batch = Batch(stages)
    batch.join(0, PROMPT[:8])
    batch.join(1, PROMPT)
    batch.tokens[0] = list(PROMPT)
    for _ in range(4):  # 12 more of one prompt, 3 at a time, beside the other's steps
        batch.tokens[1] += batch.run({0: 3, 1: 1})[1]
    for _ in range(4):
        batch.step(0, 1)
    assert tuple(batch.tokens[0][len(PROMPT) :]) == model.reference[:4]
    assert tuple(batch.tokens[1][len(PROMPT) :]) == model.reference[:8]
    # Attention sinks are left to mlx-lm.
    assert lengths >= ({1, 3, 6, 7, len(PROMPT)} if architecture != "gpt_oss" else set())


@pytest.mark.parametrize(
    ("mask", "n", "dtype"),
    [
        (mx.ones((1, 1100), mx.bool_), 1, mx.float32),
        (mx.ones((2, 1100), mx.bool_), 2, mx.float32),
        (None, 2, mx.float32),
        (None, 1, mx.float16),
    ],
)
def test_what_else_is_asked_for_is_left_to_mlx_lm(mask: Any, n: int, dtype: mx.Dtype) -> None:
    keys = mx.zeros((1, 2, 1100, SIZE), dtype)
    assert attention._are_many(8, 1, keys.astype(mx.float32), None)
    assert not attention._are_many(8, n, keys, mask)
    assert not attention._are_many(8, 1, (keys, keys, keys), None)
