"""What a stage says that a sequence takes is never less than what it takes."""

from __future__ import annotations

import mlx.core as mx
import pytest

from daemon.engine.errors import CacheError
from daemon.engine.stage import Row
from daemon.sampling import SamplingParams
from tests.engine.conftest import MakeTiny
from tests.engine.test_caches import recurrent, step
from tests.engine.tiny import load_split


@pytest.mark.parametrize(
    ("architecture", "kv_bits"),
    [("llama", 0), ("qwen3", 8), ("qwen3", 4), ("gemma3_text", 0), ("gpt_oss", 0)],
)
@pytest.mark.parametrize("steps", [[1] * 140, [30, 1, 700, 40, 1, 1]])
def test_no_cache_takes_more(
    architecture: str, kv_bits: int, steps: list[int], tiny: MakeTiny
) -> None:
    (stage,) = load_split(tiny(architecture, None).folder, (0, 2))
    footprint, cache = stage.footprints()[kv_bits], stage.new_cache(kv_bits)
    closest = 0.0
    for n in steps:
        stage.run([Row(cache, [n % 100] * n, (), 0, SamplingParams())])
        said = footprint.bytes_for(cache.length)
        assert cache.nbytes <= said
        closest = max(closest, cache.nbytes / said)
    assert closest > 0.45, "nor does it say several times as much"


def test_bits_that_a_model_cannot_have_are_not_named(tiny: MakeTiny) -> None:
    (stage,) = load_split(tiny("llama", None).folder, (0, 4))
    assert list(stage.footprints()) == [0], "heads of 16 are too small"
    (stage,) = load_split(tiny("qwen3", None).folder, (0, 4))
    exact, eight, four = (stage.footprints()[bits].token_bytes for bits in (0, 8, 4))
    assert exact > eight > four > 0


def test_bits_that_a_device_cannot_compute_with_are_not_named(
    tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLX's CUDA back end, which has no kernel for a cache with room to spare."""

    def missing(*_: object, **__: object) -> mx.array:
        raise RuntimeError("[quantized_matmul] No implementation")

    monkeypatch.setattr(mx, "quantized_matmul", missing)
    (stage,) = load_split(tiny("qwen3", None).folder, (0, 4))
    assert list(stage.footprints()) == [0]
    with pytest.raises(CacheError, match=r"in 8 bits: MLX cannot .* device: .*No implementation"):
        stage.new_cache(8)
    assert stage.warm().prefill > 0
    stage.run([Row(stage.new_cache(), [1], [1], 1, SamplingParams())])


def test_reach_is_that_of_the_cache_that_can_go_back_least(tiny: MakeTiny) -> None:
    whole = {
        name: load_split(tiny(name, None).folder, (0, 2))[0].reach
        for name in ("llama", "gemma3_text")
    }
    assert whole == {"llama": None, "gemma3_text": 64}
    assert recurrent().reach == 0


def test_states_are_counted_with_those_kept_for_trimming() -> None:
    cache = recurrent()
    for _ in range(10):
        step(cache, [1])
        assert cache.nbytes <= cache.footprint().bytes_for(cache.length)
