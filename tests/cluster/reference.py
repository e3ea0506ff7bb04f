"""What mlx-lm gives in one process: the measure of everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model, load_tokenizer

TIE = 1e-4  # a gap between the two best logits below which the order is rounding


class Reference:
    def __init__(self, folder: Path) -> None:
        self.model, _ = load_model(folder)
        self.tokenizer: Any = load_tokenizer(folder)
        self.ties = 0
        self._known: dict[str | tuple[int, ...], list[int]] = {}
        self._more: dict[str | tuple[int, ...], Iterator[int]] = {}

    def encode(self, prompt: str | tuple[int, ...]) -> list[int]:
        """Tokens stand for themselves."""
        if isinstance(prompt, tuple):
            return list(prompt)
        ids: list[int] = self.tokenizer.encode(prompt)
        return ids

    def tokens(self, prompt: str | tuple[int, ...], count: int) -> list[int]:
        """The first `count` greedy tokens."""
        known = self._known.setdefault(prompt, [])
        if prompt not in self._more:
            steps = generate_step(mx.array(self.encode(prompt)), self.model, max_tokens=-1)
            self._more[prompt] = (int(token) for token, _ in steps)
        known += islice(self._more[prompt], max(0, count - len(known)))
        return known[:count]

    def text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens))
        return text

    def check(self, prompt: str | tuple[int, ...], got: Sequence[int]) -> None:
        """`got` is the beginning of the greedy answer, but for a tie of two tokens, which is
        counted; what follows a tie cannot be compared.
        """
        wanted = self.tokens(prompt, len(got))
        if list(got) == wanted:
            return
        at = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
        ids = self.encode(prompt) + wanted[:at]
        logits = self.model(mx.array([ids]))[0, -1].astype(mx.float32)
        gap = abs(float(logits[got[at]] - logits[wanted[at]]))
        best = float(mx.max(logits) - logits[got[at]])
        assert gap < TIE, f"token {at} is {got[at]}, not {wanted[at]}; gap {gap:g}"
        assert best < TIE, f"token {at} is {got[at]}, {best:g} below the best"
        self.ties += 1
        sys.stdout.write(f"a tie at token {at} of {prompt!r:.40}: gap {gap:g}\n")
        assert self.ties <= 2, "more ties than rounding explains"
