"""Whether a model's keys and values can be held in fewer bits, from its configuration. No MLX: the
coordinator refuses by it before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.kv_bits import EXACT, KV_BITS

GROUPS = (64, 32)  # elements that share a scale and a bias; the larger one costs fewer bytes

# What no option of theirs changes.
_OBSTACLES = {
    "deepseek_v3": "its attention works on a latent (MLA) that mlx-lm reads unquantised only",
    "gpt_oss": "its attention has sinks, which mlx-lm cannot combine with quantised keys",
}


@dataclass(frozen=True, slots=True)
class KVQuantization:
    """`group_size` is 0 when it cannot be done, and `obstacle` then says why."""

    group_size: int
    obstacle: str = ""

    def refusal(self, kv_bits: int) -> str:
        """Why KV cannot be held in so many bits; "" when it can."""
        if kv_bits not in KV_BITS:
            return f"bits may be {', '.join(map(str, KV_BITS))}"
        return "" if kv_bits == EXACT else self.obstacle


def kv_quantization(architecture: str, config: Mapping[str, Any], head_size: int) -> KVQuantization:
    """What can be done with the full-attention layers; the others stay exact in any case."""
    if architecture in _OBSTACLES:
        return KVQuantization(0, _OBSTACLES[architecture])
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds and set(kinds) == {"sliding_attention"}:
        return KVQuantization(0, "all its layers have sliding windows, which are small and exact")
    for group in GROUPS:
        if head_size % group == 0:
            return KVQuantization(group)
    groups = " nor by ".join(map(str, GROUPS))
    return KVQuantization(
        0, f"its head size of {head_size} is divided neither by {groups}, the groups there are"
    )
