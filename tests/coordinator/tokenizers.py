"""Small tokenizers of the two usual kinds, with chat templates as models have them."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, processors, trainers

from daemon import embedded
from daemon.coordinator.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Thinking is left out of all answers but one that is still being written; others are trimmed.
THINKING = CHATML.replace("m.content", "m.content.split('</think>')[-1] | trim")
# Earlier turns are written anew: only the last question is told.
FORGETFUL = CHATML.replace("in messages", "in messages[-1:]")
INSTRUCT = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


def byte_level(folder: Path, template: str | None) -> Tokenizer:
    """The embedded model's, with ChatML's special tokens."""
    fast = Fast.from_file(str(embedded.TARGET / "tokenizer.json"))
    fast.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return _saved(fast, folder, template, "<|im_end|>", None)


def sentence_piece(folder: Path, template: str | None) -> Tokenizer:
    """As llama's: a space before every text, and a token in front that no text stands for."""
    fast = Fast(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special[:3], show_progress=False)
    fast.train_from_iterator(
        ["hello world, how are you? say more of the words [INST] [/INST]"], trainer
    )
    content = json.loads(fast.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in special[3:]:
        vocabulary[byte] = len(vocabulary)
    fast = Fast.from_str(json.dumps(content))
    fast.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return _saved(fast, folder, template, "</s>", "<s>")


def _saved(
    fast: Fast, folder: Path, template: str | None, end: str, begin: str | None
) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    fast.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "bos_token": begin,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer(folder)
