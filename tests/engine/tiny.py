"""Small models with seeded random weights, one per supported architecture, and how to drive
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.utils import _get_classes, load_model, quantize_model

from daemon.engine.stage import Row, Sampled, Stage
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams

PROMPT = [3, 17, 99, 4, 42, 8, 120, 77, 63, 5, 31, 88, 19, 2, 54, 101, 7, 66, 23, 90]
GREEDY = SamplingParams()
VOCABULARY = 160

_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}
_ROUTED = {
    **_EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "qwen3_moe": {
        **_EXPERTS,
        "head_dim": 32,
        "num_experts": 4,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
    },
    "gemma3_text": {
        "num_hidden_layers": 6,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 8,
        "sliding_window_pattern": 3,
    },
    "gpt_oss": {
        "head_dim": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "deepseek_v3": {
        **_ROUTED,
        "num_key_value_heads": 4,
        "kv_lora_rank": 32,
        "q_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
    },
    "glm4_moe": {
        **_ROUTED,
        "head_dim": 32,
        "rope_scaling": None,
        "use_qk_norm": True,
        "attention_bias": False,
        "partial_rotary_factor": 0.5,
    },
    "phi3": {},
}
# With layers whose cache is a state that every step replaces. None is among those that are
# supported, so a test of them has to let one in: `recurrent` of conftest.
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        "head_dim": 32,
        "full_attention_interval": 2,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
        "num_experts_per_tok": 0,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "partial_rotary_factor": 0.5,
    },
}


@dataclass(frozen=True)
class Tiny:
    """A model folder, and what mlx-lm in one process makes of PROMPT."""

    folder: Path
    layers: int
    reference: tuple[int, ...]


def config_of(architecture: str, **changes: Any) -> dict[str, Any]:
    own = {**CONFIGS, **RECURRENT}[architecture]
    return {**_COMMON, "model_type": architecture, **own, **changes}


def write_model(
    folder: Path, config: dict[str, Any], *, bits: int | None = None, seed: int = 7, files: int = 1
) -> Path:
    """A checkpoint folder; tensors spread over `files` files, with an index when there are
    several.
    """
    folder.mkdir(parents=True)
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    mx.random.seed(seed)
    # With a tied embedding the model would repeat its input if that stood out in the residual.
    tied = config["tie_word_embeddings"] or config["model_type"] == "gemma3_text"
    embedding = 0.05 if tied else 0.7
    drawn = [
        (name, _draw(name, array, embedding)) for name, array in tree_flatten(model.parameters())
    ]
    model.load_weights(drawn)
    if bits is not None:
        model, config = quantize_model(model, config, 32, bits)
    weights = dict(tree_flatten(model.parameters()))
    if config["model_type"] == "gemma3_text":  # tied, as the published checkpoints are
        weights = {n: a for n, a in weights.items() if not n.startswith("lm_head")}
    save(folder, config, weights, files)
    return folder


def save(
    folder: Path, config: dict[str, Any], weights: dict[str, mx.array], files: int = 1
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    if files == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), weights)
        return
    names = sorted(
        weights, key=lambda name: [int(p) if p.isdigit() else -1 for p in name.split(".")]
    )
    where = {}
    for n in range(files):
        file = f"model-{n + 1:05}-of-{files:05}.safetensors"
        part = names[n * len(names) // files : (n + 1) * len(names) // files]
        where.update(dict.fromkeys(part, file))
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def _draw(name: str, like: mx.array, embedding: float) -> mx.array:
    """Large enough that every layer matters to the result, small enough that no unit saturates."""
    noise = mx.random.normal(like.shape)
    if "norm" in name and name.endswith("weight"):
        return 1.0 + 0.1 * noise
    if like.ndim == 1:
        return 0.1 * noise
    return noise * (embedding if "embed_tokens" in name else 1.5 / like.shape[-1] ** 0.5)


def reference_tokens(folder: Path, n: int, skip: int | None = None) -> tuple[int, ...]:
    """What mlx-lm generates greedily in one process, with one layer left out when `skip` says
    so.
    """
    model, _ = load_model(folder)
    if skip is not None:
        layer = model.layers[skip]
        skipped = {"__call__": lambda self, x, *args, **kwargs: x}
        layer.__class__ = type("Skipped", (type(layer),), skipped)
    return tuple(token for token, _ in generate_step(mx.array(PROMPT), model, max_tokens=n))


def splits(layers: int, stages: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut `layers` into `stages`: (0, a, b, layers)."""
    for cuts in combinations(range(1, layers), stages - 1):
        yield (0, *cuts, layers)


def load_split(folder: Path, cuts: Sequence[int]) -> list[Stage]:
    return [Stage.load(folder, LayerRange(a, b)) for a, b in pairwise(cuts)]


class Pipe:
    """Stages one behind the other, for one sequence."""

    def __init__(
        self, stages: Sequence[Stage], params: SamplingParams = GREEDY, kv_bits: int = 0
    ) -> None:
        self.stages = stages
        self.params = params
        self.caches = [stage.new_cache(kv_bits) for stage in stages]
        self.history: list[int] = []

    def feed(self, tokens: Sequence[int], outputs: int = 1) -> Sampled:
        self.history += tokens
        carry: Any = None
        for stage, cache in zip(self.stages, self.caches, strict=True):
            row = Row(cache, list(tokens), self.history, outputs, self.params)
            carry = stage.run([row], carry)
            cache.check_integrity()
        return carry[0]

    def generate(self, prompt: Sequence[int], n: int, chunk: int = 10_000) -> tuple[int, ...]:
        parts = [prompt[at : at + chunk] for at in range(0, len(prompt), chunk)]
        for part in parts[:-1]:
            self.feed(part, 0)
        out = self.feed(parts[-1]).tokens
        while len(out) < n:
            out += self.feed(out[-1:]).tokens
        return tuple(out)

    def fork(self, length: int) -> Pipe:
        """Another sequence with the first `length` tokens of this one."""
        fork = Pipe(self.stages, self.params)
        forks = [cache.fork(length) for cache in self.caches]
        fork.caches = [cache for cache in forks if cache is not None]
        assert [cache.length for cache in fork.caches] == [length] * len(self.caches)
        fork.history = self.history[:length]
        return fork

    def trim(self, length: int) -> set[int]:
        held = {cache.trim(length) for cache in self.caches}
        self.history = self.history[: min(held)]
        return held
