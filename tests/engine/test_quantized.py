"""Quantised KV: the values of mlx-lm's quantised cache, exact trims, and no model that cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache
from mlx_lm.utils import load_model

from daemon.engine.errors import CacheError
from daemon.engine.kv import FullCache
from daemon.engine.model import read_model
from daemon.engine.quantization import kv_quantization
from daemon.engine.quantized import Packed, QuantizedCache
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, config_of, load_split, write_model

HEADS, KEY, VALUE = 2, 64, 128
BACKWARDS = PROMPT[::-1]  # the other way round qwen3 repeats itself at 4 bits
STEPS = (5, 1, 1, 300, 1, 70, 1)
TOKENS = 24
Folder = Callable[[str], Path]


def drawn(n: int, seed: int, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array]:
    """Keys and values of `n` positions, of different head sizes."""
    key = mx.random.key(seed)
    keys = mx.random.normal((1, HEADS, n, KEY), key=key).astype(dtype)
    return keys, mx.random.normal((1, HEADS, n, VALUE), key=key).astype(dtype)


def same(ours: tuple[Packed, Packed], theirs: tuple[Packed, Packed]) -> bool:
    pairs = zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True)
    return all(a.dtype == b.dtype and bool(mx.array_equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [64, 32])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_holds_what_mlx_lm_would_hold(bits: int, group: int, dtype: mx.Dtype) -> None:
    """Bit for bit, through growth, trims and what is appended after them."""
    ours, theirs = QuantizedCache(bits, group), QuantizedKVCache(group, bits)
    for seed, n in enumerate(STEPS):
        masks = ours.make_mask(n), theirs.make_mask(n, window_size=None, return_array=False)
        assert masks[0] == masks[1]
        new = drawn(n, seed, dtype)
        assert same(ours.update_and_fetch(*new), theirs.update_and_fetch(*new))
        ours.check_integrity()
        back = min(ours.offset, 3 * seed)
        ours.trim_to(ours.offset - back)
        assert theirs.trim(back) == back
    assert ours.offset == theirs.offset > 0


def test_a_replay_leaves_nothing_behind() -> None:
    """As if what was cut off had never been there, whatever the steps."""
    straight, detour = QuantizedCache(4, 64), QuantizedCache(4, 64)
    keys, values = drawn(200, 1)
    expected = straight.update_and_fetch(keys, values)
    detour.update_and_fetch(keys[:, :, :90], values[:, :, :90])
    detour.update_and_fetch(*drawn(150, 2))
    for length, end in ((40, 41), (41, 130), (77, 200)):
        assert detour.restorable(length)
        detour.trim_to(length)
        found = detour.update_and_fetch(keys[:, :, length:end], values[:, :, length:end])
        detour.check_integrity()
    assert same(found, expected)
    detour.trim_to(0)
    assert detour.empty()
    assert detour.nbytes == 0


@pytest.mark.parametrize(
    ("dtype", "bits", "share"),
    [(mx.float16, 8, 0.55), (mx.float16, 4, 0.32), (mx.float32, 8, 0.30), (mx.float32, 4, 0.17)],
)
def test_bytes_are_a_fraction_of_the_exact_ones(dtype: mx.Dtype, bits: int, share: float) -> None:
    """Per slot: how many there are is the same rule for both, at different positions."""
    exact, quantized = FullCache(), QuantizedCache(bits, 64)
    for seed, n in enumerate(STEPS):
        new = drawn(n, seed, dtype)
        exact.update_and_fetch(*new)
        quantized.update_and_fetch(*new)
        mx.eval(quantized.arrays())
        slots = exact.arrays()[0].shape[2], quantized.arrays()[0].shape[2]
        assert 0 < quantized.nbytes / slots[1] <= share * exact.nbytes / slots[0]
    assert quantized.nbytes == sum(array.nbytes for array in quantized.arrays())


def test_a_size_that_the_group_does_not_divide_changes_nothing() -> None:
    cache = QuantizedCache(8, 64)
    keys, values = drawn(3, 0)
    for odd in ((keys[..., :48], values), (keys, values[..., :96])):
        with pytest.raises(CacheError, match=r"head size of (48|96) .* groups of 64"):
            cache.update_and_fetch(*odd)
        assert (cache.offset, cache.nbytes) == (0, 0)


@pytest.fixture(scope="module")
def folder(tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The tiny models, but a llama whose heads are wide enough."""
    wide = write_model(tmp_path_factory.mktemp("wide") / "m", config_of("llama", head_dim=64))
    return lambda architecture: wide if architecture == "llama" else tiny(architecture, None).folder


