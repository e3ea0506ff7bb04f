"""How much memory a stage gives to KV."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.digest import weights_digest
from daemon.stage.loading import kv_budget, load_stage
from tests.engine.tiny import Tiny

GIB = 1 << 30


@pytest.mark.parametrize(
    ("kv_memory", "max_memory", "weights", "budget"),
    [
        (5 * GIB, None, 60 * GIB, 5 * GIB),  # as it is configured
        (None, None, 30 * GIB, (64 - 30 - 8 - 1) * GIB),  # the reserve is an eighth
        (None, 8 * GIB, 3 * GIB, (8 - 3 - 2 - 1) * GIB),  # but 2 GiB at least
        (None, None, 62 * GIB, (64 - 62 - 8 - 1) * GIB),  # less than nothing: it is not loaded
    ],
)
def test_budget(kv_memory: int | None, max_memory: int | None, weights: int, budget: int) -> None:
    node = NodeConfig(name="a", kv_memory=kv_memory, max_memory=max_memory, hidden_memory=1 * GIB)
    assert kv_budget(node, weights, memory=64 * GIB) == budget


@pytest.mark.parametrize(
    ("kv_memory", "memory"), [(1 << 20, 6 * GIB), (7 * GIB, 7 * GIB), (None, 6 * GIB)]
)
def test_memory_is_that_of_weights_and_kv(
    kv_memory: int | None, memory: int, tiny: Callable[[str, int | None], Tiny]
) -> None:
    """However little of it KV may take; more than there is, if the operator says so."""
    folder = tiny("llama", None).folder
    node = NodeConfig(name="a", kv_memory=kv_memory, max_memory=8 * GIB, hidden_memory=0)
    load = msg.Load(1, "m", str(folder), weights_digest(folder), 0, 1)
    ready = load_stage(load, folder, node, lambda done, total: None)
    told = ready.told("a", "i", load.digest, "tcp://a:1")
    assert told.memory_bytes == memory + (told.weights_bytes if kv_memory == 7 * GIB else 0)
    assert told.kv_budget_bytes == (kv_memory or memory - told.weights_bytes)
