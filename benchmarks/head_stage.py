"""The ways in which a head can be computed. Runs in a process of its own, pinned before this is
imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from benchmarks.head import FUSED, LIBRARY, PLAIN, PRODUCT, SEPARATE
from daemon.engine.checkpoint import read_catalog
from daemon.engine.choosing import Choice, choose, options
from daemon.engine.compiling import compiler_works
from daemon.engine.head import Head
from daemon.engine.loading import load_part
from daemon.engine.model import read_model
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams

TEMPERATURE = 0.8


class HeadStage:
    def load(self, folder: str, rows: Sequence[int]) -> dict[str, Any]:
        path = Path(folder)
        info = read_model(path)
        layers = LayerRange(0, info.layers)
        compiled = compiler_works()
        self._partial = load_part(path, read_catalog(path), layers, None, compiled).partial
        self._vocabulary = info.vocab_size
        self._compiled = Head(self._partial, info.vocab_size)
        self._plain = Head(self._partial, info.vocab_size)
        self._hidden = {
            n: mx.random.normal((1, n, info.hidden_size)).astype(mx.float32) for n in rows
        }
        for n in rows if compiled else ():
            self._compiled.warm(self._hidden[n])
        return {"compiled": compiled}

    def time(self, rows: int, sampled: bool, way: str, repeats: int) -> dict[str, Any]:
        params = SamplingParams(temperature=TEMPERATURE if sampled else 0.0, seed=1)
        choices = [Choice(params, (), n) for n in range(rows)]
        ways: dict[str, Callable[[mx.array, list[Choice]], object]] = {
            FUSED: partial(self._ours, self._compiled),
            PLAIN: partial(self._ours, self._plain),
            SEPARATE: self._apart,
            LIBRARY: self._library,
            PRODUCT: self._product,
        }
        step, hidden = ways[way], self._hidden[rows]
        step(hidden, choices)
        began = time.perf_counter()
        for _ in range(repeats):
            step(hidden, choices)
        return {"seconds": time.perf_counter() - began}

    def _ours(self, head: Head, hidden: mx.array, choices: list[Choice]) -> object:
        return head(hidden, choices)[0].tolist()

    def _apart(self, hidden: mx.array, choices: list[Choice]) -> object:
        """Each step evaluated before the next, logits in between."""
        model = self._partial.model.model
        normed = model.norm(hidden)
        mx.eval(normed)
        logits = model.embed_tokens.as_linear(normed)[0]
        mx.eval(logits)
        given = options(choices, self._vocabulary)
        chosen = choose(given.variant, logits, *given.arrays)[0]
        mx.eval(chosen)
        return chosen.tolist()

    def _library(self, hidden: mx.array, choices: list[Choice]) -> object:
        """As mlx-lm's generate_step: log-probabilities of everything, then the sampler."""
        logits = self._partial.tail(hidden)[0]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        if temperature := choices[0].params.temperature:
            return mx.random.categorical(logprobs * (1 / temperature)).tolist()
        return mx.argmax(logprobs, axis=-1).tolist()

    def _product(self, hidden: mx.array, choices: list[Choice]) -> object:
        """`choices` are left."""
        product = self._partial.model.model.embed_tokens.as_linear(hidden)
        mx.eval(product)
        return product
