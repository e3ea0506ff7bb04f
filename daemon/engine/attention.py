"""Attention over the keys of several sequences, each of its own length and type.

mlx-lm's models share one function for attention, which each of their modules imports by name.
`intercept_attention` puts `attend` in its place: for arrays it is mlx-lm's own function, for Ragged
keys it takes sequence by sequence. Where there are many keys, on the CPU, both go to `manykeys`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models import base

from daemon.engine import manykeys
from daemon.engine.ragged import Ragged, to_positions, to_sequence

_NAME = "scaled_dot_product_attention"
_theirs: Callable[..., mx.array] = getattr(base, _NAME)


def intercept_attention() -> None:
    """Let every model that has been imported so far attend to Ragged keys. To be called again after
    another was.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, _NAME, None) is _theirs:
            setattr(module, _NAME, attend)


def attend(
    queries: mx.array,
    keys: Any,
    values: Any,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """mlx-lm's scaled_dot_product_attention, for a BatchEntry's keys as well: queries and result
    are [positions, heads, 1, size] then.
    """
    plain = sinks is None and on_cpu()
    if not isinstance(keys, Ragged):
        if (
            plain
            and len(queries) == 1
            and _are_many(queries.shape[1], queries.shape[2], keys, mask)
        ):
            return manykeys.attend_to_many(queries, keys, values, scale)
        return _theirs(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    masks = mask.parts if isinstance(mask, Ragged) else (mask,) * len(keys.parts)
    count, heads, _, size = queries.shape
    grouped = None
    parts: list[mx.array] = []
    for span, key, value, layer, seen in zip(
        cache.spans, keys.parts, values.parts, cache.caches, masks, strict=True
    ):
        n = span.stop - span.start
        if plain and _are_many(heads, n, key, seen):
            part = manykeys.attend_to_many(to_sequence(queries[span]), key, value, scale)
            parts.append(to_positions(part))
        elif plain and n == 1 and seen is None and isinstance(key, mx.array):
            if grouped is None:
                groups = key.shape[1]
                grouped = (queries * scale).reshape(count, groups, heads // groups, size)
            part = _one_position(grouped[span], key, value)
            parts.append(part.reshape(1, heads, 1, part.shape[-1]))
        else:
            query = to_sequence(queries[span])
            part = _theirs(query, key, value, cache=layer, scale=scale, mask=seen, sinks=sinks)
            parts.append(to_positions(part))
    return mx.concatenate(parts, axis=0)


def warm_attention() -> None:
    """Compile what attention needs that is not the model's own."""
    if on_cpu():
        manykeys.warm()


def on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _are_many(heads: int, n: int, keys: Any, mask: Any) -> bool:
    """Whether n positions attend to so many keys, and to all up to themselves, that `manykeys` is
    quicker. A window's mask is an array, quantised keys are a tuple of arrays.
    """
    if not isinstance(keys, mx.array) or keys.dtype != mx.float32:
        return False
    everything = mask is None if n == 1 else isinstance(mask, str)
    return everything and heads * n * keys.shape[2] >= manykeys.MANY


def _one_position(grouped: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """The query heads that share keys are the rows of one product: MLX's own way repeats the keys
    on the CPU.
    """
    weights = mx.softmax(grouped @ keys.swapaxes(-1, -2), axis=-1, precise=True)
    return weights @ values
