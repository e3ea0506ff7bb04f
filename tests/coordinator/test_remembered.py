"""Which model is served again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.coordinator.remembered import Memory, Remembered

SERVED = Remembered("qwen", (5, 3), "None None ()")


def test_it_is_recalled_until_the_configuration_wishes_otherwise(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "model.json")
    assert memory.recall("None None ()") is None
    memory.keep(SERVED)
    assert memory.recall("None None ()") == SERVED
    assert memory.recall("llama (4, 4) ('a', 'b')") is None
    memory.forget()
    assert memory.recall("None None ()") is None
    memory.forget()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"reference": 1, "split": "x"}', "\x00"])
def test_a_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    assert Memory(path).recall("None None ()") is None


def test_a_disk_that_refuses_costs_the_memory_only(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "no such folder" / "model.json")
    memory.keep(SERVED)
    assert memory.recall("None None ()") is None
