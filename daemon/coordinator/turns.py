"""From one turn of a conversation to the prompt of the next: its tokens begin with exactly those of
the turn before, so that what the stages hold of them is used again.

Encoding the whole text anew would not do: a model need not write a word in the tokens that a
tokenizer would choose for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Codec(Protocol):
    """What continuing needs of a tokenizer."""

    def encode_more(self, text: str) -> list[int]:
        """Text that goes on from other text."""

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say that go on from other text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`tokens` stand for `text`; special tokens that only the tokenizer puts in front have none."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that has ended.

    reply  the tokens that were generated. The stop token after them is not one: where the template
           writes it, its text becomes that token again; a raw text goes on without it
    shown  the text that the client was given; `cut`: tokens of the reply say more, because a stop
           string ended it
    """

    prompt: Prompt
    reply: tuple[int, ...]
    shown: str
    cut: bool

    @property
    def text(self) -> str:
        """Prompt and answer."""
        return self.prompt.text + self.shown

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.prompt.tokens + self.reply


def go_on(codec: Codec, turn: Turn, text: str) -> Prompt | None:
    """The prompt that stands for `text` and begins with the tokens of `turn`; with those of its
    prompt only, where the reply stands in `text` in other words (cut at a stop string, or thinking
    that the template leaves out). None when `text` does not even begin with that prompt.
    """
    start = len(turn.prompt.text)
    if not text.startswith(turn.prompt.text):
        return None
    for said in () if turn.cut else (codec.text(turn.reply), turn.shown):
        if text.startswith(said, start):
            more = codec.encode_more(text[start + len(said) :])
            return Prompt(text, (*turn.tokens, *more))
    return Prompt(text, (*turn.prompt.tokens, *codec.encode_more(text[start:])))