def mlx_lm_tokens(folder: Path, bits: int, group: int) -> tuple[int, ...]:
    """One process, its full-attention caches quantised before the first token. (Left to itself,
    `generate_step` lets the first chunk see exact keys, and refuses sliding windows.)
    """
    model, _ = load_model(folder)
    caches = [
        QuantizedKVCache(group, bits) if type(cache) is KVCache else cache
        for cache in make_prompt_cache(model)
    ]
    steps = generate_step(mx.array(BACKWARDS), model, max_tokens=TOKENS, prompt_cache=caches)
    return tuple(token for token, _ in steps)


@pytest.mark.parametrize(
    ("architecture", "group"), [("llama", 64), ("qwen3", 32), ("gemma3_text", 32)]
)
@pytest.mark.parametrize("bits", [8, 4])
def test_split_or_whole_the_tokens_are_the_same(
    architecture: str, group: int, bits: int, folder: Folder
) -> None:
    model = folder(architecture)
    expected = mlx_lm_tokens(model, bits, group)
    assert len(set(expected)) >= 8, "the reference repeats itself: parity proves nothing"
    layers = read_model(model).layers
    assert read_model(model).kv_quantization.group_size == group
    for cuts in ((0, layers), (0, 1, layers), (0, 2, layers - 1, layers)):
        stages = load_split(model, cuts)
        for chunk in (7, len(BACKWARDS) - 1):  # the second is mlx-lm's
            pipe = Pipe(stages, kv_bits=bits)
            assert pipe.generate(BACKWARDS, TOKENS, chunk) == expected, (cuts, chunk)


def test_fewer_bits_are_not_exact(folder: Folder) -> None:
    """Otherwise the tests above would compare exact caches."""
    found = set()
    for bits in (0, 8, 4):
        pipe = Pipe(load_split(folder("llama"), (0, 4)), kv_bits=bits)
        hidden = pipe.stages[0]._partial.body(mx.array([PROMPT]), pipe.caches[0].entries, None)
        found.add(float(hidden.sum().item()))
    assert len(found) == 3


@pytest.mark.parametrize("back", [1, 9])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_trim_and_replay_gives_the_same_tokens(
    architecture: str, back: int, folder: Folder
) -> None:
    model = folder(architecture)
    pipe = Pipe(load_split(model, (0, 1, read_model(model).layers)), kv_bits=8)
    tokens = pipe.generate(PROMPT, 20)
    pipe.feed([1, 2, 3, 4])  # a draft that nobody wanted
    known = [*PROMPT, *tokens]
    length = len(known) - 1 - back
    assert pipe.trim(length) == {length}
    assert pipe.generate(known[length:-1], 1) == tokens[-1:]


def test_only_full_attention_is_quantised_and_shown(folder: Folder) -> None:
    stages = load_split(folder("gemma3_text"), (0, 2, 6))
    kinds = [stage.new_cache(4).kind for stage in stages]
    assert kinds == ["2 × window 8", "2 × full 4-bit, 2 × window 8"]
    assert [stage.new_cache(4).kv_bits for stage in stages] == [4, 4]
    assert stages[1].new_cache().kind == "2 × full, 2 × window 8"


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("gpt_oss", "attention has sinks"),
        ("deepseek_v3", "latent"),
        ("phi3", "head size of 16 is divided neither by 64 nor by 32"),
    ],
)
def test_a_model_that_cannot_is_refused_by_name(
    architecture: str, why: str, tiny: MakeTiny
) -> None:
    folder = tiny(architecture, None).folder
    assert why in read_model(folder).kv_quantization.obstacle, "known before anything runs"
    stage = Stage.load(folder, LayerRange(0, 2))
    with pytest.raises(CacheError, match=f"{folder.name} cannot hold its KV in 8 bits.*{why}"):
        stage.new_cache(8)
    stage.new_cache(0).check_integrity()


def test_bits_that_nobody_has_are_refused(folder: Folder) -> None:
    stage = Stage.load(folder("llama"), LayerRange(0, 1))
    with pytest.raises(CacheError, match=r"in 3 bits: .*0, 8, 4"):
        stage.new_cache(3)


def test_obstacles_are_read_off_the_configuration() -> None:
    windows = {"layer_types": ["sliding_attention"] * 3}
    assert "sliding windows" in kv_quantization("llama", windows, 64).obstacle
    mixed = {"layer_types": ["sliding_attention", "full_attention"]}
    for size, group in ((64, 64), (128, 64), (96, 32), (256, 64), (80, 0), (48, 0)):
        found = kv_quantization("llama", mixed, size)
        assert (found.group_size, bool(found.obstacle)) == (group, group == 0)
