"""Gives the draft its final shape: a fourth head, for its least used feed-forward neurons.

The draft was first trained with three heads, which llama allows but `transformers` does not read
when the width is no multiple of them. This keeps almost all it had learned; a training from
nothing would better begin with the final shape.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from daemon.embedded.train.model import Shape, Weights

FIRST = Shape(layers=2, hidden=128, heads=3, kv_heads=1, feed_forward=248, vocabulary=1024)
FINAL = replace(FIRST, heads=4, feed_forward=212)


def neuron_use(
    weights: Weights, batches: Iterable[Callable[[], torch.Tensor]]
) -> dict[int, torch.Tensor]:
    """For each layer what removing each neuron would change of the losses, to first order."""
    use = {layer: torch.zeros(FIRST.feed_forward) for layer in range(FIRST.layers)}
    for loss in batches:
        loss().backward()
        for layer, total in use.items():
            down = weights[f"model.layers.{layer}.mlp.down_proj.weight"]
            assert down.grad is not None
            total += (down.detach() * down.grad).sum(0) ** 2
        for tensor in weights.values():
            tensor.grad = None
    return use


def reshape(weights: Weights, use: dict[int, torch.Tensor], seed: int) -> Weights:
    """The weights in the final shape. The new head writes nothing until it has learned to."""
    generator = torch.Generator().manual_seed(seed)
    result = {name: tensor.detach().clone() for name, tensor in weights.items()}
    for layer in range(FIRST.layers):
        prefix = f"model.layers.{layer}"
        kept = use[layer].argsort(descending=True, stable=True)[: FINAL.feed_forward].sort().values
        for name in ("gate_proj", "up_proj"):
            result[f"{prefix}.mlp.{name}.weight"] = result[f"{prefix}.mlp.{name}.weight"][kept]
        down = f"{prefix}.mlp.down_proj.weight"
        result[down] = result[down][:, kept]
        query, out = f"{prefix}.self_attn.q_proj.weight", f"{prefix}.self_attn.o_proj.weight"
        fresh = torch.randn(FIRST.head_dim, FIRST.hidden, generator=generator)
        result[query] = torch.cat((result[query], fresh / math.sqrt(FIRST.hidden)))
        result[out] = torch.cat((result[out], torch.zeros(FIRST.hidden, FIRST.head_dim)), dim=1)
    return {name: tensor.contiguous() for name, tensor in result.items()}
