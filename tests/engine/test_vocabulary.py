"""Two models may guess for each other when their ids mean the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.embedded import DRAFT, TARGET
from daemon.engine.errors import UnreadableCheckpoint
from daemon.engine.vocabulary import vocabulary_digest

BPE: dict[str, Any] = {"model": {"vocab": {"a": 0, "b": 1}, "merges": []}}
UNIGRAM: dict[str, Any] = {"model": {"vocab": [["a", -1.5], ["b", -2.0]]}}


def digest(folder: Path, content: object) -> str:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return vocabulary_digest(folder)


def test_the_embedded_models_agree() -> None:
    assert vocabulary_digest(TARGET) == vocabulary_digest(DRAFT)


def test_only_ids_and_tokens_count(tmp_path: Path) -> None:
    wanted = digest(tmp_path, BPE)
    merges = {"model": {"vocab": {"b": 1, "a": 0}, "merges": ["a b"]}, "added_tokens": []}
    assert digest(tmp_path, merges) == wanted
    assert digest(tmp_path, UNIGRAM) == wanted
    again = {"model": BPE["model"], "added_tokens": [{"id": 1, "content": "b"}]}
    assert digest(tmp_path, again) == wanted


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"vocab": {"a": 1, "b": 0}}},
        {"model": {"vocab": {"a": 0}}},
        {"model": {"vocab": [["a", 0.0], ["c", 0.0]]}},
        {"model": BPE["model"], "added_tokens": [{"id": 2, "content": "<eos>"}]},
    ],
)
def test_another_vocabulary_is_noticed(tmp_path: Path, other: object) -> None:
    assert digest(tmp_path, other) != digest(tmp_path, BPE)


@pytest.mark.parametrize("damaged", [{}, {"model": {"vocab": 3}}, {"model": {"vocab": {"a": "x"}}}])
def test_a_damaged_one_is_an_error_of_the_folder(tmp_path: Path, damaged: object) -> None:
    with pytest.raises(UnreadableCheckpoint, match=r"tokenizer\.json: has no vocabulary"):
        digest(tmp_path, damaged)


def test_so_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpoint, match=r"tokenizer\.json: no such file"):
        vocabulary_digest(tmp_path)
