"""Random checkpoints: closed forms against what is written, and prompts of exact length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.checkpoint import random_prompt
from benchmarks.models import RandomLlama

SMALL = RandomLlama(hidden=32, layers=5, heads=4, kv_heads=2, ffn=48, vocabulary=512, context=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.folder(tmp_path_factory.mktemp("state"))


def test_the_named_model_has_51_million_parameters() -> None:
    assert RandomLlama().stage_bytes(0, 16) == 205_588_480


def test_bytes_and_names_are_what_the_engine_reads(folder: Path) -> None:
    from daemon.engine.model import read_model

    info = read_model(folder)
    assert info.weights_bytes == SMALL.stage_bytes(0, 5)
    assert info.kv_bytes_per_token_per_layer == SMALL.kv_bytes(0, 1, 1)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == SMALL.tensors(0, 5)
    assert len(set(index["weight_map"].values())) > 1


def test_stages_share_nothing_but_the_tied_embedding() -> None:
    first, last = SMALL.tensors(0, 3), SMALL.tensors(3, 5)
    assert first & last == {"model.embed_tokens.weight"}
    assert first | last == SMALL.tensors(0, 5)
    assert "model.embed_tokens.weight" not in SMALL.tensors(1, 3)


def test_a_checkpoint_is_written_once(folder: Path) -> None:
    before = (folder / "config.json").stat().st_mtime_ns
    assert SMALL.folder(folder.parent.parent) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_a_prompt_has_exactly_the_tokens_asked_for(folder: Path, tokens: int) -> None:
    from tokenizers import Tokenizer

    text, ids = random_prompt(folder, tokens, seed=3)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(ids) == tokens
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids) == text
    assert random_prompt(folder, tokens, seed=3) == (text, ids)
