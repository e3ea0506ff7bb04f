"""What the comparisons with guesses are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.children import replaced
from benchmarks.guided.common import total_rate
from benchmarks.models import RandomLlama
from benchmarks.repeating import CYCLE, EMBEDDING, HEAD, LOUDER, predecessors, repeating_llama

SMALL = RandomLlama(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, vocabulary=130)


def test_each_token_follows_the_one_before_it_in_its_cycle() -> None:
    before = predecessors(2 * CYCLE + 3)
    assert before[0] == CYCLE - 1
    assert before[CYCLE + 1] == CYCLE
    assert sorted(before) == list(range(len(before)))
    assert before[2 * CYCLE :] == [2 * CYCLE, 2 * CYCLE + 1, 2 * CYCLE + 2]


def test_a_repeating_llama_is_a_random_one_but_for_its_ends(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    folder = repeating_llama(SMALL, tmp_path)
    assert repeating_llama(SMALL, tmp_path) == folder
    where = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert not json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    was = mx.load(str(SMALL.folder(tmp_path) / where[EMBEDDING]))
    now = mx.load(str(folder / where[HEAD]))
    assert now.keys() == was.keys() | {HEAD}
    assert mx.array_equal(now[EMBEDDING], LOUDER * was[EMBEDDING])
    assert mx.array_equal(now[HEAD][1], now[EMBEDDING][0])
    layer = "model.layers.0.mlp.up_proj.weight"
    assert mx.array_equal(now[layer], was[layer])


def test_the_rate_of_several_counts_no_first_token_and_no_pause_between() -> None:
    assert total_rate([[1.0, 2.0, 3.0], [100.0, 101.0]]) == pytest.approx(1.0)


def test_another_process_stands_for_a_child(tmp_path: Path) -> None:
    make = replaced({"daemon.coordinator": "benchmarks.guided.coordinator"})
    child = make("coordinator", ["python", "-m", "daemon.coordinator"], {}, tmp_path / "log", print)
    assert child._command == ["python", "-m", "benchmarks.guided.coordinator"]
