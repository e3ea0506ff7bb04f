"""How much memory a stage gives to KV."""

from __future__ import annotations

import pytest

from daemon.config.sections import NodeConfig
from daemon.stage.loading import kv_budget

GIB = 1 << 30


@pytest.mark.parametrize(
    ("kv_memory", "max_memory", "weights", "budget"),
    [
        (5 * GIB, None, 60 * GIB, 5 * GIB),  # as it is configured
        (None, None, 30 * GIB, (64 - 30 - 8) * GIB),  # the reserve is an eighth
        (None, 8 * GIB, 3 * GIB, (8 - 3 - 2) * GIB),  # but 2 GiB at least
        (None, None, 62 * GIB, (64 - 62 - 8) * GIB),  # less than nothing: it is not loaded
    ],
)
def test_budget(kv_memory: int | None, max_memory: int | None, weights: int, budget: int) -> None:
    node = NodeConfig(name="a", kv_memory=kv_memory, max_memory=max_memory)
    assert kv_budget(node, weights, memory=64 * GIB) == budget
