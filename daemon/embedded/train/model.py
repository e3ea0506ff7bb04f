"""A llama in torch, written as functions over a dict of tensors with Hugging Face's names."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """The sizes of one model; embeddings are tied, so the head costs nothing."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    head_dim: int = 64
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


def initialise(shape: Shape, generator: torch.Generator) -> Weights:
    """Random weights; what writes into the residual stream starts smaller, as in GPT-2."""
    hidden, query, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    out = 1 / math.sqrt(2 * shape.layers)
    sizes: dict[str, tuple[int, int, float]] = {
        "self_attn.q_proj": (query, hidden, 1.0),
        "self_attn.k_proj": (kv, hidden, 1.0),
        "self_attn.v_proj": (kv, hidden, 1.0),
        "self_attn.o_proj": (hidden, query, out),
        "mlp.gate_proj": (shape.feed_forward, hidden, 1.0),
        "mlp.up_proj": (shape.feed_forward, hidden, 1.0),
        "mlp.down_proj": (hidden, shape.feed_forward, out),
    }
    embedding = torch.randn(shape.vocabulary, hidden, generator=generator) * 0.02
    weights: Weights = {"model.embed_tokens.weight": embedding}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        for name, (rows, columns, scale) in sizes.items():
            matrix = torch.randn(rows, columns, generator=generator)
            weights[f"{prefix}.{name}.weight"] = matrix * scale / math.sqrt(columns)
        weights[f"{prefix}.input_layernorm.weight"] = torch.ones(hidden)
        weights[f"{prefix}.post_attention_layernorm.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    return weights


def count(weights: Weights) -> int:
    """The number of parameters."""
    return sum(tensor.numel() for tensor in weights.values())


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions in the half-split layout that Hugging Face's llama uses."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def forward(weights: Weights, shape: Shape, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of shape [batch, length, vocabulary] for ids of shape [batch, length]."""
    batch, length = tokens.shape
    half, groups = shape.head_dim // 2, shape.heads // shape.kv_heads
    frequencies = shape.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (shape.hidden,), weights[name], shape.norm_eps)

    def heads(x: torch.Tensor, name: str, number: int) -> torch.Tensor:
        projected = F.linear(x, weights[name])
        return projected.view(batch, length, number, shape.head_dim).transpose(1, 2)

    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        y = norm(x, f"{prefix}.input_layernorm.weight")
        query = heads(y, f"{prefix}.self_attn.q_proj.weight", shape.heads)
        key = heads(y, f"{prefix}.self_attn.k_proj.weight", shape.kv_heads)
        value = heads(y, f"{prefix}.self_attn.v_proj.weight", shape.kv_heads)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        # Grouped heads share keys and values; expanding first copies nothing when there is one.
        key, value = (
            each.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2) for each in (key, value)
        )
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, length, shape.heads * shape.head_dim)
        x = x + F.linear(y, weights[f"{prefix}.self_attn.o_proj.weight"])
        y = norm(x, f"{prefix}.post_attention_layernorm.weight")
        gate = F.linear(y, weights[f"{prefix}.mlp.gate_proj.weight"])
        up = F.linear(y, weights[f"{prefix}.mlp.up_proj.weight"])
        x = x + F.linear(F.silu(gate) * up, weights[f"{prefix}.mlp.down_proj.weight"])
    return F.linear(norm(x, "model.norm.weight"), weights["model.embed_tokens.weight"])
