"""What a model folder holds, from its configuration and the headers of its weights. No MLX: the
coordinator imports this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.engine.checkpoint import TensorEntry, read_catalog, read_json
from daemon.engine.digest import weights_digest
from daemon.engine.errors import UnreadableCheckpoint, UnsupportedArchitecture
from daemon.engine.quantization import KVQuantization, kv_quantization

__all__ = ["SUPPORTED", "ModelInfo", "read_model", "weights_digest"]

# Exactly the types whose splits tests/engine proves equal to mlx-lm's single process.
SUPPORTED = (
    "deepseek_v3",
    "gemma3_text",
    "glm4_moe",
    "gpt_oss",
    "llama",
    "phi3",
    "qwen3",
    "qwen3_moe",
)
_DTYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as placement and admission see it.

    `context_length` is 0 when the configuration does not say. `layer_bytes` are the stored bytes of
    each layer, `embedding_bytes` those only the first stage needs (the last too when `tied`),
    `head_bytes` those of norm and head. `kv_bytes_per_token_per_layer` is an estimate from the
    configuration, without the bound a sliding window sets.
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    context_length: int
    dtype: str
    quantization: str | None
    kv_bytes_per_token_per_layer: int
    kv_quantization: KVQuantization
    layer_bytes: tuple[int, ...]
    embedding_bytes: int
    head_bytes: int
    tied: bool

    @property
    def weights_bytes(self) -> int:
        return sum(self.layer_bytes) + self.embedding_bytes + self.head_bytes


def read_model(folder: Path) -> ModelInfo:
    """Read config.json and the safetensors headers; no weights.

    Raises UnsupportedArchitecture for a model type outside SUPPORTED, another LoadError for a
    damaged folder.
    """
    return describe(folder, read_json(folder / "config.json"), read_catalog(folder))


def describe(
    folder: Path, config: Mapping[str, Any], catalog: Mapping[str, TensorEntry]
) -> ModelInfo:
    """ModelInfo from what has been read already."""
    architecture = config.get("model_type")
    if architecture not in SUPPORTED:
        raise UnsupportedArchitecture(
            folder / "config.json",
            f"model type {architecture!r} is not supported",
            f"supported are {', '.join(SUPPORTED)}",
        )
    entries = catalog.values()
    embedding = [e for e in entries if e.layer is None and "embed" in e.name]
    head = [e for e in entries if e.layer is None and "embed" not in e.name]
    norm = next((e for e in head if e.name.endswith("norm.weight")), None)
    if not embedding or norm is None:
        raise UnreadableCheckpoint(folder, "lacks an embedding or a norm", "copy the model again")
    seen = 1 + max((e.layer for e in entries if e.layer is not None), default=-1)
    layers = _integer(folder, config, "num_hidden_layers", seen)
    hidden = _integer(folder, config, "hidden_size", norm.shape[0])
    stored = [0] * layers
    for e in entries:
        if e.layer is not None and e.layer < layers:  # beyond: multi-token prediction, never loaded
            stored[e.layer] += e.nbytes
    dtype, itemsize = _element_type(catalog)
    return ModelInfo(
        name=folder.resolve().name,
        architecture=str(architecture),
        layers=layers,
        hidden_size=hidden,
        vocab_size=_integer(folder, config, "vocab_size", embedding[0].shape[0]),
        context_length=_integer(folder, config, "max_position_embeddings", 0),
        dtype=dtype,
        quantization=_quantization(config),
        kv_bytes_per_token_per_layer=_kv_width(folder, config, hidden) * itemsize,
        kv_quantization=kv_quantization(
            str(architecture), config, _head_size(folder, config, hidden)
        ),
        layer_bytes=tuple(stored),
        embedding_bytes=sum(e.nbytes for e in embedding),
        head_bytes=sum(e.nbytes for e in head),
        tied=not any("head" in e.name for e in head),
    )


def _integer(folder: Path, config: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = config.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnreadableCheckpoint(
            folder / "config.json", f"{key} is {value!r}", "copy the model's config.json again"
        )
    return value


def _element_type(catalog: Mapping[str, TensorEntry]) -> tuple[str, int]:
    """The commonest floating type: packed weights are integers, and a few tensors are kept in
    float32.
    """
    kinds = Counter(e.dtype for e in catalog.values() if e.dtype in _DTYPES)
    return _DTYPES[kinds.most_common(1)[0][0]] if kinds else _DTYPES["F32"]


def _quantization(config: Mapping[str, Any]) -> str | None:
    settings = config.get("quantization") or config.get("quantization_config")
    if not isinstance(settings, Mapping):
        return None
    if "bits" not in settings:
        return str(settings.get("quant_method", "unknown"))
    mode = settings.get("mode", "affine")
    return f"{mode} {settings['bits']}-bit, groups of {settings.get('group_size', 64)}"


def _kv_width(folder: Path, config: Mapping[str, Any], hidden: int) -> int:
    """Elements that one token adds to one layer's cache."""
    if config.get("kv_lora_rank"):  # a latent and its rotary part instead of keys and values
        rotary = _integer(folder, config, "qk_rope_head_dim", 64)
        return _integer(folder, config, "kv_lora_rank", 0) + rotary
    heads = _integer(folder, config, "num_attention_heads", 1)
    size = _head_size(folder, config, hidden)
    return 2 * _integer(folder, config, "num_key_value_heads", heads) * size


def _head_size(folder: Path, config: Mapping[str, Any], hidden: int) -> int:
    heads = _integer(folder, config, "num_attention_heads", 1)
    return _integer(folder, config, "head_dim", max(1, hidden // heads))
