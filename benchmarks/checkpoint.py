"""Writes checkpoints of random weights in Hugging Face's layout, and prompts for them.

Random llamas tend to repeat one token, because the residual stream keeps pointing at its own
input's row of the tied embedding. Layers that outweigh a small embedding cure that: the default
model emits 47 distinct tokens in 48.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

EOS = "<|end|>"
_LAYER_GAIN = 1.5
_EMBEDDING_SCALE = 0.02
_ASCII = [chr(code) for code in range(128)]
Shapes = Sequence[tuple[str, tuple[int, ...]]]


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], files: Iterable[Shapes], seed: int
) -> None:
    """One safetensors file for each element of `files`, with index, configuration and tokenizer."""
    import mlx.core as mx  # here, so that listing benchmarks needs no MLX

    rng = np.random.default_rng(seed)
    where: dict[str, str] = {}
    total = 0
    for number, shapes in enumerate(files):
        file = f"model-{number + 1:05}.safetensors"
        weights = {key: mx.array(_draw(rng, shape, key)) for key, shape in shapes}
        mx.save_safetensors(str(folder / file), weights, {"format": "pt"})
        where.update(dict.fromkeys(weights, file))
        total += sum(array.nbytes for array in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(folder / "model.safetensors.index.json", index)
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder, int(config["vocab_size"]))


def random_prompt(folder: Path, tokens: int, seed: int) -> tuple[str, list[int]]:
    """Text of exactly `tokens` tokens of the checkpoint's own tokenizer, and their ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rng = random.Random(seed)
    text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(2 * tokens))
    while len(ids := tokenizer.encode(text).ids) != tokens:
        text = text[:-1] if len(ids) > tokens else text + rng.choice("0123456789")
    return text, ids


def _draw(rng: np.random.Generator, shape: tuple[int, ...], key: str) -> npt.NDArray[np.float32]:
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    scale = _EMBEDDING_SCALE if "embed" in key else _LAYER_GAIN * shape[1] ** -0.5
    return np.asarray(rng.standard_normal(shape, dtype=np.float32) * scale, dtype=np.float32)


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Byte-level BPE whose tokens are the ASCII characters and pairs of them, so that every token
    is whole text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = [pre.pre_tokenize_str(letter)[0][0] for letter in _ASCII]
    printable = letters[32:127]
    merges = [(a, b) for a in printable for b in printable][: max(0, vocabulary - 129)]
    words = [*letters, *(a + b for a, b in merges)][: vocabulary - 1]
    words += [f"<|unused{n}|>" for n in range(vocabulary - 1 - len(words))]
    bpe = models.BPE(vocab={word: n for n, word in enumerate(words)}, merges=merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
