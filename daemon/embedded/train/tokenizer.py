"""The tokenizer: byte-level BPE, so that every text survives encoding and decoding unchanged."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from daemon.embedded.train.corpus import Module

VOCABULARY = 1024
CONTEXT = 4096
EOS = "<|endoftext|>"
EOS_ID = 0


def train_tokenizer(modules: Iterable[Module]) -> Tokenizer:
    """Learn the merges; the 256 bytes are always in the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((module.text for module in modules), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(EOS) != EOS_ID:
        raise ValueError("the corpus is too small for the vocabulary")
    return tokenizer


def encode(tokenizer: Tokenizer, modules: Iterable[Module]) -> npt.NDArray[np.int64]:
    """All modules in one row of ids, each ended by the end-of-text token."""
    ids: list[int] = []
    for encoding in tokenizer.encode_batch([module.text for module in modules]):
        ids.extend(encoding.ids)
        ids.append(EOS_ID)
    return np.array(ids, dtype=np.int64)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two files that `transformers` and mlx-lm look for."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": EOS,
        "clean_up_tokenization_spaces": False,  # would join " ." and change the text
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
