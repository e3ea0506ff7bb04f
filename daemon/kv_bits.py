"""In how many bits an element of a request's keys and values is held."""

from __future__ import annotations

from typing import Any

EXACT = 0  # as the model computes them
KV_BITS = (EXACT, 8, 4)


def check_kv_bits(value: Any) -> int:
    """The value, when it is one of KV_BITS; ValueError says which there are."""
    if type(value) is not int or value not in KV_BITS:
        raise ValueError(f"kv_bits is {value!r:.40}, must be 8, 4 or 0 for exact")
    return value
