"""What is measured of exact and of quantised KV: bytes, what a model makes of held-out text through
it, and how fast a stage decodes from it. Runs in a process of its own, pinned before this is
imported.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_tokenizer

from daemon.embedded import TARGET
from daemon.embedded.train.corpus import gather
from daemon.embedded.train.evaluate import windows
from daemon.engine.caches import CachePlan, SequenceCache
from daemon.engine.checkpoint import read_catalog
from daemon.engine.compiling import compiler_works
from daemon.engine.kv import FullCache
from daemon.engine.loading import load_part
from daemon.engine.model import read_model
from daemon.engine.quantized import QuantizedCache
from daemon.engine.stage import Row, Sampled, Stage
from daemon.footprint import GROWTH
from daemon.kv_bits import EXACT, KV_BITS
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams

CHUNK = 256
GREEDY = SamplingParams()


def size(bits: int, dtype: str, heads: int, head_size: int) -> dict[str, Any]:
    """Bytes of one position in one layer."""
    cache = FullCache() if bits == EXACT else QuantizedCache(bits, head_size)
    new = mx.zeros((1, heads, GROWTH, head_size), getattr(mx, dtype))
    cache.update_and_fetch(new, new)
    return {"bytes": cache.nbytes / cache.arrays()[0].shape[2]}


def score(bits: int, count: int, window: int, span: int) -> dict[str, Any]:
    """Nats per token that the embedded target model needs for each of `count` windows of held-out
    text, read in steps of `span`: all tokens before, and those of the step, are attended to as the
    cache holds them.
    """
    info = read_model(TARGET)
    layers = LayerRange(0, info.layers)
    partial = load_part(TARGET, read_catalog(TARGET), layers, None, compiler_works()).partial
    plan = CachePlan(partial.model, layers)
    rows = windows(held_out(), window)
    nats = []
    for row in rows[:: len(rows) // count][:count]:
        cache = plan.new(bits, info.kv_quantization.group_size)
        losses = []
        for start in range(0, window, span):
            cache.begin()
            hidden = partial.body(row[None, start : start + span], cache.entries, None)
            cache.advance(span)
            logits = partial.tail(hidden)[0]
            wanted = row[start + 1 : start + span + 1]
            losses.append(nn.losses.cross_entropy(logits, wanted))
            mx.eval(losses[-1], cache.arrays())
        nats.append(mx.concatenate(losses).mean())
    return {"nats": mx.stack(nats).tolist()}


def held_out() -> list[int]:
    """Tokens of the library modules that the embedded models' training left out."""
    tokenizer: Any = load_tokenizer(TARGET)
    ids: list[int] = []
    for module in gather().held_out:
        ids += [*tokenizer.encode(module.text), tokenizer.eos_token_id]
    return ids


class Decoding:
    """One stage of all layers, and a cache of each type that holds the prompt."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._prompt: list[int] = []
        self._caches: dict[int, SequenceCache] = {}

    def fill(self, folder: str, prompt: list[int]) -> dict[str, Any]:
        """Load the stage and read the prompt. Bytes held, in the order of KV_BITS."""
        layers = LayerRange(0, read_model(Path(folder)).layers)
        stage = self._stage = Stage.load(Path(folder), layers)
        stage.warm()
        self._prompt = prompt
        for bits in KV_BITS:
            cache = self._caches[bits] = stage.new_cache(bits)
            for start in range(0, len(prompt), CHUNK):
                part = prompt[start : start + CHUNK]
                stage.run([Row(cache, part, prompt[: start + len(part)], 0, GREEDY)])
        return {"bytes": [cache.nbytes for cache in self._caches.values()]}

    def decode(self, bits: int, tokens: int) -> dict[str, Any]:
        """Seconds for so many tokens after the prompt."""
        assert self._stage is not None
        cache, history = self._caches[bits], [*self._prompt, 0]
        start = time.perf_counter()
        for _ in range(tokens):
            (sampled,) = self._stage.run([Row(cache, history[-1:], history, 1, GREEDY)])
            assert isinstance(sampled, Sampled)
            history += sampled.tokens
        seconds = time.perf_counter() - start
        cache.trim(len(self._prompt))
        return {"seconds": seconds}
