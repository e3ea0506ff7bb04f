"""Text to tokens and back, by the model's own tokenizer as mlx-lm loads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from daemon.engine.errors import UnreadableCheckpoint

MARK = "\n"  # SentencePiece joins it with nothing


class Detokenizer(Protocol):
    """mlx-lm's streaming detokenizer: `last_segment` is the text since it was last read, whole
    characters only.
    """

    def add_token(self, token: int) -> None: ...
    def finalize(self) -> None: ...
    @property
    def last_segment(self) -> str: ...


class Tokenizer:
    def __init__(self, folder: Path) -> None:
        """Raises UnreadableCheckpoint when the folder's tokenizer cannot be used."""
        # Takes seconds: only a coordinator with a model pays them.
        from mlx_lm import tokenizer_utils

        try:
            self._wrapped: Any = tokenizer_utils.load(folder)
        except (OSError, ValueError, KeyError) as error:
            why = f"its tokenizer cannot be read ({error})"
            raise UnreadableCheckpoint(folder, why, "copy the model again") from error

    @property
    def eos_tokens(self) -> frozenset[int]:
        return frozenset(self._wrapped.eos_token_ids)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._wrapped.has_chat_template)

    def encode(self, text: str) -> list[int]:
        """As mlx_lm.generate does: special tokens are added unless the text begins with the first
        of them.
        """
        bos = self._wrapped.bos_token
        tokens: list[int] = self._wrapped.encode(
            text, add_special_tokens=bos is None or not text.startswith(bos)
        )
        return tokens

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        tokens: list[int] = self._wrapped.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tokens

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text whose tokens `encode_chat` gives."""
        text: str = self._wrapped.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False
        )
        return text

    def encode_more(self, text: str) -> list[int]:
        """Text that goes on from other text: no special token and no space is put in front of it.
        What it names is read as special tokens.
        """
        if not self._opens_with_space:
            return self._plain(text)
        mark = self._plain(MARK)
        tokens = self._plain(MARK + text)
        return tokens[len(mark) :] if tokens[: len(mark)] == mark else self._plain(text)

    @cached_property
    def _opens_with_space(self) -> bool:
        """Whether a word at the beginning is taken for one after a space, as SentencePiece does."""
        return self._plain("a") != self._plain(MARK + "a")[len(self._plain(MARK)) :]

    def _plain(self, text: str) -> list[int]:
        tokens: list[int] = self._wrapped.encode(text, add_special_tokens=False)
        return tokens

    def text(self, tokens: Iterable[int]) -> str:
        """What tokens say that go on from other text."""
        detokenizer = self.detokenizer(continues=True)
        text = ""
        for token in tokens:
            detokenizer.add_token(token)
            text += detokenizer.last_segment
        detokenizer.finalize()
        return text + detokenizer.last_segment

    def detokenizer(self, *, continues: bool) -> Detokenizer:
        """A fresh one, for one stream. mlx-lm's leave out a space at the very beginning; a text
        that `continues` another one needs it.
        """
        fresh: Any = self._wrapped.detokenizer
        if continues and isinstance(fresh.__dict__.get("text"), str):
            fresh.text, fresh.offset = "\n", 1  # something stands there, and was shown
        detokenizer: Detokenizer = fresh
        return detokenizer
